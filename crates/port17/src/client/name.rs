//! Host names and targets as applications write them, made into the one form that travels.

use std::net::{IpAddr, Ipv6Addr};

use super::tunnel::{Host, Target};

/// Longest name in its textual form without the trailing dot (RFC 1035, 2.3.4).
const NAME_CHARS: usize = 253;
/// Longest label.
const LABEL_CHARS: usize = 63;

/// Why a name is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters.
    #[error("the host name is empty")]
    Empty,
    /// The name or a label is too long, or a label is empty.
    #[error("a host name has at most 253 characters, and 1 to 63 between its dots")]
    Length,
    /// A character that no name has.
    #[error("a host name has the characters a-z, 0-9, '-', '_' and '.' only; international names are given as xn--…")]
    Character,
    /// It looks like an address and is none.
    #[error("this looks like an IP address but is none")]
    Number,
    /// Nothing can be reached at port 0.
    #[error("the port must be 1 to 65535")]
    Port,
}

/// Lower-cases a name, removes one trailing dot, and checks it.
///
/// # Errors
/// When it is not a name that the DNS could hold, or has a last label made of a number (an address in a form that some resolvers
/// read and others do not).
pub fn parse(text: &str) -> Result<String, NameError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_CHARS {
        return Err(NameError::Length);
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.bytes().all(known) {
        return Err(NameError::Character);
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > LABEL_CHARS) {
        return Err(NameError::Length);
    }
    let name = name.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || is_hexadecimal(last) {
        return Err(NameError::Number);
    }
    Ok(name)
}

fn is_hexadecimal(label: &str) -> bool {
    label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A target from an application's host text: an IP literal, plain or in brackets, is an address; else it is a name.
///
/// # Errors
/// See [`parse`]; also for port 0.
pub fn target(host: &str, port: u16) -> Result<Target, NameError> {
    if port == 0 {
        return Err(NameError::Port);
    }
    Ok(Target { host: parse_host(host)?, port })
}

fn parse_host(text: &str) -> Result<Host, NameError> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().map(|ip| Host::Ip(ip.into())).map_err(|_| NameError::Number);
    }
    if let Ok(ip) = text.strip_suffix('.').unwrap_or(text).parse::<IpAddr>() {
        return Ok(Host::Ip(ip));
    }
    parse(text).map(Host::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_cased_and_lose_the_trailing_dot() {
        assert_eq!(parse("Example.COM."), Ok("example.com".into()));
        assert_eq!(parse("_sip._tcp.a-b.xn--bcher-kva.example"), Ok("_sip._tcp.a-b.xn--bcher-kva.example".into()));
        assert_eq!(parse("localhost"), Ok("localhost".into()));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = ["a".repeat(63), "a".repeat(63), "a".repeat(63), "a".repeat(62)].join(".");
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("a..b", NameError::Length),
            (".a", NameError::Length),
            ("a..", NameError::Length),
            (long_label.as_str(), NameError::Length),
            (long_name.as_str(), NameError::Length),
            ("bücher.example", NameError::Character),
            ("a b", NameError::Character),
            ("a\0b", NameError::Character),
            ("a/b", NameError::Character),
            ("a:80", NameError::Character),
            ("fe80::1%eth0", NameError::Character),
            ("127.1", NameError::Number),
            ("2130706433", NameError::Number),
            ("1.2.3.4.5", NameError::Number),
            ("999.1.1.1", NameError::Number),
            ("0x7f000001", NameError::Number),
            ("0x", NameError::Number),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
        assert_eq!(long_name.len(), 254);
        assert!(parse(&long_name[1..]).is_ok(), "253 characters are allowed");
    }

    #[test]
    fn names_that_are_ip_literals_become_addresses() {
        for (text, ip) in
            [("127.0.0.1", "127.0.0.1"), ("10.0.0.1.", "10.0.0.1"), ("::1", "::1"), ("[2001:db8::1]", "2001:db8::1")]
        {
            assert_eq!(target(text, 1), Ok(Target { host: Host::Ip(ip.parse().unwrap()), port: 1 }), "{text:?}");
        }
        assert_eq!(target("[127.0.0.1]", 1), Err(NameError::Number));
        assert_eq!(target("[x]", 1), Err(NameError::Number));
        assert_eq!(target("a.example", 0), Err(NameError::Port));
    }
}
