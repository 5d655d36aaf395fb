//! Frames cut anywhere, and streams that are none.

use proptest::prelude::*;

use super::*;
use crate::limits::FIRST_FRAME_BYTES_MAX;
use crate::{Request, TopicDescribe};

fn encoded(name: &str, correlation: u64) -> Bytes {
    let request = Request::from(TopicDescribe {
        name: name.to_owned(),
    });
    request.encode(correlation).unwrap().to_bytes()
}

fn check(bytes: &[u8], expected: &str) {
    let mut frames = Frames::new(FIRST_FRAME_BYTES_MAX);
    frames.room().extend_from_slice(bytes);
    let got = loop {
        match frames.take() {
            Ok(Some(_)) => {}
            Ok(None) => break frames.end().unwrap_err(),
            Err(error) => break error,
        }
    };
    assert_eq!(got.to_string(), expected);
}

#[test]
fn what_is_not_a_frame_is_said_with_its_place() {
    let good = encoded("t", 1);
    let at = good.len();
    let check = |bytes: &[u8], expected: &str| check(&[&good, bytes].concat(), expected);
    check(
        &[1, 0, 1, 0, 1],
        &format!(
            "frame at offset {at} of the stream says it is 65537 bytes long, \
             65536 is the limit here"
        ),
    );
    check(
        &[11, 0, 0, 0, 1],
        &format!(
            "frame at offset {at} of the stream says it is 11 bytes long, its header alone takes 12"
        ),
    );
    check(
        b"GET /",
        &format!("frame at offset {at} of the stream has protocol version 47, this side speaks 1"),
    );
    check(
        &[12, 0, 0, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &format!("frame at offset {at} of the stream has unknown flags 0x80"),
    );
    check(
        &good[..9],
        &format!("stream ended at offset {at} inside a frame, 9 of {at} bytes had come"),
    );
    check(
        &good[..2],
        &format!("stream ended at offset {at} inside a frame, 2 of 4 bytes had come"),
    );
}

#[test]
fn a_length_alone_takes_no_memory() {
    let mut frames = Frames::new(crate::limits::FRAME_BYTES_MAX);
    let length = (crate::limits::FRAME_BYTES_MAX as u32).to_le_bytes();
    frames.room().extend_from_slice(&length);
    assert_eq!(frames.take(), Ok(None));
    assert!(frames.room().capacity() <= 2 * READ_STEP_BYTES);
}

#[test]
fn frames_too_large_to_be_read_are_not_sent() {
    let bytes = Bytes::from(vec![0; crate::limits::FRAME_BYTES_MAX]);
    let error = Request::from(crate::ModulePut { bytes })
        .encode(1)
        .unwrap_err();
    assert!(matches!(error, FrameError::Unsendable { .. }), "{error}");
}

proptest! {
    #[test]
    fn frames_come_out_however_the_bytes_come_in(
        names in prop::collection::vec("[a-z]{0,300}", 1..20),
        cuts in prop::collection::vec(1usize..200, 1..50),
    ) {
        let frame = |(i, name): (usize, &String)| encoded(name, i as u64);
        let stream: Vec<u8> = names.iter().enumerate().flat_map(frame).collect();
        let mut frames = Frames::new(FIRST_FRAME_BYTES_MAX);
        let (mut rest, mut cuts, mut found) = (&stream[..], cuts.iter().cycle(), Vec::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            frames.room().extend_from_slice(now);
            rest = later;
            while let Some(frame) = frames.take().unwrap() {
                prop_assert_eq!(frame.correlation, found.len() as u64);
                let Ok(Request::TopicDescribe(ask)) = Request::decode(&frame) else { panic!() };
                found.push(ask.name);
            }
        }
        prop_assert!(frames.end().is_ok());
        prop_assert_eq!(found, names);
    }

    #[test]
    fn any_bytes_are_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut frames = Frames::new(FIRST_FRAME_BYTES_MAX);
        frames.room().extend_from_slice(&bytes);
        while let Ok(Some(frame)) = frames.take() {
            let _ = (Request::decode(&frame).err(), crate::Response::decode(&frame).err());
        }
    }
}
