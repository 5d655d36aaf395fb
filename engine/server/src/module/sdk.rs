//! The SDK's source and `wit/`, embedded in the binary.
//!
//! Called by: `module::new` (into `NAME/.rustmq/`), the demo (beside the example).
//! Invariants: laid out as in the repository, so that relative paths between example and SDK
//! hold; a test finds files that were added to the SDK and not to this list.

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$((
            $path,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path)).as_slice(),
        )),*]
    };
}

const SDK: [(&str, &[u8]); 46] = files![
    "sdk-guest/Cargo.toml",
    "sdk-guest/component-type.bin",
    "sdk-guest/macros/Cargo.toml",
    "sdk-guest/macros/src/lib.rs",
    "sdk-guest/macros/src/params.rs",
    "sdk-guest/macros/src/row.rs",
    "sdk-guest/src/abi/columns.rs",
    "sdk-guest/src/abi/mod.rs",
    "sdk-guest/src/abi/state.rs",
    "sdk-guest/src/abi/telemetry.rs",
    "sdk-guest/src/batch.rs",
    "sdk-guest/src/column.rs",
    "sdk-guest/src/describe.rs",
    "sdk-guest/src/lib.rs",
    "sdk-guest/src/native/mod.rs",
    "sdk-guest/src/native/outbox.rs",
    "sdk-guest/src/native/state.rs",
    "sdk-guest/src/native/telemetry.rs",
    "sdk-guest/src/outbox.rs",
    "sdk-guest/src/record.rs",
    "sdk-guest/src/row.rs",
    "sdk-guest/src/rt/make.rs",
    "sdk-guest/src/rt/mod.rs",
    "sdk-guest/src/rt/slot.rs",
    "sdk-guest/src/rt/take.rs",
    "sdk-guest/src/state.rs",
    "sdk-guest/src/telemetry.rs",
    "sdk-guest/src/testing/json.rs",
    "sdk-guest/src/testing/lane.rs",
    "sdk-guest/src/testing/mod.rs",
    "sdk-guest/src/time.rs",
    "sdk-guest/src/typed.rs",
    "sdk-guest/src/value.rs",
    "sdk-guest/stateful-type.bin",
    "wit/README.md",
    "wit/columns.wit",
    "wit/data.wit",
    "wit/module.wit",
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

/// Every file of the SDK: its place below the folder it is laid out in, and its bytes.
pub fn sdk_files() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    std::iter::once(("Cargo.toml", WORKSPACE)).chain(SDK)
}
