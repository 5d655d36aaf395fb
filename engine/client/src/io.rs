//! Frames in and out of byte streams: the only place where the protocol meets a socket.
//!
//! What: `FrameReader` and `FrameWriter` over a QUIC stream or anything that reads and writes.
//! Called by: `channel` here, the server's doors. Invariants: `next` may be dropped at any
//! await without losing bytes; memory grows with what came, not with what a length says.

use std::io;

use bytes::Bytes;
use protocol::{Encoded, Frame, FrameError, Frames};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("stream broke: {0}")]
    Io(#[from] io::Error),
}

pub struct FrameReader {
    from: Box<dyn AsyncRead + Send + Unpin>,
    frames: Frames,
}

impl FrameReader {
    pub fn new(from: impl AsyncRead + Send + Unpin + 'static, frame_bytes_max: usize) -> Self {
        FrameReader {
            from: Box::new(from),
            frames: Frames::new(frame_bytes_max),
        }
    }

    /// Raises the limit for the frames that follow.
    pub fn limit(&mut self, frame_bytes_max: usize) {
        self.frames.limit(frame_bytes_max);
    }

    /// Whether a part of a frame has come.
    pub fn is_partial(&self) -> bool {
        self.frames.is_partial()
    }

    /// The next frame; `None` at a clean end.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.frames.take()? {
                return Ok(Some(frame));
            }
            if self.from.read_buf(self.frames.room()).await? == 0 {
                self.frames.end()?;
                return Ok(None);
            }
        }
    }
}

pub enum FrameWriter {
    Quic(quinn::SendStream),
    Io(BufWriter<Box<dyn AsyncWrite + Send + Unpin>>),
}

impl FrameWriter {
    pub fn quic(stream: quinn::SendStream) -> FrameWriter {
        FrameWriter::Quic(stream)
    }

    pub fn io(to: impl AsyncWrite + Send + Unpin + 'static) -> FrameWriter {
        FrameWriter::Io(BufWriter::with_capacity(32 << 10, Box::new(to)))
    }

    /// Hands the frame over; `flush` sends it off.
    pub async fn write(&mut self, frame: Encoded) -> io::Result<()> {
        let mut parts: Vec<Bytes> = frame.into_parts();
        match self {
            FrameWriter::Quic(stream) => Ok(stream.write_all_chunks(&mut parts).await?),
            FrameWriter::Io(to) => {
                for part in &parts {
                    to.write_all(part).await?;
                }
                Ok(())
            }
        }
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        match self {
            FrameWriter::Quic(_) => Ok(()),
            FrameWriter::Io(to) => to.flush().await,
        }
    }

    /// Says that nothing follows, and waits until the peer has everything.
    pub async fn finish(mut self) -> io::Result<()> {
        match &mut self {
            FrameWriter::Quic(stream) => {
                // Finished or stopped by the peer before: both mean that nothing is left to say.
                if stream.finish().is_ok() {
                    let _ = stream.stopped().await;
                }
                Ok(())
            }
            FrameWriter::Io(to) => to.shutdown().await,
        }
    }
}
