//! SETUP and CREATED, honest and not: who is answered what, and what it costs whom.

use port17_proto::circuit::hop::Hop;
use port17_proto::circuit::onion::{ANSWER_AREA, BackwardLayer};
use port17_proto::circuit::replay::ReplayError;
use port17_proto::circuit::setup::{HopKeys, SetupError, SetupPacket, SetupParts};
use port17_proto::crypto::Entropy;
use port17_proto::ids::CircuitId;
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::reader::{Admission, CircuitFault, Command, LinkFault, Port};
use port17_proto::limits::FIRST_WINDOW_CELLS;
use port17_proto::wire::registry::{BODY_BYTES, Command as Code, HEADER_BYTES, SetupStatus};

use crate::edge::Progress;
use crate::mesh::{ADMISSION, Mesh};

/// A chain of two nodes, and a lane of the test's own to the first one.
fn raw(seed: u64) -> (Mesh, usize) {
    let mut mesh = Mesh::chain(2, seed);
    let client = mesh.client();
    let end = mesh.link_raw(client, 1);
    (mesh, end)
}

fn header(circuit: u32, command: Code) -> Header {
    Header::new(CircuitId(circuit), command)
}

/// How a client's circuit over this route is answered.
fn progress(mesh: &mut Mesh, route: &[usize]) -> Progress {
    let client = mesh.circuit(0, route);
    mesh.run();
    client.borrow().progress
}

fn refused(hop: usize, status: SetupStatus) -> Progress {
    Progress::Refused { hop, status }
}

// ---- The next hop ----

#[test]
fn a_setup_to_itself_or_back_is_not_connected() {
    let mut mesh = Mesh::chain(2, 1);
    assert_eq!(progress(&mut mesh, &[1, 1]), refused(0, SetupStatus::NotConnected));
    assert_eq!(progress(&mut mesh, &[1, 2, 1]), refused(1, SetupStatus::NotConnected));
    assert_eq!(progress(&mut mesh, &[1, 2]), Progress::Open);
    mesh.edges[0].borrow_mut().end(true);
    mesh.run();
}

#[test]
fn a_setup_to_a_stranger_opens_no_lane() {
    let mut mesh = Mesh::chain(2, 2);
    let stranger = mesh.node();
    let lanes = mesh.ends.len();
    assert_eq!(progress(&mut mesh, &[1, stranger]), refused(0, SetupStatus::NotConnected));
    assert_eq!(progress(&mut mesh, &[1, 2, stranger]), refused(1, SetupStatus::NotConnected));
    // Law 1: all that a node does is to look at the links that it has.
    assert_eq!((mesh.ends.len(), mesh.members[1].strangers.get(), mesh.members[2].strangers.get()), (lanes, 1, 1));
    mesh.assert_peaceful();
    mesh.assert_clean();
}

#[test]
fn a_link_that_is_down_is_not_connected() {
    let mut mesh = Mesh::chain(3, 3);
    mesh.cut(4);
    assert_eq!(progress(&mut mesh, &[1, 2, 3]), refused(1, SetupStatus::NotConnected));
    mesh.assert_clean();
}

#[test]
fn who_is_no_exit_answers_policy() {
    let mut mesh = Mesh::chain(3, 4);
    mesh.members[3].exit = false;
    assert_eq!(progress(&mut mesh, &[1, 2, 3]), refused(2, SetupStatus::Policy));
    mesh.assert_peaceful();
    mesh.assert_clean();
}

#[test]
fn a_relay_without_memory_or_circuits_for_the_next_hop_answers_overload() {
    let mut mesh = Mesh::chain(2, 5);
    mesh.members[1].circuits = 0;
    assert_eq!(progress(&mut mesh, &[1, 2]), refused(0, SetupStatus::Overload));
    mesh.members[1].circuits = 10;
    let rest = mesh.members[1].pool.reserve(32_768 - FIRST_WINDOW_CELLS).unwrap();
    assert_eq!(progress(&mut mesh, &[1, 2]), refused(0, SetupStatus::Overload), "the forward window took the last of it");
    drop(rest);
    assert_eq!(progress(&mut mesh, &[1, 2]), Progress::Open);
}

#[test]
fn a_next_hop_that_destroys_is_reported_as_next_refused() {
    let mut mesh = Mesh::chain(3, 6);
    let hop = mesh.hop(3);
    mesh.members[3].keyring(|keyring| keyring.erase(port17_proto::circuit::keyring::KeyId::of(&hop.key)));
    mesh.members[3].keyring(|keyring| keyring.rotate(crate::mesh::NOW, &mut Entropy::from_number(1)).map(|_| ())).unwrap();
    // The client still has the old Bottle.
    let (mut origin, packet) = mesh.origin_of(&[mesh.hop(1), mesh.hop(2), hop], 1);
    let end = mesh.link_raw(0, 1);
    mesh.send_setup(end, 1, &packet);
    mesh.run();
    let received = mesh.received(end);
    let answer = origin.handle_created(&received[0].bytes()[HEADER_BYTES..]).unwrap();
    assert_eq!(answer, port17_proto::circuit::origin::Answer::Failed { hop: 1, status: SetupStatus::NextRefused });
    assert_eq!(Header::decode(received[1].bytes()).unwrap(), header(1, Code::Destroy));
    assert_eq!(mesh.refused, [(3, SetupError::UnknownKey)]);
}

// ---- Packets ----

#[test]
fn an_unknown_key_is_destroyed_without_a_word() {
    let (mut mesh, end) = raw(10);
    let (_, packet) = mesh.origin(&[1, 2], 0);
    let mut bytes = Box::new(*packet.as_bytes());
    bytes[0] ^= 1;
    mesh.send_setup(end, 1, &SetupPacket::new(0, bytes).unwrap());
    mesh.run();
    assert_eq!(mesh.answers(end), [(1, Code::Destroy)]);
    assert_eq!(mesh.refused, [(1, SetupError::UnknownKey)]);
    assert_eq!(mesh.reserved(), 0);
}

#[test]
fn of_the_same_setup_on_two_lanes_at_once_exactly_one_lives() {
    for seed in 0..10 {
        let (mut mesh, one) = raw(20 + seed);
        let client = mesh.client();
        let other = mesh.link_raw(client, 1);
        let (_, packet) = mesh.origin(&[1, 2], 2);
        for part in 0..4 {
            mesh.send_part(one, 1, &packet, part);
            mesh.send_part(other, 7, &packet, part);
        }
        mesh.run();
        let mut answers = [mesh.answers(one), mesh.answers(other)].concat();
        answers.sort_by_key(|(_, command)| command.code());
        assert!(matches!(answers[..], [(_, Code::Created), (_, Code::Destroy)]), "{answers:?}");
        assert_eq!(mesh.refused, [(1, SetupError::Replay(ReplayError::Replayed))]);
    }
}

#[test]
fn a_second_setup_on_a_live_id_destroys_the_circuit() {
    for when in ["assembling", "in work", "open"] {
        let (mut mesh, end) = raw(30);
        let (_, packet) = mesh.origin(&[1, 2], 0);
        mesh.workers_busy = when == "in work";
        let parts = if when == "assembling" { 2 } else { 4 };
        (0..parts).for_each(|part| mesh.send_part(end, 1, &packet, part));
        mesh.run();
        mesh.send_part(end, 1, &packet, 0);
        mesh.run();
        mesh.workers_busy = false;
        mesh.run();
        assert_eq!(mesh.answers(end).last(), Some(&(1, Code::Destroy)), "{when}");
        assert_eq!(mesh.fault(end), None);
        mesh.send_body(end, header(1, Code::Destroy), &[]);
        mesh.run();
        mesh.assert_clean();
    }
}

#[test]
fn parts_out_of_order_missing_or_of_two_depths_cost_the_circuit() {
    for parts in [&[0u8, 2][..], &[0, 0], &[0, 1, 3], &[0, 1, 2, 2]] {
        let (mut mesh, end) = raw(31);
        let (_, packet) = mesh.origin(&[1, 2], 0);
        parts.iter().for_each(|part| mesh.send_part(end, 1, &packet, *part));
        mesh.run();
        assert_eq!((mesh.answers(end), mesh.fault(end)), (vec![(1, Code::Destroy)], None), "{parts:?}");
        assert_eq!((mesh.faults(end, CircuitFault::SetupParts), mesh.processed, mesh.reserved()), (1, 0, 0));
    }
    let (mut mesh, end) = raw(32);
    let (_, packet) = mesh.origin(&[1, 2], 0);
    let deeper = SetupPacket::new(1, Box::new(*packet.as_bytes())).unwrap();
    mesh.send_part(end, 1, &packet, 0);
    mesh.send_part(end, 1, &deeper, 1);
    mesh.run();
    assert_eq!((mesh.answers(end), mesh.processed), (vec![(1, Code::Destroy)], 0));
}

#[test]
fn a_cell_between_the_parts_destroys_the_circuit() {
    let (mut mesh, end) = raw(33);
    let (_, packet) = mesh.origin(&[1, 2], 0);
    mesh.send_part(end, 1, &packet, 0);
    mesh.send_body(end, header(1, Code::Cell), &[1; BODY_BYTES]);
    mesh.run();
    assert_eq!(mesh.answers(end), [(1, Code::Destroy)]);
    assert_eq!(mesh.faults(end, CircuitFault::State), 1);
}

#[test]
fn parts_of_other_circuits_may_come_between() {
    let (mut mesh, end) = raw(34);
    let packets: Vec<_> = (0..3).map(|_| mesh.origin(&[1, 2], 0).1).collect();
    for part in 0..4 {
        for (circuit, packet) in [1, 3, 5].into_iter().zip(&packets) {
            mesh.send_part(end, circuit, packet, part);
        }
    }
    mesh.run();
    let mut answers = mesh.answers(end);
    answers.sort_by_key(|(circuit, _)| *circuit);
    assert_eq!(answers, [(1, Code::Created), (3, Code::Created), (5, Code::Created)]);
}

#[test]
fn a_depth_above_5_is_destroyed() {
    let (mut mesh, end) = raw(35);
    let header = Header { depth: 6, ..header(1, Code::Setup) };
    mesh.send_body(end, header, &[1; BODY_BYTES]);
    mesh.run();
    assert_eq!((mesh.answers(end), mesh.fault(end), mesh.reserved()), (vec![(1, Code::Destroy)], None, 0));
}

// ---- Floods ----

fn admit(mesh: &mut Mesh, end: usize, admission: Admission) {
    mesh.ends[end + 1].lane.command(Command::Admit(admission));
    mesh.run();
}

/// Sends this many SETUPs and gives how many were answered by CREATED and by DESTROY.
fn flood(mesh: &mut Mesh, end: usize, first: u32, setups: u32) -> (usize, usize) {
    for setup in 0..setups {
        let (_, packet) = mesh.origin(&[1], 0);
        mesh.send_setup(end, first + 2 * setup, &packet);
    }
    mesh.run();
    let answers = mesh.answers(end);
    let of = |command| answers.iter().filter(|answer| answer.1 == command).count();
    (of(Code::Created), of(Code::Destroy))
}

#[test]
fn setups_above_the_rate_are_destroyed_before_public_key_work() {
    let (mut mesh, end) = raw(40);
    admit(&mut mesh, end, Admission { circuits: 100, setups_per_second: 4, setups_burst: 5, ..ADMISSION });
    assert_eq!(flood(&mut mesh, end, 1, 12), (5, 7));
    assert_eq!((mesh.processed, mesh.faults(end, CircuitFault::SetupRefused)), (5, 7));
    mesh.now_ms += 600;
    assert_eq!(flood(&mut mesh, end, 101, 10), (2, 8), "0.6 s earn two more");
    mesh.now_ms += 100_000;
    assert_eq!(flood(&mut mesh, end, 201, 10), (5, 5), "never more than the burst");
    assert_eq!(mesh.fault(end), None);
}

#[test]
fn circuits_above_the_lane_s_number_are_destroyed_before_public_key_work() {
    let (mut mesh, end) = raw(41);
    admit(&mut mesh, end, Admission { circuits: 3, setups_per_second: 1000, setups_burst: 1000, ..ADMISSION });
    assert_eq!(flood(&mut mesh, end, 1, 8), (3, 5));
    assert_eq!(mesh.processed, 3);
    // All end; their places are free again.
    (0..8).for_each(|setup| mesh.send_body(end, header(1 + 2 * setup, Code::Destroy), &[]));
    mesh.run();
    mesh.received(end);
    assert_eq!(flood(&mut mesh, end, 101, 4), (3, 1));
}

#[test]
fn setups_without_memory_are_destroyed_before_public_key_work() {
    let (mut mesh, end) = raw(42);
    let rest = mesh.members[1].pool.reserve(32_768 - 2 * FIRST_WINDOW_CELLS - 3).unwrap();
    assert_eq!(flood(&mut mesh, end, 1, 6), (2, 4));
    assert_eq!(mesh.processed, 2);
    drop(rest);
    assert_eq!(flood(&mut mesh, end, 101, 6), (6, 0));
}

#[test]
fn a_client_serves_no_circuit() {
    let mut mesh = Mesh::new(43);
    let (client, guard) = (mesh.client(), mesh.node());
    let end = mesh.link(client, guard);
    mesh.ends[end + 1].reader = None;
    mesh.ends[end].lane.command(Command::Admit(Admission { circuits: 0, setups_per_second: 0, setups_burst: 0, ..ADMISSION }));
    mesh.run();
    let (_, packet) = mesh.origin(&[guard], 0);
    mesh.send_setup(end + 1, 2, &packet);
    mesh.run();
    assert_eq!((mesh.answers(end + 1), mesh.processed), (vec![(2, Code::Destroy)], 0));
}

// ---- CREATED ----

/// A client, an honest relay (1), and a next hop (2) that the test plays. The client's circuit has come as far as the test's end.
struct Rogue {
    mesh: Mesh,
    end: usize,
    circuit: CircuitId,
    keys: Option<HopKeys>,
    backward: Option<BackwardLayer>,
}

impl Rogue {
    fn new(seed: u64) -> Self {
        let mut mesh = Mesh::chain(2, seed);
        let end = 3;
        mesh.ends[end].reader = None;
        mesh.circuit(0, &[1, 2]);
        mesh.run();
        let mut parts: Option<SetupParts> = None;
        let mut circuit = CircuitId(0);
        for frame in mesh.received(end) {
            let header = Header::decode(frame.bytes()).unwrap();
            assert_eq!(header.command, Code::Setup);
            circuit = header.circuit;
            let body = &frame.bytes()[HEADER_BYTES..];
            match &mut parts {
                None => parts = Some(SetupParts::begin(header.part, header.depth, body).unwrap()),
                Some(parts) => assert_eq!(parts.push(header.part, header.depth, body), Ok(header.part == 3)),
            }
        }
        let packet = parts.unwrap().finish().unwrap();
        let own = mesh.id(2);
        let key = mesh.members[2].keyring(|keyring| keyring.current().unwrap().clone());
        let opened = packet.open(own, &key).unwrap();
        let now = mesh.unix_seconds();
        let admitted = mesh.members[2].keyring(|keyring| opened.admit(keyring, now)).unwrap();
        let keys = admitted.answer(&mut Entropy::from_number(seed)).ok();
        Self { mesh, end, circuit, keys, backward: None }
    }

    /// The answer of an honest exit.
    fn created(&mut self) -> Box<[u8; BODY_BYTES]> {
        let keys = self.keys.take().unwrap();
        self.backward = Some(keys.backward);
        keys.created.answer(SetupStatus::Ok)
    }

    fn send(&mut self, command: Code, body: &[u8]) {
        self.mesh.send_body(self.end, Header::new(self.circuit, command), body);
    }

    fn send_message(&mut self, flags: u8) {
        let mut frame = FrameBuf::new();
        frame.bytes_mut()[ANSWER_AREA].fill(0);
        self.backward.as_mut().unwrap().seal_message_backward(frame.bytes_mut());
        frame.set_header(Header { flags, ..Header::new(self.circuit, Code::Cell) });
        self.mesh.send(self.end, frame);
    }

    /// The relay destroyed the circuit for this, on both sides.
    #[track_caller]
    fn assert_destroyed(mut self, fault: CircuitFault) {
        self.mesh.run();
        assert_eq!((self.mesh.faults(self.end, fault), self.mesh.fault(self.end)), (1, None));
        assert_eq!(self.mesh.answers(self.end), [(self.circuit.0, Code::Destroy)]);
        assert!(self.mesh.edges[0].borrow().over);
        self.send(Code::Destroy, &[]);
        self.mesh.run();
        self.mesh.assert_clean();
    }
}

#[test]
fn a_second_created_at_a_relay_destroys_the_circuit() {
    let mut rogue = Rogue::new(50);
    let created = rogue.created();
    rogue.send(Code::Created, &created[..]);
    rogue.mesh.run();
    assert_eq!(rogue.mesh.edges[0].borrow().progress, Progress::Open);
    rogue.send(Code::Created, &created[..]);
    rogue.assert_destroyed(CircuitFault::State);
}

#[test]
fn a_backward_cell_before_created_destroys_the_circuit() {
    let mut rogue = Rogue::new(51);
    rogue.created();
    rogue.send_message(0);
    rogue.assert_destroyed(CircuitFault::State);
}

#[test]
fn a_backward_cell_with_a_flag_destroys_the_circuit() {
    let mut rogue = Rogue::new(52);
    let created = rogue.created();
    rogue.send(Code::Created, &created[..]);
    rogue.send_message(0);
    rogue.mesh.run();
    assert!(!rogue.mesh.edges[0].borrow().over);
    rogue.send_message(1);
    rogue.assert_destroyed(CircuitFault::State);
}

#[test]
fn bytes_behind_a_created_layer_destroy_the_circuit() {
    let mut rogue = Rogue::new(53);
    let mut created = rogue.created();
    created[BODY_BYTES - 1] = 1;
    rogue.send(Code::Created, &created[..]);
    rogue.assert_destroyed(CircuitFault::Authentication);
}

#[test]
fn bytes_behind_a_backward_layer_destroy_the_circuit() {
    let mut rogue = Rogue::new(54);
    let created = rogue.created();
    rogue.send(Code::Created, &created[..]);
    let mut body = [1; BODY_BYTES];
    body[..100].fill(0);
    rogue.send(Code::Cell, &body);
    rogue.assert_destroyed(CircuitFault::Authentication);
}

#[test]
fn a_created_that_lies_ends_the_circuit_at_the_client() {
    let mut rogue = Rogue::new(55);
    let mut created = rogue.created();
    created[40] ^= 1;
    rogue.send(Code::Created, &created[..]);
    rogue.mesh.run();
    assert_eq!(rogue.mesh.edges[0].borrow().progress, Progress::Broken);
    assert_eq!(rogue.mesh.answers(rogue.end), [(rogue.circuit.0, Code::Destroy)], "the end has come all the way");
}

#[test]
fn setup_and_created_where_they_do_not_belong_destroy_the_circuit() {
    // CREATED on the forward half of a relay: from the client's side.
    let (mut mesh, end) = raw(56);
    let (_, packet) = mesh.origin(&[1, 2], 0);
    mesh.send_setup(end, 1, &packet);
    mesh.run();
    assert_eq!(mesh.answers(end), [(1, Code::Created)]);
    mesh.send_body(end, header(1, Code::Created), &[0; BODY_BYTES]);
    mesh.run();
    assert_eq!((mesh.answers(end), mesh.faults(end, CircuitFault::State)), (vec![(1, Code::Destroy)], 1));
    // And at an exit.
    let (_, packet) = mesh.origin(&[1], 0);
    mesh.send_setup(end, 3, &packet);
    mesh.send_body(end, header(3, Code::Created), &[0; BODY_BYTES]);
    mesh.run();
    assert_eq!((mesh.answers(end).last(), mesh.faults(end, CircuitFault::State)), (Some(&(3, Code::Destroy)), 2));
}

/// A client whose guard the test plays; the client's circuit is on its way.
fn rogue_guard(seed: u64) -> (Mesh, usize, CircuitId) {
    let mut mesh = Mesh::chain(1, seed);
    mesh.ends[1].reader = None;
    let client = mesh.circuit(0, &[1]);
    mesh.run();
    mesh.received(1);
    let circuit = client.borrow().circuit;
    (mesh, 1, circuit)
}

#[test]
fn a_cell_before_created_destroys_the_circuit_at_the_client() {
    let (mut mesh, end, circuit) = rogue_guard(57);
    mesh.send_body(end, Header::new(circuit, Code::Cell), &[1; BODY_BYTES]);
    mesh.run();
    assert_eq!((mesh.faults(end, CircuitFault::State), mesh.answers(end)), (1, vec![(circuit.0, Code::Destroy)]));
    assert!(mesh.edges[0].borrow().over);
}

#[test]
fn a_second_created_destroys_the_circuit_at_the_client() {
    let (mut mesh, end, circuit) = rogue_guard(58);
    for _ in 0..2 {
        mesh.send_body(end, Header::new(circuit, Code::Created), &[1; BODY_BYTES]);
    }
    mesh.run();
    assert!(mesh.edges[0].borrow().over);
    assert_eq!((mesh.answers(end), mesh.fault(end)), (vec![(circuit.0, Code::Destroy)], None));
}

#[test]
fn a_part_of_a_setup_that_never_began_closes_the_lane() {
    for part in 1..4 {
        let (mut mesh, end) = raw(59);
        let (_, packet) = mesh.origin(&[1, 2], 0);
        mesh.send_part(end, 1, &packet, part);
        mesh.run();
        assert_eq!(mesh.fault(end), Some(LinkFault::CircuitId), "part {part}");
    }
}

#[test]
fn a_setup_with_an_id_of_the_receiver_s_closes_the_lane_whatever_the_id_is() {
    // Free.
    let (mut mesh, end) = raw(60);
    let (_, packet) = mesh.origin(&[1, 2], 0);
    mesh.send_part(end, 2, &packet, 0);
    mesh.run();
    assert_eq!(mesh.fault(end), Some(LinkFault::CircuitId));
    // Live: the relay's own circuit on the lane to the next hop.
    let mut rogue = Rogue::new(61);
    let packet = rogue.mesh.origin(&[1], 0).1;
    rogue.mesh.send_part(rogue.end, rogue.circuit.0, &packet, 0);
    rogue.mesh.run();
    assert_eq!(rogue.mesh.fault(rogue.end), Some(LinkFault::CircuitId));
    assert!(rogue.mesh.edges[0].borrow().over);
}
