//! The WIT package `rustmq:etl`, embedded, and what follows from its text.
//!
//! Called by: `check` (names a module may import), server (`module build` and `module new`), tests.
//! Invariants: the text is `wit/*.wit` as it stands in the repository; nothing else defines the
//! boundary, the list of what is offered included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use wit_parser::{Resolve, SourceMap, WorldId};

/// The files of `wit/`, name and text.
pub const FILES: [(&str, &str); 14] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("data.wit", include_str!("../../../wit/data.wit")),
    ("columns.wit", include_str!("../../../wit/columns.wit")),
    ("packed.wit", include_str!("../../../wit/packed.wit")),
    ("telemetry.wit", include_str!("../../../wit/telemetry.wit")),
    ("module.wit", include_str!("../../../wit/module.wit")),
    ("state.wit", include_str!("../../../wit/state.wit")),
    ("timers.wit", include_str!("../../../wit/timers.wit")),
    (
        "packed-state.wit",
        include_str!("../../../wit/packed-state.wit"),
    ),
    ("timed.wit", include_str!("../../../wit/timed.wit")),
    ("migration.wit", include_str!("../../../wit/migration.wit")),
    ("lookup.wit", include_str!("../../../wit/lookup.wit")),
    ("http.wit", include_str!("../../../wit/http.wit")),
    ("world.wit", include_str!("../../../wit/world.wit")),
];

macro_rules! version {
    () => {
        "0.1.5"
    };
}

/// An interface or a world of the package, with its version.
macro_rules! named {
    ($name:literal) => {
        concat!("rustmq:etl/", $name, "@", version!())
    };
}

/// The package's name, without a version.
pub(crate) const PACKAGE: &str = "rustmq:etl";
/// Version of the package this host offers. Guests of the same 0.minor are linked.
pub const VERSION: &str = version!();
pub const WORLD: &str = named!("transform");
pub(crate) const DATA: &str = named!("data");
pub(crate) const TYPES: &str = named!("types");
pub(crate) const COLUMNS: &str = named!("columns");
pub(crate) const PACKED: &str = named!("packed");
pub(crate) const TELEMETRY: &str = named!("telemetry");
/// The world of modules that keep state.
pub const STATEFUL: &str = named!("stateful");
/// The same with what a node must grant.
pub const GRANTED: &str = named!("granted");
pub const STATEFUL_GRANTED: &str = named!("stateful-granted");
/// The worlds of modules that take over older state.
pub const MIGRATING: &str = named!("migrating");
pub const MIGRATING_GRANTED: &str = named!("migrating-granted");
pub(crate) const STATE: &str = named!("state");
pub(crate) const TIMERS: &str = named!("timers");
pub(crate) const PACKED_STATE: &str = named!("packed-state");
pub(crate) const TIMED: &str = named!("timed");
pub(crate) const MIGRATION: &str = named!("migration");
pub(crate) const LOOKUP: &str = named!("lookup");
pub(crate) const HTTP: &str = named!("http");
pub(crate) const MODULE: &str = named!("module");

/// Parses the embedded package and selects the world `transform`.
pub fn resolve() -> Result<(Resolve, WorldId), String> {
    resolve_world("transform")
}

fn resolve_world(name: &str) -> Result<(Resolve, WorldId), String> {
    let mut map = SourceMap::default();
    for (name, text) in FILES {
        map.push_str(name, text);
    }
    let group = map.parse().map_err(|(map, error)| error.render(&map))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).map_err(|e| e.to_string())?;
    let world = resolve
        .select_world(&[package], Some(name))
        .map_err(|e| e.to_string())?;
    Ok((resolve, world))
}

/// Names of functions and types by the interface's name without a version.
pub(crate) type Offered = BTreeMap<String, BTreeSet<String>>;

/// What this host offers: every interface of the package, with all that is inside.
pub(crate) fn offered() -> &'static Offered {
    static OFFERED: LazyLock<Offered> = LazyLock::new(|| match resolve() {
        Ok((resolve, _)) => names(&resolve),
        // not to be reached: a test parses the same text
        Err(error) => {
            tracing::error!(%error, "wit/ does not parse");
            Offered::new()
        }
    });
    &OFFERED
}

fn names(resolve: &Resolve) -> Offered {
    let mut offered = Offered::new();
    for (_, interface) in resolve.interfaces.iter() {
        let Some(name) = &interface.name else {
            continue;
        };
        let functions = interface.functions.keys();
        let inside = interface.types.keys().chain(functions).cloned().collect();
        offered.insert(format!("{PACKAGE}/{name}"), inside);
    }
    offered
}

/// The custom section that a core module built by the SDK carries: world `granted`, encoded. What the
/// module does not call is not imported.
pub fn component_type_section() -> Result<Vec<u8>, String> {
    encoded(resolve_world("granted")?)
}

/// The same of a module that keeps state: world `migrating-granted`.
pub fn stateful_type_section() -> Result<Vec<u8>, String> {
    encoded(resolve_world("migrating-granted")?)
}

fn encoded((resolve, world): (Resolve, WorldId)) -> Result<Vec<u8>, String> {
    wit_component::metadata::encode(&resolve, world, wit_component::StringEncoding::UTF8, None)
        .map_err(|e| format!("{e:#}"))
}
