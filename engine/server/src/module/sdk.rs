//! The SDK's source and `wit/`, embedded in the binary.
//!
//! Called by: `module::new` (into `NAME/.rustmq/`), the demo (beside the example).
//! Invariants: laid out as in the repository, so that relative paths between example and SDK
//! hold; a test finds files that were added to the SDK and not to this list.

use super::lang::Lang;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$((
            $path,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path)).as_slice(),
        )),*]
    };
}

const RUST: [(&str, &[u8]); 44] = files![
    "sdk-guest/Cargo.toml",
    "sdk-guest/component-type.bin",
    "sdk-guest/macros/Cargo.toml",
    "sdk-guest/macros/src/kept.rs",
    "sdk-guest/macros/src/lib.rs",
    "sdk-guest/macros/src/params.rs",
    "sdk-guest/macros/src/row.rs",
    "sdk-guest/src/abi/columns.rs",
    "sdk-guest/src/abi/lookup.rs",
    "sdk-guest/src/abi/http.rs",
    "sdk-guest/src/abi/mod.rs",
    "sdk-guest/src/abi/state.rs",
    "sdk-guest/src/abi/telemetry.rs",
    "sdk-guest/src/batch.rs",
    "sdk-guest/src/column.rs",
    "sdk-guest/src/describe.rs",
    "sdk-guest/src/fill.rs",
    "sdk-guest/src/http.rs",
    "sdk-guest/src/lib.rs",
    "sdk-guest/src/native/lookup.rs",
    "sdk-guest/src/native/http.rs",
    "sdk-guest/src/native/mod.rs",
    "sdk-guest/src/native/outbox.rs",
    "sdk-guest/src/native/state.rs",
    "sdk-guest/src/native/telemetry.rs",
    "sdk-guest/src/lookup.rs",
    "sdk-guest/src/outbox.rs",
    "sdk-guest/src/record.rs",
    "sdk-guest/src/row.rs",
    "sdk-guest/src/rt/make.rs",
    "sdk-guest/src/rt/mod.rs",
    "sdk-guest/src/rt/slot.rs",
    "sdk-guest/src/rt/straight.rs",
    "sdk-guest/src/rt/take.rs",
    "sdk-guest/src/state.rs",
    "sdk-guest/src/telemetry.rs",
    "sdk-guest/src/testing/case.rs",
    "sdk-guest/src/testing/json.rs",
    "sdk-guest/src/testing/lane.rs",
    "sdk-guest/src/testing/mod.rs",
    "sdk-guest/src/time.rs",
    "sdk-guest/src/typed.rs",
    "sdk-guest/src/value.rs",
    "sdk-guest/stateful-type.bin",
];

const PYTHON: [(&str, &[u8]); 21] = files![
    "sdk-guest/python/component.py",
    "sdk-guest/python/describe.py",
    "sdk-guest/python/rustmq/__init__.py",
    "sdk-guest/python/rustmq/_asking.py",
    "sdk-guest/python/rustmq/_batch.py",
    "sdk-guest/python/rustmq/_cases.py",
    "sdk-guest/python/rustmq/_json.py",
    "sdk-guest/python/rustmq/_keeping.py",
    "sdk-guest/python/rustmq/_lookup.py",
    "sdk-guest/python/rustmq/_module.py",
    "sdk-guest/python/rustmq/_native.py",
    "sdk-guest/python/rustmq/_record.py",
    "sdk-guest/python/rustmq/_row.py",
    "sdk-guest/python/rustmq/_sandbox.py",
    "sdk-guest/python/rustmq/_state.py",
    "sdk-guest/python/rustmq/_take.py",
    "sdk-guest/python/rustmq/_telemetry.py",
    "sdk-guest/python/rustmq/_typed.py",
    "sdk-guest/python/rustmq/_typed_json.py",
    "sdk-guest/python/rustmq/http.py",
    "sdk-guest/python/rustmq/testing.py",
];

/// Without `tools/`, which the build carries itself.
const JS: [(&str, &[u8]); 23] = files![
    "sdk-guest/js/batch.js",
    "sdk-guest/js/cases.js",
    "sdk-guest/js/component.js",
    "sdk-guest/js/console.js",
    "sdk-guest/js/http.js",
    "sdk-guest/js/http_component.js",
    "sdk-guest/js/http_host.js",
    "sdk-guest/js/index.js",
    "sdk-guest/js/json.js",
    "sdk-guest/js/lookup.js",
    "sdk-guest/js/module.js",
    "sdk-guest/js/native.js",
    "sdk-guest/js/package.json",
    "sdk-guest/js/place.js",
    "sdk-guest/js/record.js",
    "sdk-guest/js/row.js",
    "sdk-guest/js/state.js",
    "sdk-guest/js/state_component.js",
    "sdk-guest/js/state_host.js",
    "sdk-guest/js/telemetry.js",
    "sdk-guest/js/testing.js",
    "sdk-guest/js/typed.js",
    "sdk-guest/js/typed_json.js",
];

/// What every language has.
const WIT: [(&str, &[u8]); 16] = files![
    "wit/README.md",
    "wit/columns.wit",
    "wit/data.wit",
    "wit/http.wit",
    "wit/lookup.wit",
    "wit/migration.wit",
    "wit/module.wit",
    "wit/packed-state.wit",
    "wit/packed.wit",
    "wit/state.wit",
    "wit/telemetry.wit",
    "wit/timed.wit",
    "wit/timers.wit",
    "wit/types.wit",
    "wit/world.wit",
    "LICENSE",
];

/// Manifest of the folder that the files are laid out in: a workspace of the SDK alone.
const WORKSPACE: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../sdk-guest/workspace.toml"
));

/// Every file of a language's SDK: its place below the folder it is laid out in, and its bytes.
pub fn sdk_files(lang: Lang) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let (workspace, files): (_, &[_]) = match lang {
        Lang::Rust => (Some(("Cargo.toml", WORKSPACE)), &RUST),
        Lang::Python => (None, &PYTHON),
        Lang::Js => (None, &JS),
    };
    workspace
        .into_iter()
        .chain(files.iter().copied())
        .chain(WIT)
}
