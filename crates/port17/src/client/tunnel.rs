//! What a listener needs of the mesh: open a stream, then pump bytes. Behind it are the client's standing circuits.
//!
//! A stream goes over a standing circuit of the same isolation key, or over a spare one, or over a new one. A circuit that dies
//! before it is open is rebuilt: the same route once, then without the hop that did not answer (spec 10). Nothing is ever sent
//! directly instead (law 7).
//!
//! All circuits begin at the active guard, and go on over the node that is pinned behind it. When another guard becomes the active one,
//! circuits over the last one get no new streams, and end when those that they have are over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use port17_proto::bottlerack::Trust;
use port17_proto::circuit::hop::send_setup;
use port17_proto::circuit::origin::Origin;
use port17_proto::circuit::replay::slot_of;
use port17_proto::circuit::setup::{RouteHop, draw_offset};
use port17_proto::crypto::{Entropy, KemBackend};
use port17_proto::ids::NodeId;
use port17_proto::lane::credit::Granter;
use port17_proto::lane::reader::{Command, Install, Port};
use port17_proto::limits::{FIRST_WINDOW_CELLS, STANDING_CIRCUITS};
use port17_proto::navigator::{self, NoRoute, RouteRequest, RouteSample};
use port17_proto::planted::planted;
use port17_proto::wire::registry::{ResetCode, SetupStatus, StreamProtocol};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::edge::{Edge, EdgeStream, Progress, run_client};
use crate::lane::lock;
use crate::mesh_view::MeshView;
use crate::plane::{Carrying, Plane, unix_ms};
use crate::planted;

pub use port17_proto::circuit::message::{Host, Target};

/// Streams with different isolation keys never share a circuit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Isolation {
    /// User name and password given to the proxy, none where none were asked.
    pub credentials: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why a stream could not be opened; a listener turns it into its protocol's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The target refused the connection.
    #[error("the target refused the connection")]
    Refused,
    /// The target cannot be reached or its name not be resolved.
    #[error("the target cannot be reached, or its name cannot be resolved at the exit")]
    Unreachable,
    /// The exit's policy or the local Portmaster forbids it.
    #[error("the exit's policy does not allow this target")]
    Policy,
    /// Nobody answered in time.
    #[error("no answer in time")]
    Timeout,
    /// A limit was reached, here or at the exit.
    #[error("a limit was reached; try again later")]
    Resource,
    /// A peer broke the protocol.
    #[error("the circuit broke")]
    Protocol,
    /// No route: no exit or no links.
    #[error("no route to an exit: the mesh is not connected yet, or no exit allows this target")]
    NoRoute,
}

impl From<ResetCode> for OpenError {
    fn from(code: ResetCode) -> Self {
        match code {
            ResetCode::Refused => Self::Refused,
            ResetCode::Unreachable => Self::Unreachable,
            ResetCode::Policy => Self::Policy,
            ResetCode::Timeout => Self::Timeout,
            ResetCode::Resource => Self::Resource,
            ResetCode::Protocol => Self::Protocol,
        }
    }
}

/// What the tunnel goes by besides the mesh.
#[derive(Debug, Clone, Copy)]
pub struct TunnelOptions {
    /// Hops of a route.
    pub hops: usize,
    /// Circuits that are built before they are needed.
    pub spares: usize,
    /// Whether the hops of a route are of different groups and address blocks.
    pub diversity: bool,
    /// Whether the hop behind the guard is kept with it.
    pub pin_hop2: bool,
}

/// Where circuits begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstHops {
    /// The guard that is in use.
    pub guard: NodeId,
    /// Whether it has a lane.
    pub linked: bool,
    /// The nodes that are kept to stand behind it, in the order of their use.
    pub hop2: Vec<NodeId>,
}

/// A circuit as a status display shows it.
#[derive(Debug, Clone)]
pub struct CircuitView {
    /// Its hops, guard first.
    pub route: Vec<NodeId>,
    /// Streams on it.
    pub streams: usize,
    /// Its age.
    pub age: Duration,
    /// Whether every hop has answered.
    pub open: bool,
}

/// Opens streams through the mesh.
pub struct Tunnel {
    plane: Arc<Plane>,
    options: TunnelOptions,
    view: watch::Receiver<Arc<MeshView>>,
    first: watch::Receiver<Option<FirstHops>>,
    entropy: Mutex<Entropy>,
    standing: Mutex<Vec<Arc<Standing>>>,
    skipped: Mutex<BTreeMap<NodeId, Instant>>,
    /// What came of the last circuit that did not open; none once one has.
    trouble: Mutex<Option<Progress>>,
    spare_wanted: Notify,
}

struct Standing {
    edge: Arc<Edge>,
    progress: watch::Receiver<Progress>,
    route: Vec<NodeId>,
    /// None while it is a spare.
    isolation: Mutex<Option<Isolation>>,
    built: Instant,
    full: AtomicBool,
    /// The exit has no room for more streams at the moment.
    busy_until: Mutex<Option<Instant>>,
}

impl Standing {
    fn is_open(&self) -> bool {
        *self.progress.borrow() == Progress::Open
    }

    fn takes_streams(&self, max_age: Duration) -> bool {
        let busy = lock(&self.busy_until).is_some_and(|until| until > Instant::now());
        !self.edge.is_over() && !self.full.load(Ordering::Relaxed) && !busy && self.built.elapsed() < max_age
    }
}

/// Why an attempt on one circuit failed.
enum Attempt {
    /// The exit answered: final.
    Answered(OpenError),
    /// The circuit takes no more streams.
    Full,
    /// The exit has reached a limit of this circuit, and has dialled nobody.
    Busy,
    /// The circuit died before it was open.
    Dead(Progress),
    /// The circuit died after it was open: the exit may have acted.
    Broke,
}

impl Tunnel {
    /// A tunnel whose circuits begin as `first` says, over the mesh as `view` shows it.
    pub fn new(
        plane: Arc<Plane>,
        options: TunnelOptions,
        view: watch::Receiver<Arc<MeshView>>,
        first: watch::Receiver<Option<FirstHops>>,
        entropy: Entropy,
    ) -> Arc<Self> {
        Arc::new(Self {
            plane,
            options,
            view,
            first,
            entropy: Mutex::new(entropy),
            standing: Mutex::default(),
            skipped: Mutex::default(),
            trouble: Mutex::default(),
            spare_wanted: Notify::new(),
        })
    }

    /// Opens a stream to `target`; `first_data` travels with the request.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is ever sent directly instead (law 7).
    pub async fn open(&self, target: &Target, isolation: &Isolation, first_data: Bytes) -> Result<TunnelStream, OpenError> {
        if cfg!(feature = "planted") {
            planted::before_open(target).await;
        }
        let opening = self.open_somewhere(target, isolation, first_data);
        tokio::time::timeout(self.plane.params.open_timeout, opening).await.unwrap_or(Err(OpenError::Timeout))
    }

    async fn open_somewhere(&self, target: &Target, isolation: &Isolation, first_data: Bytes) -> Result<TunnelStream, OpenError> {
        let mut again: Option<Vec<NodeId>> = None;
        let mut tried_again = false;
        let mut first_failure: Option<Instant> = None;
        let mut busy = 0;
        for failures in 0.. {
            if let Some(pause) = pause(failures) {
                tokio::time::sleep(pause).await;
            }
            self.wait_for_first_hops().await;
            // The map may have changed since it was drawn, or the guard.
            let standing = match again.take().filter(|route| self.stands(route)) {
                Some(route) => self.build(route, Some(isolation))?,
                None => self.circuit_for(target, isolation, first_failure.is_none_or(|at| at.elapsed() < COMEBACK))?,
            };
            match self.attempt(&standing, target, &first_data).await {
                Ok(stream) => {
                    self.unskip(&standing.route);
                    return Ok(stream);
                }
                Err(Attempt::Answered(error)) => return Err(error),
                Err(Attempt::Full) => standing.full.store(true, Ordering::Relaxed),
                Err(Attempt::Busy) if busy == MOST_BUSY => return Err(OpenError::Resource),
                Err(Attempt::Busy) => {
                    busy += 1;
                    *lock(&standing.busy_until) = Some(Instant::now() + BUSY);
                }
                // What was sent with OPEN may have been acted on: it is not sent twice.
                Err(Attempt::Broke) if !first_data.is_empty() => return Err(OpenError::Protocol),
                Err(Attempt::Broke) => {}
                Err(Attempt::Dead(progress)) => {
                    first_failure.get_or_insert_with(Instant::now);
                    let same_route = !tried_again && !matches!(progress, Progress::Building);
                    tried_again |= same_route;
                    *lock(&self.trouble) = Some(progress);
                    if same_route {
                        if may_have_new_keys(progress) {
                            self.wait_for_news().await;
                        }
                        again = Some(standing.route.clone());
                    } else {
                        self.skip_after(&standing.route, progress);
                    }
                }
            }
        }
        Err(OpenError::Timeout)
    }

    /// Until the map changes, for a moment at most.
    async fn wait_for_news(&self) {
        let mut view = self.view.clone();
        view.mark_unchanged();
        // Without news the next attempt is as good as it can be.
        let _ = tokio::time::timeout(NEWS, view.changed()).await;
    }

    async fn attempt(&self, standing: &Standing, target: &Target, first_data: &Bytes) -> Result<EdgeStream, Attempt> {
        // Before the route has answered, the exit may act on what it gets and the circuit be rebuilt all the same: OPEN may come
        // twice, the application's bytes must not.
        let at_once = if standing.is_open() { first_data.to_vec() } else { Vec::new() };
        let later = if at_once.is_empty() { first_data.to_vec() } else { Vec::new() };
        let stream = standing.edge.open(target, at_once).map_err(|_| Attempt::Full)?;
        let mut progress = standing.progress.clone();
        let created_by = standing.built + self.plane.params.created_timeout;
        tokio::select! {
            biased;
            _ = progress.wait_for(|progress| *progress != Progress::Building) => {}
            () = tokio::time::sleep_until(created_by) => {
                standing.edge.end(false);
                return Err(Attempt::Dead(Progress::Building));
            }
        }
        let was_open = standing.is_open();
        if was_open {
            stream.push(later);
        }
        match stream.opened().await {
            Ok(()) => Ok(stream),
            Err(_) if standing.edge.is_over() && was_open => Err(Attempt::Broke),
            Err(_) if standing.edge.is_over() => Err(died(&mut progress).await),
            Err(ResetCode::Resource) => Err(Attempt::Busy),
            Err(code) => Err(Attempt::Answered(code.into())),
        }
    }

    /// Leaves out for a while the hop that failed (spec 08, 3): the one that declined, the one behind who could not reach it, or hop 2
    /// where nobody answered. Never the guard, and nobody behind it when it is the guard that is gone.
    fn skip_after(&self, route: &[NodeId], progress: Progress) {
        if route.first().is_none_or(|guard| self.plane.lane_to(*guard).is_none()) {
            return;
        }
        let culprit = match progress {
            Progress::Refused { hop, status: SetupStatus::Overload | SetupStatus::Policy } => hop,
            Progress::Refused { hop, status: SetupStatus::Ok | SetupStatus::NextRefused | SetupStatus::NotConnected } => hop + 1,
            Progress::Building | Progress::Open | Progress::Over => 1,
        };
        if let Some(node) = route.get(culprit).filter(|_| culprit > 0) {
            lock(&self.skipped).insert(*node, Instant::now() + self.plane.params.hop_skip);
        }
    }

    /// A circuit has opened over these hops: whatever kept one of them from answering is over.
    fn unskip(&self, route: &[NodeId]) {
        *lock(&self.trouble) = None;
        lock(&self.skipped).retain(|node, _| !route.contains(node));
    }

    /// Whether a circuit could begin here and now over this route.
    fn stands(&self, route: &[NodeId]) -> bool {
        self.is_at_guard(route) && self.view.borrow().map.carries(route, unix_ms())
    }

    /// Whether a route begins at the guard that is in use.
    fn is_at_guard(&self, route: &[NodeId]) -> bool {
        self.first.borrow().as_ref().is_some_and(|first| route.first() == Some(&first.guard))
    }

    /// A standing circuit of this isolation, else a spare one, else a new one.
    fn circuit_for(&self, target: &Target, isolation: &Isolation, may_try_skipped: bool) -> Result<Arc<Standing>, OpenError> {
        let view = self.view.borrow().clone();
        let max_age = self.plane.params.circuit_max_age;
        {
            let mut standing = lock(&self.standing);
            standing.retain(|circuit| !circuit.edge.is_over());
            let usable = |circuit: &&Arc<Standing>| {
                circuit.takes_streams(max_age) && self.is_at_guard(&circuit.route) && may_allow(&view, circuit, target)
            };
            let own = |circuit: &&Arc<Standing>| lock(&circuit.isolation).as_ref() == Some(isolation);
            if let Some(circuit) = standing.iter().filter(usable).find(own) {
                return Ok(Arc::clone(circuit));
            }
            let spare = standing.iter().filter(usable).find(|circuit| lock(&circuit.isolation).is_none());
            if let Some(circuit) = spare {
                *lock(&circuit.isolation) = Some(isolation.clone());
                self.spare_wanted.notify_one();
                return Ok(Arc::clone(circuit));
            }
        }
        self.spare_wanted.notify_one();
        let route = self.draw_route(&view, target, may_try_skipped)?;
        self.build(route, Some(isolation))
    }

    fn draw_route(&self, view: &MeshView, target: &Target, may_try_skipped: bool) -> Result<Vec<NodeId>, OpenError> {
        let mut exclude = self.skips();
        let first = self.first.borrow().clone();
        loop {
            let drawn = self.request(first.as_ref(), self.options.hops, target, &exclude);
            match drawn.and_then(|request| navigator::route(&view.map, &request, &mut lock(&self.entropy))) {
                Ok(route) => return Ok(route),
                Err(why) if exclude.is_empty() => {
                    tracing::debug!(%why, "no route");
                    return Err(no_route(&why));
                }
                // spec 08, 3: a small mesh may have no way around, and who was left out may be back; for a while only, else a dead mesh
                // would be asked for ever.
                Err(_) if may_try_skipped => exclude.clear(),
                Err(why) => {
                    tracing::debug!(%why, skipped = exclude.len(), "no route");
                    return Err(OpenError::NoRoute);
                }
            }
        }
    }

    fn request<'a>(
        &self,
        first: Option<&'a FirstHops>,
        hops: usize,
        target: &'a Target,
        exclude: &'a BTreeSet<NodeId>,
    ) -> Result<RouteRequest<'a>, NoRoute> {
        let first = first.ok_or(NoRoute::NoGuard)?;
        if self.lacks_pin(first, hops) {
            return Err(NoRoute::Hop2 { hops, candidates: 0, usable: 0 });
        }
        Ok(RouteRequest {
            guard: Some(first.guard),
            hop2: if self.options.pin_hop2 { &first.hop2 } else { &[] },
            hops,
            diversity: self.options.diversity,
            protocol: StreamProtocol::Tcp,
            target,
            exclude,
            now_ms: unix_ms(),
        })
    }

    /// Waits until there is a guard with a lane and what is pinned with it: a moment, for after a start all of it comes together with
    /// the map; for a guard that has no lane, as long as the next one takes to be used in its place.
    async fn wait_for_first_hops(&self) {
        const MOMENT: Duration = Duration::from_secs(2);
        let mut first = self.first.clone();
        let is_away = first.borrow().as_ref().is_some_and(|first| !first.linked);
        let patience = if is_away { self.plane.params.guard_patience + MOMENT } else { MOMENT };
        let is_complete = |first: &FirstHops| first.linked && !self.lacks_pin(first, self.options.hops);
        let complete = first.wait_for(|first| first.as_ref().is_some_and(is_complete));
        // What is still missing then is said by who draws the route.
        let _ = tokio::time::timeout(patience, complete).await;
    }

    /// A hop 2 that is free for each circuit would tell the guard's name to who sees many of them (spec 08): no candidate, no route.
    fn lacks_pin(&self, first: &FirstHops, hops: usize) -> bool {
        self.options.pin_hop2 && hops >= 3 && first.hop2.is_empty()
    }

    /// Draws a route of `hops` nodes, by default as many as its own have, and says for each hop how many nodes could stand there,
    /// given those before it. Nothing is built over it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn sample(&self, hops: Option<usize>, target: &Target, exclude: &BTreeSet<NodeId>) -> Result<RouteSample, NoRoute> {
        let view = self.view.borrow().clone();
        let first = self.first.borrow().clone();
        let request = self.request(first.as_ref(), hops.unwrap_or(self.options.hops), target, exclude)?;
        navigator::sample(&view.map, &request, &mut lock(&self.entropy))
    }

    /// What came of the last circuit that did not open, in words; none where one has opened since. It names nobody.
    pub fn trouble(&self) -> Option<String> {
        Some(match (*lock(&self.trouble))? {
            Progress::Refused { hop, status } => format!("hop {} of the last one refused it: {}", hop + 1, refusal(status)),
            Progress::Building => "nobody answered the last one in time".to_owned(),
            Progress::Open | Progress::Over => {
                "the last one was ended without a word before it was open; is this machine's clock right?".to_owned()
            }
        })
    }

    fn skips(&self) -> BTreeSet<NodeId> {
        let mut skipped = lock(&self.skipped);
        let now = Instant::now();
        skipped.retain(|_, until| *until > now);
        skipped.keys().copied().collect()
    }

    /// Sends SETUP for a route and keeps its circuit.
    fn build(&self, route: Vec<NodeId>, isolation: Option<&Isolation>) -> Result<Arc<Standing>, OpenError> {
        let view = self.view.borrow().clone();
        // Over links of the map alone, as it is now (spec 08, 2).
        if !self.stands(&route) {
            return Err(OpenError::NoRoute);
        }
        let key = |node: &NodeId| view.nodes.get(node).map(|node| node.circuit_key.clone());
        let hops: Option<Vec<_>> = route.iter().map(|node| Some(RouteHop { node: *node, key: key(node)? })).collect();
        let hops = hops.ok_or(OpenError::NoRoute)?;
        let guard = *route.first().ok_or(OpenError::NoRoute)?;
        if planted("leak-exit-dial") {
            route.last().into_iter().for_each(planted::knock_at);
        }
        let carrying = self.lane_with_room(guard)?;
        let (origin, packet) = {
            let mut entropy = lock(&self.entropy);
            let offset = draw_offset(hops.len(), false, &mut entropy);
            let made = Origin::new(&hops, offset, slot_of(Plane::unix_seconds()), KemBackend::AwsLc, &mut entropy);
            made.map_err(|_| OpenError::NoRoute)?
        };
        let reservation = self.plane.pool.reserve(FIRST_WINDOW_CELLS).ok_or(OpenError::Resource)?;
        let granter = Granter::new(reservation, carrying.lane.queue(|queue| queue.pace()), self.plane.clock.now_ms());
        let permitted = granter.permitted();
        let lane = carrying.lane;
        let circuit = lane.queue(|queue| queue.open(None)).map_err(|_| OpenError::Resource)?;
        let edge = Edge::new(lane.clone(), circuit, self.plane.clock, granter, self.plane.stream_rules(), None);
        lane.command(Command::Install(circuit, Install::Origin { sink: edge.sink(), permitted }));
        send_setup(&lane, circuit, &packet);
        self.plane.watch(&edge);
        let (sender, progress) = watch::channel(Progress::Building);
        tokio::spawn(run_client(Arc::clone(&edge), origin, hops.len(), sender));
        let standing = Arc::new(Standing {
            edge,
            progress,
            route,
            isolation: Mutex::new(isolation.cloned()),
            built: Instant::now(),
            full: AtomicBool::new(false),
            busy_until: Mutex::new(None),
        });
        lock(&self.standing).push(Arc::clone(&standing));
        Ok(standing)
    }

    /// A lane to the guard that takes another circuit. Where all places are taken, the oldest circuit that carries nothing gives its
    /// own: with many users, those of before must not keep out who comes now.
    fn lane_with_room(&self, guard: NodeId) -> Result<Carrying, OpenError> {
        let find = || {
            let carrying = self.plane.lane_to(guard).ok_or(OpenError::NoRoute)?;
            let has_place = carrying.lane.queue(|queue| queue.circuits()) < carrying.circuits;
            let is_bounded = lock(&self.standing).len() < STANDING_CIRCUITS;
            if has_place && is_bounded { Ok(carrying) } else { Err(OpenError::Resource) }
        };
        match find() {
            Err(OpenError::Resource) if self.end_oldest_idle() => find(),
            found => found,
        }
    }

    fn end_oldest_idle(&self) -> bool {
        let mut standing = lock(&self.standing);
        let is_idle = |circuit: &&Arc<Standing>| {
            circuit.is_open() && circuit.edge.streams() == 0 && lock(&circuit.isolation).is_some() && !circuit.edge.is_over()
        };
        let Some(oldest) = standing.iter().filter(is_idle).min_by_key(|circuit| circuit.built) else { return false };
        // Who is about to open a stream on it finds it over, and takes another one.
        oldest.edge.end(true);
        standing.retain(|circuit| !circuit.edge.is_over());
        true
    }

    /// Keeps spare circuits, ends old ones. Runs as long as the client.
    pub async fn run(self: Arc<Self>) {
        let mut view = self.view.clone();
        let mut first = self.first.clone();
        loop {
            let pause = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! {
                () = self.spare_wanted.notified() => {}
                () = pause => {}
                changed = view.changed() => if changed.is_err() { return },
                changed = first.changed() => if changed.is_err() { return },
            }
            self.end_old();
            self.build_spares().await;
        }
    }

    fn end_old(&self) {
        let max_age = self.plane.params.circuit_max_age;
        let mut standing = lock(&self.standing);
        // At the next guard circuits are built anew, the spare ones too; those that carry something may finish.
        let takes_streams = |circuit: &Standing| circuit.takes_streams(max_age) && self.is_at_guard(&circuit.route);
        let old = |circuit: &Arc<Standing>| !takes_streams(circuit) && circuit.edge.streams() == 0;
        standing.iter().filter(|circuit| old(circuit)).for_each(|circuit| circuit.edge.end(true));
        standing.retain(|circuit| !circuit.edge.is_over());
    }

    async fn build_spares(&self) {
        let spares = || {
            let standing = lock(&self.standing);
            let spare = |circuit: &&Arc<Standing>| lock(&circuit.isolation).is_none() && !circuit.edge.is_over();
            standing.iter().filter(spare).count()
        };
        // What most streams want: HTTPS by name.
        let target = Target { host: Host::Name(String::new()), port: 443 };
        while spares() < self.options.spares {
            let view = self.view.borrow().clone();
            let route = self.draw_route(&view, &target, true);
            let Ok(circuit) = route.and_then(|route| self.build(route, None)) else { return };
            let mut progress = circuit.progress.clone();
            let answered = progress.wait_for(|progress| *progress != Progress::Building);
            // What came of it, in time or not, is its state.
            let _ = tokio::time::timeout(self.plane.params.created_timeout, answered).await;
            let state = *circuit.progress.borrow();
            if state != Progress::Open {
                *lock(&self.trouble) = Some(state);
                self.skip_after(&circuit.route, state);
                circuit.edge.end(false);
                // Nobody waits for a spare: the next one is tried a second later.
                return;
            }
            self.unskip(&circuit.route);
        }
    }

    /// Every standing circuit.
    pub fn circuits(&self) -> Vec<CircuitView> {
        let view = |circuit: &Arc<Standing>| CircuitView {
            route: circuit.route.clone(),
            streams: circuit.edge.streams(),
            age: circuit.built.elapsed(),
            open: circuit.is_open(),
        };
        lock(&self.standing).iter().filter(|circuit| !circuit.edge.is_over()).map(view).collect()
    }
}

/// How long a circuit gets no new stream after its exit has reached a limit.
const BUSY: Duration = Duration::from_secs(1);
/// Circuits that one connection is refused on for a limit before it is refused itself.
const MOST_BUSY: u32 = 3;

/// How long to wait after so many failed circuits: the first ones are tried at once, a mesh that is still forming is not flooded.
fn pause(failures: u32) -> Option<Duration> {
    const FIRST: Duration = Duration::from_millis(25);
    const LONGEST: Duration = Duration::from_secs(1);
    let doublings = failures.checked_sub(3)?.min(6);
    Some(FIRST.saturating_mul(1 << doublings).min(LONGEST))
}

/// How long a connection may try hops that are left out, where there is no other route: a node that starts anew is linked again by then.
const COMEBACK: Duration = Duration::from_secs(2);

/// What a Bottle may take that is on its way.
const NEWS: Duration = Duration::from_millis(300);

/// Whether a circuit died as it does at a node that has started anew, with another circuit key: its new Bottle follows at once.
fn may_have_new_keys(progress: Progress) -> bool {
    matches!(progress, Progress::Over | Progress::Refused { status: SetupStatus::NextRefused, .. })
}

fn refusal(status: SetupStatus) -> &'static str {
    match status {
        SetupStatus::Ok => "it said why in no known way",
        SetupStatus::Overload => "it has no room",
        SetupStatus::Policy => "it does not allow it",
        SetupStatus::NextRefused => "the next hop refused it",
        SetupStatus::NotConnected => "it has no link to the next hop",
    }
}

async fn died(progress: &mut watch::Receiver<Progress>) -> Attempt {
    let was_open = *progress.borrow() == Progress::Open;
    let last = progress.wait_for(|progress| !matches!(progress, Progress::Building | Progress::Open)).await.map(|last| *last);
    match last {
        Ok(last @ Progress::Refused { .. }) => Attempt::Dead(last),
        Ok(last) if !was_open => Attempt::Dead(last),
        Ok(_) | Err(_) => Attempt::Broke,
    }
}

/// Whether a standing circuit may take a stream to this target: its exit allows it and is still trusted, none of its hops has been
/// caught at signing two truths.
fn may_allow(view: &MeshView, circuit: &Standing, target: &Target) -> bool {
    let Some(exit) = circuit.route.last() else { return false };
    let policy = view.nodes.get(exit).and_then(|exit| exit.exit_policy.as_ref());
    policy.is_some_and(|policy| policy.may_allow(StreamProtocol::Tcp, target.host.ip(), target.port))
        && view.map.trust(exit) == Some(Trust::Trusted)
        && !circuit.route.iter().any(|node| view.map.trust(node) == Some(Trust::Distrusted))
}

fn no_route(why: &NoRoute) -> OpenError {
    match why {
        NoRoute::NoExit { .. } => OpenError::Policy,
        _ => OpenError::NoRoute,
    }
}

/// An open stream.
pub type TunnelStream = EdgeStream;
