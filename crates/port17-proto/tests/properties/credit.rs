//! Credit of several circuits between two nodes that share one pool, whatever happens in whichever order (spec 06, 4).

use std::collections::VecDeque;
use std::sync::Arc;

use port17_proto::ids::CircuitId;
use port17_proto::lane::credit::{Granter, Pace, Pool};
use port17_proto::lane::frame::{FrameBuf, Header, pairs};
use port17_proto::lane::queue::{LaneEnd, LaneQueue, Outgoing};
use port17_proto::limits::{FIRST_WINDOW_CELLS, MAX_WINDOW_CELLS};
use port17_proto::wire::registry::{Command, FRAME_BYTES, HEADER_BYTES};
use proptest::prelude::*;

const POOL_CELLS: u64 = 96;
const IDLE_MS: u64 = 5000;
const CIRCUITS: usize = 3;

#[derive(Debug, Clone)]
enum Action {
    /// The sender's edge hands over as much as there is room for, at most so many.
    Hand { circuit: usize, most: u64 },
    /// The sender's writer takes so many frames.
    Write(usize),
    /// So many frames come to the receiver.
    Arrive(usize),
    /// The receiver passes on so many of the cells that wait.
    Drain { circuit: usize, most: u64 },
    /// So many frames come back to the sender.
    Return(usize),
    /// Time passes; what is idle is asked back.
    Pass(u64),
    /// The receiver ends a circuit.
    End(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let circuit = 0..CIRCUITS;
    prop_oneof![
        6 => (circuit.clone(), 1..40u64).prop_map(|(circuit, most)| Action::Hand { circuit, most }),
        6 => (1..64usize).prop_map(Action::Write),
        6 => (1..64usize).prop_map(Action::Arrive),
        6 => (circuit.clone(), 1..64u64).prop_map(|(circuit, most)| Action::Drain { circuit, most }),
        6 => (1..4usize).prop_map(Action::Return),
        2 => prop_oneof![1..20u64, Just(IDLE_MS)].prop_map(Action::Pass),
        1 => circuit.prop_map(Action::End),
    ]
}

/// A circuit at the receiver.
struct Circuit {
    id: CircuitId,
    /// None once it is over.
    granter: Option<Granter>,
    /// Numbers of cells that came and wait.
    waiting: VecDeque<u64>,
    received: u64,
    drained: u64,
}

struct Pair {
    now_ms: u64,
    pool: Arc<Pool>,
    sender: LaneQueue<()>,
    /// The receiver's queue on the same lane, for what goes back.
    back: LaneQueue<()>,
    there: VecDeque<FrameBuf>,
    returning: VecDeque<FrameBuf>,
    circuits: Vec<Circuit>,
    handed: Vec<u64>,
}

impl Pair {
    fn new() -> Self {
        let pool = Pool::new(POOL_CELLS * FRAME_BYTES as u64);
        let (mut sender, mut back) = (LaneQueue::new(LaneEnd::Dialler, 10), LaneQueue::new(LaneEnd::Acceptor, 10));
        let circuits = (0..CIRCUITS).map(|_| {
            let id = sender.open(None).unwrap();
            assert!(back.accept(id));
            let granter = Granter::new(pool.reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0);
            Circuit { id, granter: Some(granter), waiting: VecDeque::new(), received: 0, drained: 0 }
        });
        let circuits = circuits.collect();
        let (there, returning) = (VecDeque::new(), VecDeque::new());
        Self { now_ms: 0, pool, sender, back, there, returning, circuits, handed: vec![0; CIRCUITS] }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Hand { circuit, most } => self.hand(*circuit, *most),
            Action::Write(most) => {
                let mut out = Vec::new();
                self.sender.take(*most, self.now_ms, &mut out, &mut Vec::new());
                self.there.extend(out);
            }
            Action::Arrive(most) => (0..*most).for_each(|_| self.arrive()),
            Action::Drain { circuit, most } => self.drain(*circuit, *most),
            Action::Return(most) => {
                let mut out = Vec::new();
                self.back.take(64, self.now_ms, &mut out, &mut Vec::new());
                self.returning.extend(out);
                (0..*most).for_each(|_| self.come_back());
            }
            Action::Pass(ms) => self.pass(*ms),
            Action::End(circuit) => {
                let circuit = &mut self.circuits[*circuit];
                (circuit.granter, circuit.waiting) = (None, VecDeque::new());
                self.back.destroy(circuit.id, false);
            }
        }
    }

    fn hand(&mut self, circuit: usize, most: u64) {
        let id = self.circuits[circuit].id;
        let Some(room) = self.sender.room(id) else { return };
        let mut batch = Vec::new();
        for _ in 0..room.min(most) {
            let number = self.handed[circuit].to_be_bytes();
            batch.push(Outgoing { circuit: id, frame: FrameBuf::with_body(Header::new(id, Command::Cell), &number) });
            self.handed[circuit] += 1;
        }
        self.sender.hand_over(&mut batch, &mut Vec::new());
    }

    fn arrive(&mut self) {
        let Some(frame) = self.there.pop_front() else { return };
        let header = Header::decode(frame.bytes()).unwrap();
        let body = &frame.bytes()[HEADER_BYTES..];
        match header.command {
            Command::Cell => {
                let circuit = self.circuits.iter_mut().find(|circuit| circuit.id == header.circuit).unwrap();
                let Some(granter) = &circuit.granter else { return };
                let number = u64::from_be_bytes(*body.first_chunk().unwrap());
                assert_eq!(number, circuit.received, "cells of a circuit keep their order");
                circuit.received += 1;
                assert!(circuit.received <= granter.permitted().cells(), "beyond what is permitted");
                circuit.waiting.push_back(number);
            }
            Command::Limit => {
                for (id, limit) in pairs(body).unwrap().collect::<Vec<_>>() {
                    let circuit = self.circuits.iter_mut().find(|circuit| circuit.id == id).unwrap();
                    let Some(granter) = &mut circuit.granter else { continue };
                    assert!(limit >= circuit.received, "a limit below what was sent");
                    if let Some(permitted) = granter.limited(limit, self.now_ms).unwrap() {
                        self.back.push_credit(id, permitted);
                    }
                }
            }
            Command::Destroy => {}
            other => panic!("{other:?}"),
        }
    }

    fn drain(&mut self, circuit: usize, most: u64) {
        let circuit = &mut self.circuits[circuit];
        let cells = most.min(circuit.waiting.len() as u64);
        let Some(granter) = circuit.granter.as_mut().filter(|_| cells > 0) else { return };
        circuit.waiting.drain(..usize::try_from(cells).unwrap());
        circuit.drained += cells;
        if let Some(permitted) = granter.drained(cells, self.now_ms) {
            self.back.push_credit(circuit.id, permitted);
        }
    }

    fn come_back(&mut self) {
        let Some(frame) = self.returning.pop_front() else { return };
        let header = Header::decode(frame.bytes()).unwrap();
        if header.command == Command::Destroy {
            return self.sender.destroyed(header.circuit);
        }
        for (circuit, cells) in pairs(&frame.bytes()[HEADER_BYTES..]).unwrap() {
            match header.command {
                Command::Credit => self.sender.credited(circuit, cells),
                Command::Reclaim => self.sender.reclaimed(circuit, cells),
                other => panic!("{other:?}"),
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for circuit in &mut self.circuits {
            if let Some(to) = circuit.granter.as_mut().and_then(|granter| granter.reclaim(self.now_ms, IDLE_MS)) {
                self.back.push_reclaim(circuit.id, to);
            }
        }
    }

    /// Everything that is under way comes, and everything that waits is passed on.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.act(&Action::Return(64));
            self.act(&Action::Write(usize::MAX));
            self.act(&Action::Arrive(1000));
            (0..CIRCUITS).for_each(|circuit| self.drain(circuit, u64::MAX));
        }
        assert!(self.there.is_empty() && self.returning.is_empty() && self.sender.is_empty() && self.back.is_empty());
    }

    // ---- What must hold at any time ----

    fn check(&self) {
        let living = self.circuits.iter().filter_map(|circuit| Some((circuit, circuit.granter.as_ref()?)));
        let promised: u64 = living.map(|(circuit, granter)| granter.permitted().cells() - circuit.drained).sum();
        let reserved = self.pool.reserved_cells();
        assert!(promised <= reserved && reserved <= POOL_CELLS, "{promised} promised, {reserved} of {POOL_CELLS} reserved");
    }

    fn check_at_rest(&mut self) {
        for at in 0..CIRCUITS {
            let circuit = &self.circuits[at];
            let Some(granter) = &circuit.granter else { continue };
            let permitted = granter.permitted().cells();
            assert_eq!((circuit.received, circuit.drained), (self.handed[at], self.handed[at]), "all came and went");
            let room = self.sender.room(circuit.id).unwrap();
            assert_eq!(room, permitted - self.handed[at], "both ends count alike");
            assert!((1..=MAX_WINDOW_CELLS).contains(&room), "neither stuck nor without bound");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn credit_is_conserved_whatever_happens(actions in proptest::collection::vec(action(), 0..150)) {
        let mut pair = Pair::new();
        for action in &actions {
            pair.act(action);
            pair.check();
        }
        pair.settle();
        pair.check();
        pair.check_at_rest();
        // And it goes on from there.
        (0..CIRCUITS).for_each(|circuit| pair.hand(circuit, 3));
        pair.settle();
        pair.check_at_rest();
        let pool = Arc::clone(&pair.pool);
        drop(pair);
        prop_assert_eq!(pool.reserved_cells(), 0, "all memory is given back");
    }
}
