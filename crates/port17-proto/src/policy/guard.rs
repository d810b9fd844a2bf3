use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::pattern::Pattern;
use super::special::{forms, special_purpose};

/// Why an exit does not open a destination, whatever its policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Port 0 names nothing.
    #[error("port 0 is no destination")]
    NoPort,
    /// A lane or link of this node, or of a node with a trusted Bottle (law 1).
    #[error("the destination is part of the mesh")]
    Mesh,
    /// The address is not public: the range it is in.
    #[error("the address is not public ({0})")]
    NotPublic(&'static str),
    /// The address is this node's own.
    #[error("the address is the exit's own")]
    Own,
    /// The address is on a network that this node is attached to.
    #[error("the address is on the exit's own network")]
    OnLink,
}

/// What is refused in front of the exit policy (spec 07, 3). It is asked for every connection and every datagram, with the address
/// that will really be used: after names are resolved, never before.
///
/// An unverified claim refuses nothing: only addresses of trusted Bottles go into [`Self::set_mesh`], else a forged Bottle could
/// take a web site off the network.
#[derive(Debug, Clone, Default)]
pub struct ExitGuard {
    lifted: Vec<Pattern>,
    own: BTreeSet<IpAddr>,
    on_link: Vec<IpNet>,
    mesh: BTreeSet<(IpAddr, u16)>,
    /// Ports of lanes that listen on every address of this node.
    own_lane_ports: BTreeSet<u16>,
}

impl ExitGuard {
    /// `lifted` is `danger_exit_private`: destinations that may be opened although they are not public, the node's own or on its
    /// network. It never lifts the mesh.
    pub fn new(lifted: Vec<Pattern>) -> Self {
        Self { lifted, ..Self::default() }
    }

    /// The node's own addresses and the prefixes that it is attached to, as they are now.
    pub fn set_local(&mut self, own: impl IntoIterator<Item = IpAddr>, on_link: impl IntoIterator<Item = IpNet>) {
        self.own = own.into_iter().map(|ip| ip.to_canonical()).collect();
        self.on_link = on_link.into_iter().collect();
    }

    /// Both ends of the node's own lanes and links, the addresses it listens on for lanes, and the addresses of all trusted Bottles,
    /// as they are now. A listener on the unspecified address stands for its port on every own and every loopback address.
    pub fn set_mesh(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.mesh.clear();
        self.own_lane_ports.clear();
        for address in addresses {
            let ip = address.ip().to_canonical();
            if ip.is_unspecified() {
                self.own_lane_ports.insert(address.port());
            } else {
                self.mesh.insert((ip, address.port()));
            }
        }
    }

    /// Whether the exit may open `destination`, over TCP or UDP alike, if its policy allows it too.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, destination: SocketAddr) -> Result<(), Refusal> {
        let port = destination.port();
        if port == 0 {
            return Err(Refusal::NoPort);
        }
        // The mesh first: nothing lifts it (law 1).
        if forms(destination.ip()).any(|ip| self.is_mesh(ip, port)) {
            return Err(Refusal::Mesh);
        }
        forms(destination.ip()).try_for_each(|ip| match self.not_public(ip) {
            Some(refusal) if !self.lifted.iter().any(|pattern| pattern.matches(ip, port)) => Err(refusal),
            Some(_) | None => Ok(()),
        })
    }

    fn is_mesh(&self, ip: IpAddr, port: u16) -> bool {
        // A connection to the unspecified address ends at this host too.
        let is_here = ip.is_loopback() || ip.is_unspecified() || self.own.contains(&ip);
        let is_own_lane = is_here && self.own_lane_ports.contains(&port);
        let is_named = self.mesh.contains(&(ip, port));
        let is_loopback_lane = ip.is_unspecified() && self.mesh.iter().any(|(mesh, known)| *known == port && mesh.is_loopback());
        is_own_lane || is_named || is_loopback_lane
    }

    fn not_public(&self, ip: IpAddr) -> Option<Refusal> {
        if let Some(range) = special_purpose(ip) {
            return Some(Refusal::NotPublic(range));
        }
        if self.own.contains(&ip) {
            return Some(Refusal::Own);
        }
        self.on_link.iter().any(|net| net.contains(&ip)).then_some(Refusal::OnLink)
    }
}
