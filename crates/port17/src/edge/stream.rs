//! A stream's task: it owns a socket, and copies its bytes to and from the circuit.

use std::net::IpAddr;
use std::sync::Arc;

use port17_proto::circuit::mux::{Received, StreamState};
use port17_proto::ids::StreamId;
use port17_proto::planted::planted;
use port17_proto::wire::registry::ResetCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{Bell, Edge};
use crate::lane::lock;
use crate::objects::Counted;
use crate::planted;

/// The application ended badly, or the stream was reset: the other side is to be told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamBroken;

/// An open stream that copies bytes.
pub trait PumpStream: Send + 'static {
    /// Copies both ways until both directions have ended. Dropping the future ends the stream.
    ///
    /// # Errors
    /// When it did not end in order: the application must see a reset, not an end.
    fn pump<R, W>(self, from_app: R, to_app: W) -> impl Future<Output = Result<(), StreamBroken>> + Send
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send;
}

/// One stream, as its task holds it. Dropping it resets it, unless both directions have ended in order: then what is still queued
/// goes out as credit allows.
pub struct EdgeStream {
    pub(super) edge: Arc<Edge>,
    pub(super) id: StreamId,
    pub(super) bell: Arc<Bell>,
    pub(super) ended: bool,
    pub(super) _counted: Counted,
}

/// The first and the largest read from a socket: small streams stay small, busy ones read much at once.
const FIRST_READ_BYTES: usize = 4 * 1024;
const LARGEST_READ_BYTES: usize = 128 * 1024;

impl EdgeStream {
    /// Waits for the answer to OPEN (client).
    ///
    /// # Errors
    /// How the exit refused, or `Protocol` when the circuit ended.
    pub async fn opened(&self) -> Result<(), ResetCode> {
        loop {
            match self.edge.with_mux(|mux, _| mux.state(self.id)) {
                StreamState::Open => return Ok(()),
                StreamState::Over(code) => return Err(code),
                StreamState::Ended => return Err(ResetCode::Protocol),
                StreamState::Opening => self.bell.incoming.notified().await,
            }
        }
    }

    /// Queues bytes in front of all that [`Self::pump`] reads.
    pub fn push(&self, bytes: Vec<u8>) {
        self.edge.with_mux(|mux, _| mux.push_data(self.id, bytes));
    }

    /// Answers OPEN (exit).
    pub fn answer(&self, ip: IpAddr, ttl_s: u32) {
        self.edge.with_mux(|mux, _| mux.opened(self.id, ip, ttl_s));
    }

    /// Ends the stream both ways at once.
    pub fn reset(&self, code: ResetCode) {
        self.edge.with_mux(|mux, now_ms| mux.reset(self.id, code, now_ms));
    }

    /// Waits until the stream is over, whoever ends it.
    pub async fn over(&self) {
        while !matches!(self.edge.with_mux(|mux, _| mux.state(self.id)), StreamState::Over(_) | StreamState::Ended) {
            self.bell.incoming.notified().await;
        }
    }

    async fn send<R: AsyncRead + Unpin>(&self, mut from_app: R) -> Result<(), StreamBroken> {
        let mut size = FIRST_READ_BYTES;
        loop {
            let room = self.room().await.ok_or(StreamBroken)?;
            let size_now = size.min(room);
            let mut chunk = Vec::with_capacity(size_now);
            let mut bounded = (&mut from_app).take(size_now as u64);
            let read = tokio::select! {
                biased;
                read = bounded.read_buf(&mut chunk) => read.map_err(|_| StreamBroken)?,
                () = self.broken(&self.bell.outgoing) => return Err(StreamBroken),
            };
            if read == 0 {
                self.edge.with_mux(|mux, _| mux.push_fin(self.id));
                return self.fin_sent().await;
            }
            if read == size {
                size = (size * 2).min(LARGEST_READ_BYTES);
            } else if read < size / 4 {
                size = (size / 2).max(FIRST_READ_BYTES);
            }
            if planted("leak-alpn") {
                planted::show_guard_first_bytes(&chunk);
            }
            self.edge.with_mux(|mux, _| mux.push_data(self.id, chunk));
        }
    }

    /// Waits for room in the stream's queue; none when the stream is over.
    async fn room(&self) -> Option<usize> {
        loop {
            match lock(&self.edge.mux).room(self.id)? {
                0 => {}
                room => return Some(room),
            }
            self.bell.outgoing.notified().await;
        }
    }

    /// Waits until all bytes and the end have been packed: who drops the stream before that cuts off what still waits.
    async fn fin_sent(&self) -> Result<(), StreamBroken> {
        loop {
            let (sent, state) = self.edge.with_mux(|mux, _| (mux.fin_is_sent(self.id), mux.state(self.id)));
            match sent {
                Some(true) => return Ok(()),
                Some(false) => self.bell.outgoing.notified().await,
                None => return if state == StreamState::Ended { Ok(()) } else { Err(StreamBroken) },
            }
        }
    }

    /// Waits until the stream was reset. `bell` is that of the half that waits.
    async fn broken(&self, bell: &Notify) {
        while lock(&self.edge.mux).room(self.id).is_some() {
            bell.notified().await;
        }
    }

    async fn receive<W: AsyncWrite + Unpin>(&self, mut to_app: W) -> Result<(), StreamBroken> {
        loop {
            let received = self.edge.with_mux(|mux, _| mux.take(self.id));
            let Received { chunks, fin } = received.ok_or(StreamBroken)?;
            let mut bytes = 0;
            for chunk in &chunks {
                tokio::select! {
                    biased;
                    written = to_app.write_all(chunk) => written.map_err(|_| StreamBroken)?,
                    // An application that reads no more must not hold a stream that is over.
                    () = self.broken(&self.bell.incoming) => return Err(StreamBroken),
                }
                bytes += chunk.len() as u64;
            }
            let nothing = chunks.is_empty();
            drop(chunks);
            if fin {
                // Nobody is left to tell when the application does not want even the end.
                let _ = to_app.shutdown().await;
            }
            if !nothing || fin {
                self.edge.with_mux(|mux, now_ms| mux.consumed(self.id, bytes, now_ms));
            }
            if fin {
                return Ok(());
            }
            if nothing {
                self.bell.incoming.notified().await;
            }
        }
    }
}

impl PumpStream for EdgeStream {
    /// A half-close travels as one.
    async fn pump<R, W>(mut self, from_app: R, to_app: W) -> Result<(), StreamBroken>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        tokio::try_join!(self.send(from_app), self.receive(to_app))?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for EdgeStream {
    fn drop(&mut self) {
        lock(&self.edge.bells).remove(&self.id);
        if !self.ended {
            self.reset(ResetCode::Unreachable);
        }
    }
}

/// Copies a stream's bytes to and from a socket. The socket ends in order if the stream does; whatever else ends it, also the death
/// of this process, is a reset: what was cut must not be taken for whole.
pub(crate) async fn pump_socket<S: PumpStream>(stream: S, mut socket: TcpStream, early: Vec<u8>) {
    let set_linger = |socket: &TcpStream, time| {
        // A socket that is gone already needs neither.
        let _ = socket2::SockRef::from(socket).set_linger(time);
    };
    set_linger(&socket, Some(std::time::Duration::ZERO));
    // Not `into_split`: its halves end the connection in order when they are dropped.
    let (mut from, mut to) = socket.split();
    if stream.pump(std::io::Cursor::new(early).chain(&mut from), &mut to).await.is_ok() {
        set_linger(&socket, None);
    }
}
