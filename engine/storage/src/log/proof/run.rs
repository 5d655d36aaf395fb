//! One run: a few lives of a store over one simulated disk, each with a fault, then damage.
//!
//! Called by: `proof`. Invariants: all choices come from the seed.
//! Refuses (answers what is wrong): whatever the oracle does not allow, a store that does not
//! open without damage, damage below what is known durable that is not named.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;

use futures::FutureExt;
use model::{Batch, Codec, LogError, Offset, PartitionId, RowsBuilder, ShardEpoch};

use super::super::commit::Committer;
use super::super::queue::Pending;
use super::super::tests::{P0, P1, partitions};
use super::super::{Entry, Store};
use super::oracle::{Oracle, PARTITIONS, Seen, Sent};
use crate::config::StoreConfig;
use crate::error::OpenError;
use crate::io::Disk;
use crate::tests::disk::{Fired, SimDisk};
use crate::tier::tests::FaultyStore;
use crate::wal::entry::{ENTRY_HEAD_LEN, PART_HEAD_LEN, entry_len, padded};
use crate::wal::recovery::recover;

const IDS: [PartitionId; PARTITIONS] = [P0, P1];
const SEGMENT_BYTES: u64 = 3 << 10;
/// Bits flipped at the end of a run, one at a time.
const FLIPS: u64 = 24;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub acked: u64,
    pub unknown: u64,
    /// Refused by a full disk.
    pub full: u64,
    pub refused: u64,
    pub crashes: u64,
    pub restarts: u64,
    pub fired: Fired,
    pub flips: u64,
    pub segments_freed: u64,
    /// Of all files at the end.
    pub bytes_crc: u32,
}

impl Report {
    pub(super) fn add(&mut self, other: &Report) {
        self.acked += other.acked;
        self.unknown += other.unknown;
        self.full += other.full;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.fired.add(&other.fired);
        self.flips += other.flips;
        self.segments_freed += other.segments_freed;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acked={} unknown={} full={} refused={} crashes={} restarts={} flips={} \
             segments_freed={} faults: {}",
            self.acked,
            self.unknown,
            self.full,
            self.refused,
            self.crashes,
            self.restarts,
            self.flips,
            self.segments_freed,
            self.fired
        )
    }
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

struct Run {
    rng: Rng,
    config: StoreConfig,
    disk: SimDisk,
    objects: FaultyStore,
    oracle: Oracle,
    report: Report,
    /// Numbers the entries, so that every record is another.
    next: u64,
    /// Of the text that makes an entry come out even, by rows and least width.
    widths: BTreeMap<(u64, usize), usize>,
    /// Shard 0 goes on at least here.
    sequence: u64,
    /// What nobody heard of: after a restart the first few of them are there.
    unanswered: Vec<Request>,
}

/// One atomic entry as a client sends it: partition, batch, and the values in it.
type Request = Vec<(usize, Batch, Vec<u64>)>;

/// A store while its process lives.
struct Life {
    store: Store,
    writer: Committer,
    failed: bool,
}

pub(super) fn run(seed: u64) -> Result<Report, String> {
    let mut config = StoreConfig::new("/proof");
    config.segment_bytes = SEGMENT_BYTES;
    // Small, so that most reads go to the WAL.
    config.tail_bytes_max = 1 << 10;
    let mut run = Run {
        rng: Rng(seed),
        config,
        disk: SimDisk::joined(seed % 2 == 1),
        objects: FaultyStore::default(),
        oracle: Oracle::default(),
        report: Report::default(),
        next: 0,
        widths: BTreeMap::new(),
        sequence: 0,
        unanswered: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        for _ in 0..4 + run.rng.below(4) {
            let mut life = run.open().await?;
            run.live(&mut life).await?;
            run.end(life);
        }
        drop(run.open().await?);
        run.damage()?;
        Ok(run.report)
    })
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    text.split_once('.').unwrap().0.parse().unwrap()
}

fn encoded(first: u64, rows: u64, text: usize) -> Batch {
    let text = "x".repeat(text);
    let mut builder = RowsBuilder::new();
    for number in first..first + rows {
        let value = format!("{number:08}.{text}");
        builder.push(number as i64, None, Some(value.as_bytes()), &[]);
    }
    Batch::encode(&builder.finish(), Codec::None, None).unwrap()
}

/// The answer, if it is there.
fn now(pending: Pending) -> Option<Result<(), LogError>> {
    tokio::task::unconstrained(pending).now_or_never()
}

/// A future that needs the writer: lets it take turns until the future is done.
async fn with_turns<T>(life: &mut Life, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = futures::poll!(work.as_mut()) {
            return done;
        }
        if life.store.inner.queue.waiting().0 > 0 {
            life.turn();
        } else {
            tokio::task::yield_now().await;
        }
    }
}

impl Life {
    fn turn(&mut self) {
        // Its thread would have ended with the failure.
        if !self.failed {
            self.failed = !self.writer.turn();
        }
    }
}

impl Run {
    /// Opens the store on what the disk has, which is undamaged, and checks all of it.
    async fn open(&mut self) -> Result<Life, String> {
        let tier = self.objects.tier(&self.config);
        let disk = Arc::new(self.disk.clone());
        let opened = Store::open_stepped(self.config.clone(), partitions(), disk, tier).await;
        let (store, writer) = opened.map_err(|error| format!("it does not open: {error}"))?;
        let seen = [self.read(&store, 0).await?, self.read(&store, 1).await?];
        let found = self.oracle.settle(&seen)?;
        self.unanswered.drain(..found);
        let sequence = writer.sequences.get(&0).copied().unwrap_or(0);
        if sequence < self.sequence {
            let before = self.sequence;
            return Err(format!(
                "shard 0 goes on at sequence {sequence}, it was at {before}"
            ));
        }
        Ok(Life {
            store,
            writer,
            failed: false,
        })
    }

    async fn read(&self, store: &Store, partition: usize) -> Result<Seen, String> {
        let id = IDS[partition];
        let bounds = store.bounds(id).unwrap();
        let mut values = Vec::new();
        let mut at = bounds.start;
        while at < bounds.end {
            let batches = store.read(id, at, 2_000).await;
            let batches = batches.map_err(|error| format!("partition {id} at {at}: {error}"))?;
            let before = at;
            for batch in batches {
                let rows = batch.rows().unwrap();
                for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
                    if offset == at {
                        values.push(number(rows.values.value(row)));
                        at += 1;
                    } else if offset > at {
                        return Err(format!("partition {id}: {offset} where {at} should be"));
                    }
                }
            }
            if at == before {
                return Err(format!(
                    "partition {id}: nothing at {at} below {}",
                    bounds.end
                ));
            }
        }
        let start = bounds.start;
        Ok(Seen { start, values })
    }

    async fn live(&mut self, life: &mut Life) -> Result<(), String> {
        let lost = std::mem::take(&mut self.unanswered);
        if !lost.is_empty() && self.rng.chance(60) {
            match self.rng.chance(50) {
                true => self.send_again(life, lost)?,
                false => self.fill_hole(life, &lost[0])?,
            }
            if self.rng.chance(50) {
                return Ok(());
            }
        }
        let steps = self.rng.of(&[1, 3, 10, 20, 40]);
        let (fault, at) = (self.rng.below(7), self.rng.below(steps));
        let faults = Arc::clone(&self.disk.faults);
        if fault == 3 {
            let changes = self.rng.of(&[6, 40]);
            faults.power.store(self.rng.below(changes) as i64, SeqCst);
        }
        for step in 0..steps {
            match fault {
                1 if step == at => faults.next_sync_fails.store(true, SeqCst),
                2 => faults.write_fails.store(step == at, SeqCst),
                6 => faults.write_is_full.store(step == at, SeqCst),
                4 | 5 => faults.is_full.store((at..at + 6).contains(&step), SeqCst),
                _ => {}
            }
            self.step(life).await?;
            self.check_live(life)?;
            if !life.failed {
                self.sequence = life.writer.sequences.get(&0).copied().unwrap_or(0);
            }
        }
        if self.rng.chance(10) {
            self.empty(life).await;
        }
        for partition in 0..PARTITIONS {
            let seen = self.read(&life.store, partition).await?;
            self.oracle.check_values(partition, &seen)?;
        }
        Ok(())
    }

    async fn step(&mut self, life: &mut Life) -> Result<(), String> {
        match self.rng.below(100) {
            0..70 => self.append(life),
            70..82 => self.trim(life),
            82..90 => {
                let store = life.store.clone();
                let freed = with_turns(life, store.reclaim()).await;
                self.report.segments_freed += freed.unwrap_or(0);
                Ok(())
            }
            90..94 => {
                let store = life.store.clone();
                // May fail with the disk; what it moved is checked like all else.
                let _ = with_turns(life, store.move_leftovers()).await;
                Ok(())
            }
            // With nothing waiting the writer appends a mark.
            _ => {
                life.turn();
                Ok(())
            }
        }
    }

    /// Numbered records. Their values have one width, and their entries whole multiples of a
    /// mark's length, so that entries of different lives often begin and end at the same bytes.
    fn batch(&mut self, base: Offset, rows: u64) -> (Batch, Vec<u64>) {
        let text = self.rng.of(&[0, 40, 300, 700]);
        let first = self.next;
        self.next += rows;
        let text = match self.widths.get(&(rows, text)) {
            Some(width) => *width,
            None => {
                let is_even = |width: &usize| {
                    let size = encoded(first, rows, *width).size();
                    (PART_HEAD_LEN + padded(size)).is_multiple_of(ENTRY_HEAD_LEN)
                };
                let width = (text..).find(is_even).unwrap();
                self.widths.insert((rows, text), width);
                width
            }
        };
        let batch = encoded(first, rows, text);
        let values = (first..first + rows).collect();
        (batch.stamped(base, ShardEpoch(0), 7), values)
    }

    /// A few entries that wait for the same write.
    fn append(&mut self, life: &mut Life) -> Result<(), String> {
        let mut ends = IDS.map(|id| life.store.log_end(id).unwrap());
        let mut requests = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let chosen: &[usize] = self.rng.of(&[&[0], &[1], &[0, 1], &[1, 0]]);
            let mut request = Vec::new();
            for partition in chosen {
                let rows = 1 + self.rng.below(3);
                let (batch, values) = self.batch(ends[*partition], rows);
                ends[*partition] += rows;
                request.push((*partition, batch, values));
            }
            requests.push(request);
        }
        self.send(life, requests)
    }

    /// Clients try again, byte for byte, the first of what they heard nothing of.
    fn send_again(&mut self, life: &mut Life, mut lost: Vec<Request>) -> Result<(), String> {
        lost.truncate(1 + self.rng.below(lost.len() as u64) as usize);
        let mut ends = IDS.map(|id| life.store.log_end(id).unwrap());
        let mut follows = |request: &&Request| {
            request.iter().all(|(partition, batch, _)| {
                let end = std::mem::replace(&mut ends[*partition], batch.next_offset());
                batch.base_offset() == end
            })
        };
        // What a full disk refused in between was never written.
        let fitting = lost.iter().take_while(&mut follows).count();
        lost.truncate(fitting);
        self.send(life, lost)
    }

    /// A record that with recovery's mark takes just the place of a lost entry: what may be left
    /// of the next one begins where it ends.
    fn fill_hole(&mut self, life: &mut Life, lost: &Request) -> Result<(), String> {
        let length = entry_len(lost.iter().map(|(_, batch, _)| batch.size()));
        let fits = |batch: &Batch| ENTRY_HEAD_LEN + entry_len([batch.size()].into_iter()) == length;
        let first = self.next;
        let Some(batch) = (0..length).map(|text| encoded(first, 1, text)).find(fits) else {
            return Ok(());
        };
        self.next += 1;
        let partition = lost[0].0;
        let base = life.store.log_end(IDS[partition]).unwrap();
        let batch = batch.stamped(base, ShardEpoch(0), 7);
        self.send(life, vec![vec![(partition, batch, vec![first])]])
    }

    /// Trims all until no segment has a batch: then only a checkpoint knows how the shard goes on.
    async fn empty(&mut self, life: &mut Life) {
        for _ in 0..8 {
            (0..PARTITIONS).for_each(|partition| self.trim_one(life, partition, Offset::MAX));
            let store = life.store.clone();
            let freed = with_turns(life, store.reclaim()).await;
            self.report.segments_freed += freed.unwrap_or(0);
        }
    }

    fn send(&mut self, life: &mut Life, requests: Vec<Request>) -> Result<(), String> {
        let mut waiting: Vec<(Pending, Request)> = Vec::new();
        for request in requests {
            let batches = request.iter();
            let batches = batches.map(|(partition, batch, _)| (IDS[*partition], batch.clone()));
            match life.store.enqueue(Entry::new(batches.collect())) {
                Ok(pending) => waiting.push((pending, request)),
                Err(error) if life.failed => drop(error),
                Err(error) => return Err(format!("an append was refused: {error}")),
            }
        }
        life.turn();
        for (pending, request) in waiting {
            let parts = request.iter();
            let parts = parts.map(|(partition, _, values)| (*partition, values.clone()));
            let sent = Sent {
                parts: parts.collect(),
            };
            match now(pending) {
                Some(Ok(())) => {
                    self.report.acked += 1;
                    self.oracle.acked(sent);
                }
                Some(Err(LogError::Unknown(_))) => {
                    self.report.unknown += 1;
                    self.oracle.unknown(sent);
                    self.unanswered.push(request);
                }
                Some(Err(LogError::DiskFull)) => self.report.full += 1,
                Some(Err(LogError::Unavailable(_))) => self.report.refused += 1,
                Some(Err(error)) => return Err(format!("an append was answered: {error}")),
                None => return Err("an append was not answered".to_owned()),
            }
        }
        Ok(())
    }

    fn trim(&mut self, life: &mut Life) -> Result<(), String> {
        if self.rng.chance(30) {
            // All of both: then only a checkpoint knows where they go on.
            (0..PARTITIONS).for_each(|partition| self.trim_one(life, partition, Offset::MAX));
            return Ok(());
        }
        let partition = self.rng.below(PARTITIONS as u64) as usize;
        let bounds = life.store.bounds(IDS[partition]).unwrap();
        let before = bounds.start + self.rng.below(bounds.end - bounds.start + 1);
        self.trim_one(life, partition, before);
        Ok(())
    }

    fn trim_one(&mut self, life: &mut Life, partition: usize, before: Offset) {
        let before = before.min(life.store.bounds(IDS[partition]).unwrap().end);
        self.oracle.trim_asked(partition, before);
        let (reply, pending) = Pending::new();
        let asked = life.store.trim_with(IDS[partition], before, Some(reply));
        life.turn();
        if asked.is_ok() && matches!(now(pending), Some(Ok(()))) {
            self.oracle.trimmed(partition, before);
        }
    }

    fn check_live(&self, life: &Life) -> Result<(), String> {
        for (partition, id) in IDS.into_iter().enumerate() {
            let bounds = life.store.bounds(id).unwrap();
            self.oracle
                .check_bounds(partition, bounds.start, bounds.end)?;
            let log_end = life.store.log_end(id).unwrap();
            if !life.failed && log_end != bounds.end {
                let end = bounds.end;
                return Err(format!(
                    "partition {id} ends at {end} and goes on at {log_end}"
                ));
            }
        }
        Ok(())
    }

    /// The process ends in one way or the other; the next finds what the disk has.
    fn end(&mut self, mut life: Life) {
        let is_dark = self.disk.faults.power.load(SeqCst) <= 0;
        if !life.failed && self.rng.chance(20) {
            life.turn();
        }
        drop(life);
        let files = self.disk.clone();
        if is_dark || self.rng.chance(60) {
            self.report.crashes += 1;
            let block = self.rng.of(&[8, 64, 512]);
            let percent = self.rng.of(&[0, 25, 50, 90, 100]);
            // Or only what changed first is lost, and all that came after it is there.
            let mut hole: Option<u64> = self.rng.of(&[None, None, Some(1), Some(4)]);
            let mut is_kept = || match &mut hole {
                None => self.rng.chance(percent),
                Some(rest) => std::mem::replace(rest, rest.saturating_sub(1)) == 0,
            };
            self.disk = files.crashed_in(block, &mut is_kept);
        } else {
            // Only the process ended: the page cache still has what the disk may not.
            self.report.restarts += 1;
            self.disk = self.disk.restarted();
        }
        self.report.fired.add(&files.faults.fired.lock().unwrap());
    }

    /// Flips bits below what is known durable: each must be named.
    fn damage(&mut self) -> Result<(), String> {
        let (files, known) = (self.disk.files(), self.disk.known());
        self.report.bytes_crc = files.iter().fold(0, |crc, (path, bytes)| {
            let crc = crc32c::crc32c_append(crc, path.to_string_lossy().as_bytes());
            crc32c::crc32c_append(crc, bytes)
        });
        let total: usize = known.values().sum();
        for _ in 0..FLIPS {
            let mut at = self.rng.below(total as u64) as usize;
            let bit = self.rng.below(8);
            let mut place = None;
            for (path, known) in &known {
                if at < *known && place.is_none() {
                    place = Some((path, at));
                }
                at = at.wrapping_sub(*known);
            }
            let (path, at) = place.unwrap();
            let disk = SimDisk::default();
            for (other, bytes) in &files {
                let mut bytes = bytes.clone();
                if other == path {
                    bytes[at] ^= 1 << bit;
                }
                disk.put(other, bytes);
            }
            self.report.flips += 1;
            let disk: Arc<dyn Disk> = Arc::new(disk);
            match recover(&disk, Path::new("/proof/wal"), SEGMENT_BYTES) {
                Err(OpenError::Corrupt { path: named, .. }) if named == *path => {}
                other => {
                    let known = known[path];
                    let path = path.display();
                    let got = match other {
                        Ok(_) => "was not noticed".to_owned(),
                        Err(error) => format!("was answered: {error}"),
                    };
                    return Err(format!("a flip in {path} at {at} below {known} {got}"));
                }
            }
        }
        Ok(())
    }
}
