//! Bottles and farewells that come in any order, in any groups, again and again, make the same rack (spec 04, 5 and 6).

use std::collections::BTreeSet;

use port17_proto::bottle::{Seq, ShortId, Tombstone, UnverifiedTombstone, VerifiedBottle};
use port17_proto::bottlerack::{Bottlerack, Trust};
use port17_proto::ids::NodeId;
use port17_proto::node::record::RecordKey;
use port17_proto::params::Params;
use port17_proto::wire::registry::Scope;
use proptest::prelude::*;

use super::sample_bottle::{NOW_MS, SEQ, key, minimal, verified};

const LAST: u64 = 4;

#[derive(Debug, Clone)]
enum Said {
    Bottle(Box<VerifiedBottle>),
    Farewell(Tombstone),
}

/// What three nodes may say: Bottles with a few seqs, several under one of them, and a farewell behind them all.
fn said() -> impl Strategy<Value = Said> {
    let bottle = (1u8..4, 0..LAST, 0u8..4).prop_map(|(seed, seq, load)| {
        let mut content = minimal(seed);
        (content.seq, content.load) = (Seq(SEQ + seq), load);
        Said::Bottle(Box::new(verified(&content, seed)))
    });
    let farewell = (1u8..4).prop_map(|seed| {
        let parsed = UnverifiedTombstone::parse(&Tombstone::sign(&key(seed), Seq(SEQ + LAST))).unwrap();
        Said::Farewell(parsed.verify(NOW_MS, Params::DEFAULT.rack_rules().tombstone_ms, 0).unwrap())
    });
    prop_oneof![9 => bottle, 1 => farewell]
}

fn take(rack: &mut Bottlerack, said: &Said) {
    match said {
        Said::Bottle(bottle) => {
            rack.insert((**bottle).clone(), NOW_MS);
        }
        Said::Farewell(tombstone) => {
            rack.bury(tombstone.clone(), NOW_MS);
        }
    }
}

fn rack_of<'a>(said: impl IntoIterator<Item = &'a Said>) -> Bottlerack {
    let mut rack = Bottlerack::new(Scope::Public);
    said.into_iter().for_each(|said| take(&mut rack, said));
    rack
}

/// All that a rack can tell another one.
fn told(rack: &Bottlerack) -> Vec<Said> {
    let held = rack.held_after(None, 1000, NOW_MS);
    let bottles = held.iter().map(|held| Said::Bottle(Box::new(rack.by_short_id(&held.short_id).unwrap().clone())));
    bottles.chain(rack.tombstones().cloned().map(Said::Farewell)).collect()
}

#[derive(Debug, PartialEq)]
struct Truth {
    bottles: Vec<ShortId>,
    names: Vec<Option<String>>,
    left: Vec<NodeId>,
}

fn truth(rack: &Bottlerack) -> Truth {
    Truth {
        bottles: rack.iter().map(|stored| stored.bottle.short_id()).collect(),
        names: rack.iter().map(|stored| rack.name_of(&stored.bottle.node_id()).map(|name| name.to_string())).collect(),
        left: rack.tombstones().map(Tombstone::node_id).collect(),
    }
}

/// Who stands there with several truths under its last seq: nothing may hide that.
fn caught(said: &[Said], rack: &Bottlerack) -> BTreeSet<NodeId> {
    let used = |bottle: &VerifiedBottle| rack.seq(&bottle.node_id()) == Some(bottle.seq());
    let truths: BTreeSet<(NodeId, ShortId)> = said
        .iter()
        .filter_map(|said| match said {
            Said::Bottle(bottle) => used(bottle).then(|| (bottle.node_id(), bottle.short_id())),
            Said::Farewell(_) => None,
        })
        .collect();
    let several = |node: &NodeId| truths.iter().filter(|(of, _)| of == node).count() > 1;
    truths.iter().map(|(node, _)| *node).filter(several).collect()
}

fn distrusts(rack: &Bottlerack, nodes: &BTreeSet<NodeId>) -> bool {
    nodes.iter().all(|node| rack.trust(node, NOW_MS) == Trust::Distrusted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_order_any_groups_any_repetition_make_the_same_rack(
        (said, shuffled) in proptest::collection::vec(said(), 0..14).prop_flat_map(|said| (Just(said.clone()), Just(said).prop_shuffle())),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        split in any::<prop::sample::Index>(),
    ) {
        let rack = rack_of(&said);
        let (expected, caught) = (truth(&rack), caught(&said, &rack));
        prop_assert!(distrusts(&rack, &caught));

        let repeated: Vec<&Said> = again.iter().filter(|_| !said.is_empty()).map(|index| index.get(&said)).collect();
        let other = rack_of(shuffled.iter().chain(repeated));
        prop_assert_eq!(&truth(&other), &expected, "another order, some of it twice");
        prop_assert!(distrusts(&other, &caught));

        let (left, right) = shuffled.split_at(split.index(shuffled.len() + 1));
        let (left, right) = (rack_of(left), rack_of(right));
        for (one, two) in [(&left, &right), (&right, &left)] {
            let mut merged = one.clone();
            told(two).iter().for_each(|said| take(&mut merged, said));
            prop_assert_eq!(&truth(&merged), &expected, "in two groups");
            prop_assert!(distrusts(&merged, &caught));
            let before = merged.clone();
            told(two).iter().for_each(|said| take(&mut merged, said));
            prop_assert_eq!(truth(&merged), truth(&before), "once more");
        }
    }

    #[test]
    fn a_rack_comes_back_from_its_records_as_it_was(said in proptest::collection::vec(said(), 0..14)) {
        let mut rack = rack_of(&said);
        let keys = rack.take_changed();
        let records: Vec<(RecordKey, Vec<u8>)> = keys.iter().filter_map(|key| Some((*key, rack.record(*key)?))).collect();
        let rules = Params::DEFAULT.bottle_rules();
        let mut again = Bottlerack::new(Scope::Public);
        let is_bottle = |key: &RecordKey| matches!(key, RecordKey::Bottle(_));
        for (key, bytes) in records.iter().filter(|(key, _)| !is_bottle(key)).chain(records.iter().filter(|(key, _)| is_bottle(key))) {
            prop_assert!(again.restore(*key, bytes, NOW_MS, &rules).is_ok());
        }
        prop_assert_eq!(truth(&again), truth(&rack));
        for (key, bytes) in &records {
            prop_assert_eq!(again.record(*key), Some(bytes.clone()), "the same bytes");
        }
        let nodes: BTreeSet<NodeId> = [1, 2, 3].map(|seed| minimal(seed).node_id()).into();
        let distrusted = |rack: &Bottlerack| nodes.iter().filter(|node| rack.trust(node, NOW_MS) == Trust::Distrusted).count();
        prop_assert_eq!(distrusted(&again), distrusted(&rack));
    }

    #[test]
    fn a_changed_record_is_refused_or_says_the_same_of_the_same_node(
        said in said(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut rack = rack_of([&said]);
        let rules = Params::DEFAULT.bottle_rules();
        for key in rack.take_changed() {
            let Some(mut bytes) = rack.record(key) else { continue };
            // The first eight bytes are the time, which nothing proves.
            let at = 8 + at.index(bytes.len() - 8);
            bytes[at] ^= 1 << bit;
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let mut again = Bottlerack::new(Scope::Public);
            prop_assert!(again.restore(key, &bytes, NOW_MS, &rules).is_err());
            prop_assert!(again.is_empty() && again.tombstones().next().is_none());
        }
    }
}
