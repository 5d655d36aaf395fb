//! SQL: a question to the engine, its rows rendered piece by piece.
//!
//! Called by: `service::Rooms::answer`, `http`. Calls: the sql room.
//! Invariants: limits of the asker only tighten those of the node.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use protocol::{Sql, SqlFormat, WireError, code};

use super::Rooms;

pub(crate) type Pieces = BoxStream<'static, Result<Bytes, WireError>>;

impl Rooms {
    pub(crate) async fn sql(&self, ask: Sql) -> Result<Pieces, WireError> {
        let options = ::sql::QueryOptions {
            rows_max: ask.row_limit,
            timeout_ms: ask.timeout_ms,
        };
        let rows = Box::pin(self.sql.query(&ask.query, options))
            .await
            .map_err(refused)?;
        let format = match ask.format {
            SqlFormat::Table => ::sql::Format::Table,
            SqlFormat::Jsonl => ::sql::Format::Jsonl,
            SqlFormat::Csv => ::sql::Format::Csv,
        };
        Ok(::sql::render(rows, format)
            .map(|piece| piece.map_err(refused))
            .boxed())
    }
}

fn refused(error: ::sql::SqlError) -> WireError {
    WireError::new(error.advice(), code::INVALID, error.to_string())
}
