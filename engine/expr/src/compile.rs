//! From text to something that can be evaluated.
//!
//! Called when a pipeline is linted and applied; never per batch.
//! Steps: bounds, parse, resolve names against the schema, refuse what has no place here, coerce
//! types, fold constants, narrow to the columns used.
//! Invariants: runs on a thread of its own with a stack to match the bounds.
//! Refuses: see the crate's card.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{self, ExprSchemable, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;

use crate::base::{VALUE, VALUE_TEXT};
use crate::depth::depth_check;
use crate::error::{ExprError, function_advice, offset_of, plain_message, position};
use crate::functions::{self, shared, too_wide};
use crate::limits::{EXPR_BYTES_MAX, PLAN_STACK_BYTES};

/// A compiled expression. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Expr {
    pub(crate) text: Arc<str>,
    /// The columns used, in the order the physical expression counts them.
    pub(crate) input: SchemaRef,
    pub(crate) physical: Arc<dyn PhysicalExpr>,
    pub(crate) data_type: DataType,
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({:?} -> {})", self.text, self.data_type)
    }
}

impl Expr {
    /// Compiles `text` for batches that have (at least) the columns it uses.
    ///
    /// # Errors
    /// What is wrong, with its byte offset in `text` where that is known.
    pub fn compile(text: &str, schema: &Schema) -> Result<Expr, ExprError> {
        check_text(text)?;
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("expr-compile".to_string())
                .stack_size(PLAN_STACK_BYTES)
                .spawn_scoped(scope, || compile(text, schema))
                .map_err(|e| plain(format!("no thread to compile the expression on: {e}")))?
                .join()
                .unwrap_or_else(|_| {
                    Err(plain(
                        "the expression engine failed on this text: this is a bug",
                    ))
                })
        })
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the columns it uses, in the schema's order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.input
            .fields()
            .iter()
            .map(|field| field.name().as_str())
    }

    /// The Arrow type of its values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }
}

fn plain(message: impl Into<String>) -> ExprError {
    ExprError {
        message: message.into(),
        offset: None,
    }
}

fn check_text(text: &str) -> Result<(), ExprError> {
    if text.trim().is_empty() {
        return Err(ExprError {
            message: "the expression is empty".to_string(),
            offset: Some(0),
        });
    }
    if text.len() > EXPR_BYTES_MAX {
        return Err(plain(format!(
            "the expression has {} bytes, more than {EXPR_BYTES_MAX}",
            text.len()
        )));
    }
    depth_check(text).map_err(|e| plain(e.to_string()))
}

fn compile(text: &str, schema: &Schema) -> Result<Expr, ExprError> {
    let state = shared();
    let fail = |e: DataFusionError| translate(text, schema, &e);
    let whole = DFSchema::try_from(schema.clone()).map_err(fail)?;
    let dialect = state.config_options().sql_parser.dialect;
    let parsed = state.sql_to_expr_with_alias(text, &dialect).map_err(fail)?;
    if let Some(alias) = &parsed.alias {
        let start = alias.span.start;
        return Err(ExprError {
            message: format!("an expression has no alias: remove `AS {alias}`"),
            offset: offset_of(text, start.line, start.column),
        });
    }
    let logical = state
        .create_logical_expr_from_sql_expr(parsed, &whole)
        .map_err(fail)?;
    refuse(text, &logical)?;
    let used: BTreeSet<String> = logical
        .column_refs()
        .into_iter()
        .map(|column| column.name.clone())
        .collect();
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .filter(|f| used.contains(f.name()))
        .cloned()
        .collect();
    let input = Arc::new(Schema::new(fields));
    let narrow = Arc::new(DFSchema::try_from(input.clone()).map_err(fail)?);
    let context = SimplifyContext::builder()
        .with_schema(narrow.clone())
        .with_config_options(state.config_options().clone())
        .build();
    let simplifier = ExprSimplifier::new(context);
    let mut logical = simplifier.coerce(logical, &narrow).map_err(fail)?;
    for rewrite in state.analyzer().function_rewrites() {
        logical = logical
            .transform_up(|e| rewrite.rewrite(e, &narrow, state.config_options()))
            .map_err(fail)?
            .data;
    }
    if matches!(
        logical.get_type(&narrow).map_err(fail)?,
        DataType::Union(..)
    ) {
        // What `->` gives is text, string, number or nothing; JSON text is all of these.
        logical = datafusion_functions_json::functions::json_union_to_text(logical);
    }
    let logical = simplifier.simplify(logical).map_err(fail)?;
    let physical = state.create_physical_expr(logical, &narrow).map_err(fail)?;
    let data_type = physical.data_type(&input).map_err(fail)?;
    Ok(Expr {
        text: text.into(),
        input,
        physical,
        data_type,
    })
}

/// Walks the tree for what has no place in an expression over one batch.
fn refuse(text: &str, logical: &logical_expr::Expr) -> Result<(), ExprError> {
    use logical_expr::Expr as E;
    let mut found: Option<ExprError> = None;
    let walked = logical.apply(|node| {
        let (what, word) = match node {
            E::AggregateFunction(call) => (
                format!(
                    "aggregate `{}` is not possible here: an expression sees one row",
                    call.func.name()
                ),
                call.func.name().to_string(),
            ),
            E::WindowFunction(call) => (
                format!(
                    "window function `{}` is not possible here: an expression sees one row",
                    call.fun.name()
                ),
                call.fun.name().to_string(),
            ),
            E::ScalarSubquery(_)
            | E::Exists(_)
            | E::InSubquery(_)
            | E::OuterReferenceColumn(..) => (
                "subqueries are not possible here: an expression sees one row".to_string(),
                "select".to_string(),
            ),
            E::Placeholder(p) => (
                format!("placeholder `{}` has no value here", p.id),
                p.id.clone(),
            ),
            E::ScalarVariable(_, names) => (
                format!("variable `{}` has no value here", names.join(".")),
                "@".to_string(),
            ),
            E::Unnest(_) => (
                "unnest is not possible here: an expression gives one value a row".to_string(),
                "unnest".to_string(),
            ),
            E::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                let name = call.func.name().to_string();
                let advice = "its answer changes, and a replay must give the same";
                (
                    format!("function `{name}` is not possible here: {advice}; use `_timestamp`"),
                    name,
                )
            }
            node => match too_wide(node) {
                Some(message) => (message, "pad".to_string()),
                None => return Ok(TreeNodeRecursion::Continue),
            },
        };
        let offset = text.to_ascii_lowercase().find(&word.to_ascii_lowercase());
        found = Some(ExprError {
            message: what,
            offset,
        });
        Ok(TreeNodeRecursion::Stop)
    });
    walked.map_err(|e: DataFusionError| plain(plain_message(&e)))?;
    found.map_or(Ok(()), Err)
}

fn translate(text: &str, schema: &Schema, error: &DataFusionError) -> ExprError {
    let mut message = plain_message(error);
    let offset = position(text, error);
    if let Some(name) = message
        .split("nvalid function '")
        .nth(1)
        .and_then(|m| m.split('\'').next())
    {
        let state = shared();
        if functions::LEFT_OUT.contains(&name) {
            message = functions::left_out(name);
        } else if state.aggregate_functions().contains_key(name) {
            message =
                format!("aggregate `{name}` is not possible here: an expression sees one row");
        } else {
            message = function_advice(name, state.scalar_functions().keys().map(String::as_str));
        }
    }
    let uses_value = text.contains(VALUE) && !text.contains(VALUE_TEXT);
    if uses_value && message.contains("Binary") && schema.index_of(VALUE_TEXT).is_ok() {
        message.truncate(message.find(".  Hint: ").unwrap_or(message.len()));
        message.push_str("; `_value` is bytes: `_value_text` is the same as text");
    }
    ExprError { message, offset }
}
