//! What the modules of a lane keep: read from the log, and taken over by those of another schema.
//!
//! Called by: `lane`, between two batches. Invariants: a migration runs on a worker thread with no commit
//! under way; it is in the first commit of its generation, wholly; a lane that has nothing to read commits
//! it by itself, so that no lane stays behind. One that fails is a generation that fails: the one before
//! goes on with what it kept.

use model::ids::Offset;
use tokio::time::Instant;

use super::{End, Lane, load_end, log_end, told_to_stop};
use crate::stage::commit::{self, Counts};
use crate::stage::flight::{Flight, Sent};

impl Lane {
    /// Reads what the modules of the chain keep, where that was not done yet, and migrates it where it
    /// was kept with another schema. `from` is where the lane is.
    pub(super) async fn load_states(
        &mut self,
        from: Offset,
        flight: &mut Flight,
    ) -> Result<(), End> {
        loop {
            let Some(chain) = &self.chain else {
                return Ok(());
            };
            let lane = self.partition.index;
            if !self.states.missing(&chain.stage).is_empty() {
                let generation = chain.stage.generation;
                let loaded = self.states.load(self.log.as_ref(), &chain.stage, lane);
                if let Err(error) = loaded.await {
                    return Err(self.on_trial(generation, load_end(error)));
                }
                let kept = self.states.status();
                self.shared.update(|s| s.kept = kept);
            }
            if !self.states.foreign(&chain.stage) {
                return Ok(());
            }
            let to = chain.stage.generation;
            match self.migrate(from, flight).await? {
                Ok(()) => return Ok(()),
                Err(why) if self.is_on_trial() => self.rolled_back(to, &why),
                Err(why) => return Err(End::Halt(why)),
            }
        }
    }

    /// Migrates on a thread of its own, and commits it where no batch would.
    async fn migrate(
        &mut self,
        from: Offset,
        flight: &mut Flight,
    ) -> Result<Result<(), String>, End> {
        let alone = from >= self.log.bounds(self.partition).map_err(log_end)?.end;
        let Some(mut chain) = self.chain.take() else {
            return Err(End::Again("the lane has nothing to run".to_string()));
        };
        let since = Instant::now();
        let (lane, stop) = (self.partition.index, self.stop.clone());
        let mut states = std::mem::take(&mut self.states);
        let mut job = tokio::task::spawn_blocking(move || {
            let done = chain.migrate(&mut states, &stop).and_then(|()| {
                let commit = alone.then(|| commit::migrated(&chain.stage, lane, from, &states));
                let commit = commit.transpose();
                commit.map_err(|e| format!("what it keeps cannot be encoded: {e}"))
            });
            (chain, states, done)
        });
        let mut told = std::pin::pin!(told_to_stop(self.orders.clone()));
        let done = loop {
            tokio::select! {
                done = &mut job => break done,
                () = &mut told, if !self.stop.is_set() => self.stop.set(),
            }
        };
        let Ok((chain, states, done)) = done else {
            return Err(End::Halt("the worker panicked: this is a bug".to_string()));
        };
        let generation = chain.stage.generation;
        (self.chain, self.states) = (Some(chain), states);
        self.gap += since.elapsed();
        let commit = match done {
            Ok(commit) => commit,
            Err(_) if self.stop.is_set() => return Err(End::Stop),
            Err(why) => return Ok(Err(why)),
        };
        let ms = since.elapsed().as_millis() as u64;
        tracing::info!(partition = %self.partition, generation, ms, "state was migrated");
        if let Some(commit) = commit {
            let sent = Sent {
                next: from,
                first: from,
                generation,
                rows: 0,
                counts: Counts::default(),
                sample: None,
            };
            flight.push(&self.log, commit, sent);
            self.states.keep();
            // it moves no position: without it the next one would be taken, too
            self.settle_all(flight, 0).await?;
        }
        Ok(Ok(()))
    }
}
