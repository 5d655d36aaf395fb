//! Work at random over a real server behind a wire that fails at random.
//!
//! Called by: `main`. Invariants: what was acknowledged is there once, in order, byte for byte,
//! whatever the wire did; after a calm collection the bucket holds what the lists name and no
//! more. Refuses: nothing.

use std::time::{Duration, Instant};

use model::Offset;
use rustmq_storage::{Store, StoreConfig, TierError};

use crate::bucket::{Bucket, Kind, P, append, close, open, value};
use crate::stores::http::Request;
use crate::stores::wire::Trouble;

/// `RUSTMQ_STORM_OPERATIONS` says another number.
const OPERATIONS: u64 = 120;
/// Requests of a thousand that go wrong.
const FAULTS_PER_MILLE: u64 = 100;
/// Requests of a thousand that begin an outage, and its length in requests: more than the client
/// asks again by itself.
const OUTAGES_PER_MILLE: u64 = 8;
const OUTAGE: u64 = 10;
const LEN: usize = 60;
/// Silence costs this much; the client is told to wait no longer.
const TIMEOUT_MS: u64 = 150;
/// A request that the store is to blame for is made again so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}

/// What goes wrong with which request.
struct Weather {
    dice: Dice,
    /// Requests until the outage ends.
    outage: u64,
}

impl Weather {
    fn fault(&mut self, request: &Request) -> Option<Trouble> {
        if self.outage > 0 {
            self.outage -= 1;
            return Some(Trouble::Status(503));
        }
        let dice = self.dice.below(1_000);
        if dice < OUTAGES_PER_MILLE {
            self.outage = OUTAGE;
        }
        if dice >= FAULTS_PER_MILLE {
            return None;
        }
        let is_conditional = request.header("if-none-match").is_some()
            || request.header("x-goog-if-generation-match").is_some();
        if is_conditional && self.dice.below(2) == 0 {
            return Some(Trouble::Status(409));
        }
        let faults = [
            Trouble::Status(503),
            Trouble::Status(500),
            Trouble::Reset,
            Trouble::Torn,
            Trouble::LostAnswer,
            Trouble::WrongAnswer,
            Trouble::Silence,
        ];
        Some(faults[self.dice.below(faults.len() as u64) as usize])
    }
}

struct Storm {
    bucket: Bucket,
    config: StoreConfig,
    dice: Dice,
    start: Offset,
    end: Offset,
    failed: u64,
    emptied: u64,
}

impl Storm {
    fn new(kind: Kind, seed: u64) -> Storm {
        let bucket = Bucket::new(kind);
        let mut config = bucket.config("data");
        let timeout = format!("{TIMEOUT_MS} ms");
        config.tier_options.0.insert("timeout".to_owned(), timeout);
        config.tier_merge_objects_min = 3;
        // Every object of a run in parts, or none.
        config.tier_multipart_bytes = if seed.is_multiple_of(2) { 1 } else { u64::MAX };
        let mut dice = Dice(seed);
        let mut weather = Weather {
            dice: Dice(dice.below(u64::MAX)),
            outage: 0,
        };
        bucket.wire().rule(move |request| weather.fault(request));
        Storm {
            bucket,
            config,
            dice,
            start: 0,
            end: 0,
            failed: 0,
            emptied: 0,
        }
    }

    async fn open(&self) -> Store {
        let began = Instant::now();
        loop {
            match open(self.config.clone()).await {
                Ok(store) => return store,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        }
    }

    /// Reads a stretch and compares.
    async fn check(&self, store: &Store, from: Offset, until: Offset) {
        let (mut next, began) = (from, Instant::now());
        while next < until {
            let batches = match store.read(P, next, 1 << 16).await {
                Ok(batches) => batches,
                Err(error) => {
                    assert!(began.elapsed() < PATIENCE, "{next}: {error}");
                    continue;
                }
            };
            assert!(!batches.is_empty(), "gap at {next}");
            for batch in batches {
                let rows = batch.rows().unwrap();
                let offsets = batch.offsets().unwrap().into_iter().enumerate();
                for (row, offset) in offsets.filter(|(_, offset)| *offset >= from) {
                    assert_eq!(offset, next, "no gap, no double");
                    assert!(rows.record(row).value.unwrap() == value(offset, LEN));
                    next += 1;
                }
            }
        }
    }

    async fn check_all(&self, store: &Store) {
        let bounds = store.bounds(P).unwrap();
        assert_eq!((bounds.start, bounds.end), (self.start, self.end));
        self.check(store, self.start, self.end).await;
    }

    fn count<T>(&mut self, done: Result<T, TierError>) {
        match done {
            Ok(_) => {}
            Err(error) if error.is_passing() => self.failed += 1,
            Err(error) => panic!("the store is not to blame for: {error}"),
        }
    }

    async fn operate(&mut self, store: Store) -> Store {
        match self.dice.below(100) {
            0..45 => {
                let rows = 1 + self.dice.below(40);
                append(&store, rows, LEN).await;
                self.end += rows;
            }
            45..60 => {
                let from = self.start + self.dice.below(self.end - self.start);
                self.check(&store, from, (from + 50).min(self.end)).await;
            }
            60..80 => self.count(store.tier(None).await),
            80..88 => self.count(store.tick(0).await),
            88..92 => {
                self.start += self.dice.below((self.end - self.start) / 4);
                store.trim_durable(P, self.start).await.unwrap();
            }
            92..96 => return self.restart(store).await,
            _ => return self.lose_all_but_the_bucket(store).await,
        }
        store
    }

    async fn restart(&mut self, store: Store) -> Store {
        close(store).await;
        let store = self.open().await;
        self.check_all(&store).await;
        store
    }

    /// Once all is in the bucket, the folder may go.
    async fn lose_all_but_the_bucket(&mut self, store: Store) -> Store {
        if store.tier(None).await.is_err() {
            self.failed += 1;
            return store;
        }
        close(store).await;
        std::fs::remove_dir_all(&self.config.dir).unwrap();
        self.emptied += 1;
        let store = self.open().await;
        // A trim that no list has noted went with the folder.
        self.start = store.bounds(P).unwrap().start;
        self.check_all(&store).await;
        store
    }
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |number| number.parse().expect("a number"))
}

pub async fn no_gap_no_double_no_orphan(kind: Kind) {
    let seed = number("RUSTMQ_SEED", 2_026);
    let operations = number("RUSTMQ_STORM_OPERATIONS", OPERATIONS);
    let began = Instant::now();
    let mut storm = Storm::new(kind, seed);
    let mut store = storm.open().await;
    for _ in 0..operations {
        store = storm.operate(store).await;
    }
    storm.bucket.wire().calm();
    let store = storm.restart(store).await;
    store.tier(None).await.unwrap();
    let store = storm.lose_all_but_the_bucket(store).await;
    let store = storm.bucket.settle(store, "data").await;
    storm.check_all(&store).await;
    let fired = storm.bucket.wire().fired();
    eprintln!(
        "{} storm: seed {seed}, {operations} operations over {} requests in {:.1?}: {} records \
         acknowledged, 0 lost, 0 doubled, 0 orphans; {} operations failed and were tried again; \
         folder emptied {} times; faults fired {} {fired:?}",
        kind.name(),
        storm.bucket.wire().requests().len(),
        began.elapsed(),
        storm.end,
        storm.failed,
        storm.emptied,
        fired.values().sum::<u64>(),
    );
    assert!(fired.len() >= 6, "faults fire: {fired:?}");
}
