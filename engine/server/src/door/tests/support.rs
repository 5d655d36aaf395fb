//! A door with a made-up service behind it, and clients for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::io::{FrameReader, FrameWriter};
use client::state::ServerState;
use client::{Client, ClientConfig, Transport};
use model::batch::Batch;
use model::ids::{Offset, PartitionId, ProducerId, ShardEpoch, TopicId};
use model::partition::{Admission, ProducerTable};
use model::port::{Bounds, BoxFuture, Lookup as At};
use model::topic::{Topic, TopicSpec};
use protocol::*;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::door::state_dir::Announced;
use crate::door::tls::Identity;
use crate::door::{Door, DoorConfig, Peer, Reply, Service};

pub const BOTH: [Transport; 2] = [Transport::Quic, Transport::Tcp];

/// A folder with a certificate; doors are opened on it.
pub struct Rig {
    pub dir: TempDir,
    pub identity: Identity,
}

impl Rig {
    pub fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(&dir.path().join("tls")).unwrap();
        Rig { dir, identity }
    }

    pub fn config() -> DoorConfig {
        DoorConfig::new("127.0.0.1:0".parse().unwrap())
    }

    pub async fn open(&self, service: &Arc<impl Service>) -> Door {
        self.open_with(Rig::config(), service).await
    }

    pub async fn open_with(&self, config: DoorConfig, service: &Arc<impl Service>) -> Door {
        let service: Arc<dyn Service> = Arc::clone(service) as _;
        Door::open(config, &self.identity, service).await.unwrap()
    }

    pub fn client_config(&self, door: &Door, transport: Transport) -> ClientConfig {
        let certificate = &self.identity.certificate_path;
        ClientConfig {
            transport,
            ..ClientConfig::at(door.addr().to_string(), certificate)
        }
    }

    pub async fn client(&self, door: &Door, transport: Transport) -> Client {
        Client::connect(self.client_config(door, transport))
            .await
            .unwrap()
    }

    /// Says in this rig's state folder where the door is.
    pub fn announce(&self, door: &Door) -> Announced {
        let state = ServerState {
            pid: std::process::id(),
            quic: door.addr().to_string(),
            http: "127.0.0.1:1".to_owned(),
            certificate_path: self.identity.certificate_path.clone(),
            certificate_pem: self.identity.certificate_pem.clone(),
            data_dir: self.dir.path().to_owned(),
        };
        Announced::write(&self.dir.path().join("state"), state).unwrap()
    }

    /// Finds the server by the state folder alone.
    pub fn found_config(&self, transport: Transport) -> ClientConfig {
        let state_dir = Some(self.dir.path().join("state"));
        ClientConfig {
            state_dir,
            environment: false,
            transport,
            ..ClientConfig::default()
        }
    }

    /// A TLS stream as someone else's client would open it.
    pub async fn raw_tcp(&self, door: &Door) -> (FrameReader, FrameWriter) {
        let connector = tokio_rustls::TlsConnector::from(self.raw_tls());
        let stream = tokio::net::TcpStream::connect(door.addr()).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let (read, write) = tokio::io::split(connector.connect(name, stream).await.unwrap());
        (
            FrameReader::new(read, limits::FRAME_BYTES_MAX),
            FrameWriter::io(write),
        )
    }

    pub async fn raw_quic(&self, door: &Door) -> (quinn::Endpoint, quinn::Connection) {
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(self.raw_tls()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint
            .connect_with(config, door.addr(), "localhost")
            .unwrap();
        let connection = connecting.await.unwrap();
        (endpoint, connection)
    }

    fn raw_tls(&self) -> Arc<rustls::ClientConfig> {
        use rustls::pki_types::pem::PemObject;
        let pem = self.identity.certificate_pem.as_bytes();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(pem).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Arc::new(config)
    }
}

pub async fn greet(reader: &mut FrameReader, writer: &mut FrameWriter) {
    let reply = ask(reader, writer, Hello::new("test").into(), 0).await;
    assert!(matches!(reply, Response::Welcome(_)), "{reply:?}");
}

pub async fn ask(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    request: Request,
    correlation: u64,
) -> Response {
    writer
        .write(request.encode(correlation).unwrap())
        .await
        .unwrap();
    writer.flush().await.unwrap();
    let frame = reader.next().await.unwrap().expect("a reply");
    assert_eq!(frame.correlation, correlation);
    Response::decode(&frame).unwrap()
}

/// Answers by a closure, counting the calls.
pub struct Scripted<F> {
    answer: F,
    pub calls: watch::Sender<usize>,
}

impl<F> Scripted<F> {
    pub fn new(answer: F) -> Arc<Scripted<F>> {
        Arc::new(Scripted {
            answer,
            calls: watch::Sender::new(0),
        })
    }

    pub async fn called(&self, times: usize) {
        self.calls
            .subscribe()
            .wait_for(|calls| *calls >= times)
            .await
            .unwrap();
    }
}

impl<F> Service for Scripted<F>
where
    F: Fn(&Peer, Request) -> BoxFuture<'static, Reply> + Send + Sync + 'static,
{
    fn call(&self, peer: &Peer, request: Request) -> BoxFuture<'static, Reply> {
        let answer = (self.answer)(peer, request);
        self.calls.send_modify(|calls| *calls += 1);
        answer
    }
}

/// What happens to one produce request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Refused for now, not written.
    Refuse,
    /// Written, but the answer says otherwise.
    LoseAck,
    /// Written, and no answer ever comes: the stream breaks.
    Break,
}

/// Partitions in memory with the broker's rules for producers.
pub struct FakeLog {
    pub partitions: u32,
    state: Mutex<State>,
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<u32, Log>,
    faults: VecDeque<Fault>,
    /// What a partition answers instead of records, one fetch each.
    refusals: BTreeMap<u32, VecDeque<WireError>>,
    producers: u64,
}

#[derive(Default)]
struct Log {
    table: ProducerTable,
    batches: Vec<Batch>,
    end: Offset,
}

impl FakeLog {
    pub fn new(partitions: u32, faults: impl IntoIterator<Item = Fault>) -> Arc<FakeLog> {
        let state = State {
            faults: faults.into_iter().collect(),
            ..State::default()
        };
        Arc::new(FakeLog {
            partitions,
            state: Mutex::new(state),
            moved: watch::Sender::new(0),
        })
    }

    /// Refuses fetches of a partition, one with each.
    pub fn refuse(&self, index: u32, errors: impl IntoIterator<Item = WireError>) {
        let mut state = self.state.lock().unwrap();
        state.refusals.entry(index).or_default().extend(errors);
    }

    /// The values of a partition, in order.
    pub fn values(&self, index: u32) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let batches = state
            .logs
            .get(&index)
            .map(|log| log.batches.clone())
            .unwrap_or_default();
        let rows: Vec<_> = batches.iter().map(|batch| batch.rows().unwrap()).collect();
        let value = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        rows.iter()
            .flat_map(|rows| rows.values.iter())
            .map(|v| value(v.unwrap()))
            .collect()
    }

    fn produce(&self, ask: Produce) -> Result<Produced, Option<WireError>> {
        let mut state = self.state.lock().unwrap();
        let fault = state.faults.pop_front().unwrap_or(Fault::None);
        let refusal = WireError::retry(code::UNAVAILABLE, "made up");
        if fault == Fault::Refuse {
            return Err(Some(refusal));
        }
        let log = state.logs.entry(ask.partition.index).or_default();
        let producer = ask
            .batch
            .producer()
            .expect("producers number their batches");
        let (base, duplicate) = match log.table.admit(producer, ask.batch.len()) {
            Admission::New => {
                let base = log.end;
                log.table.record(producer, ask.batch.len(), base);
                let batch = ask.batch.stamped(base, ShardEpoch(0), 1);
                log.end = batch.next_offset();
                log.batches.push(batch);
                (base, false)
            }
            Admission::Duplicate { base_offset } => (base_offset, true),
            refused => {
                return Err(Some(WireError::fenced(
                    code::OUT_OF_ORDER,
                    format!("{refused:?}"),
                )));
            }
        };
        self.moved.send_modify(|moved| *moved += 1);
        match fault {
            Fault::LoseAck => Err(Some(refusal)),
            Fault::Break => Err(None),
            _ => Ok(Produced {
                base_offset: base,
                append_time_us: 1,
                duplicate,
            }),
        }
    }

    fn bounds(&self, index: u32) -> Bounds {
        let state = self.state.lock().unwrap();
        Bounds {
            start: 0,
            end: state.logs.get(&index).map_or(0, |log| log.end),
        }
    }

    /// Two batches, a refusal, or nothing.
    fn read(&self, want: &Want) -> Option<Part> {
        let (partition, index) = (want.partition, want.partition.index);
        let bounds = self.bounds(index);
        let mut state = self.state.lock().unwrap();
        let refusal = state.refusals.get_mut(&index).and_then(VecDeque::pop_front);
        if let Some(error) = refusal {
            let outcome = Err(error);
            return Some(Part { partition, outcome });
        }
        let wanted = |batch: &&Batch| batch.next_offset() > want.from;
        let batches = state.logs.get(&index)?.batches.iter().filter(wanted);
        let batches: Vec<Batch> = batches.take(2).cloned().collect();
        let outcome = Ok(Fetched { bounds, batches });
        let is_some = outcome.as_ref().is_ok_and(|f| !f.batches.is_empty());
        is_some.then_some(Part { partition, outcome })
    }

    fn describe(&self, name: String) -> TopicDescription {
        let spec = TopicSpec {
            partitions: self.partitions,
            ..TopicSpec::default()
        };
        let info = |index| {
            let Bounds { start, end } = self.bounds(index);
            PartitionInfo {
                index,
                start,
                end,
                shard: None,
                epoch: None,
            }
        };
        let partitions = (0..self.partitions).map(info).collect();
        TopicDescription {
            topic: Topic::new(TopicId(7), name, spec),
            partitions,
        }
    }

    pub fn answer(self: &Arc<Self>, request: Request) -> BoxFuture<'static, Reply> {
        let one = |response: Response| -> BoxFuture<'static, Reply> {
            Box::pin(std::future::ready(Reply::One(response)))
        };
        match request {
            Request::Produce(ask) => match self.produce(ask) {
                Ok(produced) => one(produced.into()),
                Err(Some(error)) => one(Response::Error(error)),
                // A service that dies takes its stream along.
                Err(None) => Box::pin(async { panic!("made up: the stream breaks here") }),
            },
            Request::FetchMany(ask) => {
                let log = Arc::clone(self);
                Box::pin(async move {
                    let mut moved = log.moved.subscribe();
                    let wait = Duration::from_millis(ask.wait_ms.into());
                    let deadline = Instant::now() + wait;
                    loop {
                        let parts: Vec<_> =
                            ask.wants.iter().filter_map(|want| log.read(want)).collect();
                        let is_over = !parts.is_empty()
                            || timeout_at(deadline, moved.changed()).await.is_err();
                        if is_over {
                            return Reply::One(FetchedMany { parts }.into());
                        }
                    }
                })
            }
            Request::ProducerOpen(_) => {
                let mut state = self.state.lock().unwrap();
                state.producers += 1;
                one(ProducerOpened {
                    id: ProducerId(state.producers),
                    epoch: 0,
                }
                .into())
            }
            Request::TopicDescribe(ask) => one(self.describe(ask.name).into()),
            Request::Lookup(Lookup { partition, at }) => {
                let Bounds { start, end } = self.bounds(partition.index);
                let offset = if at == At::Latest { end } else { start };
                one(Found { offset }.into())
            }
            other => one(Response::Error(WireError::bug(format!(
                "{other:?} is not made up"
            )))),
        }
    }
}

/// A log as a service.
pub struct FakeBroker(pub Arc<FakeLog>);

impl Service for FakeBroker {
    fn call(&self, _peer: &Peer, request: Request) -> BoxFuture<'static, Reply> {
        self.0.answer(request)
    }
}

pub fn partition(index: u32) -> PartitionId {
    PartitionId {
        topic: TopicId(7),
        index,
    }
}
