//! The TCP way in, for networks without UDP: one TLS connection is one ordered stream.
//!
//! What: accepts connections, one session each. Called by: `Door`.
//! Invariants: TLS 1.3 only; the handshake has a deadline; an accept that fails (no file
//! descriptors, say) is waited out, never fatal; when all seats are taken a few more peers at a
//! time are let in to be told so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::io::{FrameReader, FrameWriter};
use protocol::{WireError, code, limits};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use super::session::Session;
use super::{Hall, Peer, Transport};

/// A failing accept is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn accept(hall: Arc<Hall>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = hall.stop.cancelled() => break,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let seat = match Arc::clone(&hall.connections).try_acquire_owned() {
            Ok(permit) => Seat::Served(permit),
            Err(_) => match Arc::clone(&hall.refusals).try_acquire_owned() {
                Ok(permit) => Seat::Refused(permit),
                Err(_) => {
                    tracing::debug!(peer = %addr, "connection dropped: too many");
                    continue;
                }
            },
        };
        let (hall, acceptor) = (Arc::clone(&hall), acceptor.clone());
        let tasks = hall.tasks.clone();
        tasks.spawn(connection(hall, stream, addr, acceptor, seat));
    }
}

/// What a connection is let in for.
enum Seat {
    Served(OwnedSemaphorePermit),
    /// To be told that there is no room.
    Refused(OwnedSemaphorePermit),
}

async fn connection(
    hall: Arc<Hall>,
    stream: TcpStream,
    addr: SocketAddr,
    acceptor: TlsAcceptor,
    seat: Seat,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%addr, %error, "cannot set nodelay");
    }
    let handshake = tokio::time::timeout(hall.config.handshake, acceptor.accept(stream));
    let handshaken = tokio::select! {
        handshaken = handshake => handshaken,
        () = hall.stop.cancelled() => return,
    };
    let stream = match handshaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%addr, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%addr, "handshake took too long"),
    };
    let peer = Peer {
        addr,
        transport: Transport::Tcp,
        connection: hall.connection_next.fetch_add(1, Ordering::Relaxed),
        stop: hall.stop.clone(),
    };
    let (receive, send) = tokio::io::split(stream);
    let bytes_max = limits::FIRST_FRAME_BYTES_MAX.min(hall.config.frame_bytes_max);
    let idle = hall.config.tcp_idle;
    let session = Session::new(
        hall,
        peer,
        FrameReader::new(receive, bytes_max),
        FrameWriter::io(send),
        Arc::new(AtomicBool::new(false)),
    );
    let (session, _permit) = match seat {
        Seat::Served(permit) => (session, permit),
        Seat::Refused(permit) => {
            tracing::debug!(peer = %addr, "connection refused: too many");
            let message = "the server has no room for another connection; try again later";
            let error = WireError::retry(code::OVERLOADED, message);
            (session.refusing(error), permit)
        }
    };
    session.run(Some(idle)).await;
}
