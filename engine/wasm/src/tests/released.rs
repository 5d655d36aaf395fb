//! Components built with the SDK of every released version of `rustmq:etl`: they run for ever.
//!
//! Each is `tests/guests/conformance` as it was then, and uses all that the SDK of its version has.

use super::columns::{batch, edges};
use super::*;

use crate::{Lookups, Metric, Metrics, Table};

const RELEASED: [(&str, &[u8]); 6] = [
    (
        "0.1.0",
        include_bytes!("../../../../tests/guests/conformance/released/0.1.0.wasm"),
    ),
    (
        "0.1.1",
        include_bytes!("../../../../tests/guests/conformance/released/0.1.1.wasm"),
    ),
    (
        "0.1.2",
        include_bytes!("../../../../tests/guests/conformance/released/0.1.2.wasm"),
    ),
    (
        "0.1.3",
        include_bytes!("../../../../tests/guests/conformance/released/0.1.3.wasm"),
    ),
    (
        "0.1.4",
        include_bytes!("../../../../tests/guests/conformance/released/0.1.4.wasm"),
    ),
    (
        "0.1.5",
        include_bytes!("../../../../tests/guests/conformance/released/0.1.5.wasm"),
    ),
];

/// One row whose value says what the guest does with it, with typed columns.
fn tell(guest: &mut Guest, work: &str) -> Result<Outcome, ProcessError> {
    let mut builder = RowsBuilder::new();
    builder.push(5, Some(b"k"), Some(work.as_bytes()), &[("h", Some(b"x"))]);
    guest.process(input(Batch {
        columns: Some(batch(1)),
        ..Batch::new(builder.finish(), vec![100].into())
    }))
}

fn check(guest: &mut Guest, version: &str, work: &str, expected: &str) {
    let told = match tell(guest, work) {
        Ok(outcome) => text(&outcome),
        Err(error) => error.to_string(),
    };
    assert_eq!(told.trim_end(), expected, "{version}");
}

#[test]
fn released_versions_run() {
    for (version, bytes) in RELEASED {
        let module = load(bytes);
        let exported = format!("rustmq:etl/module@{version}");
        assert_eq!(module.info().exports, [exported]);
        assert_eq!(module.info().contract.as_deref(), Some(version));
        let users = Table::default();
        let ann = (&b"k"[..], Some(&b"ann"[..]));
        users.apply([ann], usize::MAX).expect("there is room");
        let lookups = Lookups::new(["users".to_owned()]);
        lookups.lend(Some([Arc::new(users.pin())].into()));
        let told = OpenContext {
            lookups,
            params: r#"{"tag":"t"}"#.into(),
            ..edges()
        };
        let mut guest = module
            .open(&told, &Limits::default())
            .unwrap_or_else(|e| panic!("{version}: {e}"));
        check(&mut guest, version, "forward", "forward 0 [0]");
        check(&mut guest, version, "drop", "");
        let everything = "emit 1 0 k=t/in/out,rest/3 input 0 offset 100 time 5 watermark 1 \
                          header x @6 by:set";
        check(&mut guest, version, "emit", everything);
        check(
            &mut guest,
            version,
            "reject",
            "reject [0] refused: as asked",
        );
        check(
            &mut guest,
            version,
            "retry",
            "retry [0] 7 ms later: as asked",
        );
        check(
            &mut guest,
            version,
            "fail",
            "the module failed: failed: as asked",
        );
        if version != "0.1.0" {
            since_0_1_1(&mut guest, version, &told.metrics);
        }
        let looked_up = match version {
            "0.1.0" | "0.1.1" | "0.1.2" => "",
            _ => "emit 0 0 k=ann",
        };
        check(&mut guest, version, "lookup", looked_up);
        assert!(!guest.is_dead());
    }
}

/// Typed columns, log, counters and histograms.
fn since_0_1_1(guest: &mut Guest, version: &str, metrics: &Metrics) {
    let outcome = tell(guest, "columns").unwrap_or_else(|e| panic!("{version}: {e}"));
    let [
        Emission::Columns {
            port: 0,
            parents: None,
            columns,
            keys: None,
            ..
        },
        Emission::Columns {
            port: 0,
            parents: Some(parents),
            columns: nulls,
            keys: Some(keys),
            ..
        },
    ] = &outcome.emissions[..]
    else {
        panic!("{version}: two emits of columns: {outcome:?}");
    };
    assert_eq!(columns, &batch(1), "{version}");
    assert_eq!((&parents[..], keys.value(0)), (&[0][..], &b"k"[..]));
    assert!(
        nulls
            .columns()
            .iter()
            .all(|column| column.null_count() == 1)
    );
    check(guest, version, "log", "");
    let read = metrics.read();
    // the call that failed does not count
    assert_eq!(read["rows"], Metric::Counter { value: 7 }, "{version}");
    let Metric::Histogram { counts, sum, .. } = &read["bytes"] else {
        panic!("{version}: a histogram: {read:?}");
    };
    assert_eq!((&counts[..], *sum), (&[3, 2, 2][..], 36.0), "{version}");
}
