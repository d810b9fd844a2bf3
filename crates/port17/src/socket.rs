//! A socket that carries a stream to or from an application.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A socket that is reset when it is dropped, or when the process dies, unless [`Self::ended`] was called: what was cut must never
/// look like an end in order, or the application takes it for whole.
pub(crate) struct StreamSocket {
    from: OwnedReadHalf,
    /// None once it is over.
    to: Option<OwnedWriteHalf>,
}

impl StreamSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // A socket that is gone already needs no reset.
        let _ = linger(&stream, Some(Duration::ZERO));
        let (from, to) = stream.into_split();
        Self { from, to: Some(to) }
    }

    /// Both directions.
    ///
    /// # Errors
    /// Never before [`Self::ended`].
    pub(crate) fn halves(&mut self) -> io::Result<(&mut OwnedReadHalf, &mut OwnedWriteHalf)> {
        let to = self.to.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok((&mut self.from, to))
    }

    /// Both directions have ended in order: closes the socket in order too.
    pub(crate) fn ended(mut self) {
        let _ = linger(self.from.as_ref(), None);
        drop(self.to.take());
    }
}

impl Drop for StreamSocket {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            // Dropped in the usual way it would send an end before the reset.
            to.forget();
        }
    }
}

fn linger(stream: &TcpStream, time: Option<Duration>) -> io::Result<()> {
    SockRef::from(stream).set_linger(time)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (StreamSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (StreamSocket::new(listener.accept().await.unwrap().0), other)
    }

    #[tokio::test]
    async fn a_dropped_stream_is_a_reset_and_never_an_end() {
        for _ in 0..100 {
            let (socket, mut other) = pair().await;
            let reading = tokio::spawn(async move { other.read(&mut [0; 1]).await });
            tokio::task::yield_now().await;
            drop(socket);
            assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn an_end_in_order_is_an_end() {
        let (socket, mut other) = pair().await;
        socket.ended();
        assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
