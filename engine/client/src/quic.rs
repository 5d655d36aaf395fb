//! What both ends of a QUIC connection are set to.
//!
//! What: sockets with deep buffers, datagrams as large as the path carries, windows.
//! Called by: `link`, the server's QUIC door. Invariants: every bound is in `protocol::limits`;
//! a path that carries no more than an Ethernet frame is found out by probes, which cost nothing
//! when they are lost.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use protocol::limits;
use quinn::{EndpointConfig, MtuDiscoveryConfig, TransportConfig};
use socket2::{Domain, Protocol, Socket, Type};

/// A UDP socket of either family at `addr`.
pub fn socket(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may allow less, which costs speed and nothing else.
    let _ = socket.set_recv_buffer_size(limits::SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(limits::SOCKET_BUFFER_BYTES);
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Takes datagrams as large as the other side may send.
pub fn endpoint(config: &mut EndpointConfig) {
    config
        .max_udp_payload_size(limits::DATAGRAM_BYTES_MAX)
        .expect("the largest datagram is within what QUIC allows");
}

/// Windows and datagram sizes; who may open streams is left to each side.
pub fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut probes = MtuDiscoveryConfig::default();
    probes.upper_bound(limits::DATAGRAM_BYTES_MAX);
    config.mtu_discovery_config(Some(probes));
    config.stream_receive_window(limits::STREAM_WINDOW_BYTES.into());
    config.receive_window(limits::CONNECTION_WINDOW_BYTES.into());
    config.send_window(limits::CONNECTION_WINDOW_BYTES.into());
    config.datagram_receive_buffer_size(None);
    config
}
