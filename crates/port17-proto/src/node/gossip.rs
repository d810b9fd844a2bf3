//! What neighbours tell each other about nodes (spec 11).

use super::Node;
use super::io::{LaneId, Peer};
use crate::wire::message::Message;

impl Node {
    /// A message of the stream on an admitted lane 1.
    pub(super) fn handle_stream(&mut self, lane: LaneId, peer: Peer, message: Message) {
        match message {
            Message::Publish => self.handle_publish(lane, peer, true),
            Message::Unpublish => self.handle_publish(lane, peer, false),
            message => self.handle_list_message(lane, peer, message),
        }
    }
}
