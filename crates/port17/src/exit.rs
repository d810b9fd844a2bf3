//! The exit: opens streams to real servers, within its policy (spec 07).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, RwLock};

use port17_proto::circuit::message::{Host, Target};
use port17_proto::limits::EXIT_LOOKUPS;
use port17_proto::params::Params;
use port17_proto::planted::planted;
use port17_proto::policy::{ExitGuard, ExitPolicy};
use port17_proto::wire::registry::{ResetCode, StreamProtocol};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::edge::pump_socket;
use crate::edge::{EdgeStream, Opener};
use crate::planted;

/// What a resolved name's time to live is shown as: the system's resolver does not tell it, and spec 07 keeps it within 60..3600 s.
const SYSTEM_TTL_S: u32 = 60;

/// The exit of a node.
pub struct Exit {
    policy: ExitPolicy,
    guard: RwLock<ExitGuard>,
    hosts: BTreeMap<String, IpAddr>,
    params: Params,
    runtime: Handle,
    lookups: Arc<Semaphore>,
}

impl Exit {
    /// An exit. `hosts` are names that it resolves itself.
    pub fn new(
        policy: ExitPolicy,
        guard: ExitGuard,
        hosts: BTreeMap<String, IpAddr>,
        params: Params,
        runtime: Handle,
    ) -> Arc<Self> {
        let lookups = Arc::new(Semaphore::new(EXIT_LOOKUPS));
        Arc::new(Self { policy, guard: RwLock::new(guard), hosts, params, runtime, lookups })
    }

    /// Changes what is refused in front of the policy.
    pub fn update_guard(&self, change: impl FnOnce(&mut ExitGuard)) {
        change(&mut self.guard.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn allows(&self, address: SocketAddr) -> bool {
        if planted("leak-exit-policy") {
            return true;
        }
        let guard = self.guard.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.check(address).is_ok() && self.policy.allows(StreamProtocol::Tcp, address.ip(), address.port())
    }

    async fn resolve(&self, target: &Target) -> Result<(Vec<SocketAddr>, u32), ResetCode> {
        let name = match &target.host {
            Host::Ip(ip) => return Ok((vec![SocketAddr::new(*ip, target.port)], 0)),
            Host::Name(name) => name,
        };
        if let Some(ip) = self.hosts.get(name) {
            return Ok((vec![SocketAddr::new(*ip, target.port)], SYSTEM_TTL_S));
        }
        let lookup = timeout(self.params.exit_resolve_timeout, self.look_up(name.clone(), target.port));
        let addresses = lookup.await.map_err(|_| ResetCode::Timeout)?.ok_or(ResetCode::Unreachable)?;
        if addresses.is_empty() { Err(ResetCode::Unreachable) } else { Ok((addresses, SYSTEM_TTL_S)) }
    }

    /// Asks the system. Who gives up waiting does not end the system's lookup: it holds its place until it has.
    async fn look_up(&self, name: String, port: u16) -> Option<Vec<SocketAddr>> {
        let place = Arc::clone(&self.lookups).acquire_owned().await.ok()?;
        let work = move || {
            let found = (name.as_str(), port).to_socket_addrs().ok().map(Iterator::collect);
            drop(place);
            found
        };
        self.runtime.spawn_blocking(work).await.ok()?
    }

    async fn connect(&self, target: &Target) -> Result<(TcpStream, IpAddr, u32), ResetCode> {
        if planted("leak-exit-tells") {
            planted::tell_another_node(target);
        }
        if planted("leak-log") {
            planted::log(target);
        }
        let (addresses, ttl_s) = self.resolve(target).await?;
        let (stream, ip) = self.dial(addresses).await?;
        Ok((stream, ip, ttl_s))
    }

    /// Dials the addresses that are allowed, in turn; the address that was checked is the one that is dialled (spec 07, 4).
    async fn dial(&self, addresses: Vec<SocketAddr>) -> Result<(TcpStream, IpAddr), ResetCode> {
        let allowed: Vec<_> = addresses.into_iter().filter(|address| self.allows(*address)).collect();
        let mut why = ResetCode::Policy;
        for address in both_families(allowed) {
            match timeout(self.params.exit_dial_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((stream, address.ip())),
                Ok(Err(error)) => why = coarse(&error),
                Err(_) => why = ResetCode::Timeout,
            }
        }
        Err(why)
    }

    async fn serve(&self, stream: EdgeStream, target: Target) {
        let connected = tokio::select! {
            connected = self.connect(&target) => connected,
            () = stream.over() => return,
        };
        match connected {
            Ok((socket, ip, ttl_s)) => {
                // Without it small answers wait for their acknowledgements.
                let _ = socket.set_nodelay(true);
                stream.answer(ip, ttl_s);
                pump_socket(stream, socket, Vec::new()).await;
            }
            Err(code) => stream.reset(code),
        }
    }
}

/// The first address of each family first, so that one that does not answer costs one time limit.
fn both_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    const MOST: usize = 4;
    let Some(first) = addresses.first().copied() else { return addresses };
    let other = addresses.iter().copied().find(|address| address.is_ipv4() != first.is_ipv4());
    let mut order: Vec<_> = std::iter::once(first).chain(other).collect();
    order.extend(addresses.into_iter().filter(|address| *address != first && Some(*address) != other));
    order.truncate(MOST);
    order
}

fn coarse(error: &io::Error) -> ResetCode {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ResetCode::Refused,
        io::ErrorKind::TimedOut => ResetCode::Timeout,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => ResetCode::Resource,
        _ => ResetCode::Unreachable,
    }
}

/// Opens the streams of circuits that end here.
pub struct ExitOpener(pub Arc<Exit>);

impl Opener for ExitOpener {
    fn open(&self, stream: EdgeStream, target: Target) {
        let exit = Arc::clone(&self.0);
        self.0.runtime.spawn(async move { exit.serve(stream, target).await });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    /// An exit that may reach this address and port alone, and 127.0.0.9 at any port.
    fn exit_to(allowed: SocketAddr) -> Arc<Exit> {
        let lifted = [format!("{}/32:{}", allowed.ip(), allowed.port()), "127.0.0.9/32:*".to_owned()];
        let guard = ExitGuard::new(lifted.iter().map(|pattern| pattern.parse().unwrap()).collect());
        let params = Params { exit_dial_timeout: Duration::from_millis(200), ..Params::demo() };
        Exit::new(ExitPolicy::parse(&["accept tcp *:*"]).unwrap(), guard, BTreeMap::new(), params, Handle::current())
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn if_one_address_fails_the_next_one_is_tried() {
        let (_listener, open) = listener().await;
        let closed = SocketAddr::new([127, 0, 0, 9].into(), open.port());
        let (_, ip) = exit_to(open).dial(vec![closed, open]).await.unwrap();
        assert_eq!(ip, open.ip());
        assert_eq!(exit_to(open).dial(vec![closed]).await.unwrap_err(), ResetCode::Refused);
    }

    /// Spec 07, M4: of several addresses of a name those that are refused are not dialled, also when nothing else is left.
    #[tokio::test]
    async fn only_addresses_that_were_checked_are_dialled() {
        let (forbidden_listener, forbidden) = listener().await;
        let (_listener, open) = listener().await;
        let exit = exit_to(open);
        let (_, ip) = exit.dial(vec![forbidden, open, forbidden]).await.unwrap();
        assert_eq!(ip, open.ip());
        assert_eq!(exit.dial(vec![forbidden]).await.unwrap_err(), ResetCode::Policy);
        assert_eq!(exit.dial(Vec::new()).await.unwrap_err(), ResetCode::Policy);
        let nobody = tokio::time::timeout(Duration::ZERO, forbidden_listener.accept()).await;
        assert!(nobody.is_err(), "a refused address was dialled");
    }

    #[test]
    fn both_families_come_first_and_at_most_four_are_tried() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [a, b, c] = ["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"].map(address);
        let [x, y] = ["[2a00::1]:1", "[2a00::2]:1"].map(address);
        assert_eq!(both_families(vec![a, b, c, x, y]), [a, x, b, c]);
        assert_eq!(both_families(vec![x, a]), [x, a]);
        assert_eq!(both_families(Vec::new()), []);
    }
}
