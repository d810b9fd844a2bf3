//! What the cells of one lane's read held for one circuit, on its way into the [`Mux`](super::mux::Mux).

use super::message::{Area, CellReader, Junk, Message, Piece};
use crate::ids::StreamId;
use crate::wire::registry::MESSAGE_BYTES;

/// What a cell held of one stream.
pub(super) enum Item {
    Data(StreamId, Vec<u8>),
    Message(StreamId, Message),
}

/// What a lane's reader collects for one circuit before it hands over: the reader's side needs no lock.
#[derive(Default)]
pub struct Batch {
    reader: CellReader,
    pub(super) items: Vec<Item>,
    pub(super) cells: u64,
}

/// Bytes of a chunk that further DATA of the same stream is added to.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

impl Batch {
    /// Adds one cell.
    ///
    /// # Errors
    /// On junk: the circuit is to be destroyed.
    pub fn add(&mut self, area: &Area) -> Result<(), Junk> {
        self.cells += 1;
        let items = &mut self.items;
        self.reader.read(area, |piece| {
            match piece {
                Piece::Message(id, message) => items.push(Item::Message(id, message)),
                Piece::Data(id, data) => match items.last_mut() {
                    Some(Item::Data(last, chunk)) if *last == id && chunk.len() + data.len() <= CHUNK_BYTES => {
                        chunk.extend_from_slice(data);
                    }
                    Some(_) | None => {
                        let busy = data.len() > MESSAGE_BYTES / 2;
                        let mut chunk = Vec::with_capacity(if busy { CHUNK_BYTES } else { data.len() });
                        chunk.extend_from_slice(data);
                        items.push(Item::Data(id, chunk));
                    }
                },
            }
            Ok(())
        })
    }

    /// Whether nothing has come since the last hand-over.
    pub fn is_empty(&self) -> bool {
        self.cells == 0
    }
}
