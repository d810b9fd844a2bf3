//! Law 8: what daemons log at work. A binary of its own, since what is logged is the whole process's.
#![allow(clippy::unwrap_used)]

#[path = "daemon/mesh.rs"]
mod mesh;
#[path = "daemon/origin.rs"]
mod origin;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use port17_proto::params::Params;
use tracing_subscriber::filter::LevelFilter;

use crate::mesh::{Mesh, PATIENCE, Plan, eventually, quick};
use crate::origin::{Origin, connect, connect_as, connect_name};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

fn is_info_or_above(line: &str) -> bool {
    [" INFO", " WARN", "ERROR"].iter().any(|level| line.starts_with(level))
}

/// Everything that is secret in the mesh's key files, as they write it.
fn keys(mesh: &Mesh) -> Vec<String> {
    let mut keys = Vec::new();
    for node in &mesh.nodes {
        for file in std::fs::read_dir(&node.config.identity.dir).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            keys.extend(text.split_whitespace().filter(|word| word.len() >= 32).map(str::to_owned));
        }
    }
    keys
}

/// A connection that ends in a reset.
fn break_off(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Law 8, spec 10, M9.
#[test]
fn law_8_keys_payloads_and_traffic_stay_out_of_logs() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .init();

    const PAYLOAD: &str = "the-payload-of-this-test";
    const NAME: &str = "the-destination.test";
    let params = Params { spare_circuits: 2, exit_dial_timeout: Duration::from_millis(300), ..quick() };
    let mut mesh = Plan { params, ..Plan::of(3) }.prepare();
    let target = std::net::IpAddr::from(mesh.ip(200));
    mesh.nodes[2].config.exit.as_mut().unwrap().hosts.insert(NAME.to_owned(), target);
    mesh.nodes.iter_mut().for_each(|node| node.start());
    mesh.client.start();
    mesh.wait();
    let proxy = mesh.proxy();
    let origin = Origin::echo(target);
    let mut applications: Vec<SocketAddr> = Vec::new();
    let mut exchange = |mut stream: TcpStream| {
        applications.push(stream.local_addr().unwrap());
        stream.write_all(PAYLOAD.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).unwrap();
        assert_eq!(back, PAYLOAD);
    };

    // What works.
    exchange(connect(proxy, origin.address).unwrap());
    exchange(connect_as(proxy, origin.address, Some(("the-user-name", "the-pass-word"))).unwrap());
    exchange(connect_name(proxy, NAME, origin.address.port()).unwrap());
    // What does not: a refused port, a forbidden one, an unknown name, a broken connection, no HTTP, no such host in HTTP.
    assert!(connect(proxy, SocketAddr::new(target, 1)).is_err());
    assert!(connect(proxy, mesh.nodes[0].address()).is_err());
    assert!(connect_name(proxy, "nowhere.the-destination.invalid", 80).is_err());
    break_off(connect(proxy, origin.address).unwrap());
    for request in [
        format!("GET http://{NAME}:1/{PAYLOAD} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"),
        format!("CONNECT {NAME}:1 HTTP/1.1\r\n\r\n"),
        format!("POST http://{NAME}:{}/ HTTP/1.1\r\nContent-Length: 99\r\n\r\n{PAYLOAD}", origin.address.port()),
        format!("{PAYLOAD} {NAME}\r\n\r\n"),
        format!("\u{7f}{PAYLOAD}"),
    ] {
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Any end will do.
        let _ = stream.read(&mut [0; 512]);
    }
    // A stranger at a node's port, a damaged Bottle, a dead exit.
    let mut stranger = TcpStream::connect(mesh.nodes[0].address()).unwrap();
    stranger.write_all(PAYLOAD.as_bytes()).unwrap();
    std::fs::write(mesh.client.config.bottles.join("noise.bottle"), PAYLOAD).unwrap();
    mesh.nodes[2].kill();
    eventually("a refusal", || connect(proxy, origin.address).err());
    let secrets = keys(&mesh);
    assert!(secrets.len() >= 6, "an identity and a link key of each node: {}", secrets.len());
    mesh.client.stop();
    mesh.nodes[0].stop();

    let lines = log.lines();
    let about_links = lines.iter().filter(|line| is_info_or_above(line) && line.contains("link up")).count();
    assert!(about_links >= 4, "nothing was captured: {lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("DEBUG")), "nothing below INFO was captured");
    let never = secrets.iter().map(String::as_str).chain([PAYLOAD, "the-user-name", "the-pass-word"]);
    for secret in never {
        assert!(!lines.iter().any(|line| line.contains(secret)), "{secret} is in the log");
    }
    let ip = mesh.ip(200).to_string();
    let mut private = vec![ip, "the-destination".to_owned(), format!(":{}", origin.address.port())];
    private.extend(applications.iter().map(ToString::to_string));
    for line in lines.iter().filter(|line| is_info_or_above(line)) {
        assert!(!private.iter().any(|private| line.contains(private)), "above DEBUG: {line}");
        // A route is its hops together; a link names one node.
        let named = mesh.nodes.iter().filter(|node| line.contains(&node.id.to_string()[..13])).count();
        assert!(named < 2, "a route above DEBUG: {line}");
    }
}
