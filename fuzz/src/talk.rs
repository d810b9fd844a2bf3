//! A connection in memory, whose other end has said all that it will say: nothing ever waits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of it.
#[derive(Debug)]
pub struct Talk {
    coming: Vec<u8>,
    read: usize,
    /// Bytes that come at once.
    piece: usize,
    /// What was written.
    pub said: Vec<u8>,
}

impl Talk {
    /// `coming` comes in pieces of this many bytes, then the end.
    pub fn new(coming: &[u8], piece: usize) -> Self {
        Self { coming: coming.to_vec(), read: 0, piece: piece.max(1), said: Vec::new() }
    }

    /// What has not been read.
    pub fn unread(&self) -> &[u8] {
        &self.coming[self.read..]
    }
}

impl AsyncRead for Talk {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.unread().len().min(self.piece).min(buffer.remaining());
        buffer.put_slice(&self.unread()[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Talk {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.said.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs what needs a clock, and waits for nobody.
pub fn run<F: Future>(work: F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without sockets can be made");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}
