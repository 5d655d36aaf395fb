//! SQL expressions over columns: compiled once, evaluated batch by batch.
//!
//! Called by pipelines (`where`, `select`, `key`, `cases`) and by sql, which takes its functions,
//! limits and name suggestions from here, so that an expression means the same in both.
//!
//! Invariants: an expression gives the same answer for the same rows for ever (no clock, no
//! randomness), one value a row; compiling cannot exhaust the stack; names are taken as written,
//! case included.
//! Refuses: aggregates, subqueries, window functions, placeholders, volatile functions, functions
//! whose result can outgrow memory, texts and nesting beyond the bounds in [`limits`].

mod base;
mod compile;
mod depth;
mod error;
mod eval;
pub mod functions;
pub mod limits;
pub mod names;
#[cfg(test)]
mod tests;

pub use base::{KEY, TIMESTAMP, VALUE, VALUE_TEXT, base_batch, base_schema, text_of};
pub use compile::Expr;
pub use depth::{TooDeep, depth_check};
pub use error::{EvalError, ExprError, offset_of, plain_message, position};
pub use eval::Predicate;
