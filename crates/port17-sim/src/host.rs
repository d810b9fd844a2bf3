//! One machine: its keys, its disk, its clock, and the process that runs on it, if one does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use port17_proto::bottle::{Address, Flags, Seq, VerifiedBottle};
use port17_proto::circuit::keyring::KeyId;
use port17_proto::crypto::{Entropy, KemBackend, SigningKey, VerifyingKey};
use port17_proto::identity::Identity;
use port17_proto::ids::NodeId;
use port17_proto::navigator::Map;
use port17_proto::network::Definition;
use port17_proto::node::Node;
use port17_proto::node::config::{ClientSetup, Config, NodeSetup, Role};
use port17_proto::node::guard::GuardSet;
use port17_proto::node::io::{DialId, Input, LaneId};
use port17_proto::params::Params;
use port17_proto::policy::ExitPolicy;
use port17_proto::portname::Label;
use port17_proto::wire::registry::LaneType;

use crate::client::Client;
use crate::disk::Disk;
use crate::judge::Holdings;
use crate::lane::EndId;
use crate::plane::Plane;

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node of the mesh.
    Node,
    /// A client.
    Client,
}

/// One machine.
pub struct Host {
    /// What it is for.
    pub kind: Kind,
    /// Its keys follow from it.
    pub seed: u64,
    /// A node's identity; a client's means nothing.
    pub id: NodeId,
    /// The key that its lanes show.
    pub link_key: VerifyingKey,
    /// Where it stands, in [`crate::geography::CITIES`].
    pub city: usize,
    /// Its address.
    pub ip: IpAddr,
    /// Where a node that is not hidden listens.
    pub listens: Option<SocketAddr>,
    /// The address that an impostor claims.
    pub claims: Option<SocketAddr>,
    /// The one node that it links to, if it does not decide itself.
    pub dials_only: Option<NodeId>,
    /// It is an exit.
    pub is_exit: bool,
    /// It does what the code says, and nothing else.
    pub is_honest: bool,
    /// It has left for good.
    pub has_left: bool,
    /// It said farewell.
    pub said_farewell: bool,
    /// What its system's clock says more or less than it should.
    pub clock_error_ms: i64,
    /// How far behind its clock was when the process started: as far as that, its engine is behind too.
    pub(crate) started_late_ms: i64,
    /// What survives its process.
    pub disk: Disk,
    /// The process's number; it counts up with each end of one.
    pub life: u64,
    /// When it started.
    pub started_us: u64,
    /// The engine, while a process runs.
    pub node: Option<Node>,
    /// The data plane of the process.
    pub plane: Rc<RefCell<Plane>>,
    /// Ends of lanes, by the engine's name.
    pub lanes: BTreeMap<LaneId, EndId>,
    /// Dials that are under way.
    pub dials: BTreeSet<DialId>,
    /// When it was stopped last, and went on.
    pub(crate) thawed_us: u64,
    /// It is stopped: what comes waits.
    pub is_frozen: bool,
    pub(crate) backlog: VecDeque<Input>,
    pub(crate) deadline_us: Option<u64>,
    pub(crate) wake_us: Option<u64>,
    pub(crate) sweep_is_planned: bool,
    /// A client's guards.
    pub guards: Option<GuardSet>,
    /// The guards that a client's disk holds while it is off.
    pub(crate) guards_before: Option<GuardSet>,
    /// The client part.
    pub client: Client,
    /// A node's own Bottles that are out, newest last.
    pub published: Vec<VerifiedBottle>,
    /// The newest own seq that was ever published, over all lives.
    pub newest_seq: Option<Seq>,
    /// Circuit keys, with the time of their making in Unix seconds of the host.
    pub keys: BTreeMap<KeyId, u64>,
    /// When links were lost last.
    pub(crate) lost_us: BTreeMap<NodeId, u64>,
    pub(crate) map: Option<Rc<Map>>,
    pub(crate) holdings: Holdings,
    pub(crate) entropy: Entropy,
    pub(crate) last_unix_ms: u64,
}

fn identity(seed: u64) -> (Identity, VerifyingKey) {
    let mut entropy = Entropy::from_number(seed);
    (Identity::generate(&mut entropy), SigningKey::generate(&mut entropy).public())
}

/// Each host in a network of its own (/16), so that rules about address blocks keep nobody apart.
fn address(place: usize) -> IpAddr {
    let (high, low) = (20 + place / 250 % 70, place % 250);
    let byte = |number: usize| u8::try_from(number % 256).unwrap_or(0);
    IpAddr::V4(Ipv4Addr::new(byte(high), byte(low), byte(7 + place / 17_500), 1))
}

impl Host {
    /// A machine at this place of the world, off.
    pub(crate) fn new(kind: Kind, place: usize, seed: u64, params: &Params) -> Self {
        let (identity, link_key) = identity(seed);
        let id = identity.node_id();
        Self {
            kind,
            seed,
            id,
            link_key,
            city: 0,
            ip: address(place),
            listens: None,
            claims: None,
            dials_only: None,
            is_exit: false,
            is_honest: true,
            has_left: false,
            said_farewell: false,
            clock_error_ms: 0,
            started_late_ms: 0,
            disk: Disk::default(),
            life: 0,
            started_us: 0,
            node: None,
            plane: Plane::new((kind == Kind::Node).then_some(id), false, params, 0),
            lanes: BTreeMap::new(),
            dials: BTreeSet::new(),
            is_frozen: false,
            thawed_us: 0,
            backlog: VecDeque::new(),
            deadline_us: None,
            wake_us: None,
            sweep_is_planned: false,
            guards: None,
            guards_before: None,
            client: Client::default(),
            published: Vec::new(),
            lost_us: BTreeMap::new(),
            newest_seq: None,
            keys: BTreeMap::new(),
            map: None,
            holdings: Holdings::default(),
            entropy: Entropy::from_number(seed ^ 0x5eed),
            last_unix_ms: 0,
        }
    }

    /// Its signing key, for what a liar signs and for farewells.
    pub(crate) fn signing_key(&self) -> Identity {
        identity(self.seed).0
    }

    pub(crate) fn config(&mut self, params: &Params, network: &Definition) -> Config {
        let role = match self.kind {
            Kind::Client => Role::Client(ClientSetup { guard: None, hops: None }),
            Kind::Node => Role::Node(Box::new(self.setup())),
        };
        Config {
            role,
            params: params.clone(),
            network: Some(network.clone()),
            stored: self.disk.records(),
            entropy: self.entropy.fork(),
        }
    }

    fn setup(&self) -> NodeSetup {
        let (identity, link_key) = identity(self.seed);
        NodeSetup {
            identity,
            label: "node-sim".parse::<Label>().expect("a label as spec 03, 4 wants it"),
            group: String::new(),
            link_key,
            link_key_expiry_s: u64::MAX,
            next_link_key: None,
            addresses: self.claims.or(self.listens).map(|at| Address::new(at, LaneType::TlsTcp)).into_iter().collect(),
            egress: Vec::new(),
            exit_policy: self.is_exit.then(|| ExitPolicy::parse(&["accept tcp *:80"]).expect("a policy as spec 07 has it")),
            flags: Flags::default(),
            software: "port17 simulated".to_owned(),
            neighbours: self.dials_only.map(|node| vec![node]),
            accept_clients: true,
            kem: KemBackend::Seeded,
            stored_seq: self.disk.seq(),
        }
    }

    /// Whether its process runs and takes what comes.
    pub fn is_up(&self) -> bool {
        self.node.is_some() && !self.is_frozen
    }

    /// Whether it is in the time of all others: an engine's clock never runs back, so who started with a wrong one keeps it for a while.
    pub(crate) fn clock_is_right(&self) -> bool {
        self.clock_error_ms == 0 && self.started_late_ms == 0
    }

    /// Whether it is to be judged: an honest machine that is there.
    pub fn counts(&self) -> bool {
        self.is_honest && self.node.is_some() && !self.has_left
    }
}
