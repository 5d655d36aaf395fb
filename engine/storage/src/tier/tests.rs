//! What goes to the tier comes back the same; and an object store that fails on purpose.

mod fence;
mod holes;
mod manifests;
mod sharing;
mod typed;

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::Array;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::{Batch, Codec, Offset, PayloadCodec, Rows, RowsBuilder, Schema, ShardEpoch};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::Tier;
use super::manifest::{
    ColdFoot, ColdGroup, ColdObject, FORMAT, Manifest, ProducerMark, last_marks, manifest_of,
};
use super::objects::LocalStore;
use super::writer::{Written, write};
use crate::config::{PartitionConfig, StoreConfig};
use crate::log::tests::{P0, batch};

/// Memory that fails puts below a prefix, before or after they happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyStore {
    objects: Arc<InMemory>,
    /// Prefix of the paths, and whether the put happens although its answer is an error.
    failing: Arc<Mutex<Option<(String, bool)>>>,
}

impl FaultyStore {
    pub(crate) fn tier(&self, config: &StoreConfig) -> Tier {
        Tier::over(Arc::new(self.clone()), "memory".to_owned(), config)
    }

    pub(crate) fn fail_puts(&self, prefix: &str, lost_answer: bool) {
        *self.failing.lock().unwrap() = Some((prefix.to_owned(), lost_answer));
    }

    /// How many objects are below a prefix.
    pub(crate) async fn paths(&self, prefix: &str) -> usize {
        self.objects.list(Some(&Path::from(prefix))).count().await
    }

    /// The same objects, without faults.
    pub(crate) fn healed(&self) -> FaultyStore {
        FaultyStore {
            objects: Arc::clone(&self.objects),
            failing: Arc::default(),
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory with faults")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let failing = self.failing.lock().unwrap().clone();
        let failing = failing.filter(|(prefix, _)| location.as_ref().starts_with(prefix));
        if failing.as_ref().is_none_or(|(_, lost_answer)| *lost_answer) {
            let put = self.objects.put_opts(location, payload, opts).await?;
            if failing.is_none() {
                return Ok(put);
            }
        }
        Err(object_store::Error::Generic {
            store: "memory",
            source: "fails on purpose".into(),
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// Objects in memory whose reads are counted, and damaged when told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    objects: Arc<InMemory>,
    reads: Arc<Mutex<Reads>>,
}

#[derive(Debug, Default)]
struct Reads {
    ranges: Vec<std::ops::Range<u64>>,
    /// Answers still to be damaged, and the byte of each that is.
    damaged: usize,
    at: usize,
}

impl Shelf {
    /// Puts an object there and answers a manifest for each of its parts.
    async fn put(&self, written: Written) -> (Tier, Vec<Manifest>) {
        let path = Path::from("data/x.parquet");
        self.objects.put(&path, written.bytes.into()).await.unwrap();
        let manifest = |mut object: ColdObject| {
            object.path = path.to_string();
            Manifest::empty(P0, "t").followed_by(0, Some(object), vec![])
        };
        let config = StoreConfig::default();
        let tier = Tier::over(Arc::new(self.clone()), "memory".to_owned(), &config);
        (tier, written.objects.into_iter().map(manifest).collect())
    }

    fn damage(&self, answers: usize, at: usize) {
        let mut reads = self.reads.lock().unwrap();
        (reads.damaged, reads.at) = (answers, at);
    }

    /// The ranges that were read since this was asked last.
    fn ranges(&self) -> Vec<std::ops::Range<u64>> {
        std::mem::take(&mut self.reads.lock().unwrap().ranges)
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory that counts")
    }
}

#[async_trait]
impl ObjectStore for Shelf {
    async fn put_opts(&self, at: &Path, put: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(at, put, o).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let got = self.objects.get_opts(location, options).await?;
        if is_head {
            return Ok(got);
        }
        let (range, meta) = (got.range.clone(), got.meta.clone());
        let attributes = got.attributes.clone();
        let mut bytes = got.bytes().await?.to_vec();
        let mut reads = self.reads.lock().unwrap();
        reads.ranges.push(range.clone());
        if reads.damaged > 0 {
            reads.damaged -= 1;
            bytes[reads.at] ^= 1;
        }
        let chunk = futures::stream::iter([Ok(bytes.into())]).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(chunk),
            meta,
            range,
            attributes,
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// All batches of a manifest from an offset on, at least `bytes` at a time.
async fn read(tier: &Tier, manifest: &Manifest, from: Offset, bytes: usize) -> Vec<Batch> {
    let (mut at, mut batches) = (from, Vec::new());
    while at < manifest.end {
        let read = tier.read(manifest, at, bytes).await.unwrap();
        at = read.last().unwrap().next_offset();
        batches.extend(read);
    }
    batches
}

type Record = (
    Offset,
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(String, Option<Vec<u8>>)>,
);

fn records(batches: &[Batch]) -> Vec<Record> {
    let mut records = Vec::new();
    for batch in batches {
        let rows = batch.rows().unwrap();
        for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
            let record = rows.record(row);
            let headers = record
                .headers
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
            records.push((
                offset,
                record.timestamp,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers.collect(),
            ));
        }
    }
    records
}

#[tokio::test]
async fn json_topics_with_a_schema_get_typed_columns() {
    let mut config = PartitionConfig::new(P0, "t");
    config.codec = PayloadCodec::Json;
    let schema = serde_json::json!({"carrier": "string", "delay": "float64"});
    config.schema = Some(Schema::from_json(&schema).unwrap());
    let mut builder = RowsBuilder::new();
    for value in [
        r#"{"carrier":"AA","delay":2.5}"#,
        r#"{"carrier":"UA"}"#,
        "not json",
    ] {
        builder.push(1, None, Some(value.as_bytes()), &[]);
    }
    let batch = Batch::encode(&builder.finish(), Codec::Lz4, None).unwrap();
    let written = write(&config, &[vec![batch.stamped(9, ShardEpoch(0), 4)]]).unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(written.bytes.clone())
        .unwrap()
        .build()
        .unwrap();
    let batch = reader.next().unwrap().unwrap();
    let names: Vec<&str> = batch
        .schema_ref()
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect();
    assert_eq!(
        names.join(" "),
        "_offset _timestamp _key _value _headers carrier delay"
    );
    let shown = arrow::util::pretty::pretty_format_columns("c", &[Arc::clone(batch.column(5))]);
    let shown = shown.unwrap().to_string();
    assert!(shown.contains("AA") && shown.contains("UA"), "{shown}");
    assert_eq!(
        (batch.column(5).null_count(), batch.column(6).null_count()),
        (1, 2)
    );
    let (tier, manifests) = Shelf::default().put(written).await;
    let read = read(&tier, &manifests[0], 9, 1).await;
    assert_eq!(read.len(), 1, "consumers do not see the typed columns");
}

/// Five batches of 4 MiB each: two row groups.
fn large() -> Vec<Batch> {
    let value = vec![b'x'; 4 << 10];
    let batch = |base: Offset| {
        let mut builder = RowsBuilder::new();
        for row in 0..1024 {
            builder.push(row, None, Some(&value), &[]);
        }
        let batch = Batch::encode(&builder.finish(), Codec::None, None).unwrap();
        batch.stamped(base, ShardEpoch(2), 5)
    };
    (0..5).map(|number| batch(number * 1024)).collect()
}

#[tokio::test]
async fn of_a_shared_object_only_what_is_needed_is_fetched() {
    let other = vec![batch(7, 3, "a"), batch(10, 2, "b")];
    let written = write(&PartitionConfig::new(P0, "t"), &[large(), other.clone()]).unwrap();
    let (large, small) = (&written.objects[0], &written.objects[1]);
    let bases: Vec<_> = large.groups.iter().map(|g| (g.base, g.rows)).collect();
    assert_eq!(bases, [(0, 4096), (4096, 1024)]);
    assert_eq!((small.group, small.base, small.next), (2, 7, 12));
    assert_eq!((large.epoch, small.epoch), (2, 0));
    let mut at = 4;
    for group in large.groups.iter().chain(&small.groups) {
        assert_eq!(group.at, at, "row groups follow each other");
        at += group.len;
    }
    let foot = small.foot.clone().unwrap();
    assert_eq!(
        (foot.at, foot.at + foot.len, foot.groups),
        (at, small.size, 3)
    );
    assert_eq!(large.foot.as_ref(), Some(&foot));
    let range = |group: &ColdGroup| group.at..group.at + group.len;
    let (first, second) = (range(&large.groups[0]), range(&large.groups[1]));
    let theirs = range(&small.groups[0]);
    let foot = foot.at..foot.at + foot.len;

    let shelf = Shelf::default();
    let (tier, manifests) = shelf.put(written).await;
    let own = read(&tier, &manifests[1], 7, 1 << 20).await;
    assert_eq!(records(&own), records(&other));
    assert_eq!(shelf.ranges(), [foot, theirs]);
    let batches = tier.read(&manifests[0], 4100, 1).await.unwrap();
    assert_eq!(batches[0].base_offset(), 4100);
    assert_eq!(batches[0].epoch(), ShardEpoch(2));
    assert_eq!(
        shelf.ranges(),
        std::slice::from_ref(&second),
        "the footer is known"
    );
    let all = read(&tier, &manifests[0], 0, 3 << 20).await;
    assert_eq!(
        all.iter().map(|b| u64::from(b.len())).sum::<u64>(),
        5 * 1024
    );
    assert_eq!(shelf.ranges(), [first], "what was fetched is kept");
    let objects = &manifests[0].objects;
    let whole = tier.read_whole(&manifests[0], objects).await.unwrap();
    assert_eq!(records(&whole), records(&all));
    assert_eq!(shelf.ranges().len(), 1, "neighbours are fetched at once");
}

/// An object with three row groups, whose rows' times are `times(row)`.
fn timed(times: fn(u64) -> i64) -> Written {
    let value = vec![b'x'; 4 << 10];
    let batch = |base: Offset| {
        let mut builder = RowsBuilder::new();
        for row in base..base + 1024 {
            builder.push(times(row), None, Some(&value), &[]);
        }
        let batch = Batch::encode(&builder.finish(), Codec::None, None).unwrap();
        batch.stamped(base, ShardEpoch(0), 5)
    };
    let batches = (0..10).map(|number| batch(number * 1024)).collect();
    write(&PartitionConfig::new(P0, "t"), &[batches]).unwrap()
}

#[tokio::test]
async fn a_time_is_looked_up_in_one_row_group_at_most() {
    // Rows 0 to 10,239; groups begin at 0, 4,096 and 8,192. In pairs the times go back.
    let time = |row: u64| (row ^ 1) as i64 * 10;
    let written = timed(time);
    let bases: Vec<_> = written.objects[0].groups.iter().map(|g| g.base).collect();
    assert_eq!(bases, [0, 4096, 8192]);
    let before_groups = {
        let mut old = written.objects[0].clone();
        old.path = "data/x.parquet".to_owned();
        old.groups
            .iter_mut()
            .for_each(|group| (group.min_ts, group.max_ts) = (None, None));
        old
    };
    let expected = |start: u64, at: i64| (start..10_240).find(|row| time(*row) >= at);
    let shelf = Shelf::default();
    let (_, manifests) = shelf.put(written).await;
    let old = Manifest::empty(P0, "t").followed_by(0, Some(before_groups), vec![]);
    for (start, at, reads) in [
        (0, -5, 0),
        (0, 0, 0),
        (0, 5, 1),
        (0, 40_950, 1),
        (0, 40_955, 0),
        (0, 60_005, 1),
        (0, 102_390, 1),
        (0, 102_391, 0),
        (5_000, 0, 1),
        (8_192, 0, 0),
        // The row that reaches so far was trimmed, which only its row group tells.
        (4_095, 40_941, 1),
        (4_095, 40_950, 1),
    ] {
        let config = StoreConfig::default();
        let tier = Tier::over(Arc::new(shelf.clone()), "memory".to_owned(), &config);
        tier.footer(P0, &manifests[0].objects[0]).await.unwrap();
        shelf.ranges();
        let found = tier.lookup(&manifests[0], start, at).await.unwrap();
        assert_eq!(found, expected(start, at), "{start} {at}");
        assert_eq!(shelf.ranges().len(), reads, "{start} {at}");
        assert_eq!(
            tier.lookup(&old, start, at).await.unwrap(),
            found,
            "{start} {at}"
        );
    }
}

#[tokio::test]
async fn damage_is_believed_when_it_is_read_twice_and_is_named() {
    let written = write(&PartitionConfig::new(P0, "t"), &[vec![batch(5, 3, "a")]]).unwrap();
    for (at, name) in [
        (20, "row group 0 with 3 rows from offset 5 on"),
        (400, "the footer"),
    ] {
        let shelf = Shelf::default();
        let (bytes, objects) = (written.bytes.clone(), written.objects.clone());
        let (tier, manifests) = shelf.put(Written { bytes, objects }).await;
        // The footer is read first.
        shelf.damage(usize::MAX, at);
        if at == 20 {
            shelf.damage(0, 0);
            tier.footer(P0, &manifests[0].objects[0]).await.unwrap();
            shelf.damage(2, at);
        }
        let error = tier
            .read(&manifests[0], 5, 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(name) && error.contains("checksum"),
            "{error}"
        );
        assert!(error.contains("data/x.parquet"), "{error}");
        assert!(error.contains("offsets 5 to 8 of partition 1/0"), "{error}");
        shelf.damage(1, at);
        let read = tier.read(&manifests[0], 5, 1).await.unwrap();
        assert_eq!(records(&read).len(), 3, "a flip on the way is no damage");
    }
}

#[tokio::test]
async fn columns_are_checked_one_by_one() {
    let written = write(&PartitionConfig::new(P0, "t"), &[vec![batch(5, 300, "a")]]).unwrap();
    let shelf = Shelf::default();
    let (bytes, whole) = (written.bytes.clone(), written.objects[0].clone());
    let (tier, manifests) = shelf.put(written).await;
    let object = &manifests[0].objects[0];
    let footer = tier.footer(P0, object).await.unwrap();
    let columns = footer.metadata.metadata().row_group(0).columns().to_vec();
    shelf.ranges();
    let range = |number: usize| {
        let (at, len) = columns[number].byte_range();
        at..at + len
    };
    // Part of the third column, then all of the first two: these are neighbours.
    let (middle, key) = (range(2).start + 3..range(2).start + 9, range(0));
    let asked = [middle.clone(), key.clone(), range(1)];
    let got = tier.fetch_ranges(P0, object, &asked).await.unwrap();
    let part = |range: &std::ops::Range<u64>| bytes.slice(range.start as usize..range.end as usize);
    assert_eq!(got, [part(&middle), part(&key), part(&range(1))]);
    assert_eq!(shelf.ranges(), vec![range(0).start..range(2).end; 1]);
    shelf.damage(2, 4);
    let last = columns.len() - 1;
    let error = tier
        .fetch_ranges(P0, object, &[range(last)])
        .await
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("a column of row group 0 with 300 rows"),
        "{error}"
    );

    // Format 1 has one checksum for all.
    let old = ColdObject {
        path: object.path.clone(),
        groups: vec![],
        foot: None,
        ..whole
    };
    let manifest = Manifest::empty(P0, "t").followed_by(0, Some(old.clone()), vec![]);
    let config = StoreConfig::default();
    let tier = Tier::over(Arc::new(shelf.clone()), "memory".to_owned(), &config);
    assert_eq!(read(&tier, &manifest, 5, 1).await.len(), 1);
    let got = tier
        .fetch_ranges(P0, &old, std::slice::from_ref(&middle))
        .await
        .unwrap();
    assert_eq!(got, [part(&middle)]);
    assert_eq!(shelf.ranges().last(), Some(&(0..old.size)));
}

#[tokio::test]
async fn a_local_folder_keeps_the_rules_of_an_object_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let path = Path::from("a/b/c");
    let create = || PutOptions {
        mode: PutMode::Create,
        ..PutOptions::default()
    };
    store.put_opts(&path, "one".into(), create()).await.unwrap();
    let error = store
        .put_opts(&path, "two".into(), create())
        .await
        .unwrap_err();
    assert!(
        matches!(error, object_store::Error::AlreadyExists { .. }),
        "{error}"
    );
    let text = async || store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(text().await.as_ref(), b"one");
    store.put(&path, "three".into()).await.unwrap();
    assert_eq!(text().await.as_ref(), b"three");
    let drafts = std::fs::read_dir(dir.path().join(".tmp")).unwrap().count();
    assert_eq!(drafts, 0, "no draft is left");
    store.delete(&path).await.unwrap();
    assert!(store.get(&path).await.is_err());
    assert!(store.copy(&path, &Path::from("x")).await.is_err());
}

#[test]
fn unknown_schemes_are_refused() {
    let error = super::objects::open("ftp://x/y", &Default::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("scheme `ftp` is not known; use file, s3 or gs"),
        "{error}"
    );
    let error = super::objects::open("no url", &Default::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("write file:///folder"), "{error}");
}

prop_compose! {
    fn rows()(
        records in prop::collection::vec(
            (
                any::<i64>(),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..12)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
                prop::collection::vec(
                    ("[a-z]{0,4}", prop::option::of(prop::collection::vec(any::<u8>(), 0..6))),
                    0..3,
                ),
            ),
            1..20,
        ),
    ) -> Rows {
        let mut builder = RowsBuilder::new();
        for (timestamp, key, value, headers) in &records {
            let headers: Vec<(&str, Option<&[u8]>)> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()))
                .collect();
            builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers);
        }
        builder.finish()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parquet_gives_back_what_went_in(
        parts in prop::collection::vec((rows(), prop::sample::select(vec![Codec::None, Codec::Zstd])), 1..5),
        base in 0u64..1 << 40,
        from in 0usize..100,
    ) {
        let mut next = base;
        let mut batches = Vec::new();
        for (rows, codec) in parts {
            let batch = Batch::encode(&rows, codec, None).unwrap();
            let batch = batch.stamped(next, ShardEpoch(0), 5);
            next = batch.next_offset();
            batches.push(batch);
        }
        let first = vec![batch(3, 2, "other")];
        let parts = [first, batches.clone(), batches.clone()];
        let written = write(&PartitionConfig::new(P0, "t"), &parts).unwrap();
        let expected = records(&batches);
        let from = from % expected.len();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (tier, manifests) = Shelf::default().put(written).await;
            for manifest in &manifests[1..] {
                prop_assert_eq!(manifest.objects[0].base, base);
                prop_assert_eq!(manifest.end, next);
                let all = read(&tier, manifest, base, 100).await;
                prop_assert_eq!(&records(&all)[..], &expected[..]);
                let rest = read(&tier, manifest, base + from as u64, 100).await;
                prop_assert_eq!(&records(&rest)[..], &expected[from..]);
            }
            Ok(())
        })?;
    }
}
