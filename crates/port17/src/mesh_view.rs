//! What a client or an exit needs of the Bottlerack, made anew when a Bottle changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use port17_proto::bottle::{Address, VerifiedBottle};
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
    /// Where lanes are accepted: no exit connects there.
    pub addresses: Vec<SocketAddr>,
}

impl MeshView {
    /// Made from verified Bottles alone. `key_margin_ms`: a circuit key is used until this long before its end.
    pub fn build(bottles: &[&VerifiedBottle], key_margin_ms: u64) -> Self {
        let map = Map::build(bottles.iter().copied(), key_margin_ms);
        let addresses = bottles.iter().flat_map(|bottle| bottle.content().addresses.iter().map(Address::socket)).collect();
        let nodes = bottles.iter().map(|bottle| {
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
