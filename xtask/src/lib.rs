//! Checks on the source tree that the compiler cannot make.
//!
//! Called by the `xtask` binary and by `tests/tidy.rs`. Reads files, writes none.

pub mod tidy;
