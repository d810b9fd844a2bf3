//! A node's lanes as a peer meets them that does not keep to the protocol.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use port17::keystore::system_entropy;
use port17_proto::bottle::{Address, BottleContent, CircuitKey, Flags, ProtocolRange, Seq, UnverifiedBottle};
use port17_proto::circuit::origin::{Answer, Origin};
use port17_proto::circuit::replay::slot_of;
use port17_proto::circuit::setup::RouteHop;
use port17_proto::crypto::{KemBackend, KemPublicKey, PUBLIC_KEY_BYTES, SigningKey};
use port17_proto::identity::Identity;
use port17_proto::ids::{CircuitId, NodeId};
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::params::Params;
use port17_proto::wire::message::{LinkId, Message};
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
        let bytes = content.sign(self.identity.key()).unwrap();
        let directory = port17::bottles::BottleDirectory::new(&self.node().config.bottles);
        directory.make().unwrap();
        directory.write(&self.identity.node_id(), &bytes).unwrap();
    }
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

/// What a node answers to a SETUP whose first record is for it and names `next`, none for an exit.
fn answer_to(node: &Daemon, next: Option<NodeId>) -> Answer {
    let mut entropy = system_entropy().unwrap();
    let bottle = UnverifiedBottle::parse(&node.bottle().unwrap()).unwrap();
    let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let bottle = bottle.verify(now_ms, &node.params.bottle_rules()).unwrap();
    let key = bottle.content().circuit_key.public.clone();
    let mut hops = vec![RouteHop { node: node.id, key: key.clone() }];
    hops.extend(next.map(|next| RouteHop { node: next, key }));
    let (mut origin, packet) = Origin::new(&hops, 0, slot_of(now_ms / 1000), KemBackend::AwsLc, &mut entropy).unwrap();

    let mut lane = Dialled::client(node.address());
    for (part, body) in (0..).zip(packet.parts()) {
        let header = Header { depth: packet.depth().code(), part, ..Header::new(CircuitId(1), Command::Setup) };
        lane.write(FrameBuf::with_body(header, body).bytes()).unwrap();
    }
    loop {
        let frame = lane.frame().unwrap();
        if Header::decode(&frame[..]).unwrap().command == Command::Created {
            return origin.handle_created(&frame[HEADER_BYTES..]).unwrap();
        }
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
