//! What differs between two versions of a catalog, for those who follow it.
//!
//! Called by rooms that watch the catalog: they keep the version they last acted on and compare
//! it with the newest, so that nothing is missed however many versions went by in between.
//! Invariants: what is shared between the two is not looked at; a topic that was deleted and made
//! again is two changes, the deletion first.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Catalog, ShardRecord};
use crate::ids::TopicId;
use crate::topic::Topic;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    TopicDeleted(Arc<Topic>),
    TopicCreated(Arc<Topic>),
    /// Settings, schema or shards are others now.
    TopicAltered(Arc<Topic>),
    PipelineDeleted(String),
    PipelinePut(String),
    GroupDeleted(String),
    GroupCreated(String),
    /// Another leader, or another life of it.
    ShardMoved(ShardRecord),
}

impl Catalog {
    /// What changed since `before`, deletions first.
    pub fn changes(&self, before: &Catalog) -> Vec<Change> {
        let mut gone = Vec::new();
        let mut come = Vec::new();
        // By id: a name may stand for another topic now.
        let topics = (&before.topics_by_id, &self.topics_by_id);
        compare(topics, |_: &TopicId, pair| match pair {
            (Some(old), None) => gone.push(Change::TopicDeleted(Arc::clone(old))),
            (None, Some(new)) => come.push(Change::TopicCreated(Arc::clone(new))),
            (_, Some(new)) => come.push(Change::TopicAltered(Arc::clone(new))),
            (None, None) => {}
        });
        compare(
            (&before.pipelines, &self.pipelines),
            |name: &String, pair| match pair {
                (_, None) => gone.push(Change::PipelineDeleted(name.clone())),
                (_, Some(_)) => come.push(Change::PipelinePut(name.clone())),
            },
        );
        compare(
            (&before.groups, &self.groups),
            |name: &String, pair| match pair {
                (_, None) => gone.push(Change::GroupDeleted(name.clone())),
                (_, Some(_)) => come.push(Change::GroupCreated(name.clone())),
            },
        );
        compare((&before.shards, &self.shards), |_, pair| {
            come.extend(pair.1.cloned().map(Change::ShardMoved));
        });
        gone.append(&mut come);
        gone
    }
}

type Section<K, V> = Arc<BTreeMap<K, V>>;

/// Calls `each` for every key whose value is another one, or there only once.
fn compare<K: Ord, V: PartialEq>(
    (before, after): (&Section<K, V>, &Section<K, V>),
    mut each: impl FnMut(&K, (Option<&V>, Option<&V>)),
) {
    if Arc::ptr_eq(before, after) {
        return;
    }
    for (key, old) in before.iter() {
        let new = after.get(key);
        if new != Some(old) {
            each(key, (Some(old), new));
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(key)) {
        each(key, (None, Some(new)));
    }
}
