//! Hosts that lie. Each runs the shipped engine, so that it gets links like anybody; what it lies with goes past it.

use std::collections::{BTreeMap, BTreeSet};

use port17_proto::bottle::{LinkClaim, NodePrefix, Seq, ShortId, Tombstone, UnverifiedBottle};
use port17_proto::crypto::SigningKey;
use port17_proto::ids::{CircuitId, NodeId};
use port17_proto::lane::frame::{FrameBuf, Header, pairs_frame};
use port17_proto::lane::reader::Port;
use port17_proto::limits::LIST_PIECE_BYTES;
use port17_proto::network::SignedList;
use port17_proto::node::io::Peer;
use port17_proto::wire::message::{Held, LaneSlot, Message, RawMessage, split_into_pieces};
use port17_proto::wire::registry::{Command, FRAME_BYTES, HEADER_BYTES};

use crate::host::Kind;
use crate::lane::EndId;
use crate::world::World;

/// What a liar does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// Offers changed Bottles of others, and farewells that they have not said.
    Forges,
    /// Offers old Bottles of others.
    Replays,
    /// Signs two truths under one seq.
    Equivocates,
    /// Claims the address of another node.
    Impersonates,
    /// Announces, asks and compares without end.
    Floods,
    /// Is one of many that one party has made up.
    Sybil,
    /// Signs Bottles that are ahead of the time.
    Foretells,
    /// Offers lists that the roots have not signed.
    ForgesLists,
    /// A client that speaks like a node.
    SpeaksAsNode,
    /// Changes, repeats and makes up frames of circuits.
    Cells,
    /// A client that goes back to the first keys of its circuits, as who has stolen a hop's key could.
    GoesBack,
}

/// A liar's memory.
pub struct Liar {
    /// What it does.
    pub lie: Lie,
    /// What it has offered: envelopes by the name they are asked for by.
    offers: BTreeMap<ShortId, Vec<u8>>,
    /// Equivocators: the two truths, and who has got which.
    truths: Vec<(ShortId, Vec<u8>)>,
    told: BTreeSet<ShortId>,
    /// Frames of SETUPs that have passed, to be sent again.
    setups: Vec<Vec<FrameBuf>>,
    next_circuit: u32,
    /// The list that it offers, and its number.
    list: Vec<u8>,
    list_seq: u64,
}

impl Liar {
    /// Has not lied yet.
    pub fn new(lie: Lie) -> Self {
        Self {
            lie,
            offers: BTreeMap::new(),
            truths: Vec::new(),
            told: BTreeSet::new(),
            setups: Vec::new(),
            next_circuit: 1_000_001,
            list: Vec::new(),
            list_seq: 0,
        }
    }
}

fn copy(frame: &FrameBuf) -> FrameBuf {
    let mut other = FrameBuf::new();
    other.bytes_mut().copy_from_slice(frame.bytes());
    other
}

/// The same frame, on another circuit.
fn under(frame: &FrameBuf, circuit: CircuitId) -> FrameBuf {
    let mut frame = copy(frame);
    if let Ok(header) = Header::decode(frame.bytes()) {
        frame.set_header(Header { circuit, ..header });
    }
    frame
}

impl World {
    /// Makes a liar of a host.
    pub fn make_liar(&mut self, host: usize, lie: Lie) {
        self.hosts[host].is_honest = false;
        self.liars.insert(host, Liar::new(lie));
        self.plan_lie(host);
    }

    fn plan_lie(&mut self, host: usize) {
        let after_us = 2_000_000 + self.entropy.below(8_000_000);
        let at_us = self.now_us + after_us;
        self.script(at_us, move |world| {
            if world.liars_may_lie() {
                world.tell_lie(host);
                world.plan_lie(host);
            }
        });
    }

    pub(crate) fn liars_may_lie(&self) -> bool {
        self.now_us < self.scenario.minutes * 60_000_000
    }

    /// Nodes that are there, but made up by one party.
    pub(crate) fn is_made_up(&self, node: &NodeId) -> bool {
        self.liars.keys().any(|host| self.hosts[*host].id == *node)
    }

    /// Who has given two truths to honest hosts: all must know in the end.
    pub(crate) fn caught(&self) -> Vec<NodeId> {
        let told_two = |(host, liar): (&usize, &Liar)| (liar.told.len() >= 2).then(|| self.hosts[*host].id);
        self.liars.iter().filter_map(told_two).collect()
    }

    fn tell_lie(&mut self, host: usize) {
        if self.hosts[host].node.is_none() {
            return;
        }
        match self.liars.get(&host).map(|liar| liar.lie) {
            Some(Lie::Forges) => self.forge(host),
            Some(Lie::Replays) => self.replay_bottle(host),
            Some(Lie::Equivocates) => self.equivocate(host),
            Some(Lie::Floods) => self.flood(host),
            Some(Lie::Cells) => self.lie_in_cells(host),
            Some(Lie::Foretells) => self.foretell(host),
            Some(Lie::ForgesLists) => self.offer_list(host),
            Some(Lie::SpeaksAsNode) => self.speak_as_node(host),
            Some(Lie::GoesBack) => self.ask(host, 200_000, 1000),
            Some(Lie::Impersonates | Lie::Sybil) | None => {}
        }
    }

    /// First lanes of its links to nodes, that carry gossip.
    fn gossip_ends(&self, host: usize) -> Vec<EndId> {
        let first = |end: &&EndId| self.ends[**end].slot == Some(LaneSlot::One) && self.ends[**end].is_open;
        self.hosts[host].lanes.values().filter(first).copied().collect()
    }

    fn say(&mut self, end: EndId, message: &Message) {
        let bytes = message.encode();
        let frames: Vec<_> = split_into_pieces(&bytes).filter_map(|piece| self.control_frame(piece, 0)).collect();
        // A peer that reads nothing loses the lie.
        let _ = self.ends[end].lane.queue(|queue| frames.into_iter().try_for_each(|frame| queue.push_control(frame)));
    }

    /// Announces envelopes to some neighbours; whoever asks for one gets it.
    fn offer(&mut self, host: usize, envelopes: Vec<Vec<u8>>, ends: &[EndId]) {
        let named: Vec<(ShortId, Vec<u8>)> = envelopes
            .into_iter()
            .filter_map(|envelope| Some((UnverifiedBottle::parse(&envelope).ok()?.short_id(), envelope)))
            .collect();
        let ids: Vec<ShortId> = named.iter().map(|(id, _)| *id).collect();
        if let Some(liar) = self.liars.get_mut(&host) {
            liar.offers.extend(named);
        }
        if !ids.is_empty() {
            for end in ends {
                self.say(*end, &Message::Announce(ids.clone()));
            }
        }
    }

    /// A message has come to a liar: true when it answers itself.
    pub(crate) fn liar_hears(&mut self, end: EndId, urgent: bool, message: &RawMessage) -> bool {
        let host = self.ends[end].owner;
        let Some(liar) = self.liars.get(&host) else { return false };
        let ids = match Message::decode(message, urgent) {
            Ok(Message::Want(ids)) => ids,
            Ok(Message::WantList { seq, offset }) if !liar.list.is_empty() => return self.give_forged_list(end, seq, offset),
            Ok(_) | Err(_) => return false,
        };
        let wanted: Vec<(ShortId, Vec<u8>)> = ids.iter().filter_map(|id| Some((*id, liar.offers.get(id)?.clone()))).collect();
        if wanted.is_empty() {
            return false;
        }
        let honest = self.hosts[self.ends[self.ends[end].peer].owner].is_honest;
        if let Some(liar) = self.liars.get_mut(&host) {
            let truths: Vec<ShortId> = liar.truths.iter().map(|(id, _)| *id).collect();
            liar.told.extend(wanted.iter().map(|(id, _)| *id).filter(|id| honest && truths.contains(id)));
        }
        let envelopes = wanted.into_iter().map(|(_, envelope)| envelope).collect();
        self.say(end, &Message::Bottles { more: false, envelopes });
        true
    }

    // ---- Bottles ----

    fn victim(&mut self, host: usize) -> Option<usize> {
        let nodes: Vec<usize> = (0..self.hosts.len())
            .filter(|other| *other != host && self.hosts[*other].kind == Kind::Node && !self.hosts[*other].published.is_empty())
            .collect();
        self.entropy.pick(&nodes).copied()
    }

    fn forge(&mut self, host: usize) {
        let Some(victim) = self.victim(host) else { return };
        let Some(bottle) = self.hosts[victim].published.last() else { return };
        let (mut envelope, seq) = (bottle.envelope().to_vec(), bottle.seq());
        // A newer seq, another circuit key, or a signature of nobody.
        let key = bottle.content().circuit_key.public.clone();
        let at = |needle: &[u8], hay: &[u8]| hay.windows(needle.len()).position(|window| window == needle);
        match self.entropy.below(3) {
            0 => {
                let newer = Seq(seq.0 + (60_000 << 10));
                if let Some(place) = at(&seq.0.to_be_bytes(), &envelope) {
                    envelope[place..place + 8].copy_from_slice(&newer.0.to_be_bytes());
                }
            }
            1 => {
                let place = at(&key.as_bytes()[..32], &envelope).unwrap_or(0) + 40;
                envelope[place] ^= 0x55;
            }
            _ => {
                let place = envelope.len() - 40;
                envelope[place] ^= 1;
            }
        }
        let ends = self.gossip_ends(host);
        let id = self.hosts[victim].id;
        self.offer(host, vec![envelope], &ends);
        // A farewell of another, under the liar's own signature.
        let own = self.hosts[host].signing_key();
        let mut farewell = Tombstone::sign(own.key(), Seq(seq.0 + 1));
        let (mine, theirs) = (own.public().0, self.hosts[victim].signing_key().public().0);
        if let Some(place) = at(&mine, &farewell) {
            farewell[place..place + 32].copy_from_slice(&theirs);
        }
        self.trace.note(40, self.now_us, host, u64::from(id.0[0]));
        if let Some(end) = self.entropy.pick(&ends).copied() {
            self.say(end, &Message::Tombstones(vec![farewell]));
        }
    }

    fn replay_bottle(&mut self, host: usize) {
        let Some(victim) = self.victim(host) else { return };
        let old: Vec<Vec<u8>> = self.hosts[victim].published.iter().rev().skip(1).map(|it| it.envelope().to_vec()).collect();
        let ends = self.gossip_ends(host);
        self.offer(host, old, &ends);
    }

    /// Two truths under one seq: one for the one half of its neighbours, one for the other.
    fn equivocate(&mut self, host: usize) {
        let ends = self.gossip_ends(host);
        if ends.len() < 2 || self.now_us < 90_000_000 {
            return;
        }
        if self.liars.get(&host).is_some_and(|liar| liar.truths.is_empty()) {
            let Some(bottle) = self.hosts[host].published.last() else { return };
            let own = self.hosts[host].signing_key();
            let mut truths = Vec::new();
            for software in ["one truth", "another"] {
                let mut content = bottle.content().clone();
                content.seq = Seq(bottle.seq().0 + 1024);
                content.software = software.into();
                let Ok(envelope) = content.sign(own.key()) else { return };
                let Ok(parsed) = UnverifiedBottle::parse(&envelope) else { return };
                truths.push((parsed.short_id(), envelope));
            }
            if let Some(liar) = self.liars.get_mut(&host) {
                liar.truths = truths;
            }
        }
        let truths = self.liars.get(&host).map(|liar| liar.truths.clone()).unwrap_or_default();
        let (one, other) = ends.split_at(ends.len() / 2);
        for ((_, envelope), ends) in truths.into_iter().zip([one, other]) {
            self.offer(host, vec![envelope], ends);
        }
    }

    /// Its own Bottle, an hour and a half ahead of the time.
    fn foretell(&mut self, host: usize) {
        let Some(bottle) = self.hosts[host].published.last() else { return };
        let own = self.hosts[host].signing_key();
        let mut content = bottle.content().clone();
        if self.entropy.below(2) == 0 {
            content.seq = Seq(self.time(host).unix_ms + 90 * 60 * 1000);
        } else {
            // One of now, that claims links to everybody.
            content.seq = Seq(self.time(host).unix_ms);
            let mut peers: Vec<NodePrefix> =
                self.hosts.iter().filter(|it| !it.published.is_empty()).map(|it| NodePrefix::from(&it.id)).collect();
            peers.retain(|peer| *peer != NodePrefix::from(&self.hosts[host].id));
            peers.sort();
            peers.truncate(40);
            content.links = peers.into_iter().map(|peer| LinkClaim { peer, rtt: 255, capacity: 255 }).collect();
        }
        let Ok(envelope) = content.sign(own.key()) else { return };
        let ends = self.gossip_ends(host);
        self.offer(host, vec![envelope], &ends);
    }

    /// The newest list with a higher number, under the liar's own signature.
    fn offer_list(&mut self, host: usize) {
        let read = self.list.as_ref().and_then(|list| SignedList::decode(list).ok()?.read_unverified().ok());
        let Some(mut content) = read else { return };
        content.seq += 1000;
        let seq = content.seq;
        let own = self.hosts[host].signing_key();
        let Ok(payload) = content.encode() else { return };
        let mut list = SignedList::new(payload);
        list.sign(own.key());
        if let Some(liar) = self.liars.get_mut(&host) {
            (liar.list, liar.list_seq) = (list.encode(), seq);
        }
        for end in self.gossip_ends(host) {
            self.say(end, &Message::ListSeq(seq));
        }
    }

    fn give_forged_list(&mut self, end: EndId, seq: u64, offset: u32) -> bool {
        let host = self.ends[end].owner;
        let Some(liar) = self.liars.get(&host).filter(|liar| liar.list_seq == seq) else { return false };
        let rest = usize::try_from(offset).ok().and_then(|from| liar.list.get(from..)).unwrap_or_default();
        let bytes = rest[..rest.len().min(LIST_PIECE_BYTES)].to_vec();
        let total = u32::try_from(liar.list.len()).unwrap_or(u32::MAX);
        if !bytes.is_empty() {
            self.say(end, &Message::List { seq, offset, total, bytes });
        }
        true
    }

    /// A Bottle of a node that nobody else knows, PUBLISH, and a list.
    fn speak_as_node(&mut self, host: usize) {
        let sample = self.hosts.iter().find_map(|host| host.published.last());
        let Some(mut content) = sample.map(|bottle| bottle.content().clone()) else { return };
        let made_up = SigningKey::generate(&mut self.entropy);
        content.identity = made_up.public();
        content.seq = Seq(self.time(host).unix_ms);
        let Ok(envelope) = content.sign(&made_up) else { return };
        self.forbidden.insert(content.node_id());
        let ends = self.gossip_ends(host);
        match self.entropy.below(3) {
            0 => ends.iter().for_each(|end| self.say(*end, &Message::Publish)),
            1 => ends.iter().for_each(|end| self.say(*end, &Message::ListSeq(1_000_000))),
            _ => self.offer(host, vec![envelope], &ends),
        }
    }

    fn flood(&mut self, host: usize) {
        for end in self.gossip_ends(host) {
            for _ in 0..20 {
                let ids: Vec<ShortId> = (0..200).map(|_| ShortId(self.entropy.bytes())).collect();
                self.say(end, &Message::Announce(ids.clone()));
                self.say(end, &Message::Want(ids[..100].to_vec()));
                let seq = Seq(crate::world::START_UNIX_MS + self.now_us / 1000);
                let mut held: Vec<Held> =
                    ids.iter().map(|id| Held { node: NodeId(self.entropy.bytes()), seq, short_id: *id }).collect();
                held.sort();
                self.say(end, &Message::Reconcile { more: false, held });
            }
        }
    }

    // ---- Cells ----

    /// What leaves a host that lies in cells is not what its queue gave.
    pub(crate) fn tamper(&mut self, end: EndId, frames: Vec<FrameBuf>) -> Vec<FrameBuf> {
        let host = self.ends[end].owner;
        let lies = self.liars.get(&host).is_some_and(|liar| liar.lie == Lie::Cells) && self.liars_may_lie();
        if !lies {
            return frames;
        }
        let mut out = Vec::with_capacity(frames.len());
        for mut frame in frames {
            let Ok(header) = Header::decode(frame.bytes()) else { continue };
            if header.command == Command::Setup {
                self.remember_setup(host, &frame, header);
            }
            // It gives no credit where it does not want to.
            if header.command == Command::Credit && self.entropy.below(3) == 0 {
                continue;
            }
            if header.command != Command::Cell || self.entropy.below(40) > 0 {
                out.push(frame);
                continue;
            }
            match self.entropy.below(3) {
                0 => {
                    // Half of them where nothing may stand behind the layer.
                    let tail = self.entropy.below(2) == 0;
                    let at = if tail {
                        FRAME_BYTES - 1 - usize::try_from(self.entropy.below(34)).unwrap_or(0)
                    } else {
                        HEADER_BYTES + usize::try_from(self.entropy.below((FRAME_BYTES - HEADER_BYTES) as u64)).unwrap_or(0)
                    };
                    frame.bytes_mut()[at] ^= 1;
                    // What goes back, the client alone can tell from a right one.
                    let goes_forward = header.circuit.0 % 2 == u32::from(self.ends[end].dialled);
                    if goes_forward {
                        self.expect_end(end, header.circuit, "tampering", "a cell was changed on the way");
                    }
                    out.push(frame);
                }
                1 => {
                    out.push(copy(&frame));
                    out.push(frame);
                }
                _ => {}
            }
        }
        out
    }

    /// What is not authentic does not go further: its circuit ends at the next honest hop (spec 06, 3).
    pub(crate) fn expect_end(&mut self, end: EndId, circuit: CircuitId, rule: &'static str, of_which: &'static str) {
        let peer = self.ends[end].peer;
        if !self.hosts[self.ends[peer].owner].is_honest {
            return;
        }
        let at_us = self.now_us + 5_000_000;
        let life = self.ends[peer].life;
        self.script(at_us, move |world| {
            let it = &world.ends[peer];
            let owner = &world.hosts[it.owner];
            let is_there = it.is_open && owner.life == life && owner.is_up() && it.in_flight == 0 && it.held.is_empty();
            if is_there && it.lane.look(|queue| queue.is_open(circuit)) {
                world.findings.report(rule, format!("host {} goes on with a circuit of which {of_which}", it.owner));
            }
        });
    }

    fn remember_setup(&mut self, host: usize, frame: &FrameBuf, header: Header) {
        let Some(liar) = self.liars.get_mut(&host) else { return };
        if header.part == 0 {
            liar.setups.push(Vec::new());
            if liar.setups.len() > 64 {
                liar.setups.remove(0);
            }
        }
        if let Some(last) = liar.setups.last_mut().filter(|last| last.len() < 4) {
            last.push(copy(frame));
        }
    }

    /// SETUPs again, cells and credit that nobody gave, on all its lanes to nodes.
    fn lie_in_cells(&mut self, host: usize) {
        let to_nodes = |end: &&EndId| matches!(self.ends[**end].admitted, Some(Peer::Node(_))) && self.ends[**end].is_open;
        let ends: Vec<EndId> = self.hosts[host].lanes.values().filter(to_nodes).copied().collect();
        let Some(end) = self.entropy.pick(&ends).copied() else { return };
        let parity = u32::from(!self.ends[end].dialled);
        let Some(liar) = self.liars.get_mut(&host) else { return };
        liar.next_circuit += 2;
        let circuit = CircuitId(liar.next_circuit + parity);
        let setup: Vec<Vec<FrameBuf>> =
            liar.setups.iter().filter(|setup| setup.len() == 4).map(|setup| setup.iter().map(copy).collect()).collect();
        let mut frames = Vec::new();
        match self.entropy.below(7) {
            // The SETUP of another, as it was seen: the same node gets it again.
            0 | 1 => {
                let Some(setup) = self.entropy.pick(&setup) else { return };
                frames.extend(setup.iter().map(|frame| under(frame, circuit)));
            }
            // One under an id that only the other side may draw: it costs the lane.
            4 => {
                let Some(setup) = self.entropy.pick(&setup) else { return };
                frames.extend(setup.iter().map(|frame| under(frame, CircuitId(circuit.0 + 1))));
                self.expect_loss(end);
            }
            // All that its neighbours wait for, whether they permit it or not.
            5 => {
                for end in ends {
                    let open = self.credit[end].open();
                    self.ends[end].lane.queue(|queue| open.iter().for_each(|circuit| queue.credited(*circuit, u64::MAX)));
                }
                return;
            }
            // More cells than the first window takes, again and again: it costs the lane.
            6 => {
                let Some(setup) = self.entropy.pick(&setup) else { return };
                for nth in 0..4 {
                    let circuit = CircuitId(circuit.0 + 2 * nth);
                    frames.extend(setup.iter().map(|frame| under(frame, circuit)));
                    frames.extend((0..40).map(|_| FrameBuf::with_body(Header::new(circuit, Command::Cell), &[7; 64])));
                }
                if let Some(liar) = self.liars.get_mut(&host) {
                    liar.next_circuit += 8;
                }
                self.expect_loss(end);
            }
            2 => frames.push(pairs_frame(Command::Credit, &[(circuit, u64::MAX)])),
            _ => {
                let body = [7; 64];
                frames.extend((0..600).map(|_| FrameBuf::with_body(Header::new(circuit, Command::Cell), &body)));
            }
        }
        self.send_frames(end, frames);
    }

    /// The other side must close this lane.
    fn expect_loss(&mut self, end: EndId) {
        let peer = self.ends[end].peer;
        let (at_us, life) = (self.now_us + 5_000_000, self.ends[peer].life);
        if !self.hosts[self.ends[peer].owner].is_honest {
            return;
        }
        self.script(at_us, move |world| {
            let it = &world.ends[peer];
            let owner = &world.hosts[it.owner];
            if it.is_open && !it.is_broken && owner.life == life && owner.is_up() && it.in_flight == 0 && it.held.is_empty() {
                world.findings.report(
                    "frame",
                    format!(
                        "host {} keeps a lane on which its own circuit ids were taken, or credit was overrun again and again",
                        it.owner
                    ),
                );
            }
        });
    }
}
