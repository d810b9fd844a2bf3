//! What is noted for the figures while a run goes on.

use port17_proto::bottle::Seq;
use port17_proto::ids::NodeId;
use port17_proto::node::io::Peer;

use super::World;
use crate::host::Kind;
use crate::report::{ControlCounts, Formed};

impl World {
    /// Links between honest nodes are counted; clients' and liars' are not.
    pub(super) fn counts_links(&self, host: usize, peer: Peer) -> bool {
        let it = &self.hosts[host];
        it.kind == Kind::Node && it.is_honest && peer.node().is_some()
    }

    pub(super) fn note_published(&mut self, host: usize, seq: Seq) {
        if !self.hosts[host].counts() {
            return;
        }
        let waiting = (0..self.hosts.len()).filter(|other| *other != host && self.hosts[*other].counts()).collect();
        self.record.published(host, self.hosts[host].id, seq, self.now_us, waiting);
    }

    pub(super) fn note_held(&mut self, host: usize, node: &NodeId) {
        let seq = self.hosts[host].node.as_ref().and_then(|engine| engine.bottlerack().seq(node));
        if let Some(seq) = seq {
            self.record.holds(host, node, seq, self.now_us);
        }
    }

    /// Honest machines of a kind.
    pub(crate) fn honest(&self, kind: Kind) -> impl Iterator<Item = usize> {
        self.hosts.iter().enumerate().filter(move |(_, host)| host.kind == kind && host.is_honest).map(|(place, _)| place)
    }

    /// What has been counted so far.
    pub(crate) fn counted_so_far(&self) -> Formed {
        let ran_us = |kind| self.record.ran_us(self.honest(kind), self.now_us);
        Formed {
            link_changes: self.record.link_changes,
            node_us: ran_us(Kind::Node),
            client_us: ran_us(Kind::Client),
            control: self.control_counts(),
        }
    }

    fn control_counts(&self) -> ControlCounts {
        let mut counts = ControlCounts::default();
        for end in &self.ends {
            let (owner, to) = (&self.hosts[end.owner], &self.hosts[self.ends[end.peer].owner]);
            if !owner.is_honest || !to.is_honest {
                continue;
            }
            match owner.kind {
                Kind::Node => {
                    counts.node_frames += end.control_frames;
                    counts.node_message_bytes += end.control_bytes;
                }
                Kind::Client => {
                    counts.client_frames += end.control_frames;
                    counts.client_message_bytes += end.control_bytes;
                }
            }
            if to.kind == Kind::Client {
                counts.to_client_frames += end.control_frames;
                counts.to_client_message_bytes += end.control_bytes;
            }
        }
        counts
    }
}
