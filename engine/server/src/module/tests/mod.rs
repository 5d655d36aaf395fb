//! Writing modules and building them with the real toolchain, once, into the test's own folder.

use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Int64Array, RecordBatch};
use model::rows::RowsBuilder;
use model::schema::{Field, FieldType, Schema};
use model::topic::PayloadCodec;
use wasm::{
    Batch, Edge, Emission, Grants, Guest, Host, HostConfig, Input, Kind, Limits, Metric, Module,
    OpenContext,
};

use super::*;

mod guests;
mod wasi;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files in these folders of the repository, and what every language has.
fn there(folders: &[&str]) -> Vec<String> {
    let mut there = vec!["LICENSE".to_owned()];
    for dir in folders.iter().chain(&["wit"]) {
        for entry in fs::read_dir(repository().join(dir)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file() && name != "workspace.toml" {
                there.push(format!("{dir}/{name}"));
            }
        }
    }
    there
}

#[test]
fn every_file_of_the_sdks_is_carried() {
    let rust = [
        "sdk-guest",
        "sdk-guest/src",
        "sdk-guest/src/abi",
        "sdk-guest/src/native",
        "sdk-guest/src/rt",
        "sdk-guest/src/testing",
        "sdk-guest/macros",
        "sdk-guest/macros/src",
    ];
    let python = ["sdk-guest/python", "sdk-guest/python/rustmq"];
    let js = ["sdk-guest/js"];
    for (lang, folders) in [
        (Lang::Rust, &rust[..]),
        (Lang::Python, &python),
        (Lang::Js, &js),
    ] {
        let mut there = there(folders);
        if lang == Lang::Rust {
            there.push("Cargo.toml".to_owned());
        }
        let mut carried: Vec<String> = sdk_files(lang).map(|(path, _)| path.to_owned()).collect();
        there.sort();
        carried.sort();
        assert_eq!(carried, there);
    }
}

#[test]
fn the_carried_workspace_has_the_versions_of_the_repository() {
    let root = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let (_, carried) = sdk_files(Lang::Rust).next().unwrap();
    // serde_json goes without what only the engine needs
    let carried = std::str::from_utf8(carried).unwrap().replace(
        r#"features = ["std"] }"#,
        r#"features = ["std", "raw_value", "preserve_order"] }"#,
    );
    for line in carried.lines().filter(|line| line.contains(" = ")) {
        let key = line.split_once(" = ").unwrap().0;
        if ["members", "exclude", "rustmq-sdk-macros"].contains(&key) {
            continue;
        }
        assert!(
            root.lines().any(|theirs| theirs == line),
            "not in Cargo.toml: {line}"
        );
    }
}

#[test]
fn new_refuses_bad_names_and_existing_folders() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", "../up", "Big", "1st", "a b", "-x", &"a".repeat(65)] {
        let error = new(dir.path(), name, Lang::Rust).unwrap_err().to_string();
        assert!(error.contains("cannot name a module"), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let made = new(dir.path(), "tidy", Lang::Rust).unwrap();
    assert!(made.join(".rustmq/sdk-guest/src/lib.rs").is_file());
    let error = new(dir.path(), "tidy", Lang::Rust).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
}

#[tokio::test]
async fn build_tells_the_language_by_the_one_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let refused = || async {
        let built = build(dir.path(), &mut |_| {}).await;
        built.unwrap_err().to_string()
    };
    let error = refused().await;
    assert!(
        error.contains("holds no Cargo.toml, pyproject.toml or package.json"),
        "{error}"
    );
    for lang in Lang::ALL {
        let made = new(dir.path(), &format!("{lang:?}").to_lowercase(), lang).unwrap();
        assert_eq!(language(&made).unwrap(), lang);
    }
    fs::write(dir.path().join("Cargo.toml"), "").unwrap();
    fs::write(dir.path().join("package.json"), "").unwrap();
    let error = refused().await;
    assert!(
        error.contains("holds Cargo.toml and package.json"),
        "{error}"
    );
}

/// Cargo's target folder of all guests built by tests: their dependencies are compiled once.
fn guests_target() -> PathBuf {
    repository().join("target/guests")
}

fn open(path: &Path, params: &str, outputs: &[&str]) -> Guest {
    let host = Host::new(HostConfig::default()).unwrap();
    let module = host
        .load(&fs::read(path).unwrap(), &Grants::default())
        .unwrap();
    let context = OpenContext {
        params: params.into(),
        inputs: vec!["in".into()],
        outputs: outputs.iter().map(|o| (*o).into()).collect(),
        ..OpenContext::default()
    };
    module.open(&context, &Limits::default()).unwrap()
}

fn input(batch: Batch) -> Input {
    Input {
        batch: Arc::new(batch),
        input: 0,
        watermark: 0,
    }
}

/// Runs rows through a guest: emitted values, forwarded rows and rejections as text.
fn run(guest: &mut Guest, values: &[&str]) -> String {
    let mut builder = RowsBuilder::new();
    for (i, value) in values.iter().enumerate() {
        builder.push(i as i64, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    let offsets = (0..values.len() as u64).collect();
    let batch = Batch::new(builder.finish(), offsets);
    let outcome = match guest.process(input(batch)) {
        Ok(outcome) => outcome,
        Err(error) => return error.to_string(),
    };
    let mut text = String::new();
    for emission in outcome.emissions {
        match emission {
            Emission::Forward { port, rows } => text += &format!("forward {port} {rows:?}\n"),
            Emission::Emit {
                port,
                parents,
                keys,
                values,
                ..
            } => {
                for (i, parent) in parents.iter().enumerate() {
                    let key = String::from_utf8_lossy(keys.value(i));
                    let value = String::from_utf8_lossy(values.value(i));
                    text += &format!("emit {port} {parent} {key}={value}\n");
                }
            }
            Emission::Columns { port, columns, .. } => {
                text += &format!("columns {port} of {} rows\n", columns.num_rows());
            }
        }
    }
    for r in outcome.rejections {
        text += &format!("reject {:?} {}: {}\n", r.rows, r.code, r.message);
    }
    text
}

#[tokio::test]
async fn a_new_module_builds_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let made = new(dir.path(), "fresh", Lang::Rust).unwrap();
    let mut said = Vec::new();
    let path = build_into(&made, &guests_target(), &mut |line| {
        said.push(line.to_owned())
    })
    .await
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(path, made.join("build/fresh.wasm"));
    assert!(
        said.iter().any(|line| line.starts_with("wrote ")),
        "{said:?}"
    );
    let info = Host::inspect(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(info.kind, Kind::Component);
    assert!(
        info.imports
            .iter()
            .all(|name| name.starts_with("rustmq:etl/")),
        "{info:?}"
    );
    let mut guest = open(&path, "{}", &["out"]);
    assert_eq!(
        run(
            &mut guest,
            &[r#"{"sensor":"roof","celsius":20}"#, r#"{"sensor":"x"}"#]
        ),
        "emit 0 0 k={\"sensor\":\"roof\",\"fahrenheit\":68.0}\n\
         reject [1] no-value: the reading has no temperature\n"
    );
}

async fn built(name: &str) -> PathBuf {
    let guests = repository().join("tests/guests");
    let built = build_into(&guests.join(name), &guests_target(), &mut |_| {}).await;
    built.unwrap_or_else(|e| panic!("{e}"))
}

fn edge(name: &str, fields: &[(&str, FieldType)]) -> Edge {
    let fields = fields.iter().map(|(name, ty)| Field {
        name: (*name).to_owned(),
        ty: *ty,
    });
    Edge {
        name: name.to_owned(),
        fields: Some(Arc::new(Schema::new(fields.collect()).unwrap())),
    }
}

/// Two blocks of rows and some more through `sure`; a trap in the middle of a block names the function.
fn blocks_through(module: &Module) {
    let fields = [("number", FieldType::Int64)];
    let context = OpenContext {
        inputs: vec![edge("in", &fields)],
        outputs: vec![edge("out", &fields)],
        ..OpenContext::default()
    };
    let mut guest = module.open(&context, &Limits::default()).unwrap();
    let schema = context.inputs[0].fields.as_ref().unwrap().to_arrow();
    let mut call = |numbers: Range<i64>| {
        let column = Arc::new(Int64Array::from_iter_values(numbers.clone()));
        let columns = RecordBatch::try_new(schema.clone(), vec![column]).unwrap();
        let mut rows = RowsBuilder::new();
        numbers.for_each(|_| rows.push(0, None, None, &[]));
        guest.process(input(Batch {
            columns: Some(columns),
            ..Batch::new(rows.finish(), (0..20).collect())
        }))
    };
    let made = call(20..40).unwrap_or_else(|e| panic!("{e}"));
    let [
        Emission::Columns {
            parents: None,
            columns,
            ..
        },
    ] = &made.emissions[..]
    else {
        panic!("each row gives one: {made:?}");
    };
    let expected = Int64Array::from_iter_values(21..41);
    assert_eq!(columns.column(0).as_primitive(), &expected);
    let panicked = call(0..20).unwrap_err().to_string();
    let panic = "the module trapped: panic: thirteen (at ";
    assert!(panicked.starts_with(panic), "{panicked}");
    assert!(panicked.contains("\n  in sure::sure"), "{panicked}");
}

/// Typed columns through the real component of `late`.
fn columns_through(module: &Module) {
    let has = |name: &str| {
        let mut imports = module.info().imports.iter();
        imports.any(|import| import.starts_with(&format!("rustmq:etl/{name}@")))
    };
    assert!(has("columns") && has("telemetry") && !has("packed"));
    let given = [
        ("due", FieldType::Timestamp),
        ("delay", FieldType::Int64),
        ("carrier", FieldType::String),
    ];
    let made = [
        ("carrier", FieldType::String),
        ("long", FieldType::Bool),
        ("left", FieldType::Timestamp),
        ("not_set", FieldType::Int64),
    ];
    let context = OpenContext {
        inputs: vec![edge("in", &given)],
        outputs: vec![edge("out", &made)],
        ..OpenContext::default()
    };
    let mut guest = module.open(&context, &Limits::default()).unwrap();
    // whole minutes go into a float; a row per case: on time, long, cancelled, nobody, early
    let values = [
        r#"{"carrier":"é","delay":1,"due":0}"#,
        r#"{"carrier":"AA","delay":90,"due":1000000}"#,
        r#"{"carrier":"B","due":2}"#,
        r#"{"delay":2,"due":3}"#,
        r#"{"carrier":"C","delay":-90,"due":4}"#,
    ];
    let mut builder = RowsBuilder::new();
    for (time, value) in (0..).zip(values) {
        builder.push(time, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    let rows = builder.finish();
    let schema = context.inputs[0].fields.clone().unwrap();
    let format = codec::Format::new(PayloadCodec::Json, schema).unwrap();
    let columns = format
        .decode(&rows.values, &format.project(|_| true))
        .columns;
    let outcome = guest.process(input(Batch {
        columns: Some(columns),
        ..Batch::new(rows, (0..5).collect())
    }));
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}"));
    let [
        Emission::Columns {
            parents: Some(parents),
            columns,
            keys: None,
            ..
        },
    ] = &outcome.emissions[..]
    else {
        panic!("one emit of columns: {outcome:?}");
    };
    assert_eq!(parents, &[0, 1]);
    let written = codec::encode_json(columns).unwrap();
    let written: Vec<_> = written
        .iter()
        .flatten()
        .map(String::from_utf8_lossy)
        .collect();
    assert_eq!(
        written,
        [
            r#"{"carrier":"é","long":false,"left":"1970-01-01T00:01:00.000000Z","not_set":null}"#,
            r#"{"carrier":"AA","long":true,"left":"1970-01-01T01:30:01.000000Z","not_set":null}"#,
        ]
    );
    let refused = outcome
        .rejections
        .iter()
        .map(|r| format!("{:?} {}", r.rows, r.code));
    assert_eq!(refused.collect::<Vec<_>>(), ["[3] null", "[4] early"]);
    let metrics = context.metrics.read();
    assert_eq!(metrics["cancelled"], Metric::Counter { value: 1 });
    assert!(
        matches!(&metrics["minutes"], Metric::Histogram { counts, .. } if *counts == [1, 0, 1]),
        "{metrics:?}"
    );
}

/// Cargo in a folder, as anybody runs it there; nothing where it lacks what `needs` says, which is told.
fn by_cargo(dir: &Path, words: &[&str], needs: Needs) -> Option<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |program: &std::ffi::OsStr, words: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(words).current_dir(dir);
        for flag in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
            command.env_remove(flag);
        }
        command.output().unwrap()
    };
    match needs {
        Needs::Target(name) => {
            let asked = ["--print", "target-libdir", "--target", name];
            let libdir = run("rustc".as_ref(), &asked).stdout;
            if !Path::new(String::from_utf8_lossy(&libdir).trim()).is_dir() {
                skipped(&format!(
                    "there is no {name} here: rustup target add {name}"
                ));
                return None;
            }
        }
        Needs::Component => {
            if !run(&cargo, &["component", "--version"]).status.success() {
                skipped("there is no cargo component here: cargo install cargo-component");
                return None;
            }
        }
    }
    let target = guests_target();
    let target = ["--target-dir", target.to_str().unwrap()];
    let built = run(&cargo, &[words, &target].concat());
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    Some(())
}

/// Said aloud: what a test prints by macro is not shown where it passes.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

#[derive(Clone, Copy)]
enum Needs {
    Target(&'static str),
    Component,
}

fn release(target: &str, file: &str) -> PathBuf {
    guests_target().join(target).join("release").join(file)
}

fn late() -> PathBuf {
    repository().join("tests/guests/late")
}

/// It names WASI, and every interface of ours in it is still ours.
fn is_late(component: &Path) {
    let host = Host::new(HostConfig::default()).unwrap();
    let module = host.load(&fs::read(component).unwrap(), &Grants::default());
    let module = module.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(module.info().kind, Kind::Component);
    assert!(!module.info().stubbed.is_empty(), "{:?}", module.info());
    columns_through(&module);
}

/// The same guest, built as anybody builds for WASI: cargo itself makes a component.
#[tokio::test]
async fn a_guest_for_wasip2_is_taken_as_cargo_built_it() {
    const WASI: &str = "wasm32-wasip2";
    let words = ["build", "--release", "--target", WASI];
    if by_cargo(&late(), &words, Needs::Target(WASI)).is_some() {
        is_late(&release(WASI, "late.wasm"));
    }
}

/// What `cargo component` makes a component of: its adapter of preview 1 asks for `cabi_realloc`.
#[test]
fn a_guest_for_wasip1_has_what_an_adapter_needs() {
    const WASI: &str = "wasm32-wasip1";
    let words = ["build", "--release", "--target", WASI];
    if by_cargo(&late(), &words, Needs::Target(WASI)).is_some() {
        let core = fs::read(release(WASI, "deps/late.wasm")).unwrap();
        let info = Host::inspect(&core).unwrap();
        assert_eq!(info.kind, Kind::CoreWithType);
        let exports = |name: &str| info.exports.iter().any(|export| export == name);
        assert!(exports("cabi_realloc") && exports("memory"), "{info:?}");
    }
}

#[test]
fn cargo_component_builds_modules_as_they_are() {
    const WASI: &str = "wasm32-wasip1";
    let words = ["component", "build", "--release"];
    if by_cargo(&late(), &words, Needs::Component).is_none() {
        return;
    }
    is_late(&release(WASI, "late.wasm"));
    let dir = tempfile::tempdir().unwrap();
    let made = new(dir.path(), "unchanged", Lang::Rust).unwrap();
    by_cargo(&made, &words, Needs::Component);
    let mut guest = open(&release(WASI, "unchanged.wasm"), "{}", &["out"]);
    let text = run(&mut guest, &[r#"{"sensor":"roof","celsius":20}"#]);
    assert_eq!(
        text,
        "emit 0 0 k={\"sensor\":\"roof\",\"fahrenheit\":68.0}\n"
    );
}

/// What is kept of each version comes from here: `RUSTMQ_BLESS=1` keeps the component of this one.
/// It is built as anybody's module is, with the SDK in its own folder, so it names no other.
async fn released(name: &str, suffix: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let made = new(dir.path(), name, Lang::Rust).unwrap();
    let guests = repository().join("tests/guests");
    let source = guests.join(name).join("src/lib.rs");
    fs::copy(source, made.join("src/lib.rs")).unwrap();
    let built = build_into(&made, &guests_target(), &mut |_| {}).await;
    let path = built.unwrap_or_else(|e| panic!("{e}"));
    let bytes = fs::read(&path).unwrap();
    for folder in [dir.path(), &std::env::home_dir().unwrap()] {
        let folder = folder.to_str().unwrap().as_bytes();
        let mut places = bytes.windows(folder.len());
        assert!(
            !places.any(|place| place == folder),
            "it names this machine"
        );
    }
    let info = Host::inspect(&bytes).unwrap();
    assert_eq!(info.contract.as_deref(), Some(wasm::world::VERSION));
    let kept = format!("conformance/released/{}{suffix}.wasm", wasm::world::VERSION);
    let kept = guests.join(kept);
    if std::env::var_os("RUSTMQ_BLESS").is_some() {
        fs::write(&kept, &bytes).unwrap();
    }
    assert!(kept.is_file(), "run this test with RUSTMQ_BLESS=1");
    (dir, path)
}

#[tokio::test]
async fn the_guests_of_conformance_build_for_this_version() {
    let (_dir, path) = released("conformance", "").await;
    let mut opened = open(&path, r#"{"tag":"t"}"#, &["out", "rest"]);
    assert_eq!(run(&mut opened, &["forward", "drop"]), "forward 0 [0]\n");
    let (_dir, path) = released("keeps", "-stateful").await;
    let info = Host::inspect(&fs::read(path).unwrap()).unwrap();
    assert!(info.stateful);
    let (_dir, path) = released("asks", "-http").await;
    let info = Host::inspect(&fs::read(path).unwrap()).unwrap();
    assert_eq!(info.grants_needed, ["rustmq:etl/http@0.1.5"]);
}

#[tokio::test]
async fn the_errors_of_the_compiler_pass_through() {
    let dir = tempfile::tempdir().unwrap();
    let made = new(dir.path(), "broken", Lang::Rust).unwrap();
    let source = made.join("src/lib.rs");
    let text = fs::read_to_string(&source)
        .unwrap()
        .replace("celsius * 9.0", "celsius * nine");
    fs::write(&source, text).unwrap();
    let error = build_into(&made, &guests_target(), &mut |_| {})
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot find value `nine`"), "{error}");
    assert!(error.contains("src/lib.rs:"), "{error}");
}
