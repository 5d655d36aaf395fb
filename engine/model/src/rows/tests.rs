//! Rows against a plain model: a list of records.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn build(records: &[Plain]) -> Rows {
    let mut builder = RowsBuilder::new();
    for r in records {
        let headers: Vec<_> = r
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_deref()))
            .collect();
        builder.push(r.timestamp, r.key.as_deref(), r.value.as_deref(), &headers);
    }
    assert_eq!(builder.len(), records.len());
    let bytes = builder.bytes();
    let rows = builder.finish();
    assert_eq!(rows.bytes(), bytes);
    rows
}

fn plain(rows: &Rows) -> Vec<Plain> {
    rows.check().unwrap();
    let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    rows.records()
        .map(|r| Plain {
            timestamp: r.timestamp,
            key: own(r.key),
            value: own(r.value),
            headers: r.headers.map(|(n, v)| (n.to_owned(), own(v))).collect(),
        })
        .collect()
}

fn cell_any() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..12))
}

fn records_any() -> impl Strategy<Value = Vec<Plain>> {
    let headers = prop::collection::vec(("[a-c]{0,2}", cell_any()), 0..3);
    let record = (any::<i64>(), cell_any(), cell_any(), headers).prop_map(|(t, k, v, h)| Plain {
        timestamp: t,
        key: k,
        value: v,
        headers: h,
    });
    let bare = |mut r: Vec<Plain>, bare: bool| {
        r.iter_mut()
            .filter(|_| bare)
            .for_each(|r| r.headers.clear());
        r
    };
    (prop::collection::vec(record, 0..40), any::<bool>()).prop_map(move |(r, b)| bare(r, b))
}

proptest! {
    #[test]
    fn records_come_back(records in records_any()) {
        prop_assert_eq!(plain(&build(&records)), records);
    }

    #[test]
    fn take_is_choosing(
        records in records_any(),
        seed in prop::collection::vec(any::<u32>(), 0..80),
    ) {
        prop_assume!(!records.is_empty());
        let chosen: Vec<u32> = seed.iter().map(|s| s % records.len() as u32).collect();
        let rows = build(&records);
        let want: Vec<Plain> = chosen.iter().map(|c| records[*c as usize].clone()).collect();
        prop_assert_eq!(plain(&rows.take(&chosen)), want);
        // Of a slice, too: its buffers hold more than its rows.
        let half = rows.slice(records.len() / 2, records.len() - records.len() / 2);
        let runs: Vec<u32> = (0..half.len() as u32).filter(|r| r % 5 != 3).rev().collect();
        let want: Vec<Plain> =
            runs.iter().map(|r| records[records.len() / 2 + *r as usize].clone()).collect();
        prop_assert_eq!(plain(&half.take(&runs)), want);
    }

    #[test]
    fn concat_of_slices_is_the_whole(
        records in records_any(),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let rows = build(&records);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (rows.len() + 1)).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        let parts: Vec<Rows> = cuts.windows(2).map(|w| rows.slice(w[0], w[1] - w[0])).collect();
        prop_assert_eq!(parts.iter().map(Rows::payload_bytes).sum::<usize>(), rows.payload_bytes());
        prop_assert_eq!(plain(&Rows::concat(&parts).unwrap()), records);
    }

    #[test]
    fn headers_are_set(records in records_any(), cells in prop::collection::vec(cell_any(), 40)) {
        let rows = build(&records);
        let column = BinaryArray::from_iter(cells.iter().take(rows.len()).map(|c| c.as_deref()));
        let set = rows.with_headers(&[("a".to_owned(), column.clone())]).unwrap();
        prop_assert_eq!(&set.header("a"), &column);
        prop_assert_eq!(set.header("b"), rows.header("b"));
        let others = |r: &Rows| {
            let mut all = plain(r);
            all.iter_mut().for_each(|r| r.headers.retain(|(n, _)| n != "a"));
            all
        };
        prop_assert_eq!(others(&set), others(&rows));
    }
}

#[test]
fn concat_joins_rows_with_and_without_headers() {
    let record = |headers: &[(&str, Option<&[u8]>)]| {
        let mut builder = RowsBuilder::new();
        builder.push(1, None, Some(b"v"), headers);
        builder.finish()
    };
    let (bare, full) = (record(&[]), record(&[("h", Some(b"x")), ("n", None)]));
    assert!(bare.headers.is_none());
    let all = Rows::concat(&[bare.clone(), full.clone(), bare.clone()]).unwrap();
    let each = [plain(&bare), plain(&full), plain(&bare)].concat();
    assert_eq!(plain(&all), each);
    assert_eq!(Rows::concat(&[]).unwrap(), Rows::empty());
}

#[test]
fn a_choice_of_rows_that_are_not_there_is_refused() {
    let rows = build(&[]);
    let error = rows.try_take(&[0]).unwrap_err();
    assert_eq!(error.to_string(), "row 0 does not exist: there are 0");
    assert_eq!(rows.try_take(&[]).unwrap().len(), 0);
    assert_eq!(rows.taken_bytes(&[7]), 0);
}

#[test]
fn a_run_of_rows_shares_the_buffers() {
    let mut builder = RowsBuilder::new();
    (0..8).for_each(|i| builder.push(i, None, Some(b"value"), &[]));
    let rows = builder.finish();
    let run = rows.take(&[2, 3, 4]);
    assert_eq!(
        run.values.value_data().as_ptr(),
        rows.values.value_data().as_ptr()
    );
    assert_eq!(rows.taken_bytes(&[2, 3, 4]), 15);
}

#[test]
fn a_long_choice_with_one_break_is_no_run() {
    let mut builder = RowsBuilder::new();
    (0..600).for_each(|i| builder.push(i, None, Some(&i.to_le_bytes()), &[]));
    let rows = builder.finish();
    for at in [0, 1, 254, 255, 256, 511, 512, 598] {
        let mut choice: Vec<u32> = (0..600).collect();
        choice.swap(at, at + 1);
        let expected: Vec<i64> = choice.iter().map(|row| i64::from(*row)).collect();
        assert_eq!(
            &rows.take(&choice).timestamps[..],
            expected,
            "break at {at}"
        );
        // one twice and its neighbour not at all
        choice[at] = choice[at + 1];
        let expected: Vec<i64> = choice.iter().map(|row| i64::from(*row)).collect();
        assert_eq!(
            &rows.take(&choice).timestamps[..],
            expected,
            "twice at {at}"
        );
    }
}

#[test]
fn a_run_has_the_bytes_of_its_rows_in_any_order() {
    let mut builder = RowsBuilder::new();
    for i in 0..6 {
        let (key, value) = (vec![b'k'; i], vec![b'v'; 2 * i]);
        builder.push(0, Some(&key), Some(&value), &[("name", Some(&key))]);
    }
    let rows = builder.finish().slice(1, 5);
    let one = |row: u32| rows.taken_bytes(&[row, row]) / 2;
    for run in [0..5, 1..4, 2..3] {
        let (up, down): (Vec<u32>, Vec<u32>) = (run.clone().collect(), run.clone().rev().collect());
        let each: u64 = run.map(one).sum();
        assert_eq!(
            (rows.taken_bytes(&up), rows.taken_bytes(&down)),
            (each, each)
        );
    }
    assert_eq!(
        rows.taken_bytes(&[4, 5, 6]),
        one(4),
        "what is not there is nothing"
    );
}

#[test]
fn uneven_columns_are_refused() {
    let keys = BinaryArray::new_null(1);
    let error = Rows::new(vec![1, 2].into(), keys, BinaryArray::new_null(2), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column keys has 1 rows where there are 2"
    );
}
