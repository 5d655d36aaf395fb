//! The packages that the component type of a core module names, and that none needs itself.
//!
//! Called by: `check`, before the type is decoded: wit-parser follows packages that need each other until
//! the stack is full, which ends the process. Pure. Invariants: a package is taken to need those that were
//! named before an interface of it, which is more than it can use: what is used must stand before.
//! Refuses: packages that may need each other, and more of them than `PACKAGES_MAX`.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{
    BinaryReaderError, ComponentExternName, ComponentType, ComponentTypeDeclaration, Parser,
    Payload,
};

use crate::error::InspectError;

const PACKAGES_MAX: usize = 64;

/// What each package may need.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// Refuses a core module whose types cannot be put in order.
pub(crate) fn check(module: &[u8]) -> Result<(), InspectError> {
    let invalid = |e: BinaryReaderError| InspectError::Invalid(e.to_string());
    let mut needs = Needs::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CustomSection(section) = payload.map_err(invalid)?
            && section.name().starts_with("component-type")
        {
            let named = named(section.data()).map_err(invalid)?;
            note(&mut needs, &named);
        }
    }
    if needs.len() > PACKAGES_MAX {
        let count = needs.len();
        let message = format!("its type names {count} packages, at most {PACKAGES_MAX} are taken");
        return Err(InspectError::Encode(message));
    }
    match in_a_circle(needs) {
        None => Ok(()),
        Some(package) => Err(InspectError::Encode(format!(
            "its type names interfaces of the package {package} before and after those of another, so the \
             two may need each other: make a component of it (`wasm-tools component new`)"
        ))),
    }
}

/// Packages in the order in which a type names interfaces of them.
fn named(section: &[u8]) -> Result<Vec<String>, BinaryReaderError> {
    let mut named = Vec::new();
    // a version of the encoding may stand before the component
    let Some(at) = section.windows(4).position(|bytes| bytes == b"\0asm") else {
        return Ok(named);
    };
    for payload in Parser::new(0).parse_all(&section[at..]) {
        match payload? {
            Payload::ComponentTypeSection(types) => {
                for ty in types {
                    inside(&ty?, &mut named);
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    name(&import?.name, &mut named);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    name(&export?.name, &mut named);
                }
            }
            _ => {}
        }
    }
    Ok(named)
}

fn inside(ty: &ComponentType<'_>, named: &mut Vec<String>) {
    let ComponentType::Component(declarations) = ty else {
        return;
    };
    for declaration in declarations {
        match declaration {
            ComponentTypeDeclaration::Type(ty) => inside(ty, named),
            ComponentTypeDeclaration::Import(import) => name(&import.name, named),
            ComponentTypeDeclaration::Export { name: export, .. } => name(export, named),
            _ => {}
        }
    }
}

/// `ns:package@version` of an interface's name.
fn name(name: &ComponentExternName<'_>, named: &mut Vec<String>) {
    for full in [Some(name.name), name.implements].into_iter().flatten() {
        if let Some((package, interface)) = full.split_once('/') {
            let version = interface.split_once('@').map_or("", |(_, version)| version);
            let suffix = name.version_suffix.unwrap_or_default();
            named.push(format!("{package}@{version}{suffix}"));
        }
    }
}

fn note(needs: &mut Needs, named: &[String]) {
    let mut before = BTreeSet::new();
    for package in named {
        let others = before.iter().filter(|other| *other != package).cloned();
        needs.entry(package.clone()).or_default().extend(others);
        if before.len() <= PACKAGES_MAX {
            before.insert(package.clone());
        }
    }
}

/// One of those that cannot be put in order, if there are some.
fn in_a_circle(mut needs: Needs) -> Option<String> {
    while let Some(free) = needs.iter().find(|(_, needed)| needed.is_empty()) {
        let free = free.0.clone();
        needs.remove(&free);
        for needed in needs.values_mut() {
            needed.remove(&free);
        }
    }
    needs.into_keys().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(named: &[&str], expected: Option<&str>) {
        let mut needs = Needs::new();
        for list in named {
            let list: Vec<String> = list.split_whitespace().map(str::to_owned).collect();
            note(&mut needs, &list);
        }
        assert_eq!(in_a_circle(needs).as_deref(), expected, "{named:?}");
    }

    #[test]
    fn packages_that_may_need_each_other_are_found() {
        check(&[], None);
        check(&["a a a"], None);
        check(&["a b b c"], None);
        check(&["a b a"], Some("a"));
        check(&["a b", "b c", "c a"], Some("a"));
        check(&["x a b", "b c b"], Some("b"));
    }
}
