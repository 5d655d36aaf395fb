//! Modules in Python and JavaScript, with the real tools: made, tested, built, and in one pipeline with
//! one in Rust.
//!
//! - `modules` one language at a time, and cases of Rust
//! - `asking` modules that make requests
//! - `giving_up` records that are given up after their tries
//! - `keeping` modules that keep state
//! - `system` what they expect of a system
//! - `pipeline` all three in `examples/languages`
//!
//! Called by: `cargo test -p rustmq --test languages`, after `.ci/run` or a first build by hand has put
//! the tools into `RUSTMQ_TOOLS` (else `~/.cache/rustmq-ci/tools`).
//! Invariants: a case whose program or tools are missing is counted as ignored and named on standard
//! error; it fails where `RUSTMQ_LANGUAGES=required`. Refuses: to pass unrun; to install anything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asking;
mod giving_up;
mod keeping;
mod modules;
mod pipeline;
#[path = "../support/mod.rs"]
mod support;
mod system;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

/// What a case needs to be there.
#[derive(Clone, Copy)]
enum Needs {
    Program(&'static str),
    /// A program, and its language's tools: a folder whose name begins so.
    Tools(&'static str, &'static str),
}

const CARGO: Needs = Needs::Program("cargo");
const PYTHON3: Needs = Needs::Program("python3");
const NODE: Needs = Needs::Program("node");
const NPM: Needs = Needs::Program("npm");
const PYTHON: Needs = Needs::Tools("python3", "componentize-py-");
const JS: Needs = Needs::Tools("node", "componentize-js-");

type Run = fn();

const CASES: [(&str, &[Needs], Run); 25] = [
    ("rust::cases", &[CARGO], modules::rust_cases),
    ("rust::lanes", &[CARGO], modules::rust_lanes),
    ("python::the_sdk", &[PYTHON3], modules::python_sdk),
    ("js::the_sdk", &[NODE], modules::js_sdk),
    ("python::documented", &[PYTHON3], modules::python_documented),
    ("js::documented", &[NPM], modules::js_documented),
    (
        "python::no_registry",
        &[PYTHON3],
        modules::python_unreachable,
    ),
    ("js::no_registry", &[NPM], modules::js_unreachable),
    ("python::failing_test", &[PYTHON3], modules::python_failing),
    ("js::failing_test", &[NPM], modules::js_failing),
    ("python::new_test_build", &[PYTHON], modules::python),
    ("js::new_test_build", &[JS], modules::js),
    ("js::bytes", &[JS], modules::js_bytes),
    ("python::system", &[PYTHON], system::python),
    ("js::system", &[JS], system::js),
    ("python::rows", &[PYTHON], modules::python_rows),
    ("js::rows", &[JS], modules::js_rows),
    (
        "requests_of_both",
        &[PYTHON, JS],
        asking::granted_and_refused,
    ),
    (
        "python::documented_state",
        &[PYTHON3],
        keeping::python_documented,
    ),
    ("js::documented_state", &[NODE], keeping::js_documented),
    ("python::lanes", &[PYTHON], keeping::python_lanes),
    ("js::lanes", &[JS], keeping::js_lanes),
    (
        "one_state_of_three",
        &[PYTHON, JS],
        keeping::one_state_of_three,
    ),
    (
        "records_behind_one_that_is_given_up",
        &[PYTHON, JS],
        giving_up::the_others_go_on,
    ),
    (
        "three_in_one_pipeline",
        &[PYTHON, JS],
        pipeline::three_languages,
    ),
];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // builds take a processor each; the machines are small
    args.test_threads = args.test_threads.or(Some(2));
    let required = std::env::var_os("RUSTMQ_LANGUAGES").is_some_and(|how| how == "required");
    let trials = CASES.into_iter().map(|(name, needs, run)| {
        let why = needs.iter().find_map(|needs| missing(*needs));
        let skipped = why.is_some() && !required;
        if let (Some(why), true) = (&why, skipped) {
            eprintln!("SKIPPED: {name}: {why}");
        }
        let run = move || match why {
            Some(why) => Err(Failed::from(why)),
            None => {
                run();
                Ok(())
            }
        };
        Trial::test(name, run).with_ignored_flag(skipped)
    });
    let trials: Vec<Trial> = trials.collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if conclusion.num_ignored > 0 {
        eprintln!("SKIPPED: {} cases of languages", conclusion.num_ignored);
    }
    conclusion.exit_code()
}

/// Why it is not there.
fn missing(needs: Needs) -> Option<String> {
    let (Needs::Program(program) | Needs::Tools(program, _)) = needs;
    let mut asked = Command::new(program);
    asked
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if let Err(error) = asked.status() {
        return Some(format!("cannot run {program}: {error}"));
    }
    let Needs::Tools(_, begins) = needs else {
        return None;
    };
    let entries = std::fs::read_dir(tools()).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let there = names.into_iter().any(|name| name.starts_with(begins));
    (!there).then(|| {
        format!(
            "{} holds no {begins}*: build a module of examples/languages once with RUSTMQ_TOOLS \
             set to it",
            tools().display()
        )
    })
}

fn with_tools(world: &support::World, words: &[&str]) -> support::Said {
    let mut command = world.command(words);
    support::said(command.env("RUSTMQ_TOOLS", tools()).output().unwrap())
}

/// Where the tools are kept.
fn tools() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("RUSTMQ_TOOLS") {
        return folder.into();
    }
    let home = || PathBuf::from(set("HOME").unwrap_or_default()).join(".cache");
    let cache = set("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("rustmq-ci").join("tools")
}

/// What cargo compiles in this world is kept with what it compiles for other guests.
fn keep_target(world: &support::World) {
    let target = std::fs::canonicalize(repository())
        .unwrap()
        .join("target/guests");
    let config = format!("[build]\ntarget-dir = {:?}\n", target.display().to_string());
    std::fs::create_dir_all(world.path(".cargo")).unwrap();
    std::fs::write(world.path(".cargo/config.toml"), config).unwrap();
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a program in a folder; what it said if it failed fails the test.
#[track_caller]
fn run(program: &str, words: &[&str], dir: &Path) {
    let output = Command::new(program)
        .args(words)
        .current_dir(dir)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = support::said(output);
    assert_eq!(
        said.code, 0,
        "{program} {words:?}: {}{}",
        said.out, said.err
    );
}
