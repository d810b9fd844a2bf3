//! Network parameters (spec 09): every time, rate, count and share that a network may choose for itself, in one typed struct. Sizes
//! that bound memory stand in `limits`, cryptography in `crypto`.
//!
//! [`Params::DEFAULT`] is for networks, [`Params::private`] for the small network of one operator, [`Params::demo`] for one machine and
//! for tests: it forms in seconds. Whoever builds another set calls [`Params::validate`] before use. [`codec`] gives them their bytes
//! in a signed list and their words in a network file.

pub mod codec;

use std::fmt;
use std::time::Duration;

use crate::bottle::BottleRules;
use crate::bottlerack::RackRules;
use crate::limits::{BOTTLERACK_BOTTLES, CIRCUIT_KEYS, WANT_IDS};

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back each second.
    pub per_second: u32,
    /// Tokens at the start and at most.
    pub burst: u32,
}

/// A value is outside of its allowed range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parameter {name}: {rule}")]
pub struct ParamsError {
    /// The parameter.
    pub name: &'static str,
    /// What is allowed.
    pub rule: &'static str,
}

/// What a set of parameters calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetName {
    /// [`Params::DEFAULT`].
    Default,
    /// [`Params::private`].
    Private,
    /// [`Params::demo`].
    Demo,
    /// A network's own choice.
    Own,
}

impl SetName {
    /// All.
    pub const ALL: [Self; 4] = [Self::Default, Self::Private, Self::Demo, Self::Own];

    /// The word for people, and in a signed list.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Private => "private",
            Self::Demo => "demo",
            Self::Own => "own",
        }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The parameters of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// What the set calls itself; shown at start when it is not `default`.
    pub name: SetName,

    // ---- Identity and Bottles (spec 03, 04) ----
    /// A node makes a new circuit key this often: it bounds how many circuits one stolen key opens.
    pub circuit_key_interval: Duration,
    /// A circuit key is erased this long after it was made, whatever Bottle carries it: from then on first flights are secret.
    pub circuit_key_lifetime: Duration,
    /// A client stops using a circuit key this long before it is erased, so that no SETUP arrives too late.
    pub circuit_key_margin: Duration,
    /// A Bottle is valid this long after its sequence number; a little more than a day, so that one lost update does no harm.
    pub bottle_lifetime: Duration,
    /// A link key's end lies at most this long after the Bottle that names it.
    pub link_key_lifetime: Duration,
    /// A sequence number may be this far ahead of the receiver's clock.
    pub bottle_ahead: Duration,
    /// A Bottle is published this often on average, and accepted so: changing links must not flood the network.
    pub bottle_interval: Duration,
    /// Bottles that may follow each other at once, before `bottle_interval` counts.
    pub bottle_burst: u32,
    /// Changes are gathered this long before a new Bottle.
    pub bottle_batch: Duration,
    /// A sequence number that could not be stored is tried again after this time.
    pub seq_retry: Duration,
    /// A link is withdrawn from the Bottle only after it was down this long: a restart is not a loss.
    pub link_loss_grace: Duration,
    /// Losses are published at most this often, all together.
    pub link_loss_interval: Duration,
    /// The directory of Bottles is read this often.
    pub directory_rescan: Duration,

    // ---- Networks (spec 12) ----
    /// A signed list older than this is warned of, and no new guard is chosen by it: it should have been replaced long ago.
    pub list_warn_age: Duration,
    /// Hops of a route differ in group, address range and country. Off where one operator runs all nodes. Nothing asks for it before
    /// addresses are verified.
    pub diversity: bool,
    /// Verifiers that must agree on an address. Nothing asks for it before addresses are verified.
    pub quorum: u32,

    // ---- Lanes and links (spec 05) ----
    /// A transport connection must be made within this time, for each address.
    pub dial_timeout: Duration,
    /// From the transport connection to HELLO: both the TLS handshake and the first message.
    pub handshake_timeout: Duration,
    /// The first wait after a failed dial or a lost link; doubles each time.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// A link that was up this long starts at `backoff_min` again when it is lost.
    pub backoff_reset: Duration,
    /// PING goes out this often on each lane (± 20 %).
    pub ping_interval: Duration,
    /// No PONG within this time: the lane is dead.
    pub ping_timeout: Duration,
    /// Links that a node wants at least, however small the network.
    pub degree_min: u32,
    /// Links that a node wants at most, however large the network.
    pub degree_max: u32,
    /// A node looks at its links this often, whatever happens.
    pub link_evaluate: Duration,
    /// News about nodes are gathered this long before a node that wants more links looks again.
    pub link_settle: Duration,
    /// A link stands this long before a node says PUBLISH: what comes and goes is not for the map.
    pub publish_after: Duration,
    /// Circuits that a node lets another node open on one lane.
    pub node_lane_circuits: u32,
    /// Circuits of one client link, both lanes together.
    pub client_link_circuits: u32,
    /// Client links from one address: more would let one host take all places.
    pub clients_per_address: u32,
    /// Client links from one /24 (IPv6: /48).
    pub clients_per_prefix: u32,
    /// TLS handshakes from one address.
    pub handshakes_per_address: Rate,
    /// Addresses of the loopback network are dialled and may stand in Bottles: for a demo on one machine.
    pub loopback_allowed: bool,
    /// Nodes that nobody vouches for are dialled at addresses that are not public, too: for a network inside of one.
    pub private_allowed: bool,

    // ---- Circuits (spec 06) ----
    /// SETUPs from one client link.
    pub client_setups: Rate,
    /// SETUPs from one node link.
    pub node_setups: Rate,
    /// Memory for windows: this share of the machine's, in percent.
    pub pool_share_percent: u32,
    /// Memory for windows: at least this many bytes.
    pub pool_min_bytes: u64,
    /// Share of the pool that all clients together get, in percent.
    pub pool_clients_percent: u32,
    /// Share of the pool that the clients of one /24 (IPv6: /48) get, in percent.
    pub pool_prefix_percent: u32,
    /// A window that lies idle this long is taken back to `limits::IDLE_WINDOW_CELLS`.
    pub idle_reclaim: Duration,
    /// A window grows when it was drained within a lane's round trip, or within this time where the round trip is shorter: below
    /// it the round trip measured is noise.
    pub window_growth_floor: Duration,
    /// Breaches of credit are counted over this time.
    pub breach_window: Duration,

    // ---- Streams and exit (spec 06, 07) ----
    /// OPENs of one circuit.
    pub opens: Rate,
    /// An exit dials a target this long, each address.
    pub exit_dial_timeout: Duration,
    /// An exit resolves a name this long.
    pub exit_resolve_timeout: Duration,
    /// An edge remembers this long how a closed stream ended.
    pub closed_stream_grace: Duration,

    // ---- Routes, client (spec 08, 10) ----
    /// A client waits this long for Bottles before it draws its guard, so that the first one read is not always it.
    pub guard_draw_wait: Duration,
    /// A client's guard has no lane for this long: a backup is dialled.
    pub guard_patience: Duration,
    /// The guard is back for this long: it is used again, and as long after that the backup's link is closed.
    pub guard_return: Duration,
    /// A guard that could not be reached for this long is replaced.
    pub guard_replace_after: Duration,
    /// Guards are replaced at most this often: each new one is a new party that may be the wrong one.
    pub guard_change_interval: Duration,
    /// Nodes of a route.
    pub hops: u32,
    /// The second hop is pinned with the guard, so that an exit that links circuits of one user does not learn the guard.
    pub pin_hop2: bool,
    /// Fewest nodes that a client may ask for: below 3 one node can learn both ends.
    pub danger_min_hops: u32,
    /// Without CREATED within this time the second hop is taken for dead.
    pub created_timeout: Duration,
    /// Without OPENED within this time an application is told that the target does not answer.
    pub open_timeout: Duration,
    /// A hop that failed is not used for this time.
    pub hop_skip: Duration,
    /// A circuit takes no new streams after this time.
    pub circuit_max_age: Duration,
    /// Circuits kept ready for new isolation keys.
    pub spare_circuits: u32,

    // ---- Gossip (spec 11) ----
    /// What is new is gathered this long before it is announced.
    pub gossip_batch: Duration,
    /// Each node tells its neighbours and clients what it holds this often (± 20 %): what was missed heals.
    pub repair_interval: Duration,
    /// The answer to a WANT or a WANT_LIST is complete within this time, else the lane is closed.
    pub bulk_timeout: Duration,
    /// Bottles asked for on one link; twice as many are given.
    pub bottles_per_link: Rate,
    /// Share of a Bottlerack's places that nodes without trust get, in percent.
    pub unknown_share_percent: u32,
    /// An expired Bottle is kept this long as a hint where its node may be found.
    pub hint_lifetime: Duration,
    /// A tombstone is taken this long after its seq, and kept this long after it came.
    pub tombstone_lifetime: Duration,
    /// A node that signed two truths is distrusted this long.
    pub distrust_equivocation: Duration,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

impl Params {
    /// For networks.
    pub const DEFAULT: Self = Self {
        name: SetName::Default,
        circuit_key_interval: hours(6),
        circuit_key_lifetime: hours(30),
        circuit_key_margin: hours(1),
        bottle_lifetime: hours(30),
        link_key_lifetime: hours(90 * 24),
        bottle_ahead: hours(1),
        bottle_interval: minutes(5),
        bottle_burst: 4,
        bottle_batch: seconds(1),
        seq_retry: seconds(5),
        link_loss_grace: minutes(1),
        link_loss_interval: hours(1),
        directory_rescan: seconds(1),
        list_warn_age: hours(10 * 24),
        diversity: true,
        quorum: 3,
        dial_timeout: seconds(10),
        handshake_timeout: seconds(10),
        backoff_min: seconds(1),
        backoff_max: minutes(1),
        backoff_reset: seconds(30),
        ping_interval: seconds(15),
        ping_timeout: seconds(20),
        degree_min: 8,
        degree_max: 64,
        link_evaluate: hours(1),
        link_settle: seconds(1),
        publish_after: seconds(10),
        node_lane_circuits: 32_768,
        client_link_circuits: 64,
        clients_per_address: 16,
        clients_per_prefix: 64,
        handshakes_per_address: Rate { per_second: 20, burst: 40 },
        loopback_allowed: false,
        private_allowed: false,
        client_setups: Rate { per_second: 4, burst: 20 },
        node_setups: Rate { per_second: 200, burst: 1000 },
        pool_share_percent: 25,
        pool_min_bytes: 64 << 20,
        pool_clients_percent: 50,
        pool_prefix_percent: 5,
        idle_reclaim: seconds(5),
        window_growth_floor: ms(2),
        breach_window: minutes(10),
        opens: Rate { per_second: 4000, burst: 1000 },
        exit_dial_timeout: seconds(10),
        exit_resolve_timeout: seconds(5),
        closed_stream_grace: seconds(30),
        guard_draw_wait: ms(500),
        guard_patience: seconds(5),
        guard_return: seconds(30),
        guard_replace_after: hours(14 * 24),
        guard_change_interval: hours(30 * 24),
        hops: 4,
        pin_hop2: true,
        danger_min_hops: 3,
        created_timeout: seconds(1),
        open_timeout: seconds(30),
        hop_skip: minutes(1),
        circuit_max_age: minutes(10),
        spare_circuits: 2,
        gossip_batch: ms(100),
        repair_interval: minutes(10),
        bulk_timeout: seconds(30),
        bottles_per_link: Rate { per_second: 2000, burst: 40_000 },
        unknown_share_percent: 25,
        hint_lifetime: hours(30 * 24),
        tombstone_lifetime: hours(30 * 24),
        distrust_equivocation: hours(7 * 24),
    };

    /// For the network of one operator, from three nodes on: no rules about different operators, three hops, and shorter waits, so that
    /// it forms in seconds. [`Self::PRIVATE_COSTS`] says what that costs.
    pub const fn private() -> Self {
        Self {
            name: SetName::Private,
            bottle_interval: seconds(30),
            bottle_burst: 10,
            bottle_batch: ms(200),
            link_loss_grace: seconds(30),
            link_loss_interval: minutes(5),
            diversity: false,
            quorum: 1,
            backoff_max: seconds(15),
            link_evaluate: minutes(1),
            link_settle: ms(200),
            publish_after: seconds(1),
            guard_patience: seconds(2),
            clients_per_address: 64,
            clients_per_prefix: 256,
            handshakes_per_address: Rate { per_second: 50, burst: 100 },
            pool_prefix_percent: 50,
            guard_draw_wait: ms(200),
            hops: 3,
            repair_interval: minutes(1),
            private_allowed: true,
            ..Self::DEFAULT
        }
    }

    /// What [`Self::private`] costs, in plain words, for who makes such a network.
    pub const PRIVATE_COSTS: &str = "\
A private network hides where its users go from everybody outside of it, and who they are from the places they visit.\n\
It does not hide them from who runs it: all nodes may belong to one operator, who sees both ends of every connection.\n\
With few nodes there are few routes: who watches the nodes' connections can match what goes in with what comes out.\n\
Routes have 3 hops, not 4, and may stay within one country, one provider and one address range.\n\
One verifier is enough for an address, not three: one node that lies is believed.\n\
Bottles, and with them changes of links, go out more often: watchers of the map learn sooner what happens in it.\n\
One address range may take half of a node's memory for clients: one household can crowd out the others.\n";

    /// For one machine and for tests: forms in seconds, takes loopback addresses, lets one address have many clients and routes be
    /// short for measuring.
    pub const fn demo() -> Self {
        Self {
            name: SetName::Demo,
            diversity: false,
            quorum: 1,
            // A demo may have three nodes.
            hops: 3,
            bottle_interval: seconds(1),
            bottle_burst: 20,
            bottle_batch: ms(50),
            seq_retry: ms(500),
            link_loss_grace: seconds(5),
            link_loss_interval: seconds(10),
            dial_timeout: seconds(3),
            handshake_timeout: seconds(5),
            backoff_min: ms(100),
            backoff_max: seconds(1),
            backoff_reset: seconds(2),
            ping_interval: seconds(2),
            ping_timeout: seconds(10),
            link_evaluate: ms(500),
            link_settle: ms(50),
            publish_after: ms(100),
            client_link_circuits: 1024,
            clients_per_address: 256,
            clients_per_prefix: 1024,
            handshakes_per_address: Rate { per_second: 200, burst: 400 },
            loopback_allowed: true,
            private_allowed: true,
            client_setups: Rate { per_second: 200, burst: 1000 },
            pool_clients_percent: 50,
            pool_prefix_percent: 50,
            guard_draw_wait: ms(200),
            guard_patience: seconds(1),
            guard_return: seconds(1),
            guard_replace_after: hours(1),
            guard_change_interval: hours(2),
            danger_min_hops: 1,
            gossip_batch: ms(20),
            repair_interval: seconds(2),
            bulk_timeout: seconds(5),
            ..Self::DEFAULT
        }
    }

    /// What a Bottle is judged by.
    pub fn bottle_rules(&self) -> BottleRules {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        BottleRules {
            life_ms: ms(self.bottle_lifetime),
            ahead_ms: ms(self.bottle_ahead),
            link_key_life_ms: ms(self.link_key_lifetime),
            circuit_key_life_ms: ms(self.circuit_key_lifetime),
        }
    }

    /// What a Bottlerack holds, and for how long.
    pub fn rack_rules(&self) -> RackRules {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let percent = usize::try_from(self.unknown_share_percent).unwrap_or(100);
        RackRules {
            most_bottles: BOTTLERACK_BOTTLES,
            most_unknown: BOTTLERACK_BOTTLES * percent / 100,
            // spec 11, 3: twice as generous as the rate of publishing, for what is delayed comes in heaps
            interval_ms: ms(self.bottle_interval) / 2,
            burst: self.bottle_burst.saturating_mul(2),
            hint_ms: ms(self.hint_lifetime),
            tombstone_ms: ms(self.tombstone_lifetime),
            distrust_ms: ms(self.distrust_equivocation),
        }
    }

    /// Circuit keys that a node has at once, at most.
    fn circuit_keys_alive(&self) -> usize {
        let keys = self.circuit_key_lifetime.as_secs().div_ceil(self.circuit_key_interval.as_secs().max(1));
        usize::try_from(keys).unwrap_or(usize::MAX)
    }

    /// Checks that every value is in its range and that those that depend on each other fit.
    ///
    /// # Errors
    /// The first parameter that does not.
    pub fn validate(&self) -> Result<(), ParamsError> {
        self.validate_records()?;
        self.validate_lanes()?;
        self.validate_circuits()?;
        self.validate_routes()?;
        self.validate_gossip()
    }

    fn validate_records(&self) -> Result<(), ParamsError> {
        require(self.circuit_key_interval >= minutes(1), "circuit_key_interval", "at least 1 minute")?;
        require(
            self.circuit_key_lifetime > self.circuit_key_interval && self.circuit_key_lifetime <= hours(72),
            "circuit_key_lifetime",
            "longer than circuit_key_interval, at most 72 h",
        )?;
        require(
            self.circuit_key_margin < self.circuit_key_lifetime - self.circuit_key_interval,
            "circuit_key_margin",
            "shorter than circuit_key_lifetime less circuit_key_interval, else a client would find no key it may use",
        )?;
        require(
            self.bottle_lifetime > self.circuit_key_interval && self.bottle_lifetime <= hours(24 * 7),
            "bottle_lifetime",
            "longer than circuit_key_interval, at most 7 days",
        )?;
        require(
            self.circuit_keys_alive() < CIRCUIT_KEYS,
            "circuit_key_interval",
            "so long that fewer than 16 keys live at once",
        )?;
        require(in_range(self.link_key_lifetime, hours(1), hours(90 * 24)), "link_key_lifetime", "1 h to 90 days")?;
        require(self.bottle_ahead <= hours(24), "bottle_ahead", "at most 24 h")?;
        require(
            self.bottle_interval < self.circuit_key_interval,
            "bottle_interval",
            "shorter than circuit_key_interval, else a new key would wait",
        )?;
        require((1..=1000).contains(&self.bottle_burst), "bottle_burst", "1 to 1000")?;
        require(self.bottle_batch <= minutes(1), "bottle_batch", "at most 1 minute")?;
        require(in_range(self.seq_retry, ms(10), minutes(10)), "seq_retry", "10 ms to 10 minutes")?;
        require(self.link_loss_interval <= hours(24), "link_loss_interval", "at most 24 h")?;
        require(self.link_loss_grace <= hours(1), "link_loss_grace", "at most 1 h")?;
        require(in_range(self.directory_rescan, ms(10), minutes(10)), "directory_rescan", "10 ms to 10 minutes")?;
        require(in_range(self.list_warn_age, minutes(1), hours(90 * 24)), "list_warn_age", "1 minute to 90 days")?;
        require((1..=16).contains(&self.quorum), "quorum", "1 to 16")
    }

    fn validate_lanes(&self) -> Result<(), ParamsError> {
        require(in_range(self.dial_timeout, ms(10), minutes(2)), "dial_timeout", "10 ms to 2 minutes")?;
        require(in_range(self.handshake_timeout, ms(10), minutes(2)), "handshake_timeout", "10 ms to 2 minutes")?;
        require(in_range(self.backoff_min, ms(10), hours(24)), "backoff_min", "10 ms to 24 h")?;
        require(
            self.backoff_max >= self.backoff_min && self.backoff_max <= hours(24),
            "backoff_max",
            "at least backoff_min, at most 24 h",
        )?;
        require(self.backoff_reset <= hours(24), "backoff_reset", "at most 24 h")?;
        require(in_range(self.ping_interval, ms(100), minutes(10)), "ping_interval", "100 ms to 10 minutes")?;
        require(in_range(self.ping_timeout, ms(100), minutes(10)), "ping_timeout", "100 ms to 10 minutes")?;
        require((1..=64).contains(&self.degree_min), "degree_min", "1 to 64")?;
        require((self.degree_min..=64).contains(&self.degree_max), "degree_max", "degree_min to 64: a Bottle lists no more")?;
        require(in_range(self.link_evaluate, ms(100), hours(24)), "link_evaluate", "100 ms to 24 h")?;
        require(in_range(self.link_settle, ms(1), minutes(10)), "link_settle", "1 ms to 10 minutes")?;
        require(self.publish_after <= hours(1), "publish_after", "at most 1 h")?;
        require((1..=32_768).contains(&self.node_lane_circuits), "node_lane_circuits", "1 to 32768: half of a lane's ids")?;
        require((1..=32_768).contains(&self.client_link_circuits), "client_link_circuits", "1 to 32768")?;
        require(self.clients_per_address >= 1, "clients_per_address", "at least 1")?;
        require(self.clients_per_prefix >= self.clients_per_address, "clients_per_prefix", "at least clients_per_address")?;
        require_rate(self.handshakes_per_address, "handshakes_per_address")
    }

    fn validate_circuits(&self) -> Result<(), ParamsError> {
        require_rate(self.client_setups, "client_setups")?;
        require_rate(self.node_setups, "node_setups")?;
        require_rate(self.opens, "opens")?;
        require((1..=90).contains(&self.pool_share_percent), "pool_share_percent", "1 to 90")?;
        require((1 << 20..=1 << 40).contains(&self.pool_min_bytes), "pool_min_bytes", "1 MiB to 1 TiB")?;
        require((1..=100).contains(&self.pool_clients_percent), "pool_clients_percent", "1 to 100")?;
        require(
            (1..=self.pool_clients_percent).contains(&self.pool_prefix_percent),
            "pool_prefix_percent",
            "1 to pool_clients_percent",
        )?;
        require(in_range(self.idle_reclaim, ms(100), hours(1)), "idle_reclaim", "100 ms to 1 h")?;
        require(self.window_growth_floor <= seconds(1), "window_growth_floor", "at most 1 s")?;
        require(in_range(self.breach_window, seconds(1), hours(24)), "breach_window", "1 s to 24 h")?;
        require(in_range(self.exit_dial_timeout, ms(10), minutes(2)), "exit_dial_timeout", "10 ms to 2 minutes")?;
        require(in_range(self.exit_resolve_timeout, ms(10), minutes(2)), "exit_resolve_timeout", "10 ms to 2 minutes")?;
        require(in_range(self.closed_stream_grace, seconds(1), minutes(10)), "closed_stream_grace", "1 s to 10 minutes")
    }

    fn validate_routes(&self) -> Result<(), ParamsError> {
        require((1..=6).contains(&self.danger_min_hops), "danger_min_hops", "1 to 6")?;
        require((self.danger_min_hops..=6).contains(&self.hops), "hops", "danger_min_hops to 6")?;
        require(self.guard_draw_wait <= minutes(1), "guard_draw_wait", "at most 1 minute")?;
        require(in_range(self.guard_patience, ms(100), minutes(10)), "guard_patience", "100 ms to 10 minutes")?;
        require(in_range(self.guard_return, ms(100), hours(1)), "guard_return", "100 ms to 1 h")?;
        require(in_range(self.guard_replace_after, minutes(1), hours(365 * 24)), "guard_replace_after", "1 minute to 365 days")?;
        require(
            in_range(self.guard_change_interval, minutes(1), hours(365 * 24)),
            "guard_change_interval",
            "1 minute to 365 days",
        )?;
        require(in_range(self.created_timeout, ms(10), minutes(2)), "created_timeout", "10 ms to 2 minutes")?;
        require(in_range(self.open_timeout, ms(10), minutes(5)), "open_timeout", "10 ms to 5 minutes")?;
        require(self.hop_skip <= hours(24), "hop_skip", "at most 24 h")?;
        require(in_range(self.circuit_max_age, seconds(1), hours(24)), "circuit_max_age", "1 s to 24 h")?;
        require(self.spare_circuits <= 16, "spare_circuits", "at most 16")
    }

    fn validate_gossip(&self) -> Result<(), ParamsError> {
        let days = |days: u64| hours(days * 24);
        require(in_range(self.gossip_batch, ms(1), seconds(10)), "gossip_batch", "1 ms to 10 s")?;
        require(in_range(self.repair_interval, seconds(1), hours(24)), "repair_interval", "1 s to 24 h")?;
        require(in_range(self.bulk_timeout, ms(100), minutes(10)), "bulk_timeout", "100 ms to 10 minutes")?;
        require(
            self.bottles_per_link.per_second >= 1 && self.bottles_per_link.burst as usize >= WANT_IDS,
            "bottles_per_link",
            "at least 1 per second and a burst of at least 128: one WANT",
        )?;
        require((1..=100).contains(&self.unknown_share_percent), "unknown_share_percent", "1 to 100")?;
        require(in_range(self.hint_lifetime, hours(1), days(365)), "hint_lifetime", "1 h to 365 days")?;
        require(
            self.tombstone_lifetime >= self.bottle_lifetime && self.tombstone_lifetime <= days(365),
            "tombstone_lifetime",
            "at least bottle_lifetime, else the last Bottle would come back; at most 365 days",
        )?;
        require(in_range(self.distrust_equivocation, hours(1), days(365)), "distrust_equivocation", "1 h to 365 days")
    }
}

fn require(holds: bool, name: &'static str, rule: &'static str) -> Result<(), ParamsError> {
    if holds { Ok(()) } else { Err(ParamsError { name, rule }) }
}

fn require_rate(rate: Rate, name: &'static str) -> Result<(), ParamsError> {
    let allowed = 1..=1_000_000;
    let holds = allowed.contains(&rate.per_second) && allowed.contains(&rate.burst);
    require(holds, name, "1 to 1000000 a second, and as much at once")
}

fn in_range(value: Duration, low: Duration, high: Duration) -> bool {
    low <= value && value <= high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sets_are_in_range() {
        assert_eq!(Params::private().validate(), Ok(()));
        assert_eq!(Params::DEFAULT.validate(), Ok(()));
        assert_eq!(Params::demo().validate(), Ok(()));
    }

    #[test]
    fn values_out_of_range_are_named() {
        let cases: [(Params, &str); 6] = [
            (Params { circuit_key_interval: Duration::ZERO, ..Params::DEFAULT }, "circuit_key_interval"),
            (Params { circuit_key_margin: hours(24), ..Params::DEFAULT }, "circuit_key_margin"),
            (Params { backoff_max: ms(1), ..Params::DEFAULT }, "backoff_max"),
            (Params { hops: 2, ..Params::DEFAULT }, "hops"),
            (Params { hops: 7, ..Params::DEFAULT }, "hops"),
            (Params { client_setups: Rate { per_second: 0, burst: 1 }, ..Params::DEFAULT }, "client_setups"),
        ];
        for (params, name) in cases {
            assert_eq!(params.validate().unwrap_err().name, name);
        }
    }
}
