//! Opening a store again: how fast the write-ahead log is read back, and what many segments cost.
//!
//! `wal-1gib`: a WAL of 1 GiB in batches of `BATCH_RECORDS` JSON records, nothing of it in the
//! tier, so that recovery checks all of it and rebuilds the partition's index.
//! `open-N`: N segments of one entry each, closed in peace, so that a checkpoint says all of it.
//! `scan-N`: the same without the checkpoint. `wal-1gib` goes without it too.
//! Baseline of all: the same files read plainly from the first to the last byte into one buffer.
//! Both find the files in the page cache: what is measured is the work, not the disk.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use benches::rig::{self, Result};
use benches::{Case, Options, Unit};
use model::{Batch, Codec, PartitionId, ShardEpoch, TopicId};
use storage::{Entry, PartitionConfig, Store, StoreConfig};

/// Records of one batch of `wal-1gib`.
const BATCH_RECORDS: usize = 1_000;
/// Records of the one batch of a segment of `open-N`: more than half of `SEGMENT_BYTES`.
const SEGMENT_RECORDS: usize = 40;
const SEGMENT_BYTES: u64 = 8 << 10;
const PARTITION: PartitionId = PartitionId::new(TopicId(1), 0);

fn main() -> Result<()> {
    let (options, runtime) = rig::begin()?;
    if options.wants("wal-1gib") {
        runtime.block_on(whole(&options))?;
    }
    for segments in [1, 100, 10_000] {
        for way in [Way::Open, Way::Scan] {
            let case = match way {
                Way::Open => format!("open-{segments}"),
                Way::Scan => format!("scan-{segments}"),
            };
            if options.wants(&case) {
                runtime.block_on(many(&options, case, segments, way))?;
            }
        }
    }
    Ok(())
}

/// With the checkpoint that there is, or without.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Open,
    Scan,
}

/// A store that keeps all it has in the WAL.
async fn open(dir: &Path, segment_bytes: u64) -> Result<Store> {
    let config = StoreConfig {
        segment_bytes,
        wal_bytes_max: u64::MAX,
        tier_tick_ms: 3_600_000,
        ..StoreConfig::new(dir)
    };
    let mut partition = PartitionConfig::new(PARTITION, "bench");
    partition.tier = false;
    Ok(Store::open(config, vec![partition]).await?)
}

/// Appends `batch` so many times, as one producer that waits only for room.
async fn fill(store: &Store, batch: &Batch, times: usize) -> Result<()> {
    let mut last = None;
    for _ in 0..times {
        store.room(batch.size()).await;
        let base = store.log_end(PARTITION)?;
        let batch = batch.clone().stamped(base, ShardEpoch(0), 0);
        last = Some(store.enqueue(Entry::new(vec![(PARTITION, batch)]))?);
    }
    if let Some(last) = last {
        last.await?;
    }
    Ok(())
}

/// Reads all files of the WAL; how many bytes those were, and how long it took.
fn read_plainly(dir: &Path) -> Result<(u64, Duration)> {
    let begun = Instant::now();
    let mut buffer = vec![0u8; 1 << 20];
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir.join("wal"))? {
        let mut file = File::open(entry?.path())?;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
        }
    }
    Ok((std::hint::black_box(bytes), begun.elapsed()))
}

/// Opens the store, checks that all records are there, closes it; how long the opening took.
async fn reopen(dir: &Path, segment_bytes: u64, records: u64, way: Way) -> Result<Duration> {
    if way == Way::Scan {
        std::fs::remove_file(dir.join("wal/checkpoint"))?;
    }
    let begun = Instant::now();
    let store = open(dir, segment_bytes).await?;
    let took = begun.elapsed();
    let bounds = store.bounds(PARTITION)?;
    store.close().await?;
    if (bounds.start, bounds.end) != (0, records) {
        return Err(format!("{bounds:?} were found, not {records} records").into());
    }
    Ok(took)
}

async fn whole(options: &Options) -> Result<()> {
    let folder = rig::folder()?;
    let segment_bytes = StoreConfig::default().segment_bytes;
    let batch = rig::batch(BATCH_RECORDS, Codec::None)?;
    let times = options.amount(1 << 30, 32 << 20) / batch.size();
    let store = open(folder.path(), segment_bytes).await?;
    fill(&store, &batch, times).await?;
    let segments = store.status().wal_segments;
    store.close().await?;
    let records = (times * BATCH_RECORDS) as u64;
    let mut case = Case::new("recovery", "wal-1gib", Unit::MegabytesPerSecond);
    for _ in 0..options.runs() {
        let took = reopen(folder.path(), segment_bytes, records, Way::Scan).await?;
        let (bytes, plainly) = read_plainly(folder.path())?;
        let megabytes = bytes as f64 / 1e6;
        case.ours(megabytes / took.as_secs_f64(), records);
        case.baseline(megabytes / plainly.as_secs_f64());
    }
    case.field("segments", segments);
    case.field("batch_bytes", batch.size());
    case.print();
    Ok(())
}

async fn many(options: &Options, name: String, segments: usize, way: Way) -> Result<()> {
    let folder = rig::folder()?;
    let segments = segments.min(options.amount(segments, 200));
    let batch = rig::batch(SEGMENT_RECORDS, Codec::None)?;
    let store = open(folder.path(), SEGMENT_BYTES).await?;
    fill(&store, &batch, segments).await?;
    let made = store.status().wal_segments;
    store.close().await?;
    if made != segments as u64 {
        return Err(format!("{made} segments were made, not {segments}").into());
    }
    let records = (segments * SEGMENT_RECORDS) as u64;
    let mut case = Case::new("recovery", name, Unit::Milliseconds);
    for _ in 0..options.runs() {
        let took = reopen(folder.path(), SEGMENT_BYTES, records, way).await?;
        let (_, plainly) = read_plainly(folder.path())?;
        case.ours(took.as_secs_f64() * 1e3, records);
        case.baseline(plainly.as_secs_f64() * 1e3);
    }
    case.field("segments", made);
    case.print();
    Ok(())
}
