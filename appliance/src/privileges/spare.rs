//! Sockets with large receive buffers, for ports that are bound after the privilege for them is gone.

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A rack that is switched on asks at once, and each packet takes some 800 bytes of the kernel's accounting: the default
/// of 208 KiB holds 250 of them.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Ports are bound again when an interface comes back as another: so often before the host's own limit holds.
const SPARE: usize = 128;

static SPARES: Spares = Spares(Mutex::new(Vec::new()));

/// Sockets that have their large buffers already.
struct Spares(Mutex<Vec<Socket>>);

/// Makes them, where the kernel lets us.
pub fn fill() {
    let mut sockets = SPARES.lock();
    while sockets.len() < SPARE {
        match large() {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                tracing::debug!(%error, "no socket can be given a large receive buffer (CAP_NET_ADMIN)");
                return;
            }
        }
    }
}

/// A UDP socket that `bind` has bound, with a receive buffer for a rack that is switched on at once; as large as the host
/// allows (net.core.rmem_max) where we lack the privilege for more.
pub fn receiver(domain: Domain, bind: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<Socket> {
    SPARES.receiver(domain, bind)
}

impl Spares {
    fn receiver(&self, domain: Domain, bind: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<Socket> {
        let spare = if domain == Domain::IPV4 { self.lock().pop() } else { None };
        let Some(socket) = spare else {
            let socket = open(domain)?;
            if set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
                socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            }
            return bind(&socket).map(|()| socket);
        };
        // Whoever waits for an interface tries again and again: a socket that was not bound is spared.
        match bind(&socket) {
            Ok(()) => Ok(socket),
            Err(error) => {
                self.lock().push(socket);
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Socket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn large() -> io::Result<Socket> {
    let socket = open(Domain::IPV4)?;
    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    Ok(socket)
}

fn open(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(socket: &Socket) -> usize {
        socket.recv_buffer_size().unwrap()
    }

    #[test]
    fn a_receiver_is_had_with_or_without_spares() {
        let plain = buffer(&open(Domain::IPV4).unwrap());
        for domain in [Domain::IPV4, Domain::IPV6] {
            assert!(buffer(&receiver(domain, |_| Ok(())).unwrap()) > plain);
        }
    }

    #[test]
    fn what_could_not_be_bound_is_spared_again() {
        let spares = Spares(Mutex::new(vec![open(Domain::IPV4).unwrap()]));
        for _ in 0..3 {
            let refused = spares.receiver(Domain::IPV4, |_| Err(io::Error::other("no such interface")));
            assert_eq!(refused.map(drop).unwrap_err().to_string(), "no such interface");
            assert_eq!(spares.lock().len(), 1);
        }
        spares.receiver(Domain::IPV4, |_| Ok(())).unwrap();
        assert!(spares.lock().is_empty());
    }
}
