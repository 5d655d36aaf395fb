//! The cache against folders that were emptied, damaged, filled up and taken away.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::LogError;
use tokio::sync::Notify;

use super::memory::MemoryBlocks;
use super::{BlockKey, Blocks, BlocksConfig};
use crate::error::TierError;

const KIB: usize = 1024;
const SCOPE: &str = "s3://bucket/prefix";

fn config(dir: &Path, memory: usize, disk: usize) -> BlocksConfig {
    BlocksConfig {
        memory_bytes_max: memory,
        disk_bytes_max: disk as u64,
        dir: dir.to_owned(),
        low_percent: 80,
        age_max: Duration::from_secs(3600),
        free_bytes_min: 0,
    }
}

fn key(n: u64, len: usize) -> BlockKey {
    BlockKey {
        path: format!("objects/{n}.parquet").into(),
        at: n * 4096,
        len: len as u64,
    }
}

/// What the object store has: different for each block.
fn value(key: &BlockKey) -> Bytes {
    let seed = crc32c::crc32c(key.path.as_bytes()) as u8;
    (0..key.len)
        .map(|i| (i as u8).wrapping_mul(31) ^ seed)
        .collect()
}

/// Asks for a block and says whether it had to be fetched. What comes is always right.
async fn ask(blocks: &Blocks, key: &BlockKey) -> bool {
    let fetched = AtomicUsize::new(0);
    let fetch = || async {
        fetched.fetch_add(1, Ordering::Relaxed);
        Ok(value(key))
    };
    let got = blocks.get(key, fetch).await.unwrap();
    assert_eq!(got, value(key));
    fetched.into_inner() > 0
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("rustmq-blocks-1")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_block = |path: &PathBuf| path.extension().is_some_and(|e| e == "block");
    paths.filter(is_block).collect()
}

#[test]
fn memory_goes_from_the_high_to_the_low_watermark_oldest_use_first() {
    let mut memory = MemoryBlocks::new(100 * KIB, 50, Duration::from_secs(60));
    let now = Instant::now();
    for n in 0..9 {
        memory.put(key(n, 10 * KIB), value(&key(n, 10 * KIB)), now);
    }
    assert_eq!(memory.status(now).evictions, 0);
    assert!(memory.get(&key(0, 10 * KIB), now).is_some());
    memory.put(key(9, 10 * KIB), value(&key(9, 10 * KIB)), now);
    let status = memory.status(now);
    assert!(status.bytes <= status.low_bytes, "{status:?}");
    let is_there = |n| memory.contains(&key(n, 10 * KIB));
    assert!(is_there(0), "it was just used");
    assert!(is_there(9) && !is_there(1) && !is_there(2));
}

#[test]
fn memory_forgets_what_is_too_old_and_takes_nothing_too_large() {
    let mut memory = MemoryBlocks::new(100 * KIB, 50, Duration::from_secs(60));
    let now = Instant::now();
    memory.put(key(1, KIB), value(&key(1, KIB)), now);
    memory.put(
        key(2, KIB),
        value(&key(2, KIB)),
        now + Duration::from_secs(30),
    );
    let later = now + Duration::from_secs(61);
    assert!(memory.get(&key(1, KIB), later).is_none());
    memory.expire(now + Duration::from_secs(91));
    let status = memory.status(later);
    assert_eq!((status.bytes, status.blocks, status.expirations), (0, 0, 2));
    memory.put(key(3, 60 * KIB), value(&key(3, 60 * KIB)), now);
    assert_eq!(memory.status(now).blocks, 0);
}

#[tokio::test]
async fn memory_then_disk_then_the_store_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), 20 * KIB, 1 << 20), SCOPE);
    for n in 0..8 {
        assert!(ask(&blocks, &key(n, 8 * KIB)).await);
    }
    blocks.settle();
    for n in 0..8 {
        assert!(!ask(&blocks, &key(n, 8 * KIB)).await, "block {n}");
    }
    assert!(!ask(&blocks, &key(7, 8 * KIB)).await);
    let status = blocks.status();
    let disk = status.disk.unwrap();
    assert_eq!((status.misses, disk.blocks), (8, 8));
    assert_eq!(status.memory.hits + disk.hits, 9);
    assert!(status.memory.hits >= 1 && status.memory.evictions > 0);
    assert!(status.memory.bytes <= 20 * KIB as u64 && disk.bytes >= 64 * KIB as u64);
    blocks.close().await;

    let blocks = Blocks::new(config(dir.path(), 20 * KIB, 1 << 20), SCOPE);
    blocks.settle();
    for n in 0..8 {
        assert!(
            !ask(&blocks, &key(n, 8 * KIB)).await,
            "block {n} after a restart"
        );
    }
    // The same path of another store is another block.
    blocks.close().await;
    let other = Blocks::new(config(dir.path(), 20 * KIB, 1 << 20), "s3://other");
    other.settle();
    assert!(ask(&other, &key(0, 8 * KIB)).await);
}

#[tokio::test]
async fn the_disk_stays_within_its_bytes_and_can_be_turned_off() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), KIB, 100 * KIB), SCOPE);
    for n in 0..50 {
        ask(&blocks, &key(n, 8 * KIB)).await;
        blocks.settle();
        let disk = blocks.status().disk.unwrap();
        assert!(disk.bytes <= disk.high_bytes, "{disk:?}");
    }
    let disk = blocks.status().disk.unwrap();
    assert_eq!(disk.evictions + disk.blocks, 50);
    assert_eq!(files(dir.path()).len() as u64, disk.blocks);
    assert!(!ask(&blocks, &key(49, 8 * KIB)).await && ask(&blocks, &key(0, 8 * KIB)).await);

    let off = Blocks::new(config(&dir.path().join("off"), KIB, 0), SCOPE);
    ask(&off, &key(1, KIB)).await;
    assert!(off.status().disk.is_none() && !dir.path().join("off").exists());
}

#[tokio::test]
async fn readers_of_one_block_fetch_once_and_hear_one_error() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), 1 << 20, 0), SCOPE);
    let (gate, fetches) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let ask = |fails: bool| {
        let (blocks, gate, fetches) = (blocks.clone(), Arc::clone(&gate), Arc::clone(&fetches));
        tokio::spawn(async move {
            let key = key(u64::from(fails), KIB);
            let fetch = || async {
                fetches.fetch_add(1, Ordering::Relaxed);
                gate.notified().await;
                let failure = TierError::Log(LogError::Unavailable("gone".to_owned()));
                if fails { Err(failure) } else { Ok(value(&key)) }
            };
            blocks.get(&key, fetch).await
        })
    };
    for fails in [false, true] {
        let first = ask(fails);
        while fetches.load(Ordering::Relaxed) <= usize::from(fails) {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (0..40).map(|_| ask(fails)).collect();
        // On this one thread they all run until they wait.
        tokio::task::yield_now().await;
        gate.notify_one();
        for asked in rest.into_iter().chain([first]) {
            let got = asked.await.unwrap();
            match got {
                Ok(bytes) => assert!(!fails && bytes == value(&key(0, KIB))),
                Err(error) => assert!(fails && error.to_string().contains("gone")),
            }
        }
    }
    assert_eq!(fetches.load(Ordering::Relaxed), 2);
    assert!(blocks.0.flights().is_empty());
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_the_fetch_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), 1 << 20, 0), SCOPE);
    let key = key(1, KIB);
    let (began, mut never) = (Arc::new(Notify::new()), None);
    {
        let (blocks, began, key) = (blocks.clone(), Arc::clone(&began), key.clone());
        never = never.or(Some(tokio::spawn(async move {
            let fetch = || async {
                began.notify_one();
                std::future::pending().await
            };
            blocks.get(&key, fetch).await
        })));
    }
    began.notified().await;
    let second = {
        let (blocks, key) = (blocks.clone(), key.clone());
        tokio::spawn(async move { ask(&blocks, &key).await })
    };
    tokio::task::yield_now().await;
    never.unwrap().abort();
    assert!(second.await.unwrap());
    assert!(blocks.0.flights().is_empty());
}

#[tokio::test]
async fn a_flipped_or_missing_byte_is_a_miss_never_a_wrong_block() {
    let dir = tempfile::tempdir().unwrap();
    let key = key(1, 300);
    let blocks = Blocks::new(config(dir.path(), 0, 1 << 20), SCOPE);
    ask(&blocks, &key).await;
    blocks.settle();
    let path = files(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut damages: Vec<Vec<u8>> = (0..whole.len())
        .map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        })
        .collect();
    damages.extend((0..whole.len()).step_by(7).map(|at| whole[..at].to_vec()));
    damages.push([&whole[..], b"x"].concat());
    for (n, damaged) in damages.iter().enumerate() {
        std::fs::write(&path, damaged).unwrap();
        assert!(ask(&blocks, &key).await, "damage {n}");
        blocks.settle();
        assert!(!ask(&blocks, &key).await, "written again after damage {n}");
    }
    let disk = blocks.status().disk.unwrap();
    assert_eq!(disk.damaged, damages.len() as u64);
    // Another block's file under this name is not this block.
    let other = super::file::Head::new(SCOPE, &super::tests::key(2, 300));
    super::file::write(&path, other, &value(&super::tests::key(2, 300))).unwrap();
    assert!(ask(&blocks, &key).await);
}

#[tokio::test]
async fn an_emptied_folder_costs_time_and_a_removed_one_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), 0, 1 << 20), SCOPE);
    for n in 0..4 {
        ask(&blocks, &key(n, KIB)).await;
    }
    blocks.settle();
    for file in files(dir.path()) {
        std::fs::remove_file(file).unwrap();
    }
    for n in 0..4 {
        assert!(ask(&blocks, &key(n, KIB)).await);
    }
    blocks.settle();
    assert!(!ask(&blocks, &key(0, KIB)).await);

    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(ask(&blocks, &key(1, KIB)).await);
    blocks.settle();
    assert!(blocks.status().disk.unwrap().failure.is_some());
    blocks.0.disk.as_ref().unwrap().wake_up();
    assert!(ask(&blocks, &key(2, KIB)).await);
    blocks.settle();
    assert!(!ask(&blocks, &key(2, KIB)).await);
    assert_eq!(blocks.status().disk.unwrap().failure, None);
}

#[tokio::test]
async fn a_full_disk_gets_space_back_and_is_used_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), 0, 1 << 20), SCOPE);
    let disk = blocks.0.disk.as_ref().unwrap();
    for n in 0..16 {
        ask(&blocks, &key(n, 8 * KIB)).await;
    }
    blocks.settle();
    disk.set_fault(Some(ErrorKind::StorageFull));
    let before = blocks.status().disk.unwrap();
    ask(&blocks, &key(100, 8 * KIB)).await;
    blocks.settle();
    let full = blocks.status().disk.unwrap();
    assert!(full.bytes <= before.bytes / 2 && full.failure.is_some());
    // It rests: nothing is tried, nothing evicted.
    ask(&blocks, &key(101, 8 * KIB)).await;
    blocks.settle();
    assert_eq!(blocks.status().disk.unwrap().bytes, full.bytes);
    disk.wake_up();
    ask(&blocks, &key(102, 8 * KIB)).await;
    blocks.settle();
    assert!(blocks.status().disk.unwrap().bytes <= full.bytes / 2);
    disk.set_fault(None);
    disk.wake_up();
    ask(&blocks, &key(103, 8 * KIB)).await;
    blocks.settle();
    assert!(!ask(&blocks, &key(103, 8 * KIB)).await);
    assert_eq!(blocks.status().disk.unwrap().failure, None);
    // What the log asks for when it has no room for a segment.
    blocks.release_disk();
    blocks.settle();
    assert_eq!(blocks.status().disk.unwrap().bytes, 0);
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn the_last_free_bytes_are_left_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let wants_all = BlocksConfig {
        free_bytes_min: u64::MAX / 2,
        ..config(dir.path(), 0, 1 << 20)
    };
    let blocks = Blocks::new(wants_all, SCOPE);
    ask(&blocks, &key(1, KIB)).await;
    blocks.settle();
    let disk = blocks.status().disk.unwrap();
    assert_eq!((disk.blocks, disk.skipped), (0, 1));
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_leaves_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let blocks = Blocks::new(config(&file, 1 << 20, 1 << 20), SCOPE);
    assert!(ask(&blocks, &key(1, KIB)).await);
    blocks.settle();
    assert!(!ask(&blocks, &key(1, KIB)).await);
    let disk = blocks.status().disk.unwrap();
    assert!(disk.failure.is_some() && disk.blocks == 0);
    blocks.close().await;
    assert_eq!(std::fs::read(&file).unwrap(), b"in the way");

    // Two brokers cannot share a folder; the second one does without.
    let first = Blocks::new(config(dir.path(), 0, 1 << 20), SCOPE);
    first.settle();
    ask(&first, &key(1, KIB)).await;
    first.settle();
    let second = Blocks::new(config(dir.path(), 0, 1 << 20), SCOPE);
    second.settle();
    assert!(ask(&second, &key(1, KIB)).await);
    second.0.disk.as_ref().unwrap().wake_up();
    assert!(ask(&second, &key(1, KIB)).await);
    second.settle();
    assert!(second.status().disk.unwrap().failure.is_some());
    assert!(
        !ask(&first, &key(1, KIB)).await,
        "the first one's blocks stay"
    );
}

#[tokio::test]
async fn only_blocks_are_ever_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("rustmq-blocks-1");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["notes.txt", "x.block", &format!("{:031}.block", 7)] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    let blocks = Blocks::new(config(dir.path(), 0, 4 * KIB), SCOPE);
    let disk = blocks.0.disk.as_ref().unwrap();
    for n in 0..10 {
        ask(&blocks, &key(n, KIB)).await;
    }
    blocks.settle();
    disk.set_fault(Some(ErrorKind::PermissionDenied));
    ask(&blocks, &key(20, KIB)).await;
    blocks.settle();
    disk.set_fault(None);
    disk.wake_up();
    ask(&blocks, &key(21, KIB)).await;
    blocks.settle();
    assert_eq!(
        blocks.status().disk.unwrap().blocks,
        1,
        "it began again empty"
    );
    blocks.release_disk();
    blocks.settle();
    let mut left: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort_unstable();
    let foreign = format!("{:031}.block", 7);
    assert_eq!(left, [foreign.as_str(), "LOCK", "notes.txt", "x.block"]);
}

#[tokio::test]
async fn old_blocks_go_from_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), 0, 1 << 20), SCOPE);
    ask(&blocks, &key(1, KIB)).await;
    ask(&blocks, &key(2, KIB)).await;
    blocks.settle();
    blocks.close().await;
    let day = std::time::SystemTime::now() - Duration::from_secs(86_400);
    let file = std::fs::File::options()
        .write(true)
        .open(&files(dir.path())[0])
        .unwrap();
    file.set_modified(day).unwrap();
    let blocks = Blocks::new(config(dir.path(), 0, 1 << 20), SCOPE);
    blocks.settle();
    assert!(blocks.status().disk.unwrap().oldest_ms.unwrap() >= 86_400_000);
    blocks.expire();
    blocks.settle();
    let disk = blocks.status().disk.unwrap();
    assert_eq!((disk.blocks, disk.expirations), (1, 1));
}

#[tokio::test]
async fn what_is_read_ahead_is_bounded_and_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = Blocks::new(config(dir.path(), 64 * KIB, 0), SCOPE);
    let gate = Arc::new(Notify::new());
    let ahead = |n: u64, len: usize| {
        let (gate, key) = (Arc::clone(&gate), key(n, len));
        blocks.ahead(key.clone(), move || async move {
            gate.notified().await;
            Ok(value(&key))
        })
    };
    assert!(ahead(1, 8 * KIB) && ahead(2, 8 * KIB));
    assert!(!ahead(3, KIB), "a quarter of the memory is under way");
    let waiting = {
        let blocks = blocks.clone();
        tokio::spawn(async move { ask(&blocks, &key(1, 8 * KIB)).await })
    };
    tokio::task::yield_now().await;
    gate.notify_waiters();
    assert!(!waiting.await.unwrap(), "it waited for what was on its way");
    while blocks.0.ahead_bytes.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!ask(&blocks, &key(2, 8 * KIB)).await);
    assert!(!ahead(2, 8 * KIB), "it is there");
    let status = blocks.status();
    assert_eq!((status.ahead_blocks, status.misses), (2, 0));
}
