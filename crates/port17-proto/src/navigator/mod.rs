//! Computes routes (spec 08).
//!
//! The map is what both ends say: a link counts when both Bottles list it. A route is a uniform simple walk: every way of the wanted
//! length from the guard, over the hop that is pinned behind it, to an exit that may serve the target is equally likely, among those
//! that keep the rules of diversity. It is drawn by counting: how many walks of k more nodes end well, from each node, gives the odds of
//! each step; a walk that breaks a rule or meets a node twice is thrown away and drawn anew, which keeps those that remain uniform. On
//! maps where nearly all walks do, a bounded search goes through them one by one instead.
//!
//! - `map.rs`: who there is, who is linked, who may stand where.
//! - `diversity.rs`: what two hops of one route must not share.
//! - `field.rs`: the part of the map that one request can use.
//! - `walks.rs`: counting, drawing, searching.
//! - `route.rs`: a request, a route, and why there is none.
//! - `hop2.rs`: which nodes may be pinned behind a guard.
//! - `odds.rs`: how likely each exit is for who knows all of this.

mod diversity;
mod field;
mod hop2;
mod map;
mod odds;
mod route;
mod walks;

pub use self::diversity::AddressBlock;
pub use self::hop2::{Hop2Request, hop2_choices};
pub use self::map::Map;
pub use self::odds::{ExitOdds, exit_odds};
pub use self::route::{HopRole, HopSample, NoRoute, RouteRequest, RouteSample, Shared, route, sample};
