//! Topics that keep columns: the tier has them as they are, and gives them back.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use model::rows::TypedColumns;

use super::*;

fn config() -> PartitionConfig {
    let mut config = PartitionConfig::new(P0, "t");
    config.codec = PayloadCodec::Columns;
    let schema = serde_json::json!({"n": "int64", "s": "string"});
    config.schema = Some(Schema::from_json(&schema).unwrap());
    config
}

fn rows(numbers: std::ops::Range<i64>) -> Rows {
    let texts: StringArray = numbers
        .clone()
        .map(|n| (n % 3 > 0).then(|| format!("é{n}")))
        .collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(numbers.clone())),
        Arc::new(texts),
    ];
    let mut rows = RowsBuilder::new();
    for n in numbers {
        rows.push(n, Some(b"k"), (n % 4 > 0).then_some(b"".as_slice()), &[]);
    }
    Rows {
        columns: Some(TypedColumns::new(arrays).unwrap()),
        ..rows.finish()
    }
}

#[tokio::test]
async fn columns_are_written_as_they_are_and_come_back() {
    let all = rows(0..40);
    let mut batches = Vec::new();
    for (from, len) in [(0, 7), (7, 1), (8, 32)] {
        let batch = Batch::encode(&all.slice(from, len), Codec::Zstd, None).unwrap();
        batches.push(batch.stamped(100 + from as u64, ShardEpoch(0), 5));
    }
    let written = write(&config(), &[batches.clone(), batches]).unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(written.bytes.clone())
        .unwrap()
        .build()
        .unwrap();
    let parquet = reader.next().unwrap().unwrap();
    let schema = parquet.schema();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(
        names.join(" "),
        "_offset _timestamp _key _value _headers n s"
    );
    let numbers = parquet.column(5).as_primitive::<Int64Type>();
    assert_eq!(numbers.values()[..40], (0..40).collect::<Vec<i64>>());
    assert_eq!(parquet.column(3).as_binary::<i32>().value_data(), b"");
    let (tier, manifests) = Shelf::default().put(written).await;
    for manifest in &manifests {
        for from in [0, 7, 20] {
            let read = read(&tier, manifest, 100 + from as u64, 1).await;
            let parts: Vec<Rows> = read.iter().map(|batch| batch.rows().unwrap()).collect();
            let back = Rows::concat(&parts).unwrap();
            assert_eq!(back.columns, all.slice(from, 40 - from).columns);
            let (got, due) = (&back.values, all.values.slice(from, 40 - from));
            let valid = |values: &arrow::array::BinaryArray| -> Vec<bool> {
                (0..values.len()).map(|row| values.is_valid(row)).collect()
            };
            assert_eq!(valid(got), valid(&due));
        }
    }
}

#[tokio::test]
async fn records_without_a_value_need_no_columns() {
    let mut gone = RowsBuilder::new();
    gone.push(1, Some(b"k"), None, &[]);
    let batch = Batch::encode(&gone.finish(), Codec::None, None).unwrap();
    let written = write(&config(), &[vec![batch.stamped(0, ShardEpoch(0), 5)]]).unwrap();
    let (tier, manifests) = Shelf::default().put(written).await;
    let read = read(&tier, &manifests[0], 0, 1).await;
    let rows = read[0].rows().unwrap();
    assert_eq!(rows.values.null_count(), 1);
    assert!(
        rows.columns
            .unwrap()
            .arrays()
            .iter()
            .all(|array| array.is_null(0))
    );
}
