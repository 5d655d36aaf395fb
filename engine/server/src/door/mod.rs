//! The native door: QUIC, and TCP with TLS on the same port number, with the same frames.
//!
//! What: `Door::open` binds and serves a `Service`; `quic` and `tcp` accept, `session` works one
//! ordered stream, `tls` keeps the certificate, `state_dir` tells local clients where we are.
//! Called by: `node`. Invariants: both ways behave alike; every bound is in `protocol::limits`;
//! after `stop` nothing new is taken, and what was taken is finished or refused by the deadline.
//! Refuses: more connections or streams than allowed, peers without a greeting, bad frames.

mod quic;
mod reset;
mod session;
pub mod state_dir;
mod tcp;
#[cfg(test)]
mod tests;
pub mod tls;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::Stream;
use model::port::BoxFuture;
use protocol::{Request, Response, limits};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use tls::Identity;

/// Peers that are told at the same time that there is no room for them.
const REFUSALS_MAX: usize = 16;

/// What a door asks for everything but the greeting.
pub trait Service: Send + Sync + 'static {
    /// Begins to work on a request. Requests of one stream arrive here in their order, and
    /// whatever must keep that order (appending a batch) is decided before this returns or when
    /// the future is polled first, which the door does before the next call.
    fn call(&self, peer: &Peer, request: Request) -> BoxFuture<'static, Reply>;
}

/// The answer to one request.
pub enum Reply {
    One(Response),
    /// Ends with the stream, or early with its first `Response::Error`.
    Many(Pin<Box<dyn Stream<Item = Response> + Send>>),
}

impl<T: Into<Response>> From<Result<T, protocol::WireError>> for Reply {
    fn from(result: Result<T, protocol::WireError>) -> Reply {
        Reply::One(result.map_or_else(Response::Error, Into::into))
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Peer {
    pub addr: SocketAddr,
    pub transport: Transport,
    /// Counts the connections of a door.
    pub connection: u64,
    /// Cancelled when the door begins to stop: what waits for something to happen ends now.
    pub stop: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Quic,
    Tcp,
}

#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("cannot listen on {addr}: {error}; choose another address with --listen")]
    Bind { addr: SocketAddr, error: io::Error },
    #[error("certificate cannot be used: {0}")]
    Tls(#[from] tls::TlsError),
}

/// What may be set; tests use smaller bounds.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    pub listen: SocketAddr,
    /// Name and version, for the greeting.
    pub server: String,
    pub connections_max: usize,
    pub streams_max: u32,
    pub in_flight_max: usize,
    pub in_flight_bytes_max: usize,
    pub frame_bytes_max: usize,
    pub handshake: Duration,
    pub first_frame: Duration,
    pub frame: Duration,
    pub quic_idle: Duration,
    pub tcp_idle: Duration,
    /// What requests in flight get when the door stops.
    pub stop: Duration,
}

impl DoorConfig {
    pub fn new(listen: SocketAddr) -> DoorConfig {
        DoorConfig {
            listen,
            server: concat!("rustmq ", env!("CARGO_PKG_VERSION")).to_owned(),
            connections_max: limits::CONNECTIONS_MAX,
            streams_max: limits::STREAMS_MAX,
            in_flight_max: limits::IN_FLIGHT_MAX,
            in_flight_bytes_max: limits::IN_FLIGHT_BYTES_MAX,
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            handshake: Duration::from_millis(limits::HANDSHAKE_MS),
            first_frame: Duration::from_millis(limits::FIRST_FRAME_MS),
            frame: Duration::from_millis(limits::FRAME_MS),
            quic_idle: Duration::from_millis(limits::IDLE_MS),
            tcp_idle: Duration::from_millis(limits::TCP_IDLE_MS),
            stop: Duration::from_millis(limits::STOP_MS),
        }
    }
}

/// What both ways in share.
struct Hall {
    config: DoorConfig,
    service: Arc<dyn Service>,
    connections: Arc<Semaphore>,
    /// For those who come when all seats are taken.
    refusals: Arc<Semaphore>,
    connection_next: AtomicU64,
    /// Nothing new is taken.
    stop: CancellationToken,
    /// What is not finished is dropped.
    kill: CancellationToken,
    tasks: TaskTracker,
}

/// An open door. Dropping it closes without waiting; `stop` waits.
pub struct Door {
    addr: SocketAddr,
    hall: Arc<Hall>,
    endpoint: quinn::Endpoint,
}

impl Door {
    /// Listens for QUIC and TCP on one port number.
    pub async fn open(
        config: DoorConfig,
        identity: &Identity,
        service: Arc<dyn Service>,
    ) -> Result<Door, DoorError> {
        let tls = identity.server_config()?;
        let (listener, socket, addr) = bind(config.listen).await?;
        let endpoint = quic::endpoint(&config, Arc::clone(&tls), identity.reset_key(), socket)
            .map_err(|error| DoorError::Bind { addr, error })?;
        let hall = Arc::new(Hall {
            connections: Arc::new(Semaphore::new(config.connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            connection_next: AtomicU64::new(1),
            config,
            service,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        hall.tasks
            .spawn(quic::accept(Arc::clone(&hall), endpoint.clone()));
        hall.tasks
            .spawn(tcp::accept(Arc::clone(&hall), listener, tls));
        Ok(Door {
            addr,
            hall,
            endpoint,
        })
    }

    /// The address in use, the same for both ways.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes nothing new, finishes what is in flight within the deadline, closes.
    pub async fn stop(&self) {
        self.hall.stop.cancel();
        self.hall.tasks.close();
        let deadline = self.hall.config.stop;
        if tokio::time::timeout(deadline, self.hall.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                ?deadline,
                "requests were still in flight when the door closed"
            );
            self.hall.kill.cancel();
            self.hall.tasks.wait().await;
        }
        self.endpoint.close(0u32.into(), b"server has stopped");
        // The goodbye is sent by the endpoint's own task; a second is plenty for that.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.hall.stop.cancel();
        self.hall.kill.cancel();
        self.endpoint.close(0u32.into(), b"server has stopped");
    }
}

/// Finds a port that is free for both TCP and UDP.
async fn bind(addr: SocketAddr) -> Result<(TcpListener, UdpSocket, SocketAddr), DoorError> {
    const ATTEMPTS: usize = 16;
    let failed = |error| DoorError::Bind { addr, error };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        match client::quic::socket(bound) {
            Ok(socket) => return Ok((listener, socket, bound)),
            // With port 0, TCP's choice may be taken for UDP: choose again.
            Err(_) if addr.port() == 0 && attempt < ATTEMPTS => {}
            Err(error) => return Err(failed(error)),
        }
    }
}
