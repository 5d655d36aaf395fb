//! Components built with the SDK of every released version of `rustmq:etl`: they run for ever.
//!
//! Each is `tests/guests/conformance` as it was then, and uses all that its version has.

use model::rows::RowsBuilder;

use super::*;

const RELEASED: [(&str, &[u8]); 1] = [(
    "0.1.0",
    include_bytes!("../../../../tests/guests/conformance/released/0.1.0.wasm"),
)];

/// One row whose value says what the guest does with it.
fn tell(guest: &mut Guest, work: &str) -> Result<Outcome, ProcessError> {
    let mut builder = RowsBuilder::new();
    builder.push(5, Some(b"k"), Some(work.as_bytes()), &[("h", Some(b"x"))]);
    run(guest, &builder.finish())
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
        assert_eq!(module.info().built_for(), Some(version));
        let told = OpenContext {
            params: r#"{"tag":"t"}"#.into(),
            ..context()
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
        assert!(!guest.is_dead());
    }
}
