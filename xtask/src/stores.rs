//! `cargo xtask stores`: builds the object stores that tests run against.
//!
//! Called by people and `.ci/run`. Invariants: what is there is not built again; a server
//! appears under its name only when it is whole; nothing of it is part of the product.
//! Refuses: to go on without a Go toolchain, which it names.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::pins::{self, Pin};

/// One line per server; the first that cannot be built ends it with what to do.
pub fn run() -> Result<(), String> {
    let folder = pins::folder();
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    for pin in [pins::S3, pins::GCS] {
        if pin.path().is_file() {
            println!("{} server: {} is there", pin.what, pin.path().display());
            continue;
        }
        let began = Instant::now();
        build(&pin, &folder)?;
        let took = began.elapsed().as_secs();
        println!(
            "{} server: {} built in {took} s",
            pin.what,
            pin.path().display()
        );
    }
    Ok(())
}

/// `go install` into a folder of its own, then under the name that says the version.
fn build(pin: &Pin, folder: &Path) -> Result<(), String> {
    let draft = folder.join(format!(".{}-{}", pin.program, std::process::id()));
    let module = format!("{}@{}", pin.package, pin.version);
    println!("{} server: go install {module} …", pin.what);
    let built = Command::new("go")
        .args(["install", "-trimpath", "-ldflags=-s -w", &module])
        .env("GOBIN", &draft)
        .env("CGO_ENABLED", "0")
        .status();
    let moved = match built {
        Ok(status) if status.success() => std::fs::rename(draft.join(pin.program), pin.path())
            .map_err(|error| format!("cannot move {}: {error}", pin.program)),
        Ok(status) => Err(format!(
            "go install {module} failed ({status}); what it said is above"
        )),
        Err(error) => Err(format!(
            "cannot run go: {error}; install Go 1.26 or newer (go.dev), then try again"
        )),
    };
    // Only the leftovers of a build; the error that matters is the one above.
    let _ = std::fs::remove_dir_all(&draft);
    moved
}
