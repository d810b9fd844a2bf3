//! Every number that goes over the wire, once (law 10). The tables of spec 01 list the same numbers; a test compares the two.

macro_rules! registry {
    ($(#[$meta:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$item])* $variant = $code,)+ }

        impl $name {
            /// All of them, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The meaning of a number, none for one that is not assigned.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

registry! {
    /// What a frame carries (spec 05, 2).
    Command {
        /// Nothing: cover.
        Padding = 0,
        /// A piece of the lane's message stream, or one urgent message.
        Control = 1,
        /// One of the four parts of a route's packet.
        Setup = 2,
        /// A hop's answer to SETUP.
        Created = 3,
        /// An onion layer.
        Cell = 4,
        /// Cells permitted so far, per circuit.
        Credit = 5,
        /// Asks to give permission back.
        Reclaim = 6,
        /// Answers RECLAIM.
        Limit = 7,
        /// The circuit is over.
        Destroy = 8,
    }
}

registry! {
    /// Messages of the control stream (spec 05, 4).
    ControlType {
        /// Opens a lane.
        Hello = 1,
        /// Asks for PONG.
        Ping = 2,
        /// Answers PING.
        Pong = 3,
        /// The sender will close this lane.
        GoAway = 4,
        /// Short ids of Bottles.
        Announce = 16,
        /// Short ids wanted.
        Want = 17,
        /// Bottles.
        Bottles = 18,
        /// Attestations.
        Attestations = 19,
        /// Vouchers.
        Vouchers = 20,
        /// Tombstones.
        Tombstones = 21,
        /// The newest bootstrap list's sequence number.
        ListSeq = 22,
        /// A piece of a bootstrap list.
        List = 23,
        /// What the sender holds, to be compared.
        Reconcile = 24,
        /// Asks for a piece of a bootstrap list.
        WantList = 25,
        /// The request for one fresh Bottle.
        Seagull = 32,
        /// Its answer.
        Bottle = 33,
        /// Asks for one's own address.
        WhoAmI = 34,
        /// Answers it.
        YouAre = 35,
        /// The link may be published.
        Publish = 36,
        /// The link must not be published.
        Unpublish = 37,
    }
}

registry! {
    /// Messages inside cells (spec 06, 3).
    CellType {
        /// Ends the cell: all that follows is zero.
        End = 0,
        /// Opens a stream.
        Open = 1,
        /// The stream is open.
        Opened = 2,
        /// Bytes of a stream.
        Data = 3,
        /// The sender has no more bytes.
        Fin = 4,
        /// The stream is over.
        Reset = 5,
        /// Bytes of a stream permitted so far.
        Window = 6,
        /// One datagram.
        Dgram = 7,
        /// Resolve a name.
        Resolve = 8,
        /// Its answer.
        Resolved = 9,
        /// Asks for itself.
        Echo = 10,
        /// Cover inside a circuit.
        Pad = 11,
    }
}

registry! {
    /// How a hop answers SETUP (spec 06, 1).
    SetupStatus {
        /// The hop is part of the circuit.
        Ok = 0,
        /// The next hop destroyed the circuit.
        NextRefused = 1,
        /// The next hop is no neighbour, or its link is down.
        NotConnected = 2,
        /// No memory or no time for another circuit.
        Overload = 3,
        /// This hop does not serve such a circuit.
        Policy = 4,
    }
}

registry! {
    /// Why a stream was reset; deliberately coarse (spec 06, 3).
    ResetCode {
        /// The target refused the connection.
        Refused = 1,
        /// The target cannot be reached or its name not be resolved.
        Unreachable = 2,
        /// The exit's policy forbids it.
        Policy = 3,
        /// Nobody answered in time.
        Timeout = 4,
        /// A limit was reached.
        Resource = 5,
        /// The peer broke the protocol.
        Protocol = 6,
    }
}

registry! {
    /// What an OPEN asks for (spec 06, 3).
    StreamProtocol {
        /// A TCP connection.
        Tcp = 1,
        /// A UDP association.
        Udp = 2,
        /// The node's own mesh service.
        Mesh = 3,
    }
}

registry! {
    /// What stands in an OPEN or OPENED for an address (spec 06, 3).
    HostKind {
        /// A name.
        Name = 1,
        /// An IPv4 address.
        V4 = 4,
        /// An IPv6 address.
        V6 = 6,
    }
}

registry! {
    /// What kind of hop a SETUP record makes (spec 06, 1).
    HopKind {
        /// Passes cells on.
        Relay = 0,
        /// Opens streams.
        Exit = 1,
    }
}

registry! {
    /// Which way a cell goes, as its nonce and AAD name it (spec 06, 2).
    Direction {
        /// Away from the client.
        Forward = 0,
        /// Towards the client.
        Backward = 1,
    }
}

registry! {
    /// What is under an onion layer (spec 06, 2).
    CellKind {
        /// The next hop's layer.
        Next = 0,
        /// Messages for this hop.
        Message = 1,
    }
}

registry! {
    /// Who speaks on a lane (spec 05, 4).
    Role {
        /// A node: its key is in its Bottle.
        Node = 0,
        /// A client: its key is thrown away.
        Client = 1,
    }
}

registry! {
    /// How a lane is carried (spec 04, 2).
    LaneType {
        /// TLS 1.3 over TCP.
        TlsTcp = 1,
        /// QUIC (reserved).
        Quic = 2,
    }
}

registry! {
    /// Who a Bottle is for (spec 04, 2).
    Scope {
        /// The backbone.
        Public = 0,
        /// The local network.
        Local = 1,
    }
}

registry! {
    /// Keys of a Bottle's payload (spec 04, 2).
    BottleKey {
        /// The cryptographic suite, [`SUITE`].
        Suite = 1,
        /// The identity public key.
        Identity = 2,
        /// The sequence number.
        Seq = 3,
        /// Who it is for, [`Scope`].
        Scope = 4,
        /// The label of the PortName.
        Label = 5,
        /// Operator or family; absent for none.
        Group = 6,
        /// The link key.
        LinkKey = 7,
        /// When the link key ends, Unix seconds.
        LinkKeyExpiry = 8,
        /// The link key that comes next; absent for none.
        NextLinkKey = 9,
        /// The circuit key.
        CircuitKey = 10,
        /// When the circuit key ends, Unix seconds.
        CircuitKeyNotAfter = 11,
        /// Where the node listens; absent for a hidden node.
        Addresses = 12,
        /// Where its exit's connections come from; absent for none.
        Egress = 13,
        /// Its links, packed; absent for none.
        Links = 14,
        /// The compiled exit policy; absent for no exit.
        ExitPolicy = 15,
        /// How busy it is, 0..=3.
        Load = 16,
        /// Bits, see [`BOTTLE_FLAG_DRAINING`] and [`BOTTLE_FLAG_METERED`].
        Flags = 17,
        /// The lowest and the highest protocol version.
        Protocol = 18,
        /// The software's name and version.
        Software = 19,
    }
}

registry! {
    /// The keys of a signed list's payload (spec 12, 2).
    ListKey {
        /// What the list is about: the network's id.
        Network = 1,
        /// The list's sequence number, from 1.
        Seq = 2,
        /// When it was made, Unix seconds.
        Issued = 3,
        /// Until when it holds, Unix seconds.
        Expires = 4,
        /// 32 bytes that nobody could know before.
        Random = 5,
        /// The nodes: envelopes of their Bottles.
        Nodes = 6,
        /// The parameters that differ from their defaults, by their codes (spec 09).
        Params = 7,
        /// Reserved: the root keys that follow, a threshold and keys; absent for none.
        Roots = 8,
        /// Releases of the software; absent for none.
        Releases = 9,
    }
}

/// First element of a signed list's envelope (spec 12, 2).
pub const LIST_ENVELOPE: u8 = 3;
/// First element of a Bottle's envelope.
pub const BOTTLE_ENVELOPE: u8 = 1;
/// First element of a tombstone's envelope.
pub const TOMBSTONE_ENVELOPE: u8 = 2;

/// The keys of a tombstone's payload (spec 04, 6).
pub mod tombstone_key {
    /// The cryptographic suite.
    pub const SUITE: u8 = 1;
    /// 32 bytes: the identity key.
    pub const IDENTITY: u8 = 2;
    /// Its place in the order of its node's Bottles.
    pub const SEQ: u8 = 3;
}

/// The node takes no new circuits.
pub const BOTTLE_FLAG_DRAINING: u16 = 1;
/// The node's traffic costs its operator money.
pub const BOTTLE_FLAG_METERED: u16 = 2;
/// The highest of the four classes of load.
pub const BOTTLE_LOAD_MAX: u8 = 3;
/// Length of one link in a Bottle: prefix of the NodeID, round trip, capacity.
pub const BOTTLE_LINK_BYTES: usize = 8 + 1 + 1;
/// Round trip or capacity that is not known.
pub const MEASURE_UNKNOWN: u8 = 255;

registry! {
    /// Which addresses a rule of a compiled exit policy is about: bits 4..3 of its head (spec 07, 2).
    PolicyNet {
        /// All.
        Any = 0,
        /// An IPv4 prefix.
        V4 = 1,
        /// An IPv6 prefix.
        V6 = 2,
        /// All that are not public.
        Private = 3,
    }
}

/// Head of a rule of a compiled exit policy: accepts, else rejects (spec 07, 2).
pub const POLICY_ACCEPT: u8 = 0x80;
/// Head of a rule: where the protocol stands, 0 for any, else [`StreamProtocol`], in two bits.
pub const POLICY_PROTOCOL_SHIFT: u8 = 5;
/// Head of a rule: where [`PolicyNet`] stands, in two bits.
pub const POLICY_NET_SHIFT: u8 = 3;
/// Head of a rule: how many port ranges follow, 0 for all ports.
pub const POLICY_PORTS_MASK: u8 = 0x07;

registry! {
    /// Why a lane closes (spec 05, 4).
    GoAwayReason {
        /// The node stops.
        Shutdown = 1,
        /// Another lane serves this slot.
        Duplicate = 2,
        /// No place for another link.
        Full = 3,
        /// The peer is not one this node links to.
        Stranger = 4,
        /// The peer broke the protocol.
        Protocol = 5,
        /// No version in common.
        Version = 6,
        /// The peer belongs to another network.
        Network = 7,
    }
}

/// The keys of HELLO's CBOR map (spec 05, 4).
pub mod hello_key {
    /// Array of two: the lowest and the highest protocol version spoken.
    pub const VERSIONS: u8 = 1;
    /// [`super::Role`].
    pub const ROLE: u8 = 2;
    /// Which lane of the link: 1 or 2.
    pub const SLOT: u8 = 3;
    /// 16 bytes: the link's id.
    pub const LINK: u8 = 4;
    /// Circuits that the sender accepts on this lane.
    pub const CIRCUITS: u8 = 5;
    /// 32 bytes: the network's id, zeros without a network file.
    pub const NETWORK: u8 = 6;
}

/// The key of ANNOUNCE's and WANT's CBOR map (spec 11, 1).
pub mod announce_key {
    /// Short ids of Bottles, 16 bytes each, joined.
    pub const IDS: u8 = 1;
}

/// The keys of BOTTLES' and TOMBSTONES' CBOR maps (spec 11, 1).
pub mod bottles_key {
    /// 1 if more of the same answer follows, else 0.
    pub const MORE: u8 = 1;
    /// Array of envelopes.
    pub const ENVELOPES: u8 = 2;
}

/// The keys of RECONCILE's CBOR map (spec 11, 1).
pub mod reconcile_key {
    /// 1 if more of the same comparison follows, else 0.
    pub const MORE: u8 = 1;
    /// What is held, `NodeID 32 ‖ seq u64 ‖ short id 16` each, joined.
    pub const HELD: u8 = 2;
}

/// The keys of LIST_SEQ's, WANT_LIST's and LIST's CBOR maps (spec 11, 1).
pub mod list_key {
    /// The list's sequence number.
    pub const SEQ: u8 = 1;
    /// Where a piece begins.
    pub const OFFSET: u8 = 2;
    /// Length of the whole list.
    pub const TOTAL: u8 = 3;
    /// The piece.
    pub const BYTES: u8 = 4;
}

/// The keys of PING's and PONG's CBOR map (spec 05, 4).
pub mod ping_key {
    /// The token that PONG repeats.
    pub const TOKEN: u8 = 1;
}

/// The keys of GOAWAY's CBOR map (spec 05, 4).
pub mod goaway_key {
    /// [`super::GoAwayReason`].
    pub const REASON: u8 = 1;
}

/// The protocol version these numbers belong to.
pub const VERSION: u8 = 1;
/// The cryptographic suite: Ed25519, X-Wing, AES-256-GCM, SHA-256.
pub const SUITE: u8 = 1;
/// What TLS negotiates by ALPN (spec 05, 1).
pub const ALPN: &[u8] = b"p17/1";
/// The TLS exporter's label (spec 05, 1).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-p17-v1";

/// Length of a frame.
pub const FRAME_BYTES: usize = 2048;
/// Length of a frame's header.
pub const HEADER_BYTES: usize = 8;
/// Length of a frame's body.
pub const BODY_BYTES: usize = FRAME_BYTES - HEADER_BYTES;

/// Most hops of a circuit.
pub const MAX_HOPS: usize = 6;
/// Frames of a SETUP.
pub const SETUP_PARTS: usize = 4;
/// Length of a SETUP packet.
pub const SETUP_BYTES: usize = SETUP_PARTS * BODY_BYTES;
/// Length of one hop's record with its info.
pub const SETUP_LAYER_BYTES: usize = 8 + 1120 + SETUP_INFO_BYTES + 16;
/// Length of a hop's info.
pub const SETUP_INFO_BYTES: usize = 72;
/// What a CREATED layer adds.
pub const CREATED_LAYER_BYTES: usize = 32 + 1 + 16 + 16;
/// What a cell layer adds: the kind and the tag.
pub const CELL_LAYER_BYTES: usize = 1 + 16;
/// Message area of a cell: what is left under all layers.
pub const MESSAGE_BYTES: usize = BODY_BYTES - CELL_LAYER_BYTES * MAX_HOPS;
/// Length of a message's header in a cell: type, stream, length.
pub const MESSAGE_HEADER_BYTES: usize = 5;
/// Flag of CONTROL: one whole urgent message (spec 05, 4).
pub const CONTROL_FLAG_URGENT: u8 = 1;
/// Flag of a forward CELL: sealed with the keys of CREATED, not with those of SETUP. Backward cells have no flags.
pub const CELL_FLAG_FRESH: u8 = 1;
/// Length of a circuit key's id.
pub const KEY_ID_BYTES: usize = 8;
/// Length of a hop's confirmation in CREATED.
pub const CONFIRMATION_BYTES: usize = 16;
/// Length of a Bottle's short id.
pub const SHORT_ID_BYTES: usize = 16;
/// Length of one entry of RECONCILE: NodeID, seq, short id.
pub const HELD_BYTES: usize = 32 + 8 + SHORT_ID_BYTES;
/// Length of a SETUP's stamp in a replay cache.
pub const STAMP_BYTES: usize = 16;
/// Cells under one key generation: the counter's high part counts generations.
pub const REKEY_SHIFT: u32 = 16;
/// Length of a SETUP's time slot.
pub const SLOT_SECONDS: u64 = 900;
/// From this second of a slot on, the next slot is accepted too.
pub const SLOT_EARLY_SECONDS: u64 = 780;
