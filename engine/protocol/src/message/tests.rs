//! What is encoded decodes to the same; golden bytes; damaged bodies are refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::TopicChange;
use model::batch::{Batch, Codec, HEAD_LEN, Producer};
use model::diagnostic::Diagnostic;
use model::ids::{Digest, PartitionId, ProducerId, ShardEpoch, ShardId, TopicId};
use model::port::{Bounds, Lookup as At};
use model::rows::RowsBuilder;
use model::topic::{Topic, TopicSpec};
use proptest::prelude::*;
use serde_json::json;

use crate::frame::{Encoded, Frame, Frames};
use crate::*;

const PARTITION: PartitionId = PartitionId {
    topic: TopicId(3),
    index: 1,
};

fn batch(values: &[&[u8]], producer: Option<Producer>) -> Batch {
    let mut rows = RowsBuilder::new();
    for (i, value) in values.iter().enumerate() {
        rows.push(i as i64, Some(b"k"), Some(value), &[("h", None)]);
    }
    Batch::encode(&rows.finish(), Codec::None, producer).unwrap()
}

fn frame(encoded: Encoded) -> Frame {
    let mut frames = Frames::new(limits::FRAME_BYTES_MAX);
    frames.room().extend_from_slice(&encoded.to_bytes());
    let frame = frames.take().unwrap().expect("a whole frame");
    frames.end().unwrap();
    frame
}

fn check_request(request: Request) {
    let frame = frame(request.encode(42).unwrap());
    assert_eq!((frame.correlation, frame.api), (42, request.api() as u16));
    let read = Request::decode(&frame).unwrap();
    assert_eq!(format!("{read:?}"), format!("{request:?}"));
}

fn check_reply(api: Api, response: Response) {
    let frame = frame(response.encode(api as u16, 7, false).unwrap());
    let read = Response::decode(&frame).unwrap();
    assert_eq!(format!("{read:?}"), format!("{response:?}"));
}

#[test]
fn changes_come_through() {
    let change = TopicChange {
        retention_ms: Some(None),
        retention_bytes: Some(Some(9)),
        ..TopicChange::default()
    };
    check_request(
        TopicAlter {
            name: "flights".to_owned(),
            change,
        }
        .into(),
    );
    for before in [TrimBefore::Offset(7), TrimBefore::Timestamp(-7)] {
        check_request(
            TopicTrim {
                name: "flights".to_owned(),
                partition: Some(2),
                before,
            }
            .into(),
        );
    }
    let trimmed = PartitionTrimmed {
        index: 1,
        start_before: 2,
        start: 3,
        end: 4,
    };
    check_reply(
        Api::TopicTrim,
        TopicTrimmed {
            partitions: vec![trimmed],
        }
        .into(),
    );
    check_request(
        GroupDelete {
            group: "g".to_owned(),
        }
        .into(),
    );
}

#[test]
fn fetches_come_through() {
    check_request(
        Fetch {
            partition: PARTITION,
            from: 5,
            bytes_max: 6,
            wait_ms: 7,
        }
        .into(),
    );
    let want = |index, from| Want {
        partition: PartitionId { index, ..PARTITION },
        from,
    };
    check_request(
        FetchMany {
            wants: vec![want(0, 5), want(7, u64::MAX)],
            bytes_max: 6,
            wait_ms: 7,
        }
        .into(),
    );
}

#[test]
fn requests_come_through() {
    let name = || "flights".to_owned();
    let group = || "g".to_owned();
    let producer = Producer {
        id: ProducerId(9),
        epoch: 1,
        sequence: 77,
    };
    let large = vec![b'x'; 100_000];
    check_request(Hello::new("test 1").into());
    check_request(
        Produce {
            partition: PARTITION,
            batch: batch(&[b"v"], None),
        }
        .into(),
    );
    check_request(
        Produce {
            partition: PARTITION,
            batch: batch(&[&large], Some(producer)),
        }
        .into(),
    );
    check_request(ProducerOpen {}.into());
    for at in [At::Earliest, At::Latest, At::Timestamp(-5)] {
        check_request(
            Lookup {
                partition: PARTITION,
                at,
            }
            .into(),
        );
        let to = ResetTo::At(at);
        let (group, topic) = (group(), name());
        check_request(
            GroupReset {
                group,
                topic,
                partition: Some(2),
                to,
            }
            .into(),
        );
    }
    check_request(
        TopicCreate {
            name: name(),
            spec: TopicSpec::default(),
            if_absent: true,
        }
        .into(),
    );
    check_request(TopicList {}.into());
    check_request(TopicDescribe { name: name() }.into());
    check_request(TopicDelete { name: name() }.into());
    check_request(
        GroupJoin {
            group: group(),
            member: None,
            topics: vec![name()],
            session_ms: 10_000,
        }
        .into(),
    );
    let member = || "m".to_owned();
    check_request(
        GroupHeartbeat {
            group: group(),
            member: member(),
            generation: 3,
        }
        .into(),
    );
    check_request(
        GroupLeave {
            group: group(),
            member: member(),
        }
        .into(),
    );
    let positions = vec![GroupPosition {
        partition: PARTITION,
        offset: 8,
        metadata: group(),
    }];
    let member = Some(member());
    check_request(
        GroupCommit {
            group: group(),
            member,
            generation: Some(3),
            positions,
        }
        .into(),
    );
    check_request(GroupPositions { group: group() }.into());
    check_request(GroupList {}.into());
    check_request(GroupDescribe { group: group() }.into());
}

#[test]
fn requests_about_modules_pipelines_and_sql_come_through() {
    let name = || "flights".to_owned();
    let large = vec![b'x'; 100_000];
    let digest = Digest::of(b"module");
    check_request(ModuleHas { digest }.into());
    check_request(
        ModulePut {
            bytes: Bytes::from(large),
        }
        .into(),
    );
    let modules = BTreeMap::from([("tidy".to_owned(), digest)]);
    let file = PipelineFile {
        file: "p.yaml".to_owned(),
        yaml: "a: 1\n".to_owned(),
        modules,
    };
    check_request(PipelineLint { file: file.clone() }.into());
    check_request(PipelinePlan { file: file.clone() }.into());
    check_request(PipelineApply { file }.into());
    check_request(PipelineList {}.into());
    check_request(PipelineDescribe { name: name() }.into());
    check_request(PipelineDelete { name: name() }.into());
    check_request(
        CanaryStart {
            pipeline: name(),
            node: name(),
            module: digest,
            records: Some(3),
            time_ms: None,
        }
        .into(),
    );
    check_request(CanaryShow { pipeline: name() }.into());
    check_request(
        CanaryPromote {
            pipeline: name(),
            force: true,
        }
        .into(),
    );
    check_request(CanaryStop { pipeline: name() }.into());
    let (query, format) = ("select 1".to_owned(), SqlFormat::Jsonl);
    check_request(
        Sql {
            query,
            format,
            row_limit: Some(5),
            timeout_ms: None,
        }
        .into(),
    );
    check_request(Tier { topic: None }.into());
    check_request(Status {}.into());
}

#[test]
fn fetched_comes_through() {
    let bounds = Bounds { start: 3, end: 9 };
    check_reply(
        Api::Fetch,
        Fetched {
            bounds,
            batches: Vec::new(),
        }
        .into(),
    );
    let large = vec![b'y'; 10_000];
    let batches = vec![
        batch(&[b"a", b"b"], None),
        batch(&[&large], None),
        batch(&[b""], None),
    ];
    let fetched = Fetched { bounds, batches };
    check_reply(Api::Fetch, fetched.clone().into());
    let part = |outcome| Part {
        partition: PARTITION,
        outcome,
    };
    let gone = WireError::fix(code::NOT_FOUND, "no such partition");
    let parts = vec![
        part(Ok(fetched.clone())),
        part(Err(gone)),
        part(Ok(fetched)),
    ];
    check_reply(Api::FetchMany, FetchedMany { parts }.into());
}

#[test]
fn replies_come_through() {
    check_reply(
        Api::Hello,
        Welcome {
            version: 1,
            server: "rustmq 0".to_owned(),
        }
        .into(),
    );
    let produced = Produced {
        base_offset: 1 << 40,
        append_time_us: -1,
        duplicate: true,
    };
    check_reply(Api::Produce, produced.into());
    check_reply(
        Api::ProducerOpen,
        ProducerOpened {
            id: ProducerId(4),
            epoch: 0,
        }
        .into(),
    );
    check_reply(Api::Lookup, Found { offset: 4 }.into());
    let topic = Topic::new(TopicId(3), "t", TopicSpec::default());
    let partitions = vec![PartitionInfo {
        index: 0,
        start: 0,
        end: 5,
        shard: Some(ShardId(0)),
        epoch: Some(ShardEpoch(2)),
    }];
    check_reply(
        Api::TopicAlter,
        TopicAltered {
            topic: topic.clone(),
        }
        .into(),
    );
    check_reply(Api::GroupDelete, GroupDeleted {}.into());
    check_reply(Api::TopicList, Topics { topics: Vec::new() }.into());
    check_reply(
        Api::TopicDescribe,
        TopicDescription { topic, partitions }.into(),
    );
    check_reply(
        Api::Sql,
        SqlChunk {
            text: Bytes::from_static(b"a,b\n1,2\n"),
        }
        .into(),
    );
    let diagnostics = vec![Diagnostic::error("p.yaml", 1, 2, "no").with_hint("yes")];
    let error = WireError::fix(code::INVALID, "bad").with(diagnostics);
    check_reply(Api::PipelineApply, Response::Error(error));
    let plan = PipelinePlanned {
        text: "t".into(),
        plan: json!({"a": 1}),
        diagnostics: vec![],
    };
    check_reply(Api::PipelinePlan, plan.into());
}

#[test]
fn numbers_of_calls_are_given_once() {
    for api in Api::ALL {
        assert_eq!(Api::from_number(*api as u16), Some(*api), "{}", api.name());
    }
    assert_eq!(Api::from_number(9), None);
    let mut frame = frame(Request::from(TopicList {}).encode(1).unwrap());
    frame.api = 999;
    assert_eq!(
        Request::decode(&frame).unwrap_err(),
        DecodeError::UnknownCall(999)
    );
}

/// A body's bytes as hex, the frame's header before it.
fn hex(encoded: Encoded) -> String {
    encoded
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn golden_bytes() {
    let fetch = Fetch {
        partition: PARTITION,
        from: 0x0102,
        bytes_max: 0x10,
        wait_ms: 0x20,
    };
    assert_eq!(
        hex(Request::from(fetch).encode(0x0a).unwrap()),
        "24000000\
         01000b000a00000000000000\
         0300000001000000020100000000000010000000\
         20000000"
    );
    let produced = Produced {
        base_offset: 5,
        append_time_us: 6,
        duplicate: true,
    };
    assert_eq!(
        hex(Response::from(produced)
            .encode(Api::Produce as u16, 1, false)
            .unwrap()),
        "1d00000001010a000100000000000000\
         0500000000000000060000000000000001"
    );
    let describe = TopicDescribe {
        name: "t".to_owned(),
    };
    let text = Request::from(describe).encode(2).unwrap().to_bytes();
    assert_eq!(&text[16..], br#"{"name":"t"}"#);
    let error = Response::Error(WireError::retry(code::STOPPING, "later"));
    let encoded = error.encode(1, 0, true).unwrap().to_bytes();
    assert_eq!(encoded[5], 5, "reply and error, and no more");
    assert_eq!(
        &encoded[16..],
        br#"{"code":"stopping","message":"later","advice":"retry"}"#
    );
    assert_eq!(hex(Encoded::end(60, 3)), "0c00000001093c000300000000000000");
}

#[test]
fn batches_are_shared_and_not_copied() {
    let batch = batch(&[&vec![b'z'; 50_000]], None);
    let body = batch.body().as_ptr();
    let encoded = Request::from(Produce {
        partition: PARTITION,
        batch,
    })
    .encode(1)
    .unwrap();
    let parts = encoded.clone().into_parts();
    assert!(
        parts.iter().any(|part| part.as_ptr() == body),
        "the body itself is sent"
    );
    let frame = frame(encoded);
    let Request::Produce(read) = Request::decode(&frame).unwrap() else {
        panic!()
    };
    let range = frame.body.as_ptr_range();
    assert!(
        range.contains(&read.batch.body().as_ptr()),
        "what was read is a part of the frame"
    );
}

#[test]
fn bodies_must_fit_their_call() {
    let mut frame = frame(
        Request::from(Produce {
            partition: PARTITION,
            batch: batch(&[b"v"], None),
        })
        .encode(1)
        .unwrap(),
    );
    let whole = frame.body.clone();
    frame.body = whole.slice(..6);
    let error = Request::decode(&frame).unwrap_err().to_string();
    assert_eq!(
        error,
        "Produce needs 4 bytes at offset 4 of the body, 2 are left"
    );
    frame.body = [&whole[..], b"x"].concat().into();
    let error = Request::decode(&frame).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "Produce ends at offset {} of the body, but 1 bytes follow",
            whole.len()
        )
    );
    let mut bad = whole.to_vec();
    bad[HEAD_LEN] ^= 1;
    frame.body = bad.into();
    let error = Request::decode(&frame).unwrap_err().to_string();
    assert!(
        error.starts_with("batch 0 at offset 8 of the body: "),
        "{error}"
    );
}

#[test]
fn a_count_alone_takes_no_memory() {
    let mut body = vec![0; 16];
    body.extend(50_000u32.to_le_bytes());
    let mut frame = frame(Encoded::end(Api::Fetch as u16, 1));
    frame.flags = crate::frame::Flags::REPLY;
    frame.body = body.clone().into();
    let error = Response::decode(&frame).unwrap_err();
    assert!(
        matches!(
            error,
            DecodeError::Short {
                what: "list of batches",
                ..
            }
        ),
        "{error}"
    );
    body.splice(16.., u32::MAX.to_le_bytes());
    frame.body = body.into();
    let error = Response::decode(&frame).unwrap_err();
    assert!(matches!(error, DecodeError::TooMany { .. }), "{error}");
}

#[test]
fn too_many_batches_for_a_frame_are_left_for_the_next() {
    let part = batch(&[&vec![b'x'; (8 << 20) - 64]], None);
    let bounds = Bounds { start: 0, end: 9 };
    let mut fetched = Fetched {
        bounds,
        batches: vec![part.clone(); 9],
    };
    fetched.shorten();
    assert_eq!(fetched.batches.len(), 4);
    assert!(
        Response::from(fetched)
            .encode(Api::Fetch as u16, 1, false)
            .is_ok()
    );
    let part = |count| Part {
        partition: PARTITION,
        outcome: Ok(Fetched {
            bounds,
            batches: vec![part.clone(); count],
        }),
    };
    let mut many = FetchedMany {
        parts: vec![part(0), part(3), part(0), part(5), part(2)],
    };
    many.shorten();
    let left = |part: &Part| part.outcome.as_ref().unwrap().batches.len();
    let left: Vec<usize> = many.parts.iter().map(left).collect();
    assert_eq!(left, [0, 3, 0, 1, 0]);
    let frame = Response::from(many).encode(Api::FetchMany as u16, 1, false);
    assert!(frame.is_ok());
}

#[test]
fn a_fetch_of_many_says_no_more_than_it_holds() {
    let many = FetchMany {
        wants: vec![],
        bytes_max: 1,
        wait_ms: 1,
    };
    let mut frame = frame(Request::from(many).encode(1).unwrap());
    let mut body = frame.body.to_vec();
    for (count, message) in [
        (
            1,
            "list of partitions needs 16 bytes at offset 8 of the body, 0 are left",
        ),
        (1_025, "list of partitions is 1025, at most 1024 is allowed"),
    ] {
        body.splice(8.., u32::to_le_bytes(count));
        frame.body = body.clone().into();
        assert_eq!(Request::decode(&frame).unwrap_err().to_string(), message);
    }
}

proptest! {
    #[test]
    fn any_records_come_through(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..50),
        topic in any::<u32>(),
        index in any::<u32>(),
        sequence in any::<u32>(),
    ) {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let producer = Producer { id: ProducerId(1), epoch: 2, sequence };
        let batch = batch(&values, Some(producer));
        let partition = PartitionId { topic: TopicId(topic), index };
        let sent = Request::from(Produce { partition, batch: batch.clone() });
        let Request::Produce(read) = Request::decode(&frame(sent.encode(1).unwrap())).unwrap()
            else { panic!("another call came out") };
        prop_assert_eq!(read.partition, partition);
        prop_assert_eq!(read.batch, batch);
    }

    #[test]
    fn any_body_is_read_or_refused(
        api in prop::sample::select(Api::ALL),
        body in prop::collection::vec(any::<u8>(), 0..200),
        reply in any::<bool>(),
    ) {
        let mut frame = frame(Encoded::end(api as u16, 1));
        frame.flags = crate::frame::Flags::REPLY;
        frame.body = body.into();
        // Must not panic; whether it is accepted is the body's own matter.
        let _ = if reply { Response::decode(&frame).err() } else { Request::decode(&frame).err() };
    }
}
