//! The way to one server: a QUIC connection, or TCP connections made as streams are asked for.
//!
//! What: connects (QUIC first, TCP when that does not get through), greets, opens streams.
//! Called by: `client`. Invariants: everything up to the greeting fits into the connect timeout;
//! a certificate that is not the expected one ends the attempt at once, on either way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::limits;
use protocol::{Hello, Request, Response};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{Target, Transport};
use crate::error::ConnectError;
use crate::io::{FrameReader, FrameWriter};
use crate::quic;

/// How long QUIC is alone before TCP is tried beside it.
const QUIC_HEAD_START: Duration = Duration::from_millis(400);
/// How long QUIC still counts once TCP is there or refused.
const QUIC_GRACE: Duration = Duration::from_millis(600);

/// How long a goodbye may take to leave; the server notices a lost one by silence.
const GOODBYE: Duration = Duration::from_millis(20);

pub(crate) type Halves = (FrameReader, FrameWriter);

pub(crate) enum Link {
    Quic {
        connection: quinn::Connection,
        endpoint: quinn::Endpoint,
    },
    Tcp {
        target: Target,
        tls: Arc<rustls::ClientConfig>,
        timeout: Duration,
    },
}

impl Link {
    pub(crate) async fn connect(
        target: Target,
        transport: Transport,
        timeout: Duration,
    ) -> Result<Link, ConnectError> {
        let deadline = Instant::now() + timeout;
        let tls = target
            .trust
            .config()
            .map_err(|error| ConnectError::Certificate {
                server: target.server.clone(),
                reason: error.to_string(),
            })?;
        let quic = connect_quic(&target, &tls, deadline);
        let tcp = async {
            // A first stream shows that the way is open; each later one is made the same way.
            open_tcp(&target, &tls, deadline).await?;
            Ok(Link::Tcp {
                target: target.clone(),
                tls: Arc::clone(&tls),
                timeout,
            })
        };
        match transport {
            Transport::Quic => quic.await,
            Transport::Tcp => tcp.await,
            Transport::Auto => race(quic, tcp).await,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Link::Quic { connection, .. } => connection.close_reason().is_none(),
            Link::Tcp { .. } => true,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Link::Quic { .. } => "quic",
            Link::Tcp { .. } => "tcp",
        }
    }

    /// A fresh ordered stream.
    pub(crate) async fn open(&self) -> Result<Halves, ConnectError> {
        match self {
            Link::Quic { connection, .. } => {
                let (send, receive) = connection.open_bi().await.map_err(|error| {
                    let server = connection.remote_address().to_string();
                    ConnectError::Unreachable {
                        server,
                        reason: error.to_string(),
                    }
                })?;
                Ok(quic_halves(send, receive))
            }
            Link::Tcp {
                target,
                tls,
                timeout,
            } => open_tcp(target, tls, Instant::now() + *timeout).await,
        }
    }
}

impl Link {
    /// Tells the server that we go, and lets that leave this process.
    pub(crate) async fn close(&self) {
        if let Link::Quic {
            connection,
            endpoint,
        } = self
        {
            connection.close(0u32.into(), b"client is done");
            // Lost or late goodbyes are made up for by the server's idle timeout.
            let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Link::Quic { connection, .. } = self {
            connection.close(0u32.into(), b"client is done");
        }
    }
}

fn quic_halves(send: quinn::SendStream, receive: quinn::RecvStream) -> Halves {
    (
        FrameReader::new(receive, limits::FRAME_BYTES_MAX),
        FrameWriter::quic(send),
    )
}

/// QUIC with a head start; TCP wins only where QUIC does not get through.
async fn race(
    quic: impl Future<Output = Result<Link, ConnectError>>,
    tcp: impl Future<Output = Result<Link, ConnectError>>,
) -> Result<Link, ConnectError> {
    tokio::pin!(quic, tcp);
    let early = tokio::time::timeout(QUIC_HEAD_START, &mut quic).await;
    match early {
        Ok(Ok(link)) => return Ok(link),
        Ok(Err(error @ (ConnectError::Certificate { .. } | ConnectError::Refused { .. }))) => {
            return Err(error);
        }
        Ok(Err(_)) => return tcp.await,
        Err(_) => {}
    }
    tokio::select! {
        first = &mut quic => match first {
            Err(ConnectError::Unreachable { .. }) => tcp.await,
            settled => settled,
        },
        second = &mut tcp => match tokio::time::timeout(QUIC_GRACE, &mut quic).await {
            Ok(Ok(link)) => Ok(link),
            _ => second,
        },
    }
}

fn unreachable(target: &Target, reason: impl ToString) -> ConnectError {
    ConnectError::Unreachable {
        server: target.server.clone(),
        reason: reason.to_string(),
    }
}

async fn connect_quic(
    target: &Target,
    tls: &Arc<rustls::ClientConfig>,
    deadline: Instant,
) -> Result<Link, ConnectError> {
    let any = match target.addr {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    let crypto = QuicClientConfig::try_from(Arc::clone(tls))
        .expect("ring has the cipher suite that QUIC's first packets use");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config()));
    let endpoint = endpoint(any).map_err(|error| unreachable(target, error))?;
    let connecting = endpoint
        .connect_with(config, target.addr, &target.host)
        .map_err(|error| unreachable(target, error))?;
    let connection = match timeout_at(deadline, connecting).await {
        Err(_) => return Err(unreachable(target, "no answer over QUIC")),
        Ok(Err(error)) => return Err(quic_error(target, error)),
        Ok(Ok(connection)) => connection,
    };
    let (send, receive) = connection
        .open_bi()
        .await
        .map_err(|error| unreachable(target, error))?;
    let halves = quic_halves(send, receive);
    let link = Link::Quic {
        connection,
        endpoint,
    };
    timeout_at(deadline, greet(target, halves))
        .await
        .map_err(|_| unreachable(target, "no answer to the greeting"))??;
    Ok(link)
}

fn endpoint(any: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let mut config = quinn::EndpointConfig::default();
    quic::endpoint(&mut config);
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(config, None, quic::socket(any)?, runtime)
}

fn transport_config() -> quinn::TransportConfig {
    let mut config = quic::transport();
    let idle = Duration::from_millis(limits::IDLE_MS);
    config.max_idle_timeout(Some(idle.try_into().expect("half a minute fits")));
    config.keep_alive_interval(Some(Duration::from_millis(limits::KEEP_ALIVE_MS)));
    config.max_concurrent_bidi_streams(0u32.into());
    config.max_concurrent_uni_streams(0u32.into());
    config
}

fn quic_error(target: &Target, error: quinn::ConnectionError) -> ConnectError {
    // QUIC carries TLS alerts as error codes 0x100 to 0x1ff (RFC 9001, 4.8).
    if let quinn::ConnectionError::TransportError(error) = &error
        && (0x100..0x200).contains(&u64::from(error.code))
    {
        let reason = error.reason.clone();
        return ConnectError::Certificate {
            server: target.server.clone(),
            reason,
        };
    }
    unreachable(target, error)
}

async fn open_tcp(
    target: &Target,
    tls: &Arc<rustls::ClientConfig>,
    deadline: Instant,
) -> Result<Halves, ConnectError> {
    let name =
        ServerName::try_from(target.host.clone()).map_err(|error| ConnectError::Address {
            server: target.server.clone(),
            reason: error.to_string(),
        })?;
    let attempt = async {
        let stream = TcpStream::connect(target.addr)
            .await
            .map_err(|e| unreachable(target, e))?;
        // Frames are flushed as a whole: waiting for more would only add delay.
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(target, error))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|e| tls_error(target, e))?;
        let (receive, send) = tokio::io::split(stream);
        let reader = FrameReader::new(receive, limits::FRAME_BYTES_MAX);
        greet(target, (reader, FrameWriter::io(send))).await
    };
    timeout_at(deadline, attempt)
        .await
        .map_err(|_| unreachable(target, "no answer over TCP"))?
}

fn tls_error(target: &Target, error: std::io::Error) -> ConnectError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(inner @ rustls::Error::InvalidCertificate(_)) => ConnectError::Certificate {
            server: target.server.clone(),
            reason: inner.to_string(),
        },
        _ => unreachable(target, error),
    }
}

/// Says hello on a fresh stream and gives it back.
async fn greet(target: &Target, halves: Halves) -> Result<Halves, ConnectError> {
    let (mut reader, mut writer) = halves;
    let lost = |reason: String| unreachable(target, reason);
    let hello = Hello::new(concat!("rustmq-client ", env!("CARGO_PKG_VERSION")));
    let frame = Request::from(hello)
        .encode(0)
        .expect("a greeting fits into a frame");
    writer
        .write(frame)
        .await
        .map_err(|error| lost(error.to_string()))?;
    writer
        .flush()
        .await
        .map_err(|error| lost(error.to_string()))?;
    let frame = reader
        .next()
        .await
        .map_err(|error| lost(error.to_string()))?;
    let frame = frame.ok_or_else(|| lost("the server closed the connection".to_owned()))?;
    match Response::decode(&frame) {
        Ok(Response::Welcome(_)) => Ok((reader, writer)),
        Ok(Response::Error(error)) => Err(ConnectError::Refused {
            server: target.server.clone(),
            error,
        }),
        Ok(_) => Err(lost("something else than a greeting came back".to_owned())),
        Err(error) => Err(lost(error.to_string())),
    }
}
