//! What an exit opens (spec 07): the operator's policy, and in front of it what no policy can allow.
//!
//! An [`ExitPolicy`] is an ordered list of rules; the first that matches decides, and what no rule matches is rejected. It stands in
//! the Bottle in compiled form, so that clients can choose an exit that will serve them. The [`ExitGuard`] is the node's own: it
//! refuses the mesh itself (law 1), the node's own addresses and every range that is not public.
//!
//! Both look at an address and at every IPv4 address that it wraps: a route around a rule must not lead through a translation prefix.
//!
//! Compiled form (spec 07, 2): rules one after the other, at least one, at most 256 bytes in all. A rule is
//!
//! ```text
//! head u8     bit 7      1 accept, 0 reject
//!             bits 6..5  protocol: 0 any, 1 TCP, 2 UDP
//!             bits 4..3  addresses: 0 all, 1 an IPv4 prefix, 2 an IPv6 prefix, 3 all that are not public
//!             bits 2..0  n, the number of port ranges; 0: all ports
//! prefix      for addresses 1 and 2: length u8 (0..=32 or 0..=128), then ⌈length / 8⌉ bytes; bits past the length are 0
//! n ranges    each: first u16, last u16, big-endian; 1 <= first <= last; the next first is at least this last + 2;
//!             not the one range 1..65535, which is n = 0
//! ```

mod guard;
mod pattern;
mod special;

use std::fmt;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::limits::EXIT_POLICY_BYTES;
use crate::wire::registry::{
    POLICY_ACCEPT, POLICY_NET_SHIFT, POLICY_PORTS_MASK, POLICY_PROTOCOL_SHIFT, PolicyNet, StreamProtocol,
};

pub use guard::{ExitGuard, Refusal};
pub use pattern::{Net, Pattern, PatternError, Ports};
pub use special::special_purpose;

/// Whether an address is public in each form that it has: as it is, and unwrapped where it holds an IPv4 address.
pub fn is_public(ip: IpAddr) -> bool {
    special::forms(ip).all(|form| special_purpose(form).is_none())
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Open it.
    Accept,
    /// Do not.
    Reject,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    verdict: Verdict,
    /// None for any.
    protocol: Option<StreamProtocol>,
    pattern: Pattern,
}

/// An exit policy: at least one rule, and its compiled form fits a Bottle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitPolicy {
    rules: Vec<Rule>,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not three words.
    #[error("three words are expected: accept|reject tcp|udp|* RANGE:PORTS")]
    Words,
    /// The first word.
    #[error("\"{0}\" is no verdict: accept or reject is expected")]
    Verdict(String),
    /// The second word.
    #[error("\"{0}\" is no protocol: tcp, udp or * is expected")]
    Protocol(String),
    /// The third word.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule cannot be read.
    #[error("rule {number}, \"{rule}\": {problem}")]
    Rule {
        /// Which one, from 1.
        number: usize,
        /// Its text.
        rule: String,
        /// What is wrong with it.
        problem: RuleError,
    },
    /// No rules: to be no exit, have no policy.
    #[error("an exit policy has at least one rule")]
    Empty,
    /// It does not fit a Bottle.
    #[error("the policy takes {0} bytes, {EXIT_POLICY_BYTES} are allowed: use fewer rules or port ranges")]
    TooLong(usize),
    /// The bytes are not a compiled policy.
    #[error("not a compiled exit policy")]
    Malformed,
}

impl ExitPolicy {
    /// Reads rules `accept|reject tcp|udp|* RANGE:PORTS`, RANGE being `*`, `private`, an address or a prefix, and PORTS `*` or a list
    /// of ports and ranges like `80,443,8000-8999` (spec 07, 1).
    ///
    /// # Errors
    /// Which rule is wrong, and how.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, PolicyError> {
        let mut rules = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let text = text.as_ref();
            let rule = parse_rule(text).map_err(|problem| PolicyError::Rule {
                number: index + 1,
                rule: text.chars().take(100).collect(),
                problem,
            })?;
            rules.extend(split_ports(rule));
        }
        if rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        let policy = Self { rules };
        let length = policy.compile().len();
        if length > EXIT_POLICY_BYTES { Err(PolicyError::TooLong(length)) } else { Ok(policy) }
    }

    /// The form that stands in the Bottle.
    pub fn compile(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for rule in &self.rules {
            compile_rule(rule, &mut out);
        }
        out
    }

    /// Reads the compiled form. What it accepts compiles to the same bytes.
    ///
    /// # Errors
    /// `Empty`, `TooLong` or `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.is_empty() {
            return Err(PolicyError::Empty);
        }
        if bytes.len() > EXIT_POLICY_BYTES {
            return Err(PolicyError::TooLong(bytes.len()));
        }
        let mut rest = bytes;
        let mut rules = Vec::new();
        while !rest.is_empty() {
            rules.push(decode_rule(&mut rest).ok_or(PolicyError::Malformed)?);
        }
        Ok(Self { rules })
    }

    /// Whether a stream of `protocol` to `ip` and `port` is opened, as far as the policy goes. An address that wraps others is
    /// allowed only where those are allowed too.
    pub fn allows(&self, protocol: StreamProtocol, ip: IpAddr, port: u16) -> bool {
        special::forms(ip).all(|form| self.first_match(protocol, form, port) == Verdict::Accept)
    }

    /// Whether it is worth asking this exit: for an address what [`Self::allows`] says, for a name whether any address of it could
    /// be allowed.
    pub fn may_allow(&self, protocol: StreamProtocol, host: Option<IpAddr>, port: u16) -> bool {
        match host {
            Some(ip) => self.allows(protocol, ip, port),
            None => self.may_allow_some(protocol, port),
        }
    }

    fn first_match(&self, protocol: StreamProtocol, ip: IpAddr, port: u16) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.serves(protocol) && rule.pattern.matches(ip, port));
        rule.map_or(Verdict::Reject, |rule| rule.verdict)
    }

    fn may_allow_some(&self, protocol: StreamProtocol, port: u16) -> bool {
        let (mut v4_is_shut, mut v6_is_shut) = (false, false);
        for rule in self.rules.iter().filter(|rule| rule.serves(protocol) && rule.pattern.ports.contains(port)) {
            let (all_v4, all_v6) = (rule.pattern.net.holds_all_v4(), rule.pattern.net.holds_all_v6());
            match rule.verdict {
                Verdict::Reject => {
                    v4_is_shut |= all_v4;
                    v6_is_shut |= all_v6;
                }
                Verdict::Accept => {
                    let open = match rule.pattern.net {
                        Net::V4(_) => !v4_is_shut,
                        Net::V6(_) => !v6_is_shut,
                        Net::Any | Net::Private => !(v4_is_shut && v6_is_shut),
                    };
                    if open {
                        return true;
                    }
                }
            }
        }
        false
    }
}

impl Rule {
    /// Policies are about TCP and UDP; the node's mesh service is no exit's business.
    fn serves(&self, protocol: StreamProtocol) -> bool {
        match protocol {
            StreamProtocol::Tcp | StreamProtocol::Udp => self.protocol.is_none_or(|own| own == protocol),
            StreamProtocol::Mesh => false,
        }
    }
}

fn parse_rule(text: &str) -> Result<Rule, RuleError> {
    let mut words = text.split_whitespace();
    let (Some(verdict), Some(protocol), Some(pattern), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(RuleError::Words);
    };
    let verdict = match verdict {
        "accept" => Verdict::Accept,
        "reject" => Verdict::Reject,
        other => return Err(RuleError::Verdict(other.to_owned())),
    };
    let protocol = match protocol {
        "tcp" => Some(StreamProtocol::Tcp),
        "udp" => Some(StreamProtocol::Udp),
        "*" => None,
        other => return Err(RuleError::Protocol(other.to_owned())),
    };
    Ok(Rule { verdict, protocol, pattern: pattern.parse()? })
}

/// A compiled rule counts its ranges in three bits; a rule with more becomes several with the same verdict.
fn split_ports(rule: Rule) -> Vec<Rule> {
    let Rule { verdict, protocol, pattern } = rule;
    let parts = pattern.ports.split(usize::from(POLICY_PORTS_MASK));
    parts.into_iter().map(|ports| Rule { verdict, protocol, pattern: Pattern { net: pattern.net, ports } }).collect()
}

fn compile_rule(rule: &Rule, out: &mut Vec<u8>) {
    let verdict = match rule.verdict {
        Verdict::Accept => POLICY_ACCEPT,
        Verdict::Reject => 0,
    };
    let protocol = rule.protocol.map_or(0, StreamProtocol::code) << POLICY_PROTOCOL_SHIFT;
    let kind = match rule.pattern.net {
        Net::Any => PolicyNet::Any,
        Net::V4(_) => PolicyNet::V4,
        Net::V6(_) => PolicyNet::V6,
        Net::Private => PolicyNet::Private,
    };
    let ranges = rule.pattern.ports.listed();
    // At most seven: decoded so, or split so.
    let count = ranges.len().to_be_bytes()[size_of::<usize>() - 1] & POLICY_PORTS_MASK;
    out.push(verdict | protocol | (kind.code() << POLICY_NET_SHIFT) | count);
    match rule.pattern.net {
        Net::V4(net) => compile_prefix(net.prefix_len(), &net.network().octets(), out),
        Net::V6(net) => compile_prefix(net.prefix_len(), &net.network().octets(), out),
        Net::Any | Net::Private => {}
    }
    for (first, last) in ranges {
        out.extend(first.to_be_bytes());
        out.extend(last.to_be_bytes());
    }
}

fn compile_prefix(length: u8, address: &[u8], out: &mut Vec<u8>) {
    out.push(length);
    out.extend_from_slice(&address[..usize::from(length).div_ceil(8)]);
}

fn decode_rule(rest: &mut &[u8]) -> Option<Rule> {
    let head = take_u8(rest)?;
    let verdict = if head & POLICY_ACCEPT != 0 { Verdict::Accept } else { Verdict::Reject };
    let protocol = match (head >> POLICY_PROTOCOL_SHIFT) & 3 {
        0 => None,
        code => Some(StreamProtocol::from_code(code).filter(|protocol| *protocol != StreamProtocol::Mesh)?),
    };
    let net = match PolicyNet::from_code((head >> POLICY_NET_SHIFT) & 3)? {
        PolicyNet::Any => Net::Any,
        PolicyNet::V4 => {
            let (length, octets) = take_prefix::<4>(rest)?;
            Net::V4(Ipv4Net::new(octets.into(), length).ok().filter(|net| net.trunc() == *net)?)
        }
        PolicyNet::V6 => {
            let (length, octets) = take_prefix::<16>(rest)?;
            Net::V6(Ipv6Net::new(octets.into(), length).ok().filter(|net| net.trunc() == *net)?)
        }
        PolicyNet::Private => Net::Private,
    };
    let mut ranges = Vec::new();
    for _ in 0..head & POLICY_PORTS_MASK {
        ranges.push((take_u16(rest)?, take_u16(rest)?));
    }
    let ports = Ports::from_listed(ranges)?;
    Some(Rule { verdict, protocol, pattern: Pattern { net, ports } })
}

fn take_prefix<const N: usize>(rest: &mut &[u8]) -> Option<(u8, [u8; N])> {
    let length = take_u8(rest)?;
    let (bytes, after) = rest.split_at_checked(usize::from(length).div_ceil(8))?;
    *rest = after;
    let mut octets = [0; N];
    octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some((length, octets))
}

fn take_u8(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (bytes, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*bytes))
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Accept => "accept",
            Verdict::Reject => "reject",
        };
        let protocol = match self.protocol {
            Some(StreamProtocol::Tcp) => "tcp",
            Some(StreamProtocol::Udp) => "udp",
            // Rules are about TCP and UDP alone.
            Some(StreamProtocol::Mesh) | None => "*",
        };
        write!(f, "{verdict} {protocol} {}", self.pattern)
    }
}

/// The rules as text, one a line.
impl fmt::Display for ExitPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{rule}")?;
        }
        Ok(())
    }
}
