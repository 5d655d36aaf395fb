//! A data directory of format 1: taken over once, whatever happens in between.

use std::path::Path;

use model::{Catalog, CatalogView, Outcome, TopicId};

use super::{create, names};
use crate::{Metadata, takeover};

/// A frame as format 1 wrote it.
fn frame(index: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = b"RQCF".to_vec();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&out[4..16]), payload);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

const COMMAND: &str = concat!(
    r#"{"command":"topic-create","name":"NAME","spec":{"partitions":1,"codec":"raw","#,
    r#""schema":null,"durability":"fsync","retention_ms":null,"retention_bytes":null,"#,
    r#""compact":false,"tier":true},"if_absent":true,"internal":false}"#
);
const SNAPSHOT: &str = concat!(
    r#"{"version":1,"next_topic":2,"topics":[{"id":0,"name":"_offsets","spec":{"partitions":1,"#,
    r#""codec":"raw","schema":null,"durability":"fsync","retention_ms":null,"#,
    r#""retention_bytes":null,"compact":true,"tier":false}},{"id":1,"name":"a","spec":{"#,
    r#""partitions":1,"codec":"raw","schema":null,"durability":"fsync","retention_ms":null,"#,
    r#""retention_bytes":null,"compact":false,"tier":true}}],"modules":{},"pipelines":[],"#,
    r#""generations":{}}"#
);

/// The files of a broker that made topics `a`, `b` and `c`; `a` is in a snapshot.
fn format_1(dir: &Path) {
    let command = |name: &str| COMMAND.replace("NAME", name).into_bytes();
    let mut journal = frame(1, &command("a"));
    journal.extend(frame(2, &command("b")));
    journal.extend(frame(3, &command("c")));
    // A command that was being written when the power went.
    journal.extend(&frame(4, &command("d"))[..30]);
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("catalog.journal"), journal).unwrap();
    std::fs::write(dir.join("catalog.snapshot"), frame(1, SNAPSHOT.as_bytes())).unwrap();
}

async fn check_taken_over(dir: &Path) {
    let metadata = Metadata::open(dir).await.unwrap();
    assert_eq!(names(&metadata.catalog()), "a b c");
    let made = metadata.propose(create("d")).await;
    assert_eq!(made, Ok(Outcome::Topic(TopicId(4))));
    metadata.close().await;
    let kept = |name: &str| {
        (
            dir.join(name).exists(),
            dir.join(format!("{name}.taken-over")).exists(),
        )
    };
    assert_eq!(kept("catalog.journal"), (false, true));
    assert_eq!(kept("catalog.snapshot"), (false, true));
}

#[tokio::test]
async fn a_catalog_of_format_1_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    format_1(dir.path());
    check_taken_over(dir.path()).await;
    let metadata = Metadata::open(dir.path()).await.unwrap();
    assert_eq!(names(&metadata.catalog()), "a b c d");
}

#[tokio::test]
async fn a_young_catalog_has_a_journal_only() {
    let dir = tempfile::tempdir().unwrap();
    let command = COMMAND.replace("NAME", "a").into_bytes();
    std::fs::write(dir.path().join("catalog.journal"), frame(1, &command)).unwrap();
    let metadata = Metadata::open(dir.path()).await.unwrap();
    assert_eq!(names(&metadata.catalog()), "a");
    metadata.close().await;
    // One that nothing was ever done to.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("catalog.journal"), []).unwrap();
    let metadata = Metadata::open(dir.path()).await.unwrap();
    assert_eq!(*metadata.catalog(), Catalog::new());
    assert!(!dir.path().join("catalog.journal").exists());
}

#[tokio::test]
async fn a_crash_anywhere_in_between_is_made_good() {
    // Before anything: Raft's files are there and hold nothing.
    let dir = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(dir.path()).await.unwrap();
    metadata.close().await;
    format_1(dir.path());
    check_taken_over(dir.path()).await;
    // After the log had it: the old files, or the snapshot alone, are still there.
    for leave in [
        ["catalog.journal", "catalog.snapshot"].as_slice(),
        &["catalog.snapshot"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        format_1(dir.path());
        let metadata = Metadata::open(dir.path()).await.unwrap();
        metadata.close().await;
        for name in leave {
            let aside = dir.path().join(format!("{name}.taken-over"));
            std::fs::rename(aside, dir.path().join(name)).unwrap();
        }
        check_taken_over(dir.path()).await;
    }
}

#[tokio::test]
async fn damage_is_named_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    format_1(dir.path());
    let path = dir.path().join("catalog.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Metadata::open(dir.path()).await.map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("catalog.journal at byte 0"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert!(takeover::read(dir.path()).is_err());
}
