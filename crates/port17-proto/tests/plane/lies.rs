//! Peers that lie: cells, credit and frames that no honest one sends. They cost the circuit or the lane, never more.

use port17_proto::circuit::mux::{Mux, Side};
use port17_proto::circuit::onion::client_area;
use port17_proto::circuit::origin::{Answer, Origin};
use port17_proto::ids::CircuitId;
use port17_proto::lane::credit::{Granter, Pace, Pool};
use port17_proto::lane::frame::{FrameBuf, Header, HeaderError, pairs, pairs_frame};
use port17_proto::lane::reader::{CircuitFault, LinkFault};
use port17_proto::limits::{FIRST_WINDOW_CELLS, IDLE_WINDOW_CELLS, MAX_WINDOW_CELLS, STREAM_QUEUE_BYTES};
use port17_proto::wire::registry::{BODY_BYTES, Command as Code, FRAME_BYTES, HEADER_BYTES};
use proptest::prelude::*;

use crate::edge::target;
use crate::mesh::{ADMISSION, Mesh, WIRE_FRAMES, copy, stream_rules};
use crate::traffic::opened;

/// A client that the test plays: an open circuit over one or two honest nodes.
struct Liar {
    mesh: Mesh,
    end: usize,
    origin: Origin,
    hops: usize,
    /// Packs its streams.
    mux: Mux,
}

const CIRCUIT: u32 = 1;

impl Liar {
    fn new(hops: usize, seed: u64) -> Self {
        let mut liar = Self::building(hops, seed);
        liar.mesh.run();
        let created = liar.mesh.received(liar.end).pop().unwrap();
        assert_eq!(liar.origin.handle_created(&created.bytes()[HEADER_BYTES..]), Ok(Answer::Complete));
        liar
    }

    /// Its SETUP is sent.
    fn building(hops: usize, seed: u64) -> Self {
        let mut mesh = Mesh::chain(hops, seed);
        let client = mesh.client();
        let end = mesh.link_raw(client, 1);
        let (origin, packet) = mesh.origin(&(1..=hops).collect::<Vec<_>>(), 0);
        mesh.send_setup(end, CIRCUIT, &packet);
        let granter = Granter::new(Pool::new(1 << 20).reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0);
        Self { mesh, end, origin, hops, mux: Mux::new(Side::Client, granter, stream_rules()) }
    }

    /// The next authentic cell, with what the mux has to say.
    fn cell(&mut self) -> FrameBuf {
        let mut frame = FrameBuf::new();
        let area = client_area(self.hops - 1);
        self.mux.fill(frame.bytes_mut()[area].as_mut_array().unwrap(), 0);
        let flags = self.origin.seal(self.hops - 1, frame.bytes_mut()).unwrap();
        frame.set_header(Header { flags, ..Header::new(CircuitId(CIRCUIT), Code::Cell) });
        frame
    }

    fn send(&mut self, frame: FrameBuf) {
        self.mesh.send(self.end, frame);
        self.mesh.run();
    }

    fn pair(&mut self, command: Code, cells: u64) {
        self.send(pairs_frame(command, &[(CircuitId(CIRCUIT), cells)]));
    }

    fn faults(&self, fault: CircuitFault) -> u64 {
        self.mesh.faults(self.end, fault)
    }

    #[track_caller]
    fn assert_destroyed(mut self, fault: CircuitFault) {
        self.mesh.run();
        assert_eq!((self.faults(fault), self.mesh.fault(self.end)), (1, None));
        assert_eq!(self.mesh.answers(self.end).last(), Some(&(CIRCUIT, Code::Destroy)));
        assert!(self.mesh.edges.iter().all(|edge| edge.borrow().over), "the exit learns it");
        self.mesh.send_body(self.end, Header::new(CircuitId(CIRCUIT), Code::Destroy), &[]);
        self.mesh.run();
        self.mesh.assert_clean();
    }
}

// ---- Cells ----

#[test]
fn a_replayed_cell_destroys_the_circuit() {
    let mut liar = Liar::new(2, 1);
    let cell = liar.cell();
    liar.send(copy(&cell));
    assert!(liar.faults(CircuitFault::Authentication) == 0);
    liar.send(cell);
    liar.assert_destroyed(CircuitFault::Authentication);
}

#[test]
fn reordered_cells_destroy_the_circuit() {
    let mut liar = Liar::new(2, 2);
    let (first, second) = (liar.cell(), liar.cell());
    liar.send(second);
    liar.send(first);
    liar.assert_destroyed(CircuitFault::Authentication);
}

#[test]
fn a_dropped_cell_destroys_the_circuit() {
    let mut liar = Liar::new(1, 3);
    liar.cell();
    let second = liar.cell();
    liar.send(second);
    liar.assert_destroyed(CircuitFault::Authentication);
}

#[test]
fn a_flipped_bit_anywhere_destroys_the_circuit() {
    for at in [HEADER_BYTES, HEADER_BYTES + 1, 100, 1000, FRAME_BYTES - 17, FRAME_BYTES - 1] {
        let mut liar = Liar::new(2, 4);
        let mut cell = liar.cell();
        cell.bytes_mut()[at] ^= 0x10;
        liar.send(cell);
        liar.assert_destroyed(CircuitFault::Authentication);
    }
}

#[test]
fn a_bit_flipped_between_two_hops_is_found_by_the_next_one() {
    for (wire, what) in [(3, "forward"), (2, "backward")] {
        let (mut mesh, client, exit) = opened(3, 5);
        mesh.ends[wire].stalled = true;
        exit.borrow_mut().answer_bytes = 2_000_000;
        client.borrow_mut().open(2_000_000, mesh.now_ms);
        mesh.run();
        mesh.ends[wire].stalled = false;
        let cell = mesh.ends[wire].wire.iter_mut().find(|frame| crate::mesh::is_cell(frame.bytes())).unwrap();
        cell.bytes_mut()[700] ^= 1;
        mesh.run();
        mesh.wait(7);
        assert!(client.borrow().over && exit.borrow().over, "{what}");
        let faults: u64 = mesh.ends.iter().flat_map(|end| end.faults.values()).sum();
        assert_eq!(faults, 1, "{what}: counted once, where it was found");
        drop((client, exit));
        mesh.assert_clean();
    }
}

#[test]
fn flag_0_after_1_destroys_the_circuit() {
    let mut liar = Liar::new(2, 6);
    let fresh = liar.cell();
    assert_eq!(fresh.bytes()[5], 1);
    liar.send(fresh);
    let mut old = liar.cell();
    old.bytes_mut()[5] = 0;
    liar.send(old);
    liar.assert_destroyed(CircuitFault::Authentication);
}

#[test]
fn a_message_for_a_relay_destroys_the_circuit() {
    let mut liar = Liar::new(2, 7);
    liar.hops = 1;
    liar.mux.open(&target(), Vec::new(), 0).unwrap();
    let cell = liar.cell();
    liar.send(cell);
    liar.assert_destroyed(CircuitFault::RelayMessage);
}

#[test]
fn junk_in_messages_destroys_the_circuit() {
    let mut liar = Liar::new(2, 8);
    let mut frame = FrameBuf::new();
    frame.bytes_mut()[client_area(1)].fill(0xff);
    let flags = liar.origin.seal(1, frame.bytes_mut()).unwrap();
    frame.set_header(Header { flags, ..Header::new(CircuitId(CIRCUIT), Code::Cell) });
    liar.send(frame);
    // The exit found it: its lane is that from node 1, and the end has come back to the client.
    assert_eq!(liar.mesh.ends[3].faults.get(&CircuitFault::Junk), Some(&1));
    assert_eq!(liar.mesh.answers(liar.end).last(), Some(&(CIRCUIT, Code::Destroy)));
}

// ---- Credit ----

#[test]
fn cells_beyond_credit_destroy_the_circuit_and_the_third_time_the_lane() {
    for (pause_ms, closes) in [(1000, true), (ADMISSION.breach_window_ms / 2, false)] {
        let mut mesh = Mesh::chain(1, 10);
        let client = mesh.client();
        let end = mesh.link_raw(client, 1);
        mesh.workers_busy = true;
        for breach in 0..3 {
            let (circuit, packet) = (1 + 2 * breach, mesh.origin(&[1], 0).1);
            mesh.send_setup(end, circuit, &packet);
            for _ in 0..FIRST_WINDOW_CELLS {
                mesh.send_body(end, Header::new(CircuitId(circuit), Code::Cell), &[1; BODY_BYTES]);
            }
            mesh.run();
            assert_eq!((mesh.answers(end).len(), mesh.faults(end, CircuitFault::Credit)), (0, u64::from(breach)));
            mesh.send_body(end, Header::new(CircuitId(circuit), Code::Cell), &[1; BODY_BYTES]);
            mesh.run();
            let expected = (breach == 2 && closes).then_some(LinkFault::Credit);
            assert_eq!(mesh.fault(end), expected, "breach {breach}, every {pause_ms} ms");
            assert_eq!(mesh.faults(end, CircuitFault::Credit), u64::from(breach) + 1);
            mesh.received(end);
            mesh.now_ms += pause_ms;
        }
    }
}

#[test]
fn a_limit_that_nobody_asked_for_is_a_breach() {
    for hops in [1, 2] {
        let mut liar = Liar::new(hops, 11);
        liar.pair(Code::Limit, 16);
        liar.assert_destroyed(CircuitFault::Credit);
    }
    // While SETUP is in work, too.
    let mut liar = Liar::building(1, 12);
    liar.mesh.workers_busy = true;
    liar.mesh.run();
    liar.pair(Code::Limit, 16);
    liar.mesh.workers_busy = false;
    liar.assert_destroyed(CircuitFault::Credit);
}

/// Lets the circuit be idle until the node asks for permission back; gives the number that it asks for.
fn asked_back(liar: &mut Liar) -> u64 {
    liar.mesh.received(liar.end);
    liar.mesh.wait(6);
    let frames = liar.mesh.received(liar.end);
    let reclaim = frames.iter().find(|frame| frame.bytes()[4] == Code::Reclaim.code()).expect("it asks");
    let asked: Vec<_> = pairs(&reclaim.bytes()[HEADER_BYTES..]).unwrap().collect();
    assert_eq!(asked[0].0, CircuitId(CIRCUIT));
    asked[0].1
}

#[test]
fn a_limit_above_what_was_permitted_is_a_breach() {
    let mut liar = Liar::new(2, 13);
    asked_back(&mut liar);
    liar.pair(Code::Limit, FIRST_WINDOW_CELLS + 1);
    liar.assert_destroyed(CircuitFault::Credit);
}

#[test]
fn a_limit_below_what_came_already_is_a_breach() {
    // Cells that came, but wait behind a next lane that is full: their memory would be given back while they still need it.
    let mut liar = Liar::new(2, 14);
    liar.mesh.ends[3].stalled = true;
    liar.mesh.ends[3].wire.extend((0..WIRE_FRAMES).map(|_| FrameBuf::with_body(Header::new(CircuitId(0), Code::Padding), &[])));
    for _ in 0..FIRST_WINDOW_CELLS {
        let cell = liar.cell();
        liar.send(cell);
    }
    assert_eq!(asked_back(&mut liar), 4);
    let held = liar.mesh.members[1].pool.reserved_cells();
    liar.pair(Code::Limit, 4);
    assert_eq!((liar.faults(CircuitFault::Credit), liar.mesh.fault(liar.end)), (1, None));
    assert!(held >= FIRST_WINDOW_CELLS);
}

#[test]
fn an_honest_limit_frees_memory_and_the_circuit_goes_on() {
    let mut liar = Liar::new(2, 15);
    let to = asked_back(&mut liar);
    liar.pair(Code::Limit, to);
    // Its own sender, node 2, has answered as well.
    assert_eq!(liar.mesh.members[1].pool.reserved_cells(), 2 * IDLE_WINDOW_CELLS);
    for _ in 0..4 {
        let cell = liar.cell();
        liar.send(cell);
    }
    assert_eq!((liar.faults(CircuitFault::Credit), liar.faults(CircuitFault::Authentication)), (0, 0));
}

#[test]
fn a_credit_that_permits_less_changes_nothing() {
    let mut liar = Liar::new(1, 16);
    let exit = liar.mesh.edges[0].clone();
    exit.borrow_mut().answer_bytes = 200_000;
    liar.pair(Code::Credit, 40);
    liar.pair(Code::Credit, 3);
    liar.mux.open(&target(), Vec::new(), 0).unwrap();
    liar.mesh.received(liar.end);
    let cell = liar.cell();
    liar.send(cell);
    let cells = liar.mesh.answers(liar.end).iter().filter(|(_, command)| *command == Code::Cell).count();
    assert_eq!(cells, 40);
}

#[test]
fn credit_without_end_does_not_make_an_edge_take_without_end() {
    let mut liar = Liar::new(1, 17);
    let exit = liar.mesh.edges[0].clone();
    exit.borrow_mut().answer_bytes = 100_000_000;
    liar.pair(Code::Credit, u64::MAX);
    let stream = liar.mux.open(&target(), Vec::new(), 0).unwrap();
    let cell = liar.cell();
    liar.send(cell);
    // WINDOW of the stream, without end as well.
    let mut frame = FrameBuf::new();
    let area = &mut frame.bytes_mut()[client_area(0)];
    area[..5].copy_from_slice(&[6, 0, stream.0 as u8, 0, 8]);
    area[5..13].fill(0xff);
    let flags = liar.origin.seal(0, frame.bytes_mut()).unwrap();
    frame.set_header(Header { flags, ..Header::new(CircuitId(CIRCUIT), Code::Cell) });
    liar.send(frame);
    assert_eq!((liar.mesh.fault(liar.end), exit.borrow().over), (None, false));
    let taken = exit.borrow().sent[&stream];
    let bound = STREAM_QUEUE_BYTES + (WIRE_FRAMES as u64 + MAX_WINDOW_CELLS) * FRAME_BYTES as u64;
    assert!(taken <= bound, "{taken} bytes taken for a peer that reads nothing");
}

#[test]
fn pairs_for_free_ids_are_ignored() {
    let mut liar = Liar::new(1, 18);
    for command in [Code::Credit, Code::Reclaim, Code::Limit] {
        liar.send(pairs_frame(command, &[(CircuitId(99), 5), (CircuitId(98), u64::MAX)]));
    }
    assert_eq!(liar.mesh.fault(liar.end), None);
    liar.mesh.assert_peaceful();
}

// ---- Frames ----

#[test]
fn frames_of_unknown_circuits_close_the_lane() {
    for command in [Code::Cell, Code::Created] {
        for circuit in [5, 6] {
            let mut liar = Liar::new(1, 20);
            liar.mesh.send_body(liar.end, Header::new(CircuitId(circuit), command), &[1; BODY_BYTES]);
            liar.mesh.run();
            assert_eq!(liar.mesh.fault(liar.end), Some(LinkFault::CircuitId), "{command:?} {circuit}");
        }
    }
}

#[test]
fn what_is_not_zero_where_it_must_be_closes_the_lane() {
    let zero = CircuitId(0);
    let frame = |circuit: u32, command, body: &[u8]| FrameBuf::with_body(Header::new(CircuitId(circuit), command), body);
    let last = |mut frame: FrameBuf| {
        frame.bytes_mut()[FRAME_BYTES - 1] = 1;
        frame
    };
    let header = LinkFault::Header(HeaderError::Reserved);
    let cases = [
        (frame(CIRCUIT, Code::Destroy, &[1]), LinkFault::Padding),
        (last(frame(CIRCUIT, Code::Destroy, &[])), LinkFault::Padding),
        (last(frame(0, Code::Padding, &[])), LinkFault::Padding),
        (last(frame(0, Code::Control, &[0, 1, 7])), LinkFault::Control),
        (frame(0, Code::Control, &[0xff, 0xff]), LinkFault::Control),
        (frame(0, Code::Control, &[]), LinkFault::Control),
        (last(pairs_frame(Code::Credit, &[(CircuitId(1), 2)])), header),
        (last(pairs_frame(Code::Reclaim, &[])), header),
        (pairs_frame(Code::Limit, &[(CircuitId(1), 16), (zero, 1)]), header),
        (frame(0, Code::Cell, &[]), LinkFault::Header(HeaderError::Circuit)),
        (frame(1, Code::Credit, &[]), LinkFault::Header(HeaderError::Circuit)),
    ];
    for (number, (frame, fault)) in cases.into_iter().enumerate() {
        let mut liar = Liar::new(2, 21);
        liar.mesh.send(liar.end, frame);
        liar.mesh.run();
        assert_eq!(liar.mesh.fault(liar.end), Some(fault), "case {number}");
        assert!(liar.mesh.edges[0].borrow().over, "its circuits end");
        liar.mesh.assert_clean();
    }
}

#[test]
fn circuits_before_the_lane_is_admitted_close_it() {
    use port17_proto::lane::reader::Reader;
    let mesh = Mesh::chain(1, 22);
    let commands = [Code::Setup, Code::Created, Code::Destroy, Code::Cell, Code::Credit, Code::Reclaim, Code::Limit];
    for command in commands {
        let mut reader = Reader::new(mesh.ends[1].lane.clone(), Pool::new(1 << 20));
        let circuit = CircuitId(u32::from(!matches!(command, Code::Credit | Code::Reclaim | Code::Limit)));
        let mut frame = FrameBuf::with_body(Header::new(circuit, command), &[]);
        assert!(reader.frame(frame.bytes_mut(), 0).is_err(), "{command:?}");
        let mut padding = FrameBuf::with_body(Header::new(CircuitId(0), Code::Padding), &[]);
        assert_eq!(reader.frame(padding.bytes_mut(), 0), Ok(()));
    }
}

#[test]
fn setup_and_destroy_again_and_again_are_bounded_for_a_peer_that_reads_nothing() {
    use port17_proto::limits::LANE_CIRCUITS;
    let mut mesh = Mesh::chain(1, 23);
    let client = mesh.client();
    let end = mesh.link_raw(client, 1);
    mesh.run();
    let packet = mesh.origin(&[1], 0).1;
    for turn in 0..LANE_CIRCUITS + WIRE_FRAMES + 10 {
        mesh.send_part(end, 1, &packet, 0);
        mesh.send_body(end, Header::new(CircuitId(1), Code::Destroy), &[]);
        if turn % 1000 == 0 {
            mesh.run();
        }
    }
    mesh.run();
    assert_eq!(mesh.fault(end), Some(LinkFault::TooManyCircuits));
}

// ---- Garbage (law 6) ----

/// Frames that look like something: the header of a command, or anything at all.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let header = (0u32..8, 0u8..10, 0u8..3, 0u8..7, 0u8..5);
    let fill = prop_oneof![Just(0u8), any::<u8>()];
    let body = (prop::collection::vec(any::<u8>(), 0..64), fill);
    prop_oneof![
        9 => (header, body).prop_map(|((circuit, command, flags, a, b), (start, fill))| {
            let circuit = if matches!(command, 0 | 1 | 5 | 6 | 7) { 0 } else { circuit };
            let setup = command == Code::Setup.code();
            let mut frame = circuit.to_be_bytes().to_vec();
            frame.extend([command, if flags == 2 { 0 } else { flags }, if setup { a } else { 0 }, if setup { b } else { 0 }]);
            frame.extend(start);
            frame.resize(FRAME_BYTES, fill);
            frame
        }),
        1 => prop::collection::vec(any::<u8>(), FRAME_BYTES),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn garbage_costs_at_most_the_lane(frames in prop::collection::vec(garbage(), 1..80), seed in 0u64..1000, hops in 1usize..3) {
        let mut liar = Liar::new(hops, seed);
        let cell = liar.cell();
        liar.send(cell);
        for bytes in frames {
            let mut frame = FrameBuf::new();
            frame.bytes_mut().copy_from_slice(&bytes);
            liar.mesh.send(liar.end, frame);
        }
        liar.mesh.run();
        let circuits: usize = liar.mesh.ends[liar.end + 1].reader.as_ref().unwrap().circuits();
        prop_assert!(circuits <= 8);
        // Whatever it was: with the lane, all of it goes.
        liar.mesh.cut(liar.end);
        liar.mesh.run();
        liar.mesh.wait(7);
        prop_assert!(liar.mesh.edges.iter().all(|edge| edge.borrow().over));
        liar.mesh.edges.clear();
        prop_assert_eq!((liar.mesh.circuits(), liar.mesh.reserved()), (0, 0));
    }

    #[test]
    fn garbage_from_the_next_hop_costs_at_most_its_lane(frames in prop::collection::vec(garbage(), 1..80), seed in 0u64..1000) {
        let mut mesh = Mesh::chain(2, seed);
        mesh.ends[3].reader = None;
        let client = mesh.circuit(0, &[1, 2]);
        client.borrow_mut().open(1000, mesh.now_ms);
        mesh.run();
        for bytes in frames {
            let mut frame = FrameBuf::new();
            frame.bytes_mut().copy_from_slice(&bytes);
            mesh.send(3, frame);
        }
        mesh.run();
        prop_assert_eq!(mesh.ends[1].fault, None, "the client's lane does not pay for it");
        mesh.cut(3);
        mesh.run();
        mesh.wait(7);
        prop_assert!(client.borrow().over);
        drop(client);
        mesh.edges.clear();
        prop_assert_eq!((mesh.circuits(), mesh.reserved()), (0, 0));
    }
}
