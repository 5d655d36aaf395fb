//! Where the server is and whom to trust there.
//!
//! What: `ClientConfig` and its way to a `Target`: flag, else environment, else state folder.
//! Called by: `client` at every connect and reconnect, so that a restarted server is found.
//! Refuses: a server for which no certificate is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ConnectError;
use crate::state::{ServerState, state_dir};
use crate::tls::Trust;

pub const PORT_DEFAULT: u16 = 7420;

/// Which way to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// QUIC, and TCP where that does not get through.
    #[default]
    Auto,
    Quic,
    Tcp,
}

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `HOST:PORT`; else `RUSTMQ_SERVER`; else what the state folder says.
    pub server: Option<String>,
    /// PEM file; else `RUSTMQ_CA`; else the certificate in the state folder.
    pub ca: Option<PathBuf>,
    pub transport: Transport,
    /// For finding, reaching and greeting the server together.
    pub connect_timeout: Duration,
    /// Else the user's own.
    pub state_dir: Option<PathBuf>,
    /// Whether `RUSTMQ_SERVER` and `RUSTMQ_CA` count.
    pub environment: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            server: None,
            ca: None,
            transport: Transport::Auto,
            connect_timeout: Duration::from_millis(protocol::limits::CONNECT_MS),
            state_dir: None,
            environment: true,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// As the user would write it.
    pub server: String,
    /// The name that its certificate must carry.
    pub host: String,
    pub addr: SocketAddr,
    pub trust: Trust,
}

impl ClientConfig {
    /// For a server whose address and certificate file are known: tests, embedded nodes.
    pub fn at(server: impl Into<String>, ca: impl Into<PathBuf>) -> ClientConfig {
        let (server, ca) = (Some(server.into()), Some(ca.into()));
        ClientConfig {
            server,
            ca,
            environment: false,
            ..ClientConfig::default()
        }
    }

    fn env(&self, name: &str) -> Option<String> {
        let value = self.environment.then(|| std::env::var(name).ok()).flatten();
        value.filter(|value| !value.is_empty())
    }

    pub(crate) async fn target(&self) -> Result<Target, ConnectError> {
        let server = self.server.clone().or_else(|| self.env("RUSTMQ_SERVER"));
        let ca = self
            .ca
            .clone()
            .or_else(|| self.env("RUSTMQ_CA").map(PathBuf::from));
        let dir = self.state_dir.clone().unwrap_or_else(state_dir);
        let pinned =
            |state: &ServerState| Trust::pinned(&state.certificate_pem, &state.certificate_path);
        let (server, trust) = match (server, ca) {
            (Some(server), Some(ca)) => (server, Trust::ca_file(&ca)?),
            (None, Some(ca)) => (ServerState::read(&dir)?.quic, Trust::ca_file(&ca)?),
            (None, None) => {
                let state = ServerState::read(&dir)?;
                let trust = pinned(&state)?;
                (state.quic, trust)
            }
            (Some(server), None) => match ServerState::read(&dir) {
                Ok(state) if is_same_server(&server, &state.quic) => {
                    let trust = pinned(&state)?;
                    (server, trust)
                }
                _ => return Err(ConnectError::NoCertificate { server }),
            },
        };
        resolve(server, trust).await
    }
}

async fn resolve(server: String, trust: Trust) -> Result<Target, ConnectError> {
    let bad = |reason: &str| ConnectError::Address {
        server: server.clone(),
        reason: reason.to_owned(),
    };
    let (host, port) = host_and_port(&server).ok_or_else(|| bad("no host or a bad port"))?;
    let host = host.to_owned();
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let addr = found.map_err(|error| bad(&error.to_string()))?.next();
    let addr = reachable(addr.ok_or_else(|| bad("the name has no address"))?);
    Ok(Target {
        server,
        host,
        addr,
        trust,
    })
}

/// `HOST:PORT`, `HOST`, `[V6]:PORT`, `V6`.
fn host_and_port(server: &str) -> Option<(&str, u16)> {
    if let Ok(IpAddr::V6(_)) = server.parse() {
        return Some((server, PORT_DEFAULT));
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (server, PORT_DEFAULT),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty() && port != 0).then_some((host, port))
}

/// A server bound to every address is reached over the loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Whether an address given by hand means the server of the state folder.
fn is_same_server(given: &str, known: &str) -> bool {
    let Some((host, port)) = host_and_port(given) else {
        return false;
    };
    let Ok(known) = known.parse::<SocketAddr>() else {
        return given == known;
    };
    if port != known.port() {
        return false;
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => ip == known.ip() || (ip.is_loopback() && known.ip().is_unspecified()),
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: &str, expected: Option<(&str, u16)>) {
        assert_eq!(host_and_port(server), expected, "{server}");
    }

    #[test]
    fn addresses() {
        check("127.0.0.1:7420", Some(("127.0.0.1", 7420)));
        check("broker.example", Some(("broker.example", 7420)));
        check("[::1]:99", Some(("::1", 99)));
        check("::1", Some(("::1", 7420)));
        check("host:", None);
        check(":7420", None);
        check("host:0", None);
        check("host:70000", None);
        assert_eq!(
            reachable("0.0.0.0:5".parse().unwrap()),
            "127.0.0.1:5".parse().unwrap()
        );
    }

    #[test]
    fn a_known_server_by_another_name() {
        assert!(is_same_server("localhost:7420", "127.0.0.1:7420"));
        assert!(is_same_server("127.0.0.1", "0.0.0.0:7420"));
        assert!(!is_same_server("127.0.0.1:1", "127.0.0.1:7420"));
        assert!(!is_same_server("10.0.0.1:7420", "127.0.0.1:7420"));
    }

    #[tokio::test]
    async fn without_a_certificate_nothing_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let config = ClientConfig {
            server: Some("127.0.0.1:7420".into()),
            state_dir: Some(dir.path().to_owned()),
            environment: false,
            ..ClientConfig::default()
        };
        let error = config.target().await.unwrap_err();
        assert!(
            matches!(error, ConnectError::NoCertificate { .. }),
            "{error}"
        );
    }
}
