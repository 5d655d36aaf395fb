//! What is wrong with an expression, and where in its text.
//!
//! Called by the compiler; sql uses the same translation for whole queries.
//! Invariants: messages name what and what to do, in lower case, without the engine's own
//! prefixes; offsets are bytes into the text as given, on a character boundary.

use datafusion::common::{Diagnostic, SchemaError, Span};
use datafusion::error::DataFusionError;

use crate::names::{advice, nearest};

/// An expression that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What, and what to do.
    pub message: String,
    /// Byte in the expression's text, where it is known.
    pub offset: Option<usize>,
}

/// An expression that failed on a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A value made it fail: a division by zero, a text that is no number.
    #[error("`{expr}` failed: {message}")]
    Failed {
        /// The expression's text.
        expr: String,
        /// The engine's reason.
        message: String,
    },
    /// The batch lacks a column, or has it with another type than the expression was compiled for.
    #[error("`{expr}` needs column `{column}` of type {expected}, the batch has {found}")]
    Column {
        /// The expression's text.
        expr: String,
        /// The column.
        column: String,
        /// The type it was compiled for.
        expected: String,
        /// The type found, or "none".
        found: String,
    },
}

/// Byte offset of line and column (both from 1, columns in characters).
pub fn offset_of(text: &str, line: u64, column: u64) -> Option<usize> {
    let mut start = 0;
    for (index, content) in text.split_inclusive('\n').enumerate() {
        if index as u64 + 1 == line {
            let within = content
                .char_indices()
                .map(|(at, _)| at)
                .chain(std::iter::once(content.len()))
                .nth(column.checked_sub(1)? as usize)?;
            return Some(start + within);
        }
        start += content.len();
    }
    None
}

/// Where in `text` the error points, if it says.
pub fn position(text: &str, error: &DataFusionError) -> Option<usize> {
    if let Some(span) = error.diagnostic().and_then(|d: &Diagnostic| d.span) {
        return span_offset(text, span);
    }
    if let Some((field, _)) = unknown_field(error) {
        return text.find(&field);
    }
    let message = error.to_string();
    if let Some(at) = message.rfind(" at Line: ") {
        let mut numbers = message[at + 10..]
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse::<u64>().ok());
        return offset_of(text, numbers.next()?, numbers.next()?);
    }
    if message.contains("found: EOF") {
        return Some(text.trim_end().len());
    }
    let name = message
        .split("Invalid function '")
        .nth(1)?
        .split('\'')
        .next()?;
    text.to_ascii_lowercase().find(&name.to_ascii_lowercase())
}

fn span_offset(text: &str, span: Span) -> Option<usize> {
    offset_of(text, span.start.line, span.start.column)
}

/// The field an error misses, and those there are.
fn unknown_field(error: &DataFusionError) -> Option<(String, Vec<String>)> {
    match root(error) {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound {
                field,
                valid_fields,
            } => {
                let known = valid_fields.iter().map(|c| c.name.clone()).collect();
                Some((field.name.clone(), known))
            }
            _ => None,
        },
        _ => None,
    }
}

fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root(inner),
        DataFusionError::Collection(all) => all.first().map_or(error, root),
        DataFusionError::Shared(inner) => root(inner),
        other => other,
    }
}

/// The error in words of ours, without prefixes, positions and advice about the engine.
pub fn plain_message(error: &DataFusionError) -> String {
    let error = root(error);
    if let Some((field, known)) = unknown_field(error) {
        let mut names: Vec<&str> = Vec::new();
        for name in &known {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        return format!(
            "unknown column `{field}`{}",
            advice(&field, "columns", &names)
        );
    }
    let text = match error {
        DataFusionError::SQL(parser, _) => parser.to_string(),
        other => other.strip_backtrace(),
    };
    tidy(&text)
}

fn tidy(text: &str) -> String {
    let mut text = text.trim();
    let prefixes = [
        "sql parser error: ",
        "SQL error: ",
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Schema error: ",
        "type_coercion",
        "Optimizer rule 'simplify_expressions' failed",
        "caused by",
        "External error: ",
        "Parquet error: ",
        "This feature is not implemented: ",
        "Invalid or Unsupported Configuration: ",
        "Cast error: ",
        "Compute error: ",
        "Parser error: ",
        "\n",
    ];
    while let Some(rest) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start();
    }
    let text = text
        .split(".\nThis issue was likely caused")
        .next()
        .unwrap_or(text);
    let text = text
        .split("\nThis issue was likely caused")
        .next()
        .unwrap_or(text);
    let text = text.split(" at Line: ").next().unwrap_or(text);
    let text = text.trim_end_matches(['.', '\n', ' ']).replace('\n', " ");
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // Acronyms such as SQL or JSON keep their capitals.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text,
    }
}

/// For functions: the engine's own guess, or ours from the names it has.
pub(crate) fn function_advice<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("unknown function `{name}`: did you mean `{near}`?"),
        None => format!("unknown function `{name}`"),
    }
}
