//! Time and chance, as a module asks for them: of its batch, or where they are granted of the machine.
//!
//! Called by: `guest` (a call begins), `link::wasi` (the module asks).
//! Invariants: without a grant the same batch on the same lane gives the same answers, in whatever
//! instance, so a batch that is worked again gives the same output; each call begins afresh.
//! Refuses: more random bytes at once than `RANDOM_BYTES_MAX`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::ids::Offset;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::error::Fault;

/// Random bytes in one answer.
pub(crate) const RANDOM_BYTES_MAX: usize = 1 << 20;
/// By how much the monotonic clock of a batch moves each time that it is read.
const STEP: Duration = Duration::from_micros(1);

/// What a node's module has of the machine; by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ambient {
    pub clock: bool,
    pub random: bool,
}

/// Time and chance of one instance.
#[derive(Debug)]
pub(crate) struct Surroundings {
    granted: Ambient,
    partition: u32,
    began: Instant,
    /// How often the monotonic clock was read in this call.
    readings: u32,
    /// Once it was asked for in this call.
    chance: Option<Pcg64>,
}

impl Surroundings {
    pub(crate) fn new(granted: Ambient, partition: u32) -> Surroundings {
        Surroundings {
            granted,
            partition,
            began: Instant::now(),
            readings: 0,
            chance: None,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        (self.readings, self.chance) = (0, None);
    }

    /// Since 1970, UTC. Of a batch it is its latest event time, in microseconds.
    pub(crate) fn wall(&self, latest: impl FnOnce() -> Option<i64>) -> Duration {
        if self.granted.clock {
            // a machine whose clock stands before 1970 is at 1970
            return SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
        }
        let micros = latest().and_then(|micros| u64::try_from(micros).ok());
        Duration::from_micros(micros.unwrap_or_default())
    }

    /// Since some moment: of a batch since its call began, a step for each reading.
    pub(crate) fn monotonic(&mut self) -> Duration {
        if self.granted.clock {
            return self.began.elapsed();
        }
        self.readings = self.readings.saturating_add(1);
        STEP * (self.readings - 1)
    }

    /// How fine both clocks are.
    pub(crate) fn resolution(&self) -> Duration {
        match self.granted.clock {
            true => Duration::from_nanos(1),
            false => STEP,
        }
    }

    /// Random bytes; `first` is the batch's first offset, if a batch is at work.
    pub(crate) fn random(&mut self, count: u64, first: Option<Offset>) -> Result<Vec<u8>, Fault> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > RANDOM_BYTES_MAX {
            return Err(Fault::Limit {
                what: "random bytes at once",
                limit: RANDOM_BYTES_MAX as u64,
            });
        }
        let mut bytes = vec![0; count];
        if self.granted.random {
            let filled = SystemRandom::new().fill(&mut bytes);
            filled.map_err(|_| Fault::Bad("the system gives no random numbers".into()))?;
        } else {
            let partition = self.partition;
            let chance = self.chance.get_or_insert_with(|| seeded(partition, first));
            chance.fill_bytes(&mut bytes);
        }
        Ok(bytes)
    }

    /// For the order of hash maps, which a module asks for once: of the lane alone, so that every instance
    /// has the same.
    pub(crate) fn seed(&self) -> Result<(u64, u64), Fault> {
        let mut fresh = Surroundings::new(self.granted, self.partition);
        Ok((fresh.random_u64(None)?, fresh.random_u64(None)?))
    }

    pub(crate) fn random_u64(&mut self, first: Option<Offset>) -> Result<u64, Fault> {
        let bytes = self.random(8, first)?;
        Ok(bytes.first_chunk().copied().map_or(0, u64::from_le_bytes))
    }
}

/// The same numbers for the same lane and batch.
fn seeded(partition: u32, first: Option<Offset>) -> Pcg64 {
    let mut hash = Sha256::new();
    hash.update(partition.to_le_bytes());
    // nothing while the module is opened
    first
        .iter()
        .for_each(|first| hash.update(first.to_le_bytes()));
    Pcg64::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_its_own_time_and_chance() {
        let mut one = Surroundings::new(Ambient::default(), 3);
        assert_eq!(
            one.wall(|| Some(1_700_000_000_000_001)),
            Duration::from_micros(1_700_000_000_000_001)
        );
        assert_eq!(
            [one.wall(|| Some(-1)), one.wall(|| None)],
            [Duration::ZERO; 2]
        );
        let read: Vec<Duration> = (0..3).map(|_| one.monotonic()).collect();
        assert_eq!(read, [Duration::ZERO, STEP, STEP * 2]);
        let mut draw = |partition, first| {
            one.partition = partition;
            one.begin();
            (
                one.random_u64(first).ok(),
                one.random(5, first).ok(),
                one.monotonic(),
            )
        };
        let drawn = draw(3, Some(7));
        assert_eq!(draw(3, Some(7)), drawn);
        let others = [draw(3, Some(8)), draw(4, Some(7)), draw(3, None)];
        assert!(others.iter().all(|other| other.0 != drawn.0), "{others:?}");
        // kept over versions of the platform, as a replay after an upgrade must not differ
        assert_eq!(drawn.0, Some(GOLDEN));
    }

    const GOLDEN: u64 = 0;

    #[test]
    fn what_is_granted_is_the_machines() {
        let granted = Ambient {
            clock: true,
            random: true,
        };
        let mut one = Surroundings::new(granted, 0);
        let before = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is after 1970");
        assert!(one.wall(|| Some(0)) >= before);
        let (first, second) = (one.random(16, Some(0)).ok(), one.random(16, Some(0)).ok());
        assert_ne!(first, second);
        let most = RANDOM_BYTES_MAX as u64;
        assert!(one.random(most, None).is_ok() && one.random(most + 1, None).is_err());
    }
}
