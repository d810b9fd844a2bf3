//! Readers and queues of several lanes together, without sockets (spec 05, spec 06, 4).
#![allow(clippy::unwrap_used, missing_docs)]

mod route;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use port17_proto::circuit::message::{Area, Junk};
use port17_proto::circuit::setup::{HopKeys, SetupPacket};
use port17_proto::crypto::{Entropy, KemBackend};
use port17_proto::ids::CircuitId;
use port17_proto::lane::credit::{CreditError, Granter, Pace, Permitted, Pool};
use port17_proto::lane::frame::{FrameBuf, Header, pairs_frame};
use port17_proto::lane::queue::{LaneEnd, LaneQueue, Upstream};
use port17_proto::lane::reader::{Admission, CircuitFault, Command, Event, Install, LinkFault, Port, Reader, Sink};
use port17_proto::limits::{FIRST_WINDOW_CELLS, LANE_CIRCUITS};
use port17_proto::wire::registry::{Command as Code, FRAME_BYTES};

/// What a test's edge was told.
#[derive(Default)]
struct Told {
    closed: Cell<bool>,
    limit: Cell<Option<u64>>,
}

struct Edge(Rc<Told>);

impl Sink for Edge {
    fn cell(&mut self, _: &Area) -> Result<(), Junk> {
        Ok(())
    }

    fn flush(&mut self, _: u64) -> Result<(), Junk> {
        Ok(())
    }

    fn created(&mut self, _: &[u8]) {}

    fn limited(&mut self, limit: u64, _: u64) -> Result<Option<u64>, CreditError> {
        self.0.limit.set(Some(limit));
        Ok(None)
    }

    fn closed(&mut self) {
        self.0.closed.set(true);
    }
}

/// A lane without connection.
#[derive(Clone)]
struct Lane(Rc<Parts>);

struct Parts {
    queue: RefCell<LaneQueue<Lane>>,
    commands: RefCell<Vec<Command<Lane>>>,
}

impl PartialEq for Lane {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Port for Lane {
    type Sink = Edge;

    fn queue<R>(&self, work: impl FnOnce(&mut LaneQueue<Self>) -> R) -> R {
        work(&mut self.0.queue.borrow_mut())
    }

    fn command(&self, command: Command<Self>) {
        self.0.commands.borrow_mut().push(command);
    }
}

impl Lane {
    fn new(end: LaneEnd) -> Self {
        Self(Rc::new(Parts { queue: RefCell::new(LaneQueue::new(end, 10)), commands: RefCell::default() }))
    }

    /// What its peer gets.
    fn sent(&self) -> Vec<(u32, Code)> {
        let mut out = Vec::new();
        self.queue(|queue| queue.take(usize::MAX, 0, &mut out, &mut Vec::new()));
        let header = |frame: &FrameBuf| Header::decode(frame.bytes()).unwrap();
        out.iter().map(|frame| (header(frame).circuit.0, header(frame).command)).collect()
    }
}

fn pool() -> Arc<Pool> {
    Pool::new(64 << 20)
}

fn reader(lane: &Lane, pool: &Arc<Pool>) -> Reader<Lane> {
    let mut reader = Reader::new(lane.clone(), Arc::clone(pool));
    let admission =
        Admission { circuits: LANE_CIRCUITS, setups_per_second: 1_000_000, setups_burst: 1_000_000, breach_window_ms: 600_000 };
    reader.command(Command::Admit(admission), 0);
    reader
}

fn take_commands(lane: &Lane, reader: &mut Reader<Lane>) {
    let commands = std::mem::take(&mut *lane.0.commands.borrow_mut());
    commands.into_iter().for_each(|command| reader.command(command, 0));
}

fn feed(reader: &mut Reader<Lane>, frame: &FrameBuf) -> Result<(), LinkFault> {
    let mut bytes: [u8; FRAME_BYTES] = *frame.bytes();
    reader.frame(&mut bytes, 0)?;
    reader.end_batch(0);
    Ok(())
}

fn setup_part(circuit: u32, part: u8) -> FrameBuf {
    FrameBuf::with_body(Header { part, ..Header::new(CircuitId(circuit), Code::Setup) }, &[])
}

fn frame(circuit: u32, command: Code) -> FrameBuf {
    FrameBuf::with_body(Header::new(CircuitId(circuit), command), &[])
}

/// A circuit that begins at a client's lane.
fn origin(lane: &Lane) -> (CircuitId, Rc<Told>) {
    let circuit = lane.queue(|queue| queue.open(None)).unwrap();
    let told = Rc::new(Told::default());
    let granter = Granter::new(pool().reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0);
    lane.command(Command::Install(circuit, Install::Origin { sink: Edge(Rc::clone(&told)), permitted: granter.permitted() }));
    (circuit, told)
}

/// What a relay does with a SETUP that came on circuit 1 of `from`, up to the commands for both readers.
fn relay(from: &Lane, to: &Lane, packet: SetupPacket, granter: Granter, pool: &Arc<Pool>, relay: &mut route::Node) -> CircuitId {
    let admitted = relay.take(packet, route::NOW).unwrap();
    let HopKeys { forward, backward, created } = admitted.answer(&mut Entropy::from_number(9)).unwrap();
    let back = Granter::new(pool.reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0);
    let permitted = back.permitted();
    let upstream = Upstream { lane: from.clone(), circuit: CircuitId(1), granter };
    let there = to.queue(|queue| queue.open(Some(upstream))).unwrap();
    from.queue(|queue| queue.set_upstream(CircuitId(1), Upstream { lane: to.clone(), circuit: there, granter: back }));
    let install = Install::Backward { layer: backward, created, to: from.clone(), circuit: CircuitId(1), permitted };
    to.command(Command::Install(there, install));
    from.command(Command::Install(CircuitId(1), Install::Forward { layer: forward, to: to.clone(), circuit: there }));
    there
}

/// A relay between two lanes, whose SETUP is processed and whose readers have not taken their commands yet.
struct Relay {
    from: Lane,
    to: Lane,
    from_reader: Reader<Lane>,
    to_reader: Reader<Lane>,
    pool: Arc<Pool>,
    there: CircuitId,
}

impl Relay {
    fn new() -> Self {
        let (from, to, pool) = (Lane::new(LaneEnd::Acceptor), Lane::new(LaneEnd::Dialler), pool());
        let (mut from_reader, to_reader) = (reader(&from, &pool), reader(&to, &pool));
        let mut nodes = route::nodes(2, KemBackend::Seeded, &mut Entropy::from_number(1));
        let (_, packet) = route::origin(&nodes, 0, port17_proto::circuit::replay::slot_of(route::NOW), 2);
        let depth = packet.depth().code();
        for (part, body) in (0..).zip(packet.parts()) {
            let header = Header { part, depth, ..Header::new(CircuitId(1), Code::Setup) };
            feed(&mut from_reader, &FrameBuf::with_body(header, body)).unwrap();
        }
        let Some(Event::Setup { packet, granter, .. }) = from_reader.drain_events().next() else { panic!("no SETUP") };
        let there = relay(&from, &to, packet, granter, &pool, &mut nodes[0]);
        Self { from, to, from_reader, to_reader, pool, there }
    }
}

#[test]
fn a_circuit_whose_previous_lane_is_gone_before_its_setup_is_done_ends_everywhere() {
    let mut relay = Relay::new();
    take_commands(&relay.to, &mut relay.to_reader);
    relay.from_reader.close(Vec::new, 0);
    relay.from.0.commands.borrow_mut().drain(..).for_each(Command::abandon);
    take_commands(&relay.to, &mut relay.to_reader);
    assert_eq!(relay.to.sent(), [(relay.there.0, Code::Destroy)]);
    assert_eq!(relay.pool.reserved_cells(), 0, "its memory is free");
    feed(&mut relay.to_reader, &frame(relay.there.0, Code::Destroy)).unwrap();
    assert_eq!(relay.to_reader.circuits(), 0);
}

#[test]
fn a_circuit_whose_next_lane_is_gone_before_its_setup_is_done_reports_it_and_ends() {
    let mut relay = Relay::new();
    relay.to_reader.close(Vec::new, 0);
    relay.to.0.commands.borrow_mut().drain(..).for_each(Command::abandon);
    take_commands(&relay.from, &mut relay.from_reader);
    assert_eq!(relay.from.sent(), [(1, Code::Created), (1, Code::Destroy)], "NEXT_REFUSED, then the end");
    assert_eq!(relay.pool.reserved_cells(), 0);
}

#[test]
fn a_lane_that_is_lost_ends_its_circuits_on_their_other_sides() {
    let mut relay = Relay::new();
    take_commands(&relay.from, &mut relay.from_reader);
    take_commands(&relay.to, &mut relay.to_reader);
    relay.from_reader.close(Vec::new, 0);
    take_commands(&relay.to, &mut relay.to_reader);
    let sent = relay.to.sent();
    assert_eq!(sent.last(), Some(&(relay.there.0, Code::Destroy)));
    assert_eq!(relay.pool.reserved_cells(), 0);
}

#[test]
fn what_the_next_hop_breaks_before_created_is_reported() {
    let mut relay = Relay::new();
    take_commands(&relay.from, &mut relay.from_reader);
    take_commands(&relay.to, &mut relay.to_reader);
    feed(&mut relay.to_reader, &frame(relay.there.0, Code::Cell)).unwrap();
    assert_eq!(relay.to_reader.take_faults(), BTreeMap::from([(CircuitFault::State, 1)]));
    assert_eq!(relay.from.sent(), [(1, Code::Created), (1, Code::Destroy)]);
}

#[test]
fn a_second_life_of_an_id_is_ended_whole_by_the_first_ones_late_end() {
    let (lane, pool) = (Lane::new(LaneEnd::Acceptor), pool());
    let mut reader = reader(&lane, &pool);
    feed(&mut reader, &setup_part(1, 0)).unwrap();
    lane.queue(|queue| queue.destroy(CircuitId(1), false));
    lane.command(Command::Over(CircuitId(1)));
    feed(&mut reader, &frame(1, Code::Destroy)).unwrap();
    feed(&mut reader, &setup_part(1, 0)).unwrap();
    take_commands(&lane, &mut reader);
    assert_eq!(lane.sent(), [(1, Code::Destroy), (1, Code::Destroy)]);
    assert!(!lane.queue(|queue| queue.is_open(CircuitId(1))));
}

#[test]
fn a_peer_that_never_answers_destroy_gets_no_more_circuits() {
    let (lane, pool) = (Lane::new(LaneEnd::Dialler), pool());
    let mut reader = reader(&lane, &pool);
    for _ in 0..LANE_CIRCUITS {
        let (circuit, _) = origin(&lane);
        lane.queue(|queue| queue.destroy(circuit, false));
        lane.command(Command::Over(circuit));
        take_commands(&lane, &mut reader);
        lane.sent();
    }
    assert!(lane.queue(|queue| queue.open(None)).is_err());
    assert_eq!(reader.circuits(), LANE_CIRCUITS);
}

#[test]
fn parts_of_a_setup_that_never_began_close_the_lane() {
    let (lane, pool) = (Lane::new(LaneEnd::Acceptor), pool());
    assert_eq!(feed(&mut reader(&lane, &pool), &setup_part(1, 2)), Err(LinkFault::CircuitId));
}

#[test]
fn limit_reaches_a_circuit_that_is_not_answered_yet() {
    let (lane, pool) = (Lane::new(LaneEnd::Dialler), pool());
    let mut reader = reader(&lane, &pool);
    let (circuit, told) = origin(&lane);
    take_commands(&lane, &mut reader);
    feed(&mut reader, &pairs_frame(Code::Limit, &[(circuit, 4)])).unwrap();
    assert_eq!(told.limit.get(), Some(4), "else it would ask for ever and give no credit again");
}

#[test]
fn frames_and_pairs_of_a_dying_circuit_are_dropped() {
    let (lane, pool) = (Lane::new(LaneEnd::Dialler), pool());
    let mut reader = reader(&lane, &pool);
    let (circuit, _) = origin(&lane);
    lane.queue(|queue| queue.destroy(circuit, false));
    lane.command(Command::Over(circuit));
    take_commands(&lane, &mut reader);
    for command in [Code::Cell, Code::Created] {
        feed(&mut reader, &frame(circuit.0, command)).unwrap();
    }
    for command in [Code::Credit, Code::Reclaim, Code::Limit] {
        feed(&mut reader, &pairs_frame(command, &[(circuit, 9)])).unwrap();
    }
    assert_eq!(lane.sent(), [(circuit.0, Code::Destroy)]);
}

#[test]
fn a_circuit_for_a_lane_that_is_gone_is_over_at_its_edge() {
    let lane = Lane::new(LaneEnd::Dialler);
    let (_, told) = origin(&lane);
    lane.0.commands.borrow_mut().drain(..).for_each(Command::abandon);
    assert!(told.closed.get());
}

#[test]
fn the_third_breach_of_credit_closes_the_link() {
    let (lane, pool) = (Lane::new(LaneEnd::Dialler), pool());
    let mut reader = reader(&lane, &pool);
    let breach = |reader: &mut Reader<Lane>| {
        let circuit = lane.queue(|queue| queue.open(None)).unwrap();
        let told = Rc::new(Told::default());
        let install = Install::Origin { sink: Edge(Rc::clone(&told)), permitted: Permitted::none() };
        reader.command(Command::Install(circuit, install), 0);
        let fed = feed(reader, &frame(circuit.0, Code::Cell));
        assert!(told.closed.get());
        fed
    };
    assert_eq!([(); 3].map(|()| breach(&mut reader)), [Ok(()), Ok(()), Err(LinkFault::Credit)]);
}

#[test]
fn a_control_frame_without_bytes_closes_the_link() {
    let (lane, pool) = (Lane::new(LaneEnd::Dialler), pool());
    assert_eq!(feed(&mut reader(&lane, &pool), &frame(0, Code::Control)), Err(LinkFault::Control));
}
