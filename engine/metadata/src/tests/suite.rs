//! openraft's own tests of a storage, run against this one on a real disk.

use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::disk::RealFolder;
use crate::log::{Log, Sizes};
use crate::machine::Machine;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::types::{StorageError, Types};

struct Fresh;

impl StoreBuilder<Types, Store, Machine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, Store, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(RealFolder::create(dir.path()).unwrap());
        let (snapshots, image) = Snapshots::open(folder.clone()).unwrap();
        let machine = Machine::open(snapshots, image);
        let log = Log::open(folder, 0, Sizes::REAL).unwrap();
        let store = Store::new(log, machine.snapshots());
        Ok((dir, store, machine))
    }
}

#[test]
fn openrafts_storage_suite() {
    Suite::test_all(Fresh).unwrap();
}
