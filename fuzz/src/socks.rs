//! SOCKS5, SOCKS4 and SOCKS4a, as any program on the machine speaks them at the proxy port.
//!
//! The first byte says in what pieces the rest comes; the version is the rest's first byte.

use port17::client::name;
use port17::client::socks::{Failure, Reader, Request, negotiate4, negotiate5};
use port17::client::tunnel::{Host, Isolation, Target};
use port17_proto::limits::SOCKS_CREDENTIAL_BYTES;

use crate::choices::Choices;
use crate::talk::{self, Talk};

const VERSION_4: u8 = 4;
const VERSION_5: u8 = 5;

/// Negotiates.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let piece = choices.byte();
    let coming = choices.rest();
    let at_once = negotiated(coming, usize::MAX);
    let in_pieces = negotiated(coming, usize::from(piece));
    assert_eq!(at_once, in_pieces, "in what pieces a request comes changes nothing");
    if let Outcome::Asked { target, isolation, behind, .. } = at_once {
        check_target(&target);
        check_isolation(&isolation);
        assert!(coming.ends_with(&behind), "what comes behind a request is left as it is");
        again(target, isolation);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Asked { target: Target, isolation: Isolation, behind: Vec<u8>, said: Vec<u8> },
    Told(Vec<u8>),
    Gone,
}

fn negotiated(coming: &[u8], piece: usize) -> Outcome {
    let mut reader = Reader::new(Talk::new(coming, piece));
    let asked: Result<Request, Failure> = match coming.first() {
        Some(&VERSION_5) => talk::run(negotiate5(&mut reader)),
        Some(&VERSION_4) => talk::run(negotiate4(&mut reader)),
        _ => return Outcome::Gone,
    };
    let (talk, early) = reader.into_parts();
    match asked {
        Ok(Request { target, isolation }) => {
            let behind = [&early[..], talk.unread()].concat();
            Outcome::Asked { target, isolation, behind, said: talk.said }
        }
        Err(Failure::Reply(reply)) => {
            assert!((2..=10).contains(&reply.len()), "a refusal is one reply");
            Outcome::Told([talk.said, reply].concat())
        }
        Err(Failure::Gone) => Outcome::Gone,
    }
}

/// A target is what an exit can be asked for.
pub(crate) fn check_target(target: &Target) {
    assert_ne!(target.port, 0);
    if let Host::Name(name) = &target.host {
        assert_eq!(name::parse(name).as_deref(), Ok(name.as_str()), "a name has one form");
        assert!(name.parse::<std::net::IpAddr>().is_err(), "an address is no name");
        assert!((1..=253).contains(&name.len()));
    }
}

pub(crate) fn check_isolation(isolation: &Isolation) {
    let fits = |text: &[u8]| text.len() <= SOCKS_CREDENTIAL_BYTES;
    assert!(isolation.credentials.as_ref().is_none_or(|(user, password)| fits(user) && fits(password)));
}

/// What was asked for, asked by SOCKS5 in the plainest way, is the same.
fn again(target: Target, isolation: Isolation) {
    let request = request5(&target, &isolation);
    match negotiated(&request, usize::MAX) {
        Outcome::Asked { target: same, isolation: kept, behind, .. } => {
            assert!(same == target && kept == isolation && behind.is_empty());
        }
        other => panic!("{target:?} cannot be asked for again: {other:?}"),
    }
}

fn request5(target: &Target, isolation: &Isolation) -> Vec<u8> {
    let with_length = |text: &[u8]| [&[text.len() as u8][..], text].concat();
    let mut request = match &isolation.credentials {
        None => vec![VERSION_5, 1, 0],
        Some((user, password)) => [vec![VERSION_5, 1, 2, 1], with_length(user), with_length(password)].concat(),
    };
    request.extend([VERSION_5, 1, 0]);
    match &target.host {
        Host::Ip(std::net::IpAddr::V4(ip)) => request.extend([&[1][..], &ip.octets()].concat()),
        Host::Ip(std::net::IpAddr::V6(ip)) => request.extend([&[4][..], &ip.octets()].concat()),
        Host::Name(name) => request.extend([vec![3], with_length(name.as_bytes())].concat()),
    }
    request.extend(target.port.to_be_bytes());
    request
}

/// Requests of each kind, by each version.
pub fn seeds() -> Vec<Vec<u8>> {
    let name = Target { host: Host::Name("a-1.example.org".into()), port: 443 };
    let v4 = Target { host: Host::Ip([192, 0, 2, 1].into()), port: 80 };
    let v6 = Target { host: Host::Ip("2001:db8::1".parse().expect("an address")), port: 1 };
    let alone = Isolation { credentials: Some((b"user".to_vec(), b"password".to_vec())) };
    let mut requests = vec![
        request5(&name, &Isolation::default()),
        request5(&v4, &alone),
        [request5(&v6, &Isolation::default()), b"GET / HTTP/1.1\r\n".to_vec()].concat(),
        request5(&Target { host: Host::Name("EXAMPLE.Org.".into()), port: 80 }, &alone),
        request5(&Target { host: Host::Name("192.0.2.1".into()), port: 80 }, &Isolation::default()),
    ];
    requests.push([&[4, 1, 0, 80, 192, 0, 2, 1][..], b"user\0", b"early"].concat());
    requests.push([&[4, 1, 1, 187, 0, 0, 0, 1][..], b"\0", b"example.org\0"].concat());
    // BIND and UDP ASSOCIATE.
    requests.push(vec![5, 2, 0, 2, 1, 0, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 80]);
    requests.push(vec![5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 80]);
    requests.into_iter().map(|request| [vec![3], request].concat()).collect()
}
