//! Reading and writing of message bodies: little-endian numbers, shared bytes, JSON.
//!
//! What: `Writer` collects small parts and shares large ones; `Reader` walks a body and checks
//! every length against what is left; `Body` is what each message implements.
//! Called by: the message families.
//! Invariants: no read past the end, no allocation by a length that was not checked, no copy of
//! a shared part. A body that was read to its end and no further is the only one accepted.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::DecodeError;
use crate::limits::COPY_BYTES_MAX;

/// One message body, both ways.
pub trait Body: Sized {
    const NAME: &'static str;
    fn write(&self, out: &mut Writer);
    fn read(from: &mut Reader) -> Result<Self, DecodeError>;
}

/// Parts of a frame under construction.
#[derive(Default)]
pub struct Writer {
    open: BytesMut,
    parts: Vec<Bytes>,
    len: usize,
}

impl Writer {
    pub fn u8(&mut self, value: u8) {
        self.open.put_u8(value);
        self.len += 1;
    }

    pub fn u32(&mut self, value: u32) {
        self.open.put_u32_le(value);
        self.len += 4;
    }

    pub fn u64(&mut self, value: u64) {
        self.open.put_u64_le(value);
        self.len += 8;
    }

    pub fn i64(&mut self, value: i64) {
        self.open.put_i64_le(value);
        self.len += 8;
    }

    pub fn slice(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
        self.len += bytes.len();
    }

    /// Large parts are shared, not copied.
    pub fn bytes(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_BYTES_MAX {
            return self.slice(bytes);
        }
        if !self.open.is_empty() {
            self.parts.push(self.open.split().freeze());
        }
        self.len += bytes.len();
        self.parts.push(bytes.clone());
    }

    pub fn json<T: Serialize>(&mut self, value: &T) {
        let text = serde_json::to_vec(value).expect("messages have string keys only");
        self.slice(&text);
    }

    /// JSON with its length before it, for bodies that go on behind it.
    pub fn json_sized<T: Serialize>(&mut self, value: &T) {
        let text = serde_json::to_vec(value).expect("messages have string keys only");
        self.u32(text.len() as u32);
        self.slice(&text);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn into_parts(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.parts.push(self.open.freeze());
        }
        self.parts
    }
}

/// A body being read.
pub struct Reader {
    what: &'static str,
    rest: Bytes,
    at: usize,
}

impl Reader {
    pub fn new(what: &'static str, body: Bytes) -> Reader {
        Reader {
            what,
            rest: body,
            at: 0,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (what, at, have) = (self.what, self.at, self.rest.len());
        if have < N {
            return Err(DecodeError::Short {
                what,
                at,
                need: N,
                have,
            });
        }
        let part = self.rest.split_to(N);
        self.at += N;
        Ok(part.as_ref().try_into().expect("N bytes were split off"))
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.take()?))
    }

    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        let at = self.at;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Unknown {
                what: "flag",
                at,
                value: other.into(),
            }),
        }
    }

    /// All that is left, shared.
    pub fn rest(&mut self) -> Bytes {
        self.at += self.rest.len();
        std::mem::take(&mut self.rest)
    }

    /// What is left, for readers that take a part off the front.
    pub(crate) fn front<T>(&mut self, take: impl FnOnce(&mut Bytes) -> T) -> T {
        let before = self.rest.len();
        let taken = take(&mut self.rest);
        self.at += before - self.rest.len();
        taken
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn json<T: DeserializeOwned>(&mut self) -> Result<T, DecodeError> {
        let text = self.rest();
        self.parsed(&text)
    }

    /// JSON with its length before it.
    pub fn json_sized<T: DeserializeOwned>(&mut self) -> Result<T, DecodeError> {
        let (at, need) = (self.at, self.u32()? as usize);
        let (what, have) = (self.what, self.rest.len());
        if need > have {
            return Err(DecodeError::Short {
                what,
                at,
                need,
                have,
            });
        }
        let text = self.front(|rest| rest.split_to(need));
        self.parsed(&text)
    }

    fn parsed<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, DecodeError> {
        serde_json::from_slice(text).map_err(|error| DecodeError::Json {
            what: self.what,
            reason: error.to_string(),
        })
    }

    pub fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::LeftOver {
                what: self.what,
                at: self.at,
                left,
            }),
        }
    }
}

/// Bodies that are one JSON document.
macro_rules! json_bodies {
    ($($name:ident),* $(,)?) => {$(
        impl $crate::wire::Body for $name {
            const NAME: &'static str = stringify!($name);
            fn write(&self, out: &mut $crate::wire::Writer) {
                out.json(self);
            }
            fn read(from: &mut $crate::wire::Reader) -> Result<Self, $crate::DecodeError> {
                from.json()
            }
        }
    )*};
}
pub(crate) use json_bodies;
