//! What must be true of a store, kept apart from it: plain lists of what was acknowledged and of
//! what may have happened.
//!
//! Called by: `proof`. Invariants: shares no code with the store. Refuses: records lost, added,
//! doubled, changed or out of order; entries that are there in part.

/// Partitions of a run.
pub(super) const PARTITIONS: usize = 2;

/// One atomic entry: partition and the values its records have.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub parts: Vec<(usize, Vec<u64>)>,
}

/// What is read of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub start: u64,
    pub values: Vec<u64>,
}

#[derive(Default)]
pub(super) struct Oracle {
    /// Value of each offset, trimmed ones included.
    log: [Vec<u64>; PARTITIONS],
    /// Neither confirmed nor refused, in the order sent: after a restart the first few of them
    /// are there, whole.
    unknown: Vec<Sent>,
    /// Where a partition begins for sure, and where it may begin.
    starts: [(u64, u64); PARTITIONS],
}

impl Oracle {
    pub(super) fn acked(&mut self, sent: Sent) {
        for (partition, values) in sent.parts {
            self.log[partition].extend(values);
        }
    }

    pub(super) fn unknown(&mut self, sent: Sent) {
        self.unknown.push(sent);
    }

    pub(super) fn trim_asked(&mut self, partition: usize, before: u64) {
        let (_, possible) = &mut self.starts[partition];
        *possible = before.max(*possible);
    }

    pub(super) fn trimmed(&mut self, partition: usize, before: u64) {
        let (sure, _) = &mut self.starts[partition];
        *sure = before.max(*sure);
    }

    /// Checks what a running store says: readers get what was acknowledged and nothing else.
    pub(super) fn check_bounds(
        &self,
        partition: usize,
        start: u64,
        end: u64,
    ) -> Result<(), String> {
        self.check_start(partition, start)?;
        let acked = self.log[partition].len() as u64;
        if end == acked {
            return Ok(());
        }
        Err(format!(
            "partition {partition} shows records up to {end}, {acked} were acknowledged"
        ))
    }

    fn check_start(&self, partition: usize, start: u64) -> Result<(), String> {
        let (sure, possible) = self.starts[partition];
        if (sure..=possible).contains(&start) {
            return Ok(());
        }
        Err(format!(
            "partition {partition} begins at {start}, not in {sure}..={possible}"
        ))
    }

    pub(super) fn check_values(&self, partition: usize, seen: &Seen) -> Result<(), String> {
        let want = self.log[partition].get(seen.start as usize..);
        if want == Some(&seen.values) {
            return Ok(());
        }
        Err(format!(
            "partition {partition} from {} on holds {:?}, not {want:?}",
            seen.start, seen.values
        ))
    }

    /// After a restart: finds out which of the unknown entries are there, and checks all. Answers
    /// how many they are.
    pub(super) fn settle(&mut self, seen: &[Seen; PARTITIONS]) -> Result<usize, String> {
        let ends = |log: &[Vec<u64>; PARTITIONS]| [log[0].len() as u64, log[1].len() as u64];
        let want = [0, 1].map(|p: usize| seen[p].start + seen[p].values.len() as u64);
        let mut unknown = std::mem::take(&mut self.unknown).into_iter();
        let acked = ends(&self.log);
        let mut found = 0;
        while ends(&self.log) != want {
            let Some(sent) = unknown.next() else {
                return Err(format!(
                    "the partitions end at {want:?}; {acked:?} were acknowledged, and no number \
                     of whole unknown entries makes the difference"
                ));
            };
            self.acked(sent);
            found += 1;
        }
        for (partition, seen) in seen.iter().enumerate() {
            self.check_start(partition, seen.start)?;
            self.check_values(partition, seen)?;
            self.starts[partition] = (seen.start, seen.start);
        }
        Ok(found)
    }
}
