//! Which loopback addresses the demo uses. They are chosen once and kept: a restarted child comes back where it was.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};

/// The port that demo nodes and the client take when nobody has it.
const PORT: u16 = 1717;
/// Where others are looked for: below what the system gives to outgoing connections, which could take a killed child's port.
const OTHER_PORTS: Range<u16> = 20_000..32_000;
/// Held by the one demo that may take [`PORT`]: two that start at once would both find it free.
const FIRST_DEMO: &[u8] = b"port17-demo";

/// Chooses ports.
#[derive(Debug)]
pub(super) struct Ports {
    /// In the abstract namespace: it ends with the process, and each network namespace has its own.
    first_demo: Option<UnixDatagram>,
    next: u16,
}

impl Ports {
    /// Starts where the process id says, so that two demos rarely look at the same port.
    pub(super) fn new() -> Self {
        let first_demo = UnixAddress::from_abstract_name(FIRST_DEMO).and_then(|name| UnixDatagram::bind_addr(&name)).ok();
        // The remainder is less than the range.
        let offset = (std::process::id().wrapping_mul(97) % u32::from(OTHER_PORTS.end - OTHER_PORTS.start)) as u16;
        Self { first_demo, next: OTHER_PORTS.start + offset }
    }

    /// An address on `ip`, with the usual port where it is free.
    pub(super) fn usual(&mut self, ip: Ipv4Addr) -> io::Result<SocketAddr> {
        let usual = SocketAddr::from((ip, PORT));
        if self.first_demo.is_some() && is_free(usual) { Ok(usual) } else { self.other(ip) }
    }

    /// An address on `ip`, with any free port of the range.
    pub(super) fn other(&mut self, ip: Ipv4Addr) -> io::Result<SocketAddr> {
        for _ in OTHER_PORTS {
            let address = SocketAddr::from((ip, self.next));
            self.next = if self.next + 1 == OTHER_PORTS.end { OTHER_PORTS.start } else { self.next + 1 };
            if is_free(address) {
                return Ok(address);
            }
        }
        let problem = format!("{ip} has no free port in {} to {}", OTHER_PORTS.start, OTHER_PORTS.end - 1);
        Err(io::Error::new(io::ErrorKind::AddrInUse, problem))
    }
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let mut ports = Ports::new();
        let first = ports.other(Ipv4Addr::LOCALHOST).unwrap();
        let taken = TcpListener::bind(first).unwrap();
        ports.next = first.port();

        let second = ports.other(Ipv4Addr::LOCALHOST).unwrap();

        assert_ne!(taken.local_addr().unwrap(), second);
        assert!(OTHER_PORTS.contains(&first.port()) && OTHER_PORTS.contains(&second.port()));
    }

    #[test]
    fn only_one_demo_takes_the_usual_port() {
        let _first = Ports::new();
        let mut second = Ports::new();
        assert!(second.first_demo.is_none());
        assert!(OTHER_PORTS.contains(&second.usual(Ipv4Addr::new(127, 0, 1, 1)).unwrap().port()));
    }

    #[test]
    fn the_range_is_used_round_and_round() {
        let mut ports = Ports::new();
        ports.next = OTHER_PORTS.end - 1;
        ports.other(Ipv4Addr::LOCALHOST).unwrap();
        assert!(OTHER_PORTS.contains(&ports.next));
    }
}
