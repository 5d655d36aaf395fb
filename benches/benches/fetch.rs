//! Reading back, in MiB of encoded batches (hot) and of rows (cold) per second.
//!
//! `hot-quic`: a consumer reads a topic whose batches are in the node's memory, over QUIC on this
//! machine. Baseline: a plain quinn stream inside this process that moves as many bytes.
//! `cold-local`: the broker gives out a partition that lies in Parquet objects in a local folder,
//! as batches. Baseline: the parquet crate reads the same objects into Arrow batches.
//! Both sides of a case do their work in this process, so the processor is shared alike.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use benches::plain_quic::PlainQuic;
use benches::rig::{self, Bare, Result, Whole};
use benches::{Case, Options, Unit, machine};
use client::ConsumerConfig;
use model::{Codec, TopicLog};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const BATCH_RECORDS: usize = 1_000;
/// Bytes asked for by one fetch.
const FETCH_BYTES: usize = 4 << 20;
const MEBIBYTE: f64 = (1 << 20) as f64;

fn main() -> Result<()> {
    let options = Options::from_args();
    let folder = rig::folder()?;
    machine::print(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
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
    let records = batches * BATCH_RECORDS;
    for _ in 0..batches {
        bare.broker.produce(partition, batch.clone()).await?;
    }
    bare.store.tier(Some(partition)).await?;
    // Opened again, so that no batch is in memory any more.
    bare.store.close().await?;
    drop(bare);
    let bare = Bare::open(folder.path(), 1, true).await?;
    let files = objects(folder.path())?;
    let bytes = (batches * batch.rows()?.bytes()) as f64;
    let mut case = Case::new("fetch", "cold-local", Unit::MebibytesPerSecond);
    for _ in 0..options.runs() {
        let begun = Instant::now();
        let (mut from, mut got) = (0, 0);
        while got < records {
            let batches = TopicLog::fetch(&bare.broker, partition, from, FETCH_BYTES).await?;
            let last = batches.last().ok_or("the topic ended early")?;
            from = last.next_offset();
            got += batches
                .iter()
                .map(|batch| batch.len() as usize)
                .sum::<usize>();
        }
        case.ours(bytes / MEBIBYTE / begun.elapsed().as_secs_f64(), got as u64);

        let files = files.clone();
        let begun = Instant::now();
        let read = tokio::task::spawn_blocking(move || read_plainly(&files)).await??;
        if read != records {
            return Err(format!("{read} of {records} rows are in the objects").into());
        }
        case.baseline(bytes / MEBIBYTE / begun.elapsed().as_secs_f64());
    }
    case.field("objects", files.len());
    case.print();
    bare.store.close().await?;
    Ok(())
}

/// The Parquet objects under a folder.
fn objects(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "parquet")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read_plainly(files: &[PathBuf]) -> Result<usize> {
    let mut rows = 0;
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
        let reader = reader.with_batch_size(8 * 1024).build()?;
        for batch in reader {
            rows += batch?.num_rows();
        }
    }
    Ok(rows)
}
