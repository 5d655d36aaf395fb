//! What connections do: certificates, limits, stopping, being found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::state::ServerState;
use client::{Client, ClientConfig, ClientError, ConnectError, Transport};
use model::port::BoxFuture;
use protocol::*;
use tokio::sync::Notify;

use super::support::{BOTH, Rig, Scripted};
use crate::door::tls::{Identity, TlsError};
use crate::door::{DoorConfig, Peer, Reply};

fn report() -> Reply {
    Reply::One(
        StatusReport {
            status: "fine".into(),
        }
        .into(),
    )
}

fn fine(_: &Peer, _: Request) -> BoxFuture<'static, Reply> {
    Box::pin(std::future::ready(report()))
}

#[tokio::test]
async fn both_ways_lead_to_the_same_service() {
    let rig = Rig::new();
    let door = rig.open(&Scripted::new(fine)).await;
    for (transport, expected) in [
        (Transport::Quic, "quic"),
        (Transport::Tcp, "tcp"),
        (Transport::Auto, "quic"),
    ] {
        let client = rig.client(&door, transport).await;
        assert_eq!(client.transport().await, expected);
        assert_eq!(client.call(Status {}).await.unwrap().status, "fine");
    }
}

#[tokio::test]
async fn tcp_is_the_way_where_udp_does_not_get_through() {
    let rig = Rig::new();
    let service = Scripted::new(fine);
    let door = rig.open(&service).await;
    // The same port number, where nobody answers UDP; it is free for both, or chosen again.
    let (listener, _deaf) = loop {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(deaf) = std::net::UdpSocket::bind(listener.local_addr().unwrap()) {
            break (listener, deaf);
        }
    };
    let addr = listener.local_addr().unwrap();
    let to = door.addr();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let mut to = tokio::net::TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let config = ClientConfig::at(addr.to_string(), &rig.identity.certificate_path);
    let client = Client::connect(config).await.unwrap();
    assert_eq!(client.transport().await, "tcp");
    assert_eq!(client.call(Status {}).await.unwrap().status, "fine");
}

#[tokio::test]
async fn another_certificate_is_refused() {
    let (rig, other) = (Rig::new(), Rig::new());
    let door = rig.open(&Scripted::new(fine)).await;
    let _announced = other.announce(&door);
    for transport in [Transport::Quic, Transport::Tcp, Transport::Auto] {
        let named = ClientConfig {
            transport,
            ..ClientConfig::at(door.addr().to_string(), &other.identity.certificate_path)
        };
        for config in [named, other.found_config(transport)] {
            let error = Client::connect(config).await.err().expect("refused");
            assert!(
                matches!(error, ConnectError::Certificate { .. }),
                "{transport:?}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_missed_in_time() {
    let rig = Rig::new();
    let door = rig.open(&Scripted::new(fine)).await;
    let configs = [Transport::Quic, Transport::Tcp, Transport::Auto]
        .map(|transport| rig.client_config(&door, transport));
    door.stop().await;
    for config in configs {
        let (transport, began) = (config.transport, Instant::now());
        let error = Client::connect(config)
            .await
            .err()
            .expect("nobody is there");
        assert!(
            matches!(error, ConnectError::Unreachable { .. }),
            "{transport:?}: {error}"
        );
        assert!(
            began.elapsed() < Duration::from_millis(3_300),
            "{transport:?}"
        );
    }
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight() {
    for transport in BOTH {
        let rig = Rig::new();
        let release = Arc::new(Notify::new());
        let held = Arc::clone(&release);
        let service = Scripted::new(move |peer: &Peer, _: Request| {
            let (release, stop) = (Arc::clone(&held), peer.stop.clone());
            Box::pin(async move {
                // The door is stopping when this goes on.
                stop.cancelled().await;
                release.notified().await;
                report()
            }) as BoxFuture<'static, Reply>
        });
        let door = rig.open(&service).await;
        let client = rig.client(&door, transport).await;
        let asking = tokio::spawn(async move { client.call(Status {}).await });
        service.called(1).await;
        let ((), answer) = tokio::join!(door.stop(), async {
            release.notify_one();
            asking.await.unwrap()
        });
        assert_eq!(answer.unwrap().status, "fine", "{transport:?}");
    }
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_dropped() {
    for transport in BOTH {
        let rig = Rig::new();
        let service = Scripted::new(|_: &Peer, _: Request| {
            Box::pin(std::future::pending()) as BoxFuture<'static, Reply>
        });
        let config = DoorConfig {
            stop: Duration::from_millis(20),
            ..Rig::config()
        };
        let door = rig.open_with(config, &service).await;
        let client = rig.client(&door, transport).await;
        let asking = tokio::spawn(async move { client.call(Status {}).await });
        service.called(1).await;
        door.stop().await;
        let error = asking.await.unwrap().unwrap_err();
        assert!(
            matches!(error, ClientError::Disconnected(_)),
            "{transport:?}: {error}"
        );
        assert_eq!(error.advice(), Advice::Retry);
    }
}

#[tokio::test]
async fn connections_are_counted() {
    let rig = Rig::new();
    let config = DoorConfig {
        connections_max: 1,
        ..Rig::config()
    };
    let door = rig.open_with(config, &Scripted::new(fine)).await;
    let first = rig.client(&door, Transport::Quic).await;
    for transport in BOTH {
        let config = ClientConfig {
            connect_timeout: Duration::from_millis(500),
            ..rig.client_config(&door, transport)
        };
        let error = Client::connect(config)
            .await
            .err()
            .expect("one is the limit");
        let is_told = match &error {
            ConnectError::Refused { error, .. } => error.code == code::OVERLOADED,
            error => {
                transport == Transport::Quic && matches!(error, ConnectError::Unreachable { .. })
            }
        };
        assert!(is_told && error.is_passing(), "{transport:?}: {error}");
    }
    assert_eq!(first.call(Status {}).await.unwrap().status, "fine");
}

#[tokio::test]
async fn local_clients_find_the_server_and_notice_when_it_is_gone() {
    let rig = Rig::new();
    let door = rig.open(&Scripted::new(fine)).await;
    let announced = rig.announce(&door);
    let found = rig.found_config(Transport::Auto);
    let client = Client::connect(found.clone()).await.unwrap();
    assert_eq!(client.call(Status {}).await.unwrap().status, "fine");
    // Named by hand, it is still the server whose certificate is known.
    let by_hand = ClientConfig {
        server: Some(door.addr().to_string()),
        ..found.clone()
    };
    assert!(Client::connect(by_hand).await.is_ok());

    let path = rig.dir.path().join("state/server.json");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!fs::read_to_string(&path).unwrap().contains("PRIVATE KEY"));
    announced.remove();
    let error = Client::connect(found)
        .await
        .err()
        .expect("nothing is announced");
    assert!(matches!(error, ConnectError::NoServer { .. }), "{error}");
}

#[tokio::test]
async fn a_server_takes_away_only_what_is_its_own() {
    let rig = Rig::new();
    let door = rig.open(&Scripted::new(fine)).await;
    let first = rig.announce(&door);
    let path = rig.dir.path().join("state/server.json");
    let mut other: ServerState = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    other.pid = 1;
    fs::write(&path, serde_json::to_string(&other).unwrap()).unwrap();
    first.remove();
    assert!(path.exists());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let rig = Rig::new();
    let service = Scripted::new(fine);
    let door = rig.open(&service).await;
    let taken = DoorConfig::new(door.addr());
    let opened = crate::door::Door::open(taken, &rig.identity, service as _).await;
    let error = opened.err().expect("the port is taken").to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {}: ", door.addr())),
        "{error}"
    );
}

#[test]
fn the_certificate_is_made_once_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let first = Identity::open(&tls).unwrap();
    let key = tls.join("key.pem");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        Identity::open(&tls).unwrap().certificate_pem,
        first.certificate_pem
    );

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        Identity::open(&tls),
        Err(TlsError::Open { mode: 0o644, .. })
    ));
    fs::remove_file(&key).unwrap();
    assert!(matches!(Identity::open(&tls), Err(TlsError::Half { missing }) if missing == key));
    fs::write(&key, "nonsense").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(
        Identity::open(&tls),
        Err(TlsError::Content { .. })
    ));
}
