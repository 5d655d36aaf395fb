//! One section, compressed or decompressed as one lz4 or zstd frame.
//!
//! Called by `batch::encode` and `batch::columns`. Invariants: the decoded length is known
//! beforehand, bounded by the caller, and must come out exactly; the buffer is aligned for
//! Arrow. Refuses frames that are damaged, too short or too long.

use std::io::{Read, Write};

use arrow::buffer::{Buffer, MutableBuffer};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::Codec;

/// The fast end of zstd: on JSON it is close to level 3 in size at twice its speed.
const ZSTD_LEVEL: i32 = 1;
/// Below this a frame costs more than it saves.
const COMPRESS_BYTES_MIN: usize = 128;

/// Compresses sections of one batch with one context.
pub(super) struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    pub fn new(codec: Codec) -> std::io::Result<Compressor> {
        let zstd = match codec {
            Codec::Zstd => Some(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
            Codec::None | Codec::Lz4 => None,
        };
        Ok(Compressor { codec, zstd })
    }

    /// The frame, or `None` where it would not be smaller.
    pub fn compress(&mut self, plain: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        if plain.len() < COMPRESS_BYTES_MIN {
            return Ok(None);
        }
        let frame = match (self.codec, &mut self.zstd) {
            (Codec::Lz4, _) => lz4(plain)?,
            (Codec::Zstd, Some(zstd)) => zstd.compress(plain)?,
            _ => return Ok(None),
        };
        Ok((frame.len() < plain.len()).then_some(frame))
    }
}

fn lz4(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    // A reader takes two buffers of the block size before it decodes a byte.
    let block_size = match plain.len() {
        0..=0x1_0000 => BlockSize::Max64KB,
        _ => BlockSize::Max256KB,
    };
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(block_size)
        .content_size(Some(plain.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(plain.len() / 2));
    encoder.write_all(plain)?;
    Ok(encoder.finish()?)
}

/// Decompresses `frame` to exactly `decoded_length` bytes, which the caller has bounded.
pub(super) fn decompress(
    codec: Codec,
    frame: &[u8],
    decoded_length: usize,
) -> Result<Buffer, String> {
    let mut plain = MutableBuffer::from_len_zeroed(decoded_length);
    match codec {
        Codec::None => return Err("no codec".to_owned()),
        Codec::Lz4 => {
            let mut reader = FrameDecoder::new(frame);
            reader
                .read_exact(plain.as_slice_mut())
                .map_err(|e| e.to_string())?;
            // The frame must end here, and its end mark must be read.
            if reader.read(&mut [0u8; 1]).map_err(|e| e.to_string())? != 0 {
                return Err(format!(
                    "more than the {decoded_length} bytes it should have"
                ));
            }
            if !reader.get_ref().is_empty() {
                return Err("bytes after the frame".to_owned());
            }
        }
        Codec::Zstd => {
            let out = plain.as_slice_mut();
            let got = zstd::bulk::decompress_to_buffer(frame, out).map_err(|e| e.to_string())?;
            if got != decoded_length {
                return Err(format!("{got} bytes instead of {decoded_length}"));
            }
        }
    }
    Ok(plain.into())
}
