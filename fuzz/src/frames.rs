//! A frame as it comes off a lane: header, CONTROL's length, the pairs of CREDIT, RECLAIM and LIMIT, the parts of SETUP (spec 05, 2).
//!
//! The input is the beginning of a frame; the rest of it is zero.

use port17_proto::circuit::setup::SetupParts;
use port17_proto::ids::CircuitId;
use port17_proto::lane::frame::{FrameBuf, Header, PAIRS_PER_FRAME, pairs, pairs_frame};
use port17_proto::wire::message::{PIECE_BYTES, read_control_body, write_control_body};
use port17_proto::wire::registry::{BODY_BYTES, Command, FRAME_BYTES, HEADER_BYTES};

/// Reads one frame.
pub fn run(bytes: &[u8]) {
    let mut frame = [0; FRAME_BYTES];
    let length = bytes.len().min(FRAME_BYTES);
    frame[..length].copy_from_slice(&bytes[..length]);
    assert_eq!(Header::decode(&bytes[..length.min(HEADER_BYTES - 1)]).ok(), None, "a cut header is none");
    let Ok(header) = Header::decode(&frame) else { return };
    assert_eq!(header.encode(), frame[..HEADER_BYTES], "a header has one form");
    let body = &frame[HEADER_BYTES..];
    match header.command {
        Command::Control => control(body.try_into().expect("a frame has a whole body")),
        Command::Credit | Command::Reclaim | Command::Limit => permissions(header.command, &frame),
        Command::Setup => setup_part(header, body),
        Command::Padding | Command::Created | Command::Cell | Command::Destroy => {}
    }
}

fn control(body: &[u8; BODY_BYTES]) {
    let Ok(piece) = read_control_body(body) else { return };
    assert!((1..=PIECE_BYTES).contains(&piece.len()));
    let mut written = [0; BODY_BYTES];
    write_control_body(piece, &mut written).expect("what was read can be written");
    assert_eq!(written, *body, "a body has one form");
}

fn permissions(command: Command, frame: &[u8; FRAME_BYTES]) {
    let Ok(read) = pairs(&frame[HEADER_BYTES..]) else { return };
    let read: Vec<(CircuitId, u64)> = read.collect();
    assert!(read.len() <= PAIRS_PER_FRAME && read.iter().all(|(circuit, _)| circuit.0 != 0));
    assert_eq!(pairs_frame(command, &read).bytes(), frame, "pairs have one form");
}

fn setup_part(header: Header, body: &[u8]) {
    let Ok(parts) = SetupParts::begin(header.part, header.depth, body) else { return };
    assert_eq!(header.part, 0, "a packet begins with its part 0");
    assert!(parts.finish().is_err(), "one part is no packet");
}

/// One frame of each command.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for code in 0..=u8::MAX {
        let Some(command) = Command::from_code(code) else { continue };
        let of_lane = matches!(command, Command::Control | Command::Padding);
        let frame = match command {
            Command::Credit | Command::Reclaim | Command::Limit => {
                pairs_frame(command, &[(CircuitId(1), 16), (CircuitId(0x8000_0002), u64::MAX)])
            }
            _ => FrameBuf::with_body(Header::new(CircuitId(u32::from(!of_lane)), command), &[]),
        };
        let mut bytes = frame.bytes().to_vec();
        if command == Command::Control {
            bytes[HEADER_BYTES..HEADER_BYTES + 7].copy_from_slice(&[0, 5, 1, 2, 3, 4, 5]);
        }
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used.max(HEADER_BYTES));
        seeds.push(bytes);
    }
    seeds
}
