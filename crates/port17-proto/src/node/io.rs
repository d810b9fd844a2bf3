//! What goes into the engine and what comes out.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::guard::GuardSet;
use super::record::RecordKey;
use crate::bottle::Seq;
use crate::circuit::keyring::{CircuitKey, KeyId};
use crate::crypto::VerifyingKey;
use crate::ids::NodeId;
use crate::wire::message::{LaneSlot, LinkId, RawMessage};
use crate::wire::registry::GoAwayReason;

/// A transport connection, numbered by the driver, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// A dial that the engine asked for, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// Who is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A node, proven by the link key in its Bottle.
    Node(NodeId),
    /// A client; all that is known of it is the name it drew for this link.
    Client(LinkId),
}

impl Peer {
    /// The node, none for a client.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(*node),
            Self::Client(_) => None,
        }
    }
}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A lane's TLS handshake is complete.
    LaneUp {
        /// The lane.
        lane: LaneId,
        /// The dial that it answers, none if the peer dialled.
        dialled: Option<DialId>,
        /// The peer's raw public key, which TLS has proven.
        peer_key: VerifyingKey,
        /// The peer's address: counted, never logged.
        remote: IpAddr,
    },
    /// A message of the control stream came. After passing on the first one the lane's reader takes no further frame until
    /// [`Output::AdmitLane`] or [`Output::Close`]: what follows a HELLO may already be a circuit's. [`Output::HearLane`] lets it pass
    /// on one more.
    Control {
        /// The lane it came on.
        lane: LaneId,
        /// It came as an urgent frame.
        urgent: bool,
        /// The message.
        message: RawMessage,
    },
    /// A lane is gone: closed by the peer or the network. Also the answer to [`Output::Close`], then without effect.
    LaneDown {
        /// The lane.
        lane: LaneId,
        /// What the driver saw.
        why: LaneLoss,
    },
    /// A dial led to no lane.
    DialFailed {
        /// The dial.
        dial: DialId,
        /// What went wrong, at the address that came farthest.
        why: DialFailure,
    },
    /// The peer broke the protocol in a way that the lane itself saw: the lane is to be closed.
    Violation {
        /// The lane.
        lane: LaneId,
        /// The rule, as a fixed word for logs and counters.
        what: &'static str,
    },
    /// The bytes of a Bottle that the operator put into the directory of Bottles: trusted.
    Bottle(Vec<u8>),
    /// The bytes of a tombstone that the operator has signed: told to all.
    Tombstone(Vec<u8>),
    /// The bytes of a signed list, from a file or a server.
    List(Vec<u8>),
    /// [`Output::StoreSeq`] is done: it survives a crash.
    SeqStored(Seq),
    /// [`Output::StoreSeq`] has failed.
    SeqNotStored(Seq),
    /// No stream flows over the link to this guard; the answer to [`Output::LeaveGuard`].
    GuardIdle(NodeId),
    /// A deadline may have passed.
    Tick,
    /// The daemon stops: close everything. The last output is [`Output::Stopped`].
    Shutdown,
}

/// Why a lane is gone, as the driver sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneLoss {
    /// The peer closed it.
    Closed,
    /// The connection broke: reset, TLS error, write error.
    Broken,
    /// This side closed it: the peer did not read what was queued for it, or the driver had no room.
    Overrun,
}

/// Why a dial failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody listens there.
    Refused,
    /// There is no way there.
    Unreachable,
    /// Nobody answered in time.
    Timeout,
    /// The peer showed another key than its Bottle names.
    WrongKey,
    /// TLS found no agreement.
    Tls,
    /// This machine has no socket left or may not use one.
    Local,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "nobody listens at its address",
            Self::Unreachable => "its address cannot be reached",
            Self::Timeout => "its address does not answer",
            Self::WrongKey => "another key than in its Bottle answers at its address",
            Self::Tls => "the TLS handshake failed",
            Self::Local => "this machine could not open a socket",
        })
    }
}

/// Which TLS key the dialler shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownKey {
    /// The node's link key.
    Link,
    /// A new key for this connection alone: a client's.
    ThrowAway,
}

/// Why the engine wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is planned: only an input can change anything.
    Nothing,
    /// A Bottle is to be published, or its seq to be stored again.
    Bottle,
    /// A circuit key is to be made or erased.
    CircuitKey,
    /// A link's loss is to be published.
    LinkLoss,
    /// A guard is to be drawn, or another one to be used.
    Guard,
    /// Links are to be chosen or published.
    Link,
    /// A dial may have failed or is to be tried again.
    Dial,
    /// A handshake may be late.
    Handshake,
    /// A PING is to be sent or a PONG may be late.
    Ping,
    /// Old Bottles are to be dropped.
    Bottlerack,
    /// A piece of a list may be late.
    List,
    /// New Bottles are to be announced, or asked for.
    Gossip,
    /// A neighbour is to be told what is held.
    Repair,
    /// An answer may be late.
    Answer,
    /// The engine has stopped.
    Stopped,
}

/// Something to do.
pub enum Output {
    /// Make a lane. Answered by `LaneUp` or `DialFailed`.
    Dial {
        /// Names the answer.
        dial: DialId,
        /// Who it goes to.
        node: NodeId,
        /// Where, in the order of trying; TLS over TCP.
        addresses: Vec<SocketAddr>,
        /// The peer's raw public key must be one of these.
        expected: Vec<VerifyingKey>,
        /// What to show.
        show: ShownKey,
    },
    /// A dial is not wanted any more. No answer is expected; a late one is ignored and its lane closed.
    CancelDial(DialId),
    /// Send a message.
    Send {
        /// The lane.
        lane: LaneId,
        /// As one urgent frame, else in pieces of the lane's message stream.
        urgent: bool,
        /// The encoded message.
        message: Vec<u8>,
    },
    /// Send what is queued urgent, then close the lane.
    Close {
        /// The lane.
        lane: LaneId,
    },
    /// The lane's reader passes on the next message of the control stream too, then waits again.
    HearLane {
        /// The lane.
        lane: LaneId,
    },
    /// From now on frames of circuits are allowed on the lane, both ways.
    AdmitLane {
        /// The lane.
        lane: LaneId,
        /// Whose it is.
        peer: Peer,
        /// Which of the link's lanes.
        slot: LaneSlot,
        /// This side dialled it, so its own circuit ids are odd.
        dialled: bool,
        /// Circuits that the peer lets this side open on it.
        circuits: u32,
    },
    /// A link has these lanes now. Comes again when they change.
    LinkUp {
        /// The other end.
        peer: Peer,
        /// Its lanes, at least one.
        lanes: Vec<LaneId>,
    },
    /// A link has no lane any more.
    LinkDown {
        /// The other end.
        peer: Peer,
    },
    /// The smoothed round trip of a lane.
    LaneRtt {
        /// The lane.
        lane: LaneId,
        /// The round trip.
        rtt: Duration,
    },
    /// Store this sequence number so that it survives a crash, then say `SeqStored`. Nothing is published before.
    StoreSeq(Seq),
    /// Keep this record over restarts, in place of an older one with the same key. Soon is enough: what is lost comes again.
    Save(RecordKey, Vec<u8>),
    /// Drop this record.
    Forget(RecordKey),
    /// Publish the node's own Bottle.
    PublishBottle {
        /// Its sequence number.
        seq: Seq,
        /// The envelope.
        bytes: Vec<u8>,
    },
    /// Install a circuit key before anything that follows. It is never written anywhere.
    ///
    /// The engine keeps the public half alone.
    NewCircuitKey(Arc<CircuitKey>),
    /// Erase a circuit key and its replay cache, whatever the system's clock says.
    EraseCircuitKey(KeyId),
    /// The Bottlerack has a new Bottle of this node, or dropped its last: maps are to be made anew.
    BottlerackChanged(NodeId),
    /// The client's guards, which of them is used, or what is pinned with one has changed.
    Guards(GuardSet),
    /// Another guard is used in the place of this one, and has been for a while. Say [`Input::GuardIdle`] if no stream flows over its
    /// link: then it is closed. Else nothing: it comes again.
    LeaveGuard(NodeId),
    /// A newer signed list is in force; its record was given out before. The engine goes by its parameters from now on.
    ListAccepted {
        /// Its sequence number.
        seq: u64,
    },
    /// A list was refused, in words for the log that say what to do.
    ListRefused(String),
    /// Something was refused or went wrong; the numbers are in the status as well.
    Counted(Counted),
    /// Shutdown is complete.
    Stopped,
    /// Nothing more to do before this deadline (on the clock of `Time::mono`) or the next input.
    Wait {
        /// None: only an input can change anything.
        until: Option<Duration>,
        /// What the deadline is for.
        reason: Reason,
    },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial { dial, node, show, .. } => write!(f, "Dial({dial:?}, {node:?}, {show:?})"),
            Self::CancelDial(dial) => write!(f, "CancelDial({dial:?})"),
            Self::Send { lane, urgent, message } => write!(f, "Send({lane:?}, urgent {urgent}, {} bytes)", message.len()),
            Self::Close { lane } => write!(f, "Close({lane:?})"),
            Self::HearLane { lane } => write!(f, "HearLane({lane:?})"),
            Self::AdmitLane { lane, peer, slot, .. } => write!(f, "AdmitLane({lane:?}, {peer:?}, {slot:?})"),
            Self::LinkUp { peer, lanes } => write!(f, "LinkUp({peer:?}, {lanes:?})"),
            Self::LinkDown { peer } => write!(f, "LinkDown({peer:?})"),
            Self::LaneRtt { lane, rtt } => write!(f, "LaneRtt({lane:?}, {rtt:?})"),
            Self::StoreSeq(seq) => write!(f, "StoreSeq({seq:?})"),
            Self::PublishBottle { seq, bytes } => write!(f, "PublishBottle({seq:?}, {} bytes)", bytes.len()),
            Self::Save(key, bytes) => write!(f, "Save({key:?}, {} bytes)", bytes.len()),
            Self::Forget(key) => write!(f, "Forget({key:?})"),
            Self::NewCircuitKey(key) => write!(f, "NewCircuitKey({:?})", key.id()),
            Self::EraseCircuitKey(key) => write!(f, "EraseCircuitKey({key:?})"),
            Self::BottlerackChanged(node) => write!(f, "BottlerackChanged({node:?})"),
            Self::Guards(set) => write!(f, "Guards({set:?})"),
            Self::ListAccepted { seq } => write!(f, "ListAccepted({seq})"),
            Self::ListRefused(why) => write!(f, "ListRefused({why})"),
            Self::Counted(what) => write!(f, "Counted({what:?})"),
            Self::Stopped => f.write_str("Stopped"),
            Self::LeaveGuard(node) => write!(f, "LeaveGuard({node:?})"),
            Self::Wait { until, reason } => write!(f, "Wait({until:?}, {reason:?})"),
        }
    }
}

/// What is counted: each refusal and each fault has its own number, so that no one is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// A Bottle that is malformed, badly signed, too new or expired.
    BottleRefused,
    /// A Bottle older than the one held.
    BottleOlder,
    /// Two valid Bottles of one node with one seq.
    BottleEquivocation,
    /// No room for another Bottle.
    BottlerackFull,
    /// A list that is not valid here.
    ListRefused,
    /// A list older than the one in force.
    ListOlder,
    /// A list with the sequence number of the one in force and another content.
    ListTwin,
    /// A piece of a list did not come in time.
    ListLate,
    /// The seq could not be stored.
    SeqNotStored,
    /// The own Bottle could not be signed.
    BottleNotMade,
    /// No circuit key could be made.
    NoCircuitKey,
    /// A dial failed.
    DialFailed,
    /// A lane came too late for its HELLO.
    HandshakeTimeout,
    /// A PONG did not come.
    PingTimeout,
    /// A node's key that belongs to no neighbour.
    Stranger,
    /// A lane of a link that is not there.
    NoSuchLink,
    /// A lane that another one replaces.
    Duplicate,
    /// A client where none is accepted.
    ClientRefused,
    /// No place for another client, in all or from its address.
    ClientsFull,
    /// No place for another node's link.
    LinksFull,
    /// No place for another lane before HELLO.
    UnadmittedFull,
    /// No protocol version in common.
    Version,
    /// A control message that is malformed.
    Malformed,
    /// A control message where it must not come: HELLO twice, another before it, an answer to nothing, a HELLO that does not fit.
    OutOfPlace,
    /// The lane saw the protocol broken.
    Violation,
    /// A message of a later version was skipped.
    Skipped,
    /// A peer of another network.
    Network,
    /// A node publishes more often than is allowed.
    BottleTooOften,
    /// A Bottle of a node that has left.
    BottleBuried,
    /// A Bottle that was offered and did not come when it was asked for.
    BottleOmitted,
    /// Another node holds the name.
    NameTaken,
    /// A tombstone that is too old, ahead, or without a place.
    TombstoneRefused,
    /// A stored record that does not hold what it should.
    RecordDamaged,
    /// An answer did not come in time.
    AnswerTimeout,
    /// More gossip than the rate allows.
    TooMuchGossip,
}

impl Counted {
    /// The word for status and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BottleRefused => "bottle-refused",
            Self::BottleOlder => "bottle-older",
            Self::BottleEquivocation => "bottle-equivocation",
            Self::BottlerackFull => "bottlerack-full",
            Self::ListRefused => "list-refused",
            Self::ListOlder => "list-older",
            Self::ListTwin => "list-twin",
            Self::ListLate => "list-late",
            Self::SeqNotStored => "seq-not-stored",
            Self::BottleNotMade => "bottle-not-made",
            Self::NoCircuitKey => "no-circuit-key",
            Self::DialFailed => "dial-failed",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::PingTimeout => "ping-timeout",
            Self::Stranger => "stranger",
            Self::NoSuchLink => "no-such-link",
            Self::Duplicate => "duplicate",
            Self::ClientRefused => "client-refused",
            Self::ClientsFull => "clients-full",
            Self::LinksFull => "links-full",
            Self::UnadmittedFull => "unadmitted-full",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::OutOfPlace => "out-of-place",
            Self::Violation => "violation",
            Self::Skipped => "skipped",
            Self::Network => "other-network",
            Self::BottleTooOften => "bottle-too-often",
            Self::BottleBuried => "bottle-buried",
            Self::BottleOmitted => "bottle-omitted",
            Self::NameTaken => "name-taken",
            Self::TombstoneRefused => "tombstone-refused",
            Self::RecordDamaged => "record-damaged",
            Self::AnswerTimeout => "answer-timeout",
            Self::TooMuchGossip => "too-much-gossip",
        }
    }
}

/// Why a link is down, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownReason {
    /// Its Bottle is not known yet.
    NoBottle,
    /// Its Bottle has no address that may be dialled, and it does not dial either.
    NoAddress,
    /// The link key in its Bottle has ended.
    NoKey,
    /// It is the other side's turn to dial.
    TheyDial,
    /// A dial is under way.
    Dialling,
    /// The last dial failed.
    DialFailed(DialFailure),
    /// The last lane was lost.
    LaneLost(LaneLoss),
    /// The peer closed the last lane and said why.
    SentAway(GoAwayReason),
    /// The peer did not answer HELLO or PING in time.
    Silent,
    /// The peer broke the protocol.
    Broke(&'static str),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBottle => f.write_str("its Bottle is not known"),
            Self::NoAddress => f.write_str("its Bottle has no address that the parameters allow to dial"),
            Self::NoKey => f.write_str("the link key in its Bottle has ended, and no newer Bottle has come"),
            Self::TheyDial => f.write_str("it has to dial and has not yet"),
            Self::Dialling => f.write_str("being dialled"),
            Self::DialFailed(why) => why.fmt(f),
            Self::LaneLost(LaneLoss::Closed) => f.write_str("it closed the connection"),
            Self::LaneLost(LaneLoss::Broken) => f.write_str("the connection broke"),
            Self::LaneLost(LaneLoss::Overrun) => f.write_str("it did not read what was sent"),
            Self::SentAway(GoAwayReason::Shutdown) => f.write_str("it stopped"),
            Self::SentAway(GoAwayReason::Duplicate) => f.write_str("another connection replaced this one"),
            Self::SentAway(GoAwayReason::Full) => f.write_str("it has no place for this link"),
            Self::SentAway(GoAwayReason::Stranger) => {
                f.write_str("it does not know this node as its neighbour, or does not take its Bottle")
            }
            Self::SentAway(GoAwayReason::Protocol) => f.write_str("it says that this side broke the protocol"),
            Self::SentAway(GoAwayReason::Version) => f.write_str("no protocol version in common"),
            Self::SentAway(GoAwayReason::Network) => f.write_str("it belongs to another network"),
            Self::Silent => f.write_str("it did not answer in time"),
            Self::Broke(what) => write!(f, "it broke the protocol: {what}"),
        }
    }
}
