//! `rustmq module test` and `module bench`: the native tests first, then the same cases through the
//! component.
//!
//! Called by: `cli::module`.
//! Invariants: one source of truth, the native tests: the harness of each SDK writes its runs down where
//! `RUSTMQ_CASES` says. The component is the one that `build` makes, in the sandbox of the server.
//! Refuses: tests that run no module through the harness, or only others than the folder's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wasm::{Grants, Host, HostConfig, Module};

use super::build::{self, BuildError, Native, build};
use super::cases::Case;
use super::compiler;
use crate::output;

#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{} does not load: {error}", .path.display())]
    Load {
        path: PathBuf,
        error: wasm::LoadError,
    },
    #[error("the sandbox does not start: {0}")]
    Host(#[from] wasm::HostError),
    #[error(
        "the native tests of {} ran no module through the SDK's `testing`, so there is nothing to \
         try in the component; see the test that `rustmq module new` writes",
        .dir.display()
    )]
    NoCases { dir: PathBuf },
    #[error(
        "the native tests of {} ran {ran} through the SDK's `testing`, and not {own}, which is what the \
         component exports: run that one, too",
        .dir.display()
    )]
    Others {
        dir: PathBuf,
        own: String,
        ran: String,
    },
    #[error("the native tests wrote what cannot be read: {0}; is the SDK of another version?")]
    Cases(String),
}

impl TrialError {
    /// As [`BuildError::in_short`].
    pub fn in_short(&self) -> String {
        match self {
            TrialError::Build(error) => error.in_short(),
            other => other.to_string(),
        }
    }
}

/// A case and how it went.
pub struct Tried {
    /// From 1, in the order in which the native tests wrote.
    pub number: usize,
    pub rows: usize,
    /// What differs, or why the component did not run it; empty if nothing.
    pub diff: String,
}

/// A case and what a row costs, in nanoseconds.
pub struct Timed {
    pub number: usize,
    pub rows: usize,
    pub native_ns: f64,
    pub component_ns: f64,
}

/// Runs the native tests of the module in `dir`, builds it, and runs their cases through the component.
pub async fn test(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<Vec<Tried>, TrialError> {
    let (cases, module) = prepared(dir, Native::Tests, progress).await?;
    progress(&format!(
        "running {} through the component",
        output::count(cases.len() as u64, "case")
    ));
    let tried = cases.iter().zip(1..).map(|(case, number)| Tried {
        number,
        rows: case.rows(),
        diff: match case.compare(&module) {
            Ok(diff) => diff,
            Err(why) => format!("+ the component fails: {why}\n"),
        },
    });
    Ok(tried.collect())
}

/// As [`test`], but for the time that rows take: of a lane those of its first batch. Cases with retries or
/// without rows are left out.
pub async fn bench(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<Vec<Timed>, TrialError> {
    let (cases, module) = prepared(dir, Native::Timed, progress).await?;
    progress("timing the component");
    let mut timed = Vec::new();
    for (case, number) in cases.iter().zip(1..) {
        let Some(native_ns) = case.native_ns.filter(|_| !case.has_retries()) else {
            continue;
        };
        let component_ns = case.time(&module);
        timed.push(Timed {
            number,
            rows: case.rows_timed(),
            native_ns,
            component_ns: component_ns
                .map_err(|e| TrialError::Cases(format!("case {number}: {e}")))?,
        });
    }
    Ok(timed)
}

async fn prepared(
    dir: &Path,
    how: Native,
    progress: &mut dyn FnMut(&str),
) -> Result<(Vec<Case>, Module), TrialError> {
    let text = build::native_tests(dir, how, progress).await?;
    let mut cases = Case::read(&text).map_err(TrialError::Cases)?;
    if cases.is_empty() {
        return Err(TrialError::NoCases { dir: dir.into() });
    }
    let path = build(dir, progress).await?;
    let bytes = fs::read(&path).map_err(|error| BuildError::File {
        doing: "read",
        path: path.clone(),
        error,
    })?;
    progress("compiling the component, once");
    let host = Host::new(HostConfig {
        cache_dir: Some(dir.join("build/compiled")),
        compiler: compiler::program(),
        ..HostConfig::default()
    })?;
    let module = host
        .load(&bytes, &Grants::http())
        .map_err(|error| TrialError::Load { path, error })?;
    own(dir, &mut cases, &module, progress)?;
    Ok((cases, module))
}

/// Leaves out the cases of other modules, which a test may run as well.
fn own(
    dir: &Path,
    cases: &mut Vec<Case>,
    module: &Module,
    progress: &mut dyn FnMut(&str),
) -> Result<(), TrialError> {
    let described = module.info().describe.as_ref();
    let Some(own) = described.and_then(|described| described.module.as_deref()) else {
        return Ok(());
    };
    let others = cases.iter().filter_map(|case| case.other(own));
    let others: BTreeSet<String> = others.map(str::to_owned).collect();
    if others.is_empty() {
        return Ok(());
    }
    let before = cases.len();
    cases.retain(|case| case.other(own).is_none());
    let ran = others.into_iter().collect::<Vec<_>>().join(", ");
    if cases.is_empty() {
        let (dir, own) = (dir.to_owned(), own.to_owned());
        return Err(TrialError::Others { dir, own, ran });
    }
    let left_out = output::count((before - cases.len()) as u64, "case");
    progress(&format!(
        "leaving out {left_out} of other modules than {own}: {ran}"
    ));
    Ok(())
}
