//! The task of a circuit: it owns the keys of this edge, and seals and sends what the streams have queued.

use std::sync::Arc;

use port17_proto::circuit::onion::{ANSWER_AREA, BackwardLayer, client_area};
use port17_proto::circuit::origin::{Answer, Origin, OriginForward};
use port17_proto::crypto::CryptoError;
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::queue::Outgoing;
use port17_proto::lane::reader::{Command, Install, Port};
use port17_proto::limits::{FIRST_WINDOW_CELLS, LANE_WRITE_FRAMES};
use port17_proto::wire::registry::Command as Code;
use tokio::sync::watch;

use super::{Edge, Progress};
use crate::lane::lock;

/// Seals what an edge sends.
enum Sealing {
    Exit(BackwardLayer),
    /// SETUP is under way: only the first window may be sent, under the first keys.
    Building {
        origin: Box<Origin>,
        hops: usize,
        sent: u64,
    },
    Client(OriginForward),
}

impl Sealing {
    fn area(&self) -> std::ops::Range<usize> {
        match self {
            Self::Exit(_) => ANSWER_AREA,
            Self::Building { hops, .. } => client_area(hops - 1),
            Self::Client(forward) => client_area(forward.hops() - 1),
        }
    }

    fn room(&self, room: u64) -> u64 {
        match self {
            Self::Exit(_) | Self::Client(_) => room,
            Self::Building { sent, .. } => room.min(FIRST_WINDOW_CELLS.saturating_sub(*sent)),
        }
    }

    /// Seals one cell in place; gives the header's flags.
    fn seal(&mut self, frame: &mut FrameBuf) -> Result<u8, CryptoError> {
        match self {
            Self::Exit(layer) => {
                layer.seal_message_backward(frame.bytes_mut());
                Ok(0)
            }
            Self::Building { origin, hops, sent } => {
                *sent += 1;
                origin.seal(*hops - 1, frame.bytes_mut()).map_err(|_| CryptoError)
            }
            Self::Client(forward) => forward.seal(forward.hops() - 1, frame.bytes_mut()),
        }
    }
}

/// Runs the task of an exit's edge until its circuit is over.
pub async fn run_exit(edge: Arc<Edge>, layer: BackwardLayer) {
    CircuitTask::new(edge, Sealing::Exit(layer), None).run().await;
}

/// Runs the task of a client's circuit until it is over.
pub async fn run_client(edge: Arc<Edge>, origin: Origin, hops: usize, progress: watch::Sender<Progress>) {
    let sealing = Sealing::Building { origin: Box::new(origin), hops, sent: 0 };
    CircuitTask::new(edge, sealing, Some(progress)).run().await;
}

struct CircuitTask {
    edge: Arc<Edge>,
    sealing: Sealing,
    progress: Option<watch::Sender<Progress>>,
    spare: Vec<FrameBuf>,
    batch: Vec<Outgoing>,
}

impl CircuitTask {
    fn new(edge: Arc<Edge>, sealing: Sealing, progress: Option<watch::Sender<Progress>>) -> Self {
        Self { edge, sealing, progress, spare: Vec::new(), batch: Vec::new() }
    }

    async fn run(mut self) {
        while !self.edge.is_over() {
            if !self.take_created() {
                self.edge.end(false);
                break;
            }
            match self.send() {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => self.edge.work.notified().await,
                Err(CryptoError) => self.edge.end(false),
            }
        }
        // A refusal that came together with the end is still to be told.
        self.take_created();
        if let Some(progress) = &self.progress {
            progress.send_if_modified(|state| {
                let over = matches!(state, Progress::Building | Progress::Open);
                if over {
                    *state = Progress::Over;
                }
                over
            });
        }
    }

    /// Takes the answer to SETUP, if it has come; false when the circuit is to be destroyed.
    fn take_created(&mut self) -> bool {
        let Some(body) = lock(&self.edge.created).take() else { return true };
        let Sealing::Building { origin, .. } = &mut self.sealing else { return false };
        let progress = match origin.handle_created(&body) {
            Ok(Answer::Complete) => Progress::Open,
            Ok(Answer::Failed { hop, status }) => Progress::Refused { hop, status },
            Err(_) => Progress::Over,
        };
        let open = progress == Progress::Open && self.split();
        if let Some(sender) = &self.progress {
            sender.send_replace(progress);
        }
        open
    }

    /// The fresh keys are in force: parts the two directions, so that the reader can open cells.
    fn split(&mut self) -> bool {
        let placeholder = Sealing::Client(OriginForward::new(Vec::new()));
        let Sealing::Building { origin, .. } = std::mem::replace(&mut self.sealing, placeholder) else { return false };
        let Some((forward, backward)) = origin.split() else { return false };
        self.sealing = Sealing::Client(forward);
        self.edge.lane.command(Command::Install(self.edge.circuit, Install::Opened(backward)));
        true
    }

    /// Sends one batch; false when there was nothing to send or no room.
    fn send(&mut self) -> Result<bool, CryptoError> {
        let (lane, circuit) = (self.edge.lane.clone(), self.edge.circuit);
        let Some(room) = lane.queue(|queue| queue.room(circuit)) else { return Err(CryptoError) };
        let most = usize::try_from(self.sealing.room(room)).unwrap_or(usize::MAX).min(LANE_WRITE_FRAMES);
        self.fill(most);
        for outgoing in &mut self.batch {
            let flags = self.sealing.seal(&mut outgoing.frame)?;
            outgoing.frame.set_header(Header { flags, ..Header::new(circuit, Code::Cell) });
        }
        let sent = !self.batch.is_empty();
        if sent {
            let (batch, spare) = (&mut self.batch, &mut self.spare);
            lane.queue(|queue| queue.hand_over(batch, spare));
        }
        Ok(sent)
    }

    /// Packs up to `most` cells.
    fn fill(&mut self, most: usize) {
        let area = self.sealing.area();
        let circuit = self.edge.circuit;
        let (spare, batch) = (&mut self.spare, &mut self.batch);
        self.edge.with_mux(|mux, now_ms| {
            while batch.len() < most && mux.has_outgoing() {
                let mut frame = spare.pop().unwrap_or_default();
                let filled = frame.bytes_mut()[area.clone()].as_mut_array().is_some_and(|area| mux.fill(area, now_ms));
                if !filled {
                    spare.push(frame);
                    break;
                }
                batch.push(Outgoing { circuit, frame });
            }
        });
    }
}
