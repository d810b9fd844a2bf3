use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use port17_proto::policy::ExitPolicy;
use port17_proto::portname::{Label, PortNameError};

/// A privacy mesh network.
#[derive(Debug, Parser)]
#[command(name = "port17", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The control socket of a daemon, instead of the configured one
    #[arg(long, global = true, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more; twice: much more. PORT17_LOG sets it by module
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 configuration, 4 no network, 5 no route, \
                          6 resource or permission, 130 interrupted";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make keys and a commented configuration where they are missing; print NodeID and PortName
    Init(InitArguments),
    /// Run a node: keep links, forward cells
    Node(DaemonArguments),
    /// Run a client: a SOCKS and HTTP proxy that leads into the mesh
    Client(DaemonArguments),
    /// Run a whole mesh on this machine and download through it
    Demo(DemoArguments),
    /// Run a mesh in virtual time, with faults, and measure it
    Simulate(SimulateArguments),
    /// Let the running daemon read its configuration again and look for a newer list
    Reload,
    /// Look at Bottles, the nodes' signed records
    #[command(subcommand)]
    Bottle(BottleCommand),
    /// Make a network of your own, sign its list, look at both
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Check configuration, keys, Bottles and ports; change nothing
    Check,
    /// Print the shell lines that lead programs into the running client
    Env,
    /// Say how the running daemon is: one line for people first. Exit code 4 while it is not connected
    Status,
    /// Print the mesh as the running daemon knows it
    Map(MapArguments),
    /// Let the running client draw a route, and print the circuits that stand
    Route(RouteArguments),
    /// Print the completion script of a shell
    Completions(CompletionsArguments),
    /// Print the manual page, or write those of all subcommands
    Man(ManArguments),
}

#[derive(Debug, Args)]
pub(crate) struct MapArguments {
    /// Print it for graphviz
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RouteArguments {
    /// Where to: HOST, HOST:PORT or an address; port 443 where none is named
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// Hops, instead of the client's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=6))]
    pub(crate) hops: Option<u8>,
    /// A node that the route must not touch, by NodeID or PortName; may be given several times
    #[arg(long, value_name = "NODE")]
    pub(crate) exclude: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Write the pages of all subcommands into this directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// The file of the network to join, or `public`
    #[arg(long, value_name = "FILE")]
    pub(crate) network: Option<PathBuf>,
    /// The readable half of the node's name: 3 to 24 characters a-z, 0-9 and -
    #[arg(long, value_name = "LABEL", value_parser = label)]
    pub(crate) label: Option<Label>,
    /// Where others dial this node
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub(crate) address: Vec<SocketAddr>,
    /// Be an exit: a rule such as "accept tcp *:80,443"; more than one may be given, the first match decides
    #[arg(long, value_name = "RULE", value_parser = exit_rule)]
    pub(crate) exit: Vec<String>,
}

fn label(text: &str) -> Result<Label, String> {
    text.parse().map_err(|error: PortNameError| error.to_string())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected an address and a port, as 192.0.2.1:1717")?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err("nobody can dial it: expected the address and the port that others reach".to_owned());
    }
    Ok(address)
}

fn exit_rule(text: &str) -> Result<String, String> {
    ExitPolicy::parse(&[text]).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network: its file and its root keys
    New(NewNetworkArguments),
    /// Sign a list of the network's nodes, or add a signature to one
    Sign(SignArguments),
    /// Print what a network file or a list says
    Show {
        /// A network file, a list, or `public`
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Tell which signers of a list are roots of this network
        #[arg(long, value_name = "FILE")]
        network: Option<PathBuf>,
    },
    /// Check that a list is one that the network's nodes take now
    Verify {
        /// The network's file
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
        /// The list
        #[arg(value_name = "LIST", default_value = "bootstrap-nodes.json")]
        list: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewNetworkArguments {
    /// 3 to 32 characters a-z, 0-9 and -, the first a-z
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Root keys to make
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) roots: u8,
    /// How many of them must sign a list; default: more than half
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) threshold: Option<u8>,
    /// For one operator's own network: it forms from three nodes, and hides less
    #[arg(long)]
    pub(crate) private: bool,
    /// Where nodes and clients fetch the list: https://…, file:PATH or a path; may be given several times
    #[arg(long, value_name = "URL")]
    pub(crate) source: Vec<String>,
    /// The CA certificates that the sources are held to, as PEM, instead of the public web's
    #[arg(long, value_name = "PEM")]
    pub(crate) ca: Option<PathBuf>,
    /// Allow http:// sources: whoever is on the way can hold newer lists back
    #[arg(long)]
    pub(crate) danger_http: bool,
    /// Where the files go
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SignArguments {
    /// The network's file
    #[arg(long, value_name = "FILE")]
    pub(crate) network: PathBuf,
    /// A root key to sign with; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) key: Vec<PathBuf>,
    /// How long the list holds
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..=90))]
    pub(crate) days: u8,
    /// The list to write; the one that is there gives the sequence number
    #[arg(long, value_name = "LIST", default_value = "bootstrap-nodes.json")]
    pub(crate) list: PathBuf,
    /// Add signatures to this list instead of making a new one
    #[arg(long, value_name = "LIST", conflicts_with_all = ["bottles", "days", "list"])]
    pub(crate) add: Option<PathBuf>,
    /// The Bottles of all nodes that are to be trusted, as `bottle export` gives them
    #[arg(value_name = "BOTTLE", required_unless_present = "add")]
    pub(crate) bottles: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DaemonArguments {
    /// End when standard input ends, as it does when the starting process dies
    #[arg(long, hide = true)]
    pub(crate) until_stdin_ends: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// End after the download
    #[arg(long)]
    pub(crate) check: bool,
    /// Run every node and the client as a process of its own
    #[arg(long)]
    pub(crate) processes: bool,
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: u8,
    /// Hops of the route; fewer than 3 are for measuring only
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=6))]
    pub(crate) hops: u8,
    /// Write a JSON file with all addresses and process ids once the download is done
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    /// Nodes at the start, instead of the scenario's; 20 without one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) nodes: Option<u32>,
    /// Clients, instead of the scenario's; 3 without one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) clients: Option<u32>,
    /// Virtual minutes with faults and churn, instead of the scenario's; 60 without one. Quiet ones follow, as many as the scenario says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) minutes: Option<u32>,
    /// Everything that is drawn follows from it: one seed, one run
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// So many runs, with the seeds from S on, on all cores: figures with means and 95 % confidence intervals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) seeds: Option<u32>,
    /// What the run is about, as docs/simulator.md has it: a file, or default, faults, liars, clocks, busy, tight, download, days, weeks
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) scenario: Option<PathBuf>,
    /// Write a picture: the map of the mesh at the end; with --seeds the figures
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BottleCommand {
    /// Print what a Bottle says
    Show {
        /// The file, - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check signature, bounds and age
    Verify {
        /// The files, - for standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Write this node's own Bottle to standard output
    Export {
        /// Write to a file instead
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Verify Bottles and put the newest of each node into the configured directory
    Import {
        /// The files, - for standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
