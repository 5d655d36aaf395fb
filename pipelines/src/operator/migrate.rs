//! What a module keeps in a lane, taken over from an older version of its schema, in parts.
//!
//! Called by: `stage::run` before the first batch of a new version, `canary` for its copy. Invariants: the
//! module sees every entry once, within the limits of one call each time; nothing is written: the change
//! is part of the next batch. What fails leaves the state as it was.
//! Refuses: a schema that the module does not name; a state of which there is no room for another.

use wasm::http::Stop;
use wasm::{Host, Keyed, ModuleInfo, Old, ProcessError};

use super::program::{Program, Warm};

/// Why a state was not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    #[error("{}", no_way(*from, *to, migrates))]
    NoWay {
        from: u32,
        to: u32,
        migrates: Vec<u32>,
    },
    #[error(
        "the state of {bytes} bytes is there twice while it is migrated from schema {from} to {to}, and \
         modules use {used} of the {limit} bytes that the server gives them (`--memory-bytes`)"
    )]
    Room {
        from: u32,
        to: u32,
        bytes: usize,
        used: usize,
        limit: usize,
    },
    #[error("the migration of its state from schema {from} to {to} failed {place}: {why}")]
    Failed {
        from: u32,
        to: u32,
        place: String,
        why: String,
    },
    #[error("the lane was stopped")]
    Stopped,
}

/// What to do about a state that nobody takes over.
fn no_way(from: u32, to: u32, migrates: &[u32]) -> String {
    let migrates: Vec<String> = migrates.iter().map(u32::to_string).collect();
    let known = match &migrates[..] {
        [] => "takes over no older one".to_string(),
        known => format!("takes over schema {} only", known.join(", ")),
    };
    format!(
        "its state was kept with schema {from}, and the module, whose schema is {to}, {known}: run the \
         version that keeps schema {from}, give the module a migration (`migrate` from {from}, \
         beside its state schema {to}), or delete the pipeline with what it keeps"
    )
}

/// The older schemas that a module takes over from.
pub(crate) fn takes_over(info: &ModuleInfo, from: u32) -> bool {
    info.migrates().contains(&from)
}

/// What is kept with the module's schema `to` afterwards.
pub(crate) fn migrate(
    (program, warm): (&Program, &mut Warm),
    lane: u32,
    keyed: &mut Keyed,
    to: u32,
    stop: &Stop,
) -> Result<(), MigrateError> {
    keyed.back();
    let from = keyed.schema();
    let info = program.module.info();
    if !takes_over(info, from) {
        let migrates = info.migrates().to_vec();
        return Err(MigrateError::NoWay { from, to, migrates });
    }
    room(&program.module.host(), keyed.bytes()).map_err(|(used, limit)| MigrateError::Room {
        from,
        to,
        bytes: keyed.bytes(),
        used,
        limit,
    })?;
    keyed.migrate(&program.limits, to);
    let done = parts((program, warm), lane, keyed, from, stop);
    done.map_err(|ended| {
        keyed.back();
        match ended {
            None => MigrateError::Stopped,
            Some((place, why)) => MigrateError::Failed {
                from,
                to,
                place,
                why,
            },
        }
    })
}

/// Whether so many bytes fit beside what all modules use; else these and their limit.
pub(crate) fn room(host: &Host, bytes: usize) -> Result<(), (usize, usize)> {
    let (used, limit) = (host.memory_bytes(), host.memory_bytes_max());
    match bytes <= limit.saturating_sub(used) {
        true => Ok(()),
        false => Err((used, limit)),
    }
}

/// Where it ended and why; nothing where it was stopped.
type Ended = Option<(String, String)>;

fn parts(
    (program, warm): (&Program, &mut Warm),
    lane: u32,
    keyed: &mut Keyed,
    from: u32,
    stop: &Stop,
) -> Result<(), Ended> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        if stop.is_set() {
            return Err(None);
        }
        let old = keyed.old(after.as_deref());
        let Some(last) = old.last() else { break };
        after = Some(last.to_vec());
        let at = || place(&old);
        let guest = program
            .alive(lane, warm)
            .map_err(|why| Some((at(), why.to_string())))?;
        match guest.migrate(from, &old, keyed) {
            Ok(()) => keyed.keep_migrated(),
            Err(ProcessError::Stopped) => return Err(None),
            Err(error) => return Err(Some((at(), error.to_string()))),
        }
    }
    let all = || "after its last entry".to_string();
    keyed.migrated().map_err(|e| Some((all(), e.to_string())))
}

fn place(old: &Old) -> String {
    let text = |key: Option<&[u8]>| {
        let key = String::from_utf8_lossy(key.unwrap_or_default());
        key.chars().take(100).collect::<String>()
    };
    format!(
        "at the entries from {:?} to {:?}",
        text(old.first()),
        text(old.last())
    )
}
