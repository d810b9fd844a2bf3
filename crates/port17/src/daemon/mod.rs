//! The daemon: a node or a client, as tasks around the core.

mod answers;
mod driver;
mod lanes;
mod membership;
mod reload;
mod renewal;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use port17_proto::bottle::{Address, Flags, Seq};
use port17_proto::circuit::keyring::CircuitKeyring;
use port17_proto::crypto::{Entropy, KemBackend, SigningKey};
use port17_proto::identity::LinkKey;
use port17_proto::lane::credit::Pool;
use port17_proto::limits::ENGINE_INPUTS;
use port17_proto::node::Node;
use port17_proto::node::config::{ClientSetup, Config as EngineConfig, NodeSetup, Role};
use port17_proto::params::{Params, SetName};
use port17_proto::policy::{ExitGuard, ExitPolicy, Pattern};
use port17_proto::timers::Time;
use port17_proto::wire::registry::LaneType;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::answers::{Answers, ClientAnswers};
use self::driver::{Driver, Files, Sources};
use self::lanes::{Listener, Reception};
use self::membership::{Joining, Membership};
pub use self::reload::Reloading;
use crate::bottles::BottleDirectory;
use crate::client::listener::{Entrance, ListenError, ProxyListener};
use crate::client::tunnel::{Tunnel, TunnelOptions};
use crate::config::{Config, ExitConfig, ParameterSet};
use crate::control::{ControlError, ControlSocket};
use crate::exit::{Exit, ExitOpener};
use crate::keystore::{Keystore, KeystoreError, SeqFile, StateLock, system_entropy};
use crate::lane::{Clock, tls};
use crate::mesh_view::MeshView;
use crate::network_file::NetworkFileError;
use crate::plane::{Plane, unix_ms};
use crate::portmaster::Portmaster;
use crate::store::StoreError;
use crate::system;

/// Why a daemon could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Key or state files.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The configuration does not hold together.
    #[error("configuration: {0}")]
    Configuration(String),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {error}; {}", listen_advice(error))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The proxy port.
    #[error(transparent)]
    Proxy(#[from] ListenError),
    /// The directory of Bottles.
    #[error("the directory of Bottles {}: {error}", path.display())]
    Bottles {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// The network file.
    #[error(transparent)]
    Network(#[from] NetworkFileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS does not take the link key.
    #[error("the link key cannot be used: {0}")]
    Tls(#[from] tls::HandshakeError),
    /// Randomness, threads.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program uses the port: stop it, or choose another port in the configuration",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another port, or allow it",
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address: see `ip address`",
        _ => "check the address in the configuration",
    }
}

/// Runs a node until `stop` is ready, then ends it in order.
///
/// # Errors
/// When it cannot start or has to end.
pub async fn run_node(config: Config, reloading: Reloading, stop: impl Future<Output = ()> + Send) -> Result<(), DaemonError> {
    let params = parameters(&config);
    node(params, config, reloading, stop).await
}

/// [`run_node`] under parameters that are not one of the named sets: a test's own, with times as short as it needs. In a network
/// those of its file hold.
///
/// # Errors
/// When it cannot start or has to end.
pub async fn run_node_under(params: Params, config: Config, stop: impl Future<Output = ()> + Send) -> Result<(), DaemonError> {
    node(params, config, Reloading::never(), stop).await
}

async fn node(
    params: Params,
    config: Config,
    reloading: Reloading,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), DaemonError> {
    let _lock = StateLock::acquire(&config.state)?;
    let mut entropy = system_entropy()?;
    let keystore = Keystore::create(&config.identity.dir)?;
    let identity = keystore.identity_or_new(&mut entropy)?;
    let link_key = keystore.link_key_or_new(&mut entropy, Plane::unix_seconds())?;
    let seq_file = SeqFile::new(&config.state);
    let id = identity.node_id();
    let joining = Joining::read(&config)?;

    let tls = tls::server_config(link_key.key())?;
    let listeners = Listener::bind_all(&config.node.listen)?;
    let listening: Vec<_> = listeners.iter().map(Listener::address).collect();
    let setup = NodeSetup {
        exit_policy: config.exit.as_ref().map(policy).transpose()?,
        label: config.label_for(&id),
        group: config.group.clone(),
        link_key: link_key.public(),
        link_key_expiry_s: link_key.expiry_s(),
        next_link_key: None,
        addresses: advertised(&config, &listening),
        egress: Vec::new(),
        flags: Flags::default(),
        software: concat!("port17 ", env!("CARGO_PKG_VERSION")).to_owned(),
        neighbours: config.neighbours.clone(),
        accept_clients: config.node.accept_clients,
        kem: KemBackend::AwsLc,
        stored_seq: seq_file.load()?.map(Seq),
        identity,
    };
    let mut tasks = JoinSet::new();
    let clock = Clock::start();
    let (node, membership) = start_engine(Role::Node(Box::new(setup)), params, joining, &mut entropy, clock, &mut tasks)?;
    // Those of the stored list, if there is one.
    let params = node.params().clone();

    let exit = config.exit.as_ref().map(|exit| make_exit(exit, &params)).transpose()?;
    let opener = exit.clone().map(|exit| Arc::new(ExitOpener(exit)) as Arc<dyn crate::edge::Opener>);
    let (inputs, engine) = mpsc::channel(ENGINE_INPUTS);
    let (rotation, lifetime) = (params.circuit_key_interval.as_secs(), params.circuit_key_lifetime.as_secs());
    let keyring = CircuitKeyring::new(KemBackend::AwsLc, rotation, lifetime);
    let plane = Plane::new(clock, Some(id), params.clone(), pool(&params), keyring, opener, inputs.clone());
    plane.start_workers(&Handle::current(), &mut entropy)?;

    let (view, view_seen) = watch::channel(Arc::new(MeshView::default()));
    let files = Files { bottles: bottle_directory(&config)?, seq: Some(seq_file), id: Some(id) };
    let control = ControlSocket::bind(&config.control).await?;
    let label = config.label.as_ref().map(|label| label.as_str().to_owned());
    let (network, set) = in_words(membership.as_ref(), &params);
    let member = membership.as_ref().map(Membership::view);

    // Behind address translation the advertised addresses are not among the machine's own.
    let here = listening.iter().copied().chain(config.node.addresses.iter().copied()).collect();
    let sources = Sources { membership, reloading, config };
    let mut driver = Driver::new(node, Arc::clone(&plane), (inputs, engine), link_key, entropy, files, sources, view);
    driver.guard_exit(exit, here);
    let reception = Reception::new(&params);
    for listener in listeners {
        tasks.spawn(listener.run(reception.clone(), Arc::clone(&tls), driver.lanes()));
    }
    let answers =
        Answers { plane: Arc::clone(&plane), view: view_seen, questions: driver.questions(), label, member, client: None };
    tasks.spawn(control.serve(Arc::new(answers)));
    for address in &listening {
        tracing::info!(%address, node = %id, network, parameters = set, "node listens");
    }
    driver.run(stop).await;
    plane.stop();
    tasks.shutdown().await;
    tracing::info!("ended");
    Ok(())
}

/// Runs a client until `stop` is ready, then ends it in order.
///
/// # Errors
/// When it cannot start or has to end.
pub async fn run_client(config: Config, reloading: Reloading, stop: impl Future<Output = ()> + Send) -> Result<(), DaemonError> {
    let params = parameters(&config);
    client(params, config, reloading, stop).await
}

/// [`run_client`] under parameters that are not one of the named sets; in a network those of its file hold.
///
/// # Errors
/// When it cannot start or has to end.
pub async fn run_client_under(params: Params, config: Config, stop: impl Future<Output = ()> + Send) -> Result<(), DaemonError> {
    client(params, config, Reloading::never(), stop).await
}

async fn client(
    params: Params,
    config: Config,
    reloading: Reloading,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), DaemonError> {
    let _lock = StateLock::acquire(&config.state)?;
    let mut entropy = system_entropy()?;
    let joining = Joining::read(&config)?;
    let mut tasks = JoinSet::new();
    let clock = Clock::start();
    let role = Role::Client(ClientSetup { guard: config.client.guard, hops: config.client.hops.map(u32::from) });
    let (node, membership) = start_engine(role, params, joining, &mut entropy, clock, &mut tasks)?;
    let params = node.params().clone();
    let hops = hops(&config, &params)?;
    let (inputs, engine) = mpsc::channel(ENGINE_INPUTS);
    let keyring = CircuitKeyring::new(KemBackend::AwsLc, 1, 1);
    let plane = Plane::new(clock, None, params.clone(), pool(&params), keyring, None, inputs.clone());

    let (view, view_seen) = watch::channel(Arc::new(MeshView::default()));
    let files = Files { bottles: bottle_directory(&config)?, seq: None, id: None };
    let spares = usize::try_from(params.spare_circuits).unwrap_or(0);
    let control = ControlSocket::bind(&config.control).await?;
    let label = config.label.as_ref().map(|label| label.as_str().to_owned());
    let (network, set) = in_words(membership.as_ref(), &params);
    let member = membership.as_ref().map(Membership::view);
    let address = config.client.proxy;

    // A client's own link key is never shown: each connection has a throw-away one.
    let link_key = LinkKey::generate(0, &mut entropy);
    let forked = entropy.fork();
    let sources = Sources { membership, reloading, config };
    let driver = Driver::new(node, Arc::clone(&plane), (inputs, engine), link_key, forked, files, sources, view);
    let options = TunnelOptions { hops, spares, diversity: params.diversity, pin_hop2: params.pin_hop2 };
    let tunnel = Tunnel::new(Arc::clone(&plane), options, view_seen.clone(), driver.first_hops(), entropy.fork());

    let entrance = Arc::new(Entrance::new(Arc::clone(&tunnel), Portmaster::new()));
    let proxy = ProxyListener::bind(address, entrance).await?;
    let socks = proxy.local_address();
    tasks.spawn(async move { proxy.run().await });
    tasks.spawn(Arc::clone(&tunnel).run());
    let client = Some(ClientAnswers { tunnel, socks });
    let answers = Answers { plane: Arc::clone(&plane), view: view_seen, questions: driver.questions(), label, member, client };
    tasks.spawn(control.serve(Arc::new(answers)));
    tracing::info!(address = %socks, network, parameters = set, "proxy listens: SOCKS5, SOCKS4a, HTTP");
    driver.run(stop).await;
    plane.stop();
    tasks.shutdown().await;
    tracing::info!("ended");
    Ok(())
}

/// Hops of a client's routes.
fn hops(config: &Config, params: &Params) -> Result<usize, DaemonError> {
    let hops = config.client.hops.map_or(params.hops, u32::from);
    let least = params.danger_min_hops.max(u32::from(config.client.danger_min_hops));
    if hops < least {
        let why = format!("hops = {hops} is fewer than {least}: only `danger_min_hops` allows that, and it protects nobody");
        return Err(DaemonError::Configuration(why));
    }
    Ok(usize::try_from(hops).unwrap_or(0))
}

/// For the first line of the log: the network's name, and the parameters' set where it is not the usual one.
fn in_words(membership: Option<&Membership>, params: &Params) -> (Option<String>, Option<&'static str>) {
    let set = Some(params.name).filter(|set| *set != SetName::Default);
    (membership.map(|membership| membership.view().definition.name().to_owned()), set.map(SetName::as_str))
}

fn parameters(config: &Config) -> Params {
    match config.parameters {
        ParameterSet::Default => Params::DEFAULT,
        ParameterSet::Demo => Params::demo(),
    }
}

fn pool(params: &Params) -> Arc<Pool> {
    let share = system::memory_bytes().unwrap_or(0) / 100 * u64::from(params.pool_share_percent);
    Pool::new(share.max(params.pool_min_bytes))
}

/// Starts the engine with what the network's store has, and what serves its network. `params` hold without a network.
fn start_engine(
    role: Role,
    params: Params,
    mut joining: Option<Joining>,
    entropy: &mut Entropy,
    clock: Clock,
    tasks: &mut JoinSet<()>,
) -> Result<(Node, Option<Membership>), DaemonError> {
    let config = EngineConfig {
        role,
        params: joining.as_ref().map_or(params, |joining| joining.params().clone()),
        network: joining.as_ref().map(Joining::definition),
        stored: joining.as_mut().map(Joining::take_stored).unwrap_or_default(),
        entropy: entropy.fork(),
    };
    let node = Node::new(config, time(clock)).map_err(|error| DaemonError::Configuration(error.to_string()))?;
    let membership = joining.map(|joining| joining.join(&node, entropy.fork(), tasks)).transpose()?;
    Ok((node, membership))
}

fn time(clock: Clock) -> Time {
    Time { mono: clock.elapsed(), unix_ms: unix_ms() }
}

fn bottle_directory(config: &Config) -> Result<BottleDirectory, DaemonError> {
    let directory = BottleDirectory::new(&config.bottles);
    directory.make().map_err(|error| DaemonError::Bottles { path: config.bottles.clone(), error })?;
    Ok(directory)
}

fn policy(exit: &ExitConfig) -> Result<ExitPolicy, DaemonError> {
    ExitPolicy::parse(&exit.policy).map_err(|error| DaemonError::Configuration(format!("[exit] policy: {error}")))
}

fn make_exit(exit: &ExitConfig, params: &Params) -> Result<Arc<Exit>, DaemonError> {
    let parse = |text: &String| {
        text.parse::<Pattern>().map_err(|error| DaemonError::Configuration(format!("[exit] danger_exit_private {text}: {error}")))
    };
    let lifted: Vec<_> = exit.danger_exit_private.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(Exit::new(policy(exit)?, ExitGuard::new(lifted), exit.hosts.clone(), params.clone(), Handle::current()))
}

/// The addresses that the Bottle names: those of the configuration, else those listened on that are not "any".
fn advertised(config: &Config, listening: &[SocketAddr]) -> Vec<Address> {
    let named = &config.node.addresses;
    let from = if named.is_empty() { listening } else { named };
    let real = from.iter().filter(|address| !address.ip().is_unspecified());
    real.map(|address| Address::new(*address, LaneType::TlsTcp)).collect()
}

/// A key of a client for one connection alone.
fn throw_away(entropy: &mut Entropy) -> SigningKey {
    SigningKey::generate(entropy)
}
