//! Checks on the source tree that the compiler cannot make, and what tests need from outside.
//!
//! Called by the `xtask` binary and by `tests/tidy.rs`. `tidy` reads files and writes none;
//! `stores` builds servers into a cache folder.

#[path = "../../tests/support/stores/pins.rs"]
pub mod pins;
pub mod stores;
pub mod tidy;
