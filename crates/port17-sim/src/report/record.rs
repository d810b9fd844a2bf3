//! What is noted while a run goes on, since nobody could say it at the end: how Bottles spread, links that come and go, times of
//! processes. It sees everything, decides nothing, and draws nothing.

use std::collections::{BTreeMap, BTreeSet};

use port17_proto::bottle::Seq;
use port17_proto::ids::NodeId;

/// A Bottle on its way to everybody.
#[derive(Debug)]
struct Spreading {
    seq: Seq,
    /// From here its time counts.
    from_us: u64,
    /// When its node's process started, where it is that process's first.
    started_us: Option<u64>,
    /// When the last so far got it.
    last_us: Option<u64>,
    /// Who runs since before it was published, and does not hold it yet.
    waiting: BTreeSet<usize>,
}

/// One host's share.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    running_since_us: Option<u64>,
    ran_us: u64,
    has_published: bool,
}

/// What has been noted.
#[derive(Debug, Default)]
pub(crate) struct Record {
    spreading: BTreeMap<NodeId, Vec<Spreading>>,
    lives: Vec<Life>,
    /// Before there is a list nobody has anybody to dial: no time counts from earlier.
    listed_us: Option<u64>,
    /// From publication, or the first list where that is later, until all have it.
    pub(crate) bottles_us: Vec<u64>,
    /// From a process's start, or the first list, until all have its first Bottle.
    pub(crate) starts_us: Vec<u64>,
    /// A link to another node came up, or went down, as a node's engine says it.
    pub(crate) link_changes: u64,
    /// What had been counted when the mesh had formed.
    pub(crate) formed: Formed,
}

/// Counts at the moment from which a mesh is one that stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Formed {
    pub(crate) link_changes: u64,
    pub(crate) node_us: u64,
    pub(crate) client_us: u64,
    pub(crate) control: ControlCounts,
}

/// Control that was sent so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ControlCounts {
    /// Frames that nodes sent, to nodes and clients.
    pub(crate) node_frames: u64,
    /// Bytes of their messages.
    pub(crate) node_message_bytes: u64,
    /// Frames that clients sent.
    pub(crate) client_frames: u64,
    /// Bytes of their messages.
    pub(crate) client_message_bytes: u64,
    /// Frames that nodes sent to clients.
    pub(crate) to_client_frames: u64,
    /// Bytes of those messages.
    pub(crate) to_client_message_bytes: u64,
}

impl Record {
    fn life(&mut self, host: usize) -> &mut Life {
        if self.lives.len() <= host {
            self.lives.resize(host + 1, Life::default());
        }
        &mut self.lives[host]
    }

    /// A process starts.
    pub(crate) fn started(&mut self, host: usize, now_us: u64) {
        let life = self.life(host);
        life.running_since_us = Some(now_us);
        life.has_published = false;
    }

    /// A process is gone: nobody waits for what it does not hold.
    pub(crate) fn stopped(&mut self, host: usize, now_us: u64) {
        let life = self.life(host);
        life.ran_us += life.running_since_us.take().map_or(0, |since_us| now_us - since_us);
        for spreading in self.spreading.values_mut() {
            for it in spreading {
                it.waiting.remove(&host);
            }
        }
        self.spreading.keys().copied().collect::<Vec<_>>().iter().for_each(|node| self.finish(node));
    }

    /// A node is gone for good: its Bottles need reach nobody any more.
    pub(crate) fn left(&mut self, node: &NodeId) {
        self.spreading.remove(node);
    }

    /// There is a signed list.
    pub(crate) fn listed(&mut self, now_us: u64) {
        if self.listed_us.is_none() {
            self.listed_us = Some(now_us);
            self.spreading.values_mut().flatten().for_each(|it| it.from_us = now_us);
        }
    }

    /// A node publishes a Bottle, which these hosts are to get.
    pub(crate) fn published(&mut self, host: usize, node: NodeId, seq: Seq, now_us: u64, waiting: BTreeSet<usize>) {
        let life = self.life(host);
        let is_first = !std::mem::replace(&mut life.has_published, true);
        let started_us = life.running_since_us.filter(|_| is_first);
        let it = Spreading { seq, from_us: now_us, started_us, last_us: None, waiting };
        self.spreading.entry(node).or_default().push(it);
    }

    /// A host holds a node's Bottle of this seq. Who holds a newer one has no use for an older.
    pub(crate) fn holds(&mut self, host: usize, node: &NodeId, seq: Seq, now_us: u64) {
        let Some(spreading) = self.spreading.get_mut(node) else { return };
        let mut is_news = false;
        for it in spreading.iter_mut().filter(|it| it.seq <= seq) {
            if it.waiting.remove(&host) {
                it.last_us = Some(now_us);
                is_news = true;
            }
        }
        if is_news {
            self.finish(node);
        }
    }

    /// Counts the Bottles of a node for which nobody waits any more.
    fn finish(&mut self, node: &NodeId) {
        let Some(spreading) = self.spreading.get_mut(node) else { return };
        let listed_us = self.listed_us.unwrap_or(0);
        spreading.retain(|it| {
            if !it.waiting.is_empty() {
                return true;
            }
            // Where all are gone before it came to anybody there is no time.
            if let Some(last_us) = it.last_us {
                self.bottles_us.push(last_us.saturating_sub(it.from_us));
                self.starts_us.extend(it.started_us.map(|started_us| last_us.saturating_sub(started_us.max(listed_us))));
            }
            false
        });
    }

    /// Bottles that have not reached all.
    pub(crate) fn still_spreading(&self) -> usize {
        self.spreading.values().map(Vec::len).sum()
    }

    /// How long processes of these hosts have run, in microseconds.
    pub(crate) fn ran_us(&self, hosts: impl Iterator<Item = usize>, now_us: u64) -> u64 {
        let of = |life: &Life| life.ran_us + life.running_since_us.map_or(0, |since_us| now_us - since_us);
        hosts.filter_map(|host| self.lives.get(host)).map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn the_last_who_gets_a_bottle_ends_its_time() {
        let mut record = Record::default();
        (0..3).for_each(|host| record.started(host, 10));
        record.listed(100);
        record.published(0, node(0), Seq(5), 150, [1, 2].into());
        record.holds(1, &node(0), Seq(5), 160);
        assert_eq!((record.still_spreading(), record.bottles_us.len()), (1, 0));
        record.holds(2, &node(0), Seq(5), 190);
        assert_eq!((record.still_spreading(), &record.bottles_us[..], &record.starts_us[..]), (0, &[40][..], &[90][..]));
    }

    #[test]
    fn a_newer_bottle_does_for_an_older_and_an_older_one_for_nothing() {
        let mut record = Record::default();
        record.started(0, 0);
        record.listed(0);
        record.published(0, node(0), Seq(5), 0, [1].into());
        record.published(0, node(0), Seq(6), 10, [1].into());
        record.holds(1, &node(0), Seq(4), 20);
        assert_eq!(record.still_spreading(), 2);
        record.holds(1, &node(0), Seq(6), 30);
        assert_eq!((record.still_spreading(), &record.bottles_us[..], &record.starts_us[..]), (0, &[30, 20][..], &[30][..]));
    }

    #[test]
    fn nobody_waits_for_who_is_gone() {
        let mut record = Record::default();
        (0..3).for_each(|host| record.started(host, 0));
        record.published(0, node(0), Seq(5), 0, [1, 2].into());
        record.holds(1, &node(0), Seq(5), 20);
        record.stopped(2, 50);
        assert_eq!((record.still_spreading(), &record.bottles_us[..]), (0, &[20][..]));
        assert_eq!(record.ran_us([0, 2].into_iter(), 60), 110);
    }
}
