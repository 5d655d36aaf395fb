//! Topics: created, altered and deleted in the catalog first, then in the broker; trimmed in the
//! broker only.
//!
//! Called by: `service::Rooms::answer`, `pipelines` (apply creates missing topics), `http`.
//! Invariants: the catalog is the truth: a topic that is in it and not yet in the broker comes
//! up at the next start; a topic in use by a pipeline stays.
//! Refuses: names outside the rule, specs that differ from what is there, in words.

use model::{Command, Lookup, Offset, PartitionId, Topic, TopicLog, TopicSpec};
use protocol::{
    PartitionInfo, PartitionTrimmed, TopicAlter, TopicAltered, TopicCreate, TopicCreated,
    TopicDelete, TopicDeleted, TopicDescription, TopicInfo, TopicTrim, TopicTrimmed, Topics,
    TrimBefore, WireError, code,
};

use super::{Rooms, reply};

impl Rooms {
    pub(super) async fn topic_create(&self, ask: TopicCreate) -> Result<TopicCreated, WireError> {
        let _alone = self.changing.lock().await;
        self.topic_make(ask.name, ask.spec, ask.if_absent).await
    }

    /// With `changing` held.
    pub(super) async fn topic_make(
        &self,
        name: String,
        spec: TopicSpec,
        if_absent: bool,
    ) -> Result<TopicCreated, WireError> {
        self.topic_new(name, spec, if_absent, false).await
    }

    /// A topic that the platform makes for itself, if it is not there.
    pub(super) async fn topic_internal(
        &self,
        name: String,
        spec: TopicSpec,
    ) -> Result<TopicCreated, WireError> {
        self.topic_new(name, spec, true, true).await
    }

    async fn topic_new(
        &self,
        name: String,
        spec: TopicSpec,
        if_absent: bool,
        internal: bool,
    ) -> Result<TopicCreated, WireError> {
        let command = Command::TopicCreate {
            name: name.clone(),
            spec,
            if_absent,
            internal,
        };
        self.metadata
            .propose(command)
            .await
            .map_err(reply::propose)?;
        self.follow().await?;
        let topic = self.topic_named(&name)?;
        Ok(TopicCreated { id: topic.id })
    }

    pub(super) async fn topic_alter(&self, ask: TopicAlter) -> Result<TopicAltered, WireError> {
        let _alone = self.changing.lock().await;
        let TopicAlter { name, change } = ask;
        // Says how to find the right name, if it is a wrong one.
        self.topic_named(&name)?;
        let command = Command::TopicAlter {
            name: name.clone(),
            change,
        };
        self.metadata
            .propose(command)
            .await
            .map_err(reply::propose)?;
        self.follow().await?;
        let topic = self.topic_named(&name)?;
        Ok(TopicAltered { topic })
    }

    /// All points are found and checked before the first partition is trimmed.
    pub(super) async fn topic_trim(&self, ask: TopicTrim) -> Result<TopicTrimmed, WireError> {
        let TopicTrim {
            name,
            partition,
            before,
        } = ask;
        let topic = self.topic_named(&name)?;
        if topic.is_internal() {
            let message = format!("topic {name} is internal: it is not trimmed");
            return Err(WireError::fix(code::INVALID, message));
        }
        let mut points = Vec::new();
        for index in trimmed_partitions(&topic, partition, before)? {
            let at = self.trim_point(&name, PartitionId::new(topic.id, index), before);
            points.push((index, at.await?));
        }
        let mut partitions = Vec::with_capacity(points.len());
        for (index, at) in points {
            let id = PartitionId::new(topic.id, index);
            let start_before = self.broker.bounds(id)?.start;
            let kept = self.broker.trim(id, at).await?;
            partitions.push(PartitionTrimmed {
                index,
                start_before,
                start: kept.start,
                end: kept.end,
            });
        }
        Ok(TopicTrimmed { partitions })
    }

    /// The offset at which a partition is to begin.
    async fn trim_point(
        &self,
        name: &str,
        id: PartitionId,
        before: TrimBefore,
    ) -> Result<Offset, WireError> {
        let at = match before {
            TrimBefore::Timestamp(at) => Lookup::Timestamp(at),
            TrimBefore::Offset(offset) => {
                let end = self.broker.bounds(id)?.end;
                if offset <= end {
                    return Ok(offset);
                }
                let index = id.index;
                let message = format!(
                    "partition {index} of topic {name} ends at offset {end}, so it is not trimmed \
                     before {offset}; before {end} removes all that it has"
                );
                return Err(WireError::fix(code::OUT_OF_RANGE, message));
            }
        };
        Ok(TopicLog::lookup(&self.broker, id, at).await?)
    }

    pub(super) async fn topic_delete(&self, ask: TopicDelete) -> Result<TopicDeleted, WireError> {
        let _alone = self.changing.lock().await;
        let topic = self.topic_named(&ask.name)?;
        if topic.is_internal() {
            let name = &topic.name;
            let message = format!("topic {name} is internal: it goes with what it belongs to");
            return Err(WireError::fix(code::INVALID, message));
        }
        self.topic_remove(ask.name).await
    }

    /// Deletes a topic that nobody uses.
    pub(super) async fn topic_remove(&self, name: String) -> Result<TopicDeleted, WireError> {
        let command = Command::TopicDelete { name };
        self.metadata
            .propose(command)
            .await
            .map_err(reply::propose)?;
        self.follow().await?;
        Ok(TopicDeleted {})
    }

    pub(crate) fn topic_list(&self) -> Topics {
        let catalog = self.catalog();
        let users = catalog.topics().filter(|topic| !topic.is_internal());
        let topics = users
            .map(|topic| {
                let partitions = self.partitions(topic);
                let records = partitions
                    .iter()
                    .map(|p| p.end.saturating_sub(p.start))
                    .sum();
                TopicInfo {
                    topic: topic.clone(),
                    records,
                }
            })
            .collect();
        Topics { topics }
    }

    pub(crate) fn topic_describe(&self, name: &str) -> Result<TopicDescription, WireError> {
        let topic = self.topic_named(name)?;
        let partitions = self.partitions(&topic);
        Ok(TopicDescription { topic, partitions })
    }

    pub(super) fn partitions(&self, topic: &Topic) -> Vec<PartitionInfo> {
        let catalog = self.catalog();
        let info = |index| {
            let id = PartitionId::new(topic.id, index);
            let bounds = self.broker.bounds(id).unwrap_or_default();
            let shard = catalog.shard_of(id);
            PartitionInfo {
                index,
                start: bounds.start,
                end: bounds.end,
                shard: shard.map(|shard| shard.id),
                epoch: shard.map(|shard| shard.epoch),
            }
        };
        (0..topic.spec.partitions).map(info).collect()
    }

    pub(super) fn topic_named(&self, name: &str) -> Result<Topic, WireError> {
        let catalog = self.catalog();
        if let Some(topic) = catalog.topic(name) {
            return Ok(topic.clone());
        }
        model::topic_name_check(name)
            .map_err(|error| WireError::fix(code::INVALID, error.to_string()))?;
        let message = format!(
            "topic {name} does not exist; `rustmq topic create {name}` makes it, \
             `rustmq topic list` shows what is there"
        );
        Err(WireError::fix(code::NOT_FOUND, message))
    }
}

/// The partitions that a trim is about: an offset means something in one of them only.
fn trimmed_partitions(
    topic: &Topic,
    partition: Option<u32>,
    before: TrimBefore,
) -> Result<std::ops::Range<u32>, WireError> {
    let (name, count) = (&topic.name, topic.spec.partitions);
    let message = match partition {
        Some(index) if index < count => return Ok(index..index + 1),
        None if count == 1 || matches!(before, TrimBefore::Timestamp(_)) => return Ok(0..count),
        Some(index) => {
            let last = count.saturating_sub(1);
            format!("topic {name} has no partition {index}: its partitions are 0 to {last}")
        }
        None => format!(
            "topic {name} has {count} partitions, and an offset means something in one only: say \
             which with --partition, or give a time with --before-time"
        ),
    };
    Err(WireError::fix(code::INVALID, message))
}
