//! The signed list between neighbours (spec 12, 3).

use super::Node;
use super::io::{LaneId, Peer};
use crate::wire::message::Message;

impl Node {
    /// LIST_SEQ, WANT_LIST or LIST on an admitted lane 1. A client sends the first two alone.
    pub(super) fn handle_list_message(&mut self, _lane: LaneId, _peer: Peer, _message: Message) {}
}
