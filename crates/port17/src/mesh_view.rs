//! What a client or an exit needs of the Bottlerack, made anew when a Bottle changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use port17_proto::bottle::{Address, VerifiedBottle};
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::KemPublicKey;
use port17_proto::ids::NodeId;
use port17_proto::navigator::Map;
use port17_proto::policy::ExitPolicy;
use port17_proto::portname::PortName;

/// One node as its Bottle describes it.
pub struct NodeView {
    /// The key that a SETUP record for it is sealed to.
    pub circuit_key: KemPublicKey,
    /// What it opens, if it is an exit.
    pub exit_policy: Option<ExitPolicy>,
    /// Its name.
    pub portname: PortName,
}

/// The mesh at one moment.
#[derive(Default)]
pub struct MeshView {
    /// Nodes and the links that both their ends list.
    pub map: Map,
    /// The nodes by identity.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Where trusted nodes accept lanes: no exit connects there. What others claim refuses nothing (law 1): else a forged Bottle
    /// could take a web site off the network.
    pub addresses: Vec<SocketAddr>,
}

impl MeshView {
    /// Made from verified Bottles, each with the trust in its node. `key_margin_ms`: a circuit key is used until this long before its
    /// end.
    pub fn build(bottles: &[(&VerifiedBottle, Trust)], key_margin_ms: u64) -> Self {
        let map = Map::build(bottles.iter().copied(), key_margin_ms);
        let trusted = bottles.iter().filter(|(_, trust)| *trust == Trust::Trusted);
        let addresses = trusted.flat_map(|(bottle, _)| bottle.content().addresses.iter().map(Address::socket)).collect();
        let nodes = bottles.iter().map(|(bottle, _)| {
            let content = bottle.content();
            let view = NodeView {
                circuit_key: content.circuit_key.public.clone(),
                exit_policy: content.exit_policy.clone(),
                portname: bottle.portname(),
            };
            (bottle.node_id(), view)
        });
        Self { map, nodes: nodes.collect(), addresses }
    }
}
