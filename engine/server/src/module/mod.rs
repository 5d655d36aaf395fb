//! Guest modules from the author's side: make one, build one.
//!
//! - `new` writes a folder with an example, a test and the SDK; `build` makes a component of it
//! - `lang` the languages
//! - `trial` runs the native tests, then their `cases` through the component (`replay`)
//! - `sign` keys and signatures
//! - `compiler` this program as the process that compiles one
//! - `sdk` the SDK's source, carried in the binary
//!
//! Called by: `cli::module`, `cli::pipeline` (sources that are folders), the demo, tests, benches.
//! Invariants: works away from a checkout; what the build prints passes through; a component is
//! written only when the sandbox would load it.

mod build;
mod cases;
pub(crate) mod compiler;
mod lang;
mod new;
mod replay;
mod sdk;
mod sign;
mod trial;

#[cfg(test)]
mod tests;

pub use build::{BuildError, TARGET, build, build_into, language};
pub use lang::Lang;
pub use new::{NewError, new};
pub use sdk::sdk_files;
pub use sign::{SignError, keygen, sign};
pub use trial::{Timed, TrialError, Tried, bench, test};
