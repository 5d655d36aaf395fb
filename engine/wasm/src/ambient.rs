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
use wasmtime::Result;

use crate::error::{bad, over};

/// Random bytes in one answer.
pub(crate) const RANDOM_BYTES_MAX: usize = 1 << 20;
/// By how much the monotonic clock of a batch moves each time that it is read.
const STEP: Duration = Duration::from_micros(1);

/// What a node's module has of the machine; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ambient {
    pub clock: bool,
    pub random: bool,
    /// Whose chance it is, so that two nodes over one topic do not draw the same.
    pub node: String,
}

/// What one call differs by from the others of its lane; nothing while a module is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) input: Option<u16>,
    /// Of the first row, as the following.
    pub(crate) offset: Option<Offset>,
    pub(crate) time: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
}

/// Time and chance of one instance.
#[derive(Debug)]
pub(crate) struct Surroundings {
    given: Ambient,
    partition: u32,
    began: Instant,
    /// How often the monotonic clock was read in this call.
    readings: u32,
    /// Latest event time of this call's batch, once it was asked for.
    latest: Option<Duration>,
    /// The numbers of this call, once they were asked for.
    chance: Option<Pcg64>,
}

impl Surroundings {
    pub(crate) fn new(given: Ambient, partition: u32) -> Surroundings {
        Surroundings {
            given,
            partition,
            began: Instant::now(),
            readings: 0,
            latest: None,
            chance: None,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        (self.readings, self.latest, self.chance) = (0, None, None);
    }

    /// Since 1970, UTC. Of a batch it is its latest event time; `times` are those of its rows, in
    /// microseconds.
    pub(crate) fn wall(&mut self, times: &[i64]) -> Duration {
        if self.given.clock {
            // a machine whose clock stands before 1970 is at 1970
            return SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
        }
        *self.latest.get_or_insert_with(|| {
            let latest = times.iter().copied().max().unwrap_or_default();
            Duration::from_micros(u64::try_from(latest).unwrap_or_default())
        })
    }

    /// Since some moment: of a batch since its call began, a step for each reading.
    pub(crate) fn monotonic(&mut self) -> Duration {
        if self.given.clock {
            return self.began.elapsed();
        }
        self.readings = self.readings.saturating_add(1);
        STEP * (self.readings - 1)
    }

    /// How fine both clocks are.
    pub(crate) fn resolution(&self) -> Duration {
        match self.given.clock {
            true => Duration::from_nanos(1),
            false => STEP,
        }
    }

    /// Random bytes of a call; `draw` is asked once a call, if at all.
    pub(crate) fn random(&mut self, count: u64, draw: impl FnOnce() -> Draw) -> Result<Vec<u8>> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > RANDOM_BYTES_MAX {
            return over("random bytes at once", RANDOM_BYTES_MAX);
        }
        let mut bytes = vec![0; count];
        if self.given.random {
            let filled = SystemRandom::new().fill(&mut bytes);
            filled.or_else(|_| bad("the system gives no random numbers".into()))?;
            return Ok(bytes);
        }
        let (node, partition) = (&self.given.node, self.partition);
        let chance = self
            .chance
            .get_or_insert_with(|| seeded("numbers", node, partition, &draw()));
        chance.fill_bytes(&mut bytes);
        Ok(bytes)
    }

    pub(crate) fn random_u64(&mut self, draw: impl FnOnce() -> Draw) -> Result<u64> {
        let bytes = self.random(8, draw)?;
        Ok(bytes.first_chunk().copied().map_or(0, u64::from_le_bytes))
    }

    /// For the order of hash maps, which a module asks for once: of the lane alone, so that every instance
    /// has the same.
    pub(crate) fn seed(&mut self) -> Result<(u64, u64)> {
        if self.given.random {
            let mut one = || self.random_u64(Draw::default);
            return Ok((one()?, one()?));
        }
        let mut chance = seeded("maps", &self.given.node, self.partition, &Draw::default());
        Ok((chance.next_u64(), chance.next_u64()))
    }
}

/// The same numbers for the same node, lane and call.
fn seeded(purpose: &str, node: &str, partition: u32, draw: &Draw) -> Pcg64 {
    let said = format!("{purpose}\n{node}\n{partition}\n{draw:?}");
    Pcg64::from_seed(Sha256::digest(said).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_its_own_time_and_chance() {
        let mut one = Surroundings::new(Ambient::default(), 3);
        let micros = Duration::from_micros;
        assert_eq!(
            one.wall(&[5, 1_700_000_000_000_001, -1]),
            micros(1_700_000_000_000_001)
        );
        one.begin();
        assert_eq!(one.wall(&[-1]), Duration::ZERO);
        one.begin();
        assert_eq!(one.wall(&[]), Duration::ZERO);
        let read: Vec<Duration> = (0..3).map(|_| one.monotonic()).collect();
        assert_eq!(read, [Duration::ZERO, STEP, STEP * 2]);
        let batch = |offset| Draw {
            input: Some(0),
            offset: Some(offset),
            time: Some(5),
            key: None,
        };
        let mut draw = |node: &str, partition, call: &Draw| {
            (one.given.node, one.partition) = (node.into(), partition);
            one.begin();
            (
                one.random_u64(|| call.clone()).ok(),
                one.random(5, || call.clone()).ok(),
                one.seed().ok(),
            )
        };
        let drawn = draw("p/n", 3, &batch(7));
        assert_eq!(draw("p/n", 3, &batch(7)), drawn);
        let timer = Draw {
            input: Some(u16::MAX),
            key: Some(b"k".to_vec()),
            ..batch(7)
        };
        let others = [
            draw("p/n", 3, &batch(8)),
            draw("p/m", 3, &batch(7)),
            draw("p/n", 4, &batch(7)),
            draw("p/n", 3, &timer),
            draw("p/n", 3, &Draw::default()),
        ];
        assert!(others.iter().all(|other| other.0 != drawn.0), "{others:?}");
        // the seed of maps is of the lane, whatever batch is at work
        assert_eq!((&others[0].2, &others[3].2), (&drawn.2, &drawn.2));
        assert_ne!(others[2].2, drawn.2);
        // kept over versions of the platform, as a replay after an upgrade must not differ
        assert_eq!(drawn.0, Some(GOLDEN));
    }

    /// Also by another program, from SHA-256 and the generator's paper.
    const GOLDEN: u64 = 0xf628_ca6e_0b52_e7b6;

    #[test]
    fn what_is_granted_is_the_machines() {
        let granted = Ambient {
            clock: true,
            random: true,
            node: String::new(),
        };
        let mut one = Surroundings::new(granted, 0);
        let none = Draw::default;
        let before = SystemTime::now();
        let before = before.duration_since(UNIX_EPOCH).expect("it is after 1970");
        assert!(one.wall(&[0]) >= before);
        assert_ne!(one.random(16, none).ok(), one.random(16, none).ok());
        let most = RANDOM_BYTES_MAX as u64;
        assert!(one.random(most, none).is_ok() && one.random(most + 1, none).is_err());
    }
}
