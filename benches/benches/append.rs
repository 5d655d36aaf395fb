//! Durable records per second, beside the raw disk.
//!
//! `producers-N`: N producers in this process, each with one request in flight, a record of 1 KiB,
//! acknowledged after its sync. `quic-N`: the same through a node's native door, each producer on
//! a stream of its own. `io_uring-N`: as `producers-N`, written by the WAL's other writer.
//! Baseline: one thread writes the same N encoded batches in one piece and syncs, again and
//! again: the batching of a log that misses no chance and hands nothing over. `threads` is our
//! speed over that of N threads with one request in flight each and a writer that takes all that
//! wait, the least that a log for real producers does.
//! `per_sync` is how many records of ours one sync covered, `writer` what wrote them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::disk::RawDisk;
use benches::rig::{self, Bare, Result, Whole};
use benches::{Case, Options, Unit, median};
use broker::Broker;
use model::{Batch, PartitionId};
use protocol::{Produce, Response};
use storage::{Store, StoreConfig, WalWriterKind};
use tokio::task::JoinSet;

/// Bytes of a record's value; a request is one record.
const RECORD_BYTES: usize = 1 << 10;

fn main() -> Result<()> {
    let (options, runtime) = rig::begin()?;
    for producers in [1, 8, 64] {
        for way in ["producers", "io_uring", "quic"] {
            let case = format!("{way}-{producers}");
            if options.wants(&case) {
                runtime.block_on(measure(case, producers, way, &options))?;
            }
        }
    }
    Ok(())
}

/// What takes the batches of one case.
enum Target {
    Bare(Bare),
    Whole(Box<Whole>),
}

impl Target {
    fn store(&self) -> &Store {
        match self {
            Target::Bare(bare) => &bare.store,
            Target::Whole(whole) => whole.node.store(),
        }
    }

    fn partitions(&self) -> &[PartitionId] {
        match self {
            Target::Bare(bare) => &bare.partitions,
            Target::Whole(whole) => &whole.partitions,
        }
    }

    /// Records acknowledged in one turn, and how long it took.
    async fn turn(&self, batch: &Batch, turn: Duration) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        let until = begun + turn;
        let mut producers = JoinSet::new();
        for partition in self.partitions().iter().copied() {
            // each producer has bytes of its own, as one that reads them from somewhere has
            let batch = Batch::decode(batch.to_bytes())?;
            match self {
                Target::Bare(bare) => {
                    producers.spawn(produce(bare.broker.clone(), partition, batch, until));
                }
                Target::Whole(whole) => {
                    let channel = whole.client.channel().await?;
                    producers.spawn(async move {
                        let mut records = 0;
                        while Instant::now() < until {
                            let batch = batch.clone();
                            let sent = channel.send(Produce { partition, batch }).await?;
                            let Response::Produced(_) = sent.await? else {
                                return Err("the node did not answer with an offset".into());
                            };
                            records += 1;
                        }
                        Ok(records)
                    });
                }
            }
        }
        let mut records = 0;
        while let Some(done) = producers.join_next().await {
            records += done??;
        }
        Ok((records, begun.elapsed()))
    }
}

async fn produce(
    broker: Broker,
    partition: PartitionId,
    batch: Batch,
    until: Instant,
) -> Result<u64> {
    let mut records = 0;
    while Instant::now() < until {
        broker.produce(partition, batch.clone()).await?;
        records += 1;
    }
    Ok(records)
}

async fn measure(name: String, producers: u32, way: &str, options: &Options) -> Result<()> {
    let folder = rig::folder()?;
    let target = if way == "quic" {
        Target::Whole(Box::new(Whole::start(folder.path(), producers).await?))
    } else {
        let mut config = StoreConfig::new(folder.path());
        if way == "io_uring" {
            config.wal_writer = WalWriterKind::IoUring;
        }
        Target::Bare(Bare::open_with(config, producers, false).await?)
    };
    let batch = rig::record(RECORD_BYTES)?;
    let group: Arc<[u8]> = batch.to_bytes().repeat(producers as usize).into();
    let group_records = u64::from(producers);
    let mut raw = RawDisk::create(folder.path())?;
    let mut case = Case::new("append", name, Unit::RecordsPerSecond);
    let (mut syncs, mut total) = (0, 0);
    let mut shared = Vec::new();
    for _ in 0..options.runs() {
        let before = target.store().status().syncs;
        let (records, took) = target.turn(&batch, options.turn()).await?;
        syncs += target.store().status().syncs - before;
        total += records;
        case.ours(records as f64 / took.as_secs_f64(), records);
        rig::trim(target.store(), target.partitions()).await?;

        let (group, turn) = (Arc::clone(&group), options.turn());
        let turned = tokio::task::spawn_blocking(move || {
            let whole = raw.turn(&group, turn);
            let one = &group[..group.len() / producers as usize];
            let shared = raw.shared_turn(one, producers as usize, turn);
            (raw, whole, shared)
        });
        let (back, whole, with_threads) = turned.await?;
        raw = back;
        let (count, took) = whole?;
        case.baseline((count * group_records) as f64 / took.as_secs_f64());
        let (count, took) = with_threads?;
        shared.push(count as f64 / took.as_secs_f64());
    }
    case.number("threads", case.value() / median(&shared));
    case.number("per_sync", total as f64 / syncs.max(1) as f64);
    case.field("writer", target.store().status().wal_writer);
    case.field("batch_bytes", batch.size());
    case.print();
    match target {
        Target::Bare(bare) => bare.store.close().await?,
        Target::Whole(whole) => {
            drop(whole.client);
            whole.node.stop().await;
        }
    }
    Ok(())
}
