//! The flights example, carried inside the binary so that the demo works away from a checkout.
//!
//! Called by `demo::run`. `write_example` lays the files out as they lie in the repository, in a
//! folder of the user's cache, so that a module's first build is kept for the next run. A file is
//! written only when its content differs: cargo goes by modification times.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::Digest;

use crate::module::Lang;

/// A file of the example: its path in the repository and its bytes.
struct Embedded {
    path: &'static str,
    bytes: &'static [u8],
}

macro_rules! embedded {
    ($($path:literal),* $(,)?) => {
        &[$(Embedded {
            path: $path,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path)),
        }),*]
    };
}

const EXAMPLE: &[Embedded] = embedded![
    "examples/flights/pipeline.yaml",
    "examples/flights/pipeline-v2.yaml",
    "examples/flights/weather.yaml",
    "examples/flights/modules/.cargo/config.toml",
    "examples/flights/modules/flight/Cargo.toml",
    "examples/flights/modules/flight/src/lib.rs",
    "examples/flights/modules/tidy/Cargo.toml",
    "examples/flights/modules/tidy/src/lib.rs",
    "examples/flights/modules/tidy-v2/Cargo.toml",
    "examples/flights/modules/tidy-v2/src/lib.rs",
];

/// All flights of 2013 from New York, CSV packed with zstd; origin and licence lie beside it.
pub const FLIGHTS_CSV_ZST: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/flights/data/flights.csv.zst"
));

/// The hourly weather of the three airports, likewise.
pub const WEATHER_CSV_ZST: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/flights/data/weather.csv.zst"
));

/// Says in a few letters what `write_example` writes.
pub fn mark() -> String {
    let example = EXAMPLE.iter().map(|file| (file.path, file.bytes));
    let mut all = Vec::new();
    for (path, bytes) in example.chain(crate::module::sdk_files(Lang::Rust)) {
        all.extend_from_slice(path.as_bytes());
        all.extend_from_slice(&bytes.len().to_le_bytes());
        all.extend_from_slice(bytes);
    }
    let mut mark = Digest::of(&all).hex();
    mark.truncate(12);
    mark
}

/// Writes the example and the SDK below `folder`; returns the example's own folder.
pub fn write_example(folder: &Path) -> io::Result<PathBuf> {
    for file in EXAMPLE {
        write_if_changed(&folder.join(file.path), file.bytes)?;
    }
    for (path, bytes) in crate::module::sdk_files(Lang::Rust) {
        write_if_changed(&folder.join(path), bytes)?;
    }
    Ok(folder.join("examples/flights"))
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}
