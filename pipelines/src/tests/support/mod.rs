//! What the tests of this room share: a log in memory that fails when told, and a world around
//! it with a catalog, modules and a runtime.
//!
//! Called by: `tests`. Only compiled for tests. Invariants: the log keeps the promises of
//! `model::port::TopicLog` (a commit is whole, in the order of calls, refused when a position is
//! not as expected), and nothing waits by sleeping.

pub(crate) mod guest;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use model::batch::{Batch, Codec};
use model::catalog::{Catalog, Command, Outcome, PipelineRecord};
use model::diagnostic::Diagnostic;
use model::ids::{Digest, Offset, PartitionId, ShardEpoch};
use model::port::{
    Bounds, BoxFuture, CatalogView, Commit, Committed, LogError, Lookup, Modules, Position,
    TopicLog,
};
use model::rows::{Rows, RowsBuilder};
use model::topic::TopicSpec;
use tokio::sync::watch;

use crate::{Deps, LaneState, LaneStatus, Runtime};

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// Refused before anything happened.
    Refused,
    /// The same, and it always will be.
    Invalid,
    /// It happened, but its caller learns of it late.
    Late,
}

#[derive(Default)]
struct Stored {
    partitions: BTreeMap<PartitionId, Vec<Batch>>,
    positions: BTreeMap<(String, PartitionId), Position>,
    fates: VecDeque<Fate>,
    /// Largest commit taken, in rows.
    rows_max: Option<u64>,
    starts: BTreeMap<PartitionId, Offset>,
    /// Fetches that fail from now on.
    unreadable: usize,
}

pub(crate) struct FakeLog {
    stored: Mutex<Stored>,
    moved: watch::Sender<u64>,
}

impl FakeLog {
    fn new() -> FakeLog {
        FakeLog {
            stored: Mutex::default(),
            moved: watch::Sender::new(0),
        }
    }

    pub fn fates(&self, fates: impl IntoIterator<Item = Fate>) {
        self.stored.lock().unwrap().fates.extend(fates);
    }

    pub fn forget_fates(&self) {
        self.stored.lock().unwrap().fates.clear();
    }

    pub fn rows_max(&self, rows: u64) {
        self.stored.lock().unwrap().rows_max = Some(rows);
    }

    /// So many fetches fail.
    pub fn unreadable(&self, times: usize) {
        self.stored.lock().unwrap().unreadable = times;
    }

    /// As retention does.
    pub fn trim(&self, p: PartitionId, before: Offset) {
        self.stored.lock().unwrap().starts.insert(p, before);
    }

    pub fn append(&self, p: PartitionId, rows: &Rows) {
        let batch = Batch::encode(rows, Codec::None, None).unwrap();
        let mut stored = self.stored.lock().unwrap();
        stored.append(p, batch);
        drop(stored);
        self.moved.send_modify(|version| *version += 1);
    }

    pub fn rows(&self, p: PartitionId) -> Rows {
        let stored = self.stored.lock().unwrap();
        let batches = stored
            .partitions
            .get(&p)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let rows: Vec<Rows> = batches.iter().map(|b| b.rows().unwrap()).collect();
        Rows::concat(&rows).unwrap()
    }

    pub fn position_of(&self, group: &str, p: PartitionId) -> Option<Position> {
        self.stored
            .lock()
            .unwrap()
            .positions
            .get(&(group.to_string(), p))
            .cloned()
    }
}

impl Stored {
    fn end(&self, p: PartitionId) -> Offset {
        self.partitions
            .get(&p)
            .and_then(|b| b.last())
            .map_or(0, Batch::next_offset)
    }

    fn append(&mut self, p: PartitionId, batch: Batch) -> Offset {
        let end = self.end(p);
        let list = self.partitions.entry(p).or_default();
        list.push(batch.stamped(end, ShardEpoch(0), 0));
        end
    }

    fn commit(&mut self, commit: Commit) -> (Fate, Result<Committed, LogError>) {
        let fate = self.fates.pop_front().unwrap_or(Fate::Done);
        if fate == Fate::Refused {
            return (fate, Err(LogError::Unavailable("told to refuse".into())));
        }
        if let (Fate::Invalid, Some(append)) = (fate, commit.appends.first()) {
            let (partition, reason) = (append.partition, "told to refuse".into());
            return (fate, Err(LogError::Invalid { partition, reason }));
        }
        for position in &commit.positions {
            let key = (position.group.clone(), position.partition);
            let known = self.positions.get(&key).map(|p| p.offset);
            if position.expected.is_some() && position.expected != known {
                let reason = format!("position is {known:?}, not {:?}", position.expected);
                return (
                    fate,
                    Err(LogError::Fenced {
                        partition: position.partition,
                        reason,
                    }),
                );
            }
        }
        let rows: u64 = commit
            .appends
            .iter()
            .map(|a| u64::from(a.batch.len()))
            .sum();
        if let Some(limit) = self.rows_max.filter(|limit| rows > *limit) {
            let partition = commit.appends[0].partition;
            return (
                fate,
                Err(LogError::TooLarge {
                    partition,
                    bytes: rows,
                    limit,
                }),
            );
        }
        let appends = commit.appends.into_iter();
        let base_offsets = appends.map(|a| self.append(a.partition, a.batch)).collect();
        for position in commit.positions {
            let key = (position.group.clone(), position.partition);
            match position.offset {
                Position::FORGET => self.positions.remove(&key),
                _ => self.positions.insert(key, position),
            };
        }
        (fate, Ok(Committed { base_offsets }))
    }
}

impl TopicLog for FakeLog {
    fn bounds(&self, p: PartitionId) -> Result<Bounds, LogError> {
        let stored = self.stored.lock().unwrap();
        let start = stored.starts.get(&p).copied().unwrap_or(0);
        Ok(Bounds {
            start,
            end: stored.end(p),
        })
    }

    fn fetch(
        &self,
        p: PartitionId,
        from: Offset,
        _bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Batch>, LogError>> {
        let mut stored = self.stored.lock().unwrap();
        if stored.unreadable > 0 {
            stored.unreadable -= 1;
            let error = LogError::Unavailable("told to fail".into());
            return Box::pin(async move { Err(error) });
        }
        let list = stored
            .partitions
            .get(&p)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found = list
            .iter()
            .filter(|b| b.next_offset() > from)
            .take(3)
            .cloned()
            .collect();
        Box::pin(async move { Ok(found) })
    }

    fn moved(&self, p: PartitionId, beyond: Offset) -> BoxFuture<'_, Result<(), LogError>> {
        let mut watch = self.moved.subscribe();
        Box::pin(async move {
            while self.bounds(p)?.end <= beyond {
                watch.changed().await.map_err(|_| LogError::Closed)?;
            }
            Ok(())
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, LogError>> {
        let (fate, result) = self.stored.lock().unwrap().commit(commit);
        self.moved.send_modify(|version| *version += 1);
        Box::pin(async move {
            let turns = if fate == Fate::Late { 50 } else { 2 };
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            result
        })
    }

    fn position(&self, group: &str, p: PartitionId) -> Option<Offset> {
        self.position_of(group, p).map(|position| position.offset)
    }

    fn held(&self, prefix: &str) -> Vec<(String, PartitionId)> {
        let stored = self.stored.lock().unwrap();
        let groups = stored.positions.keys();
        groups
            .filter(|(group, _)| group.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn lookup(&self, p: PartitionId, at: Lookup) -> BoxFuture<'_, Result<Offset, LogError>> {
        let bounds = self.bounds(p);
        let found = match at {
            Lookup::Earliest => bounds.map(|b| b.start),
            Lookup::Latest => bounds.map(|b| b.end),
            Lookup::Timestamp(at) => {
                let rows = self.rows(p);
                Ok(rows
                    .timestamps
                    .iter()
                    .position(|t| *t >= at)
                    .unwrap_or(rows.len()) as Offset)
            }
        };
        Box::pin(async move { found })
    }
}

#[derive(Default)]
pub(crate) struct FakeModules(Mutex<BTreeMap<Digest, Bytes>>);

impl Modules for FakeModules {
    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, LogError>> {
        let found = self.0.lock().unwrap().get(&digest).cloned();
        let found = found.ok_or_else(|| LogError::Unavailable("no such module".into()));
        Box::pin(async move { found })
    }

    fn put(&self, bytes: Bytes) -> BoxFuture<'_, Result<Digest, LogError>> {
        let digest = Digest::of(&bytes);
        self.0.lock().unwrap().insert(digest, bytes);
        Box::pin(async move { Ok(digest) })
    }
}

#[derive(Default)]
pub(crate) struct FakeCatalog(Mutex<Catalog>);

impl CatalogView for FakeCatalog {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::new(self.0.lock().unwrap().clone())
    }
}

/// What outlives a runtime.
#[derive(Clone)]
pub(crate) struct World {
    pub log: Arc<FakeLog>,
    pub catalog: Arc<FakeCatalog>,
    pub modules: Arc<FakeModules>,
    pub host: Arc<wasm::Host>,
}

impl World {
    pub fn new() -> World {
        static HOST: std::sync::OnceLock<Arc<wasm::Host>> = std::sync::OnceLock::new();
        let start = || Arc::new(wasm::Host::new(wasm::HostConfig::default()).unwrap());
        World {
            log: Arc::new(FakeLog::new()),
            catalog: Arc::default(),
            modules: Arc::default(),
            host: HOST.get_or_init(start).clone(),
        }
    }

    pub fn runtime(&self) -> Runtime {
        let deps = Deps {
            log: self.log.clone(),
            catalog: self.catalog.clone(),
            modules: self.modules.clone(),
            host: self.host.clone(),
        };
        Runtime::new(deps, tokio::runtime::Handle::current())
    }

    pub fn topic(&self, name: &str, spec: TopicSpec) {
        let command = Command::TopicCreate {
            name: name.into(),
            spec,
            if_absent: true,
            internal: false,
        };
        self.catalog.0.lock().unwrap().apply(&command).unwrap();
    }

    pub fn catalog_apply(&self, command: &Command) {
        self.catalog.0.lock().unwrap().apply(command).unwrap();
    }

    pub fn partition(&self, topic: &str, index: u32) -> PartitionId {
        PartitionId::new(self.catalog.catalog().topic(topic).unwrap().id, index)
    }

    pub async fn module(&self, bytes: Vec<u8>) -> Digest {
        let command = Command::ModulePut {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        self.catalog.0.lock().unwrap().apply(&command).unwrap();
        self.modules.put(bytes.into()).await.unwrap()
    }

    /// What the server does on `apply`.
    pub async fn apply(
        &self,
        runtime: &Runtime,
        yaml: &str,
        modules: &[(&str, Digest)],
    ) -> Result<u64, Vec<Diagnostic>> {
        let modules: BTreeMap<String, Digest> = modules
            .iter()
            .map(|(name, digest)| (name.to_string(), *digest))
            .collect();
        let mut record = PipelineRecord {
            yaml: yaml.into(),
            file: "p.yaml".into(),
            modules,
            ..PipelineRecord::default()
        };
        let prepared = runtime.prepare(&record).await?;
        record.name = prepared.spec().name().into();
        for (name, spec) in prepared.spec().topics() {
            if self.catalog.catalog().topic(&name).is_none() {
                self.topic(&name, spec);
            }
        }
        let catalog = self.catalog.catalog();
        for (name, spec) in prepared.state_topics(&catalog) {
            let command = Command::TopicCreate {
                name,
                spec,
                if_absent: true,
                internal: true,
            };
            self.catalog_apply(&command);
        }
        let put = self
            .catalog
            .0
            .lock()
            .unwrap()
            .apply(&Command::PipelinePut(record));
        let Outcome::Generation(generation) = put.unwrap() else {
            panic!("a generation")
        };
        runtime
            .start(prepared.with_generation(generation))
            .await
            .unwrap();
        Ok(generation)
    }

    /// Produces values without keys, times counting up from 0.
    pub fn produce(&self, topic: &str, index: u32, values: &[&str]) {
        let p = self.partition(topic, index);
        let first = self.log.bounds(p).unwrap().end as i64;
        let mut rows = RowsBuilder::new();
        for (i, value) in values.iter().enumerate() {
            rows.push(first + i as i64, None, Some(value.as_bytes()), &[]);
        }
        self.log.append(p, &rows.finish());
    }

    pub fn values(&self, topic: &str, index: u32) -> Vec<String> {
        let rows = self.log.rows(self.partition(topic, index));
        rows.records().map(|r| text(r.value)).collect()
    }
}

pub(crate) fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("-".into(), |b| String::from_utf8_lossy(b).into_owned())
}

/// Waits until the lanes are as asked; a status that never comes fails the test.
pub(crate) async fn until(
    runtime: &Runtime,
    what: impl Fn(&[LaneStatus]) -> bool,
) -> Vec<LaneStatus> {
    let mut watch = runtime.watch();
    let wait = async {
        loop {
            watch.borrow_and_update();
            let lanes: Vec<LaneStatus> =
                runtime.status().into_iter().flat_map(|p| p.lanes).collect();
            if what(&lanes) {
                return lanes;
            }
            watch.changed().await.unwrap();
        }
    };
    match tokio::time::timeout(std::time::Duration::from_secs(30), wait).await {
        Ok(lanes) => lanes,
        Err(_) => panic!("not reached; lanes: {:#?}", runtime.status()),
    }
}

/// Every lane has committed all of its input.
pub(crate) fn done(lanes: &[LaneStatus]) -> bool {
    let done = |lane: &LaneStatus| lane.position == lane.end && lane.state == LaneState::Running;
    !lanes.is_empty() && lanes.iter().all(done)
}
