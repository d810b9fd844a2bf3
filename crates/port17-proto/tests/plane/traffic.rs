//! Bytes through honest circuits: they arrive whole, within credit, and nobody waits for somebody else.

use std::cell::RefCell;
use std::rc::Rc;

use port17_proto::lane::reader::Port;
use port17_proto::limits::{
    FIRST_WINDOW_CELLS, IDLE_WINDOW_CELLS, MAX_WINDOW_CELLS, STREAM_FIRST_WINDOW_BYTES, STREAM_QUEUE_BYTES,
};
use port17_proto::wire::registry::{FRAME_BYTES, MESSAGE_BYTES};

use crate::edge::{Edge, Progress};
use crate::mesh::{Mesh, WIRE_FRAMES};

/// A chain with one open circuit through all nodes, and its edges: client, exit.
pub fn opened(hops: usize, seed: u64) -> (Mesh, Rc<RefCell<Edge>>, Rc<RefCell<Edge>>) {
    let mut mesh = Mesh::chain(hops, seed);
    let client = mesh.circuit(0, &(1..=hops).collect::<Vec<_>>());
    mesh.run();
    assert_eq!(client.borrow().progress, Progress::Open);
    let exit = Rc::clone(&mesh.edges[1]);
    (mesh, client, exit)
}

#[test]
fn bytes_arrive_whole_both_ways_over_1_to_6_hops() {
    for hops in 1..=6 {
        for seed in 0..3 {
            let (mut mesh, client, exit) = opened(hops, seed);
            exit.borrow_mut().answer_bytes = 400_000;
            let stream = client.borrow_mut().open(300_000, mesh.now_ms);
            mesh.run();
            assert_eq!((exit.borrow().received(), client.borrow().received()), (300_000, 400_000), "{hops} hops, seed {seed}");
            assert!(client.borrow().ended.contains(&stream) && exit.borrow().ended.contains(&stream));
            mesh.assert_peaceful();
            client.borrow_mut().end(true);
            mesh.run();
            drop((client, exit));
            mesh.assert_clean();
        }
    }
}

#[test]
fn the_first_flight_goes_before_created_has_come() {
    let mut mesh = Mesh::chain(4, 20);
    mesh.workers_busy = true;
    let client = mesh.circuit(0, &[1, 2, 3, 4]);
    client.borrow_mut().open(100_000, mesh.now_ms);
    mesh.run();
    let sent = mesh.ends[0].lane.queue(|queue| queue.room(client.borrow().circuit));
    assert_eq!((client.borrow().progress, sent), (Progress::Building, Some(0)), "the whole first window, and no more");
    mesh.workers_busy = false;
    mesh.run();
    assert_eq!(mesh.edges[1].borrow().received(), 100_000);
    mesh.assert_peaceful();
}

#[test]
fn windows_grow_to_their_maximum_and_never_beyond() {
    let (mut mesh, client, exit) = opened(3, 21);
    exit.borrow_mut().answer_bytes = 8_000_000;
    client.borrow_mut().open(10, mesh.now_ms);
    let mut most = 0;
    mesh.run_with(|mesh| most = most.max(mesh.members[1].pool.reserved_cells()));
    assert_eq!(client.borrow().received(), 8_000_000);
    // Node 1 holds a window each way; the forward one carries next to nothing.
    assert!(most > 4 * FIRST_WINDOW_CELLS, "{most}");
    assert!(most <= MAX_WINDOW_CELLS + 4 * FIRST_WINDOW_CELLS, "{most}");
    mesh.assert_peaceful();
}

#[test]
fn cells_pass_rekeys_in_lanes_both_ways() {
    const CELLS: u64 = 65_536 + 2_000;
    let (mut mesh, client, exit) = opened(2, 22);
    let bytes = CELLS * (MESSAGE_BYTES as u64);
    exit.borrow_mut().answer_bytes = bytes;
    client.borrow_mut().open(bytes, mesh.now_ms);
    mesh.run();
    assert_eq!((exit.borrow().received(), client.borrow().received()), (bytes, bytes));
    mesh.assert_peaceful();
}

#[test]
fn a_small_pool_slows_circuits_down_and_is_never_exceeded() {
    const CELLS: u64 = 70;
    let mut mesh = Mesh::new(23);
    mesh.pool_cells = CELLS;
    let (_, first, second) = (mesh.client(), mesh.node(), mesh.node());
    mesh.link(0, first);
    mesh.link(first, second);
    let client = mesh.circuit(0, &[first, second]);
    client.borrow_mut().open(600_000, mesh.now_ms);
    mesh.run_with(|mesh| assert!(mesh.members.iter().all(|member| member.pool.reserved_cells() <= CELLS)));
    assert_eq!(mesh.edges[1].borrow().received(), 600_000);
    mesh.assert_peaceful();
}

#[test]
fn a_lane_that_is_not_read_stops_the_sender_hop_by_hop() {
    for hops in 1..=4 {
        let (mut mesh, client, exit) = opened(hops, 24);
        // Warm: the windows are wide.
        client.borrow_mut().open(2_000_000, mesh.now_ms);
        mesh.run();
        let last = 2 * hops - 1;
        mesh.ends[last].stalled = true;
        client.borrow_mut().open(50_000_000, mesh.now_ms);
        mesh.run();
        let taken: u64 = client.borrow().sent.values().sum::<u64>() - exit.borrow().received();
        let held = STREAM_QUEUE_BYTES + (hops as u64 * MAX_WINDOW_CELLS + WIRE_FRAMES as u64) * FRAME_BYTES as u64;
        assert!(taken <= held, "{hops} hops: {taken} bytes are on their way");
        mesh.ends[last].stalled = false;
        mesh.ends[last - 1].stalled = true;
        mesh.run();
        mesh.ends[last - 1].stalled = false;
        mesh.run();
        assert_eq!(exit.borrow().received(), 52_000_000, "it goes on where it stopped");
        mesh.assert_peaceful();
    }
}

#[test]
fn one_slow_stream_stops_nobody_else() {
    let (mut mesh, client, exit) = opened(3, 25);
    exit.borrow_mut().answer_bytes = 3_000_000;
    let slow = client.borrow_mut().open(10, mesh.now_ms);
    client.borrow_mut().stalled.insert(slow);
    let others: Vec<_> = (0..5).map(|_| client.borrow_mut().open(10, mesh.now_ms)).collect();
    mesh.run();
    for stream in others {
        assert_eq!(client.borrow().got[&stream], 3_000_000);
    }
    assert_eq!(exit.borrow().received(), 60);
    let sent = exit.borrow().sent[&slow];
    assert!(sent <= STREAM_FIRST_WINDOW_BYTES + STREAM_QUEUE_BYTES, "{sent}");
    client.borrow_mut().stalled.clear();
    mesh.run();
    assert_eq!(client.borrow().got[&slow], 3_000_000);
    mesh.assert_peaceful();
}

#[test]
fn circuits_that_share_a_lane_get_equal_shares_of_it() {
    let mut mesh = Mesh::chain(2, 26);
    // The second client begins later, and over its own lane; both meet on the lane from node 1 to node 2.
    let second = mesh.client();
    let end = mesh.link(second, 1);
    let a = mesh.circuit(0, &[1, 2]);
    a.borrow_mut().open(100_000_000, mesh.now_ms);
    for _ in 0..100 {
        mesh.round();
    }
    let begun = a.borrow().sent.values().sum::<u64>();
    let b = mesh.circuit(end, &[1, 2]);
    b.borrow_mut().open(100_000_000, mesh.now_ms);
    for _ in 0..500 {
        mesh.round();
    }
    let (a, b) = (a.borrow().sent.values().sum::<u64>() - begun, b.borrow().sent.values().sum::<u64>());
    assert!(a > 2_000_000 && a.abs_diff(b) < a / 5, "{a} and {b}");
}

#[test]
fn idle_circuits_give_their_memory_back_and_go_on() {
    for seed in 30..34 {
        let (mut mesh, client, exit) = opened(3, seed);
        for turn in 1..=3 {
            exit.borrow_mut().answer_bytes = 2_000_000;
            client.borrow_mut().open(1_000_000, mesh.now_ms);
            mesh.run();
            assert_eq!((exit.borrow().received(), client.borrow().received()), (turn * 1_000_000, turn * 2_000_000));
            mesh.wait(12);
            // A window each way, at each of the three lanes' receiving ends.
            assert_eq!(mesh.reserved(), 6 * IDLE_WINDOW_CELLS, "seed {seed}, turn {turn}");
        }
        mesh.assert_peaceful();
    }
}

#[test]
fn memory_can_be_asked_back_while_cells_are_under_way() {
    for seed in 40..50 {
        let (mut mesh, client, exit) = opened(2, seed);
        exit.borrow_mut().answer_bytes = 1_500_000;
        client.borrow_mut().open(1_500_000, mesh.now_ms);
        let mut entropy = port17_proto::crypto::Entropy::from_number(seed);
        for _ in 0..2000 {
            mesh.round();
            // Time passes in the middle of it: everything looks idle.
            if entropy.below(20) == 0 {
                mesh.now_ms += 6000;
                mesh.sweep();
            }
        }
        mesh.run();
        mesh.assert_peaceful();
        assert_eq!((exit.borrow().received(), client.borrow().received()), (1_500_000, 1_500_000), "seed {seed}");
    }
}

#[test]
fn a_client_whose_created_is_slow_can_be_asked_for_memory_meanwhile() {
    let mut mesh = Mesh::chain(2, 51);
    mesh.workers_busy = true;
    let client = mesh.circuit(0, &[1, 2]);
    mesh.wait(8);
    mesh.workers_busy = false;
    mesh.run();
    let exit = mesh.edges[1].clone();
    exit.borrow_mut().answer_bytes = 500_000;
    client.borrow_mut().open(500_000, mesh.now_ms);
    mesh.run();
    assert_eq!((exit.borrow().received(), client.borrow().received()), (500_000, 500_000));
    mesh.assert_peaceful();
}
