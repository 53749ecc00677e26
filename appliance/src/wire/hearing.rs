//! A socket of datagrams that wakes its task for what comes in alone.
//!
//! Tokio's own sockets also listen for room to send, and the kernel tells of room at each datagram that leaves: a server
//! of thousands of small answers a second would be woken as often again for nothing.

use socket2::Socket;
use std::{io, os::fd::AsRawFd, time::Duration};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

/// How often a full queue is tried again. A tenth of a second is forever to a card, and short to a client.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// A non-blocking socket, in the hands of tokio.
#[derive(Debug)]
pub struct Hearing(AsyncFd<Socket>);

impl Hearing {
    /// Takes a socket over.
    #[allow(unsafe_code)]
    pub fn new(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // SAFETY: a `Socket` owns its descriptor, is nowhere exchanged for another, and is closed when it is dropped.
        Ok(Self(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?))
    }

    /// The socket.
    pub fn socket(&self) -> &Socket {
        self.0.get_ref()
    }

    /// Waits until something came in that `take` can have.
    pub async fn receive<T>(&self, mut take: impl FnMut(&Socket) -> io::Result<T>) -> io::Result<T> {
        self.0.async_io(Interest::READABLE, |socket| take(socket)).await
    }

    /// Sends, and waits a moment where the queue is full; fails with `WouldBlock` where it stays so.
    pub async fn send<T>(&self, mut send: impl FnMut(&Socket) -> io::Result<T>) -> io::Result<T> {
        for _ in 1..TRIES {
            match send(self.socket()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
        send(self.socket())
    }
}

impl AsRawFd for Hearing {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    #[tokio::test]
    async fn a_full_queue_is_waited_for_and_given_up() {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        let ours = Hearing::new(ours).unwrap();
        while ours.socket().send(&[0; 100]).is_ok() {}
        let full = ours.send(|socket| socket.send(&[0; 100])).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let room = tokio::spawn(async move {
            sleep(5 * PAUSE).await;
            std::io::Read::read(&mut &theirs, &mut [0; 100]).map(|_| theirs)
        });
        assert_eq!(ours.send(|socket| socket.send(&[0; 100])).await.unwrap(), 100);
        drop(room.await.unwrap().unwrap());
    }
}
