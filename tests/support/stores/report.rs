//! Cases that need a server, as a test harness sees them: passed, failed, or ignored.
//!
//! Called by: test files without libtest's harness, through `#[path]`; libtest cannot skip at
//! run time. Invariants: a case whose server is missing is counted as ignored and named on
//! standard error; it fails where the servers are required. Refuses: to pass unrun.

use std::collections::BTreeSet;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::stores::pins::Pin;
use crate::stores::{find, is_required};

/// A case of a test file.
pub struct Case {
    pub name: String,
    /// The server it needs.
    pub pin: Pin,
    pub run: Box<dyn FnOnce() + Send>,
}

/// Runs what can be run and says what cannot.
pub fn run(cases: Vec<Case>) -> ExitCode {
    let mut args = Arguments::from_args();
    // Each case is a server and threads of its own; the machines are small.
    args.test_threads = args.test_threads.or(Some(2));
    let mut missing = BTreeSet::new();
    let trials = cases.into_iter().map(|case| {
        let why = find(&case.pin).err();
        let is_ignored = why.is_some() && !is_required();
        missing.extend(why.clone());
        if let (Some(why), true) = (&why, is_ignored) {
            eprintln!("SKIPPED: {}: {why}", case.name);
        }
        let name = case.name;
        let run = move || match why {
            Some(why) => Err(Failed::from(why)),
            None => {
                (case.run)();
                Ok(())
            }
        };
        Trial::test(name, run).with_ignored_flag(is_ignored)
    });
    let trials: Vec<Trial> = trials.collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if conclusion.num_ignored > 0 {
        let why: Vec<String> = missing.into_iter().collect();
        eprintln!(
            "SKIPPED: {} cases: {}",
            conclusion.num_ignored,
            why.join("; ")
        );
    }
    conclusion.exit_code()
}
