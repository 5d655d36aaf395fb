//! One server, asked from anywhere in the program.
//!
//! What: `Client` keeps the link, makes it anew when it broke, opens channels, and asks single
//! questions. Called by: everyone; cloning is cheap.
//! Invariants: at most one reconnect at a time; a question is sent once: whether to ask again
//! is the asker's decision, who is told when the outcome is not known.

use std::sync::Arc;

use bytes::Bytes;
use protocol::table::Call;
use protocol::{Request, Response, Sql, SqlChunk, SqlFormat};
use tokio::sync::Mutex;

use crate::channel::{Channel, Replies};
use crate::config::ClientConfig;
use crate::error::{ClientError, ConnectError};
use crate::link::Link;

#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    link: Mutex<Option<Arc<Link>>>,
}

impl Client {
    /// Finds, reaches and greets the server; gives up after the connect timeout.
    pub async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
        let link = Box::pin(connect(&config)).await?;
        Ok(Client {
            inner: Arc::new(Inner {
                config,
                link: Mutex::new(Some(Arc::new(link))),
            }),
        })
    }

    /// Says goodbye to the server, so that it need not wait for this process. For processes that
    /// end right after; others may just drop the client.
    pub async fn close(&self) {
        let link = self.inner.link.lock().await.take();
        if let Some(link) = link {
            link.close().await;
        }
    }

    /// `quic` or `tcp`.
    pub async fn transport(&self) -> &'static str {
        self.inner
            .link
            .lock()
            .await
            .as_ref()
            .map_or("none", |link| link.name())
    }

    /// A stream of its own: requests on it keep their order.
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        let link = self.link().await?;
        // Not under the lock: a link that has no stream to give holds up nobody else.
        match link.open().await {
            Ok((reader, writer)) => return Ok(Channel::new(reader, writer, link)),
            Err(error) => tracing::debug!(%error, "link is gone, connecting again"),
        }
        self.forget(&link).await;
        let link = self.link().await?;
        let (reader, writer) = link.open().await?;
        Ok(Channel::new(reader, writer, link))
    }

    /// Drops a link that does not work, unless another has taken its place.
    async fn forget(&self, broken: &Arc<Link>) {
        let mut link = self.inner.link.lock().await;
        link.take_if(|link| Arc::ptr_eq(link, broken));
    }

    /// The link, made anew if it is gone.
    async fn link(&self) -> Result<Arc<Link>, ConnectError> {
        let mut link = self.inner.link.lock().await;
        if let Some(alive) = link.as_ref().filter(|link| link.is_alive()) {
            return Ok(Arc::clone(alive));
        }
        *link = None;
        let fresh = Arc::new(Box::pin(connect(&self.inner.config)).await?);
        *link = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// One question on a stream of its own. A refusal is an `Err`.
    pub async fn request(&self, request: impl Into<Request>) -> Result<Response, ClientError> {
        self.channel().await?.send(request).await?.await
    }

    /// One question whose answer has a known type.
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Reply, ClientError> {
        C::reply(self.request(call).await?)
            .map_err(|other| ClientError::Unexpected(format!("{other:?}")))
    }

    /// The rendered answer to a query, in pieces.
    pub async fn sql(&self, query: &str, format: SqlFormat) -> Result<SqlStream, ClientError> {
        let query = query.to_owned();
        self.sql_with(Sql {
            query,
            format,
            row_limit: None,
            timeout_ms: None,
        })
        .await
    }

    pub async fn sql_with(&self, sql: Sql) -> Result<SqlStream, ClientError> {
        let channel = self.channel().await?;
        let replies = channel.send_many(sql).await?;
        Ok(SqlStream {
            replies,
            _channel: channel,
        })
    }
}

async fn connect(config: &ClientConfig) -> Result<Link, ConnectError> {
    let began = tokio::time::Instant::now();
    let target = tokio::time::timeout(config.connect_timeout, config.target());
    let target = target.await.map_err(|_| ConnectError::Unreachable {
        server: config.server.clone().unwrap_or_default(),
        reason: "its name was not resolved in time".to_owned(),
    })??;
    let rest = config.connect_timeout.saturating_sub(began.elapsed());
    Link::connect(target, config.transport, rest).await
}

/// The pieces of one SQL answer.
pub struct SqlStream {
    replies: Replies,
    _channel: Channel,
}

impl SqlStream {
    /// The next piece; `None` when the answer is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match self.replies.next().await? {
            None => Ok(None),
            Some(Response::SqlChunk(SqlChunk { text })) => Ok(Some(text)),
            Some(other) => Err(ClientError::Unexpected(format!("{other:?}"))),
        }
    }

    /// The whole answer; for tests and small ones.
    pub async fn text(mut self) -> Result<String, ClientError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            bytes.extend_from_slice(&piece);
        }
        String::from_utf8(bytes).map_err(|error| ClientError::Unexpected(error.to_string()))
    }
}
