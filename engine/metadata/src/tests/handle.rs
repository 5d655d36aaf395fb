//! The handle: what was answered is there after a restart, whatever the disk did.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::{Advice, CatalogView, Outcome, TopicId};

use super::twin::TwinFolder;
use super::{create, names};
use crate::log::{LOG, Sizes};
use crate::node::Settings;
use crate::snapshot::Image;
use crate::{Metadata, ProposeError};

/// Snapshots often, and in small files.
const SMALL: Settings = Settings {
    log_bytes_max: 2_000,
    entries_kept: 1,
    sizes: Sizes {
        reserve: 2_000,
        growth: 4_000,
        dead_max: 2_000,
    },
    ..Settings::ALONE
};

/// No handle may hang: a broker that waits for its catalog for ever is worse than one that stops.
async fn soon<T>(act: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(20), act).await;
    waited.expect("it hangs")
}

async fn open_twin(folder: &TwinFolder) -> Metadata {
    let folder = Arc::new(folder.clone());
    soon(Metadata::open_in(folder, SMALL)).await.unwrap()
}

async fn reopened(metadata: Metadata, dir: &Path) -> Metadata {
    metadata.close().await;
    drop(metadata);
    Metadata::open(dir).await.unwrap()
}

#[tokio::test]
async fn commands_are_there_after_a_restart_and_are_watched() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b");
    let metadata = Metadata::open(&dir).await.unwrap();
    let mut watch = metadata.watch();
    watch.mark_unchanged();
    let made = metadata.propose(create("x")).await;
    assert_eq!(made, Ok(Outcome::Topic(TopicId(1))));
    assert!(watch.has_changed().unwrap());
    assert_eq!(watch.borrow_and_update().version(), 1);
    // Changes nothing, so it is not logged.
    let bytes = metadata.status().log_bytes;
    let made = metadata.propose(create("x")).await;
    assert_eq!(made, Ok(Outcome::Topic(TopicId(1))));
    let refused = metadata.propose(create("../x")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Catalog(_)), "{refused}");
    assert_eq!(metadata.status().log_bytes, bytes);
    assert!(!watch.has_changed().unwrap());
    let before = metadata.catalog();
    let metadata = reopened(metadata, &dir).await;
    assert_eq!(metadata.catalog(), before);
    let made = metadata.propose(create("y")).await;
    assert_eq!(made, Ok(Outcome::Topic(TopicId(2))));
}

#[tokio::test]
async fn a_closed_catalog_refuses_and_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(dir.path()).await.unwrap();
    metadata.close().await;
    let refused = soon(metadata.propose(create("x"))).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Stopped { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_at_once_are_applied_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(dir.path()).await.unwrap();
    let proposals = (0..16).map(|number| {
        let metadata = metadata.clone();
        // Each name twice: the second is granted and changes nothing.
        let name = format!("t{}", number / 2);
        tokio::spawn(async move { metadata.propose(create(&name)).await })
    });
    for proposal in proposals.collect::<Vec<_>>() {
        proposal.await.unwrap().unwrap();
    }
    let before = metadata.catalog();
    assert_eq!(before.version(), 8);
    assert_eq!(reopened(metadata, dir.path()).await.catalog(), before);
}

#[tokio::test]
async fn a_proposal_that_nobody_waits_for_is_made() {
    let folder = TwinFolder::default();
    let metadata = open_twin(&folder).await;
    let mut watch = metadata.watch();
    let mut proposal = Box::pin(metadata.propose(create("x")));
    assert!(futures::poll!(proposal.as_mut()).is_pending());
    drop(proposal);
    soon(watch.wait_for(|catalog| names(catalog) == "x"))
        .await
        .unwrap();
}

#[tokio::test]
async fn snapshots_keep_the_log_short() {
    let folder = TwinFolder::default();
    let metadata = open_twin(&folder).await;
    let mut longest = 0;
    for number in 0..100 {
        metadata
            .propose(create(&format!("t{number}")))
            .await
            .unwrap();
        longest = longest.max(metadata.status().log_bytes);
    }
    assert!(longest < 30_000, "the log grew to {longest} bytes");
    assert!(!folder.bytes("snapshot").is_empty());
    let before = metadata.catalog();
    assert_eq!(before.version(), 100);
    metadata.close().await;
    let reopened = open_twin(&folder.restarted()).await;
    assert_eq!(reopened.catalog(), before);
    reopened.close().await;
    // The two belong together: one without the other is named.
    for name in [LOG, "snapshot"] {
        let half = TwinFolder::default();
        half.set(name, folder.bytes(name));
        let error = Metadata::open_in(Arc::new(half), SMALL).await;
        let error = error.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("gone"), "{name} alone: {error}");
    }
    let damaged = folder.restarted();
    let whole = damaged.bytes("snapshot");
    for at in 0..whole.len() {
        assert!(Image::decode(&whole[..at]).is_err(), "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        assert!(Image::decode(&flipped).is_err(), "flip at {at}");
        damaged.set("snapshot", flipped);
    }
    let error = Metadata::open_in(Arc::new(damaged), SMALL).await;
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("snapshot at byte 0"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_by_itself() {
    let folder = TwinFolder::default();
    let metadata = open_twin(&folder).await;
    folder.faults.is_full.store(true, Ordering::SeqCst);
    let mut made = 0;
    let refused = loop {
        match soon(metadata.propose(create(&format!("t{made}")))).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1_000, "the disk is full");
    };
    assert_eq!(refused, ProposeError::DiskFull);
    assert_eq!(
        (refused.advice(), refused.code()),
        (Advice::Retry, "disk-full")
    );
    // What is there can be read, and what needs no space is answered.
    assert_eq!(metadata.catalog().version(), made);
    assert!(metadata.propose(create("t0")).await.is_ok());
    // A restart on the full disk works too.
    metadata.close().await;
    let full = folder.restarted();
    full.faults.is_full.store(true, Ordering::SeqCst);
    let metadata = open_twin(&full).await;
    let refused = soon(metadata.propose(create("more"))).await;
    assert_eq!(refused, Err(ProposeError::DiskFull));
    full.faults.is_full.store(false, Ordering::SeqCst);
    assert!(soon(metadata.propose(create("more"))).await.is_ok());
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_catalog() {
    let folder = TwinFolder::default();
    let metadata = open_twin(&folder).await;
    metadata.propose(create("x")).await.unwrap();
    folder.faults.sync_fails.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = soon(metadata.propose(create("y"))).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ProposeError::Stopped { .. }), "{error}");
        assert!(text.contains("the sync fails on purpose"), "{text}");
    }
    let reason = soon(metadata.failed()).await;
    assert!(reason.contains("the sync fails on purpose"), "{reason}");
    assert_eq!(names(&metadata.catalog()), "x");
    metadata.close().await;
    let reopened = open_twin(&folder.restarted()).await;
    // What was not answered may be there or not.
    assert!(["x", "x y"].contains(&names(&reopened.catalog()).as_str()));
}

/// The power goes at every change of a whole run, the first start and snapshots included.
#[tokio::test]
async fn the_power_goes_at_every_change() {
    let run = async |folder: &TwinFolder| {
        let mut made = 0;
        let opened = Metadata::open_in(Arc::new(folder.clone()), SMALL);
        let Ok(metadata) = soon(opened).await else {
            return made;
        };
        while made < 24 {
            let command = create(&format!("t{made:02}"));
            if soon(metadata.propose(command)).await.is_err() {
                break;
            }
            made += 1;
        }
        metadata.close().await;
        made
    };
    let whole = TwinFolder::default();
    assert_eq!(run(&whole).await, 24);
    let changes = whole.faults.changes();
    assert!(!whole.bytes("snapshot").is_empty());
    for cut in (0..changes).step_by(3) {
        let folder = TwinFolder::default();
        folder.faults.power_for(cut);
        let made = run(&folder).await;
        for lot in 0..2 {
            let mut turn = 0;
            let after = folder.crashed(|| {
                turn += 1;
                lot == 0 || turn % 3 == 0
            });
            let metadata = open_twin(&after).await;
            let version = metadata.catalog().version();
            // The one on its way may have made it.
            assert!(
                (made..=made + 1).contains(&version),
                "cut {cut}: {version}, not {made}"
            );
            metadata.propose(create("after")).await.unwrap();
            metadata.close().await;
        }
    }
}

#[tokio::test]
async fn a_start_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let begun = Instant::now();
        let metadata = Metadata::open(dir.path()).await.unwrap();
        let took = begun.elapsed();
        println!("opened in {took:?}");
        // No election timeout is waited for; the bound leaves room for a slow disk.
        assert!(took < Duration::from_millis(900), "{took:?}");
        metadata.close().await;
    }
}
