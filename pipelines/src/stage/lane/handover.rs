//! A lane from one generation to the next.
//!
//! Called by: `lane`. Invariants: a new generation is opened beside the old one, which goes on meanwhile;
//! they change only between two batches with no commit under way. Until the new one's first commit the
//! old one is kept, and works on the same batch, with what was kept before, if the new one fails; where
//! that has not committed either, the last that did is kept, too. A batch that all fail on decides nothing:
//! the new one is tried again with the next.

use std::sync::Arc;

use tokio::time::Instant;

use super::{End, Lane, Order};
use crate::stage::Stage;
use crate::stage::commit::Ready;
use crate::stage::flight::Flight;
use crate::stage::opening::{Opening, finished};
use crate::stage::pace::Pace;
use crate::stage::run::NotOpen;
use crate::status::{Handover, LaneState};

impl Lane {
    /// Begins to open what the newest orders say, beside what runs.
    pub(super) fn open_next(&mut self) -> Result<(), End> {
        let order = self.orders.borrow_and_update().clone();
        let Order::Run(stage) = order else {
            return Err(End::Stop);
        };
        let opening = self.opening.as_ref().map(|opening| &opening.stage);
        let known = opening.or(self.chain.as_ref().map(|chain| &chain.stage));
        if known.is_none_or(|known| !Arc::ptr_eq(known, &stage)) {
            self.open(stage);
        }
        Ok(())
    }

    fn open(&mut self, stage: Arc<Stage>) {
        let (numbers, stop) = (self.shared.numbers.clone(), self.stop.clone());
        let opening = Opening::start(stage, self.partition.index, numbers, stop);
        self.opening = Some(opening);
    }

    /// Returns when a new generation could take over.
    pub(super) async fn next_is_open(&mut self) -> Result<(), End> {
        while self.opening.as_ref().is_none_or(|o| o.opened.is_none()) {
            tokio::select! {
                changed = self.orders.changed() => {
                    changed.map_err(|_| End::Stop)?;
                    self.orders.mark_changed();
                    self.open_next()?;
                }
                () = finished(&mut self.opening) => {}
            }
        }
        Ok(())
    }

    /// Takes over what is open by now, when the last commit of the old generation has ended.
    pub(super) async fn change_over(&mut self, flight: &mut Flight) -> Result<(), End> {
        if self.opening.as_ref().is_none_or(|o| o.opened.is_none()) {
            return Ok(());
        }
        let since = Instant::now();
        self.settle_all(flight, 0).await?;
        self.gap = since.elapsed();
        self.take_over().await
    }

    /// Works with what was opened from now on, if there is something; waits until it is open.
    pub(super) async fn take_over(&mut self) -> Result<(), End> {
        if self.opening.is_some() {
            self.next_is_open().await?;
        }
        let Some(Opening {
            stage,
            opened: Some(opened),
            ..
        }) = self.opening.take()
        else {
            return Ok(());
        };
        let to = stage.generation;
        match opened {
            Ok(chain) => {
                // of several that had nothing to commit the last is what people saw
                self.fallback.truncate(1);
                self.fallback.extend(self.chain.replace(chain));
                let alone = !self.is_on_trial();
                if alone {
                    self.shared.numbers.adopt(to);
                }
                self.tried.clear();
                self.pace = Pace::default();
                // the new one takes over what the log has
                self.states.back();
                self.shared.update(|s| {
                    s.generation = to;
                    s.modules = stage.modules.clone();
                    s.state = LaneState::Running;
                    if alone {
                        s.fault = None;
                    }
                });
                Ok(())
            }
            Err(NotOpen { why, .. }) if self.chain.is_some() => {
                let why = format!("generation {to} does not open: {why}");
                self.declined(to, self.generation(), why);
                Ok(())
            }
            Err(NotOpen { why, passes: true }) => Err(End::Again(why)),
            Err(NotOpen { why, .. }) => Err(End::Halt(why)),
        }
    }

    /// Whether the generation that works has not committed yet, and another can go on.
    pub(super) fn is_on_trial(&self) -> bool {
        !self.fallback.is_empty()
    }

    /// The new generation is not taken; the old one goes on.
    pub(super) fn declined(&self, to: u64, from: u64, why: String) {
        tracing::warn!(partition = %self.partition, to, from, why, "hand-over rolled back");
        self.shared.numbers.forget(to);
        self.shared.canary.rolled_back(to, &why);
        let gap_us = self.gap.as_micros() as u64;
        self.shared.update(|s| {
            let offset = s.position;
            s.fault = Some(why.clone());
            s.handover(Handover {
                from,
                to,
                offset,
                gap_us,
                rolled_back: Some(why),
            });
        });
    }

    /// The generation before goes on, with the same batch.
    pub(super) fn rolled_back(&mut self, to: u64, why: &str) {
        self.chain = self.fallback.pop();
        self.states.back();
        self.tried.clear();
        let from = self.generation();
        let modules = self.chain.as_ref().map(|chain| chain.stage.modules.clone());
        self.shared.update(|s| {
            s.generation = from;
            s.modules = modules.unwrap_or_default();
        });
        self.declined(
            to,
            from,
            format!("generation {to} failed before its first commit: {why}"),
        );
    }

    /// The one that was rolled back is tried again with the next batch, where the one before has lost
    /// rows of the same batch too: it is the rows, then. Not where it has not got over them, because the
    /// next batch is the same.
    pub(super) fn acquit(&mut self, blamed: Option<Arc<Stage>>, ready: &Ready) {
        let Some(stage) = blamed.filter(|_| ready.cut.is_none() && self.opening.is_none()) else {
            return;
        };
        let (to, from) = (stage.generation, self.generation());
        let then = "the batch fails in both, the next decides";
        tracing::warn!(partition = %self.partition, to, from, then, "hand-over tried again");
        self.open(stage);
    }
}
