use std::collections::BTreeMap;

use super::diversity::Rules;
use super::field::Field;
use crate::crypto::Entropy;
use crate::limits::{ROUTE_STEPS, ROUTE_TRIES};
use crate::planted::planted;

/// Why nothing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nothing {
    /// There is none.
    NoPath,
    /// The search was given up.
    GaveUp,
}

/// The walks of `hops` nodes that begin with the fixed ones and end at an exit.
///
/// `counts[k][v]`: how many walks of k nodes begin at v and end at an exit without meeting a fixed node or one that the rules forbid
/// beside it. Whether their own nodes fit together is seen when one is drawn. At most 64^5.
pub(super) struct Walks<'a> {
    field: &'a Field<'a>,
    rules: Rules,
    fixed: Vec<usize>,
    hops: usize,
    counts: Vec<Vec<u64>>,
}

impl<'a> Walks<'a> {
    /// Counts. `fixed` are the numbers of one to `hops` nodes, which fit together.
    pub(super) fn count(field: &'a Field<'a>, rules: Rules, fixed: Vec<usize>, hops: usize) -> Self {
        let nodes = field.map.len();
        let others = if planted("route-comes-back-to-the-guard") { fixed.len().saturating_sub(1) } else { 0 };
        let fits = |node: usize| field.is_usable(node) && !fixed[others..].iter().any(|other| field.forbids(rules, *other, node));
        let allowed: Vec<bool> = (0..nodes).map(fits).collect();
        let drawn = hops.saturating_sub(fixed.len());
        let mut counts = vec![vec![0; nodes]; drawn + 1];
        for length in 1..=drawn {
            for node in (0..nodes).filter(|node| allowed[*node]) {
                counts[length][node] = match length {
                    1 => u64::from(field.is_end(node)),
                    _ => field.node(node).neighbours.iter().map(|next| counts[length - 1][*next]).sum(),
                };
            }
        }
        Self { field, rules, fixed, hops, counts }
    }

    /// A uniform one of those that keep all rules.
    pub(super) fn draw(&self, entropy: &mut Entropy) -> Result<Vec<usize>, Nothing> {
        if !self.has_any() {
            return Err(Nothing::NoPath);
        }
        match (0..ROUTE_TRIES).find_map(|_| self.attempt(entropy)) {
            Some(walk) => Ok(walk),
            None => Search::new(self).draw(entropy),
        }
    }

    /// Whether a walk that begins like this can end well. `steps` is what may be spent on it; when that is gone, it is taken that it can.
    pub(super) fn lead_on(&self, walk: &[usize], steps: &mut usize) -> bool {
        let mut search = Search::new(self);
        search.steps_left = *steps;
        search.extend(&mut walk.to_vec(), &mut None);
        *steps = search.steps_left;
        search.found > 0 || search.steps_left == 0
    }

    /// How many of the walks that keep all rules end at each node; none when there are more steps to go than `steps`.
    pub(super) fn ends(&self, mut steps: usize) -> Option<BTreeMap<usize, u64>> {
        let mut ends = BTreeMap::new();
        if self.has_any() {
            self.count_ends(&mut self.fixed.clone(), &mut steps, &mut ends)?;
        }
        Some(ends)
    }

    /// At most six deep.
    fn count_ends(&self, walk: &mut Vec<usize>, steps: &mut usize, ends: &mut BTreeMap<usize, u64>) -> Option<()> {
        if walk.len() == self.hops {
            *ends.entry(*walk.last()?).or_default() += 1;
            return Some(());
        }
        let onward: Vec<usize> = self.onward(walk).map(|(next, _)| next).collect();
        for next in onward {
            *steps = steps.checked_sub(1)?;
            if self.fits(walk, next) {
                walk.push(next);
                self.count_ends(walk, steps, ends)?;
                walk.pop();
            }
        }
        Some(())
    }

    /// Whether a node fits at the end of a walk that begins with the fixed ones.
    pub(super) fn fits(&self, walk: &[usize], next: usize) -> bool {
        !walk[self.fixed.len()..].iter().any(|other| self.field.forbids(self.rules, *other, next))
    }

    /// Where a walk can go on, and how many walks lead on from there.
    pub(super) fn onward(&self, walk: &[usize]) -> impl Iterator<Item = (usize, u64)> {
        let place = walk.len();
        let counts = &self.counts[self.hops - place];
        let neighbours = walk.last().map_or(&[][..], |last| &self.field.node(*last).neighbours);
        let stands = move |next: &&usize| self.field.may_stand(**next, place, self.hops);
        neighbours.iter().filter(stands).map(|next| (*next, counts[*next])).filter(|(_, count)| *count > 0)
    }

    fn has_any(&self) -> bool {
        if self.fixed.len() >= self.hops {
            return self.fixed.last().is_some_and(|last| self.field.is_end(*last));
        }
        self.onward(&self.fixed).next().is_some()
    }

    /// A uniform walk; none when two of its nodes do not fit together.
    fn attempt(&self, entropy: &mut Entropy) -> Option<Vec<usize>> {
        let mut walk = self.fixed.clone();
        while walk.len() < self.hops {
            let total = self.onward(&walk).map(|(_, count)| count).sum();
            let mut ticket = entropy.below(total);
            let (next, _) = self.onward(&walk).find(|(_, count)| {
                let hit = ticket < *count;
                ticket = ticket.saturating_sub(*count);
                hit
            })?;
            if !self.fits(&walk, next) {
                return None;
            }
            walk.push(next);
        }
        Some(walk)
    }
}

/// Goes through the walks one by one and keeps each with the odds that make all equally likely.
struct Search<'a> {
    walks: &'a Walks<'a>,
    steps_left: usize,
    found: u64,
    kept: Option<Vec<usize>>,
}

impl<'a> Search<'a> {
    fn new(walks: &'a Walks<'a>) -> Self {
        Self { walks, steps_left: ROUTE_STEPS, found: 0, kept: None }
    }

    fn draw(mut self, entropy: &mut Entropy) -> Result<Vec<usize>, Nothing> {
        self.extend(&mut self.walks.fixed.clone(), &mut Some(entropy));
        let gave_up = self.steps_left == 0;
        self.kept.ok_or(if gave_up { Nothing::GaveUp } else { Nothing::NoPath })
    }

    /// At most six deep. Without entropy the first one found is enough.
    fn extend(&mut self, walk: &mut Vec<usize>, entropy: &mut Option<&mut Entropy>) {
        if walk.len() == self.walks.hops {
            self.found += 1;
            if entropy.as_mut().is_some_and(|entropy| entropy.below(self.found) == 0) {
                self.kept = Some(walk.clone());
            }
            return;
        }
        let onward: Vec<usize> = self.walks.onward(walk).map(|(next, _)| next).collect();
        // From a random place on: a search that is given up has then not seen the same corner each time.
        let first = entropy.as_mut().map_or(0, |entropy| entropy.below(onward.len() as u64));
        let (before, after) = onward.split_at(usize::try_from(first).unwrap_or(0));
        for next in after.iter().chain(before) {
            let enough = entropy.is_none() && self.found > 0;
            if self.steps_left == 0 || enough {
                return;
            }
            self.steps_left -= 1;
            if self.walks.fits(walk, *next) {
                walk.push(*next);
                self.extend(walk, entropy);
                walk.pop();
            }
        }
    }
}
