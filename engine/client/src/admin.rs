//! The usual questions, by name.
//!
//! What: thin helpers over `Client::call`. Called by: the command line, the demo, tests.

use bytes::Bytes;
use model::ids::{Digest, Offset, PartitionId, TopicId};
use model::port::Lookup as At;
use model::topic::TopicSpec;
use protocol::*;

use crate::client::Client;
use crate::error::ClientError;

impl Client {
    pub async fn topic_create(
        &self,
        name: &str,
        spec: TopicSpec,
        if_absent: bool,
    ) -> Result<TopicId, ClientError> {
        let call = TopicCreate {
            name: name.to_owned(),
            spec,
            if_absent,
        };
        Ok(self.call(call).await?.id)
    }

    pub async fn topics(&self) -> Result<Vec<TopicInfo>, ClientError> {
        Ok(self.call(TopicList {}).await?.topics)
    }

    pub async fn topic(&self, name: &str) -> Result<TopicDescription, ClientError> {
        self.call(TopicDescribe {
            name: name.to_owned(),
        })
        .await
    }

    pub async fn topic_delete(&self, name: &str) -> Result<(), ClientError> {
        self.call(TopicDelete {
            name: name.to_owned(),
        })
        .await
        .map(|_| ())
    }

    /// The offset that a place means now.
    pub async fn lookup(&self, partition: PartitionId, at: At) -> Result<Offset, ClientError> {
        Ok(self.call(Lookup { partition, at }).await?.offset)
    }

    /// Sends a module unless the server has it.
    pub async fn module_put(&self, bytes: Bytes) -> Result<Digest, ClientError> {
        let digest = Digest::of(&bytes);
        if self.call(ModuleHas { digest }).await?.present {
            return Ok(digest);
        }
        let stored = self.call(ModulePut { bytes }).await?.digest;
        if stored != digest {
            let message = format!("module {digest} was stored as {stored}");
            return Err(ClientError::Unexpected(message));
        }
        Ok(digest)
    }
}
