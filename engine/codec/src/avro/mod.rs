//! Avro datums as columns, one a value.
//!
//! Called by [`crate::Format`]. Own reader and writer: libraries fail a whole batch where one row
//! is bad, take memory by lengths they have not checked, or resolve schemas on the way.
//!
//! - A value is one datum in the binary encoding of the topic's schema, all of it and nothing
//!   behind it. Before it may stand the head of a single object, `c3 01` and the fingerprint of
//!   that schema: ten bytes that no datum begins with by chance. Written is the datum alone.
//! - The head of Confluent's serializers, `00` and a schema's number, is refused, by name: datums
//!   may begin with the same five bytes, and values would be misread without a word.
//! - `int`, `long`: `int64`. `float`, `double`: `float64`. `bytes`, `fixed`: `bytes`. `string`,
//!   `enum`: `string`. `timestamp-millis`, `timestamp-micros`, `date` (midnight): `timestamp`.
//!   A union with null is null or the other; a field of type `null` is always null.
//! - What a type is coarser in is cut off: floats are rounded to 32 bits, times go down to the
//!   millisecond or the day. What does not fit is an error of its row: a null without a union,
//!   an integer beyond 32 bits, a text that is no symbol, bytes of another length.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::AvroDecoder;
pub(crate) use write::AvroEncoder;
