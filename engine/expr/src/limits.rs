//! Bounds on expressions and queries as text. Whoever raises one runs `stack_is_safe` again.

/// Longest text of one expression, in bytes.
pub const EXPR_BYTES_MAX: usize = 64 << 10;
/// Longest chain of operators without a comma, parentheses added up.
pub const OPERATORS_MAX: usize = 400;
/// Most set operations and joins in one query.
pub const SET_OPERATIONS_MAX: usize = 100;
/// Stack of the thread that plans: enough for the bounds above, and the parser's own of 50 nested
/// expressions, in a build without
/// optimisation.
pub const PLAN_STACK_BYTES: usize = 64 << 20;
/// Widest result of `lpad` and `rpad`, in characters.
pub const PAD_CHARS_MAX: i64 = 4096;
