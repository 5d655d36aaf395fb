//! The native tests of a module, and the cases that they write down.
//!
//! Called by: `trial`.
//! Invariants: they are run as an author runs them by hand, in the module's folder; `progress` is told what
//! they write to standard error, and if they fail what they wrote to standard output, where two of the three
//! languages say which test failed and why.
//! Refuses: tests that fail, with what they said.

use std::fs;
use std::path::Path;

use super::cargo;
use super::run::{command, last_lines, program, run};
use super::{BuildError, Lang, file, language, whole};

/// What the native tests are run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    Tests,
    /// As fast as they get, and each case is timed.
    Timed,
}

/// Runs them; returns the lines that the SDK's harness wrote, a case each.
pub async fn native_tests(
    dir: &Path,
    how: Native,
    progress: &mut dyn FnMut(&str),
) -> Result<String, BuildError> {
    let dir = &whole(dir)?;
    let work = tempfile::tempdir().map_err(|error| file("make a folder beside", dir, error))?;
    let cases = work.path().join("cases.jsonl");
    fs::write(&cases, "").map_err(|error| file("write", &cases, error))?;
    let (name, needs, mut testing) = match language(dir)? {
        Lang::Rust => {
            let mut testing = cargo::command(&program("CARGO", "cargo"), dir);
            testing.args(["test", "--color", "never"]);
            if how == Native::Timed {
                testing.arg("--release");
            }
            ("cargo test", cargo::NEEDS, testing)
        }
        Lang::Python => {
            let mut testing = command(&program("PYTHON", "python3"), dir);
            testing.args(["-m", "unittest"]);
            testing.env("PYTHONDONTWRITEBYTECODE", "1");
            ("python3 -m unittest", super::python::NEEDS, testing)
        }
        Lang::Js => {
            let mut testing = command(&program("NPM", "npm"), dir);
            testing.args(["test", "--silent"]);
            // the harness asks it which module is the folder's own
            testing.env("RUSTMQ_MODULE", super::js::main(dir)?);
            ("npm test", super::js::NEEDS, testing)
        }
    };
    progress(&format!("running {name} in {}", dir.display()));
    testing.env("RUSTMQ_CASES", &cases);
    if how == Native::Timed {
        testing.env("RUSTMQ_BENCH", "1");
    }
    let ran = run(testing, needs, progress).await?;
    if !ran.status.success() {
        let shown = last_lines(&ran.answer);
        shown.lines().for_each(progress);
        let output = format!("{}\n{shown}", ran.said);
        return Err(BuildError::Tests {
            program: name,
            dir: dir.into(),
            output,
        });
    }
    let text = fs::read(&cases).map_err(|error| file("read", &cases, error))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
