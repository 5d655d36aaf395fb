//! What is refused before it runs, and what the cache does.

use super::*;
use crate::error::{InspectError, LoadError};
use crate::{Kind, limits};

fn refused(bytes: &[u8]) -> String {
    match host().load(bytes, &Grants::default()) {
        Ok(_) => panic!("it must not load"),
        Err(error) => error.to_string(),
    }
}

fn component(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn inspect_lists_what_is_there() {
    let bytes = guest("", "");
    let info = Host::inspect(&bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((info.kind, info.size), (Kind::CoreWithType, bytes.len()));
    assert_eq!(
        info.imports,
        ["rustmq:etl/data@0.1.5", "rustmq:etl/types@0.1.5"]
    );
    assert_eq!(info.exports, ["rustmq:etl/module@0.1.5"]);
    assert_eq!(info.world.as_deref(), Some("rustmq:etl/transform@0.1.5"));
    assert!(info.grants_needed.is_empty() && info.unknown.is_empty());
    let encoded = crate::check::encode(&bytes).unwrap_or_else(|e| panic!("{e}"));
    let info = Host::inspect(&encoded).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((info.kind, info.exports.len()), (Kind::Component, 1));
    load(&encoded);
}

#[test]
fn not_a_module() {
    assert!(refused(b"#!/bin/sh\n").contains("not a WebAssembly file"));
    assert!(refused(b"").contains("the file is empty"));
    let plain = component("(module (func (export \"run\")))");
    assert_eq!(refused(&plain), InspectError::NoComponentType.to_string());
    let mut torn = guest("", "");
    torn.truncate(torn.len() / 2);
    let text = refused(&torn);
    assert!(
        text.contains("not valid") || text.contains("component type"),
        "{text}"
    );
}

/// Of a list that is cut, the rest would be neither shown nor refused.
#[test]
fn names_beyond_what_is_listed_are_refused() {
    let imports = |count: usize| -> String {
        let each = |i| format!("(import \"wasi:cli/f{i}\" (func))");
        (0..count).map(each).collect()
    };
    let named = |count| component(&format!("(component {})", imports(count)));
    let most = limits::NAMES_MAX;
    let info = Host::inspect(&named(most)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(info.imports.len(), most);
    let what = "imports";
    assert_eq!(
        refused(&named(most + 1)),
        InspectError::Names { what, most }.to_string()
    );
}

#[test]
fn too_big() {
    let text = refused(&vec![0; limits::COMPONENT_BYTES_MAX + 1]);
    assert!(text.contains("the limit is 34537472"), "{text}");
}

#[test]
fn imports_that_were_not_granted() {
    for (wat, name, hint) in [
        (
            r#"(module (import "wasi_snapshot_preview1" "fd_write"
                 (func (param i32 i32 i32 i32) (result i32))))"#,
            "wasi_snapshot_preview1",
            "wasm32-wasip2",
        ),
        (
            r#"(module (import "env" "now" (func (result i64))))"#,
            "env",
            "another host",
        ),
        (
            r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#,
            "wasi:http/outgoing-handler@0.2.0",
            "no network of their own",
        ),
        (
            r#"(component (import "rustmq:etl/data@0.2.0" (instance)))"#,
            "built for rustmq:etl 0.2.0 and imports rustmq:etl/data@0.2.0",
            "offers rustmq:etl 0.1.5",
        ),
        (
            r#"(component (import "rustmq:etl/data@0.1.7" (instance
                 (export "now" (func (result u64))))))"#,
            "built for rustmq:etl 0.1.7 and imports rustmq:etl/data@0.1.7#now",
            "build the module with the SDK",
        ),
        (
            r#"(component (import "rustmq:etl/teleport@0.1.9" (instance)))"#,
            "built for rustmq:etl 0.1.9 and imports rustmq:etl/teleport@0.1.9",
            "or run a newer server",
        ),
    ] {
        let text = refused(&component(wat));
        assert!(text.contains(name) && text.contains(hint), "{text}");
    }
}

/// A guest that imports `exit` of WASI, as one built for wasm32-wasip2 may, and calls it.
fn exiting() -> Vec<u8> {
    let wit = "package test:guest;
        world guest { import wasi:cli/exit@0.2.4; include rustmq:etl/transform@0.1.5; }
        package wasi:cli@0.2.4 { interface exit { exit-with-code: func(code: u8); } }";
    let (mut resolve, _) = world::resolve().unwrap_or_else(|e| panic!("{e}"));
    let package = resolve
        .push_source("test.wit", wit)
        .unwrap_or_else(|e| panic!("{e:#}"));
    let world = resolve
        .select_world(&[package], None)
        .unwrap_or_else(|e| panic!("{e:#}"));
    let encoding = wit_component::StringEncoding::UTF8;
    let section = wit_component::metadata::encode(&resolve, world, encoding, None)
        .unwrap_or_else(|e| panic!("{e:#}"));
    let import = r#"(module (import "wasi:cli/exit@0.2.4" "exit-with-code"
        (func $exit (param i32)))"#;
    let wat = wat("", "(call $exit (i32.const 3))").replacen("(module", import, 1);
    with_section(&wat, &section)
}

#[test]
fn wasi_is_stubbed_and_denied() {
    let bytes = exiting();
    let info = Host::inspect(&bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(info.stubbed, ["wasi:cli/exit@0.2.4"]);
    assert!(info.grants_needed.is_empty(), "{info:?}");
    let mut guest = open(&bytes, &Limits::default());
    let text = run(&mut guest, &rows())
        .expect_err("it is denied")
        .to_string();
    let expected = "the module called wasi:cli/exit@0.2.4#exit-with-code, which is not granted";
    assert!(text.contains(expected), "{text}");
}

/// Parts of a component that pass text to each other: wasmtime's adapter between them has the
/// memories of both, whatever proposals a module itself may use.
#[test]
fn a_component_of_several_parts_is_compiled() {
    let part = |imports: &str, call: &str| {
        format!(
            r#"(core module $m {imports}
                 (memory (export "memory") 1)
                 (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
                 (func (export "say") (param i32 i32) {call}))"#
        )
    };
    let lift = r#"(func $say (param "text" string)
        (canon lift (core func $i "say") (memory (core memory $i "memory"))
            (realloc (core func $i "realloc"))))"#;
    let wat = format!(
        r#"(component
          (component $hears {} (core instance $i (instantiate $m)) {lift} (export "say" (func $say)))
          (component $says (import "say" (func $to (param "text" string)))
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (core func $lowered (canon lower (func $to) (memory (core memory $memory "memory"))))
            {} (core instance $i (instantiate $m
              (with "to" (instance (export "say" (func $lowered))))))
            {lift} (export "say" (func $say)))
          (instance $hears (instantiate $hears))
          (instance $says (instantiate $says (with "say" (func $hears "say")))))"#,
        part("", ""),
        part(
            r#"(import "to" "say" (func $to (param i32 i32)))"#,
            "(call $to (i32.const 0) (i32.const 4))"
        ),
    );
    let bytes = wat::parse_str(&wat).unwrap_or_else(|e| panic!("{e}"));
    let engine = wasmtime::Engine::new(&crate::host::engine_config(false));
    let engine = engine.unwrap_or_else(|e| panic!("{e}"));
    let compiled = wasmtime::component::Component::new(&engine, &bytes);
    assert!(compiled.is_ok(), "{:?}", compiled.err());
    // a module of several memories is refused before, see `proposals_that_are_off`
    assert!(Host::inspect(&bytes).is_ok());
}

#[test]
fn grants_of_what_does_not_exist() {
    let grants = Grants {
        names: ["moon".to_owned()].into(),
    };
    let error = host().load(&guest("", ""), &grants).err();
    assert_eq!(
        error,
        Some(LoadError::Grant {
            name: "moon".into()
        })
    );
}

#[test]
fn a_component_of_another_world() {
    let text = refused(&component("(component)"));
    assert!(
        text.contains("does not export rustmq:etl/module@0.1.5"),
        "{text}"
    );
}

#[test]
fn proposals_that_are_off() {
    let wat = wat("", "").replace("(table $table", "(memory $second 1) (table $table");
    let text = refused(&typed(&wat));
    assert!(text.contains("memories"), "{text}");
}

#[test]
fn compiled_code_is_kept_and_a_damaged_file_costs_only_time() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cache_dir = dir.path().join("code");
    let config = || HostConfig {
        cache_dir: Some(cache_dir.clone()),
        ..HostConfig::default()
    };
    let bytes = guest("", "(drop (call $len (local.get $rows)))");
    let works = || {
        let host = Host::new(config()).unwrap_or_else(|e| panic!("{e}"));
        let module = host
            .load(&bytes, &Grants::default())
            .unwrap_or_else(|e| panic!("{e}"));
        let guest = module.open(&context(), &Limits::default());
        let mut guest = guest.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(run(&mut guest, &rows()), Ok(Outcome::default()));
    };
    works();
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(&cache_dir).expect("the cache is there");
        entries.map(|e| e.expect("an entry").path()).collect()
    };
    assert_eq!(files().len(), 1);
    let path = files().remove(0);
    let whole = std::fs::read(&path).expect("compiled code");
    works();
    for damaged in [&whole[..whole.len() / 2], &[], &flipped(&whole)] {
        std::fs::write(&path, damaged).expect("written");
        works();
        assert_eq!(
            std::fs::read(&path).expect("compiled again").len(),
            whole.len()
        );
    }
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

#[test]
fn all_modules_share_a_bound_on_memory() {
    let bounded = Host::new(HostConfig {
        memory_bytes_max: 200 << 10,
        ..HostConfig::default()
    });
    let bounded = bounded.unwrap_or_else(|e| panic!("{e}"));
    let module = bounded.load(&guest("", ""), &Grants::default());
    let module = module.unwrap_or_else(|e| panic!("{e}"));
    let open = || module.open(&OpenContext::default(), &Limits::default());
    // Two pages each, of 64 KiB: the second one goes over the bound, the third one is refused.
    let first = open().unwrap_or_else(|e| panic!("{e}"));
    let second = open().unwrap_or_else(|e| panic!("{e}"));
    let Err(error) = open() else {
        panic!("it must not open");
    };
    assert!(
        error.to_string().contains("262144 bytes of memory"),
        "{error}"
    );
    drop(second);
    drop(open().unwrap_or_else(|e| panic!("{e}")));
    drop(first);
}

#[test]
fn what_a_module_says_of_itself_is_read_and_held_to() {
    let says = br#"{"name":"m","version":"1.0.0","ports":["out","rest"],"params":
        {"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false}}"#;
    let mut core = guest("", "");
    assert_eq!(Host::inspect(&core).map(|info| info.describe), Ok(None));
    custom(&mut core, crate::describe::SECTION, says);
    let mut component = crate::check::encode(&guest("", "")).unwrap_or_else(|e| panic!("{e}"));
    custom(&mut component, crate::describe::SECTION, says);
    for bytes in [
        &core,
        &crate::check::encode(&core).unwrap_or_else(|e| panic!("{e}")),
        &component,
    ] {
        let info = Host::inspect(bytes).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(info.contract.as_deref(), Some(world::VERSION));
        let described = info.describe.unwrap_or_else(|| panic!("it says something"));
        assert_eq!(described.title(), "m 1.0.0");
    }
    let module = load(&component);
    let refused = |context: &OpenContext| match module.open(context, &Limits::default()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(refused(&context()), "");
    let params = r#"{"a":"1"}"#.to_owned();
    assert_eq!(
        refused(&OpenContext {
            params,
            ..context()
        }),
        "the module m 1.0.0 refuses the node's params: params.a: \"1\" is not of type \"integer\""
    );
    let outputs = vec!["out".into()];
    assert_eq!(
        refused(&OpenContext {
            outputs,
            ..context()
        }),
        "the module m 1.0.0 sends rows to the output `rest`, which the node does not declare; its \
         outputs are out"
    );
    custom(&mut component, crate::describe::SECTION, says);
    let text = Host::inspect(&component).map_or_else(|e| e.to_string(), |_| String::new());
    assert!(text.contains("there are two of them"), "{text}");
}
