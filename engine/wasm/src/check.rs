//! What a file is and what it asks for, found out without compiling or running any of it.
//!
//! Called by: `host` (before compiling), server (`module inspect`, `module build`).
//! Invariants: every import is on the list or the module is refused; sizes and counts are bounded
//! before memory is taken; a core module with an embedded component type is made a component here.
//! Refuses: what is not WebAssembly, plain core modules, imports without a grant, versions of
//! `rustmq:etl` other than this host's 0.minor, and what a newer one of them has.

use std::borrow::Cow;
use std::collections::BTreeSet;

use model::ids::Digest;
use serde::Serialize;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wit_component::ComponentEncoder;

use crate::describe::{Description, SECTION};
use crate::error::{InspectError, LoadError};
use crate::limits::{COMPONENT_BYTES_MAX, NAMES_MAX};
use crate::link::wasi;
use crate::packages;
use crate::sign::{self, PublicKey, Trust};
use crate::world::{
    GRANTED, HTTP, MIGRATING, MIGRATING_GRANTED, MIGRATION, MODULE, PACKAGE, PACKED_STATE, STATE,
    STATEFUL, STATEFUL_GRANTED, TIMED, TIMERS, VERSION, WORLD, offered,
};

/// Interfaces of WASI that a guest may name but not use: a call into them is a trap.
const STUBBED: [&str; 5] = [
    "wasi:io/",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:filesystem/",
];

/// What a module may import of what must be granted, by name. A name that is none is refused and not
/// ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    pub names: BTreeSet<String>,
}

impl Grants {
    /// Requests to other services; what of them is allowed stands in [`crate::OpenContext`].
    pub const HTTP: &str = "http";

    pub fn http() -> Grants {
        Grants {
            names: BTreeSet::from([Grants::HTTP.to_owned()]),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Component,
    /// A core module that carries its component type; the host makes the component.
    CoreWithType,
}

/// What `module inspect` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleInfo {
    /// Of the file as given.
    pub digest: Digest,
    pub size: usize,
    pub kind: Kind,
    /// What the module says of itself.
    pub describe: Option<Description>,
    /// The version of `rustmq:etl` that it was built for.
    pub contract: Option<String>,
    /// The world it fits, when it exports what that world asks for.
    pub world: Option<String>,
    /// Whether it keeps state from batch to batch.
    pub stateful: bool,
    /// Interfaces, sorted.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Interfaces of ours, and functions and types inside them, that this host does not have.
    pub unknown: Vec<String>,
    /// Clocks and randomness of WASI: those of the batch, unless the machine's are granted.
    pub ambient: Vec<String>,
    /// Imports that are linked to deny-everything stubs.
    pub stubbed: Vec<String>,
    /// Imports that would have to be granted.
    pub grants_needed: Vec<String>,
    /// Keys whose signatures fit the file.
    pub signers: Vec<PublicKey>,
}

impl ModuleInfo {
    /// Version of the schema of what it keeps, if it keeps something.
    pub fn state_schema(&self) -> Option<u32> {
        let said = self.describe.as_ref().and_then(|d| d.state_schema);
        self.stateful.then(|| said.unwrap_or_default())
    }

    /// Older versions of it that the module takes over from.
    pub fn migrates(&self) -> &[u32] {
        let said = self.describe.as_ref();
        said.and_then(|d| d.migrates.as_deref()).unwrap_or_default()
    }
}

pub(crate) struct Inspected<'a> {
    pub(crate) info: ModuleInfo,
    pub(crate) component: Cow<'a, [u8]>,
}

/// Looks at a file.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspected<'_>, InspectError> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(InspectError::TooBig {
            size: bytes.len(),
            limit: COMPONENT_BYTES_MAX,
        });
    }
    let (kind, component) = if Parser::is_component(bytes) {
        (Kind::Component, Cow::Borrowed(bytes))
    } else if Parser::is_core_wasm(bytes) {
        match core_info(bytes)? {
            Core::Refused(info) => {
                return Ok(Inspected {
                    info: *info,
                    component: bytes.into(),
                });
            }
            Core::Typed => (Kind::CoreWithType, Cow::Owned(encode(bytes)?)),
        }
    } else if bytes.is_empty() {
        return Err(InspectError::Empty);
    } else {
        let starts = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
        return Err(InspectError::NotWasm { starts });
    };
    let info = component_info(bytes, kind, &component)?;
    Ok(Inspected { info, component })
}

/// Makes a component of a core module that carries its component type.
pub fn encode(bytes: &[u8]) -> Result<Vec<u8>, InspectError> {
    let text = |e| InspectError::Encode(format!("{e:#}"));
    packages::check(bytes)?;
    let encoder = ComponentEncoder::default().validate(true);
    encoder.module(bytes).map_err(text)?.encode().map_err(text)
}

/// Whether somebody vouches for it whom this host trusts.
pub(crate) fn vouched(info: &ModuleInfo, trust: &Trust) -> Result<(), LoadError> {
    if info.signers.iter().any(|key| trust.keys.contains(key)) {
        return Ok(());
    }
    let signers: Vec<String> = info.signers.iter().map(ToString::to_string).collect();
    let signed = match &signers[..] {
        [] => "not signed".to_owned(),
        keys => format!("signed by {} only", keys.join(", ")),
    };
    if trust.required {
        return Err(LoadError::Trust { signed });
    }
    if !trust.keys.is_empty() {
        let digest = &info.digest;
        tracing::warn!(%digest, "the module is {signed}: modules.require_signed would refuse it");
    }
    Ok(())
}

/// Whether a module may be loaded.
pub(crate) fn admit(info: &ModuleInfo, grants: &Grants) -> Result<(), LoadError> {
    if let Some(name) = grants.names.iter().find(|name| *name != Grants::HTTP) {
        return Err(LoadError::Grant { name: name.clone() });
    }
    if let Some(name) = info.unknown.first() {
        return Err(LoadError::Version {
            name: name.clone(),
            built: info.contract.clone().unwrap_or("another version".into()),
        });
    }
    for name in &info.grants_needed {
        if ours(name, HTTP) {
            if grants.names.contains(Grants::HTTP) {
                continue;
            }
            return Err(LoadError::Http { name: name.clone() });
        }
        return Err(LoadError::Import {
            name: name.clone(),
            hint: hint(name).into(),
        });
    }
    let exports = |wanted: &str| info.exports.iter().any(|name| ours(name, wanted));
    let migrates = !info.migrates().is_empty();
    let missing = [
        (MODULE, true),
        (TIMED, info.stateful),
        (MIGRATION, migrates),
    ]
    .into_iter()
    .find(|(name, asked)| *asked && !exports(name));
    if let Some((name, _)) = missing {
        return Err(LoadError::Export { name: name.into() });
    }
    Ok(())
}

/// What to do about an import that is not granted.
fn hint(name: &str) -> &'static str {
    if name.starts_with("wasi:http") || name.starts_with("wasi:sockets") {
        "modules have no network of their own; make the request with `rustmq::http`, which a node can grant"
    } else if name.starts_with("wasi_snapshot_preview1") || name.starts_with("wasi_unstable") {
        "the module was built for WASI 0.1; build it for wasm32-unknown-unknown or wasm32-wasip2"
    } else if name.starts_with("__wbindgen") || name == "env" || name.starts_with("./") {
        "the module was built for another host (a browser?); take out the dependency that needs it"
    } else {
        "a module may import rustmq:etl only; take out the dependency that needs it"
    }
}

/// Interface (with the package's name) and version of a name in our package.
fn of_package(name: &str) -> Option<(&str, &str)> {
    let (interface, version) = name.split_once('@')?;
    let (package, _) = interface.split_once('/')?;
    (package == PACKAGE).then_some((interface, version))
}

/// Whether guests of that version are linked: those of this host's 0.minor, since versions of it
/// differ by additions only.
fn linked(version: &str) -> bool {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(version) == minor(VERSION)
}

/// The same interface in a version this host links.
fn ours(name: &str, wanted: &str) -> bool {
    match (of_package(name), of_package(wanted)) {
        (Some((name, version)), Some((wanted, _))) => name == wanted && linked(version),
        _ => false,
    }
}

/// Of ours, or of what is had of WASI.
fn is_known(name: &str) -> bool {
    of_package(name).is_some() || wasi::provides(name) || is_stubbed(name)
}

fn is_stubbed(name: &str) -> bool {
    !wasi::provides(name) && STUBBED.iter().any(|prefix| name.starts_with(prefix))
}

enum Core {
    Typed,
    /// Imports that no component type explains: told as they are.
    Refused(Box<ModuleInfo>),
}

/// A core module: its imports, before anything is made of it.
fn core_info(bytes: &[u8]) -> Result<Core, InspectError> {
    let invalid = |e: wasmparser::BinaryReaderError| InspectError::Invalid(e.to_string());
    let (mut imports, mut exports, mut typed) = (BTreeSet::new(), BTreeSet::new(), false);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    note(&mut imports, "imports", import.map_err(invalid)?.module)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section.into_iter().take(NAMES_MAX) {
                    exports.insert(export.map_err(invalid)?.name.to_owned());
                }
            }
            Payload::CustomSection(section) => {
                typed |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    let known = |name: &String| is_known(name) || name.starts_with("[export]");
    let grants_needed: Vec<String> = imports.iter().filter(|n| !known(n)).cloned().collect();
    if !grants_needed.is_empty() {
        let pick = |of: fn(&str) -> bool| imports.iter().filter(|n| of(n)).cloned().collect();
        let (ambient, stubbed) = (pick(wasi::provides), pick(is_stubbed));
        return Ok(Core::Refused(Box::new(ModuleInfo {
            digest: Digest::of(bytes),
            size: bytes.len(),
            kind: Kind::CoreWithType,
            describe: None,
            contract: None,
            world: None,
            stateful: false,
            imports: imports.into_iter().collect(),
            exports: exports.into_iter().collect(),
            unknown: Vec::new(),
            ambient,
            stubbed,
            grants_needed,
            signers: Vec::new(),
        })));
    }
    if typed {
        Ok(Core::Typed)
    } else {
        Err(InspectError::NoComponentType)
    }
}

/// What stands in a component itself, not in what is inside it.
#[derive(Default)]
struct Outside {
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
    describe: Option<Description>,
}

/// Adds a name. No list is cut: what is not in it would be neither shown nor refused.
fn note(names: &mut BTreeSet<String>, what: &'static str, name: &str) -> Result<(), InspectError> {
    if names.len() >= NAMES_MAX && !names.contains(name) {
        let most = NAMES_MAX;
        return Err(InspectError::Names { what, most });
    }
    names.insert(name.to_owned());
    Ok(())
}

fn outside(component: &[u8]) -> Result<Outside, InspectError> {
    let invalid = |e: wasmparser::BinaryReaderError| InspectError::Invalid(e.to_string());
    let (mut found, mut depth) = (Outside::default(), 0usize);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            // a language's tool puts it into the core module, or beside it
            Payload::CustomSection(section) if depth <= 1 && section.name() == SECTION => {
                let described = Description::parse(section.data())?;
                if found.describe.replace(described).is_some() {
                    return Err(InspectError::Describe("there are two of them".into()));
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import.map_err(invalid)?.name.name;
                    note(&mut found.imports, "imports", name)?;
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let name = export.map_err(invalid)?.name.name;
                    note(&mut found.exports, "exports", name)?;
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn component_info(file: &[u8], kind: Kind, component: &[u8]) -> Result<ModuleInfo, InspectError> {
    let types = Validator::new_with_features(features())
        .validate_all(component)
        .map_err(|e| InspectError::Invalid(e.to_string()))?;
    let Outside {
        imports,
        exports,
        describe,
    } = outside(component)?;
    let mut unknown = Vec::new();
    for name in &imports {
        let Some((interface, version)) = of_package(name) else {
            continue;
        };
        let Some(inside) = offered().get(interface).filter(|_| linked(version)) else {
            unknown.push(name.clone());
            continue;
        };
        let item = types.component_item_for_import(name).map(|item| &item.ty);
        let Some(ComponentEntityType::Instance(id)) = item else {
            unknown.push(format!("{name} (not as an interface)"));
            continue;
        };
        let names = types[*id].exports.keys().filter(|n| !inside.contains(*n));
        unknown.extend(names.map(|inner| format!("{name}#{inner}")));
    }
    let pick = |keep: &dyn Fn(&str) -> bool| -> Vec<String> {
        imports.iter().filter(|n| keep(n)).cloned().collect()
    };
    let keeps = |name: &String| {
        [STATE, TIMERS, PACKED_STATE, TIMED]
            .iter()
            .any(|kept| ours(name, kept))
    };
    let stateful = imports.iter().chain(&exports).any(keeps);
    let of_ours = exports.iter().chain(&imports);
    let contract = of_ours.filter_map(|name| of_package(name)).next();
    Ok(ModuleInfo {
        digest: Digest::of(file),
        size: file.len(),
        kind,
        describe,
        contract: contract.map(|(_, version)| version.to_owned()),
        world: exports.iter().any(|n| ours(n, MODULE)).then(|| {
            let asks = imports.iter().any(|name| ours(name, HTTP));
            let takes = exports.iter().any(|name| ours(name, MIGRATION));
            let world = match (stateful, takes, asks) {
                (false, _, false) => WORLD,
                (false, _, true) => GRANTED,
                (true, false, false) => STATEFUL,
                (true, false, true) => STATEFUL_GRANTED,
                (true, true, false) => MIGRATING,
                (true, true, true) => MIGRATING_GRANTED,
            };
            world.to_owned()
        }),
        stateful,
        ambient: pick(&|n| wasi::provides(n)),
        stubbed: pick(&|n| is_stubbed(n)),
        grants_needed: pick(&|n| ours(n, HTTP) || !is_known(n)),
        imports: imports.into_iter().collect(),
        exports: exports.into_iter().collect(),
        unknown,
        signers: sign::signers(file).map_err(InspectError::Signature)?,
    })
}

/// Proposals that are on; the engine's configuration says the same to the compiler.
fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::COMPONENT_MODEL
}
