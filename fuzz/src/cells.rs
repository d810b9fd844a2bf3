//! Messages in cells, and the streams that an edge makes of them (spec 06, 3).
//!
//! The first byte says which edge reads and what its application does between the cells; the rest are the message areas of cells that
//! came, the last one filled up with zeros.

use port17_proto::circuit::message::{Area, CellReader, Host, Message, Piece, Target, encode};
use port17_proto::circuit::mux::{Batch, Mux, MuxEvent, Side, StreamRules};
use port17_proto::ids::StreamId;
use port17_proto::lane::credit::{Granter, Pace, Pool};
use port17_proto::limits::{CIRCUIT_DIALS, CIRCUIT_STREAMS, FIRST_WINDOW_CELLS, HOST_NAME_BYTES, MAX_WINDOW_CELLS};
use port17_proto::params::Params;
use port17_proto::wire::registry::{CellType, FRAME_BYTES, MESSAGE_BYTES, ResetCode, StreamProtocol};

use crate::choices::Choices;

/// Cells of one input.
const CELLS: usize = 12;

/// Reads cells, as both edges do.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let habits = choices.byte();
    let areas: Vec<Area> = choices.rest().chunks(MESSAGE_BYTES).take(CELLS).map(filled).collect();
    take_apart(&areas);
    edge(&areas, habits);
}

fn filled(bytes: &[u8]) -> Area {
    let mut area = [0; MESSAGE_BYTES];
    area[..bytes.len()].copy_from_slice(bytes);
    area
}

/// What comes out of cells is never more than was in them, and every message reads back as itself.
fn take_apart(areas: &[Area]) {
    let mut reader = CellReader::default();
    for area in areas {
        let (mut used, mut messages) = (0, Vec::new());
        let read = reader.read(area, |piece| {
            match piece {
                Piece::Data(_, data) => {
                    assert!(!data.is_empty());
                    used += data.len();
                }
                Piece::Message(id, message) => messages.push((id, message)),
            }
            Ok(())
        });
        assert!(used <= MESSAGE_BYTES);
        messages.iter().for_each(|(id, message)| comes_back(*id, message));
        if read.is_err() {
            return;
        }
    }
}

fn comes_back(id: StreamId, message: &Message) {
    if let Message::Open { target: Target { host: Host::Name(name), .. }, .. } = message {
        assert!((1..=HOST_NAME_BYTES).contains(&name.len()) && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    let written = encode(id, message);
    let (mut reader, mut back) = (CellReader::default(), Vec::new());
    let read = reader.read(&filled(&written), |piece| {
        if let Piece::Message(id, message) = piece {
            back.push((id, message));
        }
        Ok(())
    });
    assert_eq!((read, back, reader.is_unfinished()), (Ok(()), vec![(id, message.clone())], false), "a message has one form");
}

/// An edge takes what the cells say, within its bounds, until one of them is junk.
fn edge(areas: &[Area], habits: u8) {
    let side = if habits & 1 == 0 { Side::Exit } else { Side::Client };
    let pool = Pool::new(2 * MAX_WINDOW_CELLS * FRAME_BYTES as u64);
    let reservation = pool.reserve(FIRST_WINDOW_CELLS).expect("the pool has room for one window");
    let mut mux = Mux::new(side, Granter::new(reservation, Pace::new(10), 0), StreamRules::from(&Params::DEFAULT));
    let mut application = Application { reads: habits & 2 == 0, answers: habits & 4 == 0, came: 0, dials: 0 };
    if side == Side::Client {
        application.open_some(&mut mux);
    }
    let (mut batch, mut received) = (Batch::default(), 0);
    for (number, area) in areas.iter().enumerate() {
        let now_ms = 10 * number as u64;
        let taken = batch.add(area).and_then(|()| mux.receive(&mut batch, now_ms));
        received += MESSAGE_BYTES as u64;
        application.turn(&mut mux, now_ms);
        assert!(application.came <= received, "an application gets no more than came");
        assert!(mux.streams() <= CIRCUIT_STREAMS && pool.reserved_cells() <= MAX_WINDOW_CELLS);
        if taken.is_err() {
            break;
        }
    }
    mux.close(ResetCode::Protocol, 1000);
    assert_eq!(mux.streams(), 0, "with a circuit its streams end");
    drop(mux);
    assert_eq!(pool.reserved_cells(), 0, "and its memory is given back");
}

struct Application {
    reads: bool,
    answers: bool,
    came: u64,
    dials: usize,
}

impl Application {
    fn open_some(&self, mux: &mut Mux) {
        for _ in 0..3 {
            let target = Target { host: Host::Name("origin.demo".into()), port: 80 };
            mux.open(&target, vec![1; 100], 0).expect("a new circuit has streams");
        }
        self.send(mux, 0);
    }

    fn turn(&mut self, mux: &mut Mux, now_ms: u64) {
        let events: Vec<MuxEvent> = mux.drain_events().collect();
        for event in events {
            match event {
                MuxEvent::Open(id, _) => {
                    self.dials += 1;
                    assert!(self.answers || self.dials <= CIRCUIT_DIALS, "dials are bounded");
                    if self.answers {
                        mux.opened(id, [192, 0, 2, 1].into(), 60);
                        mux.push_data(id, vec![5; 3000]);
                    }
                }
                MuxEvent::Changed(id) if self.reads => {
                    let Some(received) = mux.take(id) else { continue };
                    let bytes = received.chunks.iter().map(Vec::len).sum::<usize>() as u64;
                    self.came += bytes;
                    mux.consumed(id, bytes, now_ms);
                    if received.fin {
                        mux.push_fin(id);
                    }
                }
                MuxEvent::Changed(_) | MuxEvent::Outgoing | MuxEvent::Credit(_) => {}
            }
        }
        self.send(mux, now_ms);
    }

    /// What an edge sends, its peer can read.
    fn send(&self, mux: &mut Mux, now_ms: u64) {
        let mut area = [0; MESSAGE_BYTES];
        let mut reader = CellReader::default();
        let mut cells = 0;
        while mux.fill(&mut area, now_ms) {
            reader.read(&area, |_| Ok(())).expect("an edge writes no junk");
            cells += 1;
            assert!(cells < 10_000, "what an edge has to say ends");
        }
        assert!(!reader.is_unfinished(), "an edge that can send finishes its messages");
    }
}

/// Each message, opened streams with data, and data over several cells.
pub fn seeds() -> Vec<Vec<u8>> {
    let header = |kind, id, length| port17_proto::circuit::message::header(kind, StreamId(id), length);
    let open = |id, host| encode(StreamId(id), &Message::Open { protocol: StreamProtocol::Tcp, target: Target { host, port: 80 } });
    let name = || Host::Name("origin.demo".into());
    let v4 = Host::Ip([192, 0, 2, 7].into());
    let v6 = Host::Ip("2001:db8::7".parse().expect("an address"));
    let data = |id, bytes: &[u8]| [&header(CellType::Data, id, bytes.len() as u16)[..], bytes].concat();
    let end = |id| encode(StreamId(id), &Message::Fin);
    let answered = |id| encode(StreamId(id), &Message::Opened { ip: [192, 0, 2, 7].into(), ttl_s: 60 });
    let reset = |id| encode(StreamId(id), &Message::Reset(ResetCode::Refused));
    let window = |id| encode(StreamId(id), &Message::Window(1 << 20));
    vec![
        [vec![0], open(1, name()), data(1, b"GET / HTTP/1.1\r\n\r\n"), end(1)].concat(),
        [vec![0], open(1, v4), open(3, v6), data(3, &[7; 4000]), reset(1), window(3)].concat(),
        [vec![2], open(5, name()), data(5, &[9; 1900])].concat(),
        [vec![4], open(1, name()), open(3, name()), end(3)].concat(),
        [vec![1], answered(1), data(1, &[3; 2500]), window(1), end(1)].concat(),
        [vec![1], reset(1), answered(3), reset(5), data(5, &[1])].concat(),
    ]
}
