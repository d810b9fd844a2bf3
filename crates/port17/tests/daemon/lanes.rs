//! A node's lanes as a peer meets them that does not keep to the protocol.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use port17::keystore::system_entropy;
use port17_proto::bottle::{Address, BottleContent, CircuitKey, Flags, ProtocolRange, Seq, UnverifiedBottle};
use port17_proto::circuit::origin::{Answer, Origin, OriginForward};
use port17_proto::circuit::replay::slot_of;
use port17_proto::circuit::setup::RouteHop;
use port17_proto::crypto::{KemBackend, KemPublicKey, PUBLIC_KEY_BYTES, SigningKey};
use port17_proto::identity::Identity;
use port17_proto::ids::{CircuitId, NodeId};
use port17_proto::lane::frame::{FrameBuf, Header, pairs_frame};
use port17_proto::params::{Params, Rate};
use port17_proto::wire::message::{LinkId, Message, split_into_pieces, write_control_body};
use port17_proto::wire::registry::{
    BODY_BYTES, Command, FRAME_BYTES, GoAwayReason, HEADER_BYTES, LaneType, Role, Scope, SetupStatus,
};
use rustls::crypto::aws_lc_rs::kx_group;

use crate::mesh::{Daemon, Mesh, PATIENCE, Plan, eventually, loopback_net, quick};
use crate::peer::{Accepted, Dialled, HANDSHAKE, Offer, Shown, control, drain, hello, is_over, rand, tcp};

/// One node that no exit stands behind, with short times.
fn node() -> Mesh {
    let params = Params { handshake_timeout: HANDSHAKE, ..quick() };
    let mut mesh = Plan { params, exits: Vec::new(), ..Plan::of(1) }.prepare();
    mesh.nodes[0].start();
    mesh.nodes[0].wait("a start", |status| status.node_id.is_some());
    eventually("a Bottle", || mesh.nodes[0].bottle());
    mesh
}

/// The node still serves who keeps to the protocol.
fn assert_serves(node: &Daemon) {
    let mut lane = Dialled::client(node.address());
    lane.send(&Message::Ping(17));
    loop {
        match lane.message() {
            Message::Pong(token) => return assert_eq!(token, 17),
            Message::Ping(token) => lane.send(&Message::Pong(token)),
            other => panic!("{other:?}"),
        }
    }
}

/// Whether HELLO is answered over such a connection.
fn is_accepted(address: SocketAddr, offer: &Offer) -> bool {
    let Ok(mut lane) = Dialled::dial(address, offer) else { return false };
    if lane.write(control(&hello(Role::Client, LinkId(rand()))).bytes()).is_err() {
        return false;
    }
    match lane.message_or_end() {
        Ok(message) => matches!(message, Message::Hello(_)),
        Err(error) => {
            assert!(is_over(&error), "neither accepted nor refused");
            false
        }
    }
}

/// Spec 05, M2, and the table in front of it.
#[test]
fn a_handshake_that_offers_less_is_refused() {
    let mesh = node();
    let address = mesh.nodes[0].address();
    assert!(is_accepted(address, &Offer::right(1)));
    let less = [
        ("no ALPN", Offer { alpn: Vec::new(), ..Offer::right(1) }),
        ("another ALPN", Offer { alpn: vec![b"h2".to_vec()], ..Offer::right(1) }),
        ("X25519 alone", Offer { groups: vec![kx_group::X25519], ..Offer::right(1) }),
        ("curves alone", Offer { groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1], ..Offer::right(1) }),
        ("ML-KEM alone", Offer { groups: vec![kx_group::MLKEM768], ..Offer::right(1) }),
        ("a certificate", Offer { shown: Shown::Certificate, ..Offer::right(1) }),
        ("no key", Offer { shown: Shown::Nothing, ..Offer::right(1) }),
        ("takes certificates alone", Offer { takes_raw_keys: false, ..Offer::right(1) }),
    ];
    for (what, offer) in less {
        assert!(!is_accepted(address, &offer), "{what}");
    }
    assert!(is_accepted(address, &Offer::right(1)));
}

/// A ClientHello of TLS 1.2: everything that one needs, and no word of 1.3.
fn hello_of_tls_1_2() -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2c, 0xc0, 0x2f, 0xc0, 0x30];
    let alpn = [0, 16, 0, 9, 0, 7, 6, b'p', b'1', b'7', b'/', b'1', b'x'];
    let groups = [0, 10, 0, 4, 0, 2, 0, 29];
    let signatures = [0, 13, 0, 4, 0, 2, 8, 7];
    let extensions = [&groups[..], &signatures, &alpn].concat();
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 8], &suites, &[1, 0]].concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1, 0][..], &length, &body].concat();
    let length = u16::try_from(handshake.len()).unwrap().to_be_bytes();
    [&[22, 3, 1][..], &length, &handshake].concat()
}

/// Spec 05, M2.
#[test]
fn tls_before_1_3_is_refused() {
    let mesh = node();
    let mut stream = tcp(mesh.nodes[0].address());
    stream.write_all(&hello_of_tls_1_2()).unwrap();
    let from = Instant::now();
    let answer = drain(&mut stream);
    assert!(from.elapsed() < HANDSHAKE / 2, "closed by the timeout alone");
    // One record, a fatal alert.
    assert_eq!((answer.len(), answer[0], answer[5]), (7, 21, 2), "{answer:02x?}");
}

/// Extensions of a ClientHello, by number.
fn extensions(hello: &[u8]) -> Vec<u16> {
    let number = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    let session = 5 + 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let compression = suites + 2 + number(suites);
    let mut at = compression + 1 + usize::from(hello[compression]) + 2;
    let mut found = Vec::new();
    while at < hello.len() {
        found.push(u16::try_from(number(at)).unwrap());
        at += 4 + number(at + 2);
    }
    found
}

/// Spec 05, M3.
#[test]
fn nothing_is_said_before_the_handshake_is_complete() {
    // The acceptor: after its own flight it waits; after the handshake too, for HELLO.
    let mesh = node();
    let mut lane = Dialled::dial(mesh.nodes[0].address(), &Offer::right(1)).unwrap();
    assert!(lane.drain().is_empty(), "the acceptor spoke first");
    // No tickets either: the library would have stored one.
    assert_eq!(lane.tls.tls13_tickets_received(), 0);

    // The dialler: it sends its ClientHello and waits. It asks for no early data and no resumption.
    let params = Params { dial_timeout: HANDSHAKE, ..quick() };
    let (stranger, listener) = Stranger::listen(params);
    let (mut dialled, _) = listener.accept().unwrap();
    crate::peer::patient(&dialled);
    let sent = drain(&mut dialled);
    let length = 5 + usize::from(u16::from_be_bytes([sent[3], sent[4]]));
    assert_eq!((sent[0], sent[5], sent.len()), (22, 1, length), "a ClientHello and nothing else");
    let extensions = extensions(&sent);
    assert!(!extensions.contains(&42) && !extensions.contains(&41), "early data or resumption: {extensions:?}");
    assert!(!extensions.contains(&0), "it names its server: {extensions:?}");
    drop(stranger);
}

/// Spec 05, M24.
#[test]
fn a_record_that_does_not_hold_whole_frames_closes_the_lane() {
    let mesh = node();
    let address = mesh.nodes[0].address();
    let padding = FrameBuf::with_body(Header::new(CircuitId(0), Command::Padding), &[0; BODY_BYTES]);
    let frames = padding.bytes().repeat(8);
    for length in [1, HEADER_BYTES, FRAME_BYTES - 1, FRAME_BYTES + 1, 8 * FRAME_BYTES - 1] {
        let mut lane = Dialled::client(address);
        lane.write(&frames).unwrap();
        lane.write(&frames[..length]).unwrap();
        let from = Instant::now();
        lane.drain();
        assert!(from.elapsed() < HANDSHAKE, "{length} bytes");
    }
    mesh.nodes[0].wait("they are counted", |status| {
        status.counts.get("a record that does not hold whole frames").is_some_and(|times| *times == 5)
    });
    assert_serves(&mesh.nodes[0]);
}

/// Spec 05, M14, at a real socket.
#[test]
fn a_circuit_before_hello_closes_the_lane() {
    let mesh = node();
    for command in [Command::Setup, Command::Created, Command::Cell, Command::Destroy] {
        let mut lane = Dialled::dial(mesh.nodes[0].address(), &Offer::right(1)).unwrap();
        let from = Instant::now();
        lane.write(FrameBuf::with_body(Header::new(CircuitId(1), command), &[0; BODY_BYTES]).bytes()).unwrap();
        // It may say why; it says nothing else.
        let said: Vec<_> = std::iter::from_fn(|| lane.message_or_end().ok()).collect();
        assert!(said.iter().all(|message| matches!(message, Message::GoAway(_))) && said.len() < 2, "{said:?}");
        assert!(from.elapsed() < HANDSHAKE / 2, "{command:?}: closed by the timeout alone");
    }
    assert_serves(&mesh.nodes[0]);
}

#[test]
fn garbage_and_silence_end_within_the_handshake_time() {
    let mesh = node();
    let address = mesh.nodes[0].address();
    let ends = |what: &str, speak: &dyn Fn(&mut std::net::TcpStream)| {
        let (mut stream, from) = (tcp(address), Instant::now());
        speak(&mut stream);
        drain(&mut stream);
        assert!(from.elapsed() < HANDSHAKE + Duration::from_secs(2), "{what}: {:?}", from.elapsed());
    };
    ends("silence", &|_| {});
    ends("a cut hello", &|stream| stream.write_all(&hello_of_tls_1_2()[..40]).unwrap());
    ends("half a connection", &|stream| stream.shutdown(Shutdown::Write).unwrap());
    ends("garbage", &|stream| stream.write_all(&[0x5a; 5000]).unwrap());
    ends("HTTP", &|stream| stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap());
    // Whoever never stops: a handshake message of 16 MB, a little at a time.
    ends("an endless hello", &|stream| {
        let fragment = [&[22, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &[0; 16380]].concat();
        let sent = (0..1000).take_while(|_| stream.write_all(&fragment).is_ok()).count();
        assert!(sent < 1000, "all of it was taken");
    });
    // Silence after TLS.
    let (mut lane, from) = (Dialled::dial(address, &Offer::right(1)).unwrap(), Instant::now());
    lane.drain();
    assert!(from.elapsed() < HANDSHAKE + Duration::from_secs(2));
    // Padding for ever, and no HELLO.
    let (mut lane, from) = (Dialled::dial(address, &Offer::right(1)).unwrap(), Instant::now());
    let padding = FrameBuf::with_body(Header::new(CircuitId(0), Command::Padding), &[0; BODY_BYTES]);
    while lane.write(padding.bytes()).is_ok() {
        assert!(from.elapsed() < HANDSHAKE + Duration::from_secs(2), "padding holds a lane open");
    }
    assert_serves(&mesh.nodes[0]);
}

/// Law 6: asked for more than it reads answers to, a node ends the lane rather than keep the answers, and the connection with it.
#[test]
fn a_peer_that_reads_nothing_loses_its_lane() {
    let mesh = node();
    let mut lane = Dialled::client(mesh.nodes[0].address());
    socket2::SockRef::from(&lane.tcp).set_recv_buffer_size(4096).unwrap();
    lane.tcp.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let pings: Vec<u8> = (0..8).flat_map(|token| control(&Message::Ping(token)).bytes().to_vec()).collect();
    let from = Instant::now();
    let error = loop {
        if let Err(error) = lane.write(&pings) {
            break error;
        }
        assert!(from.elapsed() < PATIENCE, "it takes PINGs for ever");
        // So slowly that its writer runs into the full socket before its queue is full.
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(is_over(&error), "the lane is stuck: {error}");
    assert_serves(&mesh.nodes[0]);
}

#[test]
fn a_node_says_goaway_when_it_shuts_down() {
    let mut mesh = node();
    let mut lanes: Vec<_> = (0..3).map(|_| Dialled::client(mesh.nodes[0].address())).collect();
    mesh.nodes[0].stop();
    for lane in &mut lanes {
        let last = std::iter::repeat_with(|| lane.message_or_end()).take_while(Result::is_ok).last();
        assert_eq!(last.unwrap().unwrap(), Message::GoAway(GoAwayReason::Shutdown));
    }
}

/// A neighbour that a test plays itself.
struct Stranger {
    mesh: Mesh,
    identity: Identity,
    address: SocketAddr,
}

impl Stranger {
    /// A node that dials the stranger at once: its NodeID is the smaller one.
    fn listen(params: Params) -> (Self, TcpListener) {
        let mut entropy = system_entropy().unwrap();
        // One in two is not the larger one; the mesh's NodeID is new each time.
        loop {
            let identity = Identity::generate(&mut entropy);
            let plan = Plan { params: params.clone(), strangers: vec![identity.node_id()], ..Plan::of(1) };
            let mut mesh = plan.prepare();
            if mesh.nodes[0].id > identity.node_id() {
                continue;
            }
            let net = loopback_net();
            let listener = TcpListener::bind((std::net::Ipv4Addr::new(net[0], net[1], net[2], 1), 0)).unwrap();
            let stranger = Self {
                address: listener.local_addr().unwrap(),
                identity,
                mesh: {
                    mesh.nodes[0].start();
                    mesh
                },
            };
            stranger.publish(&Offer::right(9).key());
            return (stranger, listener);
        }
    }

    fn node(&self) -> &Daemon {
        &self.mesh.nodes[0]
    }

    /// Writes the stranger's Bottle into the node's directory.
    fn publish(&self, link_key: &SigningKey) {
        let directory = port17::bottles::BottleDirectory::new(&self.node().config.bottles);
        directory.make().unwrap();
        directory.write(&self.identity.node_id(), &self.bottle(link_key)).unwrap();
    }

    fn bottle(&self, link_key: &SigningKey) -> Vec<u8> {
        let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        let content = BottleContent {
            identity: self.identity.public(),
            seq: Seq(now_ms),
            scope: Scope::Public,
            label: "stranger".parse().unwrap(),
            group: String::new(),
            link_key: link_key.public(),
            link_key_expiry_s: now_ms / 1000 + 3600,
            next_link_key: None,
            circuit_key: CircuitKey {
                public: KemPublicKey::from_bytes([5; PUBLIC_KEY_BYTES]),
                not_after_s: now_ms / 1000 + 7200,
            },
            addresses: vec![Address::new(self.address, LaneType::TlsTcp)],
            egress: Vec::new(),
            links: Vec::new(),
            exit_policy: None,
            load: 0,
            flags: Flags(0),
            protocol: ProtocolRange::OURS,
            software: String::new(),
            unknown: std::collections::BTreeMap::new(),
        };
        content.sign(self.identity.key()).unwrap()
    }
}

/// A neighbour that the node knows by nothing but its NodeID, and its Bottle.
fn unknown_neighbour() -> (Stranger, Vec<u8>) {
    let identity = Identity::generate(&mut system_entropy().unwrap());
    let params = Params { handshake_timeout: HANDSHAKE, ..quick() };
    let mut mesh = Plan { params, exits: Vec::new(), strangers: vec![identity.node_id()], ..Plan::of(1) }.prepare();
    mesh.nodes[0].start();
    eventually("a Bottle", || mesh.nodes[0].bottle());
    let stranger = Stranger { address: mesh.nodes[0].address(), identity, mesh };
    let bottle = stranger.bottle(&Offer::right(9).key());
    (stranger, bottle)
}

/// The frames of a message of the stream.
fn streamed(message: &Message) -> Vec<FrameBuf> {
    let pieces: Vec<Vec<u8>> = split_into_pieces(&message.encode()).map(<[u8]>::to_vec).collect();
    let frame = |piece: Vec<u8>| {
        let mut body = [0; BODY_BYTES];
        write_control_body(&piece, &mut body).unwrap();
        FrameBuf::with_body(Header::new(CircuitId(0), Command::Control), &body)
    };
    pieces.into_iter().map(frame).collect()
}

/// The first Bottle is heard whether it comes with HELLO or long behind it, and what follows it may be a circuit's.
#[test]
fn a_neighbour_with_a_key_that_is_not_known_is_known_by_its_first_bottle() {
    for with_hello in [true, false] {
        let (stranger, bottle) = unknown_neighbour();
        let mut lane = Dialled::dial(stranger.node().address(), &Offer::right(9)).unwrap();
        let hello = control(&hello(Role::Node, LinkId(rand())));
        let first = streamed(&Message::Bottles { more: false, envelopes: vec![bottle] });
        if with_hello {
            let all: Vec<u8> = std::iter::once(&hello).chain(&first).flat_map(|frame| frame.bytes().to_vec()).collect();
            lane.write(&all).unwrap();
        } else {
            lane.write(hello.bytes()).unwrap();
            for frame in &first {
                std::thread::sleep(Duration::from_millis(50));
                lane.write(frame.bytes()).unwrap();
            }
        }
        assert!(matches!(lane.message(), Message::Hello(answer) if answer.role == Role::Node));
        // It is admitted: a cell of no circuit would have cost the lane before, a ping is answered now.
        lane.send(&Message::Ping(17));
        while lane.message() != Message::Pong(17) {}
        stranger.node().wait("the link", |status| status.links.iter().any(|link| link.up));
    }
}

#[test]
fn a_circuit_before_the_first_bottle_closes_the_lane() {
    let (stranger, _) = unknown_neighbour();
    let mut lane = Dialled::dial(stranger.node().address(), &Offer::right(9)).unwrap();
    lane.send(&hello(Role::Node, LinkId(rand())));
    let from = Instant::now();
    lane.write(FrameBuf::with_body(Header::new(CircuitId(1), Command::Setup), &[0; BODY_BYTES]).bytes()).unwrap();
    let said: Vec<_> = std::iter::from_fn(|| lane.message_or_end().ok()).collect();
    assert!(said.iter().all(|message| matches!(message, Message::GoAway(_))) && said.len() < 2, "{said:?}");
    assert!(from.elapsed() < HANDSHAKE / 2, "closed by the timeout alone");
}

/// Spec 05, M1.
#[test]
fn another_key_at_the_dialled_address_is_refused_and_tried_again() {
    let (stranger, listener) = Stranger::listen(quick());
    for attempt in 0..3 {
        let (tcp, _) = listener.accept().unwrap();
        let error = Accepted::accept(tcp, &Offer::right(66)).map(|mut lane| lane.frame().map(|_| ()));
        assert!(!matches!(error, Ok(Ok(()))), "attempt {attempt}: it spoke to another key");
    }
    assert!(!stranger.node().status().unwrap().links.iter().any(|link| link.up));
    // With the right one it says who it is.
    let (tcp, _) = listener.accept().unwrap();
    let mut lane = Accepted::accept(tcp, &Offer::right(9)).unwrap();
    let Message::Hello(hello) = lane.message() else { panic!("no HELLO") };
    assert_eq!(hello.role, Role::Node);
    lane.send(&Message::Hello(hello));
    stranger.node().wait("the link", |status| status.links.iter().any(|link| link.up));
}

/// A dialler that takes less than it should would be as bad as an acceptor.
#[test]
fn a_dialler_refuses_who_offers_less() {
    let (stranger, listener) = Stranger::listen(quick());
    let less = [
        ("another ALPN", Offer { alpn: vec![b"h2".to_vec()], ..Offer::right(9) }),
        ("no ALPN", Offer { alpn: Vec::new(), ..Offer::right(9) }),
        ("X25519 alone", Offer { groups: vec![kx_group::X25519], ..Offer::right(9) }),
    ];
    for (what, offer) in less {
        let (tcp, _) = listener.accept().unwrap();
        let outcome = Accepted::accept(tcp, &offer).and_then(|mut lane| lane.frame());
        assert!(outcome.is_err_and(|error| is_over(&error)), "{what}");
    }
    // Tickets come when the handshake is complete; nothing but frames is expected then.
    let (tcp, _) = listener.accept().unwrap();
    let mut lane = Accepted::accept(tcp, &Offer { tickets: 1, ..Offer::right(9) }).unwrap();
    let from = Instant::now();
    lane.drain();
    assert!(from.elapsed() < stranger.node().params.handshake_timeout / 2, "closed by the timeout alone");
    drop(stranger);
}

/// A node's circuit key as its Bottle names it.
fn circuit_key(node: &Daemon) -> KemPublicKey {
    let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let bottle = UnverifiedBottle::parse(&node.bottle().unwrap()).unwrap();
    bottle.verify(now_ms, &node.params.bottle_rules()).unwrap().content().circuit_key.public.clone()
}

/// A circuit of the test's own on a new lane, where its id is 1.
fn circuit(guard: &Daemon, hops: &[RouteHop]) -> (Dialled, Origin, Answer) {
    let mut lane = Dialled::client(guard.address());
    let (origin, answer) = circuit_on(&mut lane, 1, hops).unwrap();
    (lane, origin, answer)
}

/// A circuit's crypto, and how its hops answered; an error at the lane's end.
fn circuit_on(lane: &mut Dialled, id: u32, hops: &[RouteHop]) -> io::Result<(Origin, Answer)> {
    let now_s = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut entropy = system_entropy().unwrap();
    let (mut origin, packet) = Origin::new(hops, 0, slot_of(now_s), KemBackend::AwsLc, &mut entropy).unwrap();
    for (part, body) in (0..).zip(packet.parts()) {
        let header = Header { depth: packet.depth().code(), part, ..Header::new(CircuitId(id), Command::Setup) };
        lane.write(FrameBuf::with_body(header, body).bytes())?;
    }
    let created = lane.frame_of(Command::Created)?;
    let answer = origin.handle_created(&created[HEADER_BYTES..]).unwrap();
    Ok((origin, answer))
}

/// A cell with this at the beginning of its message area.
fn cell(origin: &mut Origin, id: u32, hop: usize, message: &[u8]) -> FrameBuf {
    let mut frame = FrameBuf::new();
    frame.bytes_mut()[OriginForward::area(hop)][..message.len()].copy_from_slice(message);
    let flags = origin.seal(hop, frame.bytes_mut()).unwrap();
    frame.set_header(Header { flags, ..Header::new(CircuitId(id), Command::Cell) });
    frame
}

/// The lane is open: everything before has been taken without closing it.
fn assert_open(lane: &mut Dialled) {
    lane.send(&Message::Ping(17));
    std::iter::repeat_with(|| lane.message()).find(|message| *message == Message::Pong(17)).unwrap();
}

/// Spec 06, M33: a client that sends without asking for credit loses each such circuit, and with the third one its lane.
#[test]
fn cells_beyond_credit_cost_the_circuit_and_the_third_time_the_lane() {
    let mesh = Plan::of(1).start();
    let node = &mesh.nodes[0];
    let hops = [RouteHop { node: node.id, key: circuit_key(node) }];
    let mut lane = Dialled::client(node.address());
    let breaches = |lane: &mut Dialled, id| {
        let Ok((mut origin, answer)) = circuit_on(lane, id, &hops) else { return true };
        assert_eq!(answer, Answer::Complete);
        // Far more than the largest window, as fast as they go.
        let cells: Vec<u8> = (0..2000).flat_map(|_| cell(&mut origin, id, 0, &[]).bytes().to_vec()).collect();
        if lane.write(&cells).is_err() {
            return true;
        }
        // Granted as quickly as they came? Then a DESTROY of ours ends it; each is answered.
        lane.write(FrameBuf::with_body(Header::new(CircuitId(id), Command::Destroy), &[]).bytes()).is_err()
            || lane.frame_of(Command::Destroy).is_err()
    };
    let closed = (0..20).position(|number| breaches(&mut lane, 2 * number + 1));
    assert!(closed.is_some_and(|circuits| circuits >= 2), "after {closed:?} circuits");
    let counts = node.wait("the lane's end", |status| status.counts.contains_key("credit overrun repeatedly")).counts;
    assert_eq!(counts["credit overrun repeatedly"], 1, "{counts:?}");
    assert_serves(node);
}

/// Spec 05, M7 and 06, M35: what was under way when the other end destroyed a circuit is no fault.
#[test]
fn frames_and_credit_for_a_dying_circuit_are_ignored() {
    let mesh = Plan::of(1).start();
    let hops = [RouteHop { node: mesh.nodes[0].id, key: circuit_key(&mesh.nodes[0]) }];
    let (mut lane, mut origin, _) = circuit(&mesh.nodes[0], &hops);
    let junk = cell(&mut origin, 1, 0, &[7, 0, 0, 0, 0]);
    lane.write(junk.bytes()).unwrap();
    lane.frame_of(Command::Destroy).unwrap();

    for command in [Command::Credit, Command::Reclaim, Command::Limit] {
        for number in [0, 1, 20, u64::MAX] {
            lane.write(pairs_frame(command, &[(CircuitId(1), number)]).bytes()).unwrap();
        }
    }
    lane.write(&junk.bytes().repeat(40)).unwrap();
    assert_open(&mut lane);
    // Our own DESTROY makes the id free for another circuit.
    lane.write(FrameBuf::with_body(Header::new(CircuitId(1), Command::Destroy), &[]).bytes()).unwrap();
    assert_eq!(circuit_on(&mut lane, 1, &hops).unwrap().1, Answer::Complete);
}

/// What a node answers to a SETUP whose first record is for it and names `next`, none for an exit.
fn answer_to(node: &Daemon, next: Option<NodeId>) -> Answer {
    let key = circuit_key(node);
    let mut hops = vec![RouteHop { node: node.id, key: key.clone() }];
    hops.extend(next.map(|next| RouteHop { node: next, key }));
    circuit(node, &hops).2
}

/// Spec 06, M26, and M24 at the exit.
#[test]
fn a_message_to_a_relay_destroys_the_circuit() {
    let mesh = Plan::of(2).start();
    let hops: Vec<_> = mesh.nodes.iter().map(|node| RouteHop { node: node.id, key: circuit_key(node) }).collect();
    let open = [1, 0, 1, 0, 9, 1, 0, 0, 80, 4, 127, 0, 0, 1];
    // Streams to a relay, a message of a later version to it, a reserved one to the exit.
    for (hop, message) in [(0, &open[..]), (0, &[3, 0, 1, 0, 1, 7]), (0, &[7, 0, 0, 0, 0]), (1, &[7, 0, 0, 0, 0])] {
        let (mut lane, mut origin, answer) = circuit(&mesh.nodes[0], &hops);
        assert_eq!(answer, Answer::Complete);
        lane.write(cell(&mut origin, 1, hop, message).bytes()).unwrap();
        let destroyed = lane.frame_of(Command::Destroy).unwrap();
        assert_eq!(Header::decode(&destroyed[..]).unwrap().circuit, CircuitId(1));
        // The circuit's fault is not the lane's.
        assert_open(&mut lane);
    }
}

/// Spec 07, M1.
#[test]
fn who_has_no_exit_policy_is_no_exit() {
    let mesh = node();
    assert_eq!(answer_to(&mesh.nodes[0], None), Answer::Failed { hop: 0, status: SetupStatus::Policy });
}

/// Law 1, spec 06, M3: a client names nodes that the hop knows and could dial, and it does not.
#[test]
fn law_1_no_setup_makes_a_node_dial() {
    // The stranger's Bottle is verified and names an address; the node is not its neighbour.
    let (stranger, listener) = Stranger::listen(quick());
    let mesh = node();
    let bottle = std::fs::read(stranger.node().config.bottles.join(format!("{}.bottle", stranger.identity.node_id()))).unwrap();
    let known = mesh.nodes[0].config.bottles.join("stranger.bottle");
    // Whatever the other node did is over.
    drop(stranger.mesh);
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}

    std::fs::write(known, bottle).unwrap();
    for next in [stranger.identity.node_id(), NodeId([7; 32]), mesh.nodes[0].id] {
        let status = SetupStatus::NotConnected;
        assert_eq!(answer_to(&mesh.nodes[0], Some(next)), Answer::Failed { hop: 0, status }, "next {next}");
    }
    assert!(listener.accept().is_err(), "a SETUP made the node dial");
}

/// Law 3, spec 09: what one address may have.
#[test]
fn law_3_clients_and_handshakes_of_one_address_are_bounded() {
    let handshakes = Rate { per_second: 1, burst: 8 };
    let params = Params { clients_per_address: 3, handshakes_per_address: handshakes, ..quick() };
    let mut mesh = Plan { params, exits: Vec::new(), ..Plan::of(1) }.prepare();
    mesh.nodes[0].start();
    mesh.nodes[0].wait("a start", |status| status.node_id.is_some());
    let address = mesh.nodes[0].address();

    let mut clients: Vec<_> = (0..3).map(|_| Dialled::client(address)).collect();
    let mut one_more = Dialled::dial(address, &Offer::right(1)).unwrap();
    one_more.send(&hello(Role::Client, LinkId(rand())));
    assert_eq!(one_more.message(), Message::GoAway(GoAwayReason::Full));
    // A place that is left is free again.
    clients.pop();
    eventually("a free place", || is_accepted(address, &Offer::right(1)).then_some(()));

    // The burst is used up: such a connection costs no public-key work.
    let refused = (0..40).find_map(|_| {
        let mut stream = tcp(address);
        // The other end may be gone already.
        let _ = stream.write_all(&[0x5a; 5]);
        let answer = drain(&mut stream);
        answer.is_empty().then_some(())
    });
    assert!(refused.is_some(), "40 handshakes at once");
    for client in &mut clients {
        client.send(&Message::Ping(1));
    }
}
