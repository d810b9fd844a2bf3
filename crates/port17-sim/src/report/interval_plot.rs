//! Figures of many runs as a picture: a row for each figure, a dot for each run, the mean and its interval.

use super::Figures;
use super::interval::{Interval, by_name, intervals};
use super::svg::Picture;

/// What is drawn: the figure's name, and in words.
const ROWS: [(&str, &str); 22] = [
    ("convergence_p50_s", "Bottle published → all hold it, median (s)"),
    ("convergence_p99_s", "… 99th percentile (s)"),
    ("bottles_spreading", "Bottles that had not come to all at the end"),
    ("start_convergence_p50_s", "node starts → all hold its first Bottle, median (s)"),
    ("start_convergence_p99_s", "… 99th percentile (s)"),
    ("sent_wire_bytes_per_node_day", "control a node sends, on the wire (bytes a day)"),
    ("sent_message_bytes_per_node_day", "… its messages (bytes a day)"),
    ("received_wire_bytes_per_client_day", "control a client gets, on the wire (bytes a day)"),
    ("received_message_bytes_per_client_day", "… its messages (bytes a day)"),
    ("link_changes_per_node_day", "links that come or go at a node, a day"),
    ("degree_p50", "links of a node, median"),
    ("diameter", "diameter of the map (links)"),
    ("mean_distance", "mean distance (links)"),
    ("exits_reachable", "exits that a client can reach"),
    ("exits_eligible", "… of so many"),
    ("exit_entropy_bits", "exit, Shannon entropy (bits)"),
    ("exit_min_entropy_bits", "exit, min-entropy (bits)"),
    ("guard_entropy_bits", "guard, Shannon entropy (bits)"),
    ("guard_min_entropy_bits", "guard, min-entropy (bits)"),
    ("stream_open_p50_ms", "stream asked for → open, median (ms)"),
    ("stream_open_p99_ms", "… 99th percentile (ms)"),
    ("delivered_bytes", "bytes that streams carried"),
];

const WIDTH: f64 = 1100.0;
const TOP: f64 = 96.0;
const ROW: f64 = 30.0;
const LEFT: f64 = 390.0;
const RIGHT: f64 = 780.0;

/// Draws the figures of runs that differ in their seeds. `title` is put above.
pub fn plot_intervals(runs: &[Figures], title: &str) -> String {
    let means = intervals(runs);
    let rows: Vec<_> = ROWS.iter().filter_map(|(name, words)| Some((*name, *words, *means.get(*name)?))).collect();
    let mut picture = Picture::new(WIDTH, TOP + ROW * rows.len() as f64 + 20.0);
    picture.text([20.0, 30.0], "title", title);
    let key = "Each row has its own scale, from 0. Grey dots: one run each. Blue: the mean and its 95 % confidence interval.";
    picture.text([20.0, 52.0], "", key);
    picture.text([RIGHT + 20.0, TOP - 12.0], "small", "mean, and half of the interval");
    for (row, (name, words, interval)) in rows.into_iter().enumerate() {
        let values: Vec<f64> = runs.iter().filter_map(|run| by_name(run).get(name).copied()).collect();
        draw_row(&mut picture, TOP + ROW * row as f64 + ROW / 2.0, words, &values, interval);
    }
    picture.finish()
}

fn draw_row(picture: &mut Picture, y: f64, words: &str, values: &[f64], interval: Interval) {
    picture.text([LEFT - 14.0, y + 4.0], "right", words);
    let most = values.iter().copied().fold(interval.high, f64::max);
    let scale = if most > 0.0 { (RIGHT - LEFT) / (most * 1.05) } else { 0.0 };
    let x = |value: f64| LEFT + value.max(0.0) * scale;
    picture.line([LEFT, y], [RIGHT, y], format_args!("stroke=\"#e4e8ee\""));
    picture.line([LEFT, y - 8.0], [LEFT, y + 8.0], format_args!("stroke=\"#99a3ad\""));
    for value in values {
        picture.circle([x(*value), y], 3.0, format_args!("fill=\"#667\" fill-opacity=\"0.35\""));
    }
    let blue = "stroke=\"#1d4ed8\" stroke-width=\"2\"";
    picture.line([x(interval.low), y], [x(interval.high), y], format_args!("{blue}"));
    for end in [interval.low, interval.high] {
        picture.line([x(end), y - 5.0], [x(end), y + 5.0], format_args!("{blue}"));
    }
    picture.circle([x(interval.mean), y], 3.6, format_args!("fill=\"#1d4ed8\""));
    let half = interval.high - interval.mean;
    picture.text([RIGHT + 20.0, y + 4.0], "", &format!("{} ± {}", number(interval.mean), number(half)));
}

/// Three digits that count, with a space between thousands.
pub fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 {
        let decimals = if value.abs() < 1.0 {
            3
        } else if value.abs() < 10.0 {
            2
        } else {
            1
        };
        let text = format!("{value:.decimals$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        let said = [0.0, 0.1234, 1.5, 12.34, 99.0, 100.0, 1234.5, 12_345_678.0, -1234.0].map(number);
        assert_eq!(said, ["0", "0.123", "1.5", "12.3", "99", "100", "1 234", "12 345 678", "-1 234"]);
    }

    #[test]
    fn every_row_is_a_figure() {
        let all = serde_json::to_value(Figures::default()).unwrap();
        ROWS.iter().for_each(|(name, _)| assert!(all.get(name).is_some(), "{name}"));
    }
}
