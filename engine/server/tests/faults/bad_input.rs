//! What users and clients get wrong: each is told what, where and what to do, with the right
//! exit code, and the server answers as before.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use bytes::Bytes;
use client::io::{FrameReader, FrameWriter, ReadError};
use client::{Client, ClientConfig, ProducerConfig, Record, Transport};
use model::{Batch, Codec, Lookup, PartitionId, RowsBuilder};
use protocol::{Advice, Hello, Produce, Request, Response, TopicDescribe};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt;

use crate::support::{Server, World};

/// A pipeline that is right; the table below says what is done to it.
const GOOD: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: p }
topics:
  raw: { partitions: 2, value: { codec: json, schema: { id: int64, euros: float64 } } }
  clean: { partitions: 2, value: json }
  bad: { partitions: 1, value: raw }
policy:
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: raw, start: earliest }
  known: { kind: filter, inputs: [in], where: \"id is not null and euros > 0\" }
  out: { kind: sink, inputs: [known], topic: clean }
";

fn answers(world: &World, server: &mut Server) {
    assert!(server.is_running());
    assert_eq!(world.run(&["sql", "select 1 as one"]).ok().out, "one\n1\n");
}

#[test]
fn pipeline_files() {
    let world = World::new();
    let mut server = world.serve();
    let check = |from: &str, to: &str, place: &str, message: &str| {
        assert!(GOOD.contains(from), "{from}");
        world.write("p.yaml", GOOD.replacen(from, to, 1));
        let wanted = format!("p.yaml:{place}: error: {message}");
        for verb in ["apply", "plan", "lint"] {
            // what needs the catalog is for the server to say
            if verb == "lint" && message.starts_with("no topic") {
                continue;
            }
            world.run(&["pipeline", verb, "p.yaml"]).fails(1, &wanted);
        }
        world
            .run(&["topic", "describe", "raw"])
            .fails(1, "does not exist");
    };
    check(
        "policy:",
        "polcy:",
        "8:1",
        "unknown key `polcy` in a pipeline (did you mean `policy`?)",
    );
    check(
        "filter,",
        "filter, colour: red,",
        "12:26",
        "unknown key `colour` in filter `known`",
    );
    check(
        "2, value: json",
        "two, value: json",
        "6:24",
        "`partitions` of topic `clean` is a whole number",
    );
    check(
        "[in]",
        "in2",
        "12:34",
        "`inputs` of filter `known` is a list, not the text \"in2\"",
    );
    check("[in]", "[known]", "12:35", "cycle: known -> known");
    check(
        "[known]",
        "[known.late]",
        "13:31",
        "input `known.late` of `out`: `known` has no output `late`",
    );
    check(
        "[known]",
        "[knwon]",
        "13:31",
        "input `knwon` of `out`: no node `knwon` (did you mean `known`?)",
    );
    check(
        "topic: clean",
        "topic: claen",
        "13:46",
        "no topic `claen` (did you mean `clean`?)",
    );
    check(
        "topic: raw,",
        "topic: rwa,",
        "11:30",
        "no topic `rwa` (did you mean `raw`?)",
    );
    check(
        "letter: bad",
        "letter: bda",
        "9:36",
        "no topic `bda` (did you mean `bad`?)",
    );
    check(
        "euros > 0",
        "euros >",
        "12:74",
        "expected: an expression, found: EOF",
    );
    check(
        "euros > 0",
        "eurso > 0",
        "12:67",
        "unknown column `eurso`: did you mean `euros`?",
    );
    check(
        "euros > 0",
        "nofunc(euros)",
        "12:67",
        "unknown function `nofunc`",
    );
    check(
        "earliest",
        "yesterday",
        "11:42",
        "`start` is `earliest`, `latest` or a time such as",
    );
    check(
        "v1alpha1",
        "v9",
        "1:13",
        "`apiVersion` is `rustmq/v1alpha1` here, not `rustmq/v9`",
    );
    check(
        "name: p",
        "name: ../p",
        "3:19",
        "pipeline name `../p` has '.' at position 1",
    );
    check(
        "  clean:",
        "  ../x:",
        "6:3",
        "topic name `../x` has '/' at position 3",
    );
    check(
        "id: int64",
        "id: int65",
        "5:55",
        "field `id` has type `int65`; the types are bool, int64",
    );
    check(
        "  bad:",
        "  clean:",
        "7:3",
        "key `clean` is here twice, first in line 6",
    );
    check("metadata: {", "metadata: [", "4:1", "not YAML");
    let wasm = "kind: wasm, inputs: [in], module: nope }";
    let filter = "kind: filter, inputs: [in], where: \"id is not null and euros > 0\" }";
    check(
        filter,
        wasm,
        "12:46",
        "no module `nope` (declare it under `modules`)",
    );
    // all errors at once, in the order of the file: of its form, then of its meaning
    let both = |one: (&str, &str), other: (&str, &str), places: [&str; 2]| {
        let text = GOOD.replace(one.0, one.1).replace(other.0, other.1);
        world.write("p.yaml", text);
        let said = world.run(&["pipeline", "lint", "p.yaml"]);
        let at = places.map(|place| said.err.find(&format!("p.yaml:{place}: error: ")));
        assert!(at[0].is_some() && at[0] < at[1], "{places:?}: {}", said.err);
    };
    both(
        ("earliest", "soon"),
        ("filter,", "filter, colour: red,"),
        ["11:42", "12:26"],
    );
    both(
        ("euros > 0", "euros >"),
        ("[known]", "[known.late]"),
        ["12:74", "13:31"],
    );
    // warnings among them are not errors, also when they come first
    world.write("p.yaml", GOOD.replace("[known]", "[knwon]"));
    let said = world
        .run(&["pipeline", "lint", "p.yaml"])
        .fails(1, "p.yaml:13:31: error:");
    assert!(
        said.err.starts_with("p.yaml:12:3: warning:"),
        "{}",
        said.err
    );
    answers(&world, &mut server);
    world.write("p.yaml", GOOD);
    world.run(&["pipeline", "apply", "p.yaml"]).ok();
    server.stop();
}

#[test]
fn sql_neither_writes_nor_reads_files() {
    let world = World::new();
    let mut server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    world.run_with_input(&["produce", "t"], b"one\n").ok();
    let secret = world.write("secret.csv", "a,b\nhidden,2\n");
    let out = world.path("out").display().to_string();
    let reads = "SQL only reads here; use `rustmq topic`, `rustmq produce` or `rustmq pipeline`";
    let check = |query: &str, message: &str| {
        let query = query.replace("SECRET", &secret).replace("OUT", &out);
        let said = world.run(&["sql", &query]).fails(1, message);
        assert!(
            said.err.starts_with("error: ") && said.out.is_empty(),
            "{query}: {}",
            said.err
        );
        assert!(!said.err.contains("hidden"), "{query}: {}", said.err);
        let (status, body) = server.http("POST /v1/sql", &query);
        assert!(
            status == 400 && !body.contains("hidden"),
            "{query}: {status} {body}"
        );
        assert!(!world.path("out").exists(), "{query}");
    };
    check(
        "create external table x stored as csv location 'SECRET'",
        "CREATE EXTERNAL TABLE is not possible",
    );
    check(
        "create external table x stored as parquet location '/etc/passwd'",
        reads,
    );
    check("create table x as select * from t", reads);
    check("create view x as select * from t", reads);
    check("copy t to 'OUT'", "COPY is not possible");
    check("copy (select 1) to 'OUT' stored as parquet", reads);
    check("explain analyze copy t to 'OUT'", reads);
    check("insert into t values (1)", "INSERT INTO is not possible");
    check("insert overwrite t select * from t", reads);
    check("update t set _key = null", reads);
    check("delete from t", reads);
    check("drop table t", reads);
    check("truncate table t", reads);
    check("set datafusion.execution.batch_size = 1", reads);
    check("prepare p as select 1", reads);
    check("begin", reads);
    check("select 1; copy t to 'OUT'", "one statement at a time");
    check(
        "with x as (insert into t values (1) returning *) select * from x",
        "INSERT",
    );
    check("select * from '/etc/passwd'", "unknown topic `/etc/passwd`");
    check("select * from 'SECRET'", "unknown topic");
    check("select * from \"SECRET\"", "unknown topic");
    check("select * from \"file:///etc/passwd\"", "unknown topic");
    check(
        "select * from read_csv('SECRET')",
        "unknown topic `read_csv`",
    );
    check(
        "select * from read_parquet('SECRET')",
        "unknown topic `read_parquet`",
    );
    check("select * from glob('/etc/*')", "unknown topic `glob`");
    check("select pg_read_file('SECRET')", "function 'pg_read_file'");
    check("select * from tt", "did you mean `t`?");
    check("select _valeu from t", "did you mean `_value`?");
    check("selct 1", "found: selct");
    answers(&world, &mut server);
    assert_eq!(
        world.run(&["sql", "select count(*) as n from t"]).ok().out,
        "n\n1\n"
    );
    server.stop();
}

#[test]
fn names_flags_and_large_records() {
    let world = World::new();
    let mut server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    let check = |args: &[&str], code: i32, message: &str| {
        world.run(args).fails(code, message);
    };
    for command in ["create", "describe", "delete"] {
        check(
            &["topic", command, "../x"],
            1,
            "topic name `../x` has '/' at position 3",
        );
    }
    check(
        &["consume", "../x"],
        1,
        "topic name `../x` has '/' at position 3",
    );
    check(
        &["produce", "../x"],
        1,
        "topic name `../x` has '/' at position 3",
    );
    check(&["topic", "create", &"x".repeat(250)], 1, "249");
    check(&["topic", "create", ""], 1, "empty");
    check(
        &["consume", "t", "--folow"],
        2,
        "a similar argument exists: '--follow'",
    );
    check(
        &["topic", "create", "x", "--partitons", "3"],
        2,
        "a similar argument exists: '--partitions'",
    );
    check(
        &["sql", "--fromat", "csv", "select 1"],
        2,
        "a similar argument exists: '--format'",
    );
    check(&["pipeline", "aply", "p.yaml"], 2, "'apply'");
    check(
        &["serve", "--data-dri", "x"],
        2,
        "a similar argument exists: '--data-dir'",
    );
    check(&["group", "describe", "nobody"], 1, "nobody");
    check(&["group", "describe", "_pipeline.x"], 1, "_");
    let mut large = b"first\n".to_vec();
    large.resize(9 << 20, b'x');
    let said = world.run_with_input(&["produce", "t", "--format", "raw"], &large);
    let said = said.fails(1, "<stdin>:2: the record is larger than 8388608 bytes");
    assert!(
        said.err.contains("1 record acknowledged by t"),
        "{}",
        said.err
    );
    assert!(!world.path("x").exists() && !world.dir.path().parent().unwrap().join("x").exists());
    answers(&world, &mut server);
    server.stop();
}

fn batch(values: &[&str]) -> Batch {
    let mut rows = RowsBuilder::new();
    for value in values {
        rows.push(1, None, Some(value.as_bytes()), &[]);
    }
    Batch::encode(&rows.finish(), Codec::None, None).unwrap()
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

    /// Bytes there, an answer back; `None` when the server hangs up.
    async fn ask(&mut self, bytes: Bytes) -> Result<Option<Response>, ReadError> {
        let FrameWriter::Io(to) = &mut self.writer else {
            unreachable!("it was made over TCP")
        };
        to.write_all(&bytes).await?;
        to.flush().await?;
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
async fn the_wire() {
    let world = World::new();
    let mut server = world.serve();
    let bystander = Client::connect(native(&world, Transport::Quic))
        .await
        .unwrap();
    let topic = bystander
        .topic_create("t", model::TopicSpec::default(), false)
        .await
        .unwrap();
    let partition = PartitionId { topic, index: 0 };
    let channel = bystander.channel().await.unwrap();
    channel
        .send(Produce {
            partition,
            batch: batch(&["a"]),
        })
        .await
        .unwrap()
        .await
        .unwrap();

    // every byte of the batch counts, wherever it is hit
    let whole = Request::from(Produce {
        partition,
        batch: batch(&["flip me"]),
    })
    .encode(7)
    .unwrap()
    .to_bytes();
    let body = whole.len() - batch(&["flip me"]).size();
    for at in [body, body + 8, body + 40, body + 90, whole.len() - 9] {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 0x10;
        let mut raw = Raw::connect(&world, &server).await;
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
    // a frame that says it is larger than any may be, garbage inside and outside of TLS
    let mut raw = Raw::connect(&world, &server).await;
    let answer = raw.ask(Bytes::from_static(&[0xff; 64])).await;
    assert!(
        !matches!(answer, Ok(Some(ref fine)) if !matches!(fine, Response::Error(_))),
        "{answer:?}"
    );
    let mut plain = TcpStream::connect(&server.quic).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let addr: SocketAddr = server.quic.parse().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [1, 20, 500, 1400] {
        udp.send_to(&vec![0xa5; size], addr).unwrap();
        udp.send_to(&vec![0x41; size], addr).unwrap();
    }
    large_records(&bystander, partition).await;

    // neither the bystander's stream nor anything else noticed
    channel
        .send(Produce {
            partition,
            batch: batch(&["z"]),
        })
        .await
        .unwrap()
        .await
        .unwrap();
    let tcp = Client::connect(native(&world, Transport::Tcp))
        .await
        .unwrap();
    let described = tcp
        .call(TopicDescribe {
            name: "t".to_owned(),
        })
        .await
        .unwrap();
    let end = tcp.lookup(partition, Lookup::Latest).await.unwrap();
    assert_eq!(described.partitions[0].end, end);
    let values = world.run(&["consume", "t", "--format", "raw"]).ok().out;
    assert!(
        values.starts_with("a\n") && values.ends_with("z\n"),
        "{values}"
    );
    tokio::task::block_in_place(|| answers(&world, &mut server));
    server.stop();
}

/// The client refuses what the server would.
async fn large_records(client: &Client, partition: PartitionId) {
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    let large = Record::value(vec![b'x'; (8 << 20) + 1]);
    let error = producer.send("t", large).await.unwrap_err();
    assert_eq!(
        (error.error.code(), error.error.advice()),
        ("too-large", Advice::Fix),
        "{error}"
    );
    assert!(error.to_string().contains("8388608"), "{error}");
    let missing = PartitionId {
        index: 9,
        ..partition
    };
    let error = client
        .call(Produce {
            partition: missing,
            batch: batch(&["x"]),
        })
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.advice()),
        ("not-found", Advice::Fix),
        "{error}"
    );
    producer.send("t", Record::value("y")).await.unwrap();
    producer.flush().await.unwrap();
}
