//! The end of circuits: whoever ends one, wherever a lane breaks, everyone else learns it and all memory comes back.

use port17_proto::ids::CircuitId;
use port17_proto::lane::frame::Header;
use port17_proto::lane::reader::{CircuitFault, LinkFault};
use port17_proto::wire::registry::{Command as Code, SetupStatus};

use crate::edge::Progress;
use crate::mesh::Mesh;
use crate::traffic::opened;

/// Traffic both ways through three nodes, stopped in the middle after some rounds.
fn in_the_middle(seed: u64, rounds: u64) -> Mesh {
    let (mut mesh, client, exit) = opened(3, seed);
    exit.borrow_mut().answer_bytes = 3_000_000;
    client.borrow_mut().open(3_000_000, mesh.now_ms);
    for _ in 0..rounds {
        mesh.round();
    }
    mesh
}

/// Everything comes to rest, with the patience that an end without credit needs; nothing is left.
#[track_caller]
fn assert_all_over(mut mesh: Mesh) {
    mesh.run();
    mesh.wait(7);
    assert!(mesh.edges.iter().all(|edge| edge.borrow().over));
    mesh.assert_peaceful();
    mesh.assert_clean();
}

#[test]
fn a_destroy_from_the_client_ends_the_whole_circuit() {
    for seed in 0..20 {
        let mesh = in_the_middle(seed, seed * 7);
        mesh.edges[0].borrow_mut().end(seed % 2 == 0);
        assert_all_over(mesh);
    }
}

#[test]
fn a_destroy_from_the_exit_ends_the_whole_circuit() {
    for seed in 0..20 {
        let mesh = in_the_middle(seed, seed * 7);
        mesh.edges[1].borrow_mut().end(seed % 2 == 0);
        assert_all_over(mesh);
    }
}

#[test]
fn both_ends_may_destroy_at_once() {
    for seed in 0..20 {
        let mesh = in_the_middle(seed, seed * 7);
        mesh.edges[0].borrow_mut().end(seed % 2 == 0);
        mesh.edges[1].borrow_mut().end(seed % 4 < 2);
        assert_all_over(mesh);
    }
}

#[test]
fn a_lost_lane_ends_its_circuits_on_both_sides() {
    for seed in 0..30 {
        let mut mesh = in_the_middle(seed, seed * 3);
        // The client's lane, one in the middle, the exit's.
        mesh.cut(2 * (seed as usize % 3));
        assert_all_over(mesh);
    }
}

#[test]
fn an_orderly_end_stays_behind_the_cells_at_every_hop() {
    for hops in 1..=4 {
        let (mut mesh, client, exit) = opened(hops, 59);
        mesh.ends[0].stalled = true;
        exit.borrow_mut().answer_bytes = 20_000;
        client.borrow_mut().open(5, mesh.now_ms);
        mesh.run();
        exit.borrow_mut().end(true);
        mesh.run();
        let commands = mesh.ends[0].wire.iter().map(|frame| Header::decode(frame.bytes()).unwrap().command);
        let of_circuit: Vec<_> = commands.filter(|command| *command != Code::Credit).collect();
        assert_eq!(of_circuit.last(), Some(&Code::Destroy), "{hops} hops");
        assert!(of_circuit.iter().filter(|command| **command == Code::Cell).count() >= 11);
    }
}

#[test]
fn an_end_without_credit_comes_all_the_same() {
    let (mut mesh, client, exit) = opened(2, 60);
    mesh.ends[3].stalled = true;
    client.borrow_mut().open(5_000_000, mesh.now_ms);
    mesh.run();
    client.borrow_mut().end(true);
    mesh.run();
    assert!(!exit.borrow().over);
    mesh.wait(7);
    mesh.ends[3].stalled = false;
    drop((client, exit));
    assert_all_over(mesh);
}

#[test]
fn a_lane_that_is_lost_while_a_setup_is_under_way_leaves_nothing_behind() {
    for lost in [0, 2, 4] {
        for rounds in 0..40 {
            let mut mesh = Mesh::chain(3, 100 + rounds);
            let client = mesh.circuit(0, &[1, 2, 3]);
            client.borrow_mut().open(5000, mesh.now_ms);
            for _ in 0..rounds {
                mesh.round();
            }
            mesh.cut(lost);
            mesh.run();
            assert!(client.borrow().over, "lane {lost} lost after {rounds} rounds: the client waits for ever");
            drop(client);
            assert_all_over(mesh);
        }
    }
}

#[test]
fn a_client_that_leaves_while_its_setup_waits_leaves_nothing_behind() {
    let mut mesh = Mesh::chain(3, 61);
    mesh.workers_busy = true;
    let client = mesh.circuit(0, &[1, 2, 3]);
    mesh.run();
    mesh.cut(0);
    mesh.workers_busy = false;
    mesh.run();
    assert!(client.borrow().over);
    drop(client);
    assert_all_over(mesh);
}

#[test]
fn a_next_lane_that_is_lost_before_its_reader_knows_the_circuit_ends_it() {
    for too_late in [false, true] {
        let mut mesh = Mesh::chain(2, 62);
        mesh.workers_busy = true;
        let client = mesh.circuit(0, &[1, 2]);
        mesh.run();
        mesh.workers_busy = false;
        // The SETUP is processed; neither reader has taken its command.
        mesh.set_up();
        if too_late {
            mesh.ends[2].lane.forget_commands();
        }
        mesh.cut(2);
        mesh.run();
        assert!(client.borrow().over);
        let told = Progress::Refused { hop: 0, status: SetupStatus::NextRefused };
        assert_eq!(client.borrow().progress, if too_late { Progress::Building } else { told });
        drop(client);
        assert_all_over(mesh);
    }
}

// ---- The life of an id (spec 05, 3) ----

/// A lane of the test's own to the first of two nodes, and its end.
fn raw(seed: u64) -> (Mesh, usize) {
    let mut mesh = Mesh::chain(2, seed);
    let client = mesh.client();
    let end = mesh.link_raw(client, 1);
    (mesh, end)
}

fn header(circuit: u32, command: Code) -> Header {
    Header::new(CircuitId(circuit), command)
}

#[test]
fn destroy_is_answered_once_and_the_id_can_be_used_again() {
    let (mut mesh, end) = raw(70);
    for _ in 0..3 {
        let (_, packet) = mesh.origin(&[1, 2], 0);
        mesh.send_setup(end, 5, &packet);
        mesh.run();
        assert_eq!(mesh.answers(end), [(5, Code::Created)]);
        mesh.send_body(end, header(5, Code::Destroy), &[]);
        mesh.run();
        assert_eq!(mesh.answers(end), [(5, Code::Destroy)]);
    }
    mesh.assert_peaceful();
    mesh.assert_clean();
}

#[test]
fn late_frames_of_a_dying_id_are_dropped_without_a_penalty() {
    let (mut mesh, end) = raw(71);
    let (_, packet) = mesh.origin(&[1, 2], 0);
    mesh.send_setup(end, 5, &packet);
    mesh.run();
    mesh.send_body(end, header(5, Code::Cell), &[1; 2040]);
    mesh.run();
    assert_eq!(mesh.answers(end), [(5, Code::Created), (5, Code::Destroy)]);
    for _ in 0..40 {
        mesh.send_body(end, header(5, Code::Cell), &[1; 2040]);
    }
    mesh.send_setup(end, 5, &packet);
    mesh.send_body(end, header(5, Code::Created), &[1; 2040]);
    for command in [Code::Credit, Code::Reclaim, Code::Limit] {
        mesh.send(end, port17_proto::lane::frame::pairs_frame(command, &[(CircuitId(5), u64::MAX)]));
    }
    mesh.run();
    assert_eq!((mesh.fault(end), mesh.received(end).len()), (None, 0));
    assert_eq!(mesh.faults(end, CircuitFault::Authentication), 1, "nothing is counted twice");
    // Our DESTROY frees the id.
    mesh.send_body(end, header(5, Code::Destroy), &[]);
    let (_, packet) = mesh.origin(&[1, 2], 0);
    mesh.send_setup(end, 5, &packet);
    mesh.run();
    assert_eq!(mesh.answers(end), [(5, Code::Created)]);
}

#[test]
fn a_destroy_for_a_free_id_of_the_sender_is_answered() {
    let (mut mesh, end) = raw(72);
    mesh.send_body(end, header(7, Code::Destroy), &[]);
    mesh.run();
    assert_eq!((mesh.fault(end), mesh.answers(end)), (None, vec![(7, Code::Destroy)]));
    mesh.send_body(end, header(8, Code::Destroy), &[]);
    mesh.run();
    assert_eq!(mesh.fault(end), Some(LinkFault::CircuitId), "of the other parity");
}
