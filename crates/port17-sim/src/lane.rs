//! Lanes between hosts: each end has the shipped queue and reader, and between them is a wire of virtual time.
//!
//! What a lane's owner changes is put on the [`Agenda`]; the world goes through it until nothing is left, all in one virtual instant.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use port17_proto::crypto::VerifyingKey;
use port17_proto::ids::CircuitId;
use port17_proto::lane::frame::FrameBuf;
use port17_proto::lane::queue::LaneQueue;
use port17_proto::lane::reader::{Command, Port, Reader};
use port17_proto::node::io::{LaneId, Peer};
use port17_proto::wire::message::{LaneSlot, MessageStream};

use crate::edge::{EdgeRef, EdgeSink};

/// One end of a lane: its place in [`crate::world::World`].
pub type EndId = usize;

/// Frames on their way to an end, and those that it has not read: what TCP and the socket buffers of both sides hold.
pub const WIRE_FRAMES: usize = 512;

/// What has to be looked at before time goes on.
#[derive(Default)]
pub struct Agenda {
    ends: RefCell<VecDeque<EndId>>,
    edges: RefCell<VecDeque<EdgeRef>>,
}

impl Agenda {
    pub(crate) fn next_end(&self) -> Option<EndId> {
        self.ends.borrow_mut().pop_front()
    }

    pub(crate) fn next_edge(&self) -> Option<EdgeRef> {
        let edge = self.edges.borrow_mut().pop_front()?;
        edge.borrow_mut().is_due = false;
        Some(edge)
    }

    /// Called from within an edge's own sink as well: the edge says itself that it is due.
    pub(crate) fn push_edge(&self, edge: EdgeRef) {
        self.edges.borrow_mut().push_back(edge);
    }

    pub(crate) fn clear(&self) {
        self.ends.borrow_mut().clear();
        self.edges.borrow_mut().clear();
    }
}

struct Shared {
    end: EndId,
    queue: RefCell<LaneQueue<Lane>>,
    /// None once the reader is gone.
    commands: RefCell<Option<Vec<Command<Lane>>>>,
    is_due: Cell<bool>,
    agenda: Rc<Agenda>,
}

/// A handle to one end of a lane, as the data plane knows it.
#[derive(Clone)]
pub struct Lane(Rc<Shared>);

impl PartialEq for Lane {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Lane {
    pub(crate) fn new(end: EndId, queue: LaneQueue<Self>, agenda: Rc<Agenda>) -> Self {
        let (queue, commands) = (RefCell::new(queue), RefCell::new(Some(Vec::new())));
        Self(Rc::new(Shared { end, queue, commands, is_due: Cell::new(false), agenda }))
    }

    pub(crate) fn end(&self) -> EndId {
        self.0.end
    }

    /// Puts this end on the agenda.
    pub(crate) fn note(&self) {
        if !self.0.is_due.replace(true) {
            self.0.agenda.ends.borrow_mut().push_back(self.0.end);
        }
    }

    pub(crate) fn begin_turn(&self) {
        self.0.is_due.set(false);
    }

    /// As [`Port::queue`], by who looks at this end anyway.
    pub(crate) fn look<R>(&self, work: impl FnOnce(&mut LaneQueue<Self>) -> R) -> R {
        work(&mut self.0.queue.borrow_mut())
    }

    pub(crate) fn take_commands(&self) -> Vec<Command<Self>> {
        self.0.commands.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// From now on commands are dropped.
    pub(crate) fn last_commands(&self) -> Vec<Command<Self>> {
        self.0.commands.borrow_mut().take().unwrap_or_default()
    }
}

impl Port for Lane {
    type Sink = EdgeSink;

    fn queue<R>(&self, work: impl FnOnce(&mut LaneQueue<Self>) -> R) -> R {
        self.note();
        self.look(work)
    }

    fn command(&self, command: Command<Self>) {
        if let Some(commands) = &mut *self.0.commands.borrow_mut() {
            commands.push(command);
        }
        self.note();
    }
}

/// One end of a lane, and what is on its way to it.
pub struct End {
    /// The data plane's handle.
    pub lane: Lane,
    /// The engine's name of it.
    pub id: LaneId,
    /// Whose it is: a host's place in the world.
    pub owner: usize,
    /// The run of the owner's process that it belongs to.
    pub life: u64,
    /// The other end.
    pub peer: EndId,
    /// Dialled from here.
    pub dialled: bool,
    /// What its owner was told about the other end, once it was admitted.
    pub admitted: Option<Peer>,
    /// Which lane of its link, once it was admitted.
    pub slot: Option<LaneSlot>,
    /// The key that the other end has shown.
    pub peer_key: VerifyingKey,
    pub(crate) reader: Option<Reader<Lane>>,
    pub(crate) messages: MessageStream,
    /// Frames that have come and were not read.
    pub(crate) inbox: VecDeque<FrameBuf>,
    /// Frames that left the other end and were not read here.
    pub(crate) in_flight: usize,
    /// The last frame on the wire to this end arrives then.
    pub(crate) wire_free_us: u64,
    /// The wire to this end is busy until then.
    pub(crate) wire_busy_us: u64,
    /// Batches that no way leads to this end for now, in order.
    pub(crate) held: VecDeque<Parcel>,
    /// It has ended from this side, or both.
    pub(crate) is_open: bool,
    /// It broke the protocol in this end's eyes: nothing more is read.
    pub(crate) is_broken: bool,
    /// When it has seen overruns of credit, in milliseconds.
    pub(crate) breaches: Vec<u64>,
    /// Edges of circuits on this lane.
    pub(crate) edges: BTreeMap<CircuitId, EdgeRef>,
    /// Bytes of control messages that this end was given to send.
    pub(crate) control_bytes: u64,
    /// Frames of control that this end has sent.
    pub(crate) control_frames: u64,
}

/// What travels on a wire.
pub enum Parcel {
    /// Frames, in order.
    Frames(Vec<FrameBuf>),
    /// The other end has closed the connection, or its process has gone.
    Gone(port17_proto::node::io::LaneLoss),
}
