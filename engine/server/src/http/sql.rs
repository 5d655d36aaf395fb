//! `POST /v1/sql`: a query as text or JSON, its rows as JSON lines while they come.
//!
//! Called by: `http::routes`. Calls: `Rooms::sql`.
//! Invariants: an error before the first row has its own status; after it, it is the last line
//! of JSON lines, and breaks the body off in the other formats.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use protocol::{Sql, SqlFormat, WireError, code};
use serde::Deserialize;

use super::error::{Refusal, body};
use crate::service::Rooms;

/// A query with its options; a body that is not JSON is the query itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    query: String,
    #[serde(default)]
    format: Option<SqlFormat>,
    #[serde(default)]
    row_limit: Option<u64>,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

pub(super) async fn query(
    State(rooms): State<Arc<Rooms>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let bytes = bytes.map_err(|rejection| {
        let too_large = rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE;
        let code = if too_large {
            code::TOO_LARGE
        } else {
            code::BAD_REQUEST
        };
        Refusal(WireError::fix(code, rejection.body_text()))
    })?;
    let ask = parse(&bytes).map_err(|why| Refusal(WireError::fix(code::BAD_REQUEST, why)))?;
    let format = ask.format;
    let mut pieces = rooms.sql(ask).await.map_err(Refusal)?;
    // the first piece decides the status: after it the status is gone
    let first = match pieces.next().await {
        Some(Err(error)) => return Err(Refusal(error)),
        Some(Ok(piece)) => Some(piece),
        None => None,
    };
    let first = futures::stream::iter(first.map(Ok));
    let pieces = first.chain(pieces).map(move |piece| match (piece, format) {
        (Ok(piece), _) => Ok(piece),
        (Err(error), SqlFormat::Jsonl) => Ok(Bytes::from(format!("{}\n", body(&error)))),
        (Err(error), _) => Err(std::io::Error::other(error.message)),
    });
    let kind = match format {
        SqlFormat::Jsonl => "application/x-ndjson",
        SqlFormat::Csv => "text/csv; charset=utf-8",
        SqlFormat::Table => "text/plain; charset=utf-8",
    };
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(pieces)).into_response())
}

fn parse(bytes: &[u8]) -> Result<Sql, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("the body is not UTF-8 at byte {}", error.valid_up_to()))?;
    let ask = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| {
            format!("{error}; write SQL, or {{\"query\": …, \"row_limit\": …, \"timeout_ms\": …}}")
        })?
    } else {
        Ask {
            query: text.to_string(),
            format: None,
            row_limit: None,
            timeout_ms: None,
        }
    };
    if ask.query.trim().is_empty() {
        return Err("the body has no query; send SQL, or {\"query\": SQL}".to_string());
    }
    Ok(Sql {
        query: ask.query,
        format: ask.format.unwrap_or(SqlFormat::Jsonl),
        row_limit: ask.row_limit,
        timeout_ms: ask.timeout_ms,
    })
}
