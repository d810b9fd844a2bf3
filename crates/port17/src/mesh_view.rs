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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use port17_proto::bottle::{BottleContent, BottleRules, CircuitKey, Flags, ProtocolRange, Seq, UnverifiedBottle};
    use port17_proto::crypto::{PUBLIC_KEY_BYTES, Secret, SigningKey};
    use port17_proto::wire::registry::{LaneType, Scope};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn bottle(seed: u8, address: &str) -> VerifiedBottle {
        let identity = SigningKey::from_seed(Secret::new([seed; 32]));
        let content = BottleContent {
            identity: identity.public(),
            seq: Seq(NOW_MS - 1000),
            scope: Scope::Public,
            label: "abc".parse().unwrap(),
            group: String::new(),
            link_key: SigningKey::from_seed(Secret::new([99; 32])).public(),
            link_key_expiry_s: NOW_MS / 1000 + 3600,
            next_link_key: None,
            circuit_key: CircuitKey {
                public: KemPublicKey::from_bytes([5; PUBLIC_KEY_BYTES]),
                not_after_s: NOW_MS / 1000 + 7200,
            },
            addresses: vec![Address::new(address.parse().unwrap(), LaneType::TlsTcp)],
            egress: Vec::new(),
            links: Vec::new(),
            exit_policy: None,
            load: 0,
            flags: Flags(0),
            protocol: ProtocolRange::OURS,
            software: String::new(),
            unknown: BTreeMap::new(),
        };
        let bytes = content.sign(&identity).unwrap();
        UnverifiedBottle::parse(&bytes).unwrap().verify(NOW_MS, &BottleRules::DEFAULT).unwrap()
    }

    #[test]
    fn law_1_an_unverified_claim_takes_no_address_from_anybody() {
        let (trusted, unknown, caught) = (bottle(1, "9.9.9.9:443"), bottle(2, "8.8.8.8:443"), bottle(3, "7.7.7.7:443"));
        let bottles = [(&trusted, Trust::Trusted), (&unknown, Trust::Unknown), (&caught, Trust::Distrusted)];
        let view = MeshView::build(&bottles, 0);
        assert_eq!(view.addresses, ["9.9.9.9:443".parse().unwrap()]);
        assert_eq!(view.nodes.len(), 3, "their names are shown all the same");
    }
}
