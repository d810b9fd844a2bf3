//! Every bound, with its reason (law 3). What a peer can choose has its limit here; nothing else decides how large a thing may be.
//!
//! Times and counts that a network may choose for itself are parameters: see `params`.

// ---- Records (spec 04) ----

/// An encoded Bottle: one fits two frames, and a map of 30,000 stays near 100 MB.
pub const BOTTLE_BYTES: usize = 4096;
/// Addresses in a Bottle: two families, two ports, some spare.
pub const BOTTLE_ADDRESSES: usize = 8;
/// Egress addresses in a Bottle.
pub const BOTTLE_EGRESS: usize = 4;
/// Links in a Bottle: the most links a node keeps.
pub const BOTTLE_LINKS: usize = 64;
/// A compiled exit policy.
pub const EXIT_POLICY_BYTES: usize = 256;
/// A group's name.
pub const GROUP_CHARS: usize = 32;
/// The software's name and version.
pub const SOFTWARE_BYTES: usize = 32;
/// Unknown fields of a Bottle that are kept: room for the future, not for a payload.
pub const UNKNOWN_FIELDS: usize = 16;
/// How deep the value of an unknown field may nest: an array of maps of arrays, say.
pub const UNKNOWN_DEPTH: usize = 4;
/// Pairs of Bottles that show two truths under one seq: enough to spread them, too few to fill memory with.
pub const EQUIVOCATIONS: usize = 256;
/// Bottles a Bottlerack holds.
pub const BOTTLERACK_BOTTLES: usize = 32_768;

// ---- Lanes (spec 05) ----

/// A message of the control stream: one answer of Bottles.
pub const CONTROL_MESSAGE_BYTES: usize = 64 * 1024;
/// Control messages received on one lane that the engine has not taken yet; above it the lane's reader waits.
pub const CONTROL_INBOX_MESSAGES: usize = 64;
/// Bytes of the control stream queued on one lane: a few messages. A peer that does not read them loses the lane.
pub const CONTROL_QUEUE_BYTES: usize = 1024 * 1024;
/// Urgent messages queued on one lane.
pub const URGENT_MESSAGES: usize = 64;
/// What a lane's reader takes from the socket at once.
pub const LANE_READ_BYTES: usize = 256 * 1024;
/// Frames a lane's writer takes at once: 128 KiB.
pub const LANE_WRITE_FRAMES: usize = 64;
/// Frames of one TLS record: a full record of 16 KiB.
pub const RECORD_FRAMES: usize = 8;
/// Lanes of a link.
pub const LINK_LANES: usize = 2;
/// Links in all (64) and clients are counted apart.
pub const LINKS: usize = 64;
/// Circuit ids of one lane in use or dying.
pub const LANE_CIRCUITS: usize = 65_536;
/// Accepted lanes whose HELLO is outstanding: each holds a TLS connection for at most the handshake's time.
pub const UNADMITTED_LANES: usize = 256;
/// Client links of one node: with two lanes each a few thousand sockets.
pub const CLIENT_LINKS: usize = 4096;
/// Nodes that took a published link back, whose links stay out of the own Bottle for a while: some times as many as are links at once.
pub const RESTING_LINKS: usize = 8 * LINKS;
/// Neighbours in a configuration: as many links as a Bottle lists.
pub const NEIGHBOURS: usize = LINKS;

// ---- Gossip (spec 11) ----

/// Short ids in an ANNOUNCE.
pub const ANNOUNCE_IDS: usize = 256;
/// Short ids in a WANT: the answer is at most half of what a lane queues of the control stream.
pub const WANT_IDS: usize = 128;
/// Bytes of envelopes in one BOTTLES or TOMBSTONES: the message stays below 64 KiB.
pub const BOTTLES_BYTES: usize = 60 * 1024;
/// Entries of one RECONCILE.
pub const RECONCILE_ENTRIES: usize = 1024;
/// Bytes of a tombstone.
pub const TOMBSTONE_BYTES: usize = 256;
/// Tombstones kept: a node that leaves is rare, and all of them go to each new link in a quarter of what a lane queues.
pub const TOMBSTONES: usize = 1024;
/// Tombstones of identities whose Bottle is not held: a quarter, since anyone can make them.
pub const TOMBSTONES_UNKNOWN: usize = TOMBSTONES / 4;
/// Expired Bottles kept as hints where their nodes may be found: some 20 MB.
pub const HINTS: usize = 8192;
/// Short ids that one neighbour has offered and that were not asked for yet: a whole map.
pub const OFFERED_IDS: usize = BOTTLERACK_BOTTLES;
/// Short ids that were refused lately and are not asked for again: some 100 kB.
pub const REFUSED_IDS: usize = 4096;
/// RECONCILEs sent at once; the rest of a large map follows one by one. With the largest answer of Bottles and all tombstones they
/// stay below what a lane queues.
pub const RECONCILES_AT_ONCE: usize = 4;
/// RECONCILEs taken from one neighbour within half a repair interval: twice a full map.
pub const RECONCILES: u32 = 80;
/// Short ids announced to one neighbour in one batch: 16 messages; what is left follows in the next.
pub const ANNOUNCED_AT_ONCE: usize = 16 * ANNOUNCE_IDS;
/// A signed bootstrap list: a few hundred nodes.
pub const LIST_BYTES: usize = 1024 * 1024;
/// Nodes that a list names: a Bottle has more than a kilobyte.
pub const LIST_NODES: usize = LIST_BYTES / 1024;
/// Signatures under a list: twice as many as roots, so that a list can carry those of the old and the new roots.
pub const LIST_SIGNATURES: usize = 32;
/// From a list's making to its end, at most, in seconds: 90 days. Who signs chooses less; a list that never ends could never be
/// taken back.
pub const LIST_LIFE_S: u64 = 90 * 24 * 3600;
/// A list may be made this far ahead of the receiver's clock, in seconds.
pub const LIST_AHEAD_S: u64 = 3600;
/// Releases that a list names.
pub const LIST_RELEASES: usize = 64;
/// A release's version and platform, each.
pub const RELEASE_NAME_BYTES: usize = 64;
/// A release's address.
pub const RELEASE_URL_BYTES: usize = 512;
/// How often a link is asked for a list from its first piece on before one must have come whole.
pub const LIST_ASKS: u32 = 8;
/// Bytes of one LIST: the message stays below 64 KiB.
pub const LIST_PIECE_BYTES: usize = 60 * 1024;

// ---- Circuits (spec 06) ----

/// Cells permitted in each direction before any CREDIT, reserved when part 0 of a SETUP arrives.
pub const FIRST_WINDOW_CELLS: u64 = 16;
/// The largest window: 1 MiB, one circuit at 10 Gbit/s over 0.8 ms or 100 Mbit/s over 80 ms.
pub const MAX_WINDOW_CELLS: u64 = 512;
/// What an idle circuit keeps.
pub const IDLE_WINDOW_CELLS: u64 = 4;
/// Breaches of credit by one lane, within the network's breach window, that close it.
pub const CREDIT_BREACHES: usize = 3;
/// Streams of one circuit.
pub const CIRCUIT_STREAMS: usize = 256;
/// Dials of one circuit that are under way at an exit.
pub const CIRCUIT_DIALS: usize = 64;
/// SETUPs waiting for the worker pool of a node; above it they are refused.
pub const SETUP_QUEUE: usize = 4096;
/// Stamps in one circuit key's replay cache: 2.4 h at 200 SETUP/s; full means refuse.
pub const REPLAY_STAMPS: usize = 2_000_000;
/// Stamps of one replay cache whose slot is still to come: a share, so that SETUPs from the future, refused anyway, cannot fill it.
pub const REPLAY_EARLY_STAMPS: usize = 250_000;
/// Circuit keys a node holds at once: a life of 30 h at a new one every 6 h needs 6; above it the oldest goes early.
pub const CIRCUIT_KEYS: usize = 16;

// ---- Streams (spec 06, 3) ----

/// Bytes permitted on a stream before any WINDOW.
pub const STREAM_FIRST_WINDOW_BYTES: u64 = 256 * 1024;
/// The largest window of a stream.
pub const STREAM_MAX_WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// Stream windows of one circuit in all.
pub const CIRCUIT_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// What an edge reads from a socket at once.
pub const EDGE_READ_BYTES: usize = 256 * 1024;
/// Bytes read from a socket that wait to be sent, per stream: one read ahead, so that a slow circuit does not fill memory.
pub const STREAM_QUEUE_BYTES: u64 = 256 * 1024;
/// The same for all streams of a circuit together: beyond, each has room for one turn only, so that a client that opens many streams
/// and takes nothing costs an exit a few megabytes and no more.
pub const CIRCUIT_QUEUE_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of one stream before the next one's turn: 8 full cells.
pub const STREAM_QUANTUM_BYTES: usize = 16 * 1024;
/// OPEN or OPENED: the longest host name and its header fit.
pub const SMALL_MESSAGE_BYTES: usize = 5 + HOST_NAME_BYTES;
/// A stream's window doubles when half of it was consumed within this time: longer than a circuit's round trip, which nobody measures.
pub const STREAM_GROWTH_MS: u64 = 500;
/// A host name in OPEN (DNS).
pub const HOST_NAME_BYTES: usize = 255;

/// Names that an exit looks up at once: half of the threads that the runtime keeps for what blocks.
pub const EXIT_LOOKUPS: usize = 256;

// ---- Routes (spec 08) ----

/// Walks drawn for one route before the search goes through them one by one.
pub const ROUTE_TRIES: usize = 256;
/// Steps of that search: some ten milliseconds.
pub const ROUTE_STEPS: usize = 500_000;

// ---- Before a lane is there ----

/// TLS handshakes that a node has under way at once.
pub const HANDSHAKES: usize = 256;
/// Addresses whose rate of handshakes is remembered.
pub const HANDSHAKE_ADDRESSES: usize = 4096;
/// Inputs that wait for the engine.
pub const ENGINE_INPUTS: usize = 1024;

// ---- Client side ----

/// Circuits that a client keeps at once: its lane carries no more by default.
pub const STANDING_CIRCUITS: usize = 256;
/// Connections to the proxy port at once.
pub const PROXY_CONNECTIONS: usize = 16_384;
/// Bytes of an HTTP request's head at the proxy port.
pub const HTTP_HEAD_BYTES: usize = 64 * 1024;
/// User name and password of SOCKS5, each.
pub const SOCKS_CREDENTIAL_BYTES: usize = 255;
