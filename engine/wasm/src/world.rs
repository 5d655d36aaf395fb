//! The WIT package `rustmq:etl`, embedded, and what follows from its text.
//!
//! Called by: `check` (names a module may import), server (`module build` and `module new`), tests.
//! Invariants: the text is `wit/*.wit` as it stands in the repository; nothing else defines the
//! boundary.

use wit_parser::{Resolve, SourceMap, WorldId};

/// The files of `wit/`, name and text.
pub const FILES: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("data.wit", include_str!("../../../wit/data.wit")),
    ("module.wit", include_str!("../../../wit/module.wit")),
    ("world.wit", include_str!("../../../wit/world.wit")),
];

/// Version of the package this host offers. Guests of the same 0.minor are linked.
pub const VERSION: &str = "0.1.0";
pub const WORLD: &str = "rustmq:etl/transform@0.1.0";
pub(crate) const DATA: &str = "rustmq:etl/data@0.1.0";
pub(crate) const TYPES: &str = "rustmq:etl/types@0.1.0";
pub(crate) const MODULE: &str = "rustmq:etl/module@0.1.0";

/// Parses the embedded package and selects the world `transform`.
pub fn resolve() -> Result<(Resolve, WorldId), String> {
    let mut map = SourceMap::default();
    for (name, text) in FILES {
        map.push_str(name, text);
    }
    let group = map.parse().map_err(|(map, error)| error.render(&map))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).map_err(|e| e.to_string())?;
    let world = resolve
        .select_world(&[package], Some("transform"))
        .map_err(|e| e.to_string())?;
    Ok((resolve, world))
}

/// The custom section that a core module built by the SDK carries: world `transform`, encoded.
pub fn component_type_section() -> Result<Vec<u8>, String> {
    let (resolve, world) = resolve()?;
    wit_component::metadata::encode(&resolve, world, wit_component::StringEncoding::UTF8, None)
        .map_err(|e| format!("{e:#}"))
}
