//! Tests of the sandbox.

use std::path::Path;

use crate::world;

#[test]
fn the_sdk_carries_the_world_of_wit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk-guest/component-type.bin");
    let section = world::component_type_section().expect("wit/ is valid");
    if std::env::var_os("RUSTMQ_BLESS").is_some() {
        std::fs::write(&path, &section).expect("the SDK's folder is writable");
    }
    let carried = std::fs::read(&path).expect("the SDK carries its component type");
    assert!(
        carried == section,
        "wit/ has changed: run this test with RUSTMQ_BLESS=1"
    );
}
