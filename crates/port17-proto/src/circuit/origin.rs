//! The client's side of a circuit (spec 06).
//!
//! Two halves with different owners: [`OriginForward`] belongs to the circuit's task, which seals in the order of the lane;
//! [`OriginBackward`] to the reader of the guard's lane. [`Origin`] holds both until they are parted.

use std::ops::Range;

use super::created::{CreatedError, CreatedOutcome, FreshLayers};
use super::onion::{BackwardLayer, ForwardLayer, client_area, open_message_backward, seal_message_forward};
use super::setup::{OriginSetup, RouteError, RouteHop, SetupPacket};
use crate::crypto::{CryptoError, Entropy, KemBackend, Secret};
use crate::planted::planted;
use crate::wire::registry::{CELL_FLAG_FRESH, FRAME_BYTES, SetupStatus};

/// Seals the client's cells.
pub struct OriginForward {
    layers: Vec<ForwardLayer>,
    flag: u8,
}

impl OriginForward {
    /// Begins with the layers of SETUP.
    pub fn new(layers: Vec<ForwardLayer>) -> Self {
        Self { layers, flag: 0 }
    }

    /// Length of the route.
    pub fn hops(&self) -> usize {
        self.layers.len()
    }

    /// Where in a frame the message area for `hop` (0 is the guard) has to be.
    pub fn area(hop: usize) -> Range<usize> {
        client_area(hop)
    }

    /// Seals the message in `frame` for `hop` in place and returns the flags for the header, which the caller writes.
    ///
    /// # Errors
    /// When the route has no such hop.
    pub fn seal(&mut self, hop: usize, frame: &mut [u8; FRAME_BYTES]) -> Result<u8, CryptoError> {
        let layers = self.layers.get_mut(..=hop).ok_or(CryptoError)?;
        seal_message_forward(layers, self.flag, frame)?;
        Ok(self.flag)
    }

    /// Goes over to the keys of CREATED, for good.
    ///
    /// # Errors
    /// When there is not exactly one key for each hop, or they were installed before.
    pub fn upgrade(&mut self, fresh: Vec<Secret<32>>) -> Result<(), CryptoError> {
        if self.flag == CELL_FLAG_FRESH || fresh.len() != self.layers.len() {
            return Err(CryptoError);
        }
        if planted("client-stays-on-first-key") {
            return Ok(());
        }
        self.layers.iter_mut().zip(fresh).for_each(|(layer, key)| layer.upgrade(key));
        self.flag = CELL_FLAG_FRESH;
        Ok(())
    }
}

/// Opens the cells that come back.
pub struct OriginBackward {
    layers: Vec<BackwardLayer>,
}

impl OriginBackward {
    /// Begins with the layers of CREATED.
    pub fn new(layers: Vec<BackwardLayer>) -> Self {
        Self { layers }
    }

    /// Length of the route.
    pub fn hops(&self) -> usize {
        self.layers.len()
    }

    /// Opens a cell's body in place. Returns the hop that speaks (0 is the guard) and where in `body` its message area lies.
    ///
    /// # Errors
    /// When it is not authentic. The circuit must then be destroyed.
    pub fn open(&mut self, body: &mut [u8]) -> Result<(usize, Range<usize>), CryptoError> {
        open_message_backward(&mut self.layers, body)
    }
}

/// What broke a circuit at the client; it must be destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// A cell is not authentic, or a hop does not exist.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The answer is not authentic.
    #[error(transparent)]
    Created(#[from] CreatedError),
    /// A backward cell before CREATED, or a second CREATED.
    #[error("out of turn")]
    OutOfTurn,
}

/// How the route answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Every hop is part of the circuit; the fresh keys are in force.
    Complete,
    /// A hop (0 is the guard) refused; the circuit is over.
    Failed {
        /// Who.
        hop: usize,
        /// Why: never OK.
        status: SetupStatus,
    },
}

enum Stage {
    ExpectCreated(OriginSetup),
    Open(OriginBackward),
    Over,
}

/// The client's cryptographic state of one circuit.
pub struct Origin {
    forward: OriginForward,
    stage: Stage,
}

impl Origin {
    /// Builds a route: see [`OriginSetup::new`]. Cells can be sealed at once.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn new(
        hops: &[RouteHop],
        offset: u8,
        slot: u32,
        backend: KemBackend,
        entropy: &mut Entropy,
    ) -> Result<(Self, SetupPacket), RouteError> {
        let (setup, layers, packet) = OriginSetup::new(hops, offset, slot, backend, entropy)?;
        Ok((Self { forward: OriginForward::new(layers), stage: Stage::ExpectCreated(setup) }, packet))
    }

    /// Seals a message: see [`OriginForward::seal`].
    ///
    /// # Errors
    /// When the route has no such hop.
    pub fn seal(&mut self, hop: usize, frame: &mut [u8; FRAME_BYTES]) -> Result<u8, OriginError> {
        Ok(self.forward.seal(hop, frame)?)
    }

    /// Opens a backward cell: see [`OriginBackward::open`].
    ///
    /// # Errors
    /// When it is not authentic, or comes before CREATED.
    pub fn open(&mut self, body: &mut [u8]) -> Result<(usize, Range<usize>), OriginError> {
        match &mut self.stage {
            Stage::Open(backward) => Ok(backward.open(body)?),
            // spec 06, 1
            Stage::ExpectCreated(_) | Stage::Over => Err(OriginError::OutOfTurn),
        }
    }

    /// Takes the one CREATED. When it is complete the fresh keys are in force from here on.
    ///
    /// # Errors
    /// When it is not authentic, or is not the first.
    pub fn handle_created(&mut self, body: &[u8]) -> Result<Answer, OriginError> {
        // spec 06, 1
        let Stage::ExpectCreated(setup) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(OriginError::OutOfTurn);
        };
        match setup.created(body)? {
            CreatedOutcome::Failed { hop, status } => Ok(Answer::Failed { hop, status }),
            CreatedOutcome::Complete(FreshLayers { forward, backward }) => {
                self.forward.upgrade(forward)?;
                self.stage = Stage::Open(OriginBackward::new(backward));
                Ok(Answer::Complete)
            }
        }
    }

    /// Parts the two halves, so that a task and a reader can own one each; none before CREATED or after a failure.
    pub fn split(self) -> Option<(OriginForward, OriginBackward)> {
        match self.stage {
            Stage::Open(backward) => Some((self.forward, backward)),
            Stage::ExpectCreated(_) | Stage::Over => None,
        }
    }
}
