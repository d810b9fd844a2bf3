//! The map of a run as a picture: nodes where their cities are, links, exits, clients and their guards.

use std::collections::BTreeMap;

use super::svg::Picture;
use super::{ClientSpot, Figures, Sketch, Spot};
use crate::geography::CITIES;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 680.0;
const TOP: f64 = 70.0;
/// From here to the bottom is the legend.
const BOTTOM: f64 = 630.0;
const NORTH: f64 = 68.0;
const SOUTH: f64 = -45.0;
const WEST: f64 = -130.0;
const EAST: f64 = 180.0;
/// Up to so many links each is a line; of more there is a line for each pair of cities.
const SINGLE_LINKS: usize = 600;

const EXIT: &str = "#d97706";
const MIDDLE: &str = "#2563a8";
const LIAR: &str = "#c81e1e";
const CLIENT: &str = "#15803d";

/// Draws the map of a run. `title` is put above it.
pub fn plot_map(sketch: &Sketch, figures: &Figures, title: &str) -> String {
    let mut picture = Picture::new(WIDTH, HEIGHT);
    picture.text([20.0, 30.0], "title", title);
    picture.text([20.0, 52.0], "", &summary(sketch, figures));
    graticule(&mut picture);
    let at = places(sketch);
    if sketch.links.len() <= SINGLE_LINKS {
        links(&mut picture, sketch, &at);
    } else {
        bundles(&mut picture, sketch);
    }
    clients(&mut picture, sketch, &at);
    let radius = node_radius(sketch);
    for (spot, at) in sketch.nodes.iter().zip(&at) {
        node(&mut picture, spot, *at, radius);
    }
    cities(&mut picture, sketch);
    legend(&mut picture, sketch);
    picture.finish()
}

fn summary(sketch: &Sketch, figures: &Figures) -> String {
    let exits = sketch.nodes.iter().filter(|spot| spot.is_exit).count();
    let mut words = format!("{} nodes, {exits} of them exits; {} links", sketch.nodes.len(), sketch.links.len());
    if let Some(mean) = figures.mean_distance {
        words += &format!("; diameter {}, on average {mean:.2} links apart", figures.diameter);
    }
    if figures.pairs_apart > 0 {
        words += &format!("; {} pairs with no way between them", figures.pairs_apart);
    }
    words
}

fn project(city: usize) -> [f64; 2] {
    let city = &CITIES[city];
    on_paper(city.latitude, city.longitude)
}

fn on_paper(latitude: f64, longitude: f64) -> [f64; 2] {
    let x = 20.0 + (longitude - WEST) / (EAST - WEST) * (WIDTH - 40.0);
    let y = TOP + (NORTH - latitude) / (NORTH - SOUTH) * (BOTTOM - TOP - 20.0);
    [x, y]
}

fn graticule(picture: &mut Picture) {
    let grid = "stroke=\"#e4e8ee\" stroke-width=\"1\"";
    for latitude in [60.0, 30.0, 0.0, -30.0] {
        picture.line(on_paper(latitude, WEST), on_paper(latitude, EAST), format_args!("{grid}"));
        let name = match latitude {
            0.0 => "equator".to_owned(),
            latitude => format!("{:.0}° {}", f64::abs(latitude), if latitude > 0.0 { "N" } else { "S" }),
        };
        let [x, y] = on_paper(latitude, EAST);
        picture.text([x, y - 3.0], "small right", &name);
    }
    for longitude in [-120.0, -90.0, -60.0, -30.0, 0.0, 30.0, 60.0, 90.0, 120.0, 150.0] {
        picture.line(on_paper(NORTH, longitude), on_paper(SOUTH, longitude), format_args!("{grid}"));
    }
}

/// Those of one city stand around it in a spiral, so that none covers another.
fn places(sketch: &Sketch) -> Vec<[f64; 2]> {
    const GOLDEN: f64 = 2.399_963;
    let spacing = node_radius(sketch) * 1.9;
    let mut standing: BTreeMap<usize, usize> = BTreeMap::new();
    let place = |spot: &Spot| {
        let number = standing.entry(spot.city).or_default();
        let (radius, angle) = (spacing * (*number as f64).sqrt(), *number as f64 * GOLDEN);
        *number += 1;
        let [x, y] = project(spot.city);
        [x + radius * angle.cos(), y + radius * angle.sin()]
    };
    sketch.nodes.iter().map(place).collect()
}

fn node_radius(sketch: &Sketch) -> f64 {
    match sketch.nodes.len() {
        0..=60 => 6.0,
        61..=300 => 3.5,
        _ => 2.2,
    }
}

fn links(picture: &mut Picture, sketch: &Sketch, at: &[[f64; 2]]) {
    let opacity = if sketch.links.len() > 200 { 0.25 } else { 0.45 };
    for [one, other] in &sketch.links {
        picture.line(at[*one], at[*other], format_args!("stroke=\"#7b8794\" stroke-width=\"1\" stroke-opacity=\"{opacity}\""));
    }
}

/// One line for all links of two cities, the wider the more there are.
fn bundles(picture: &mut Picture, sketch: &Sketch) {
    let mut bundles: BTreeMap<[usize; 2], usize> = BTreeMap::new();
    for link in &sketch.links {
        let mut cities = link.map(|node| sketch.nodes[node].city);
        cities.sort_unstable();
        if cities[0] != cities[1] {
            *bundles.entry(cities).or_default() += 1;
        }
    }
    let most = bundles.values().copied().max().unwrap_or(1) as f64;
    for ([one, other], links) in bundles {
        let share = links as f64 / most;
        let (width, opacity) = (0.3 + 4.0 * share, 0.12 + 0.4 * share);
        let stroke = format_args!("stroke=\"#7b8794\" stroke-width=\"{width:.2}\" stroke-opacity=\"{opacity:.2}\"");
        picture.line(project(one), project(other), stroke);
    }
}

fn node(picture: &mut Picture, spot: &Spot, at: [f64; 2], radius: f64) {
    let colour = match spot {
        Spot { is_honest: false, .. } => LIAR,
        Spot { is_exit: true, .. } => EXIT,
        Spot { .. } => MIDDLE,
    };
    let fill = if spot.is_hidden { "#ffffff" } else { colour };
    let paint = format_args!("fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"1.2\"");
    if !spot.is_listed {
        let (side, [x, y]) = (radius * 1.8, at);
        let (x, y) = (x - side / 2.0, y - side / 2.0);
        return picture
            .element("rect", format_args!("x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" {paint}"));
    }
    picture.circle(at, radius, paint);
}

/// A client beside its city, and the way to its guard.
fn clients(picture: &mut Picture, sketch: &Sketch, at: &[[f64; 2]]) {
    for (number, ClientSpot { city, guard }) in sketch.clients.iter().enumerate() {
        let [x, y] = project(*city);
        let [x, y] = [x - 16.0 - 3.0 * (number % 4) as f64, y + 14.0 + 4.0 * (number / 4 % 4) as f64];
        if let Some(guard) = guard.and_then(|guard| at.get(guard)) {
            picture.line([x, y], *guard, format_args!("stroke=\"{CLIENT}\" stroke-width=\"1.6\" stroke-dasharray=\"5 3\""));
        }
        triangle(picture, [x, y]);
    }
}

fn triangle(picture: &mut Picture, [x, y]: [f64; 2]) {
    let (left, right, top, bottom) = (x - 5.0, x + 5.0, y - 6.0, y + 4.0);
    let points = format_args!("points=\"{x:.1},{top:.1} {left:.1},{bottom:.1} {right:.1},{bottom:.1}\" fill=\"{CLIENT}\"");
    picture.element("polygon", points);
}

/// Names of the cities with most nodes, where there is room for them.
fn cities(picture: &mut Picture, sketch: &Sketch) {
    const APART: [f64; 2] = [70.0, 13.0];
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    sketch.nodes.iter().for_each(|spot| *counts.entry(spot.city).or_default() += 1);
    let mut by_size: Vec<(usize, usize)> = counts.into_iter().collect();
    by_size.sort_by_key(|(city, count)| (std::cmp::Reverse(*count), *city));
    let mut named: Vec<[f64; 2]> = Vec::new();
    for (city, count) in by_size {
        let [x, y] = project(city);
        let reach = node_radius(sketch) * (1.0 + 1.9 * (count as f64).sqrt());
        let at = [x, y - reach - 3.0];
        if named.iter().any(|other| (other[0] - at[0]).abs() < APART[0] && (other[1] - at[1]).abs() < APART[1]) {
            continue;
        }
        let words = if count > 1 { format!("{} {count}", CITIES[city].name) } else { CITIES[city].name.to_owned() };
        picture.text(at, "small middle", &words);
        named.push(at);
    }
}

fn legend(picture: &mut Picture, sketch: &Sketch) {
    let spot = Spot { city: 0, is_exit: false, is_hidden: false, is_listed: true, is_honest: true };
    let mut kinds = vec![
        (spot, "node"),
        (Spot { is_exit: true, ..spot }, "exit"),
        (Spot { is_hidden: true, ..spot }, "names no address (hollow)"),
        (Spot { is_listed: false, ..spot }, "not in the signed list (square)"),
    ];
    if sketch.nodes.iter().any(|spot| !spot.is_honest) {
        kinds.push((Spot { is_honest: false, ..spot }, "liar"));
    }
    let y = HEIGHT - 22.0;
    let mut x = 30.0;
    for (spot, words) in kinds {
        node(picture, &spot, [x, y - 4.0], 6.0);
        picture.text([x + 12.0, y], "", words);
        x += 40.0 + 7.2 * words.chars().count() as f64;
    }
    triangle(picture, [x, y - 3.0]);
    picture.text([x + 12.0, y], "", "client, and the way to its guard");
    x += 40.0 + 7.2 * 32.0;
    picture.line([x, y - 4.0], [x + 26.0, y - 4.0], format_args!("stroke=\"#7b8794\" stroke-width=\"2\""));
    let bundled = sketch.links.len() > SINGLE_LINKS;
    picture.text([x + 32.0, y], "", if bundled { "links between two cities, by number" } else { "link that both ends list" });
}
