//! The line about the machine: without it the figures below mean nothing.
//!
//! Called by: every benchmark, before its cases. What cannot be found out is `unknown`.

use std::path::Path;
use std::process::Command;

use crate::disk;

/// Ticks of a second in `/proc/…/stat`: the same on every Linux.
const USER_HZ: f64 = 100.0;

/// Prints processor, cores, kernel, median sync latency of the disk under `dir`, commit, profile.
pub fn print(dir: &Path) {
    let info = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = info("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = model.map_or("unknown", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = info("/proc/sys/kernel/osrelease");
    let sync_us = match disk::sync_latency_us(dir) {
        Ok(us) => format!("{us:.0}"),
        Err(_) => "unknown".to_string(),
    };
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    println!(
        "machine processor={processor:?} cores={cores} kernel={} sync_us={sync_us} commit={} \
         profile={profile}",
        kernel.trim(),
        commit()
    );
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let here = env!("CARGO_MANIFEST_DIR");
        let output = Command::new("git")
            .arg("-C")
            .arg(here)
            .args(args)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_string())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_string();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}-changed"),
    }
}

/// Processor seconds this process has used, all threads, user and system together.
pub fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold spaces; what follows it does not.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / USER_HZ
}
