//! Exit policies and the guard in front of them (spec 07).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::net::{IpAddr, SocketAddr};

use port17_proto::policy::{ExitGuard, ExitPolicy, Pattern, PatternError, PolicyError, Refusal, RuleError};
use port17_proto::wire::registry::StreamProtocol::{Mesh, Tcp, Udp};
use proptest::prelude::*;

fn policy(rules: &[&str]) -> ExitPolicy {
    ExitPolicy::parse(rules).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn problem(rule: &str) -> RuleError {
    match ExitPolicy::parse(&[rule]) {
        Err(PolicyError::Rule { number: 1, problem, .. }) => problem,
        other => panic!("{rule}: {other:?}"),
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy =
        policy(&["reject tcp 198.51.0.0/16:*", "accept tcp 198.0.0.0/8:80,443", "reject * *:443", "accept * *:1000-2000"]);
    for (protocol, host, port, allowed) in [
        (Tcp, "198.51.1.1", 80, false),
        (Tcp, "198.52.1.1", 80, true),
        (Tcp, "198.52.1.1", 443, true),
        (Udp, "198.52.1.1", 443, false),
        (Tcp, "9.9.9.9", 443, false),
        (Tcp, "9.9.9.9", 999, false),
        (Tcp, "9.9.9.9", 1000, true),
        (Udp, "2001:4860::1", 2000, true),
        (Udp, "2001:4860::1", 2001, false),
        (Udp, "198.51.1.1", 1500, true),
        (Tcp, "9.9.9.9", 0, false),
        (Mesh, "9.9.9.9", 1500, false),
    ] {
        assert_eq!(policy.allows(protocol, ip(host), port), allowed, "{protocol:?} {host}:{port}");
    }
}

#[test]
fn what_no_rule_matches_is_rejected() {
    let policy = policy(&["accept tcp 192.0.2.0/24:80"]);
    assert!(!policy.allows(Tcp, ip("8.8.8.8"), 80));
    assert!(!policy.allows(Tcp, ip("192.0.2.1"), 81));
    assert!(!policy.allows(Udp, ip("192.0.2.1"), 80));
}

#[test]
fn private_means_every_address_that_is_not_public() {
    let policy = policy(&["reject * private:*", "accept * *:*"]);
    for host in ["10.1.2.3", "127.0.0.1", "169.254.1.1", "fe80::1", "fd00::1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"] {
        assert!(!policy.allows(Tcp, ip(host), 80), "{host}");
    }
    for host in ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
        assert!(policy.allows(Tcp, ip(host), 80), "{host}");
    }
}

#[test]
fn wrapping_an_address_leads_around_no_rule() {
    let policy = policy(&["reject tcp 8.8.8.0/24:*", "accept tcp *:*"]);
    for host in [
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::8.8.8.8",
        "2002:808:808::1",
        "2001:0:808:808::",
        "2001:0:101:101:0:0:f7f7:f7f7",
    ] {
        assert!(!policy.allows(Tcp, ip(host), 53), "{host}");
    }
    assert!(policy.allows(Tcp, ip("64:ff9b::1.1.1.1"), 53));
}

#[test]
fn for_a_name_the_policy_says_whether_any_address_could_do() {
    for (rules, port, worth_asking) in [
        (&["accept tcp *:443"][..], 443, true),
        (&["accept tcp *:443"], 80, false),
        (&["accept udp *:*"], 80, false),
        (&["reject tcp *:80", "accept tcp *:*"], 80, false),
        (&["reject tcp *:80", "accept tcp *:*"], 81, true),
        (&["reject tcp 10.0.0.0/8:*", "accept tcp *:80"], 80, true),
        (&["reject tcp private:*", "accept tcp *:80"], 80, true),
        (&["reject tcp 0.0.0.0/0:*", "accept tcp *:80"], 80, true),
        (&["reject tcp 0.0.0.0/0:*", "accept tcp 1.2.3.4:80"], 80, false),
        (&["reject tcp 0.0.0.0/0:*", "reject tcp [::]/0:*", "accept tcp *:80"], 80, false),
        (&["accept tcp 127.0.0.0/8:*"], 80, true),
    ] {
        assert_eq!(policy(rules).may_allow(Tcp, None, port), worth_asking, "{rules:?} {port}");
    }
    assert!(!policy(&["accept tcp 1.2.3.4:80"]).may_allow(Tcp, Some(ip("1.2.3.5")), 80));
    assert!(!policy(&["accept * *:80"]).may_allow(Mesh, None, 80));
}

#[test]
fn a_wrong_rule_is_named_with_what_is_wrong() {
    assert_eq!(problem("accept tcp"), RuleError::Words);
    assert_eq!(problem(""), RuleError::Words);
    assert_eq!(problem("accept tcp *:80 # web"), RuleError::Words);
    assert_eq!(problem("allow tcp *:80"), RuleError::Verdict("allow".into()));
    assert_eq!(problem("accept tpc *:80"), RuleError::Protocol("tpc".into()));
    let second = ExitPolicy::parse(&["accept tcp *:80", "accept tcp *:eighty"]).unwrap_err();
    assert_eq!(
        second.to_string(),
        "rule 2, \"accept tcp *:eighty\": \"eighty\" is no port: *, or a list like 80,443,8000-8999 within 1 to 65535 is expected"
    );
    assert_eq!(ExitPolicy::parse::<&str>(&[]), Err(PolicyError::Empty));
}

#[test]
fn wrong_patterns_are_told_apart() {
    let wrong = |text: &str| text.parse::<Pattern>().unwrap_err();
    for text in ["10.0.0.1", "*", "private", "[2001:db8::1]"] {
        assert!(matches!(wrong(text), PatternError::NoPorts(_)), "{text}");
    }
    for text in ["2001:db8::1:443", "::1", "::/0"] {
        assert!(matches!(wrong(text), PatternError::Brackets(_)), "{text}");
    }
    for text in [
        "10.0.0.0/33:80",
        "10.0.0/8:80",
        "example.org:80",
        "[10.0.0.0]/8:80",
        "[::1:80",
        "10.0.0.0/:80",
        "10.0.0.0/+8:80",
        "/8:80",
    ] {
        assert!(matches!(wrong(text), PatternError::Net(_)), "{text}: {:?}", wrong(text));
    }
    for text in ["*:0", "*:65536", "*:", "*:80-", "*:90-80", "*:80,,81", "*:+80", "*:80 ", "*:-1", "*:0-5"] {
        assert!(matches!(wrong(text), PatternError::Port(_)), "{text}");
    }
    assert_eq!(wrong("10.1.2.3/8:80"), PatternError::HostBits("10.1.2.3/8".into(), "10.0.0.0/8".parse().unwrap()));
    assert!(matches!(wrong("[::ffff:10.0.0.0]/104:80"), PatternError::Mapped(_)));
}

#[test]
fn text_is_shown_as_it_would_be_written() {
    let rules = ["accept tcp *:80,443", "reject * private:*", "accept udp [2001:db8::]/32:1000-2000", "accept tcp 9.9.9.9/32:*"];
    assert_eq!(policy(&rules).to_string(), rules.join("\n"));
    assert_eq!(policy(&["accept tcp *:443,80,81-90,85-100"]).to_string(), "accept tcp *:80-100,443");
    assert_eq!(policy(&["accept tcp 2001:db8::/32:1-65535"]).to_string(), "accept tcp [2001:db8::]/32:*");
}

#[test]
fn the_compiled_form_is_the_documented_one() {
    assert_eq!(policy(&["accept * *:*"]).compile(), [0x80]);
    assert_eq!(policy(&["reject tcp 10.0.0.0/8:*"]).compile(), [0x28, 8, 10]);
    assert_eq!(policy(&["accept udp private:53"]).compile(), [0xd9, 0, 53, 0, 53]);
    let v6 = [0xb2, 33, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 80, 0, 80, 1, 0xbb, 1, 0xbb];
    assert_eq!(policy(&["accept tcp [2001:db8::]/33:80,443"]).compile(), v6);
}

#[test]
fn more_than_seven_port_ranges_become_several_rules() {
    let policy = policy(&["accept tcp *:1,3,5,7,9,11,13,15,17", "reject tcp *:*"]);
    assert!([1, 13, 15, 17].iter().all(|port| policy.allows(Tcp, ip("8.8.8.8"), *port)));
    assert!(!policy.allows(Tcp, ip("8.8.8.8"), 2));
    assert_eq!(ExitPolicy::decode(&policy.compile()), Ok(policy));
}

#[test]
fn a_policy_that_does_not_fit_a_bottle_is_refused() {
    let rules: Vec<String> = (1..=60).map(|net| format!("accept tcp {net}.0.0.0/8:80")).collect();
    assert!(matches!(ExitPolicy::parse(&rules), Err(PolicyError::TooLong(420))));
    assert!(ExitPolicy::parse(&rules[..36]).is_ok());
    assert!(matches!(ExitPolicy::decode(&[0x80; 257]), Err(PolicyError::TooLong(257))));
    assert!(ExitPolicy::decode(&[0x80; 256]).is_ok());
}

#[test]
fn compiled_policies_have_one_form() {
    for (bytes, why) in [
        (&[0xe0][..], "protocol 3"),
        (&[0x88], "no prefix length"),
        (&[0x88, 33, 1, 2, 3, 4, 5], "IPv4 prefix longer than 32"),
        (&[0x88, 8], "prefix cut"),
        (&[0x88, 8, 10, 0x88], "second rule cut"),
        (&[0x88, 7, 0xff], "host bits"),
        (&[0x90, 129, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "IPv6 prefix longer than 128"),
        (&[0x90, 255], "IPv6 prefix far longer"),
        (&[0x81, 0, 80, 0], "range cut"),
        (&[0x81, 0, 80, 0, 79], "range backwards"),
        (&[0x81, 0, 0, 0, 79], "port 0"),
        (&[0x81, 0, 1, 255, 255], "all ports as a range"),
        (&[0x82, 0, 80, 0, 80, 0, 81, 0, 81], "ranges touch"),
        (&[0x82, 0, 81, 0, 81, 0, 79, 0, 79], "ranges descend"),
        (&[0x82, 0, 80, 0, 90, 0, 85, 0, 99], "ranges overlap"),
    ] {
        assert_eq!(ExitPolicy::decode(bytes), Err(PolicyError::Malformed), "{why}");
    }
    assert_eq!(ExitPolicy::decode(&[]), Err(PolicyError::Empty));
}

proptest! {
    #[test]
    fn any_bytes_decode_to_an_error_or_to_what_compiles_to_them(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(policy) = ExitPolicy::decode(&bytes) {
            prop_assert_eq!(policy.compile(), bytes);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(accept|reject|x) (tcp|udp|\\*) [0-9a-f.:/*\\[\\],-]{0,30}") {
        if let Ok(policy) = ExitPolicy::parse(&[&text]) {
            let shown = policy.to_string();
            let lines: Vec<&str> = shown.lines().collect();
            prop_assert_eq!(ExitPolicy::parse(&lines), Ok(policy.clone()));
            prop_assert_eq!(ExitPolicy::decode(&policy.compile()), Ok(policy));
        }
    }
}

// ---- The guard ----

fn refusal(guard: &ExitGuard, destination: &str) -> Option<Refusal> {
    guard.check(destination.parse().unwrap()).err()
}

#[test]
fn the_guard_refuses_every_range_that_is_not_public() {
    let guard = ExitGuard::new(Vec::new());
    for (host, range) in [
        ("0.0.0.0", "this network"),
        ("0.1.2.3", "this network"),
        ("10.0.0.0", "private use"),
        ("10.255.255.255", "private use"),
        ("100.64.0.0", "shared address space"),
        ("100.127.255.255", "shared address space"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("169.254.169.254", "link local"),
        ("172.16.0.0", "private use"),
        ("172.31.255.255", "private use"),
        ("192.0.0.8", "protocol assignments"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4 relay"),
        ("192.168.0.1", "private use"),
        ("198.18.0.0", "benchmarking"),
        ("198.19.255.255", "benchmarking"),
        ("198.51.100.7", "documentation"),
        ("203.0.113.7", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.17.17", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.254", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "IPv4-compatible"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("::ffff:0:8.8.8.8", "not global unicast"),
        ("64:ff9b:1::8.8.8.8", "local NAT64"),
        ("100::1", "discard only"),
        ("2001:1::1", "protocol assignments"),
        ("2001:20::1", "protocol assignments"),
        ("2001:1ff::1", "protocol assignments"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("3fff:fff::1", "documentation"),
        ("4000::1", "not global unicast"),
        ("5f00::1", "not global unicast"),
        ("1fff::1", "not global unicast"),
        ("fc00::1", "unique local"),
        ("fd12:3456::1", "unique local"),
        ("fe80::1", "link local"),
        ("febf::1", "link local"),
        ("fec0::1", "not global unicast"),
        ("ff02::17", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:192.168.1.1", "private use"),
        ("64:ff9b::10.0.0.1", "private use"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("2002:7f00:1::1", "loopback"),
        ("2002:a00:1:2::3", "private use"),
        ("2001:0:c0a8:101::", "private use"),
        ("2001:0:808:808:0:0:80ff:fffe", "loopback"),
    ] {
        assert_eq!(guard.check(SocketAddr::new(ip(host), 80)), Err(Refusal::NotPublic(range)), "{host}");
    }
}

#[test]
fn the_guard_lets_public_addresses_pass() {
    let guard = ExitGuard::new(Vec::new());
    for host in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700:4700::1111",
        "2620:4f:8000::1",
        "3ffe::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2001:0:808:808:0:0:f7f7:f7f7",
    ] {
        assert_eq!(guard.check(SocketAddr::new(ip(host), 80)), Ok(()), "{host}");
    }
}

#[test]
fn port_0_is_refused() {
    assert_eq!(refusal(&ExitGuard::default(), "8.8.8.8:0"), Some(Refusal::NoPort));
}

#[test]
fn own_addresses_and_on_link_prefixes_are_refused_unless_lifted() {
    let mut guard = ExitGuard::new(vec!["9.9.9.7:80".parse().unwrap()]);
    guard.set_local([ip("9.9.9.9"), ip("2606:4700::7")], ["9.9.9.0/28".parse().unwrap(), "2606:4700::/64".parse().unwrap()]);
    assert_eq!(refusal(&guard, "9.9.9.9:80"), Some(Refusal::Own));
    assert_eq!(refusal(&guard, "[::ffff:9.9.9.9]:80"), Some(Refusal::Own));
    assert_eq!(refusal(&guard, "[64:ff9b::9.9.9.9]:80"), Some(Refusal::Own));
    assert_eq!(refusal(&guard, "[2606:4700::7]:80"), Some(Refusal::Own));
    assert_eq!(refusal(&guard, "9.9.9.8:80"), Some(Refusal::OnLink));
    assert_eq!(refusal(&guard, "[2606:4700::8]:80"), Some(Refusal::OnLink));
    assert_eq!(refusal(&guard, "9.9.9.7:80"), None);
    assert_eq!(refusal(&guard, "9.9.9.7:81"), Some(Refusal::OnLink));
    assert_eq!(refusal(&guard, "9.9.9.16:80"), None);
}

#[test]
fn danger_exit_private_lifts_what_it_names_alone() {
    let guard = ExitGuard::new(vec!["127.0.0.0/8:8000-8999".parse().unwrap()]);
    assert_eq!(refusal(&guard, "127.0.0.1:8080"), None);
    assert_eq!(refusal(&guard, "[::ffff:127.0.0.1]:8080"), None);
    assert_eq!(refusal(&guard, "127.0.0.1:80"), Some(Refusal::NotPublic("loopback")));
    assert_eq!(refusal(&guard, "[::1]:8080"), Some(Refusal::NotPublic("loopback")));
    assert_eq!(refusal(&guard, "10.0.0.1:8080"), Some(Refusal::NotPublic("private use")));
    // Lifting what is wrapped does not lift the wrapping.
    assert_eq!(refusal(&guard, "[64:ff9b:1::127.0.0.1]:8080"), Some(Refusal::NotPublic("local NAT64")));
    let all_private = ExitGuard::new(vec!["private:*".parse().unwrap()]);
    assert_eq!(refusal(&all_private, "10.0.0.1:22"), None);
}

#[test]
fn law_1_the_mesh_is_refused_whatever_is_lifted() {
    let mut guard = ExitGuard::new(vec!["*:*".parse().unwrap()]);
    guard.set_mesh(["127.0.1.3:1717".parse().unwrap(), "9.9.9.9:443".parse().unwrap(), "[2606:4700::7]:1717".parse().unwrap()]);
    for destination in [
        "127.0.1.3:1717",
        "[::ffff:127.0.1.3]:1717",
        "9.9.9.9:443",
        "[::ffff:9.9.9.9]:443",
        "[::9.9.9.9]:443",
        "[64:ff9b::9.9.9.9]:443",
        "[2002:909:909::1]:443",
        "[2606:4700::7]:1717",
        "0.0.0.0:1717",
    ] {
        assert_eq!(refusal(&guard, destination), Some(Refusal::Mesh), "{destination}");
    }
    for destination in ["127.0.1.3:1718", "127.0.1.4:1717", "9.9.9.9:80", "9.9.9.8:443", "[2606:4700::7]:443"] {
        assert_eq!(refusal(&guard, destination), None, "{destination}");
    }
}

#[test]
fn a_listener_on_all_addresses_is_refused_on_each_own_one() {
    let mut guard = ExitGuard::new(vec!["*:*".parse().unwrap()]);
    guard.set_local([ip("9.9.9.9")], []);
    guard.set_mesh(["[::]:1717".parse().unwrap()]);
    for destination in ["9.9.9.9:1717", "127.0.0.1:1717", "127.8.8.8:1717", "[::1]:1717", "0.0.0.0:1717", "[::]:1717"] {
        assert_eq!(refusal(&guard, destination), Some(Refusal::Mesh), "{destination}");
    }
    assert_eq!(refusal(&guard, "9.9.9.8:1717"), None);
    assert_eq!(refusal(&guard, "9.9.9.9:1718"), None);
}

#[test]
fn law_1_what_is_no_longer_part_of_the_mesh_is_served_again() {
    let mut guard = ExitGuard::default();
    guard.set_mesh(["9.9.9.9:443".parse().unwrap()]);
    assert_eq!(refusal(&guard, "9.9.9.9:443"), Some(Refusal::Mesh));
    guard.set_mesh([]);
    assert_eq!(refusal(&guard, "9.9.9.9:443"), None);
}
