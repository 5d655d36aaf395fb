//! The broker follows the catalog: what changed there is done here.
//!
//! Called by: `topics` before a change is answered, and by a task for changes that were made
//! elsewhere or whose caller went away. Calls: the broker.
//! Invariants: changes are followed one after another and none is left out, since the newest
//! catalog is compared with the one that was followed last; doing one again does no harm, so
//! after an error all are tried again with the next.

use std::sync::{Arc, Weak};

use model::{Catalog, Change, LogError};
use tokio::sync::watch;

use super::Rooms;

impl Rooms {
    /// Tells the broker of every change since it was told last.
    pub(crate) async fn follow(&self) -> Result<(), LogError> {
        let mut followed = self.followed.lock().await;
        let now = self.catalog();
        for change in now.changes(&followed) {
            match change {
                Change::TopicCreated(topic) => self.broker.topic_created(&topic)?,
                Change::TopicAltered(topic) => self.broker.topic_altered(&topic)?,
                Change::TopicDeleted(topic) => self.broker.topic_deleted(topic.id).await?,
                // Pipelines are started by who applies them; the rest is read where it is used.
                _ => {}
            }
        }
        *followed = now;
        Ok(())
    }
}

/// Follows until the rooms, or the catalog, are gone.
pub(crate) async fn follow(rooms: Weak<Rooms>, mut catalog: watch::Receiver<Arc<Catalog>>) {
    while catalog.changed().await.is_ok() {
        let Some(rooms) = rooms.upgrade() else {
            return;
        };
        if let Err(error) = rooms.follow().await {
            tracing::warn!("a change of the catalog is not followed yet: {error}");
        }
    }
}
