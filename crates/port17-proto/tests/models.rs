//! Models: everything that can happen to a few nodes, in every order, looked at state by state.
//!
//! What decides is the code that ships; a model's own part is the network between nodes, and what it may do: hold back, repeat, lose.
//! Each model says how many states it went through.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "models/credit.rs"]
mod credit;
#[path = "models/gossip.rs"]
mod gossip;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

/// Goes through all states of a model, and fails the test with the way to the first one in which a property does not hold.
#[track_caller]
fn check<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Clone + PartialEq + Hash + Send + Sync,
    M::Action: Debug + Clone + PartialEq,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("{name}: {states} states, {steps} steps, {depth} deep");
    checker.assert_properties();
}
