//! What goes to the tier comes back the same; and an object store that fails on purpose.

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
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::Tier;
use super::manifest::{ColdObject, FORMAT, Manifest, ProducerMark, last_marks, manifest_of};
use super::objects::LocalStore;
use super::reader::{Cursor, Loaded};
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

fn object(written: &Written) -> ColdObject {
    ColdObject {
        path: "x.parquet".to_owned(),
        size: written.bytes.len() as u64,
        base: written.base,
        next: written.next,
        rows: written.rows,
        min_ts: written.min_ts,
        max_ts: written.max_ts,
        append_time: written.append_time,
        row_bytes: written.row_bytes,
        crc32c: written.crc32c,
    }
}

/// All batches of an object from an offset on.
fn read(written: &Written, from: Offset) -> Vec<Batch> {
    let object = object(written);
    let loaded = Loaded::new(&object, written.bytes.clone()).unwrap();
    let mut cursor = Cursor::open(&loaded, &object, from).unwrap();
    let mut batches = Vec::new();
    loop {
        let next = cursor.next(&object, ShardEpoch(3)).unwrap();
        if next.is_empty() {
            return batches;
        }
        batches.extend(next);
    }
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

#[test]
fn json_topics_with_a_schema_get_typed_columns() {
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
    let written = write(&config, &[batch.stamped(9, ShardEpoch(0), 4)]).unwrap();
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
    assert_eq!(
        read(&written, 9).len(),
        1,
        "consumers do not see the typed columns"
    );
}

#[test]
fn a_changed_object_is_refused() {
    let written = write(&PartitionConfig::new(P0, "t"), &[batch(0, 3, "a")]).unwrap();
    let mut bytes = written.bytes.to_vec();
    bytes[20] ^= 1;
    let error = Loaded::new(&object(&written), bytes.into()).err().unwrap();
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn manifest_golden_json() {
    let written = ColdObject {
        path: "data/a".to_owned(),
        ..object_of(0, 5)
    };
    let mark = ProducerMark {
        id: model::ProducerId(7),
        epoch: 1,
        sequence: 2,
        base_offset: 3,
        records: 2,
    };
    let mut manifest = Manifest::empty(P0, "t").followed_by(0, Some(written), vec![mark]);
    manifest.writer = "node-0-1".to_owned();
    manifest.commit = 4;
    let json = concat!(
        r#"{"format":1,"partition":{"topic":1,"index":0},"topic":"t","number":1,"#,
        r#""writer":"node-0-1","commit":4,"shard_epoch":0,"start":0,"end":5,"objects":[{"#,
        r#""path":"data/a","size":10,"base":0,"next":5,"rows":5,"min_ts":1,"max_ts":2,"#,
        r#""append_time":3,"row_bytes":50,"crc32c":6}],"producers":[{"id":7,"epoch":1,"#,
        r#""sequence":2,"base_offset":3,"records":2}]}"#
    );
    assert_eq!(String::from_utf8(manifest.to_json()).unwrap(), json);
    assert_eq!(Manifest::from_json(json.as_bytes(), P0).unwrap(), manifest);
    assert_eq!(manifest.format, FORMAT);
    let path = Manifest::path(P0, 1);
    assert_eq!(path.as_ref(), "manifests/1/0/00000000000000000001.json");
    assert_eq!(manifest_of(&path), Some((P0, 1)));
    assert_eq!(manifest_of(&Path::from("manifests/1/0/x.json")), None);
}

fn object_of(base: Offset, next: Offset) -> ColdObject {
    ColdObject {
        path: format!("data/{base}"),
        size: 10,
        base,
        next,
        rows: next - base,
        min_ts: 1,
        max_ts: 2,
        append_time: 3,
        row_bytes: 50,
        crc32c: 6,
    }
}

#[test]
fn manifests_out_of_order_are_refused_and_trimmed_ones_shrink() {
    let one = Manifest::empty(P0, "t").followed_by(0, Some(object_of(0, 5)), vec![]);
    let two = one.followed_by(7, Some(object_of(5, 9)), vec![]);
    assert_eq!(
        (two.objects.len(), two.start, two.end, two.number),
        (1, 7, 9, 2)
    );
    let check = |manifest: &Manifest, expected: &str| {
        let error = Manifest::from_json(&manifest.to_json(), P0).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let mut wrong = two.clone();
    wrong.objects.push(object_of(8, 9));
    check(&wrong, "out of order");
    wrong = Manifest {
        format: 2,
        ..two.clone()
    };
    check(&wrong, "format 2");
    wrong = Manifest { end: 3, ..two };
    check(&wrong, "objects end at 9");
}

#[test]
fn only_the_last_batches_of_a_producer_are_remembered() {
    let mark = |id, sequence| ProducerMark {
        id: model::ProducerId(id),
        epoch: 0,
        sequence,
        base_offset: 0,
        records: 1,
    };
    let marks = (0..9)
        .map(|sequence| mark(1, sequence))
        .chain([mark(2, 0)])
        .collect();
    let kept: Vec<(u64, u32)> = last_marks(marks)
        .iter()
        .map(|mark| (mark.id.0, mark.sequence))
        .collect();
    assert_eq!(kept, [(1, 4), (1, 5), (1, 6), (1, 7), (1, 8), (2, 0)]);
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
        let written = write(&PartitionConfig::new(P0, "t"), &batches).unwrap();
        prop_assert_eq!((written.base, written.next), (base, next));
        let expected = records(&batches);
        let from = from % expected.len();
        prop_assert_eq!(&records(&read(&written, base))[..], &expected[..]);
        prop_assert_eq!(&records(&read(&written, base + from as u64))[..], &expected[from..]);
    }
}
