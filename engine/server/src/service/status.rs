//! The status document: one page about the node, for `rustmq status` and `GET /v1/status`.
//!
//! Called by: `service::Rooms::answer`, `http`, `cli::status` (which reads it back).
//! Invariants: everything in it is counted or measured; fields are added, never renamed.

use serde::{Deserialize, Serialize};

use super::Rooms;

/// The page. What rooms report in detail is kept as they report it, under their names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    pub node_id: String,
    pub cluster_id: String,
    pub data_dir: String,
    pub quic: String,
    pub http: String,
    /// Without internal topics.
    pub topics: u64,
    pub partitions: u64,
    pub records: u64,
    pub wal_bytes: u64,
    pub wal_segments: u64,
    pub tiered_records: u64,
    /// Parquet objects.
    pub objects: u64,
    pub groups: u64,
    pub pipelines: Vec<PipelineLine>,
    pub storage: serde_json::Value,
    pub broker: serde_json::Value,
    #[serde(default)]
    pub catalog: serde_json::Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PipelineLine {
    pub name: String,
    pub generation: u64,
    pub lanes: u32,
    pub state: String,
}

impl Rooms {
    pub(crate) fn status(&self) -> NodeStatus {
        let topics = self.topic_list().topics;
        let store = self.store.status();
        let broker = self.broker.status();
        let addresses = self.about.addresses.get();
        let cold = |p: &storage::PartitionStatus| {
            let offsets = p.cold_end.saturating_sub(p.start);
            offsets.min(p.cold_records)
        };
        NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            uptime_s: self.about.started.elapsed().as_secs(),
            node_id: self.about.identity.node_id.clone(),
            cluster_id: self.about.identity.cluster_id.clone(),
            data_dir: self.about.data_dir.clone(),
            quic: addresses.map(|a| a.quic.clone()).unwrap_or_default(),
            http: addresses.map(|a| a.http.clone()).unwrap_or_default(),
            topics: topics.len() as u64,
            partitions: topics
                .iter()
                .map(|info| u64::from(info.topic.spec.partitions))
                .sum(),
            records: topics.iter().map(|info| info.records).sum(),
            wal_bytes: store.wal_bytes,
            wal_segments: store.wal_segments,
            tiered_records: store.partitions.iter().map(cold).sum(),
            objects: store.tier_objects,
            groups: broker.groups as u64,
            pipelines: self
                .pipeline_list()
                .pipelines
                .into_iter()
                .map(|p| PipelineLine {
                    name: p.name,
                    generation: p.generation,
                    lanes: p.lanes,
                    state: p.state,
                })
                .collect(),
            storage: serde_json::to_value(&store).unwrap_or_default(),
            broker: serde_json::to_value(&broker).unwrap_or_default(),
            catalog: serde_json::to_value(self.metadata.status()).unwrap_or_default(),
        }
    }

    pub(crate) fn status_json(&self) -> serde_json::Value {
        serde_json::to_value(self.status()).unwrap_or_default()
    }
}
