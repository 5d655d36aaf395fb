//! Frames: the unit that a byte stream is cut into.
//!
//! `u32 length | u8 version | u8 flags | u16 call | u64 correlation | body`, little-endian;
//! length counts what follows it.
//! What: `Frames` takes bytes as they come and gives whole frames; `Encoded` is a frame ready to
//! be written, in parts, so that batch bytes are not copied.
//! Called by: doors and client. Invariants: a length is compared with the limit before any
//! memory is asked for; after an error the stream cannot be read further.
//! Refuses: other versions, lengths beyond the limit or below the header, unknown flags.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::PROTOCOL_VERSION;
use crate::limits::{FRAME_BYTES_MAX, READ_STEP_BYTES};
use crate::wire::Writer;

/// The length field.
const LENGTH_LEN: usize = 4;
/// What follows it before the body.
const HEAD_LEN: usize = 12;

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub const REQUEST: Flags = Flags(0);
    pub const REPLY: Flags = Flags(1);
    /// Further frames answer the same request.
    pub const MORE: Flags = Flags(2);
    /// The body is a `WireError`; ends a reply of many frames.
    pub const ERROR: Flags = Flags(4);
    /// Ends a reply of many frames; the body is empty.
    pub const END: Flags = Flags(8);
    const KNOWN: u8 = 15;

    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A frame as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub flags: Flags,
    /// The number of the call, see [`crate::Api`].
    pub api: u16,
    pub correlation: u64,
    pub body: Bytes,
}

impl Frame {
    /// Bytes that the frame takes on the stream.
    pub fn size(&self) -> usize {
        LENGTH_LEN + HEAD_LEN + self.body.len()
    }
}

/// Why a stream of bytes is not a stream of frames. `at` counts from its beginning.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FrameError {
    #[error(
        "frame at offset {at} of the stream says it is {len} bytes long, {max} is the limit here"
    )]
    TooLong { at: u64, len: usize, max: usize },
    #[error(
        "frame at offset {at} of the stream says it is {len} bytes long, \
         its header alone takes {HEAD_LEN}"
    )]
    TooShort { at: u64, len: usize },
    #[error(
        "frame at offset {at} of the stream has protocol version {version}, \
         this side speaks {PROTOCOL_VERSION}"
    )]
    Version { at: u64, version: u8 },
    #[error("frame at offset {at} of the stream has unknown flags {flags:#04x}")]
    Flags { at: u64, flags: u8 },
    #[error("stream ended at offset {at} inside a frame, {have} of {need} bytes had come")]
    Cut { at: u64, have: usize, need: usize },
    #[error("frame would be {len} bytes long, {FRAME_BYTES_MAX} is the limit")]
    Unsendable { len: usize },
}

/// Cuts a byte stream into frames.
pub struct Frames {
    buffer: BytesMut,
    /// Where in the stream the buffer begins.
    at: u64,
    bytes_max: usize,
}

impl Frames {
    pub fn new(bytes_max: usize) -> Frames {
        Frames {
            buffer: BytesMut::new(),
            at: 0,
            bytes_max,
        }
    }

    /// Raises the limit, once the peer has said who it is.
    pub fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Where the next bytes are read into, with room for some.
    pub fn room(&mut self) -> &mut BytesMut {
        let want = self.wanted().unwrap_or(0).saturating_sub(self.buffer.len());
        self.buffer.reserve(want.clamp(4 << 10, READ_STEP_BYTES));
        &mut self.buffer
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The whole length of the frame at the front, once its length field is there.
    fn wanted(&self) -> Option<usize> {
        let field = self.buffer.first_chunk::<LENGTH_LEN>()?;
        Some(LENGTH_LEN.saturating_add(u32::from_le_bytes(*field) as usize))
    }

    /// The next whole frame, or `None` when more bytes are needed.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(whole) = self.wanted() else {
            return Ok(None);
        };
        let (at, len) = (self.at, whole - LENGTH_LEN);
        if let Some(&version) = self.buffer.get(LENGTH_LEN)
            && version != PROTOCOL_VERSION
        {
            return Err(FrameError::Version { at, version });
        }
        if len > self.bytes_max {
            return Err(FrameError::TooLong {
                at,
                len,
                max: self.bytes_max,
            });
        }
        if len < HEAD_LEN {
            return Err(FrameError::TooShort { at, len });
        }
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut bytes = self.buffer.split_to(whole).freeze();
        self.at += whole as u64;
        bytes.advance(LENGTH_LEN + 1);
        let flags = bytes.get_u8();
        if flags & !Flags::KNOWN != 0 {
            return Err(FrameError::Flags { at, flags });
        }
        let (api, correlation) = (bytes.get_u16_le(), bytes.get_u64_le());
        Ok(Some(Frame {
            flags: Flags(flags),
            api,
            correlation,
            body: bytes,
        }))
    }

    /// What the end of the stream means here.
    pub fn end(&self) -> Result<(), FrameError> {
        match self.buffer.len() {
            0 => Ok(()),
            have => {
                let need = self.wanted().unwrap_or(LENGTH_LEN);
                Err(FrameError::Cut {
                    at: self.at,
                    have,
                    need,
                })
            }
        }
    }
}

/// A frame ready to be written: parts in order, large ones shared.
#[derive(Clone, Debug)]
pub struct Encoded {
    parts: VecDeque<Bytes>,
    len: usize,
}

impl Encoded {
    pub(crate) fn begin(flags: Flags, api: u16, correlation: u64) -> Writer {
        let mut out = Writer::default();
        out.u32(0);
        out.u8(PROTOCOL_VERSION);
        out.u8(flags.0);
        out.slice(&api.to_le_bytes());
        out.u64(correlation);
        out
    }

    pub(crate) fn finish(out: Writer) -> Result<Encoded, FrameError> {
        let len = out.len() - LENGTH_LEN;
        if len > FRAME_BYTES_MAX {
            return Err(FrameError::Unsendable { len });
        }
        let parts = out.into_parts();
        let field = (len as u32).to_le_bytes();
        let mut parts: VecDeque<Bytes> = parts.into();
        let first = parts.pop_front().expect("the header is always written");
        let mut first = first
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        first[..LENGTH_LEN].copy_from_slice(&field);
        parts.push_front(first.freeze());
        Ok(Encoded {
            parts,
            len: len + LENGTH_LEN,
        })
    }

    /// The frame that ends a reply of many frames.
    pub fn end(api: u16, correlation: u64) -> Encoded {
        let flags = Flags::REPLY.and(Flags::END);
        Encoded::finish(Encoded::begin(flags, api, correlation)).expect("a header fits")
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts.into()
    }

    /// One contiguous copy; for tests and small frames.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len);
        self.parts
            .iter()
            .for_each(|part| out.extend_from_slice(part));
        out.freeze()
    }
}

#[cfg(test)]
mod tests;
