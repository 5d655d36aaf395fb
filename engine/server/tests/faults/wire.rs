//! Bytes that no honest client sends, straight to the door.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use bytes::Bytes;
use client::io::{FrameReader, FrameWriter, ReadError};
use client::{Channel, Client, ClientConfig, ProducerConfig, Record, Transport};
use model::{Batch, Codec, Lookup, PartitionId, RowsBuilder};
use protocol::{Advice, FetchMany, Hello, Produce, Request, Response, Want};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt;

use crate::bad_input::answers;
use crate::support::{Server, World, wait};

fn batch(values: &[&str]) -> Batch {
    let mut rows = RowsBuilder::new();
    for value in values {
        rows.push(1, None, Some(value.as_bytes()), &[]);
    }
    Batch::encode(&rows.finish(), Codec::None, None).unwrap()
}

/// A frame as any client would send it.
fn produce(partition: PartitionId, batch: Batch) -> Vec<u8> {
    let request = Request::from(Produce { partition, batch });
    request.encode(7).unwrap().to_bytes().to_vec()
}

async fn append(channel: &Channel, partition: PartitionId, value: &str) {
    let batch = batch(&[value]);
    let answer = channel.send(Produce { partition, batch }).await.unwrap();
    answer.await.unwrap();
}

/// A client that says what it wants: TLS over TCP, then bytes.
struct Raw {
    reader: FrameReader,
    writer: FrameWriter,
}

impl Raw {
    async fn connect(world: &World, server: &Server) -> Raw {
        let stream = tls(world, server).await;
        let (receive, send) = tokio::io::split(stream);
        let reader = FrameReader::new(receive, protocol::limits::FRAME_BYTES_MAX);
        let mut raw = Raw {
            reader,
            writer: FrameWriter::io(send),
        };
        let hello = Request::from(Hello::new("raw")).encode(0).unwrap();
        assert!(matches!(
            raw.ask(hello.to_bytes()).await,
            Ok(Some(Response::Welcome(_)))
        ));
        raw
    }

    async fn send(&mut self, bytes: Bytes) -> std::io::Result<()> {
        let FrameWriter::Io(to) = &mut self.writer else {
            unreachable!("it was made over TCP")
        };
        to.write_all(&bytes).await?;
        to.flush().await
    }

    /// Bytes there, an answer back; `None` when the server hangs up.
    async fn ask(&mut self, bytes: Bytes) -> Result<Option<Response>, ReadError> {
        self.send(bytes).await?;
        let frame = self.reader.next().await?;
        Ok(frame.map(|frame| Response::decode(&frame).unwrap()))
    }
}

async fn tls(
    world: &World,
    server: &Server,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(world.path("data/tls/cert.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol::ALPN.to_vec()];
    let stream = tokio::net::TcpStream::connect(&server.quic).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

fn native(world: &World, transport: Transport) -> ClientConfig {
    ClientConfig {
        state_dir: Some(world.path("state/rustmq")),
        environment: false,
        transport,
        ..ClientConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_bytes_hurt_only_their_sender() {
    let world = World::new();
    let mut server = world.serve();
    let config = native(&world, Transport::Quic);
    let bystander = Client::connect(config).await.unwrap();
    let spec = model::TopicSpec::default();
    let topic = bystander.topic_create("t", spec, false).await.unwrap();
    let partition = PartitionId { topic, index: 0 };
    let channel = bystander.channel().await.unwrap();
    append(&channel, partition, "a").await;

    flipped_bytes(&world, &server, partition).await;
    too_large_by_hand(&world, &server, partition).await;
    too_large_for_the_client(&bystander, partition).await;
    let mut raw = Raw::connect(&world, &server).await;
    let answer = raw.ask(Bytes::from_static(&[0xff; 64])).await;
    let is_refused = !matches!(&answer, Ok(Some(fine)) if !matches!(fine, Response::Error(_)));
    assert!(
        is_refused,
        "a frame that says it is larger than any: {answer:?}"
    );
    noise(&server);

    // neither the bystander's stream nor anything else noticed
    append(&channel, partition, "z").await;
    let tcp = native(&world, Transport::Tcp);
    let tcp = Client::connect(tcp).await.unwrap();
    let described = tcp.topic("t").await.unwrap();
    let end = tcp.lookup(partition, Lookup::Latest).await.unwrap();
    assert_eq!(described.partitions[0].end, end);
    let values = world.run(&["consume", "t", "--format", "raw"]).ok().out;
    assert_eq!(values, "a\nflip me\ny\nz\n");
    tokio::task::block_in_place(|| answers(&world, &mut server));
    server.stop();
}

/// Long polls under way.
fn waiting(server: &Server) -> u64 {
    let (code, page) = tokio::task::block_in_place(|| server.http("GET /v1/status", ""));
    assert_eq!(code, 200, "{page}");
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    page["broker"]["fetches_waiting"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_end_with_their_peer() {
    let world = World::new();
    let server = world.serve();
    let is_waiting = |polls| {
        let server = &server;
        move || (waiting(server) == polls).then_some(())
    };
    let client = native(&world, Transport::Quic);
    let client = Client::connect(client).await.unwrap();
    let spec = model::TopicSpec::default();
    let topic = client.topic_create("t", spec, true).await.unwrap();
    let want = Want {
        partition: PartitionId { topic, index: 0 },
        from: 0,
    };
    let many = FetchMany {
        wants: vec![want; 100],
        bytes_max: 1,
        wait_ms: 30_000,
    };
    let channel = client.channel().await.unwrap();
    let _answer = channel.send(many.clone()).await.unwrap();
    wait::until("the poll of a QUIC client", is_waiting(1));
    client.close().await;
    wait::until("its end", is_waiting(0));

    let mut raw = Raw::connect(&world, &server).await;
    let many = Request::from(many).encode(1).unwrap();
    raw.send(many.to_bytes()).await.unwrap();
    wait::until("the poll of a TCP client", is_waiting(1));
    drop(raw);
    wait::until("its end", is_waiting(0));
    server.stop();
}

/// Every byte of a batch counts, wherever it is hit.
async fn flipped_bytes(world: &World, server: &Server, partition: PartitionId) {
    let whole = produce(partition, batch(&["flip me"]));
    let body = whole.len() - batch(&["flip me"]).size();
    for at in [body, body + 8, body + 40, body + 90, whole.len() - 9] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let mut raw = Raw::connect(world, server).await;
        match raw.ask(flipped.into()).await {
            Ok(Some(Response::Error(error))) => {
                assert_eq!(error.advice, Advice::Fix, "byte {at}: {error}");
                assert!(error.message.contains("batch"), "byte {at}: {error}");
            }
            // base offset, epoch and append time are the server's to stamp: not checked
            Ok(Some(Response::Produced(_))) if at == body + 8 => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

/// Two records of 5 MiB become one of 10 MiB, with the checksum put right: no client of ours
/// encodes that, the server must see it.
async fn too_large_by_hand(world: &World, server: &Server, partition: PartitionId) {
    let half = 5u32 << 20;
    let value = "x".repeat(half as usize);
    let mut frame = produce(partition, batch(&[&value, &value]));
    let offsets = |middle: u32| [0, middle, 2 * half].map(u32::to_le_bytes).concat();
    let (honest, forged) = (offsets(half), offsets(2 * half));
    let at = frame.windows(12).position(|bytes| bytes == honest).unwrap();
    frame[at..at + 12].copy_from_slice(&forged);
    let start = frame.len() - batch(&[&value, &value]).size();
    // the checksum stands at 32 and covers all from 36 on
    let crc = crc32c::crc32c(&frame[start + 36..]);
    frame[start + 32..start + 36].copy_from_slice(&crc.to_le_bytes());
    let mut raw = Raw::connect(world, server).await;
    let answer = raw.ask(frame.into()).await;
    let Ok(Some(Response::Error(error))) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(error.advice, Advice::Fix, "{error}");
    for part in ["10485760", "8388608"] {
        assert!(error.message.contains(part), "{error}");
    }
    // and the same connection is still good
    let answer = raw.ask(produce(partition, batch(&["y"])).into()).await;
    assert!(
        matches!(answer, Ok(Some(Response::Produced(_)))),
        "{answer:?}"
    );
}

/// The client refuses what the server would.
async fn too_large_for_the_client(client: &Client, partition: PartitionId) {
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    let large = Record::value(vec![b'x'; (8 << 20) + 1]);
    let error = producer.send("t", large).await.unwrap_err();
    let said = (error.error.code(), error.error.advice());
    assert_eq!(said, ("too-large", Advice::Fix), "{error}");
    assert!(error.to_string().contains("8388608"), "{error}");
    let (missing, batch) = (
        PartitionId {
            index: 9,
            ..partition
        },
        batch(&["x"]),
    );
    let error = client
        .call(Produce {
            partition: missing,
            batch,
        })
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.advice()),
        ("not-found", Advice::Fix),
        "{error}"
    );
}

/// Neither TLS nor QUIC.
fn noise(server: &Server) {
    let mut plain = TcpStream::connect(&server.quic).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let addr: SocketAddr = server.quic.parse().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [1, 20, 500, 1400] {
        for byte in [0xa5, 0x41, 0xff] {
            udp.send_to(&vec![byte; size], addr).unwrap();
        }
    }
}
