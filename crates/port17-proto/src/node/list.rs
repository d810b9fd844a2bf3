//! The network's signed list: which one is in force, and how lists travel from node to node (spec 12, 3; spec 11, 4).
//!
//! A list comes from outside ([`Input::List`](super::io::Input::List)), from what was stored, or from a link. Of two valid ones the one
//! with the higher sequence number is in force; a lower one never comes back, not even after a restart. What is in force stays in
//! force when it expires: it still says who is trusted and where they are, until a newer one comes.
//!
//! Who is behind asks: LIST_SEQ says what a neighbour has, WANT_LIST asks for a piece, LIST brings it. One list at a time, from one
//! link, one piece at a time; so memory is one list, whoever offers how many. Answering needs no memory at all. Nodes never ask
//! clients (law 1).

use std::collections::BTreeMap;
use std::time::Duration;

use super::io::{Counted, LaneId, Output, Peer};
use super::lanes::Closing;
use super::record::{Record, RecordKey};
use super::{Node, TimerKey};
use crate::bottle::VerifiedBottle;
use crate::ids::NodeId;
use crate::limits::{LIST_ASKS, LIST_BYTES, LIST_PIECE_BYTES};
use crate::network::{Definition, ListError, SignedList, VerifiedList};
use crate::planted::planted;
use crate::wire::message::Message;

/// The list in force, and the way to the next one.
#[derive(Debug, Default)]
pub(super) struct Lists {
    held: Option<VerifiedList>,
    /// What lanes say they have, where it is newer. Lanes to nodes only, so as many as there are links.
    offers: BTreeMap<LaneId, Offer>,
    fetch: Option<Fetch>,
    /// Pieces that were asked for and are of no use any more, by the lane that may still send one: the list came from elsewhere.
    overtaken: BTreeMap<LaneId, u64>,
    /// A sequence number whose list was rightly signed and is of no use here, and until when it is not asked for again: this machine's
    /// clock may be the reason, and may be set right.
    unusable: Option<(u64, Duration)>,
}

/// What a lane has offered.
#[derive(Debug, Clone, Copy)]
struct Offer {
    seq: u64,
    /// How often it was asked from the first piece on.
    asks: u32,
}

/// A list on its way.
#[derive(Debug)]
struct Fetch {
    lane: LaneId,
    seq: u64,
    /// Known from the first piece on.
    total: Option<usize>,
    bytes: Vec<u8>,
}

/// What became of a list.
#[derive(Debug)]
enum Taken {
    Accepted,
    Same,
    Older,
    /// Another content under the sequence number in force: who signs has signed two truths. The first stays.
    Twin,
}

/// Why a list was not taken.
struct Refusal {
    why: ListError,
    /// No list of this network at all: then it is the fault of who sent it. Else the roots have signed it, and who passes it on does
    /// nothing wrong.
    forged: bool,
}

impl Lists {
    /// What an earlier run stored, and why not if it cannot be used.
    pub(super) fn from_stored(stored: &[Record], definition: Option<&Definition>) -> (Self, Option<ListError>) {
        let record = stored.iter().find(|(key, _)| *key == RecordKey::List);
        let (Some((_, bytes)), Some(definition)) = (record, definition) else { return (Self::default(), None) };
        // spec 12, 3: whatever its age, so that a network that was switched off for long comes back
        match SignedList::decode(bytes).and_then(|list| list.verify_whatever_age(definition)) {
            Ok(list) => (Self { held: Some(list), ..Self::default() }, None),
            Err(why) => (Self::default(), Some(why)),
        }
    }

    pub(super) fn in_force(&self) -> Option<&VerifiedList> {
        self.held.as_ref()
    }

    fn seq(&self) -> u64 {
        self.in_force().map_or(0, VerifiedList::seq)
    }

    fn lacks(&self, seq: u64, now: Duration) -> bool {
        let is_unusable = self.unusable.is_some_and(|(unusable, until)| unusable == seq && now < until);
        seq > self.seq() && !is_unusable
    }
}

impl Node {
    /// The signed list in force.
    pub fn list(&self) -> Option<&VerifiedList> {
        self.lists.in_force()
    }

    /// The Bottles of the list in force, in the order of their NodeIDs: contact and trust, whatever their age; never hops.
    pub fn listed(&self) -> &[VerifiedBottle] {
        self.list().map_or(&[], VerifiedList::nodes)
    }

    /// Whether the list in force names this node.
    pub fn is_listed(&self, node: &NodeId) -> bool {
        self.list().is_some_and(|list| list.node(node).is_some())
    }

    /// What links are drawn by: the seed of the list in force, zeros without a list.
    pub fn seed(&self) -> [u8; 32] {
        self.list().map_or([0; 32], VerifiedList::seed)
    }

    /// Whether a client may choose a new guard (spec 12, 3): not by a list that is old or has expired, nor before there is one.
    pub fn may_choose_guard(&self) -> bool {
        let now_s = self.now.unix_ms / 1000;
        match (&self.network, self.list()) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(list)) => !list.has_expired(now_s) && !list.is_old(now_s),
        }
    }

    /// Who the list in force names is trusted, and in a network nobody else (spec 12, 3).
    pub(super) fn trust_listed(&mut self) {
        if let Some(list) = self.lists.in_force() {
            self.bottlerack.trust_only(list.nodes().iter().map(VerifiedBottle::node_id));
        }
    }

    // ---- Lists that come ----

    /// A list from a file or a server.
    pub(super) fn handle_list(&mut self, bytes: &[u8]) {
        match self.take_list(bytes, None) {
            Ok(_) => self.fetch_list(),
            Err(refusal) => self.list_refused(&refusal.why),
        }
    }

    pub(super) fn list_refused(&mut self, why: &ListError) {
        self.count(Counted::ListRefused);
        self.push(Output::ListRefused(why.to_string()));
    }

    /// Judges a list, which must have the sequence number `promised`, if one is. Nothing changes unless it is a better one.
    fn take_list(&mut self, bytes: &[u8], promised: Option<u64>) -> Result<Taken, Refusal> {
        let forged = |why| Refusal { why, forged: true };
        // Without a network there is nobody whose word counts.
        let Some(definition) = &self.network else { return Err(forged(ListError::NoNetwork)) };
        let signed = SignedList::decode(bytes).map_err(forged)?;
        let list = self.shelf.verify(signed, definition, self.now.unix_ms / 1000).map_err(|why| {
            let forged = matches!(why, ListError::TooFewSignatures { .. } | ListError::OtherNetwork { .. });
            Refusal { why, forged }
        })?;
        if promised.is_some_and(|promised| promised != list.seq()) {
            return Err(forged(ListError::NotAsPromised));
        }
        Ok(self.compare_list(list))
    }

    fn compare_list(&mut self, list: VerifiedList) -> Taken {
        let Some(held) = self.lists.in_force() else { return self.accept_list(list) };
        // spec 12, 3: the highest sequence number wins
        if list.seq() > held.seq() {
            return self.accept_list(list);
        }
        if list.seq() < held.seq() {
            self.count(Counted::ListOlder);
            return Taken::Older;
        }
        if list.signed().payload == held.signed().payload {
            return Taken::Same;
        }
        let seq = list.seq();
        self.count(Counted::ListTwin);
        self.push(Output::ListRefused(format!(
            "two different lists have the sequence number {seq}: the first stays; the next list needs a higher number"
        )));
        Taken::Twin
    }

    fn accept_list(&mut self, list: VerifiedList) -> Taken {
        let seq = list.seq();
        let rules_before = self.params.bottle_rules();
        self.params = list.params().clone();
        self.push(Output::Save(RecordKey::List, list.envelope().to_vec()));
        self.lists.held = Some(list);
        let unusable = self.lists.unusable;
        self.lists.unusable = unusable.filter(|(unusable, _)| *unusable > seq);
        self.lists.offers.retain(|_, offer| offer.seq > seq);
        self.lists.offers.values_mut().for_each(|offer| offer.asks = 0);
        if self.lists.fetch.as_ref().is_some_and(|fetch| fetch.seq <= seq)
            && let Some(fetch) = self.end_fetch()
        {
            self.lists.overtaken.insert(fetch.lane, fetch.seq);
        }
        self.push(Output::ListAccepted { seq });
        for lane in self.talking_lanes() {
            self.send(lane, &Message::ListSeq(seq));
        }
        self.list_changed(&rules_before);
        Taken::Accepted
    }

    // ---- Lists on links (spec 11, 4) ----

    /// A link's lane 1 is up, and the own Bottle said: each side says which list it has, 0 for none. A node says it with each repair.
    pub(super) fn greet_with_list(&mut self, lane: LaneId) {
        if self.network.is_some() {
            let seq = self.lists.seq();
            self.send(lane, &Message::ListSeq(seq));
        }
    }

    /// LIST_SEQ, WANT_LIST or LIST on an admitted lane 1. A client sends the first two alone.
    pub(super) fn handle_list_message(&mut self, lane: LaneId, peer: Peer, message: Message) {
        match message {
            Message::ListSeq(seq) => self.handle_list_seq(lane, peer, seq),
            Message::WantList { seq, offset } => self.handle_want_list(lane, seq, offset),
            Message::List { seq, offset, total, bytes } => self.handle_list_piece(lane, seq, offset, total, &bytes),
            _ => {}
        }
    }

    fn handle_list_seq(&mut self, lane: LaneId, peer: Peer, seq: u64) {
        // law 1: what a client has is nothing to a node
        if matches!(peer, Peer::Client(_)) || self.network.is_none() {
            return;
        }
        let asks = self.lists.offers.get(&lane).map_or(0, |offer| offer.asks);
        if self.lists.lacks(seq, self.now.mono) {
            self.lists.offers.insert(lane, Offer { seq, asks });
        } else {
            self.lists.offers.remove(&lane);
        }
        // What is being fetched is gone there: its owner has another by now.
        if self.lists.fetch.as_ref().is_some_and(|fetch| fetch.lane == lane && fetch.seq != seq) {
            self.end_fetch();
        }
        self.fetch_list();
    }

    /// Stateless: whoever asks gets the piece.
    fn handle_want_list(&mut self, lane: LaneId, seq: u64, offset: u32) {
        // A client has nobody to pass anything on to.
        if self.is_client() {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "WANT_LIST to a client"));
        }
        let Some(held) = self.lists.held.as_ref().filter(|held| held.seq() == seq) else {
            let seq = self.lists.seq();
            return self.send(lane, &Message::ListSeq(seq));
        };
        let rest = usize::try_from(offset).ok().and_then(|offset| held.envelope().get(offset..)).filter(|rest| !rest.is_empty());
        // LIST_BYTES is far below 2^32.
        let (Some(rest), Ok(total)) = (rest, u32::try_from(held.envelope().len())) else {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "WANT_LIST beyond the list's end"));
        };
        let bytes = rest[..rest.len().min(LIST_PIECE_BYTES)].to_vec();
        self.send(lane, &Message::List { seq, offset, total, bytes });
    }

    fn handle_list_piece(&mut self, lane: LaneId, seq: u64, offset: u32, total: u32, piece: &[u8]) {
        let fetch = self.lists.fetch.as_mut().filter(|fetch| fetch.lane == lane && fetch.seq == seq);
        let Some(fetch) = fetch else {
            if self.lists.overtaken.get(&lane) == Some(&seq) {
                self.lists.overtaken.remove(&lane);
                return;
            }
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "a LIST that nobody asked for"));
        };
        match fetch.add(offset, total, piece) {
            None => self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "a LIST that does not fit what came before")),
            Some(false) => self.want_piece(),
            Some(true) => self.list_fetched(),
        }
    }

    fn list_fetched(&mut self) {
        let Some(fetch) = self.end_fetch() else { return };
        self.lists.offers.remove(&fetch.lane);
        match self.take_list(&fetch.bytes, Some(fetch.seq)) {
            Ok(_) => {}
            Err(Refusal { why, forged: true }) => {
                self.push(Output::ListRefused(why.to_string()));
                self.close_lane(fetch.lane, Closing::broke(Counted::ListRefused, "a list that is not the network's"));
            }
            Err(Refusal { why, forged: false }) => {
                self.list_refused(&why);
                // The next repair says again which lists there are.
                self.lists.unusable = Some((fetch.seq, self.now.mono + self.params.repair_interval / 2));
                self.lists.offers.retain(|_, offer| offer.seq != fetch.seq);
            }
        }
        self.fetch_list();
    }

    /// Begins to fetch a list that is offered, unless one is on its way. From any of those that offer one: who lies about the highest
    /// number must not be asked first each time.
    fn fetch_list(&mut self) {
        if self.lists.fetch.is_some() || self.stopping {
            return;
        }
        let lanes: Vec<LaneId> = self.lists.offers.keys().copied().collect();
        let Some(lane) = self.entropy.pick(&lanes).copied() else { return };
        let Some(offer) = self.lists.offers.get_mut(&lane) else { return };
        offer.asks += 1;
        if offer.asks > LIST_ASKS {
            return self
                .close_lane(lane, Closing::broke(Counted::OutOfPlace, "a list that is offered again and again and never comes"));
        }
        self.lists.fetch = Some(Fetch { lane, seq: offer.seq, total: None, bytes: Vec::new() });
        self.want_piece();
    }

    fn want_piece(&mut self) {
        let Some(fetch) = &self.lists.fetch else { return };
        // A list is far below 4 GiB.
        let Ok(offset) = u32::try_from(fetch.bytes.len()) else { return };
        let (lane, seq) = (fetch.lane, fetch.seq);
        self.timers.set(TimerKey::List, self.now.mono + self.params.bulk_timeout);
        self.send(lane, &Message::WantList { seq, offset });
    }

    fn end_fetch(&mut self) -> Option<Fetch> {
        self.timers.cancel(TimerKey::List);
        self.lists.fetch.take()
    }

    pub(super) fn handle_list_timeout(&mut self) {
        if let Some(fetch) = &self.lists.fetch {
            self.close_lane(fetch.lane, Closing::silent(Counted::ListLate));
        }
    }

    /// A lane is gone, and with it what it offered.
    pub(super) fn forget_list_of(&mut self, lane: LaneId) {
        self.lists.overtaken.remove(&lane);
        if self.lists.fetch.as_ref().is_some_and(|fetch| fetch.lane == lane) && !planted("list-fetch-stuck") {
            self.end_fetch();
        }
        if self.lists.offers.remove(&lane).is_some() {
            self.fetch_list();
        }
    }

    /// Nothing is fetched any more: the engine stops.
    pub(super) fn stop_lists(&mut self) {
        self.end_fetch();
        self.lists.offers.clear();
    }
}

impl Fetch {
    /// Adds a piece and says whether it was the last; none when it does not fit. A piece is as long as it can be, so that nobody can
    /// make a list take a million rounds.
    fn add(&mut self, offset: u32, total: u32, piece: &[u8]) -> Option<bool> {
        let (offset, total) = (usize::try_from(offset).ok()?, usize::try_from(total).ok()?);
        let expected = *self.total.get_or_insert(total);
        let rest = total.checked_sub(offset)?;
        let fits = total == expected && total <= LIST_BYTES && offset == self.bytes.len() && rest > 0;
        if !fits || piece.len() != rest.min(LIST_PIECE_BYTES) {
            return None;
        }
        self.bytes.extend_from_slice(piece);
        Some(self.bytes.len() == total)
    }
}
