//! The table of contents: every call with its number, request and reply.
//!
//! What: the closed enums `Request` and `Response` and their way into and out of frames.
//! Called by: client and doors.
//! Invariants: a number is never given to another call; request and reply share it.
//! Refuses: numbers that are not in the table, bodies that do not fit their call.

use crate::error::{DecodeError, WireError};
use crate::frame::{Encoded, Flags, Frame, FrameError};
use crate::message::*;
use crate::wire::{Body, Reader, Writer};

macro_rules! table {
    ($($number:literal $ask:ident => $reply:ident),* $(,)?) => {
        /// The number of a call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Api { $($ask = $number),* }

        impl Api {
            pub const ALL: &'static [Api] = &[$(Api::$ask),*];

            pub fn from_number(number: u16) -> Option<Api> {
                match number { $($number => Some(Api::$ask),)* _ => None }
            }

            pub fn name(self) -> &'static str {
                match self { $(Api::$ask => stringify!($ask)),* }
            }
        }

        #[derive(Clone, Debug)]
        pub enum Request { $($ask($ask)),* }

        #[derive(Clone, Debug)]
        pub enum Response { $($reply($reply),)* Error(WireError) }

        impl Request {
            pub fn api(&self) -> Api {
                match self { $(Request::$ask(_) => Api::$ask),* }
            }

            fn write(&self, out: &mut Writer) {
                match self { $(Request::$ask(body) => body.write(out)),* }
            }

            /// Reads the request in a frame.
            pub fn decode(frame: &Frame) -> Result<Request, DecodeError> {
                match Api::from_number(frame.api) {
                    None => Err(DecodeError::UnknownCall(frame.api)),
                    $(Some(Api::$ask) => read(&frame.body).map(Request::$ask)),*
                }
            }
        }

        impl Response {
            fn write(&self, out: &mut Writer) {
                match self {
                    $(Response::$reply(body) => body.write(out),)*
                    Response::Error(error) => error.write(out),
                }
            }

            /// Reads the reply in a frame.
            pub fn decode(frame: &Frame) -> Result<Response, DecodeError> {
                if frame.flags.has(Flags::ERROR) {
                    return read(&frame.body).map(Response::Error);
                }
                match Api::from_number(frame.api) {
                    None => Err(DecodeError::UnknownCall(frame.api)),
                    $(Some(Api::$ask) => read(&frame.body).map(Response::$reply)),*
                }
            }
        }

        $(impl From<$ask> for Request {
            fn from(body: $ask) -> Request { Request::$ask(body) }
        })*
        $(impl From<$reply> for Response {
            fn from(body: $reply) -> Response { Response::$reply(body) }
        })*

        $(impl Call for $ask {
            type Reply = $reply;
            fn reply(response: Response) -> Result<$reply, Box<Response>> {
                match response {
                    Response::$reply(body) => Ok(body),
                    other => Err(Box::new(other)),
                }
            }
        })*
    };
}

/// A request that knows the type of its reply.
pub trait Call: Into<Request> {
    type Reply;
    /// The reply of this call, or what came instead of it.
    fn reply(response: Response) -> Result<Self::Reply, Box<Response>>;
}

table! {
    1 Hello => Welcome,

    10 Produce => Produced,
    11 Fetch => Fetched,
    12 ProducerOpen => ProducerOpened,
    13 Lookup => Found,
    14 FetchMany => FetchedMany,

    20 TopicCreate => TopicCreated,
    21 TopicList => Topics,
    22 TopicDescribe => TopicDescription,
    23 TopicDelete => TopicDeleted,
    24 TopicAlter => TopicAltered,
    25 TopicTrim => TopicTrimmed,

    30 GroupJoin => GroupJoined,
    31 GroupHeartbeat => GroupBeaten,
    32 GroupLeave => GroupLeft,
    33 GroupCommit => GroupCommitted,
    34 GroupPositions => GroupPositioned,
    35 GroupList => Groups,
    36 GroupDescribe => GroupDescription,
    37 GroupReset => GroupWasReset,
    38 GroupDelete => GroupDeleted,

    40 ModuleHas => ModulePresent,
    41 ModulePut => ModuleStored,

    50 PipelineLint => PipelineLinted,
    51 PipelinePlan => PipelinePlanned,
    52 PipelineApply => PipelineApplied,
    53 PipelineList => Pipelines,
    54 PipelineDescribe => PipelineDescription,
    55 PipelineDelete => PipelineDeleted,
    56 CanaryStart => CanaryStarted,
    57 CanaryShow => CanaryShown,
    58 CanaryPromote => CanaryPromoted,
    59 CanaryStop => CanaryStopped,

    60 Sql => SqlChunk,

    70 Tier => Tiered,
    71 Status => StatusReport,
}

fn read<T: Body>(body: &bytes::Bytes) -> Result<T, DecodeError> {
    let mut reader = Reader::new(T::NAME, body.clone());
    let value = T::read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

impl Request {
    /// The frame of this request.
    pub fn encode(&self, correlation: u64) -> Result<Encoded, FrameError> {
        let mut out = Encoded::begin(Flags::REQUEST, self.api() as u16, correlation);
        self.write(&mut out);
        Encoded::finish(out)
    }
}

impl Response {
    /// The frame of this reply; `api` is the number in the request's frame.
    pub fn encode(&self, api: u16, correlation: u64, more: bool) -> Result<Encoded, FrameError> {
        let mut flags = Flags::REPLY;
        if matches!(self, Response::Error(_)) {
            flags = flags.and(Flags::ERROR);
        } else if more {
            flags = flags.and(Flags::MORE);
        }
        let mut out = Encoded::begin(flags, api, correlation);
        self.write(&mut out);
        Encoded::finish(out)
    }
}

crate::wire::json_bodies!(WireError);
