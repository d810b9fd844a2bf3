//! A client and an exit, honest relays between them, and on one of the lanes a middle that drops, repeats, reorders, changes and
//! makes up frames (spec 05, 06). Stateful: the input is a seed, a route, and what happens one after the other.
//!
//! What arrives is always the beginning of what was sent, the end of a circuit reaches both edges, and all memory comes back.

use std::cell::RefCell;
use std::rc::Rc;

use port17_proto::circuit::mux::StreamState;
use port17_proto::ids::{CircuitId, StreamId};
use port17_proto::lane::frame::{FrameBuf, pairs_frame};
use port17_proto::wire::registry::{BODY_BYTES, Command, FRAME_BYTES, HEADER_BYTES};

use crate::choices::Choices;
use crate::edge::Edge;
use crate::mesh::{Mesh, copy};

/// Things that happen in one run.
const STEPS: usize = 60;
/// Circuits of one run.
const CIRCUITS: usize = 3;
/// Longer than a circuit that is dying on one side only may be kept, in seconds.
const END_S: u64 = 7;

/// Lets everything happen.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let hops = 1 + choices.below(3);
    let mut world = World { mesh: Mesh::chain(hops, u64::from(choices.byte())), hops, clients: Vec::new() };
    world.circuit(&mut choices);
    for _ in 0..STEPS {
        if choices.is_empty() {
            break;
        }
        world.step(&mut choices);
        world.check();
    }
    world.end();
}

struct World {
    mesh: Mesh,
    hops: usize,
    clients: Vec<Rc<RefCell<Edge>>>,
}

impl World {
    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 16 {
            0 => self.circuit(choices),
            1 => self.open_stream(choices),
            2 => (0..=choices.byte() % 32).for_each(|_| {
                self.mesh.round();
            }),
            3 => self.mesh.run(),
            4 => self.mesh.wait(1 + u64::from(choices.byte() % 7)),
            5 => self.stall(choices),
            6 => self.application(choices),
            7 => self.end_circuit(choices),
            8 => self.mesh.workers_busy = choices.byte() & 1 == 1,
            9 if choices.byte() > 0xc0 => {
                let end = choices.below(self.mesh.ends.len());
                self.mesh.cut(end);
            }
            10 => self.make_up(choices),
            _ => self.tamper(choices),
        }
    }

    fn circuit(&mut self, choices: &mut Choices<'_>) {
        let answer = 300 * u64::from(choices.short());
        if self.clients.len() < CIRCUITS && self.mesh.ends[0].open {
            let route: Vec<usize> = (1..=self.hops).collect();
            self.clients.push(self.mesh.circuit(0, &route));
        }
        self.mesh.edges.iter().for_each(|edge| edge.borrow_mut().answer_bytes = answer);
    }

    fn chosen(&self, choices: &mut Choices<'_>) -> Option<Rc<RefCell<Edge>>> {
        let at = choices.below(self.mesh.edges.len().max(1));
        self.mesh.edges.get(at).cloned()
    }

    fn open_stream(&mut self, choices: &mut Choices<'_>) {
        let (at, bytes) = (choices.below(self.clients.len().max(1)), 5 * u64::from(choices.short()));
        let Some(client) = self.clients.get(at) else { return };
        let mut client = client.borrow_mut();
        if !client.over && client.streams.len() < 20 {
            client.open(bytes, self.mesh.now_ms);
        }
    }

    /// Somebody reads nothing for a while: a node, or an application.
    fn stall(&mut self, choices: &mut Choices<'_>) {
        let at = choices.below(self.mesh.ends.len());
        self.mesh.ends[at].stalled ^= true;
    }

    fn application(&mut self, choices: &mut Choices<'_>) {
        let Some(edge) = self.chosen(choices) else { return };
        let mut edge = edge.borrow_mut();
        let Some(stream) = edge.streams.get(choices.below(edge.streams.len().max(1))).copied() else { return };
        if !edge.stalled.remove(&stream) {
            edge.stalled.insert(stream);
        }
    }

    fn end_circuit(&mut self, choices: &mut Choices<'_>) {
        if let Some(edge) = self.chosen(choices) {
            edge.borrow_mut().end(choices.byte() & 1 == 1);
        }
    }

    /// Changes what is on a wire.
    fn tamper(&mut self, choices: &mut Choices<'_>) {
        let end = choices.below(self.mesh.ends.len());
        let wire = &mut self.mesh.ends[end].wire;
        if wire.is_empty() {
            return;
        }
        let (at, other) = (choices.below(wire.len()), choices.below(wire.len()));
        match choices.byte() % 6 {
            0 => drop(wire.remove(at)),
            1 => wire.insert(other, copy(&wire[at])),
            2 => wire.swap(at, other),
            3 => {
                let place = usize::from(choices.short()) % FRAME_BYTES;
                wire[at].bytes_mut()[place] ^= 1 << choices.below(8);
            }
            4 => wire[at].bytes_mut()[choices.below(HEADER_BYTES)] = choices.byte(),
            _ => wire.truncate(at),
        }
    }

    /// A frame that nobody sent.
    fn make_up(&mut self, choices: &mut Choices<'_>) {
        let end = choices.below(self.mesh.ends.len());
        let circuit = CircuitId(u32::from(choices.byte() % 8));
        let frame = match choices.byte() % 4 {
            0 => {
                let command = [Command::Credit, Command::Reclaim, Command::Limit][choices.below(3)];
                let cells = if choices.byte() & 1 == 0 { u64::from(choices.byte()) } else { choices.long() };
                pairs_frame(command, &[(circuit, cells)])
            }
            _ => {
                let mut frame = FrameBuf::new();
                frame.bytes_mut()[..4].copy_from_slice(&circuit.0.to_be_bytes());
                frame.bytes_mut()[4] = choices.byte() % 10;
                frame.bytes_mut()[5] = choices.byte() & 1;
                let start = choices.bytes();
                let length = start.len().min(BODY_BYTES);
                frame.bytes_mut()[6..6 + length].copy_from_slice(&start[..length]);
                frame
            }
        };
        if self.mesh.ends[end].open {
            let at = choices.below(self.mesh.ends[end].wire.len() + 1);
            self.mesh.ends[end].wire.insert(at, frame);
        }
    }

    /// The bytes themselves are compared where they arrive, in [`Edge`].
    fn check(&self) {
        let exits = || self.mesh.edges.iter().filter(|edge| !self.clients.iter().any(|client| Rc::ptr_eq(client, edge)));
        let sent = |edges: &mut dyn Iterator<Item = &Rc<RefCell<Edge>>>, id: &StreamId| {
            edges.filter_map(|edge| edge.borrow().sent.get(id).copied()).max().unwrap_or(0)
        };
        for exit in exits() {
            for (id, got) in &exit.borrow().got {
                assert!(*got <= sent(&mut self.clients.iter(), id), "an exit gets what no client has sent");
            }
        }
        for client in &self.clients {
            let client = client.borrow();
            for (id, got) in &client.got {
                assert!(*got <= sent(&mut exits(), id), "a client gets what no exit has sent");
            }
            assert!(client.streams.iter().all(|id| !client.ended.contains(id) || client.state(*id) != StreamState::Opening));
        }
        assert!(self.mesh.members.iter().all(|member| member.pool.reserved_cells() * FRAME_BYTES as u64 <= member.pool.bytes()));
        // Law 1. A lane that was lost counts there as one that never was.
        let whole = self.mesh.ends.iter().all(|end| end.open);
        assert!(!whole || self.mesh.members.iter().all(|member| member.strangers.get() == 0), "nobody is asked for a new lane");
    }

    /// With the lanes everything goes.
    fn end(mut self) {
        self.mesh.workers_busy = false;
        self.mesh.ends.iter_mut().for_each(|end| end.stalled = false);
        self.mesh.run();
        self.check();
        (0..self.mesh.ends.len()).step_by(2).for_each(|end| self.mesh.cut(end));
        self.mesh.run();
        self.mesh.wait(END_S);
        assert!(self.mesh.edges.iter().all(|edge| edge.borrow().over), "every edge learns of the end");
        self.clients.clear();
        self.mesh.assert_clean();
    }
}

/// Transfers that are left alone, and one of each thing that can happen to them.
pub fn seeds() -> Vec<Vec<u8>> {
    let quiet = |hops: u8| vec![hops, 1, 1, 0, 1, 0, 0x80, 0, 3, 4, 6, 7, 0, 1, 3];
    let opened = |hops: u8| vec![hops, 2, 1, 0, 3, 1, 0, 0x20, 0, 2, 5];
    let mut seeds: Vec<Vec<u8>> = (0..3).map(quiet).collect();
    for kind in 0..6 {
        for end in 0..4 {
            seeds.push([opened(1), vec![11, end, 0, 1, kind, 0, 9, 3, 3]].concat());
        }
    }
    for command in 0..9 {
        seeds.push([opened(1), vec![10, command % 4, 1, 1, command, 1, 2, 0, 0, 0, 3]].concat());
    }
    seeds.push([opened(2), vec![9, 0xff, 2, 3]].concat());
    seeds
}
