//! The catalog survives what the disk may do to it, or says what was damaged.

use std::path::Path;
use std::sync::Arc;

use model::{Catalog, CatalogView, Command, Outcome, TopicId, TopicSpec};
use proptest::prelude::*;

use super::{Metadata, ProposeError, frame};
use crate::journal::Journal;

fn create(name: &str) -> Command {
    let (name, spec) = (name.to_owned(), TopicSpec::default());
    Command::TopicCreate {
        name,
        spec,
        if_absent: true,
        internal: false,
    }
}

fn names(catalog: &Catalog) -> String {
    let names: Vec<&str> = catalog.topics().map(|topic| topic.name.as_str()).collect();
    names.join(" ")
}

/// A journal of topics `t0`, `t1`, … and where each command ends in it.
async fn journal_of(dir: &Path, topics: usize) -> (Vec<u8>, Vec<usize>) {
    let metadata = Metadata::open(dir).await.unwrap();
    let mut ends = vec![0];
    let path = dir.join("catalog.journal");
    for number in 0..topics {
        metadata
            .propose(create(&format!("t{number}")))
            .await
            .unwrap();
        ends.push(std::fs::metadata(&path).unwrap().len() as usize);
    }
    (std::fs::read(&path).unwrap(), ends)
}

#[tokio::test]
async fn commands_are_there_after_a_restart_and_are_watched() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&dir.path().join("a/b")).await.unwrap();
    let mut watch = metadata.watch();
    assert_eq!(
        metadata.propose(create("x")).await.unwrap(),
        Outcome::Topic(TopicId(1))
    );
    assert!(watch.has_changed().unwrap());
    assert_eq!(watch.borrow_and_update().version(), 1);
    // Changes nothing, so it is not journaled.
    assert_eq!(
        metadata.propose(create("x")).await.unwrap(),
        Outcome::Topic(TopicId(1))
    );
    assert!(!watch.has_changed().unwrap());
    let refused = metadata.propose(create("../x")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Catalog(_)), "{refused}");
    let before = metadata.catalog();
    drop(metadata);
    let metadata = Metadata::open(&dir.path().join("a/b")).await.unwrap();
    assert_eq!(metadata.catalog(), before);
    assert_eq!(
        metadata.propose(create("y")).await.unwrap(),
        Outcome::Topic(TopicId(2))
    );
}

#[tokio::test]
async fn a_snapshot_replaces_a_long_journal() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Metadata::open_with(dir.path(), 500).await.unwrap();
    for number in 0..20 {
        metadata
            .propose(create(&format!("t{number}")))
            .await
            .unwrap();
    }
    let journal = dir.path().join("catalog.journal");
    assert!(std::fs::metadata(&journal).unwrap().len() <= 1_000);
    let before = metadata.catalog();
    drop(metadata);
    let reopened = Metadata::open(dir.path()).await.unwrap();
    assert_eq!(reopened.catalog(), before);
    drop(reopened);
    // A crash between snapshot and new journal: the old journal is still there.
    let other = tempfile::tempdir().unwrap();
    let (bytes, _) = journal_of(other.path(), 20).await;
    std::fs::write(&journal, bytes).unwrap();
    assert_eq!(Metadata::open(dir.path()).await.unwrap().catalog(), before);
    let snapshot = dir.path().join("catalog.snapshot");
    let mut bytes = std::fs::read(&snapshot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let error = Metadata::open(dir.path())
        .await
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("catalog.snapshot at byte 0"), "{error}");
}

#[tokio::test]
async fn proposals_at_once_are_applied_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(dir.path()).await.unwrap();
    let proposals = (0..16).map(|number| {
        let metadata = metadata.clone();
        tokio::spawn(async move { metadata.propose(create(&format!("t{number}"))).await })
    });
    for proposal in proposals.collect::<Vec<_>>() {
        proposal.await.unwrap().unwrap();
    }
    let before = metadata.catalog();
    assert_eq!(before.version(), 16);
    assert_eq!(Metadata::open(dir.path()).await.unwrap().catalog(), before);
}

#[tokio::test]
async fn a_journal_cut_at_any_byte_gives_the_commands_before() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, ends) = journal_of(dir.path(), 4).await;
    let path = dir.path().join("catalog.journal");
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let (_, catalog) = Journal::open(dir.path()).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(catalog.version(), whole as u64, "cut at {cut}");
        let kept = std::fs::metadata(&path).unwrap().len() as usize;
        assert_eq!(kept, ends[whole], "cut at {cut}");
    }
}

#[tokio::test]
async fn a_flipped_byte_is_a_torn_end_or_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, ends) = journal_of(dir.path(), 4).await;
    let path = dir.path().join("catalog.journal");
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        std::fs::write(&path, &flipped).unwrap();
        let command = ends.iter().filter(|end| **end <= at).count() - 1;
        match Journal::open(dir.path()) {
            // Only the last command may look torn: nothing says it was synced.
            Ok((_, catalog)) => assert_eq!((catalog.version(), command), (3, 3), "flip at {at}"),
            Err(error) => {
                let position = format!("at byte {}", ends[command]);
                assert!(
                    error.to_string().contains(&position),
                    "flip at {at}: {error}"
                );
                assert!(command < 3, "flip at {at}: {error}");
            }
        }
    }
}

#[test]
fn frame_golden_bytes() {
    let bytes = frame::encode(7, b"{}");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "525143460200000007000000000000009cb5047d7b7d");
}

proptest! {
    #[test]
    fn frames_round_trip(index: u64, payload: Vec<u8>, rest: Vec<u8>) {
        let mut bytes = frame::encode(index, &payload);
        let len = bytes.len();
        bytes.extend(rest);
        let frame = frame::decode(&bytes).unwrap();
        prop_assert_eq!((frame.index, frame.payload, frame.len), (index, &payload[..], len));
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(bytes: Vec<u8>) {
        prop_assert_eq!(frame::decode(&bytes), None);
    }
}

#[tokio::test]
async fn a_journal_that_failed_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(dir.path()).await.unwrap();
    metadata.propose(create("x")).await.unwrap();
    // A descriptor that cannot be written stands in for a failing disk.
    let path = dir.path().join("catalog.journal");
    let broken = std::fs::File::open(&path).unwrap();
    metadata.inner.journal.lock().unwrap().file_replace(broken);
    for _ in 0..2 {
        let error = metadata.propose(create("y")).await.unwrap_err();
        assert!(matches!(error, ProposeError::Stopped { .. }), "{error}");
    }
    assert_eq!(names(&metadata.catalog()), "_offsets x");
    let reopened = Metadata::open(dir.path()).await.unwrap();
    assert_eq!(Arc::clone(&reopened.catalog()).version(), 1);
}
