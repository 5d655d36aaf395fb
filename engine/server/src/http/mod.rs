//! The HTTP door: SQL as JSON lines, and looking at topics, pipelines and the node.
//!
//! Called by: `node`. Calls: `service::Rooms`. Routes:
//! `POST /v1/sql` · `GET /v1/topics[/NAME]` · `GET /v1/pipelines[/NAME]` · `GET /v1/status` ·
//! `GET /healthz`
//! Invariants: read-only; every refusal is `{"error": {code, message, advice}}` with a fitting
//! status; an error after rows were sent is the last line; bodies are bounded.
//! Refuses: on a loopback address, requests for another host (a page in a browser that has the
//! name of some site point here must not read our data).

mod error;
mod seats;
mod sql;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use protocol::{WireError, code};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::topic::{description_json, info_json};
use crate::service::Rooms;
use error::Refusal;
use seats::Seats;

/// Largest request body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What open requests get when the node stops.
const STOP: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} for HTTP: {error}; choose another address with --http")]
pub struct HttpError {
    addr: SocketAddr,
    error: std::io::Error,
}

/// An open HTTP door.
pub struct Http {
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Takes the port, so that one in use is known before anything else is started.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| HttpError { addr, error })
}

impl Http {
    /// Serves at most `seats` connections at a time.
    pub fn open(listener: TcpListener, rooms: Arc<Rooms>, seats: usize) -> std::io::Result<Http> {
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let ended = stop.clone().cancelled_owned();
        let app = routes(rooms, addr);
        let listener = Seats::new(listener, seats);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app)
                .with_graceful_shutdown(ended)
                .await
            {
                tracing::error!("the HTTP door closed: {error}");
            }
        });
        Ok(Http { addr, stop, task })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes nothing new and waits a while for what is open.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP, &mut self.task).await.is_err() {
            tracing::warn!("HTTP requests were still open when the door closed");
            self.task.abort();
        }
    }
}

fn routes(rooms: Arc<Rooms>, addr: SocketAddr) -> Router {
    Router::new()
        .route("/v1/sql", post(sql::query))
        .route("/v1/topics", get(topics))
        .route("/v1/topics/{name}", get(topic))
        .route("/v1/pipelines", get(pipelines))
        .route("/v1/pipelines/{name}", get(pipeline))
        .route("/v1/status", get(status))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|request: Request| async move {
            let message = format!(
                "there is no {} here; see `rustmq serve --help`",
                request.uri()
            );
            Refusal(WireError::fix(code::NOT_FOUND, message))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_string());
            let message = format!("{path} does not take {method}; SQL is POST, all else GET");
            error::method_not_allowed(message)
        })
        .layer(axum::middleware::from_fn_with_state(addr, check_host))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(rooms)
}

async fn check_host(State(addr): State<SocketAddr>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok());
    if addr.ip().is_loopback() && !host.is_none_or(is_this_machine) {
        let message = "this door listens on the loopback address; ask it as localhost";
        return Refusal(WireError::fix(code::INVALID, message)).into_response();
    }
    next.run(request).await
}

fn is_this_machine(host: &str) -> bool {
    if let Ok(addr) = host.parse::<SocketAddr>() {
        return addr.ip().is_loopback();
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn json(value: serde_json::Value) -> Response {
    axum::Json(value).into_response()
}

async fn topics(State(rooms): State<Arc<Rooms>>) -> Response {
    let topics: Vec<_> = rooms.topic_list().topics.iter().map(info_json).collect();
    json(serde_json::json!({ "topics": topics }))
}

async fn topic(
    State(rooms): State<Arc<Rooms>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let found = rooms.topic_describe(&name).map_err(Refusal)?;
    Ok(json(description_json(&found)))
}

async fn pipelines(State(rooms): State<Arc<Rooms>>) -> Response {
    json(serde_json::json!({ "pipelines": rooms.pipeline_list().pipelines }))
}

async fn pipeline(
    State(rooms): State<Arc<Rooms>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let found = rooms.pipeline_describe(&name).map_err(Refusal)?;
    serde_json::to_value(&found)
        .map(json)
        .map_err(|error| Refusal(crate::service::reply::bug(error)))
}

async fn status(State(rooms): State<Arc<Rooms>>) -> Response {
    json(rooms.status_json())
}
