//! A Bottlerack over restarts: what changed as records, and records read again (spec 11, 5). Whatever was stored is parsed and verified
//! anew: a disk is not to be trusted more than a peer.

use super::{Bottlerack, Burial, Equivocation};
use crate::bottle::{BottleRules, UnverifiedBottle, UnverifiedTombstone, VerifiedBottle};
use crate::ids::NodeId;
use crate::limits::EQUIVOCATIONS;
use crate::node::record::RecordKey;

/// A record does not hold what its key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored record is damaged")]
pub struct DamagedRecord;

impl Bottlerack {
    /// The records that are not stored as they are now; asked once, they count as stored.
    pub fn take_changed(&mut self) -> Vec<RecordKey> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// A record's bytes as they are now, none if there is nothing to keep.
    pub fn record(&self, key: RecordKey) -> Option<Vec<u8>> {
        match key {
            RecordKey::Bottle(node) => {
                let stored = self.bottles.get(&node).or_else(|| self.hints.get(&node))?;
                Some(with_time(stored.received_ms, &[stored.bottle.envelope()]))
            }
            RecordKey::Evidence(node) => {
                let Equivocation { pair: [first, second], found_ms } = self.equivocations.get(&node)?;
                // A Bottle has at most 4096 bytes.
                let length = u16::try_from(first.envelope().len()).ok()?;
                Some(with_time(*found_ms, &[&length.to_be_bytes(), first.envelope(), second.envelope()]))
            }
            RecordKey::Tombstone(node) => {
                let Burial { tombstone, received_ms } = self.tombstones.get(&node)?;
                Some(with_time(*received_ms, &[tombstone.envelope()]))
            }
            RecordKey::List | RecordKey::Anchors | RecordKey::Guards => None,
        }
    }

    /// Takes back what an earlier run stored. What is too old by now is dropped, an expired Bottle becomes a hint.
    ///
    /// # Errors
    /// When the bytes are not what the key says.
    pub fn restore(&mut self, key: RecordKey, bytes: &[u8], now_ms: u64, rules: &BottleRules) -> Result<(), DamagedRecord> {
        let restored = match key {
            RecordKey::Bottle(node) => self.restore_bottle(node, bytes, now_ms, rules),
            RecordKey::Evidence(node) => self.restore_evidence(node, bytes, now_ms, rules),
            RecordKey::Tombstone(node) => self.restore_tombstone(node, bytes, now_ms, rules),
            RecordKey::List | RecordKey::Anchors | RecordKey::Guards => return Ok(()),
        };
        if self.record(key).as_deref() == Some(bytes) {
            self.changed.remove(&key);
        } else {
            self.changed.insert(key);
        }
        restored
    }

    fn restore_bottle(&mut self, node: NodeId, bytes: &[u8], now_ms: u64, rules: &BottleRules) -> Result<(), DamagedRecord> {
        let (received_ms, envelope) = split_time(bytes, now_ms)?;
        let bottle = verified(envelope, node, rules)?;
        if bottle.seq().unix_ms() > now_ms.saturating_add(rules.ahead_ms) {
            // The clock was set back: what cannot be compared with it is asked for again.
            return Ok(());
        }
        if bottle.expires_ms() > now_ms {
            self.insert(bottle, received_ms);
        } else if bottle.expires_ms().saturating_add(self.rules.hint_ms) > now_ms {
            self.insert_hint(bottle, received_ms);
        }
        Ok(())
    }

    fn restore_evidence(&mut self, node: NodeId, bytes: &[u8], now_ms: u64, rules: &BottleRules) -> Result<(), DamagedRecord> {
        let (found_ms, rest) = split_time(bytes, now_ms)?;
        let (length, rest) = rest.split_first_chunk().ok_or(DamagedRecord)?;
        let (first, second) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(DamagedRecord)?;
        let pair = [verified(first, node, rules)?, verified(second, node, rules)?];
        if pair[0].seq() != pair[1].seq() || pair[0].payload() == pair[1].payload() {
            return Err(DamagedRecord);
        }
        if found_ms.saturating_add(self.rules.distrust_ms) > now_ms && self.equivocations.len() < EQUIVOCATIONS {
            self.keep_evidence(pair, found_ms);
        }
        Ok(())
    }

    fn restore_tombstone(&mut self, node: NodeId, bytes: &[u8], now_ms: u64, rules: &BottleRules) -> Result<(), DamagedRecord> {
        let (received_ms, envelope) = split_time(bytes, now_ms)?;
        let tombstone = UnverifiedTombstone::parse(envelope).map_err(|_| DamagedRecord)?;
        // As old as when it came: then it was young enough.
        let tombstone = tombstone.verify(received_ms, self.rules.tombstone_ms, rules.ahead_ms).map_err(|_| DamagedRecord)?;
        if tombstone.node_id() != node {
            return Err(DamagedRecord);
        }
        if received_ms.saturating_add(self.rules.tombstone_ms) > now_ms {
            self.tombstones.insert(node, Burial { tombstone, received_ms });
        }
        Ok(())
    }
}

fn with_time(time_ms: u64, parts: &[&[u8]]) -> Vec<u8> {
    [&time_ms.to_be_bytes()[..], &parts.concat()].concat()
}

/// The time before a record, never later than now, and what follows.
fn split_time(bytes: &[u8], now_ms: u64) -> Result<(u64, &[u8]), DamagedRecord> {
    let (time, rest) = bytes.split_first_chunk().ok_or(DamagedRecord)?;
    Ok((u64::from_be_bytes(*time).min(now_ms), rest))
}

fn verified(envelope: &[u8], node: NodeId, rules: &BottleRules) -> Result<VerifiedBottle, DamagedRecord> {
    let parsed = UnverifiedBottle::parse(envelope).map_err(|_| DamagedRecord)?;
    let bottle = parsed.verify_of_any_age(rules).map_err(|_| DamagedRecord)?;
    if bottle.node_id() == node { Ok(bottle) } else { Err(DamagedRecord) }
}
