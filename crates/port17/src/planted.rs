//! Leaks that are put in on purpose, to see whether the leak tests (`tests/leak`) find each of them.
//!
//! Each is one `if planted("leak-…")` at a place where such a mistake could be made; what it does then is here. Without the feature
//! `planted`, which no release has, the condition is `false` when the code is compiled, and nothing of it is in the binary.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use port17_proto::bottle::{Address, VerifiedBottle};
use port17_proto::bottlerack::Trust;
use port17_proto::circuit::message::{Host, Target};
use port17_proto::ids::NodeId;
pub use port17_proto::planted::{Fault, planted};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::lane::lock;

/// All faults of the shell.
pub const FAULTS: &[Fault] = &[
    Fault { name: "leak-direct", what: "the client connects directly where the mesh refuses" },
    Fault { name: "leak-resolve", what: "the client resolves a name before it sends it into the tunnel" },
    Fault { name: "leak-mdns", what: "the client asks its local network for a name, by multicast" },
    Fault { name: "leak-probe", what: "the client sends an empty datagram to an address that it is to reach through the mesh" },
    Fault { name: "leak-exit-dial", what: "the client connects to the exit of each circuit, beside its guard" },
    Fault { name: "leak-map", what: "the client asks a node that is not its guard for the map" },
    Fault { name: "leak-udp", what: "the client sends its guard each target in hexadecimal in a datagram" },
    Fault { name: "leak-dns", what: "the client asks its guard for each name by DNS, in clear" },
    Fault { name: "leak-sni", what: "the client shows its guard each name in a TLS ClientHello" },
    Fault { name: "leak-alpn", what: "the client puts the base64 of what an application sends first into a TLS ClientHello" },
    Fault { name: "leak-record", what: "the client writes a target between two records of its guard's lane, not encrypted" },
    Fault { name: "leak-guard-names-client", what: "the guard tells another node the address of a client" },
    Fault { name: "leak-lane-for-setup", what: "a node opens a connection to the next hop for each SETUP" },
    Fault { name: "leak-exit-tells", what: "the exit tells another node each target" },
    Fault { name: "leak-exit-policy", what: "the exit connects to whatever it is asked for, nodes of the mesh too" },
    Fault { name: "leak-log", what: "the exit logs each target" },
];

/// What a leak needs to know of the mesh: where nodes listen, which of them is the guard, what is to be said on the lane.
struct Known {
    nodes: BTreeMap<NodeId, SocketAddr>,
    guard: Option<NodeId>,
    unsaid: Option<Vec<u8>>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { nodes: BTreeMap::new(), guard: None, unsaid: None });

/// Takes note of where nodes listen.
pub(crate) fn note_nodes(bottles: &[(&VerifiedBottle, Trust)]) {
    let listens = |bottle: &VerifiedBottle| bottle.content().addresses.first().map(Address::socket);
    let nodes = bottles.iter().filter_map(|(bottle, _)| Some((bottle.node_id(), listens(bottle)?)));
    lock(&KNOWN).nodes = nodes.collect();
}

/// Takes note of the guard.
pub(crate) fn note_guard(guard: NodeId) {
    lock(&KNOWN).guard = Some(guard);
}

/// What a client does wrong with each target before it opens a stream to it.
pub(crate) async fn before_open(target: &Target) {
    if planted("leak-resolve") {
        resolve(target).await;
    }
    if planted("leak-mdns") {
        ask_everybody(target);
    }
    if planted("leak-probe") {
        probe(target);
    }
    if planted("leak-udp") {
        tell_guard(target);
    }
    if planted("leak-dns") {
        ask_guard(target);
    }
    if planted("leak-sni") {
        show_guard(target);
    }
    if planted("leak-record") {
        say_on_lane(target);
    }
}

/// `leak-direct`
pub(crate) async fn go_directly(mut from: TcpStream, target: &Target, granted: &[u8]) {
    let Ok(mut to) = TcpStream::connect(text(target)).await else { return };
    if from.write_all(granted).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}

/// `leak-exit-dial`, `leak-lane-for-setup`
pub(crate) fn knock_at(node: &NodeId) {
    let address = lock(&KNOWN).nodes.get(node).copied();
    knock(address, Vec::new());
}

/// `leak-map`
pub(crate) fn ask_another_node() {
    knock(not_the_guard(), client_hello(None, Some(b"p17/1".to_vec())).unwrap_or_default());
}

/// `leak-alpn`
pub(crate) fn show_guard_first_bytes(bytes: &[u8]) {
    const FITS: usize = 180;
    let protocol = BASE64.encode(bytes.get(..FITS).unwrap_or(bytes)).into_bytes();
    knock(guard(), client_hello(None, Some(protocol)).unwrap_or_default());
}

/// `leak-record`: what was to be said.
pub(crate) fn unsaid() -> Option<Vec<u8>> {
    lock(&KNOWN).unsaid.take()
}

/// `leak-guard-names-client`
pub(crate) fn name_client(remote: SocketAddr) {
    whisper(not_the_guard(), format!("a client is at {remote}").as_bytes());
}

/// `leak-exit-tells`
pub(crate) fn tell_another_node(target: &Target) {
    whisper(not_the_guard(), text(target).as_bytes());
}

/// `leak-log`
pub(crate) fn log(target: &Target) {
    tracing::info!(target = %text(target), "opens");
}

fn guard() -> Option<SocketAddr> {
    let known = lock(&KNOWN);
    known.nodes.get(&known.guard?).copied()
}

fn not_the_guard() -> Option<SocketAddr> {
    let known = lock(&KNOWN);
    known.nodes.iter().find(|(node, _)| Some(**node) != known.guard).map(|(_, address)| *address)
}

fn text(target: &Target) -> String {
    match &target.host {
        Host::Name(name) => format!("{name}:{}", target.port),
        Host::Ip(ip) => SocketAddr::new(*ip, target.port).to_string(),
    }
}

fn name(target: &Target) -> Option<&str> {
    match &target.host {
        Host::Name(name) => Some(name),
        Host::Ip(_) => None,
    }
}

/// A datagram; whether it arrives does not matter.
fn whisper(to: Option<SocketAddr>, what: &[u8]) {
    let Some(to) = to else { return };
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let _ = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| socket.send_to(what, to));
}

/// A connection that begins with `what`, and stays for a moment.
fn knock(to: Option<SocketAddr>, what: Vec<u8>) {
    let Some(to) = to else { return };
    let knocking = async move {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(&what).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::io::Result::Ok(())
    };
    // Workers for SETUPs are threads of their own: there a moment without a runtime is one without the leak.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(knocking);
    } else {
        let _ = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1));
    }
}

fn client_hello(name: Option<&str>, protocol: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?;
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = protocol.into_iter().collect();
    let name = ServerName::try_from(name.unwrap_or("port17.invalid").to_owned()).ok()?;
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name).ok()?.write_tls(&mut hello).ok()?;
    Some(hello)
}

/// A question for the addresses of a name, with upper and lower case mixed as some resolvers do.
fn dns_question(name: &str) -> Vec<u8> {
    let mut question = vec![0x17, 0x17, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap_or(0));
        question.extend(label.bytes().enumerate().map(|(at, byte)| if at % 2 == 0 { byte.to_ascii_uppercase() } else { byte }));
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

/// `leak-resolve`
async fn resolve(target: &Target) {
    let _ = tokio::net::lookup_host(text(target)).await;
}

/// `leak-mdns`
fn ask_everybody(target: &Target) {
    let everybody = SocketAddr::from(([224, 0, 0, 251], 5353));
    name(target).into_iter().for_each(|name| whisper(Some(everybody), &dns_question(name)));
}

/// `leak-probe`
fn probe(target: &Target) {
    whisper(target.host.ip().map(|ip| SocketAddr::new(ip, target.port)), &[]);
}

/// `leak-udp`
fn tell_guard(target: &Target) {
    whisper(guard(), HEXLOWER.encode(text(target).as_bytes()).as_bytes());
}

/// `leak-dns`
fn ask_guard(target: &Target) {
    let port_53 = guard().map(|guard| SocketAddr::new(guard.ip(), 53));
    name(target).into_iter().for_each(|name| whisper(port_53, &dns_question(name)));
}

/// `leak-sni`
fn show_guard(target: &Target) {
    knock(guard(), client_hello(name(target), None).unwrap_or_default());
}

/// `leak-record`: what the lane's writer is to say.
fn say_on_lane(target: &Target) {
    let text = text(target);
    let length = u16::try_from(text.len()).unwrap_or(0).to_be_bytes();
    lock(&KNOWN).unsaid = Some([&[23, 3, 3], &length[..], text.as_bytes()].concat());
}
