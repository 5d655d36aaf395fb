//! The functions that expressions and queries share, and what is left out of them.
//!
//! Called by the compiler here and by sql for its sessions.
//! Invariants: one list for both; unquoted names keep their case; text functions give `Utf8`.
//! Refuses: functions whose result can be far larger than their input (`repeat`, `range`,
//! `generate_series` as scalars, `array_repeat`, `array_resize`), a pad wider than a bound.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF};
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;

use crate::limits::PAD_CHARS_MAX;

/// Scalar functions that make much out of little.
pub const LEFT_OUT: [&str; 5] = [
    "repeat",
    "range",
    "generate_series",
    "array_repeat",
    "array_resize",
];

/// Says that a function of [`LEFT_OUT`] is not there, and why.
pub fn left_out(name: &str) -> String {
    format!("function `{name}` is left out: its result can outgrow memory")
}

/// Settings both sides parse and plan with.
pub fn config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let parser = &mut config.options_mut().sql_parser;
    parser.enable_ident_normalization = false;
    parser.collect_spans = true;
    parser.map_string_types_to_utf8view = false;
    config
}

/// A session with the shared functions, JSON's among them, and no tables.
///
/// # Errors
/// DataFusion refuses to register a function: a bug.
pub fn session(builder: SessionStateBuilder) -> Result<SessionState, DataFusionError> {
    let mut state = builder.with_default_features().build();
    datafusion_functions_json::register_all(&mut state)?;
    let left: Vec<String> = state
        .scalar_functions()
        .values()
        .filter(|f| LEFT_OUT.contains(&f.name()))
        .flat_map(|f: &Arc<ScalarUDF>| {
            std::iter::once(f.name()).chain(f.aliases().iter().map(String::as_str))
        })
        .map(str::to_string)
        .collect();
    for name in left {
        datafusion::execution::FunctionRegistry::deregister_udf(&mut state, &name)?;
    }
    Ok(state)
}

/// The session of all expressions.
pub(crate) fn shared() -> &'static SessionState {
    static STATE: LazyLock<SessionState> = LazyLock::new(|| {
        let builder = SessionStateBuilder::new().with_config(config());
        session(builder).expect("the functions register under their own names")
    });
    &STATE
}

/// Why one node of an expression may ask for too much memory; `None` where it does not.
pub fn too_wide(expr: &Expr) -> Option<String> {
    let Expr::ScalarFunction(call) = expr else {
        return None;
    };
    let name = call.func.name();
    if !matches!(name, "lpad" | "rpad") {
        return None;
    }
    let width = call.args.get(1)?;
    match width {
        Expr::Literal(ScalarValue::Int64(Some(n)), _) if *n <= PAD_CHARS_MAX => None,
        _ => Some(format!(
            "the width of `{name}` must be a number up to {PAD_CHARS_MAX}"
        )),
    }
}

/// What `->` gives, as JSON text; null where it is nothing.
///
/// # Errors
/// The array is not such a union.
pub fn json_text(array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    let udf = datafusion_functions_json::udfs::json_union_to_text_udf();
    let field = Arc::new(Field::new("json", array.data_type().clone(), true));
    let return_field = Arc::new(Field::new("json", DataType::Utf8View, true));
    let made = udf.invoke_with_args(ScalarFunctionArgs {
        args: vec![ColumnarValue::Array(array.clone())],
        arg_fields: vec![field],
        number_rows: array.len(),
        return_field,
        config_options: Arc::new(ConfigOptions::default()),
    })?;
    made.into_array(array.len())
}
