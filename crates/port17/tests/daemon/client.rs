//! A client's connections through a mesh of three real nodes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use port17_proto::bottle::UnverifiedBottle;
use port17_proto::params::Params;

use crate::mesh::{Daemon, Mesh, PATIENCE, Plan, eventually, is_reset, quick, within};
use crate::origin::{NETWORK_UNREACHABLE, Origin, assert_echo, connect, connect_as, connect_name, hash_of, stream_of};

fn request(length: u64, seed: u64) -> [u8; 16] {
    let mut request = [0; 16];
    request[..8].copy_from_slice(&length.to_be_bytes());
    request[8..].copy_from_slice(&seed.to_be_bytes());
    request
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Ends the connection so that its peer sees a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn bytes_go_both_ways_and_either_end_may_close_first() {
    let mesh = Plan::of(3).start();
    // The server ends its direction first; what the application sends still arrives.
    let late = Origin::serve(mesh.ip(200), |mut stream| {
        stream.write_all(b"server first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let heard = read_to_end(&mut stream);
        assert_eq!(heard, b"and the application later");
        std::fs::write(std::env::temp_dir().join(format!("heard-{}", stream.local_addr().unwrap().port())), heard).unwrap();
    });
    let mut stream = connect(mesh.proxy(), late.address).unwrap();
    assert_eq!(read_to_end(&mut stream), b"server first");
    stream.write_all(b"and the application later").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let heard = std::env::temp_dir().join(format!("heard-{}", late.address.port()));
    eventually("the application's bytes at the server", || std::fs::read(&heard).ok().filter(|heard| heard.len() == 25));
    let _ = std::fs::remove_file(heard);

    // The application ends its direction first; the answer still comes.
    let early = Origin::serve(mesh.ip(200), |mut stream| {
        let heard = read_to_end(&mut stream);
        stream.write_all(&heard.repeat(2)).unwrap();
    });
    let mut stream = connect(mesh.proxy(), early.address).unwrap();
    stream.write_all(b"twice ").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut stream), b"twice twice ");
}

#[test]
fn a_reset_is_never_taken_for_an_end() {
    let mesh = Plan::of(3).start();
    let resets = Origin::serve(mesh.ip(200), |mut stream| {
        stream.write_all(b"half of the ans").unwrap();
        // Only once the application has read that: a reset overtakes what waits.
        stream.read_exact(&mut [0]).unwrap();
        reset(stream);
    });
    for round in 0..8 {
        let mut stream = connect(mesh.proxy(), resets.address).unwrap();
        stream.read_exact(&mut [0; 15]).unwrap();
        stream.write_all(b"x").unwrap();
        let end = stream.read(&mut [0; 16]);
        assert!(end.as_ref().is_err_and(is_reset), "round {round}: the application saw {end:?}");
    }

    // The other way round.
    let (seen, saw) = std::sync::mpsc::channel();
    let hears = Origin::serve(mesh.ip(200), move |mut stream| {
        stream.write_all(b"go").unwrap();
        let end = std::iter::repeat_with(|| stream.read(&mut [0; 64])).find(|read| !matches!(read, Ok(1..)));
        seen.send(end.unwrap().map_err(|error| error.kind())).unwrap();
    });
    for round in 0..8 {
        let mut stream = connect(mesh.proxy(), hears.address).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        stream.write_all(b"half of the requ").unwrap();
        reset(stream);
        let end = saw.recv_timeout(PATIENCE).unwrap();
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "round {round}: what the server saw");
    }
}

#[test]
fn users_that_have_left_keep_nobody_out() {
    let mut plan = Plan::of(3);
    // Both lanes of a link together.
    plan.params = Params { client_link_circuits: 8, ..quick() };
    let mesh = plan.start();
    let origin = Origin::echo(mesh.ip(200));
    let mut held = connect_as(mesh.proxy(), origin.address, Some(("held", "x"))).unwrap();
    assert_echo(&mut held);
    for user in 0..40 {
        let mut stream = connect_as(mesh.proxy(), origin.address, Some((&format!("user-{user}"), "x"))).unwrap();
        assert_echo(&mut stream);
        drop(stream);
        mesh.client.wait("its end", |status| status.objects.as_ref().is_some_and(|objects| objects.streams.live == 1));
    }
    assert_echo(&mut held);
}

#[test]
fn http_answers_stay_what_they_are() {
    let mesh = Plan::of(3).start();
    let origin = Origin::serve(mesh.ip(200), |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot here\n").unwrap();
    });
    let ask = |request: String| {
        let mut stream = TcpStream::connect(mesh.proxy()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };

    let address = origin.address;
    let absolute =
        read_to_end(&mut ask(format!("GET http://{address}/x HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")));
    let absolute = String::from_utf8(absolute).unwrap();
    assert!(absolute.starts_with("HTTP/1.1 404 Not Found\r\n") && absolute.ends_with("\r\n\r\nnot here\n"), "{absolute}");

    let mut tunnelled = ask(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    let mut head = [0; 12];
    tunnelled.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    tunnelled.write_all(b"GET /x HTTP/1.1\r\n\r\n").unwrap();
    let answer = String::from_utf8(read_to_end(&mut tunnelled)).unwrap();
    assert!(answer.contains("HTTP/1.1 404 Not Found\r\n"), "{answer}");
}

#[test]
fn a_large_upload_and_fifty_downloads_at_once_arrive_whole() {
    const UPLOAD: u64 = 20_000_000;
    const DOWNLOAD: u64 = 500_000;
    let mesh = Plan::of(3).start();
    let proxy = mesh.proxy();
    let digest = Origin::serve(mesh.ip(200), |mut stream| {
        let hash = hash_of(&mut stream).unwrap();
        stream.write_all(&hash).unwrap();
    });
    let mut stream = connect(proxy, digest.address).unwrap();
    std::io::copy(&mut stream_of(1).take(UPLOAD), &mut stream).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut stream), hash_of(stream_of(1).take(UPLOAD)).unwrap());

    let origin = Origin::bytes(mesh.ip(200));
    let address = origin.address;
    let download = move |seed| {
        std::thread::spawn(move || {
            let mut stream = connect(proxy, address).unwrap();
            stream.write_all(&request(DOWNLOAD, seed)).unwrap();
            (seed, hash_of(stream).unwrap())
        })
    };
    let downloads: Vec<_> = (0..50).map(download).collect();
    for running in downloads {
        let (seed, hash) = running.join().unwrap();
        assert_eq!(hash, hash_of(stream_of(seed).take(DOWNLOAD)).unwrap(), "download {seed}");
    }
    assert_eq!(origin.connections(), 50);
}

/// Spec 08, M7.
#[test]
fn different_credentials_never_share_a_circuit() {
    let mesh = Plan { params: Params { spare_circuits: 2, ..quick() }, ..Plan::of(3) }.start();
    mesh.client.wait("spare circuits", |status| status.standing.iter().filter(|circuit| circuit.open).count() >= 2);
    let origin = Origin::echo(mesh.ip(200));
    let users = [None, Some(("a", "1")), Some(("a", "2")), Some(("b", "1")), Some(("", ""))];
    let mut streams = Vec::new();
    for _ in 0..3 {
        for user in users {
            let mut stream = connect_as(mesh.proxy(), origin.address, user).unwrap();
            assert_echo(&mut stream);
            streams.push(stream);
        }
    }

    let status = mesh.client.status().unwrap();
    let mut used: Vec<_> = status.standing.iter().map(|circuit| circuit.streams).filter(|streams| *streams > 0).collect();
    used.sort_unstable();
    assert_eq!(used, [3; 5], "one circuit for each of five, three streams on each");
}

/// Law 7, spec 10, M5: the target is there and would answer, but no exit is.
#[test]
fn law_7_without_an_exit_nothing_leaves() {
    let mut mesh = Plan::of(3).start();
    let origin = Origin::echo(mesh.ip(200));
    let direct = || mesh.client.proxy();
    assert_echo(&mut connect(direct(), origin.address).unwrap());
    let before = origin.connections();

    // The exit ends in order; its Bottle is still there.
    mesh.nodes[2].stop();
    let proxy = mesh.proxy();
    let from = Instant::now();
    let refused = connect(proxy, origin.address).unwrap_err();
    assert!(from.elapsed() < Duration::from_secs(5), "refused only after {:?}", from.elapsed());
    assert_eq!(refused, NETWORK_UNREACHABLE);
    let says_why = |why: &String| why.starts_with("a circuit: ") || why.starts_with("a route: ");
    mesh.client.wait("why there is no circuit", |status| status.waiting_for.as_ref().is_some_and(says_why));

    // No node at all is left.
    mesh.nodes[0].kill();
    mesh.nodes[1].kill();
    assert_eq!(connect(proxy, origin.address).unwrap_err(), NETWORK_UNREACHABLE);
    assert_eq!(connect_name(proxy, "localhost", origin.address.port()).unwrap_err(), NETWORK_UNREACHABLE);
    assert_eq!(origin.connections(), before, "somebody reached the target without the mesh");
}

/// Law 7 from the first moment on: the client has just started, and there is no mesh.
#[test]
fn law_7_a_client_alone_refuses() {
    let mut mesh = Plan::of(3).prepare();
    mesh.client.start();
    let origin = Origin::echo(mesh.ip(200));
    assert_eq!(connect(mesh.proxy(), origin.address).unwrap_err(), NETWORK_UNREACHABLE);
    assert_eq!(origin.connections(), 0);
}

fn middle_of(mesh: &Mesh) -> usize {
    let status = mesh.client.wait("a circuit in use", |status| status.standing.iter().any(|circuit| circuit.streams > 0));
    let circuit = status.standing.iter().find(|circuit| circuit.streams > 0).unwrap();
    let middle = circuit.route[1].strip_prefix("node-").unwrap();
    middle.split('~').next().unwrap().parse().unwrap()
}

/// Spec 05, M21 and 10, M8.
#[test]
fn streams_end_with_a_killed_middle_and_new_ones_succeed() {
    let mut mesh = Plan::of(4).start();
    let origin = Origin::echo(mesh.ip(200));
    let proxy = mesh.proxy();
    let mut stream = connect(proxy, origin.address).unwrap();
    assert_echo(&mut stream);
    let middle = middle_of(&mesh);

    mesh.nodes[middle].kill();
    let from = Instant::now();
    let end = stream.read(&mut [0; 16]);
    assert!(end.as_ref().is_err_and(is_reset), "the application saw {end:?}");
    let mut again = within(Duration::from_secs(5), "a new stream", || connect(proxy, origin.address).ok());
    assert_echo(&mut again);
    assert!(from.elapsed() < Duration::from_secs(5));
    assert_eq!(origin.connections(), 2, "the first stream was not repeated");

    // The lanes to the dead node are gone; on their other sides no circuit is left of the first one.
    drop(again);
    mesh.client.kill();
    for node in [0, 3] {
        mesh.nodes[node].wait("no circuits", |status| status.circuits == 0);
    }
}

#[test]
fn without_its_guard_a_client_refuses_and_recovers_with_it() {
    let mut mesh = Plan::of(3).start();
    let origin = Origin::echo(mesh.ip(200));
    let proxy = mesh.proxy();
    let mut stream = connect(proxy, origin.address).unwrap();
    assert_echo(&mut stream);

    mesh.nodes[0].kill();
    let end = stream.read(&mut [0; 16]);
    assert!(end.as_ref().is_err_and(is_reset), "the application saw {end:?}");
    eventually("a refusal", || (connect(proxy, origin.address).err()? == NETWORK_UNREACHABLE).then_some(()));
    assert_eq!(origin.connections(), 1);

    let bottle = mesh.nodes[0].bottle().unwrap();
    mesh.nodes[0].start();
    // Its keys were in memory alone: it comes back with new ones, in a new Bottle, and both sides take the newer one.
    eventually("a new Bottle", || mesh.nodes[0].bottle().filter(|new| *new != bottle));
    let mut again = eventually("a new stream", || connect(proxy, origin.address).ok());
    assert_echo(&mut again);
}

#[test]
fn a_connection_waits_for_a_guard_that_comes_back() {
    let params = Params { guard_patience: Duration::from_secs(6), ..quick() };
    let mut mesh = Plan { params, ..Plan::of(3) }.start();
    let origin = Origin::echo(mesh.ip(200));
    let proxy = mesh.proxy();
    mesh.nodes[0].kill();
    mesh.client.wait("the loss of its guard", |status| status.links.iter().all(|link| !link.up));

    let connecting = std::thread::spawn(move || connect(proxy, origin.address).map(|mut stream| assert_echo(&mut stream)));
    mesh.nodes[0].start();
    assert_eq!(connecting.join().unwrap(), Ok(()), "it is refused no sooner than another guard would be used");
}

/// Spec 08, M8.
#[test]
fn an_old_circuit_takes_no_new_streams() {
    let params = Params { circuit_max_age: Duration::from_secs(1), ..quick() };
    let mesh = Plan { params, ..Plan::of(3) }.start();
    let origin = Origin::echo(mesh.ip(200));
    let mut old = connect(mesh.proxy(), origin.address).unwrap();
    let aged = |circuit: &port17::control::CircuitStatus| circuit.age_s >= 1;
    mesh.client.wait("an old circuit", |status| status.standing.iter().any(aged));

    let mut new = connect(mesh.proxy(), origin.address).unwrap();
    assert_echo(&mut new);
    assert_echo(&mut old);
    let status = mesh.client.status().unwrap();
    assert_eq!(status.standing.iter().map(|circuit| circuit.streams).collect::<Vec<_>>(), [1, 1], "{status:#?}");

    // With its last stream the old circuit ends.
    drop(old);
    mesh.client.wait("one circuit", |status| status.standing.len() == 1);
}

/// Spec 08, M9.
#[test]
fn a_hop_that_failed_is_left_out() {
    let mut mesh = Plan { exits: vec![1, 2], hops: 2, ..Plan::of(3) }.start();
    let origin = Origin::echo(mesh.ip(200));
    mesh.nodes[1].kill();
    let proxy = mesh.proxy();
    // Each pair of credentials draws a route; half of them would go to the dead exit, whose Bottle is still there.
    let users: BTreeSet<String> = (0..24).map(|user| format!("user-{user}")).collect();
    for user in &users {
        assert_echo(&mut connect_as(proxy, origin.address, Some((user, ""))).unwrap());
    }
    let count = |node: &Daemon| node.status().unwrap().counts.get("setup-not-connected").copied().unwrap_or(0);
    let tried = count(&mesh.nodes[0]);
    assert!(
        (1..=2).contains(&tried),
        "the dead exit was tried {tried} times: once on the same route again, then not for a minute"
    );
}

#[test]
fn damaged_bottles_disturb_nobody() {
    let mesh = Plan::of(3).start();
    let directory = &mesh.client.config.bottles;
    let old = mesh.nodes[2].bottle().unwrap();
    for (name, bytes) in [
        ("empty.bottle", Vec::new()),
        ("noise.bottle", vec![0x5a; 700]),
        ("huge.bottle", vec![0x83; 1 << 20]),
        ("cut.bottle", old[..old.len() / 2].to_vec()),
        ("flipped.bottle", {
            let mut bytes = old.clone();
            bytes[100] ^= 1;
            bytes
        }),
    ] {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
    std::fs::create_dir(directory.join("directory.bottle")).unwrap();
    let count = |status: &port17::control::Status, name| status.counts.get(name).copied().unwrap_or(0);
    for daemon in mesh.nodes.iter().chain([&mesh.client]) {
        // The huge one and the directory are not even read.
        daemon.wait("they are counted", |status| count(status, "bottle-refused") >= 4 && count(status, "bottle-not-read") == 2);
    }
    let origin = Origin::echo(mesh.ip(200));
    assert_echo(&mut connect(mesh.proxy(), origin.address).unwrap());
}

#[test]
fn an_older_bottle_replaces_no_newer_one() {
    let mut mesh = Plan::of(3).start();
    let origin = Origin::echo(mesh.ip(200));
    let old = mesh.nodes[2].bottle().unwrap();
    mesh.nodes[2].kill();
    mesh.nodes[2].start();
    eventually("a new Bottle", || mesh.nodes[2].bottle().filter(|new| *new != old));
    mesh.wait();
    assert_echo(&mut eventually("a stream", || connect(mesh.proxy(), origin.address).ok()));

    // The old one again, under another name, as from a backup: its circuit key is dead.
    std::fs::write(mesh.client.config.bottles.join("again.bottle"), &old).unwrap();
    mesh.client.wait("it is counted", |status| status.counts.keys().any(|name| name.contains("bottle")));
    assert_echo(&mut connect_as(mesh.proxy(), origin.address, Some(("new", "circuit"))).unwrap());
}

/// Where the proxy listens: loopback, whatever else the machine has.
#[test]
fn the_proxy_is_local() {
    let mut mesh = Plan::of(1).prepare();
    mesh.client.start();
    let address: SocketAddr = mesh.proxy();
    assert!(address.ip().is_loopback());
}

/// Law 5: whatever happens to its node, a Bottle stays as its node signed it; others neither change nor remove it.
#[test]
fn law_5_nobody_edits_the_bottle_of_another() {
    let mut mesh = Plan::of(3).start();
    let origin = Origin::echo(mesh.ip(200));
    mesh.nodes[1].kill();
    let bottle = mesh.nodes[1].bottle().unwrap();
    let read = UnverifiedBottle::parse(&bottle).unwrap();
    assert_eq!(read.claimed_node_id(), mesh.nodes[1].id);

    // Its neighbours see that it is gone, doubt it as a hop, and stop and start.
    eventually("a refusal", || connect(mesh.proxy(), origin.address).err());
    for node in [0, 2] {
        mesh.nodes[node].stop();
        mesh.nodes[node].start();
    }
    for node in [0, 2] {
        mesh.nodes[node].wait("one link", |status| status.links.iter().filter(|link| link.up).count() == 1);
    }
    assert_eq!(mesh.nodes[1].bottle().unwrap(), bottle);
    // A file that is being written stands beside the one whose place it takes.
    let files = || std::fs::read_dir(&mesh.client.config.bottles).unwrap().count();
    eventually("a file for each node and nothing else", || (files() == 3).then_some(()));

    // A copy that somebody changed convinces nobody.
    let mut forged = bottle.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    std::fs::write(mesh.nodes[1].bottle_path(), forged).unwrap();
    mesh.nodes[0].wait("the forgery is counted", |status| status.counts.contains_key("bottle-refused"));
}
