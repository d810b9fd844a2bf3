//! What a run is about: how large the mesh is, what it is used for, what goes wrong, who lies. A TOML file, or built in.

use std::collections::BTreeMap;

use port17_proto::params::Params;
use port17_proto::params::codec::ParameterTextError;
use serde::Deserialize;

/// A scenario. Everything has a default; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Nodes at the start.
    pub nodes: usize,
    /// Clients.
    pub clients: usize,
    /// Virtual time until faults and churn stop, in minutes.
    pub minutes: u64,
    /// Virtual time after that, in minutes: all must be well again at its end.
    pub quiet_minutes: u64,
    /// Share of the nodes that the signed list names, in percent.
    pub listed_percent: u64,
    /// Share of the nodes that name no address, in percent.
    pub hidden_percent: u64,
    /// Share of the nodes that are exits, in percent.
    pub exit_percent: u64,
    /// The set of parameters to begin with: `default`, `private` or `demo`.
    pub parameter_set: String,
    /// Parameters that differ from the set, by name, in the words of a network file.
    pub parameters: BTreeMap<String, String>,
    /// Memory for cells of each host, in KiB; 0: as little as a network may choose.
    pub pool_kib: u64,
    /// The network between the hosts.
    pub wire: Wire,
    /// What clients do.
    pub traffic: Traffic,
    /// What goes wrong.
    pub faults: Faults,
    /// Who lies.
    pub liars: Liars,
}

/// The network between the hosts.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wire {
    /// Latencies by the cities where hosts stand; else `latency_ms` between any two.
    pub geography: bool,
    /// Between any two hosts, in milliseconds.
    pub latency_ms: u64,
    /// On top, drawn for each batch.
    pub jitter_ms: u64,
    /// Batches that come late, as TCP makes of a lost packet, in tenths of a percent.
    pub loss_permille: u64,
    /// Each lane's rate, in kilobytes a second; 0: none.
    pub kilobytes_per_second: u64,
}

/// What clients do.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// New streams of one client, an hour.
    pub streams_per_hour: u64,
    /// The largest of them, in bytes; most are small.
    pub largest_bytes: u64,
    /// Bytes of one download of the first client in the quiet time: 0 for none.
    pub last_download_bytes: u64,
}

/// What goes wrong, in times an hour over the whole mesh.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// A node's process is killed, and starts again within a minute or two.
    pub kills: u64,
    /// A client's process is killed, and starts again.
    pub client_kills: u64,
    /// A node leaves for good: half of them with a signed farewell.
    pub leaves: u64,
    /// Who has said farewell comes back after so many minutes, as if its key were stolen; 0: nobody does.
    pub ghost_minutes: u64,
    /// So many nodes say farewell and leave in the first hours, whatever else happens.
    pub farewells: u64,
    /// A new signed list, without one of the nodes of the last.
    pub lists: u64,
    /// A new node joins.
    pub joins: u64,
    /// One lane breaks.
    pub lane_cuts: u64,
    /// The mesh is cut in two for some minutes.
    pub partitions: u64,
    /// Some host's packets reach nobody for some minutes, while others' reach it.
    pub one_sided: u64,
    /// A process is stopped for up to a minute, and goes on.
    pub freezes: u64,
    /// A host's clock is set wrong, by minutes or hours, and right again.
    pub clock_jumps: u64,
    /// A disk is full for some minutes.
    pub full_disks: u64,
    /// Some links are clogged and released in another order.
    pub clogs: u64,
    /// A crash may leave its last record torn.
    pub torn_records: bool,
}

/// Who lies, and how many of each.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Liars {
    /// Offers Bottles of others that it has changed, and tombstones that nobody signed.
    pub forgers: usize,
    /// Offers Bottles of others that are old.
    pub replayers: usize,
    /// Signs two Bottles under one seq.
    pub equivocators: usize,
    /// Claims others' addresses as its own.
    pub impostors: usize,
    /// Announces and asks without end.
    pub flooders: usize,
    /// Identities that one party makes up and announces, in percent of all nodes.
    pub sybil_percent: u64,
    /// All Sybils dial one node and want its links.
    pub eclipse: bool,
    /// Signs Bottles that are ahead of the time.
    pub prophets: usize,
    /// Offers lists that the network's roots have not signed.
    pub list_forgers: usize,
    /// Clients that announce, publish and offer lists as if they were nodes.
    pub clients: usize,
    /// A node that repeats SETUPs and cells, flips bits in them, sends beyond its credit.
    pub cell_liars: usize,
    /// Clients that seal with the first keys of a circuit after the fresh ones.
    pub key_keepers: usize,
}

impl Default for Scenario {
    /// One virtual hour with mild churn.
    fn default() -> Self {
        Self {
            nodes: 20,
            clients: 3,
            minutes: 60,
            quiet_minutes: 25,
            listed_percent: 70,
            hidden_percent: 10,
            exit_percent: 50,
            parameter_set: "default".into(),
            parameters: BTreeMap::new(),
            pool_kib: 0,
            wire: Wire::default(),
            traffic: Traffic::default(),
            faults: Faults { kills: 2, leaves: 1, joins: 1, lane_cuts: 4, ..Faults::default() },
            liars: Liars::default(),
        }
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self { geography: true, latency_ms: 20, jitter_ms: 2, loss_permille: 1, kilobytes_per_second: 0 }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self { streams_per_hour: 60, largest_bytes: 1 << 20, last_download_bytes: 0 }
    }
}

/// A scenario's file is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, or a key that is not known; says line and key.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A parameter's words.
    #[error("[parameters]: {0}")]
    Parameter(#[from] ParameterTextError),
    /// A parameter's value.
    #[error("[parameters]: {0}")]
    Params(#[from] port17_proto::params::ParamsError),
    /// The set's name.
    #[error("parameter_set: {0:?} is none of default, private, demo")]
    Set(String),
    /// A number that makes no mesh.
    #[error("{0}")]
    Size(&'static str),
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// What is wrong, with line and key.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks what the types do not hold already.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ScenarioError> {
        self.params()?;
        if !(1..=20_000).contains(&self.nodes) {
            return Err(ScenarioError::Size("nodes: 1 to 20000"));
        }
        if self.clients > 10_000 {
            return Err(ScenarioError::Size("clients: at most 10000"));
        }
        if self.minutes + self.quiet_minutes > 60 * 24 * 60 {
            return Err(ScenarioError::Size("minutes: at most sixty days in all"));
        }
        Ok(())
    }

    /// The network's parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn params(&self) -> Result<Params, ScenarioError> {
        let mut params = match self.parameter_set.as_str() {
            "default" => Params::DEFAULT,
            "private" => Params::private(),
            "demo" => Params::demo(),
            _ => return Err(ScenarioError::Set(self.parameter_set.clone())),
        };
        for (name, text) in &self.parameters {
            params.set(name, text)?;
        }
        params.validate()?;
        Ok(params)
    }

    /// Memory for cells of each host, in bytes.
    pub(crate) fn pool_bytes(&self) -> u64 {
        const LEAST_KIB: u64 = 64 << 10;
        if self.pool_kib == 0 { LEAST_KIB << 10 } else { self.pool_kib << 10 }
    }

    /// Whether a process may start anew, and needs what it has stored.
    pub(crate) fn restarts(&self) -> bool {
        let Faults { kills, client_kills, clock_jumps, ghost_minutes, .. } = self.faults;
        kills + client_kills + clock_jumps + ghost_minutes > 0
    }

    /// The fault scenario: 20 nodes that are killed, cut off, frozen and lied to, in a quarter of an hour.
    pub fn faults() -> Self {
        Self {
            minutes: 9,
            quiet_minutes: 6,
            parameter_set: "private".into(),
            parameters: [("bottle_ahead", "1 h"), ("diversity", "false")]
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
            traffic: Traffic { streams_per_hour: 120, largest_bytes: 2 << 20, last_download_bytes: 0 },
            faults: Faults {
                kills: 24,
                client_kills: 6,
                leaves: 6,
                ghost_minutes: 1,
                farewells: 0,
                lists: 6,
                joins: 6,
                lane_cuts: 40,
                partitions: 6,
                one_sided: 6,
                freezes: 12,
                clock_jumps: 6,
                full_disks: 6,
                clogs: 6,
                torn_records: true,
            },
            ..Self::default()
        }
    }

    /// Clocks that are set wrong again and again, among 20 nodes that start anew.
    pub fn clocks() -> Self {
        let faults = Faults { kills: 24, client_kills: 12, joins: 6, clock_jumps: 120, ..Faults::default() };
        Self { clients: 8, faults, ..Self::faults() }
    }

    /// Liars of every kind among 20 nodes, and faults beside them.
    pub fn liars() -> Self {
        let mut scenario = Self::faults();
        scenario.faults.clock_jumps = 0;
        scenario.liars = Liars {
            forgers: 1,
            replayers: 1,
            equivocators: 1,
            impostors: 1,
            flooders: 1,
            sybil_percent: 30,
            eclipse: true,
            prophets: 1,
            list_forgers: 1,
            clients: 1,
            cell_liars: 2,
            key_keepers: 1,
        };
        scenario
    }

    /// Two days of a small mesh under a network's own times: keys turn, Bottles end, slots pass.
    pub fn days() -> Self {
        Self {
            nodes: 8,
            clients: 2,
            minutes: 44 * 60,
            quiet_minutes: 60,
            hidden_percent: 0,
            parameters: [("ping_interval", "2 min"), ("hops", "3")].map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            traffic: Traffic { streams_per_hour: 4, largest_bytes: 64 << 10, last_download_bytes: 0 },
            faults: Faults { kills: 1, lane_cuts: 1, ..Faults::default() },
            ..Self::default()
        }
    }

    /// Nine days: what is kept for a week is over, what is kept for a month is not.
    pub fn weeks() -> Self {
        let slow = [("ping_interval", "10 min"), ("repair_interval", "2 h"), ("hops", "3"), ("link_evaluate", "3 h")];
        Self {
            nodes: 7,
            clients: 1,
            minutes: 9 * 24 * 60,
            quiet_minutes: 12 * 60,
            hidden_percent: 0,
            listed_percent: 60,
            parameters: slow.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            traffic: Traffic { streams_per_hour: 1, largest_bytes: 16 << 10, last_download_bytes: 0 },
            faults: Faults { farewells: 2, ghost_minutes: 7 * 24 * 60 + 600, ..Faults::default() },
            ..Self::default()
        }
    }

    /// Little memory, and many who want it.
    pub fn tight() -> Self {
        Self {
            pool_kib: 400,
            clients: 6,
            faults: Faults { lane_cuts: 20, client_kills: 20, ..Faults::default() },
            ..Self::busy()
        }
    }

    /// One stream over more cells than a key seals.
    pub fn download() -> Self {
        Self {
            nodes: 5,
            clients: 1,
            minutes: 1,
            quiet_minutes: 6,
            hidden_percent: 0,
            listed_percent: 100,
            parameter_set: "private".into(),
            wire: Wire { geography: false, latency_ms: 5, jitter_ms: 1, loss_permille: 0, kilobytes_per_second: 0 },
            traffic: Traffic { streams_per_hour: 0, largest_bytes: 1 << 20, last_download_bytes: 140_000_000 },
            faults: Faults::default(),
            ..Self::default()
        }
    }

    /// Many streams on few circuits over thin wires.
    pub fn busy() -> Self {
        Self {
            nodes: 6,
            clients: 3,
            minutes: 5,
            quiet_minutes: 6,
            hidden_percent: 0,
            parameter_set: "private".into(),
            wire: Wire { geography: false, latency_ms: 15, jitter_ms: 5, loss_permille: 10, kilobytes_per_second: 4000 },
            traffic: Traffic { streams_per_hour: 3000, largest_bytes: 4 << 20, last_download_bytes: 0 },
            faults: Faults { lane_cuts: 20, clogs: 20, ..Faults::default() },
            ..Self::default()
        }
    }

    /// What `./test planted` goes through: name, scenario, and in which seeds (each so many).
    pub fn instruments() -> Vec<(&'static str, Self, u64)> {
        vec![
            ("faults", Self::faults(), 1),
            ("liars", Self::liars(), 1),
            ("clocks", Self::clocks(), 1),
            ("busy", Self::busy(), 3),
            ("tight", Self::tight(), 3),
            ("download", Self::download(), 10),
            ("days", Self::days(), 4),
            ("weeks", Self::weeks(), 8),
        ]
    }

    /// The names of the scenarios that need no file.
    pub fn names() -> Vec<&'static str> {
        std::iter::once("default").chain(Self::instruments().into_iter().map(|(name, ..)| name)).collect()
    }

    /// The scenario with one of these names.
    pub fn named(name: &str) -> Option<Self> {
        let default = ("default", Self::default(), 1);
        std::iter::once(default).chain(Self::instruments()).find(|(known, ..)| *known == name).map(|(_, scenario, _)| scenario)
    }
}
