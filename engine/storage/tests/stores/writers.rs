//! Two brokers at one bucket: one number of a manifest is put once, the other broker stops.
//!
//! Called by: `main`. Invariants: what decides is the real server. Refuses: nothing.

use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use rustmq_storage::TierError;

use crate::bucket::{Bucket, Kind, append, check};

/// Manifests that are kept when older ones are collected, and some more.
const MANIFESTS: u64 = 12;
const PUTS_AT_ONCE: u64 = 8;
const NAMES: u64 = 20;

pub async fn one_of_many_puts_of_a_name_wins(kind: Kind) {
    let bucket = Bucket::new(kind);
    let store = bucket.open("data").await;
    let objects = store.object_store();
    for name in 0..NAMES {
        let path = Path::from(format!("probe/{name}"));
        let put = |writer: u64| {
            let (objects, path) = (objects.clone(), path.clone());
            async move {
                let options = PutOptions::from(PutMode::Create);
                let payload = PutPayload::from(writer.to_string());
                ObjectStore::put_opts(&*objects, &path, payload, options).await
            }
        };
        let puts = (0..PUTS_AT_ONCE).map(|writer| tokio::spawn(put(writer)));
        let mut winner = None;
        for (writer, put) in join_all(puts).await.into_iter().enumerate() {
            match put.unwrap() {
                Ok(_) => assert_eq!(winner.replace(writer), None, "two won {path}"),
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let there = objects.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(there, winner.unwrap().to_string());
    }
}

pub async fn the_loser_is_fenced_also_after_collection(kind: Kind) {
    let bucket = Bucket::new(kind);
    let stale = bucket.open("stale").await;
    let owner = bucket.open("owner").await;
    append(&stale, 3, 50).await;
    append(&owner, 5, 40).await;
    owner.tier(None).await.unwrap();
    let fenced = stale.tier(None).await.unwrap_err();
    assert!(matches!(fenced, TierError::Fenced { .. }), "{fenced}");
    for _ in 0..MANIFESTS {
        append(&owner, 5, 40).await;
        owner.tier(None).await.unwrap();
    }
    owner.tick(0).await.unwrap();
    // The number that the stale one would put is free again, and still it is refused.
    let fenced = stale.tier(None).await.unwrap_err();
    assert!(matches!(fenced, TierError::Fenced { .. }), "{fenced}");
    // Nor does its collection delete what the owner has.
    stale.tick(0).await.unwrap();
    let end = 5 * (MANIFESTS + 1);
    let owner = bucket.reopen_emptied(owner, "owner").await;
    check(&owner, 0, end, 40).await;
    let owner = bucket.settle(owner, "owner").await;
    check(&owner, 0, end, 40).await;
}
