//! The one task that feeds the engine and carries out what it says.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use port17_proto::bottle::{Address, Seq, UnverifiedBottle, VerifiedBottle};
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::Entropy;
use port17_proto::identity::LinkKey;
use port17_proto::ids::NodeId;
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::queue::{LaneEnd, QueueError};
use port17_proto::lane::reader::{Admission, Command, Port};
use port17_proto::node::Node;
use port17_proto::node::guard::GuardSet;
use port17_proto::node::io::{DialId, Input, LaneId, LaneLoss, Output, Peer, ShownKey};
use port17_proto::params::Rate;
use port17_proto::planted::planted;
use port17_proto::wire::message::{split_into_pieces, write_control_body};
use port17_proto::wire::registry::{BODY_BYTES, CONTROL_FLAG_URGENT, Command as Code, HEADER_BYTES};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::answers::{QUESTIONS, Question, mesh_map};
use super::lanes::{Dial, DialKey, LaneAttempt};
use super::membership::Membership;
use super::reload::Reloading;
use super::renewal::Renewal;
use super::{throw_away, time};
use crate::bootstrap::Fetched;
use crate::bottles::{BottleDirectory, BottleFile};
use crate::client::tunnel::FirstHops;
use crate::config::Config;
use crate::control::{Refusal, RefusalCode, Reloaded};
use crate::exit::Exit;
use crate::keystore::SeqFile;
use crate::lane::{self, Lane};
use crate::mesh_view::MeshView;
use crate::plane::{Carrying, Plane, unix_ms};
use crate::planted;
use crate::system;

/// The files of a daemon.
pub(super) struct Files {
    pub(super) bottles: BottleDirectory,
    pub(super) seq: Option<SeqFile>,
    pub(super) id: Option<NodeId>,
}

/// Where a daemon's lists and settings come from.
pub(super) struct Sources {
    /// None: Bottles come from a directory.
    pub(super) membership: Option<Membership>,
    pub(super) reloading: Reloading,
    /// What it was started with.
    pub(super) config: Config,
}

pub(super) struct Driver {
    node: Node,
    plane: Arc<Plane>,
    inputs: mpsc::Sender<Input>,
    engine: mpsc::Receiver<Input>,
    attempts: (mpsc::Sender<LaneAttempt>, mpsc::Receiver<LaneAttempt>),
    questions: (mpsc::Sender<Question>, mpsc::Receiver<Question>),
    link_key: Arc<LinkKey>,
    entropy: Entropy,
    files: Files,
    sources: Sources,
    view: watch::Sender<Arc<MeshView>>,
    view_renewal: Renewal,
    first: watch::Sender<Option<FirstHops>>,
    exit: Option<Arc<Exit>>,
    /// When the exit was last told the machine's own addresses.
    exit_knows_machine: Option<Instant>,
    listening: Vec<SocketAddr>,
    lanes: HashMap<LaneId, Held>,
    dials: HashMap<DialId, AbortHandle>,
    /// What each file of the directory of Bottles held when it was last looked at; where it could not be read, why.
    seen: BTreeMap<PathBuf, Result<Vec<u8>, String>>,
    /// The file whose Bottle is being taken.
    reading: Option<PathBuf>,
    /// A node's own Bottle, once one is out; the Bottlerack has those of others.
    own_bottle: Option<VerifiedBottle>,
    /// Writes the own Bottle's file.
    writing_bottle: Option<JoinHandle<()>>,
    next_lane: u64,
    stopped: bool,
}

struct Held {
    lane: Lane,
    /// Dialled from here.
    dialled: bool,
    remote: SocketAddr,
    /// Whose it is, once it is admitted.
    node: Option<NodeId>,
}

/// Lanes that wait for the driver.
const ATTEMPTS: usize = 64;
/// The rest after a view was made: many Bottles that come at once make one view together, a single one is seen at once.
const VIEW_REST: Duration = Duration::from_millis(50);
/// How long the machine's addresses are believed to be as they were.
const MACHINE_ADDRESSES: Duration = Duration::from_secs(10);

impl Driver {
    #[allow(clippy::too_many_arguments, reason = "the one place where all of a daemon's parts meet")]
    pub(super) fn new(
        node: Node,
        plane: Arc<Plane>,
        (inputs, engine): (mpsc::Sender<Input>, mpsc::Receiver<Input>),
        link_key: LinkKey,
        entropy: Entropy,
        files: Files,
        sources: Sources,
        view: watch::Sender<Arc<MeshView>>,
    ) -> Self {
        Self {
            node,
            plane,
            inputs,
            engine,
            attempts: mpsc::channel(ATTEMPTS),
            questions: mpsc::channel(QUESTIONS),
            link_key: Arc::new(link_key),
            entropy,
            files,
            sources,
            view,
            view_renewal: Renewal::new(VIEW_REST),
            first: watch::channel(None).0,
            exit: None,
            exit_knows_machine: None,
            listening: Vec::new(),
            lanes: HashMap::new(),
            dials: HashMap::new(),
            seen: BTreeMap::new(),
            reading: None,
            own_bottle: None,
            writing_bottle: None,
            next_lane: 0,
            stopped: false,
        }
    }

    /// Where finished handshakes go.
    pub(super) fn lanes(&self) -> mpsc::Sender<LaneAttempt> {
        self.attempts.0.clone()
    }

    /// Where the client's circuits begin, once that is chosen.
    pub(super) fn first_hops(&self) -> watch::Receiver<Option<FirstHops>> {
        self.first.subscribe()
    }

    /// Where the control API asks.
    pub(super) fn questions(&self) -> mpsc::Sender<Question> {
        self.questions.0.clone()
    }

    /// Keeps the exit's picture of the mesh up to date.
    pub(super) fn guard_exit(&mut self, exit: Option<Arc<Exit>>, listening: Vec<SocketAddr>) {
        self.exit = exit;
        self.listening = listening;
    }

    /// Runs until `stop` is ready and the engine has ended in order.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let mut stop = pin!(stop);
        let mut stopping = false;
        let mut second = tokio::time::interval(self.plane.params.directory_rescan);
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deadline = self.drain();
        while !self.stopped {
            let wake = deadline.map_or_else(|| Instant::now() + Duration::from_secs(3600), |at| self.instant(at));
            let input = tokio::select! {
                () = &mut stop, if !stopping => {
                    tracing::info!("ending: its links are closed");
                    stopping = true;
                    Input::Shutdown
                }
                Some(input) = self.engine.recv() => input,
                Some(attempt) = self.attempts.1.recv() => match self.take(attempt) {
                    Some(input) => input,
                    None => continue,
                },
                Some(question) = self.questions.1.recv() => {
                    self.answer(question);
                    Input::Tick
                }
                fetched = next_list(&mut self.sources.membership) => {
                    tracing::debug!(source = %fetched.source, "a list for the engine");
                    Input::List(fetched.bytes)
                }
                () = self.sources.reloading.asked() => {
                    // Whoever sent the signal reads the log.
                    let _ = self.reload();
                    Input::Tick
                }
                _ = second.tick() => {
                    self.every_second();
                    Input::Tick
                }
                () = tokio::time::sleep_until(wake) => Input::Tick,
                () = self.view_renewal.due() => {
                    self.renew_view();
                    continue;
                }
            };
            if let Input::LaneDown { lane, .. } = &input {
                self.lanes.remove(lane);
            }
            self.node.handle(input, time(self.plane.clock));
            deadline = self.drain();
        }
        self.end().await;
    }

    /// Waits for the lanes' good-byes, and writes what the store has not taken yet.
    async fn end(mut self) {
        let (membership, writing) = (self.sources.membership.take(), self.writing_bottle.take());
        self.end_lanes().await;
        finished(writing).await;
        let Some(membership) = membership else { return };
        let closed = tokio::task::spawn_blocking(|| membership.close()).await;
        if let Ok(report) = closed {
            tracing::debug!(records = report.records, waiting = report.waiting, "the store is closed");
        }
    }

    fn instant(&self, mono: Duration) -> Instant {
        Instant::now() + mono.saturating_sub(self.plane.clock.elapsed())
    }

    /// A finished handshake, or a failed one, as the engine's input.
    fn take(&mut self, attempt: LaneAttempt) -> Option<Input> {
        match attempt {
            LaneAttempt::Failed { dial, why } => {
                self.dials.remove(&dial)?;
                tracing::debug!(?dial, %why, "dial failed");
                Some(Input::DialFailed { dial, why })
            }
            LaneAttempt::Up { connection, dialled, remote } => {
                if let Some(dial) = dialled {
                    self.dials.remove(&dial)?;
                }
                self.next_lane += 1;
                let id = LaneId(self.next_lane);
                let end = if dialled.is_some() { LaneEnd::Dialler } else { LaneEnd::Acceptor };
                let lane = Lane::new(id, end, self.plane.growth_ms(), &self.plane.objects);
                let peer_key = connection.peer_key;
                let pool = Arc::clone(&self.plane.pool);
                tokio::spawn(lane::run(lane.clone(), *connection, pool, self.plane.clock, Arc::clone(&self.plane)));
                self.lanes.insert(id, Held { lane, dialled: dialled.is_some(), remote, node: None });
                Some(Input::LaneUp { lane: id, dialled, peer_key, remote: remote.ip() })
            }
        }
    }

    /// Carries out all that the engine wants; gives its next deadline.
    fn drain(&mut self) -> Option<Duration> {
        let (mut changed, mut guards) = (false, None);
        let until = loop {
            match self.node.poll() {
                Output::Wait { until, .. } => break until,
                Output::BottlerackChanged(_) => changed = true,
                Output::Guards(set) => guards = Some(set),
                // Who is trusted may have changed with it.
                output @ Output::ListAccepted { .. } => {
                    changed = true;
                    self.carry_out(output);
                }
                output => self.carry_out(output),
            }
        };
        if changed {
            self.view_renewal.note(Instant::now());
        }
        if self.view_renewal.is_due(Instant::now()) {
            self.renew_view();
        }
        if let Some(set) = guards {
            self.use_guards(set);
        }
        until
    }

    /// Tells the tunnel where its circuits begin; the view that this was drawn by comes first.
    fn use_guards(&mut self, GuardSet { guards, active, .. }: GuardSet) {
        if self.view_renewal.is_old() {
            self.renew_view();
        }
        let pinned = guards.into_iter().find(|guard| guard.node == active);
        let hop2 = pinned.map(|guard| guard.hop2).unwrap_or_default();
        let linked = self.plane.lane_to(active).is_some();
        if cfg!(feature = "planted") {
            planted::note_guard(active);
        }
        if planted("leak-map") {
            planted::ask_another_node();
        }
        self.first.send_replace(Some(FirstHops { guard: active, linked, hop2 }));
    }

    /// A link came up or went down: perhaps the guard's.
    fn note_guard_link(&self, peer: Peer, up: bool) {
        self.first.send_if_modified(|first| match first {
            Some(first) if peer == Peer::Node(first.guard) && first.linked != up => {
                first.linked = up;
                true
            }
            _ => false,
        });
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { dial, node: _, addresses, expected, show } => self.dial(dial, addresses, expected, show),
            Output::CancelDial(dial) => {
                if let Some(dialling) = self.dials.remove(&dial) {
                    dialling.abort();
                }
            }
            Output::Send { lane, urgent, message } => self.send(lane, urgent, &message),
            Output::Close { lane } => {
                if let Some(held) = self.lanes.get(&lane) {
                    held.lane.close();
                }
            }
            Output::HearLane { lane } => {
                if let Some(held) = self.lanes.get(&lane) {
                    held.lane.command(Command::Hear);
                }
            }
            Output::AdmitLane { lane, peer, slot: _, dialled: _, circuits } => self.admit(lane, peer, circuits),
            // It comes again with each lane that the link gains or loses.
            Output::LinkUp { peer, lanes } => {
                if !self.plane.set_link(peer, lanes) {
                    self.tell_link(peer, true);
                }
                self.note_guard_link(peer, true);
            }
            Output::LinkDown { peer } => {
                if self.plane.set_link(peer, Vec::new()) {
                    self.tell_link(peer, false);
                }
                self.note_guard_link(peer, false);
            }
            Output::LaneRtt { lane, rtt } => {
                let rtt_ms = u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX);
                let growth_ms = rtt_ms.saturating_mul(2).max(self.plane.growth_ms());
                if let Some(held) = self.lanes.get(&lane) {
                    held.lane.queue(|queue| queue.set_growth_ms(growth_ms));
                }
            }
            Output::LeaveGuard(node) => {
                if self.plane.streams_over(node) == 0 {
                    self.enqueue(Input::GuardIdle(node));
                }
            }
            Output::StoreSeq(seq) => self.store_seq(seq),
            Output::PublishBottle { seq: _, bytes } => self.publish(&bytes),
            Output::Save(key, bytes) => {
                if let Some(membership) = &self.sources.membership {
                    membership.store().save(key, bytes);
                }
            }
            Output::Forget(key) => {
                if let Some(membership) = &self.sources.membership {
                    membership.store().forget(key);
                }
            }
            Output::NewCircuitKey(key) => self.plane.hold_key(key),
            Output::EraseCircuitKey(key) => self.plane.erase_key(key),
            Output::ListAccepted { seq } => self.list_accepted(seq),
            Output::ListRefused(why) => tracing::warn!(why, "a signed list was refused"),
            // spec 10, 1: a file that fails is named.
            Output::Counted(what) => match &self.reading {
                Some(file) => tracing::warn!(file = %file.display(), why = what.name(), "no use for a Bottle"),
                None => tracing::debug!(what = what.name(), "counted"),
            },
            Output::Stopped => self.stopped = true,
            // What is gathered before it is carried out.
            Output::BottlerackChanged(_) | Output::Guards(_) | Output::Wait { .. } => {}
        }
    }

    /// Law 8: a client's guard is the first hop of all its routes, and is named to who asks for details alone.
    fn tell_link(&self, peer: Peer, up: bool) {
        let what = if up { "link up" } else { "link down" };
        match peer {
            Peer::Node(node) if self.files.id.is_some() => tracing::info!(%node, "{what}"),
            Peer::Node(node) => {
                tracing::info!(peer = "the guard", "{what}");
                tracing::debug!(guard = %node, "{what}");
            }
            Peer::Client(_) => tracing::debug!(peer = "a client", "{what}"),
        }
    }

    fn dial(
        &mut self,
        dial: DialId,
        addresses: Vec<SocketAddr>,
        expected: Vec<port17_proto::crypto::VerifyingKey>,
        show: ShownKey,
    ) {
        let key = match show {
            ShownKey::Link => DialKey::Link(Arc::clone(&self.link_key)),
            ShownKey::ThrowAway => DialKey::ThrowAway(throw_away(&mut self.entropy)),
        };
        let dialling = Dial { dial, addresses, expected, key, patience: self.plane.params.dial_timeout };
        let task = tokio::spawn(dialling.run(self.attempts.0.clone()));
        self.dials.insert(dial, task.abort_handle());
    }

    fn send(&mut self, lane: LaneId, urgent: bool, message: &[u8]) {
        let Some(held) = self.lanes.get(&lane) else { return };
        let sent = if urgent {
            let frame = control_frame(message, CONTROL_FLAG_URGENT);
            held.lane.queue(|queue| frame.map_or(Ok(()), |frame| queue.push_urgent(frame)))
        } else {
            let frames: Vec<_> = split_into_pieces(message).filter_map(|piece| control_frame(piece, 0)).collect();
            held.lane.queue(|queue| frames.into_iter().try_for_each(|frame| queue.push_control(frame)))
        };
        if let Err(QueueError::ControlFull) = sent {
            held.lane.close();
            self.enqueue(Input::LaneDown { lane, why: LaneLoss::Overrun });
        }
    }

    fn admit(&mut self, lane: LaneId, peer: Peer, circuits: u32) {
        if let Some(held) = self.lanes.get_mut(&lane) {
            held.node = peer.node();
            if planted("leak-guard-names-client") && held.node.is_none() {
                planted::name_client(held.remote);
            }
        }
        // Before the first circuit can come over it (law 1).
        if self.view_renewal.is_old() {
            self.renew_view()
        } else {
            self.renew_guard()
        }
        let Some(held) = self.lanes.get(&lane) else { return };
        let params = &self.plane.params;
        let (mine, Rate { per_second, burst }) = match peer {
            Peer::Node(_) => (params.node_lane_circuits, params.node_setups),
            Peer::Client(_) => (params.client_link_circuits, params.client_setups),
        };
        // A client forwards nothing: nobody opens a circuit to it.
        let mine = if self.files.id.is_some() { mine } else { 0 };
        let admission = Admission {
            circuits: usize::try_from(mine).unwrap_or(usize::MAX),
            setups_per_second: per_second.into(),
            setups_burst: burst.into(),
            breach_window_ms: u64::try_from(params.breach_window.as_millis()).unwrap_or(u64::MAX),
        };
        let circuits = usize::try_from(circuits).unwrap_or(usize::MAX);
        let pool = self.plane.share(peer, held.remote.ip());
        held.lane.command(Command::Memory(Arc::clone(&pool)));
        self.plane.admit(lane, Carrying { lane: held.lane.clone(), peer, circuits, pool });
        held.lane.command(Command::Admit(admission));
    }

    fn store_seq(&self, seq: Seq) {
        let Some(file) = self.files.seq.clone() else { return };
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || {
            let input = match file.store(seq.0) {
                Ok(()) => Input::SeqStored(seq),
                Err(error) => {
                    tracing::error!(%error, "the sequence number cannot be stored: no new Bottle is published until it can");
                    Input::SeqNotStored(seq)
                }
            };
            // The engine ends only with the daemon.
            let _ = inputs.blocking_send(input);
        });
    }

    fn publish(&mut self, bytes: &[u8]) {
        let Some(id) = self.files.id else { return };
        let rules = self.plane.params.bottle_rules();
        // The engine has just signed it.
        self.own_bottle = UnverifiedBottle::parse(bytes).and_then(|bottle| bottle.verify(unix_ms(), &rules)).ok();
        let (directory, plane, bytes) = (self.files.bottles.clone(), Arc::clone(&self.plane), bytes.to_vec());
        let before = self.writing_bottle.take();
        // The engine does not wait for a disk.
        self.writing_bottle = Some(tokio::spawn(async move {
            // In their order: the last one stays.
            finished(before).await;
            let writing = tokio::task::spawn_blocking(move || directory.write(&id, &bytes).map_err(|error| (error, directory)));
            if let Ok(Err((error, directory))) = writing.await {
                let directory = directory.path().display();
                tracing::error!(%error, %directory, "the own Bottle cannot be written: others do not see what has changed");
                plane.count("bottle-not-written", 1);
            }
        }));
    }

    /// An input that arises while outputs are carried out.
    fn enqueue(&self, input: Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _ = inputs.send(input).await;
        });
    }

    /// Who asked and has left is not told.
    fn answer(&mut self, question: Question) {
        match question {
            Question::Status(asker) => {
                let _ = asker.send(self.node.status());
            }
            Question::Map(asker) => {
                let _ = asker.send(mesh_map(self.bottles(), self.own_bottle.as_ref()));
            }
            Question::Reload(asker) => {
                let _ = asker.send(self.reload());
            }
        }
    }

    /// Looks again at what the daemon was configured with. A file that is wrong changes nothing at all.
    fn reload(&mut self) -> Result<Reloaded, Refusal> {
        let reloaded = self.sources.reload();
        match &reloaded {
            Ok(Reloaded { changed, needs_restart }) => {
                let said = |what: &[String], by| (!what.is_empty()).then(|| what.join(by));
                tracing::info!(changed = said(changed, "; "), needs_restart = said(needs_restart, ", "), "reloaded");
                self.rescan();
            }
            Err(refusal) => tracing::error!(error = %refusal, "not reloaded"),
        }
        reloaded
    }

    fn every_second(&mut self) {
        self.plane.sweep();
        self.note_list();
        self.rescan();
        self.renew_machine();
    }

    fn note_list(&self) {
        if let Some(membership) = &self.sources.membership {
            membership.note_list(&self.node);
        }
    }

    fn list_accepted(&self, seq: u64) {
        tracing::info!(seq, nodes = self.node.listed().len(), "a signed list is in force");
        self.note_list();
        if *self.node.params() != self.plane.params {
            tracing::info!("the list has other parameters: circuits and memory go by them from the next start");
        }
    }

    /// Looks for Bottles that are new or changed in the directory. In a network they come over links alone.
    fn rescan(&mut self) {
        if self.sources.membership.is_some() {
            return;
        }
        let files = match self.files.bottles.read_all() {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, directory = %self.files.bottles.path().display(), "cannot read the directory of Bottles");
                return;
            }
        };
        // What is no longer there must not be remembered for ever.
        self.seen.retain(|path, _| files.binary_search_by(|file| file.path.cmp(path)).is_ok());
        for BottleFile { path, bytes } in files {
            let found = bytes.map_err(|error| error.to_string());
            if self.seen.get(&path) == Some(&found) {
                continue;
            }
            self.seen.insert(path.clone(), found.clone());
            match found {
                Ok(bytes) => {
                    self.reading = Some(path);
                    self.node.handle(Input::Bottle(bytes), time(self.plane.clock));
                    self.drain();
                    self.reading = None;
                }
                Err(error) => {
                    self.plane.count("bottle-not-read", 1);
                    tracing::warn!(file = %path.display(), %error, "a Bottle cannot be read");
                }
            }
        }
    }

    /// The Bottles of others, with the trust in them.
    fn bottles(&self) -> Vec<(&VerifiedBottle, Trust)> {
        let trusted = |bottle: &VerifiedBottle| self.node.trust(&bottle.node_id());
        self.node.bottlerack().iter().map(|stored| (&stored.bottle, trusted(&stored.bottle))).collect()
    }

    fn renew_view(&mut self) {
        let margin_ms = u64::try_from(self.plane.params.circuit_key_margin.as_millis()).unwrap_or(u64::MAX);
        let view = Arc::new(MeshView::build(&self.bottles(), margin_ms));
        if cfg!(feature = "planted") {
            planted::note_nodes(&self.bottles());
        }
        self.view.send_replace(view);
        self.view_renewal.made(Instant::now());
        self.renew_guard();
    }

    /// What the exit must never connect to, as it is now (law 1).
    fn renew_guard(&mut self) {
        let Some(exit) = &self.exit else { return };
        let view = self.view.borrow().clone();
        let lanes = self.lanes.values().flat_map(|held| self.mesh_addresses(held));
        let mesh: Vec<_> = self.listening.iter().copied().chain(view.addresses.iter().copied()).chain(lanes).collect();
        exit.update_guard(|guard| guard.set_mesh(mesh));
        self.renew_machine();
    }

    /// Where the other end of a lane listens: the address that was dialled; of one that dialled, what it claims about the address that it
    /// came from. Any other claim refuses nothing.
    fn mesh_addresses(&self, held: &Held) -> Vec<SocketAddr> {
        if held.dialled {
            return vec![held.remote];
        }
        let stored = held.node.and_then(|node| self.node.bottlerack().get(&node));
        let claimed = stored.into_iter().flat_map(|stored| stored.bottle.content().addresses.iter().map(Address::socket));
        about(held.remote.ip(), claimed)
    }

    /// The machine's own addresses, which the exit must not connect to either.
    fn renew_machine(&mut self) {
        let Some(exit) = self.exit.as_ref().filter(|_| !is_recent(self.exit_knows_machine)) else { return };
        match system::local_networks() {
            Ok((own, on_link)) => exit.update_guard(|guard| guard.set_local(own, on_link)),
            Err(error) => tracing::warn!(%error, "the machine's addresses are not known: the exit keeps the last picture"),
        }
        self.exit_knows_machine = Some(Instant::now());
    }

    /// Waits until every lane has said good-bye.
    async fn end_lanes(mut self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let gone = async {
            while !self.lanes.is_empty() {
                match self.engine.recv().await {
                    Some(Input::LaneDown { lane, .. }) => drop(self.lanes.remove(&lane)),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        // A peer that does not read is not waited for.
        let _ = tokio::time::timeout(PATIENCE, gone).await;
    }
}

fn control_frame(bytes: &[u8], flags: u8) -> Option<FrameBuf> {
    let mut body = [0; BODY_BYTES];
    write_control_body(bytes, &mut body).ok()?;
    let mut frame = FrameBuf::new();
    frame.bytes_mut()[HEADER_BYTES..].copy_from_slice(&body);
    frame.set_header(Header { flags, ..Header::new(port17_proto::ids::CircuitId(0), Code::Control) });
    Some(frame)
}

impl Sources {
    fn reload(&mut self) -> Result<Reloaded, Refusal> {
        let refused = |why: String| Refusal::new(RefusalCode::Configuration, format_args!("{why}; the daemon goes on as it was"));
        let needs_restart = self.reloading.changed_keys(&self.config).map_err(refused)?;
        let changed = self.membership.as_mut().map(Membership::reload).transpose().map_err(refused)?;
        Ok(Reloaded { changed: changed.unwrap_or_default(), needs_restart })
    }
}

/// What came of a task is its own business.
async fn finished(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        let _ = task.await;
    }
}

/// The claims that are about the address itself that somebody came from.
fn about(came_from: IpAddr, claimed: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    claimed.filter(|address| address.ip().to_canonical() == came_from.to_canonical()).collect()
}

fn is_recent(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at.elapsed() < MACHINE_ADDRESSES)
}

/// Without a network there is none, ever.
async fn next_list(membership: &mut Option<Membership>) -> Fetched {
    match membership {
        Some(membership) => membership.next_list().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_1_a_neighbour_that_dialled_is_believed_about_its_own_address_alone() {
        let claimed = ["192.0.2.7:1717", "192.0.2.7:443", "198.51.100.1:443"].map(|text| text.parse().unwrap());
        let believed = |from: &str| about(from.parse().unwrap(), claimed.into_iter());
        assert_eq!(believed("192.0.2.7"), claimed[..2]);
        assert_eq!(believed("::ffff:192.0.2.7"), claimed[..2]);
        assert_eq!(believed("192.0.2.8"), []);
    }
}
