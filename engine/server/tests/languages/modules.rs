//! One language at a time: its SDK, a new module, its build, and what goes wrong.
//!
//! Called by: `main`.

use std::fs;
use std::path::Path;

use crate::support::{Said, World, said};
use crate::{keep_target, repository, run, tools};

pub fn python_sdk() {
    run(
        "python3",
        &["-m", "unittest"],
        &repository().join("sdk-guest/python"),
    );
    let example = repository().join("examples/languages/modules/comfort");
    run("python3", &["-m", "unittest"], &example);
}

pub fn js_sdk() {
    let sdk = repository().join("sdk-guest/js");
    run("node", &["--test", "test/sdk.test.js"], &sdk);
    let example = repository().join("examples/languages/modules/alerts");
    run("node", &["--test", "test/module.test.js"], &example);
}

fn build(world: &World, dir: &str) -> Said {
    with_tools(world, &["module", "build", dir])
}

fn with_tools(world: &World, words: &[&str]) -> Said {
    let mut command = world.command(words);
    said(command.env("RUSTMQ_TOOLS", tools()).output().unwrap())
}

/// A Rust module that does something else in the sandbox: the difference is shown.
pub fn rust_cases() {
    let world = World::new();
    keep_target(&world);
    world.run(&["module", "new", "tidy"]).ok();
    let said = world.run(&["module", "test", "tidy"]).ok().out;
    assert_eq!(
        said,
        "1 cases, 2 rows: the component does what the native tests say\n"
    );
    let source = world.path("tidy/src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    let wrong = "9.0 / 5.0 + if cfg!(target_family = \"wasm\") { 33.0 } else { 32.0 }";
    fs::write(&source, text.replace("9.0 / 5.0 + 32.0", wrong)).unwrap();
    let said = world.run(&["module", "test", "tidy"]);
    let expected = "case 1:\n\
        - row 0 on out: key=- time=0 value={\"sensor\":\"roof\",\"fahrenheit\":68.0}\n\
        + row 0 on out: key=- time=0 value={\"sensor\":\"roof\",\"fahrenheit\":69.0}\n\
        1 cases, 2 rows: 1 differ: - native, + component\n";
    assert_eq!(
        (said.code, said.out.as_str()),
        (1, expected),
        "{}",
        said.err
    );

    fs::write(&source, text.replace("\"no-value\")", "\"no\")")).unwrap();
    let said = world.run(&["module", "test", "tidy"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("cargo test fails in"), "{}", said.err);
    let untested = text.split("#[cfg(test)]").next().unwrap();
    fs::write(&source, untested).unwrap();
    world
        .run(&["module", "test", "tidy"])
        .fails(1, "ran no module");
}

/// Made, tested natively, built, inspected; then broken, and the error has its line.
fn new_test_build(lang: &str, test: (&str, &[&str]), broken: (&str, &str), says: &[&str]) {
    let world = World::new();
    world.run(&["module", "new", "tidy", "--lang", lang]).ok();
    let dir = world.path("tidy");
    run(test.0, test.1, &dir);
    let built = build(&world, "tidy").ok();
    assert_eq!(built.out, "tidy/build/tidy.wasm\n");
    assert!(
        built.err.contains("building ") && built.err.contains("wrote "),
        "{}",
        built.err
    );
    let info = world
        .run(&["module", "inspect", "tidy/build/tidy.wasm", "--json"])
        .ok()
        .out;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let imports = info["imports"].as_array().unwrap();
    let ours = |name: &serde_json::Value| name.as_str().unwrap().starts_with("rustmq:etl/");
    assert!(imports.iter().all(ours), "{info}");
    assert_eq!(info["describe"]["name"], "tidy");
    assert_eq!(info["describe"]["version"], "0.1.0");

    let tried = with_tools(&world, &["module", "test", "tidy"]).ok().out;
    assert_eq!(
        tried,
        "1 cases, 2 rows: the component does what the native tests say\n"
    );
    let timed = with_tools(&world, &["module", "bench", "tidy", "--json"])
        .ok()
        .out;
    let timed: serde_json::Value = serde_json::from_str(&timed).unwrap();
    let positive = |name: &str| timed[0][name].as_f64().is_some_and(|ns| ns > 0.0);
    assert!(positive("native_ns") && positive("component_ns"), "{timed}");

    let source = dir.join(broken.0);
    let text = fs::read_to_string(&source).unwrap();
    assert!(text.contains(broken.1), "{text}");
    fs::write(&source, text.replacen(broken.1, "import ) from", 1)).unwrap();
    let refused = build(&world, "tidy");
    for part in says {
        assert!(
            refused.err.contains(part),
            "no {part:?} in: {}",
            refused.err
        );
    }
    refused.fails(1, "could not build");
}

pub fn python() {
    let test = ("python3", &["-m", "unittest"][..]);
    let says = ["module.py\", line 3", "SyntaxError"];
    new_test_build("python", test, ("module.py", "import rustmq"), &says);
}

pub fn js() {
    let test = ("npm", &["test"][..]);
    let says = ["module.js:3:", "PARSE_ERROR"];
    new_test_build(
        "js",
        test,
        ("module.js", "import { map, Reject } from"),
        &says,
    );
}

/// What comes in is of another realm than the module's own arrays; it is bytes all the same.
pub fn js_bytes() {
    let world = World::new();
    world.run(&["module", "new", "raw", "--lang", "js"]).ok();
    let module = "import { map } from '#rustmq';\n\n\
                  export default map((value) => value, { value: 'bytes' });\n";
    world.write("raw/module.js", module);
    let test = "import { test } from 'node:test';\nimport raw from '../module.js';\n\
                import { run } from '#rustmq/testing';\n\n\
                test('as it came', () => void run(raw, ['as it came']));\n";
    world.write("raw/test/module.test.js", test);
    let said = with_tools(&world, &["module", "test", "raw"]).ok().out;
    assert_eq!(
        said,
        "1 cases, 1 rows: the component does what the native tests say\n"
    );
}

/// The error says what to do, and nothing half installed is left.
fn unreachable(lang: &str, settings: &[(&str, &str)]) {
    let world = World::new();
    world.run(&["module", "new", "tidy", "--lang", lang]).ok();
    let mut command = world.command(&["module", "build", "tidy"]);
    command.env("RUSTMQ_TOOLS", world.path("tools"));
    command.env("npm_config_cache", world.path("npm"));
    command.envs(settings.iter().copied());
    let refused = said(command.output().unwrap());
    assert!(
        refused.err.contains("cannot install componentize-"),
        "{}",
        refused.err
    );
    assert!(!Path::new(&world.path("tidy/build")).exists());
    assert_eq!(fs::read_dir(world.path("tools")).unwrap().count(), 0);
    refused.fails(1, "set ");
}

pub fn python_unreachable() {
    let nowhere = [
        ("PIP_INDEX_URL", "http://127.0.0.1:9/"),
        ("PIP_RETRIES", "0"),
        ("PIP_FIND_LINKS", ""),
        ("PIP_NO_CACHE_DIR", "1"),
    ];
    unreachable("python", &nowhere);
}

pub fn js_unreachable() {
    let nowhere = [
        ("npm_config_registry", "http://127.0.0.1:9/"),
        ("npm_config_fetch_retries", "0"),
    ];
    unreachable("js", &nowhere);
}
