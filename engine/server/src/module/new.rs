//! `rustmq module new`: a folder that builds, tests and explains itself.
//!
//! Called by: `cli::module`, tests.
//! Invariants: an existing path is never written into; a failure takes back what it wrote.
//! Refuses: names that are no package names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sdk::sdk_files;

const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error(
        "{name:?} cannot name a module: use small letters, digits, - and _, beginning with a \
         letter, {NAME_BYTES_MAX} at most"
    )]
    Name { name: String },
    #[error("{} exists already; take another name, or remove it", .path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}: {error}", .path.display())]
    Write { path: PathBuf, error: io::Error },
}

/// Writes a new Rust module into the folder `parent/name` and returns that folder.
pub fn new(parent: &Path, name: &str) -> Result<PathBuf, NewError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !begins || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
        return Err(NewError::Name { name: name.into() });
    }
    let dir = parent.join(name);
    if fs::symlink_metadata(&dir).is_ok() {
        return Err(NewError::Exists { path: dir });
    }
    write_all(&dir, name).inspect_err(|_| {
        // what could be written of it is of no use
        let _ = fs::remove_dir_all(&dir);
    })?;
    Ok(dir)
}

fn write_all(dir: &Path, name: &str) -> Result<(), NewError> {
    let fill = |text: &str| text.replace("NAME", name);
    let write = |path: PathBuf, bytes: &[u8]| {
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|error| NewError::Write { path, error })
    };
    write(dir.join("Cargo.toml"), fill(MANIFEST).as_bytes())?;
    write(dir.join("src/lib.rs"), fill(SOURCE).as_bytes())?;
    write(dir.join("README.md"), fill(README).as_bytes())?;
    write(dir.join(".gitignore"), b"/target\n/build\n")?;
    for (path, bytes) in sdk_files() {
        write(dir.join(".rustmq").join(path), bytes)?;
    }
    Ok(())
}

const MANIFEST: &str = r#"[package]
name = "NAME"
version = "0.1.0"
edition = "2024"
publish = false

[lib]
crate-type = ["cdylib"]

[dependencies]
rustmq = { package = "rustmq-sdk", path = ".rustmq/sdk-guest" }
serde = { version = "1", default-features = false, features = ["std", "derive"] }

[profile.release]
opt-level = 3
lto = true
codegen-units = 1
panic = "abort"

# a workspace of its own, wherever the folder lies
[workspace]
exclude = [".rustmq"]
"#;

const SOURCE: &str = r##"//! NAME: a RustMQ module. One record in, one record out.

use rustmq::Reject;
use serde::{Deserialize, Serialize};

/// A record's value as it comes, JSON.
#[derive(Deserialize)]
struct Reading<'a> {
    sensor: &'a str,
    celsius: Option<f64>,
}

/// A record's value as it goes.
#[derive(Serialize)]
struct Clean<'a> {
    sensor: &'a str,
    fahrenheit: f64,
}

/// Called for each record. A `Reject` sends the record where the pipeline says: to a topic of dead
/// letters, say. Its key, time and headers stay as they are.
#[rustmq::map]
fn clean(reading: Reading<'_>) -> Result<Clean<'_>, Reject> {
    let celsius = reading
        .celsius
        .ok_or_else(|| Reject::new("no-value", "the reading has no temperature"))?;
    Ok(Clean { sensor: reading.sensor, fahrenheit: celsius * 9.0 / 5.0 + 32.0 })
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn readings_become_fahrenheit() {
        let out = rustmq::testing::run::<clean>([
            r#"{"sensor":"roof","celsius":20}"#,
            r#"{"sensor":"cellar"}"#,
        ]);
        assert_eq!(out.texts("out"), [r#"{"sensor":"roof","fahrenheit":68.0}"#]);
        assert_eq!((out.rejects[0].row, &out.rejects[0].code[..]), (1, "no-value"));
    }
}
"##;

const README: &str = r##"# NAME

A RustMQ module: a Rust function over records, built to WebAssembly.

    cargo test                      # natively: no broker, no WebAssembly
    rustmq module build .           # writes build/NAME.wasm
    rustmq module inspect build/NAME.wasm

In a pipeline:

    modules:
      NAME: { source: ./NAME }
    nodes:
      in:   { kind: source, topic: readings, start: earliest }
      NAME: { kind: wasm, module: NAME, inputs: [in] }
      out:  { kind: sink, inputs: [NAME], topic: clean }

- `#[rustmq::map]` makes one record of one, `flat_map` many of one, `filter` keeps or drops,
  `route` sends each to an output by its name.
- The first parameter is the record's value: a type that serde can read from JSON, or `&str`, or
  `&[u8]`. Further ones, if you want them: `meta: &rustmq::Meta` for key, time and headers,
  `params: &YourType` for the node's `params`.
- Return a value to be written as JSON, or `rustmq::Record::new(value).key("k")` to set more than
  the value. `Err(rustmq::Reject::new("code", "why"))` refuses the record.

`.rustmq/` holds the SDK's source, so that this folder builds anywhere.
"##;
