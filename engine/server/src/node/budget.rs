//! What a node may use of its machine, divided among its rooms.
//!
//! Called by: `Node::start`. `memory` and `disk` are pure; `machine_memory` asks the system, and
//! so does `descriptors`, which divides what may be open.
//! Invariants: what is set one by one stays as it is set; what is not set is its share of the
//! whole; the parts never exceed the whole.
//! Refuses: parts that together are more than the whole, a disk limit too small for a log.

use std::path::Path;

use ::storage::StoreConfig;

use super::descriptors::{self, Seats};
use super::{NodeConfig, StartError};
use crate::config::{CacheConfig, LimitsConfig, StorageConfig};

/// The whole, unless it is set: half of the machine's memory, but not more than this.
pub const MEMORY_BYTES_DEFAULT_MAX: u64 = 2 << 30;
/// Less than this is no broker.
const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Shares of the whole, in 32nds; what is left is for everything else.
const SHARES: u64 = 32;
const TAIL_SHARE: u64 = 4;
const CACHE_SHARE: u64 = 2;
const QUEUE_SHARE: u64 = 1;
const SQL_SHARE: u64 = 8;
const MODULES_SHARE: u64 = 16;

/// Blocks on disk where the tier is far away.
const CACHE_DISK_BYTES: u64 = 4 << 30;
/// Most of the disk limit that goes to them.
const CACHE_DISK_PART: u64 = 4;
/// Segments that the log must have room for.
const SEGMENTS_MIN: u64 = 4;

/// What a node starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub memory: Memory,
    pub disk: Disk,
    pub seats: Seats,
}

impl Budget {
    /// Raises the limit of open files on the way.
    pub fn of(config: &NodeConfig) -> Result<Budget, StartError> {
        let (limits, storage, cache) = (&config.limits, &config.storage, &config.cache);
        let defaults = StoreConfig::new(&config.data_dir);
        let is_far = storage
            .url
            .as_ref()
            .is_some_and(|url| !url.starts_with("file://"));
        let memory = memory(limits, storage, cache, machine_memory())?;
        let disk = disk(limits, storage, cache, &defaults, is_far)?;
        let segment = storage.segment_bytes.unwrap_or(defaults.segment_bytes);
        let uploads = config.tier.uploads_max;
        let uploads = uploads.unwrap_or(defaults.tier_uploads_max as u64);
        let rooms = descriptors::needed_by_rooms(&disk, segment, uploads);
        let allowed = descriptors::claim(limits.descriptors)?;
        let seats = descriptors::divide(allowed, rooms, protocol::limits::CONNECTIONS_MAX)?;
        Ok(Budget {
            memory,
            disk,
            seats,
        })
    }
}

/// Bytes for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub whole: u64,
    pub tail: u64,
    pub cache: u64,
    pub queue: u64,
    pub sql: u64,
    pub modules: u64,
}

/// Bytes for each; 0 is without limit, for the cache it is without cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub log: u64,
    /// Where the log begins to get smaller.
    pub log_pressure: u64,
    pub cache: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BudgetError {
    #[error(
        "{parts} bytes of memory are set one by one (storage.tail_bytes_max, \
         storage.queue_bytes_max, cache.memory_bytes, limits.sql_memory_bytes, \
         limits.module_memory_bytes), and limits.memory_bytes is {whole}: raise it or lower them"
    )]
    MemoryParts { parts: u64, whole: u64 },
    #[error("limits.memory_bytes is {whole}: a node needs at least {MEMORY_BYTES_MIN}")]
    MemoryWhole { whole: u64 },
    #[error(
        "limits.disk_bytes is {whole}, cache.disk_bytes {cache}: the log needs at least {needed} \
         ({SEGMENTS_MIN} files of storage.segment_bytes); raise the limit or lower the others"
    )]
    Disk { whole: u64, cache: u64, needed: u64 },
}

/// Divides memory. `machine` is what there is, if that is known.
pub fn memory(
    limits: &LimitsConfig,
    storage: &StorageConfig,
    cache: &CacheConfig,
    machine: Option<u64>,
) -> Result<Memory, BudgetError> {
    let by_machine = machine.map_or(MEMORY_BYTES_DEFAULT_MAX, |bytes| bytes / 2);
    let by_machine = by_machine.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_DEFAULT_MAX);
    let set = [
        storage.tail_bytes_max,
        cache.memory_bytes,
        storage.queue_bytes_max,
        limits.sql_memory_bytes,
        limits.module_memory_bytes,
    ];
    let parts: u64 = set.iter().flatten().fold(0, |a, b| a.saturating_add(*b));
    // Parts that were set without a whole raise it: they were meant.
    let whole = limits.memory_bytes.unwrap_or(by_machine.max(parts));
    if whole < MEMORY_BYTES_MIN {
        return Err(BudgetError::MemoryWhole { whole });
    }
    if parts > whole {
        return Err(BudgetError::MemoryParts { parts, whole });
    }
    let shares = [
        TAIL_SHARE,
        CACHE_SHARE,
        QUEUE_SHARE,
        SQL_SHARE,
        MODULES_SHARE,
    ];
    let unset = set.iter().zip(shares).filter(|(set, _)| set.is_none());
    let unset: u64 = unset.map(|(_, share)| share).sum();
    // What is left after the parts that are set, and never more than the share of the whole.
    let left = whole - parts;
    let of = |share: u64| (whole / SHARES * share).min(left / (unset + 1) * share);
    let [tail, cache, queue, sql, modules] =
        std::array::from_fn(|at| set[at].unwrap_or_else(|| of(shares[at])));
    Ok(Memory {
        whole,
        tail,
        cache,
        queue,
        sql,
        modules,
    })
}

/// Divides the disk. `is_far` says that the tier is no folder of this machine.
pub fn disk(
    limits: &LimitsConfig,
    storage: &StorageConfig,
    cache: &CacheConfig,
    defaults: &StoreConfig,
    is_far: bool,
) -> Result<Disk, BudgetError> {
    let whole = limits.disk_bytes.unwrap_or(0);
    let segment = storage.segment_bytes.unwrap_or(defaults.segment_bytes);
    let pressure = storage.wal_bytes_max.unwrap_or(defaults.wal_bytes_max);
    let far = if is_far { CACHE_DISK_BYTES } else { 0 };
    if whole == 0 {
        return Ok(Disk {
            log: 0,
            log_pressure: pressure,
            cache: cache.disk_bytes.unwrap_or(far),
        });
    }
    let cached = cache.disk_bytes.unwrap_or(far.min(whole / CACHE_DISK_PART));
    let needed = segment.saturating_mul(SEGMENTS_MIN);
    let log = whole.saturating_sub(cached);
    if log < needed {
        let cache = cached;
        return Err(BudgetError::Disk {
            whole,
            cache,
            needed,
        });
    }
    // So early that the tier has the time to take what the log must give back.
    let log_pressure = pressure.min(log / 2);
    Ok(Disk {
        log,
        log_pressure,
        cache: cached,
    })
}

/// Bytes of memory this process may hope for: the machine's, or its control group's if less.
pub fn machine_memory() -> Option<u64> {
    let limit = |path: &str| {
        let text = std::fs::read_to_string(Path::new(path)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let group = limit("/sys/fs/cgroup/memory.max")
        .or_else(|| limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| total_of(&text));
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn divided(limits: LimitsConfig, machine: u64) -> Result<Memory, BudgetError> {
        let (storage, cache) = (StorageConfig::default(), CacheConfig::default());
        memory(&limits, &storage, &cache, Some(machine))
    }

    #[test]
    fn memory_is_shared_out_and_never_more_than_the_whole() {
        let large = divided(LimitsConfig::default(), 64 << 30).unwrap();
        assert_eq!(
            (large.whole, large.tail, large.cache),
            (2 << 30, 256 * MIB, 128 * MIB)
        );
        assert_eq!(
            (large.queue, large.sql, large.modules),
            (64 * MIB, 512 * MIB, 1 << 30)
        );
        let small = divided(LimitsConfig::default(), 512 * MIB).unwrap();
        assert_eq!((small.whole, small.tail), (256 * MIB, 32 * MIB));
        for parts in 0..32_u32 {
            let part = |bit: u32| (parts & 1 << bit != 0).then_some(50 * MIB);
            let limits = LimitsConfig {
                memory_bytes: Some(256 * MIB),
                sql_memory_bytes: part(0),
                module_memory_bytes: part(1),
                ..LimitsConfig::default()
            };
            let storage = StorageConfig {
                tail_bytes_max: part(2),
                queue_bytes_max: part(3),
                ..StorageConfig::default()
            };
            let cache = CacheConfig {
                memory_bytes: part(4),
                ..CacheConfig::default()
            };
            let m = memory(&limits, &storage, &cache, None).unwrap();
            let sum = m.tail + m.cache + m.queue + m.sql + m.modules;
            assert!(sum <= m.whole, "{m:?}");
            assert!(
                [m.tail, m.cache, m.queue, m.sql, m.modules]
                    .iter()
                    .all(|n| *n > 0)
            );
        }
    }

    #[test]
    fn memory_that_does_not_add_up_is_refused() {
        let limits = LimitsConfig {
            memory_bytes: Some(100 * MIB),
            sql_memory_bytes: Some(101 * MIB),
            ..LimitsConfig::default()
        };
        let error = divided(limits.clone(), 1 << 30).unwrap_err().to_string();
        assert!(
            error.contains("limits.memory_bytes is 104857600"),
            "{error}"
        );
        // Without a whole it is raised.
        let raised = LimitsConfig {
            memory_bytes: None,
            sql_memory_bytes: Some(4 << 30),
            ..LimitsConfig::default()
        };
        assert_eq!(divided(raised, 1 << 30).unwrap().sql, 4 << 30);
        let tiny = LimitsConfig {
            memory_bytes: Some(1),
            ..LimitsConfig::default()
        };
        assert!(matches!(
            divided(tiny, 1 << 30),
            Err(BudgetError::MemoryWhole { whole: 1 })
        ));
    }

    #[test]
    fn the_disk_is_for_the_log_first() {
        let defaults = StoreConfig::new("x");
        let divided = |whole: Option<u64>, cached: Option<u64>, is_far: bool| {
            let limits = LimitsConfig {
                disk_bytes: whole,
                ..LimitsConfig::default()
            };
            let cache = CacheConfig {
                disk_bytes: cached,
                ..CacheConfig::default()
            };
            disk(
                &limits,
                &StorageConfig::default(),
                &cache,
                &defaults,
                is_far,
            )
        };
        let of = |log, log_pressure, cache| {
            Ok(Disk {
                log,
                log_pressure,
                cache,
            })
        };
        assert_eq!(divided(None, None, false), of(0, 1 << 30, 0));
        assert_eq!(divided(None, None, true), of(0, 1 << 30, 4 << 30));
        assert_eq!(
            divided(Some(1 << 30), None, true),
            of(768 * MIB, 384 * MIB, 256 * MIB)
        );
        assert_eq!(
            divided(Some(1 << 30), Some(0), true),
            of(1 << 30, 512 * MIB, 0)
        );
        let error = divided(Some(255 * MIB), None, false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("the log needs at least 268435456"),
            "{error}"
        );
    }

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(
            total_of("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
        assert!(machine_memory().is_none_or(|bytes| bytes > 64 << 20));
    }
}
