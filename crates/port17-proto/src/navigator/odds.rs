use std::collections::BTreeMap;

use super::map::Map;
use super::route::{Drawing, NoRoute, RouteRequest};
use crate::ids::NodeId;

/// How likely each exit is at the end of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitOdds {
    /// Exits that may serve the target and are not left out, whether the links lead there or not.
    pub eligible: usize,
    /// Of all walks that [`super::route`] draws from, all equally likely (08-M5), those that end at each node.
    pub walks: BTreeMap<NodeId, u64>,
}

/// Counts the routes that a request is drawn from, by their exits: what somebody can know who knows the map, the guard, the nodes behind
/// it, and the length. None when there are more than `steps` steps to go through.
///
/// # Errors
/// Why there is no route.
pub fn exit_odds(map: &Map, request: &RouteRequest<'_>, steps: usize) -> Result<Option<ExitOdds>, NoRoute> {
    let drawing = Drawing::new(map, request)?;
    let hops = request.hops;
    let walks = drawing.drawn_from().ok_or(NoRoute::NoPath { hops })?;
    let Some(ends) = walks.ends(steps) else { return Ok(None) };
    if ends.is_empty() {
        return Err(NoRoute::NoPath { hops });
    }
    let eligible = (0..map.len()).filter(|number| drawing.field.is_end(*number)).count();
    Ok(Some(ExitOdds { eligible, walks: ends.into_iter().map(|(number, walks)| (map.id(number), walks)).collect() }))
}
