//! Topics: create, list, describe, alter, trim, delete.
//!
//! What: admin messages, JSON. Called by: the command line, producers and consumers, which learn
//! ids and partition counts from `TopicDescribe`.

use model::TopicChange;
use model::ids::{Offset, ShardEpoch, ShardId, TopicId};
use model::topic::{Topic, TopicSpec};
use serde::{Deserialize, Serialize};

use crate::wire::json_bodies;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicCreate {
    pub name: String,
    pub spec: TopicSpec,
    /// A topic of that name with the same spec is fine.
    pub if_absent: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicCreated {
    pub id: TopicId,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicList {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Topics {
    pub topics: Vec<TopicInfo>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicInfo {
    pub topic: Topic,
    /// Records that can be read, over all partitions.
    pub records: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicDescribe {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicDescription {
    pub topic: Topic,
    /// In the order of their index.
    pub partitions: Vec<PartitionInfo>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionInfo {
    pub index: u32,
    /// The first offset that can be read.
    pub start: Offset,
    /// The next offset to be read.
    pub end: Offset,
    /// The shard it lives in and that shard's epoch; older servers do not say.
    #[serde(default)]
    pub shard: Option<ShardId>,
    #[serde(default)]
    pub epoch: Option<ShardEpoch>,
}

/// Changes settings of a topic; older servers do not know the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicAlter {
    pub name: String,
    pub change: TopicChange,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicAltered {
    /// As it is now.
    pub topic: Topic,
}

/// Removes the oldest records; older servers do not know the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicTrim {
    pub name: String,
    /// `None`: all of them.
    pub partition: Option<u32>,
    pub before: TrimBefore,
}

/// Where a partition is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrimBefore {
    /// At most the offset after the last record; one that is gone already changes nothing.
    Offset(Offset),
    /// At the first record whose timestamp (microseconds since the epoch, UTC) is not before
    /// this; at the end if there is none.
    Timestamp(i64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicTrimmed {
    /// In the order of their index.
    pub partitions: Vec<PartitionTrimmed>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionTrimmed {
    pub index: u32,
    /// The first offset that could be read before.
    pub start_before: Offset,
    /// The first offset that can be read now, and the offset after the last one.
    pub start: Offset,
    pub end: Offset,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicDelete {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicDeleted {}

json_bodies!(
    TopicCreate,
    TopicCreated,
    TopicList,
    Topics,
    TopicDescribe,
    TopicDescription,
    TopicDelete,
    TopicDeleted,
    TopicAlter,
    TopicAltered,
    TopicTrim,
    TopicTrimmed,
);
