//! The QUIC way in: one connection per client, many streams on it.
//!
//! What: accepts connections and their streams, one session task per stream.
//! Called by: `Door`. Invariants: TLS 1.3 only, no early data (it could be replayed); bounded
//! connections, streams and windows; a connection that ends takes only its own streams along.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::io::{FrameReader, FrameWriter};
use protocol::limits;
use quinn::crypto::rustls::QuicServerConfig;
use tokio::sync::OwnedSemaphorePermit;

use super::reset::{ConnectionIds, ResetKey};
use super::session::Session;
use super::{DoorConfig, Hall, Peer, Transport};

pub(super) fn endpoint(
    config: &DoorConfig,
    tls: Arc<rustls::ServerConfig>,
    reset: ResetKey,
    socket: UdpSocket,
) -> io::Result<quinn::Endpoint> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = client::quic::transport();
    let idle = config.quic_idle.try_into().map_err(io::Error::other)?;
    transport.max_idle_timeout(Some(idle));
    transport.max_concurrent_bidi_streams(config.streams_max.into());
    transport.max_concurrent_uni_streams(0u32.into());
    server.transport_config(Arc::new(transport));
    server.migration(false);
    let mut endpoint = quinn::EndpointConfig::new(Arc::new(reset));
    endpoint.cid_generator(|| Box::<ConnectionIds>::default());
    client::quic::endpoint(&mut endpoint);
    quinn::Endpoint::new(
        endpoint,
        Some(server),
        socket,
        Arc::new(quinn::TokioRuntime),
    )
}

pub(super) async fn accept(hall: Arc<Hall>, endpoint: quinn::Endpoint) {
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = hall.stop.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        match Arc::clone(&hall.connections).try_acquire_owned() {
            Ok(permit) => {
                hall.tasks
                    .spawn(connection(Arc::clone(&hall), incoming, permit));
            }
            Err(_) => {
                tracing::warn!(peer = %incoming.remote_address(), "connection refused: too many");
                incoming.refuse();
            }
        }
    }
}

async fn connection(hall: Arc<Hall>, incoming: quinn::Incoming, _permit: OwnedSemaphorePermit) {
    let addr = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(hall.config.handshake, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%addr, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%addr, "handshake took too long"),
    };
    let peer = Peer {
        addr,
        transport: Transport::Quic,
        connection: hall.connection_next.fetch_add(1, Ordering::Relaxed),
        stop: hall.stop.clone(),
    };
    let greeted = Arc::new(AtomicBool::new(false));
    let streams = tokio_util::task::TaskTracker::new();
    let first = tokio::time::sleep(hall.config.first_frame);
    tokio::pin!(first);
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    let session = Session::new(
                        Arc::clone(&hall),
                        peer.clone(),
                        FrameReader::new(receive, first_bytes_max(&hall)),
                        FrameWriter::quic(send),
                        Arc::clone(&greeted),
                    );
                    streams.spawn(session.run(None));
                }
                Err(error) => {
                    tracing::debug!(%addr, %error, "connection ended");
                    break;
                }
            },
            () = &mut first, if !greeted.load(Ordering::Relaxed) => {
                connection.close(1u32.into(), b"no greeting came in time");
                break;
            }
            () = hall.stop.cancelled() => break,
        }
    }
    streams.close();
    tokio::select! {
        () = streams.wait() => {}
        () = hall.kill.cancelled() => {}
    }
    connection.close(0u32.into(), b"server is stopping");
}

fn first_bytes_max(hall: &Hall) -> usize {
    limits::FIRST_FRAME_BYTES_MAX.min(hall.config.frame_bytes_max)
}
