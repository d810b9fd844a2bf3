//! The configuration file: TOML, one typed struct, unknown keys refused, safe defaults; what can hurt is named `danger_*`.
//!
//! Relative paths are taken from the directory of the configuration file. An error names the file, the line, the key and what is
//! allowed there, since that is all its reader needs to go on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use port17_proto::ids::NodeId;
use port17_proto::limits;
use port17_proto::policy::{ExitPolicy, Pattern};
use port17_proto::portname::Label;
use port17_proto::wire::registry;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use toml::Spanned;

use crate::client::name;

/// Where a node listens for links unless told otherwise.
const DEFAULT_LISTEN: [&str; 2] = ["0.0.0.0:1717", "[::]:1717"];
/// Where the proxy listens unless told otherwise.
const DEFAULT_PROXY: &str = "127.0.0.1:1080";
/// The fewest hops that need no `danger_min_hops`.
const SAFE_HOPS: u8 = 3;
/// A configuration file is written by hand; nothing larger is one.
const CONFIG_BYTES: u64 = 1024 * 1024;

/// Everything the daemon is told. Which of `node` and `client` counts follows from the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The node's label, the readable half of its PortName; none: [`Config::label_for`] gives one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "label_as_text")]
    pub label: Option<Label>,
    /// Operator or family, "" for none.
    pub group: String,
    /// Which set of network parameters holds where there is no network.
    pub parameters: ParameterSet,
    /// The network file; none: no signed list, and Bottles are exchanged by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<PathBuf>,
    /// Where Bottles are exchanged as files.
    pub bottles: PathBuf,
    /// The nodes to keep links with, these and no others; none: the node decides.
    #[serde(serialize_with = "node_ids_as_text")]
    pub neighbours: Option<Vec<NodeId>>,
    /// What must survive a restart: 0700, one daemon at a time.
    pub state: PathBuf,
    /// The control socket.
    pub control: PathBuf,
    /// Where the keys are.
    pub identity: IdentityConfig,
    /// The node's side.
    pub node: NodeConfig,
    /// What an exit does; none: this node is no exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitConfig>,
    /// The client's side.
    pub client: ClientConfig,
}

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityConfig {
    /// A directory of mode 0700.
    pub dir: PathBuf,
}

/// The node's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeConfig {
    /// Where links are accepted. An IPv6 address accepts IPv6 alone.
    pub listen: Vec<SocketAddr>,
    /// What the Bottle advertises.
    pub addresses: Vec<SocketAddr>,
    /// Whether clients may use this node as their guard.
    pub accept_clients: bool,
}

/// What an exit does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExitConfig {
    /// Rules in the exit policy language, first match, implicit reject; each was parsed once already.
    pub policy: Vec<String>,
    /// `prefix:ports` that the refusal of private addresses does not hold for; each was parsed once already.
    pub danger_exit_private: Vec<String>,
    /// Names the exit resolves by itself.
    pub hosts: BTreeMap<String, IpAddr>,
}

/// The client's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientConfig {
    /// Where SOCKS and HTTP are accepted, loopback unless [`Self::danger_proxy_listen`].
    pub proxy: SocketAddr,
    /// Lets other machines use the proxy, and see what goes through it.
    pub danger_proxy_listen: bool,
    /// The first hop; none: one is drawn.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "node_id_as_text")]
    pub guard: Option<NodeId>,
    /// Hops of a route; none: as many as the network's parameters say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u8>,
    /// The fewest hops allowed.
    pub danger_min_hops: u8,
}

/// A set of network parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterSet {
    /// For a network of strangers.
    Default,
    /// For a mesh that forms in seconds on one machine.
    Demo,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}; {}", path.display(), advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something that is not allowed.
    #[error(transparent)]
    Invalid(#[from] InvalidFile),
}

/// A file in TOML says something that is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {key}: {problem}", path.display())]
pub struct InvalidFile {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key with its table, as `client.hops`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl InvalidFile {
    /// What is wrong at the byte at `offset` of the file's `text`, with the key there unless another is given.
    pub fn at(text: &str, path: &Path, offset: usize, key: Option<&str>, problem: &str) -> Self {
        let (line, found) = key_at(text, offset);
        let key = key.map_or(found, str::to_owned);
        // The parser's messages may have several lines; the first says it, the others draw the place.
        let problem = problem.lines().next().unwrap_or_default().to_owned();
        Self { path: path.to_owned(), line, key, problem }
    }
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "`port17 init` writes a configuration, --config names another file",
        std::io::ErrorKind::PermissionDenied => "run this as the user whose file it is, or name your own file by --config",
        _ => "--config names another file",
    }
}

/// The places used where the configuration names none: the system's for root, else the XDG ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// The control socket.
    pub control: PathBuf,
}

impl Places {
    /// The places of the user that runs this process.
    pub fn of_this_user() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::of_the_system();
        }
        Self::of_user(|name| std::env::var_os(name).map(PathBuf::from), &std::env::home_dir().unwrap_or_else(|| "/".into()))
    }

    /// The places of a system service.
    pub fn of_the_system() -> Self {
        Self {
            config: "/etc/port17/port17.toml".into(),
            state: "/var/lib/port17".into(),
            control: "/run/port17/control.sock".into(),
        }
    }

    /// The XDG places under `home`; `variable` looks up the environment. Relative values are ignored, as XDG asks.
    pub fn of_user(variable: impl Fn(&str) -> Option<PathBuf>, home: &Path) -> Self {
        let base = |name: &str| variable(name).filter(|path| path.is_absolute());
        let state = base("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("port17");
        let runtime = base("XDG_RUNTIME_DIR").map(|path| path.join("port17"));
        Self {
            config: base("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("port17/port17.toml"),
            control: runtime.unwrap_or_else(|| state.clone()).join("control.sock"),
            state,
        }
    }
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or says something that is not allowed.
    pub fn load(path: &Path, places: &Places) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > CONFIG_BYTES {
            return Err(unreadable(std::io::Error::other(format!("larger than {CONFIG_BYTES} bytes"))));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, path, places)
    }

    /// Parses a configuration's text; `path` is named in errors and gives the directory of relative paths.
    ///
    /// # Errors
    /// When it says something that is not allowed.
    pub fn parse(text: &str, path: &Path, places: &Places) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            InvalidFile::at(text, path, offset, None, error.message())
        })?;
        Ok(file
            .resolve(path, places)
            .map_err(|wrong| InvalidFile::at(text, path, wrong.span.start, Some(wrong.key), &wrong.problem))?)
    }

    /// What holds without any file.
    pub fn without_file(places: &Places) -> Self {
        // The empty text has no key that could be wrong.
        Self::parse("", &places.config, places).expect("an empty configuration is valid")
    }

    /// The configuration as a file's text, for who starts other processes.
    pub fn to_toml(&self) -> String {
        // Strings, numbers, lists and tables with string keys: all of them exist in TOML.
        toml::to_string(self).expect("a configuration can be written as TOML")
    }

    /// The configured label, else one that is drawn from the NodeID: it stays the same over restarts and tells nothing about the
    /// host. (The PortName's suffix is the NodeID's first 13 characters; these are the next four.)
    pub fn label_for(&self, node: &NodeId) -> Label {
        // Base32 makes a label.
        let drawn = || format!("node-{}", &node.to_base32()[13..17]).parse().expect("node- and base32 are a label");
        self.label.clone().unwrap_or_else(drawn)
    }
}

fn label_as_text<S: Serializer>(label: &Option<Label>, serializer: S) -> Result<S::Ok, S::Error> {
    label.as_ref().map(Label::as_str).serialize(serializer)
}

fn node_ids_as_text<S: Serializer>(ids: &Option<Vec<NodeId>>, serializer: S) -> Result<S::Ok, S::Error> {
    ids.as_ref().map(|ids| ids.iter().map(NodeId::to_base32).collect::<Vec<_>>()).serialize(serializer)
}

fn node_id_as_text<S: Serializer>(id: &Option<NodeId>, serializer: S) -> Result<S::Ok, S::Error> {
    id.map(|id| id.to_base32()).serialize(serializer)
}

/// The file as it is written: everything may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    label: Option<Text<Label>>,
    group: Option<Group>,
    parameters: Option<Spanned<ParameterSet>>,
    network: Option<PathBuf>,
    bottles: Option<PathBuf>,
    neighbours: Option<Vec<Text<NodeId>>>,
    state: Option<PathBuf>,
    control: Option<PathBuf>,
    identity: IdentityFile,
    node: NodeFile,
    exit: Option<ExitFile>,
    client: ClientFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IdentityFile {
    dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NodeFile {
    listen: Option<Spanned<Vec<Text<SocketAddr>>>>,
    addresses: Option<Spanned<Vec<Text<SocketAddr>>>>,
    accept_clients: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExitFile {
    policy: Spanned<Vec<String>>,
    #[serde(default)]
    danger_exit_private: Vec<Spanned<String>>,
    #[serde(default)]
    hosts: BTreeMap<Spanned<String>, Text<IpAddr>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ClientFile {
    proxy: Option<Spanned<Text<SocketAddr>>>,
    danger_proxy_listen: bool,
    guard: Option<Text<NodeId>>,
    hops: Option<Spanned<u8>>,
    danger_min_hops: Option<Spanned<u8>>,
}

/// A value that is well-formed by itself but wrong here.
struct Wrong {
    span: Range<usize>,
    key: &'static str,
    problem: String,
}

impl File {
    fn resolve(self, path: &Path, places: &Places) -> Result<Config, Wrong> {
        let base = path.parent().unwrap_or(Path::new(""));
        let absolute = |path: PathBuf| std::path::absolute(base.join(&path)).unwrap_or(path);
        let own_state = self.state.is_some();
        let state = self.state.map_or_else(|| places.state.clone(), absolute);
        // Who moves the state runs a second instance; it must not meet the first one's socket.
        let control = if own_state { state.join("control.sock") } else { places.control.clone() };
        Ok(Config {
            label: self.label.map(|label| label.0),
            group: self.group.map(|group| group.0).unwrap_or_default(),
            parameters: parameters(self.parameters, self.network.is_some())?,
            network: self.network.map(absolute),
            bottles: self.bottles.map_or_else(|| state.join("bottles"), absolute),
            neighbours: self.neighbours.map(|ids| ids.into_iter().map(|id| id.0).collect()),
            control: self.control.map_or(control, absolute),
            identity: IdentityConfig { dir: self.identity.dir.map_or_else(|| state.join("keys"), absolute) },
            node: self.node.resolve()?,
            exit: self.exit.map(ExitFile::resolve).transpose()?,
            client: self.client.resolve()?,
            state,
        })
    }
}

/// A network has its own parameters: what is written here would never count.
fn parameters(value: Option<Spanned<ParameterSet>>, in_a_network: bool) -> Result<ParameterSet, Wrong> {
    match value {
        Some(set) if in_a_network && *set.get_ref() != ParameterSet::Default => Err(Wrong {
            span: set.span(),
            key: "parameters",
            problem: "the network's parameters hold, those of its network file until its first list; remove this key".into(),
        }),
        Some(set) => Ok(set.into_inner()),
        None => Ok(ParameterSet::Default),
    }
}

impl NodeFile {
    fn resolve(self) -> Result<NodeConfig, Wrong> {
        let listen = match self.listen {
            Some(listen) => bounded(listen, "node.listen")?,
            None => DEFAULT_LISTEN.iter().filter_map(|text| text.parse().ok()).collect(),
        };
        let addresses = match self.addresses {
            Some(addresses) => bounded(addresses, "node.addresses")?,
            None => listen.iter().copied().filter(|address: &SocketAddr| !address.ip().is_unspecified()).collect(),
        };
        Ok(NodeConfig { listen, addresses, accept_clients: self.accept_clients.unwrap_or(true) })
    }
}

fn bounded(list: Spanned<Vec<Text<SocketAddr>>>, key: &'static str) -> Result<Vec<SocketAddr>, Wrong> {
    let span = list.span();
    let addresses: Vec<SocketAddr> = list.into_inner().into_iter().map(|address| address.0).collect();
    if addresses.len() > limits::BOTTLE_ADDRESSES {
        return Err(Wrong { span, key, problem: format!("at most {} addresses are allowed", limits::BOTTLE_ADDRESSES) });
    }
    if key == "node.addresses" && addresses.iter().any(|address| address.ip().is_unspecified() || address.port() == 0) {
        return Err(Wrong { span, key, problem: "others must be able to dial them: no 0.0.0.0, no [::], no port 0".into() });
    }
    Ok(addresses)
}

impl ExitFile {
    fn resolve(self) -> Result<ExitConfig, Wrong> {
        let mut hosts = BTreeMap::new();
        for (host, address) in self.hosts {
            let span = host.span();
            let host = name::parse(host.get_ref()).map_err(|error| Wrong {
                span,
                key: "exit.hosts",
                problem: format!("`{}`: {error}", host.get_ref()),
            })?;
            hosts.insert(host, address.0);
        }
        ExitPolicy::parse(self.policy.get_ref()).map_err(|error| Wrong {
            span: self.policy.span(),
            key: "exit.policy",
            problem: error.to_string(),
        })?;
        for lifted in &self.danger_exit_private {
            lifted.get_ref().parse::<Pattern>().map_err(|error| {
                let problem = format!("`{}`: {error}", lifted.get_ref());
                Wrong { span: lifted.span(), key: "exit.danger_exit_private", problem }
            })?;
        }
        let danger_exit_private = self.danger_exit_private.into_iter().map(Spanned::into_inner).collect();
        Ok(ExitConfig { policy: self.policy.into_inner(), danger_exit_private, hosts })
    }
}

impl ClientFile {
    fn resolve(self) -> Result<ClientConfig, Wrong> {
        let danger_min_hops = hops(self.danger_min_hops.as_ref(), "client.danger_min_hops", 1)?.unwrap_or(SAFE_HOPS);
        let hops = hops(self.hops.as_ref(), "client.hops", danger_min_hops)?;
        Ok(ClientConfig {
            proxy: proxy(self.proxy, self.danger_proxy_listen)?,
            danger_proxy_listen: self.danger_proxy_listen,
            guard: self.guard.map(|id| id.0),
            hops,
            danger_min_hops,
        })
    }
}

fn hops(value: Option<&Spanned<u8>>, key: &'static str, least: u8) -> Result<Option<u8>, Wrong> {
    let Some(value) = value else { return Ok(None) };
    let hops = *value.get_ref();
    if usize::from(hops) > registry::MAX_HOPS || hops == 0 {
        let problem = format!("{hops}: 1 to {} are allowed", registry::MAX_HOPS);
        return Err(Wrong { span: value.span(), key, problem });
    }
    if hops < least {
        let problem = format!("{hops}: at least {least} are needed; `danger_min_hops = {hops}` allows fewer, for measuring only");
        return Err(Wrong { span: value.span(), key, problem });
    }
    Ok(Some(hops))
}

fn proxy(value: Option<Spanned<Text<SocketAddr>>>, danger: bool) -> Result<SocketAddr, Wrong> {
    let Some(value) = value else {
        // The constant is an address.
        return Ok(DEFAULT_PROXY.parse().expect("the default proxy address is one"));
    };
    let address = value.get_ref().0;
    if address.ip().is_loopback() || danger {
        return Ok(address);
    }
    let problem = format!(
        "{address}: only loopback addresses (127.0.0.1, [::1]) are allowed, since whoever reaches the proxy can use it; \
         `danger_proxy_listen = true` allows others"
    );
    Err(Wrong { span: value.span(), key: "client.proxy", problem })
}

/// A value written as a string.
#[derive(Debug)]
struct Text<T>(T);

/// What can be parsed from a string, with what is expected there.
trait FromText: Sized {
    const EXPECTED: &str;
    fn from_text(text: &str) -> Option<Self>;
}

impl FromText for NodeId {
    const EXPECTED: &str = "a NodeID: 52 characters a-z and 2-7";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for Label {
    // spec 03, 2
    const EXPECTED: &str = "3 to 24 characters a-z, 0-9 and -, the first one a-z";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for SocketAddr {
    const EXPECTED: &str = "an address with a port, as \"127.0.0.1:1717\" or \"[::1]:1717\"";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for IpAddr {
    const EXPECTED: &str = "an IPv4 or IPv6 address";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::from_text(&text).map(Self).ok_or_else(|| D::Error::custom(format!("`{text}`: expected {}", T::EXPECTED)))
    }
}

/// An operator's or family's name.
#[derive(Debug)]
struct Group(String);

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() <= limits::GROUP_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("`{text}`: expected at most {} ASCII characters", limits::GROUP_CHARS)))
    }
}

/// The line, from 1, and the key that the byte at `offset` belongs to: the nearest `key =` at or above it, within its table.
fn key_at(text: &str, offset: usize) -> (usize, String) {
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let above: Vec<&str> = text.lines().take(line + 1).collect();
    let table_of = |line: &str| line.trim().strip_prefix('[')?.split(']').next().map(|name| name.trim().to_owned());
    let is_key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned()).filter(|key| Key(key).is_plain());
    let table = above.iter().rev().find_map(|line| table_of(line).filter(|name| Key(name).is_plain()));
    let key = above.iter().rev().take_while(|line| table_of(line).is_none()).find_map(|line| is_key(line));
    let parts: Vec<String> = [table, key].into_iter().flatten().collect();
    let key = if parts.is_empty() { "syntax".to_owned() } else { parts.join(".") };
    (line + 1, key)
}

struct Key<'a>(&'a str);

impl Key<'_> {
    fn is_plain(&self) -> bool {
        !self.0.is_empty() && self.0.chars().all(|letter| letter.is_alphanumeric() || "-_.\" ".contains(letter))
    }
}

impl fmt::Display for ParameterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Demo => "demo",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::of_the_system()
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/port17/port17.toml"), &places())
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn empty_file_gives_the_safe_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.client.proxy.to_string(), "127.0.0.1:1080");
        assert_eq!((config.client.hops, config.client.danger_min_hops), (None, 3));
        assert!(!config.client.danger_proxy_listen);
        assert_eq!(config.exit, None);
        assert_eq!(config.node.listen.len(), 2);
        assert!(config.node.addresses.is_empty(), "unspecified addresses are not advertised");
        assert!(config.node.accept_clients);
        assert_eq!(config.parameters, ParameterSet::Default);
        assert_eq!(config.state, Path::new("/var/lib/port17"));
        assert_eq!(config.identity.dir, Path::new("/var/lib/port17/keys"));
        assert_eq!(config.bottles, Path::new("/var/lib/port17/bottles"));
        assert_eq!(config.control, Path::new("/run/port17/control.sock"));
        assert_eq!(config, Config::without_file(&places()));
    }

    const FULL: &str = r#"
label = "harbour"
group = "family one"
parameters = "demo"
bottles = "bottles"
neighbours = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
state = "/srv/one"
[identity]
dir = "/srv/keys"
[node]
listen = ["127.0.1.1:1717"]
accept_clients = false
[exit]
policy = ["accept tcp *:80", "reject * *:*"]
danger_exit_private = ["127.0.0.0/8:*"]
[exit.hosts]
"Origin.Demo." = "127.0.0.1"
[client]
proxy = "[::1]:1081"
guard = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
hops = 2
danger_min_hops = 1
"#;

    #[test]
    fn every_key_is_read_and_written_again() {
        let config = parse(FULL).unwrap();
        assert_eq!(config.bottles, Path::new("/etc/port17/bottles"), "relative to the file");
        assert_eq!(config.control, Path::new("/srv/one/control.sock"), "a moved state moves its socket");
        assert_eq!(config.node.addresses, config.node.listen);
        assert_eq!(config.neighbours, Some(vec![NodeId([0; 32])]));
        assert_eq!(parse("").unwrap().neighbours, None, "the node decides");
        assert_eq!(parse("neighbours = []").unwrap().neighbours, Some(vec![]));
        assert_eq!(config.exit.as_ref().unwrap().hosts["origin.demo"].to_string(), "127.0.0.1");
        assert_eq!(config.client.guard, Some(NodeId([0; 32])));
        assert_eq!(parse(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn the_network_file_is_looked_for_beside_the_configuration() {
        let config = parse("network = \"three.network.toml\"").unwrap();
        assert_eq!(config.network.as_deref(), Some(Path::new("/etc/port17/three.network.toml")));
        assert_eq!(parse(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn unknown_keys_are_refused_with_file_line_and_key() {
        let text = error("label = \"harbour\"\n\n[node]\nlissen = []\n");
        assert!(text.starts_with("/etc/port17/port17.toml:4: node.lissen: unknown field `lissen`"), "{text}");
        assert!(text.contains("`listen`"), "says what is allowed: {text}");
        let text = error("lable = 1\n");
        assert!(text.starts_with("/etc/port17/port17.toml:1: lable: unknown field"), "{text}");
    }

    #[test]
    fn wrong_values_name_line_key_and_what_is_allowed() {
        for (text, starts, contains) in [
            ("[client]\nhops = 9", ":2: client.hops: 9", "1 to 6"),
            ("[client]\nhops = 0", ":2: client.hops: 0", "1 to 6"),
            ("[client]\nhops = 2", ":2: client.hops: 2", "danger_min_hops"),
            ("[client]\nhops = -1", ":2: client.hops: ", "-1"),
            ("[client]\nhops = \"three\"", ":2: client.hops: ", "string"),
            ("[client]\nproxy = \"0.0.0.0:1080\"", ":2: client.proxy: 0.0.0.0:1080", "danger_proxy_listen"),
            ("[client]\nproxy = \"1080\"", ":2: client.proxy: `1080`", "127.0.0.1:1717"),
            ("[client]\nguard = \"x\"", ":2: client.guard: `x`", "52 characters"),
            ("neighbours = [\n  \"x\",\n]", ":1: neighbours: `x`", "52 characters"),
            ("label = \"Harbour\"", ":1: label: `Harbour`", "3 to 24"),
            ("group = \"é\"", ":1: group: `é`", "ASCII"),
            ("parameters = \"fast\"", ":1: parameters: ", "`demo`"),
            ("network = \"x\"\nparameters = \"demo\"", ":2: parameters: ", "remove this key"),
            ("[node]\naddresses = [\"0.0.0.0:1717\"]", ":2: node.addresses: ", "dial"),
            ("[exit]\npolicy = []\n[exit.hosts]\n\"a b\" = \"127.0.0.1\"", ":4: exit.hosts: `a b`", "characters"),
            ("[exit]\npolicy = []\n[exit.hosts]\n\"a\" = \"here\"", ":4: exit.hosts.\"a\": `here`", "IPv4"),
            ("[exit]\npolicy = []", ":2: exit.policy: ", "at least one rule"),
            ("[exit]\npolicy = [\"accept tcp *\"]", ":2: exit.policy: rule 1", "*"),
            (
                "[exit]\npolicy = [\"accept tcp *:80\"]\ndanger_exit_private = [\"x:*\"]",
                ":3: exit.danger_exit_private: `x:*`",
                "x",
            ),
            ("[exit]\ndanger_exit_private = []", ":1: exit: ", "policy"),
            ("label = ", ":1: label: ", ""),
        ] {
            let error = error(text);
            let rest = error.strip_prefix("/etc/port17/port17.toml").expect("the file comes first");
            assert!(rest.starts_with(starts) && rest.contains(contains), "{text:?} gave {error}");
        }
    }

    #[test]
    fn danger_switches_allow_what_is_refused_without() {
        assert!(parse("[client]\nproxy = \"0.0.0.0:1080\"\ndanger_proxy_listen = true").is_ok());
        assert_eq!(parse("[client]\nhops = 1\ndanger_min_hops = 1").unwrap().client.hops, Some(1));
    }

    #[test]
    fn too_many_addresses_are_refused() {
        let many: Vec<String> = (1..=9).map(|n| format!("\"127.0.0.{n}:1717\"")).collect();
        assert!(error(&format!("[node]\nlisten = [{}]", many.join(","))).contains("at most 8"));
    }

    #[test]
    fn missing_file_says_what_to_do() {
        let error = Config::load(Path::new("/nonexistent/port17.toml"), &places()).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/port17.toml: ") && error.contains("port17 init"), "{error}");
    }

    #[test]
    fn users_have_their_xdg_places() {
        let home = Path::new("/home/a");
        let plain = Places::of_user(|_| None, home);
        assert_eq!(plain.config, Path::new("/home/a/.config/port17/port17.toml"));
        assert_eq!(plain.control, Path::new("/home/a/.local/state/port17/control.sock"));
        let set = Places::of_user(|name| Some(PathBuf::from(format!("/x/{name}"))), home);
        assert_eq!(set.state, Path::new("/x/XDG_STATE_HOME/port17"));
        assert_eq!(set.control, Path::new("/x/XDG_RUNTIME_DIR/port17/control.sock"));
        assert_eq!(Places::of_user(|_| Some("relative".into()), home), plain);
    }

    #[test]
    fn label_without_configuration_comes_from_the_node_id() {
        let config = parse("").unwrap();
        assert_eq!(config.label_for(&NodeId([0; 32])).as_str(), "node-aaaa");
        assert_eq!(parse("label = \"harbour\"").unwrap().label_for(&NodeId([0; 32])).as_str(), "harbour");
    }
}
