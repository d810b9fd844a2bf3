//! What an exit opens, through a mesh of one node: the policy, and what is refused in front of it.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use port17_proto::params::Params;

use crate::mesh::{Mesh, Plan, quick};
use crate::origin::{CONNECTION_REFUSED, NOT_ALLOWED, Origin, Silent, TTL_EXPIRED, assert_echo, connect, connect_name};

/// One exit with this in its configuration.
fn exit(configuration: &str) -> Mesh {
    Plan { exit: configuration.to_owned(), ..Plan::of(1) }.start()
}

/// Spec 07, M6, and M4 for names.
#[test]
fn what_is_not_public_is_refused_unless_it_is_lifted() {
    let mesh = exit("policy = [\"accept tcp *:*\"]\n[exit.hosts]\n\"inside.test\" = \"127.0.0.1\"\n");
    let origin = Origin::echo(mesh.ip(200));
    let here = Origin::echo([127, 0, 0, 1]);
    let proxy = mesh.proxy();
    let port = here.address.port();
    for target in [origin.address, here.address, SocketAddr::new("::1".parse().unwrap(), port)] {
        assert_eq!(connect(proxy, target).unwrap_err(), NOT_ALLOWED, "{target}");
    }
    for private in ["10.0.0.1", "192.168.1.1", "169.254.1.1", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd17::1"] {
        let target = SocketAddr::new(private.parse().unwrap(), port);
        assert_eq!(connect(proxy, target).unwrap_err(), NOT_ALLOWED, "{target}");
    }
    // What a name stands for is checked, whoever says so: the operator or the system.
    assert_eq!(connect_name(proxy, "inside.test", port).unwrap_err(), NOT_ALLOWED);
    assert_eq!(connect_name(proxy, "localhost", port).unwrap_err(), NOT_ALLOWED);
    assert_eq!((origin.connections(), here.connections()), (0, 0), "it was dialled all the same");
}

#[test]
fn what_is_lifted_is_reached_and_nothing_more() {
    let allowed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mesh = exit(&format!("policy = [\"accept tcp *:*\"]\ndanger_exit_private = [\"127.0.0.0/8:{allowed}\"]\n"));
    let other = Origin::echo(mesh.ip(200));
    let target = SocketAddr::new(mesh.ip(200).into(), allowed);
    // Lifted, but nobody listens there.
    assert_eq!(connect(mesh.proxy(), target).unwrap_err(), CONNECTION_REFUSED);
    assert_eq!(connect(mesh.proxy(), other.address).unwrap_err(), NOT_ALLOWED);
    assert_eq!(other.connections(), 0);
}

/// The policy is asked for the address that would be dialled, after what stands in front of it.
#[test]
fn the_policy_decides_about_what_is_left() {
    let forbidden = Origin::echo([127, 0, 0, 1]);
    let port = forbidden.address.port();
    let policy = format!("policy = [\"reject tcp *:{port}\", \"accept tcp 127.0.0.0/8:*\"]\n");
    let mesh = exit(&format!(
        "{policy}danger_exit_private = [\"127.0.0.0/8:*\"]\n[exit.hosts]\n\"a.test\" = \"{}\"\n\"b.test\" = \"127.0.0.1\"\n",
        // The configuration is written before the mesh has its network: any other loopback address.
        "127.0.0.77"
    ));
    let allowed = Origin::echo([127, 0, 0, 77]);
    let proxy = mesh.proxy();
    assert_eq!(connect(proxy, forbidden.address).unwrap_err(), NOT_ALLOWED);
    assert_eq!(connect_name(proxy, "b.test", port).unwrap_err(), NOT_ALLOWED);
    assert_echo(&mut connect(proxy, allowed.address).unwrap());
    assert_echo(&mut connect_name(proxy, "a.test", allowed.address.port()).unwrap());
    assert_eq!((forbidden.connections(), allowed.connections()), (0, 2));
}

/// Law 1, spec 07, M5: no exit connects to the mesh, whatever its operator lifted: not to itself, not to another node, by no name.
#[test]
fn law_1_an_exit_reaches_no_node() {
    let mut mesh = Plan { hops: 1, exits: vec![0], ..Plan::of(2) }.prepare();
    let hosts = [("itself.test", &mesh.nodes[0]), ("other.test", &mesh.nodes[1])];
    let hosts = hosts.map(|(name, node)| (name.to_owned(), node.address().ip()));
    mesh.nodes[0].config.exit.as_mut().unwrap().hosts.extend(hosts);
    mesh.nodes.iter_mut().for_each(|node| node.start());
    mesh.client.start();
    mesh.wait();
    let origin = Origin::echo(mesh.ip(200));
    let proxy = mesh.proxy();
    assert_echo(&mut connect(proxy, origin.address).unwrap());

    let [own, other] = [mesh.nodes[0].address(), mesh.nodes[1].address()];
    for address in [own, other] {
        assert_eq!(connect(proxy, address).unwrap_err(), NOT_ALLOWED, "{address}");
        let SocketAddr::V4(v4) = address else { unreachable!() };
        let mapped = SocketAddr::new(v4.ip().to_ipv6_mapped().into(), address.port());
        assert_eq!(connect(proxy, mapped).unwrap_err(), NOT_ALLOWED, "{mapped}");
    }
    assert_eq!(connect_name(proxy, "itself.test", own.port()).unwrap_err(), NOT_ALLOWED);
    assert_eq!(connect_name(proxy, "other.test", other.port()).unwrap_err(), NOT_ALLOWED);

    // A node whose lanes are down is still part of the mesh: its Bottle says so.
    mesh.nodes[1].kill();
    let origin_there = TcpListener::bind(other).unwrap();
    origin_there.set_nonblocking(true).unwrap();
    assert_eq!(connect(proxy, other).unwrap_err(), NOT_ALLOWED);
    assert!(origin_there.accept().is_err());
}

/// Spec 07, M9: the name exists at the exit alone; neither the client nor a relay could look it up.
#[test]
fn names_are_resolved_at_the_exit() {
    let mut mesh = Plan::of(3).prepare();
    let known = std::collections::BTreeMap::from([("only-at-the-exit.test".to_owned(), std::net::IpAddr::from(mesh.ip(200)))]);
    mesh.nodes[2].config.exit.as_mut().unwrap().hosts = known;
    mesh.nodes.iter_mut().for_each(|node| node.start());
    mesh.client.start();
    mesh.wait();
    let origin = Origin::echo(mesh.ip(200));
    assert_echo(&mut connect_name(mesh.proxy(), "only-at-the-exit.test", origin.address.port()).unwrap());
    assert_echo(&mut connect_name(mesh.proxy(), "ONLY-at-the-exit.test.", origin.address.port()).unwrap());
}

/// Spec 07, M11.
#[test]
fn a_target_that_does_not_answer_is_a_timeout() {
    let params = Params { exit_dial_timeout: Duration::from_millis(300), ..quick() };
    let mesh = Plan { params, ..Plan::of(1) }.start();
    let silent = Silent::at(mesh.ip(200));
    let from = Instant::now();
    assert_eq!(connect(mesh.proxy(), silent.address).unwrap_err(), TTL_EXPIRED);
    assert!(from.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_refused_port_is_refused() {
    let mesh = Plan::of(1).start();
    let closed = TcpListener::bind((mesh.ip(200), 0)).unwrap().local_addr().unwrap();
    assert_eq!(connect(mesh.proxy(), closed).unwrap_err(), CONNECTION_REFUSED);
}
