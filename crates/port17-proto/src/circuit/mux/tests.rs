use super::*;
use crate::circuit::message::Host;
use crate::lane::credit::{Pace, Pool};
use crate::limits::FIRST_WINDOW_CELLS;

fn mux(side: Side) -> Mux {
    let granter = Granter::new(Pool::new(64 << 20).reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0);
    Mux::new(side, granter, StreamRules::from(&Params::DEFAULT))
}

fn target() -> Target {
    Target { host: Host::Name("example.org".into()), port: 80 }
}

/// Carries everything that waits in `from` to `to`; gives the number of cells.
fn carry(from: &mut Mux, to: &mut Mux, batch: &mut Batch) -> Result<usize, Junk> {
    let (mut area, mut cells) = ([0; MESSAGE_BYTES], 0);
    while from.fill(&mut area, 0) {
        cells += 1;
        batch.add(&area)?;
    }
    to.receive(batch, 0)?;
    Ok(cells)
}

fn events(mux: &mut Mux) -> Vec<MuxEvent> {
    mux.drain_events().filter(|event| !matches!(event, MuxEvent::Outgoing | MuxEvent::Credit(_))).collect()
}

fn opened_pair() -> (Mux, Mux, StreamId) {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    let id = client.open(&target(), b"GET".to_vec(), 0).unwrap();
    carry(&mut client, &mut exit, &mut Batch::default()).unwrap();
    assert_eq!(events(&mut exit)[0], MuxEvent::Open(id, target()));
    exit.opened(id, "192.0.2.1".parse().unwrap(), 60);
    carry(&mut exit, &mut client, &mut Batch::default()).unwrap();
    assert_eq!(client.state(id), StreamState::Open);
    (client, exit, id)
}

fn bytes(mux: &mut Mux, id: StreamId) -> Vec<u8> {
    mux.take(id).map(|received| received.chunks.concat()).unwrap_or_default()
}

#[test]
fn open_carries_its_first_data_in_one_cell() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    let id = client.open(&target(), b"hello".to_vec(), 0).unwrap();
    assert_eq!(carry(&mut client, &mut exit, &mut Batch::default()), Ok(1));
    assert_eq!(bytes(&mut exit, id), b"hello");
}

#[test]
fn bytes_arrive_in_order_up_to_the_window_and_go_on_after_window() {
    let (mut client, mut exit, id) = opened_pair();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut got, mut batch, mut back) = (Vec::new(), Batch::default(), Batch::default());
    for chunk in sent.chunks(100_000) {
        exit.push_data(id, chunk.to_vec());
    }
    carry(&mut exit, &mut client, &mut batch).unwrap();
    let first = bytes(&mut client, id);
    assert_eq!(first.len() as u64, STREAM_FIRST_WINDOW_BYTES, "never more than permitted");
    client.consumed(id, first.len() as u64, 1);
    got.extend(first);
    for _ in 0..20 {
        carry(&mut client, &mut exit, &mut back).unwrap();
        carry(&mut exit, &mut client, &mut batch).unwrap();
        let more = bytes(&mut client, id);
        client.consumed(id, more.len() as u64, 2);
        got.extend(more);
    }
    assert_eq!(got, sent);
}

#[test]
fn a_half_close_travels_as_one_and_both_end_the_stream() {
    let (mut client, mut exit, id) = opened_pair();
    let (mut there, mut back) = (Batch::default(), Batch::default());
    client.push_data(id, b"question".to_vec());
    client.push_fin(id);
    carry(&mut client, &mut exit, &mut there).unwrap();
    let received = exit.take(id).unwrap();
    assert!(received.fin);
    exit.consumed(id, 8 + 3, 0);
    exit.push_data(id, b"answer".to_vec());
    exit.push_fin(id);
    carry(&mut exit, &mut client, &mut back).unwrap();
    assert_eq!(exit.state(id), StreamState::Ended);
    assert_eq!(bytes(&mut client, id), b"answer");
    client.consumed(id, 6, 0);
    assert_eq!((client.streams(), exit.streams()), (0, 0));
}

#[test]
fn streams_share_a_circuit_fairly() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    let ids: Vec<_> = (0..4).map(|_| client.open(&target(), Vec::new(), 0).unwrap()).collect();
    ids.iter().for_each(|id| client.push_data(*id, vec![1; 200_000]));
    let (mut area, mut batch) = ([0; MESSAGE_BYTES], Batch::default());
    for _ in 0..100 {
        client.fill(&mut area, 0);
        batch.add(&area).unwrap();
    }
    exit.receive(&mut batch, 0).unwrap();
    for id in ids {
        assert!(bytes(&mut exit, id).len() > 30_000);
    }
}

#[test]
fn a_stream_reset_in_the_middle_of_its_data_leaves_the_others_whole() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    let (a, b) = (client.open(&target(), vec![1; 50_000], 0).unwrap(), client.open(&target(), vec![2; 9], 0).unwrap());
    let (mut area, mut batch) = ([0; MESSAGE_BYTES], Batch::default());
    client.fill(&mut area, 0);
    batch.add(&area).unwrap();
    client.reset(a, ResetCode::Timeout, 0);
    carry(&mut client, &mut exit, &mut batch).unwrap();
    assert_eq!(exit.state(a), StreamState::Over(ResetCode::Timeout));
    assert_eq!(bytes(&mut exit, b), [2; 9]);
}

#[test]
fn data_that_was_begun_before_a_reset_is_finished_with_its_own_bytes() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    let id = client.open(&target(), vec![7; 50_000], 0).unwrap();
    let (mut area, mut batch, mut got) = ([0; MESSAGE_BYTES], Batch::default(), Vec::new());
    client.fill(&mut area, 0);
    batch.add(&area).unwrap();
    client.reset(id, ResetCode::Timeout, 0);
    while client.fill(&mut area, 0) {
        batch.add(&area).unwrap();
    }
    for item in &batch.items {
        if let Item::Data(_, chunk) = item {
            got.extend_from_slice(chunk);
        }
    }
    assert_eq!(got, vec![7; 50_000], "an application may read these bytes before the reset");
    exit.receive(&mut batch, 0).unwrap();
    assert_eq!(exit.state(id), StreamState::Over(ResetCode::Timeout));
}

#[test]
fn single_bytes_of_two_streams_in_turn_share_memory() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    let ids = [(); 2].map(|()| client.open(&target(), Vec::new(), 0).unwrap());
    carry(&mut client, &mut exit, &mut Batch::default()).unwrap();
    let mut batch = Batch::default();
    for _ in 0..100 {
        let mut area = [0; MESSAGE_BYTES];
        for (n, slot) in area.as_chunks_mut::<6>().0.iter_mut().enumerate() {
            slot[..5].copy_from_slice(&header(CellType::Data, ids[n % 2], 1));
            slot[5] = 1;
        }
        batch.add(&area).unwrap();
    }
    let held: usize = batch.items.iter().map(|item| if let Item::Data(_, chunk) = item { chunk.capacity() } else { 0 }).sum();
    assert!(held <= 100 * MESSAGE_BYTES, "{held} bytes of memory");
    exit.receive(&mut batch, 0).unwrap();
    for id in ids {
        assert_eq!(exit.streams[&id].incoming.len(), 1);
    }
}

#[test]
fn a_circuit_that_is_over_opens_nothing_and_takes_nothing() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    client.open(&target(), b"late".to_vec(), 0).unwrap();
    exit.close(ResetCode::Protocol, 0);
    carry(&mut client, &mut exit, &mut Batch::default()).unwrap();
    assert_eq!((events(&mut exit), exit.streams()), (vec![], 0), "nobody would ever end such a stream");
    client.close(ResetCode::Protocol, 0);
    assert_eq!(client.open(&target(), Vec::new(), 0), Err(Exhausted));
}

#[test]
fn many_streams_whose_peer_takes_nothing_share_a_bound() {
    let mut edge = mux(Side::Client);
    for n in 0..CIRCUIT_STREAMS as u16 {
        edge.add(StreamId(2 * n + 1), 0);
    }
    while let Some((id, room)) = (0..CIRCUIT_STREAMS as u16)
        .map(|n| StreamId(2 * n + 1))
        .find_map(|id| edge.room(id).filter(|room| *room > 0).map(|room| (id, room)))
    {
        edge.push_data(id, vec![0; room]);
    }
    let most = CIRCUIT_QUEUE_BYTES + STREAM_QUEUE_BYTES + (CIRCUIT_STREAMS * STREAM_QUANTUM_BYTES) as u64;
    assert!(edge.queued <= most, "{} bytes", edge.queued);
    edge.close(ResetCode::Protocol, 0);
    assert_eq!(edge.queued, 0);
}

#[test]
fn the_end_is_sent_only_behind_all_bytes() {
    let (mut client, mut exit, id) = opened_pair();
    exit.push_data(id, vec![1; 20_000]);
    exit.push_fin(id);
    let (mut area, mut batch) = ([0; MESSAGE_BYTES], Batch::default());
    exit.fill(&mut area, 0);
    batch.add(&area).unwrap();
    assert_eq!(exit.fin_is_sent(id), Some(false));
    carry(&mut exit, &mut client, &mut batch).unwrap();
    assert_eq!(exit.fin_is_sent(id), Some(true));
}

#[test]
fn peers_that_break_the_rules_of_streams() {
    let feed = |to: &mut Mux, bytes: &[u8]| {
        let mut area = [0; MESSAGE_BYTES];
        area[..bytes.len()].copy_from_slice(bytes);
        let mut batch = Batch::default();
        batch.add(&area).and_then(|()| to.receive(&mut batch, 0))
    };
    let open = |id: u16| encode(StreamId(id), &Message::Open { protocol: StreamProtocol::Tcp, target: target() });
    let (mut client, mut exit, id) = opened_pair();
    assert_eq!(feed(&mut exit, &open(id.0)), Err(Junk::Stream), "an id used twice");
    assert_eq!(feed(&mut exit, &open(4)), Err(Junk::Stream), "an even id from the client");
    assert_eq!(feed(&mut client, &open(2)), Err(Junk::Stream), "the exit opens nothing");
    assert_eq!(feed(&mut exit, &encode(StreamId(77), &Message::Fin)), Err(Junk::Stream), "never opened");
    assert_eq!(feed(&mut client, &encode(id, &Message::Opened { ip: [1; 4].into(), ttl_s: 0 })), Err(Junk::Type), "twice");
    assert_eq!(feed(&mut client, &encode(id, &Message::Fin)), Ok(()));
    assert_eq!(feed(&mut client, &encode(id, &Message::Fin)), Err(Junk::Stream), "FIN twice");
}

#[test]
fn late_messages_for_a_closed_stream_are_ignored() {
    let (mut client, mut exit, id) = opened_pair();
    exit.reset(id, ResetCode::Timeout, 0);
    let mut batch = Batch::default();
    client.push_data(id, b"late".to_vec());
    carry(&mut client, &mut exit, &mut batch).unwrap();
    // A lane of the circuit stood still meanwhile, and nothing says any more how the stream ended.
    exit.sweep(600_000);
    assert_eq!(exit.state(id), StreamState::Ended);
    client.push_data(id, b"very late".to_vec());
    client.push_fin(id);
    carry(&mut client, &mut exit, &mut batch).unwrap();
}

#[test]
fn a_stream_window_overrun_is_junk() {
    let (mut client, mut exit, id) = opened_pair();
    exit.streams.get_mut(&id).unwrap().permitted = u64::MAX;
    for _ in 0..5 {
        exit.push_data(id, vec![0; 100_000]);
    }
    assert_eq!(carry(&mut exit, &mut client, &mut Batch::default()), Err(Junk::Window));
}

#[test]
fn at_most_256_streams_and_64_dials() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    for _ in 0..CIRCUIT_STREAMS {
        client.open(&target(), Vec::new(), 0).unwrap();
    }
    assert_eq!(client.open(&target(), Vec::new(), 0), Err(Exhausted));
    carry(&mut client, &mut exit, &mut Batch::default()).unwrap();
    let dials = events(&mut exit).iter().filter(|event| matches!(event, MuxEvent::Open(..))).count();
    assert_eq!(dials, CIRCUIT_DIALS);
    carry(&mut exit, &mut client, &mut Batch::default()).unwrap();
    assert_eq!(client.streams(), CIRCUIT_DIALS, "the others were reset: resource");
}

#[test]
fn a_dial_that_succeeded_is_not_under_way_any_more() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    for _ in 0..=CIRCUIT_DIALS {
        let id = client.open(&target(), Vec::new(), 0).unwrap();
        carry(&mut client, &mut exit, &mut Batch::default()).unwrap();
        exit.opened(id, "192.0.2.1".parse().unwrap(), 60);
        carry(&mut exit, &mut client, &mut Batch::default()).unwrap();
        assert_eq!(client.state(id), StreamState::Open);
    }
}

#[test]
fn undelivered_bytes_withhold_the_circuit_s_credit() {
    let (mut client, mut exit) = (mux(Side::Client), mux(Side::Exit));
    let ids: Vec<_> = (0..33).map(|_| client.open(&target(), Vec::new(), 0).unwrap()).collect();
    carry(&mut client, &mut exit, &mut Batch::default()).unwrap();
    let mut batch = Batch::default();
    for id in &ids {
        exit.push_data(*id, vec![0; STREAM_FIRST_WINDOW_BYTES as usize]);
    }
    carry(&mut exit, &mut client, &mut batch).unwrap();
    assert!(!client.drain_events().any(|event| matches!(event, MuxEvent::Credit(_))));
    for id in &ids {
        let taken = bytes(&mut client, *id).len() as u64;
        client.consumed(*id, taken, 1);
    }
    assert!(client.drain_events().any(|event| matches!(event, MuxEvent::Credit(_))));
}
