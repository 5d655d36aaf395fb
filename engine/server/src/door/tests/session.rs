//! What one ordered stream does.

use std::sync::Arc;

use bytes::Bytes;
use client::io::{FrameReader, FrameWriter};
use client::{ClientError, Transport};
use futures::{StreamExt, stream};
use model::port::{BoxFuture, Lookup as At};
use protocol::frame::Flags;
use protocol::table::Call as _;
use protocol::*;
use tokio::sync::{Notify, Semaphore};

use super::support::{BOTH, Rig, Scripted, ask, greet, partition};
use crate::door::{Peer, Reply};

fn lookup(index: u32) -> Lookup {
    Lookup {
        partition: partition(index),
        at: At::Latest,
    }
}

fn found(offset: u64) -> Reply {
    Reply::One(Found { offset }.into())
}

fn index(request: &Request) -> u32 {
    match request {
        Request::Lookup(lookup) => lookup.partition.index,
        _ => 0,
    }
}

fn ready(reply: Reply) -> BoxFuture<'static, Reply> {
    Box::pin(std::future::ready(reply))
}

#[tokio::test]
async fn requests_run_together_and_are_answered_in_order() {
    for transport in BOTH {
        let rig = Rig::new();
        let second_called = Arc::new(Notify::new());
        let service = Scripted::new(move |_: &Peer, request: Request| {
            let (second_called, index) = (Arc::clone(&second_called), index(&request));
            if index == 1 {
                second_called.notify_one();
            }
            // The first is answered only once the second has arrived.
            let work = async move {
                if index == 0 {
                    second_called.notified().await;
                }
                found(index.into())
            };
            Box::pin(work) as BoxFuture<'static, Reply>
        });
        let door = rig.open(&service).await;
        let channel = rig.client(&door, transport).await.channel().await.unwrap();
        let first = channel.send(lookup(0)).await.unwrap();
        let second = channel.send(lookup(1)).await.unwrap();
        let mut answers = Vec::new();
        for answer in [first.await, second.await] {
            answers.push(Lookup::reply(answer.unwrap()).unwrap().offset);
        }
        assert_eq!(answers, [0, 1], "{transport:?}");
    }
}

#[tokio::test]
async fn a_stream_with_too_much_in_flight_is_not_read() {
    for transport in BOTH {
        let rig = Rig::new();
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let service = Scripted::new(move |_: &Peer, request: Request| {
            if matches!(request, Request::Status(_)) {
                return ready(Reply::One(
                    StatusReport {
                        status: true.into(),
                    }
                    .into(),
                ));
            }
            let gate = Arc::clone(&held);
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                found(0)
            })
        });
        let config = crate::door::DoorConfig {
            in_flight_max: 2,
            ..Rig::config()
        };
        let door = rig.open_with(config, &service).await;
        let client = rig.client(&door, transport).await;
        let channel = client.channel().await.unwrap();
        let mut pending = Vec::new();
        for i in 0..4 {
            pending.push(channel.send(lookup(i)).await.unwrap());
        }
        service.called(2).await;
        // Other streams go on; each answer shows that the server had time to read more.
        for _ in 0..5 {
            client.call(Status {}).await.unwrap();
        }
        assert_eq!(*service.calls.borrow(), 2 + 5, "{transport:?}");
        gate.add_permits(4);
        for answer in pending {
            answer.await.unwrap();
        }
        assert_eq!(*service.calls.borrow(), 4 + 5, "{transport:?}");
    }
}

/// The error in the last frame of a stream, and that nothing follows.
async fn last_error(mut reader: FrameReader) -> WireError {
    let frame = reader
        .next()
        .await
        .unwrap()
        .expect("an error before the end");
    let Response::Error(error) = Response::decode(&frame).unwrap() else {
        panic!("no error in {frame:?}");
    };
    assert!(
        reader.next().await.unwrap().is_none(),
        "the stream ends behind the error"
    );
    error
}

async fn send_raw(writer: &mut FrameWriter, bytes: &[u8]) {
    use tokio::io::AsyncWriteExt;
    match writer {
        FrameWriter::Quic(stream) => stream.write_all(bytes).await.unwrap(),
        FrameWriter::Io(stream) => {
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
    let rig = Rig::new();
    let service = Scripted::new(|_: &Peer, _: Request| ready(found(0)));
    let door = rig.open(&service).await;
    let (mut reader, mut writer) = rig.raw_tcp(&door).await;
    greet(&mut reader, &mut writer).await;
    send_raw(&mut writer, &u32::MAX.to_le_bytes()).await;
    send_raw(&mut writer, &[PROTOCOL_VERSION]).await;
    let error = last_error(reader).await;
    assert_eq!(error.code, code::BAD_FRAME);
    let max = limits::FRAME_BYTES_MAX;
    assert!(
        error
            .message
            .contains(&format!("{} bytes long, {max} is the limit", u32::MAX))
    );
    assert!(error.message.contains("offset "), "{}", error.message);
    assert_eq!(*service.calls.borrow(), 0);
}

#[tokio::test]
async fn garbage_ends_its_stream_and_no_other() {
    let rig = Rig::new();
    let service = Scripted::new(|_: &Peer, _: Request| ready(found(9)));
    let door = rig.open(&service).await;
    let (_endpoint, connection) = rig.raw_quic(&door).await;
    let open = async || {
        let (send, receive) = connection.open_bi().await.unwrap();
        let reader = FrameReader::new(receive, limits::FRAME_BYTES_MAX);
        (reader, FrameWriter::quic(send))
    };
    let (mut reader, mut writer) = open().await;
    greet(&mut reader, &mut writer).await;
    let (bad_reader, mut bad_writer) = open().await;
    send_raw(
        &mut bad_writer,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    let error = last_error(bad_reader).await;
    assert_eq!(error.code, code::UNSUPPORTED_VERSION);
    assert!(error.message.contains("offset 0 "), "{}", error.message);
    let answer = ask(&mut reader, &mut writer, lookup(0).into(), 5).await;
    assert!(
        matches!(answer, Response::Found(Found { offset: 9 })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_body_that_makes_no_sense_is_refused_and_the_stream_goes_on() {
    let rig = Rig::new();
    let service = Scripted::new(|_: &Peer, _: Request| ready(found(9)));
    let door = rig.open(&service).await;
    let (mut reader, mut writer) = rig.raw_tcp(&door).await;
    greet(&mut reader, &mut writer).await;
    // A Produce whose batch is damaged: the frame is fine, the checksum is not.
    let rows = {
        let mut rows = model::rows::RowsBuilder::new();
        rows.push(1, None, Some(b"value"), &[]);
        rows.finish()
    };
    let batch = model::batch::Batch::encode(&rows, model::batch::Codec::None, None).unwrap();
    let produce = Request::from(Produce {
        partition: partition(0),
        batch,
    });
    let mut bytes = produce.encode(3).unwrap().to_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 0xff;
    send_raw(&mut writer, &bytes).await;
    let frame = reader.next().await.unwrap().unwrap();
    assert_eq!(frame.correlation, 3);
    assert!(frame.flags.has(Flags::ERROR));
    let answer = ask(&mut reader, &mut writer, lookup(0).into(), 4).await;
    assert!(matches!(answer, Response::Found(_)), "{answer:?}");
    assert_eq!(*service.calls.borrow(), 1);
}

#[tokio::test]
async fn nothing_is_answered_before_a_greeting() {
    let rig = Rig::new();
    let service = Scripted::new(|_: &Peer, _: Request| ready(found(0)));
    let door = rig.open(&service).await;
    let (reader, mut writer) = rig.raw_tcp(&door).await;
    writer
        .write(Request::from(lookup(0)).encode(1).unwrap())
        .await
        .unwrap();
    writer.flush().await.unwrap();
    assert_eq!(last_error(reader).await.code, code::HELLO_FIRST);
    let (reader, mut writer) = rig.raw_tcp(&door).await;
    let hello = Hello {
        version_min: 7,
        version_max: 9,
        client: "tomorrow 2".to_owned(),
    };
    writer
        .write(Request::from(hello).encode(1).unwrap())
        .await
        .unwrap();
    writer.flush().await.unwrap();
    let error = last_error(reader).await;
    assert_eq!(error.code, code::UNSUPPORTED_VERSION);
    assert!(
        error
            .message
            .ends_with("tomorrow 2 speaks 7 to 9: update the server"),
        "{error}"
    );
    assert_eq!(*service.calls.borrow(), 0);
}

#[tokio::test]
async fn a_long_answer_comes_in_pieces_and_ends() {
    for transport in BOTH {
        let rig = Rig::new();
        let service = Scripted::new(|_: &Peer, request: Request| {
            let Request::Sql(sql) = request else {
                panic!("only queries are asked here")
            };
            let piece = |text: &'static str| {
                Response::from(SqlChunk {
                    text: Bytes::from(text),
                })
            };
            let mut pieces = vec![piece("a\n"), piece("b\n")];
            if sql.query == "bad" {
                pieces.push(Response::Error(WireError::fix(
                    code::INVALID,
                    "no such table",
                )));
                pieces.push(piece("never"));
            }
            ready(Reply::Many(stream::iter(pieces).boxed()))
        });
        let door = rig.open(&service).await;
        let client = rig.client(&door, transport).await;
        let good = client.sql("good", SqlFormat::Csv).await.unwrap();
        assert_eq!(good.text().await.unwrap(), "a\nb\n");
        let mut bad = client.sql("bad", SqlFormat::Csv).await.unwrap();
        assert_eq!(bad.next().await.unwrap().unwrap(), "a\n");
        assert_eq!(bad.next().await.unwrap().unwrap(), "b\n");
        let error = bad.next().await.unwrap_err();
        assert!(matches!(error, ClientError::Refused(_)), "{error}");
        assert!(bad.next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_long_poll_holds_up_only_its_own_stream() {
    for transport in BOTH {
        let rig = Rig::new();
        let service = Scripted::new(|_: &Peer, request: Request| match request {
            Request::Fetch(_) => Box::pin(std::future::pending()) as BoxFuture<'static, Reply>,
            _ => ready(found(1)),
        });
        let door = rig.open(&service).await;
        let client = rig.client(&door, transport).await;
        let polled = client.channel().await.unwrap();
        let fetch = Fetch {
            partition: partition(0),
            from: 0,
            bytes_max: 1,
            wait_ms: 1,
        };
        let waits = polled.send(fetch).await.unwrap();
        service.called(1).await;
        assert_eq!(client.call(lookup(0)).await.unwrap().offset, 1);
        // A stop does not wait for records that may never come.
        let (stopped, polled) = tokio::join!(door.stop(), waits);
        let () = stopped;
        assert_eq!(polled.unwrap_err().code(), code::STOPPING, "{transport:?}");
    }
}

#[tokio::test]
async fn refusals_carry_what_to_do() {
    let rig = Rig::new();
    let service = Scripted::new(|_: &Peer, _: Request| {
        let diagnostics = vec![model::diagnostic::Diagnostic::error(
            "p.yaml",
            3,
            5,
            "no such key",
        )];
        let error = WireError::fix(code::INVALID, "two mistakes").with(diagnostics);
        ready(Reply::One(Response::Error(error)))
    });
    let door = rig.open(&service).await;
    let client = rig.client(&door, Transport::Auto).await;
    let ClientError::Refused(error) = client.topics().await.unwrap_err() else {
        panic!()
    };
    assert_eq!(
        (error.code.as_str(), error.advice),
        (code::INVALID, Advice::Fix)
    );
    assert_eq!(
        error.diagnostics[0].to_string(),
        "p.yaml:3:5: error: no such key"
    );
}
