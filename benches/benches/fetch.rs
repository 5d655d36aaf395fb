//! Reading back, in MiB of encoded batches (hot) and of rows (cold) per second.
//!
//! `hot-quic`: a consumer reads a topic whose batches are in the node's memory, over QUIC on this
//! machine. Baseline: a plain quinn stream inside this process that moves as many bytes.
//! `cold-local`: the broker gives out a partition that lies in Parquet objects in a local folder,
//! as batches. Baseline: the parquet crate reads the same objects into Arrow batches.
//! Both sides of a case do their work in this process, so the processor is shared alike.

use std::time::Instant;

use benches::cold::{self, Cold, READ_BYTES};
use benches::plain_quic::PlainQuic;
use benches::rig::{self, Bare, Result, Whole};
use benches::{Case, MEBIBYTE, Options, Unit};
use client::ConsumerConfig;
use model::{Codec, TopicLog};

const BATCH_RECORDS: usize = 1_000;

fn main() -> Result<()> {
    let (options, runtime) = rig::begin()?;
    if options.wants("hot-quic") {
        runtime.block_on(hot_quic(&options))?;
    }
    if options.wants("cold-local") {
        runtime.block_on(cold_local(&options))?;
    }
    Ok(())
}

async fn hot_quic(options: &Options) -> Result<()> {
    let folder = rig::folder()?;
    let whole = Whole::start(folder.path(), 1).await?;
    let batch = rig::batch(BATCH_RECORDS, Codec::None)?;
    let batches = options.amount(1_000, 40);
    let (records, bytes) = (batches * BATCH_RECORDS, batches * batch.size());
    for _ in 0..batches {
        let (partition, batch) = (whole.partitions[0], batch.clone());
        whole
            .client
            .call(protocol::Produce { partition, batch })
            .await?;
    }
    let plain = PlainQuic::connect().await?;
    let mut case = Case::new("fetch", "hot-quic", Unit::MebibytesPerSecond);
    for _ in 0..options.runs() {
        let begun = Instant::now();
        let mut consumer = whole
            .client
            .consumer(ConsumerConfig::all(["bench"]))
            .await?;
        let mut got = 0;
        while let Some(delivery) = consumer.next().await? {
            got += delivery.batch.len() as usize;
        }
        let took = begun.elapsed().as_secs_f64();
        if got != records {
            return Err(format!("{got} of {records} records came").into());
        }
        case.ours(bytes as f64 / MEBIBYTE / took, got as u64);
        let took = plain.transfer(bytes as u64).await?.as_secs_f64();
        case.baseline(bytes as f64 / MEBIBYTE / took);
    }
    case.print();
    drop(whole.client);
    whole.node.stop().await;
    Ok(())
}

async fn cold_local(options: &Options) -> Result<()> {
    let folder = rig::folder()?;
    let bare = Bare::open(folder.path(), 1, true).await?;
    let partition = bare.partitions[0];
    let batch = rig::batch(BATCH_RECORDS, Codec::None)?;
    let batches = options.amount(1_000, 40);
    for _ in 0..batches {
        bare.broker.produce(partition, batch.clone()).await?;
    }
    bare.store.tier(Some(partition)).await?;
    // Opened again, so that no batch is in memory any more.
    bare.store.close().await?;
    drop(bare);
    let bare = Bare::open(folder.path(), 1, true).await?;
    let cold = Cold {
        files: cold::objects(&bare.store, partition, folder.path()).await?,
        records: batches * BATCH_RECORDS,
        bytes: batches * batch.rows()?.bytes(),
    };
    let case = Case::new("fetch", "cold-local", Unit::MebibytesPerSecond);
    let fetch = async |from| Ok(TopicLog::fetch(&bare.broker, partition, from, READ_BYTES).await?);
    cold.measure(options, case, fetch).await?;
    bare.store.close().await?;
    Ok(())
}
