//! Commits of a lane under way.
//!
//! Called by: `lane`. Invariants: commits are given to the log in order, and come back in order.

use std::sync::Arc;
use std::task::Poll;

use futures::future::{BoxFuture, ready};
use futures::stream::FuturesOrdered;
use model::ids::Offset;
use model::port::{Commit, LogError, TopicLog};

use super::commit::Counts;
use crate::canary::Sample;

/// A commit under way.
pub(crate) struct Sent {
    pub next: Offset,
    pub first: Offset,
    pub generation: u64,
    /// Rows of the batch it is for.
    pub rows: u32,
    pub counts: Counts,
    pub sample: Option<Sample>,
}

pub(crate) type Done = (Sent, Result<(), LogError>);

#[derive(Default)]
pub(crate) struct Flight(pub FuturesOrdered<BoxFuture<'static, Done>>);

impl Flight {
    /// Gives the commit to the log at once: the order of calls is the order of commits.
    pub fn push(&mut self, log: &Arc<dyn TopicLog>, commit: Commit, sent: Sent) {
        let log = log.clone();
        let mut future: BoxFuture<'static, Done> =
            Box::pin(async move { (sent, log.commit(commit).await.map(|_| ())) });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => self.0.push_back(Box::pin(ready(done))),
            Poll::Pending => self.0.push_back(future),
        }
    }
}
