//! Figures of many runs: their means, and how sure they are.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Figures;

/// The mean of a figure over runs with different seeds, and its 95 % confidence interval (Student's t: the runs are independent).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Runs in which there was something to measure.
    pub runs: usize,
    /// The mean.
    pub mean: f64,
    /// The interval's lower end; of one run the mean.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// None of no values.
    fn of(values: &[f64]) -> Option<Self> {
        let runs = values.len();
        if runs == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / runs as f64;
        let half = match runs {
            1 => 0.0,
            _ => {
                let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
                student(runs - 1) * (variance / runs as f64).sqrt()
            }
        };
        Some(Self { runs, mean, low: mean - half, high: mean + half })
    }
}

/// Each figure's interval, by its name.
pub fn intervals(runs: &[Figures]) -> BTreeMap<String, Interval> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs {
        for (name, value) in by_name(run) {
            values.entry(name).or_default().push(value);
        }
    }
    values.into_iter().filter_map(|(name, values)| Some((name, Interval::of(&values)?))).collect()
}

/// The figures of a run that are there, by name.
pub(super) fn by_name(figures: &Figures) -> BTreeMap<String, f64> {
    let Ok(Value::Object(all)) = serde_json::to_value(figures) else { return BTreeMap::new() };
    all.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
}

/// The 97.5 % quantile of Student's t distribution.
fn student(freedom: usize) -> f64 {
    const SMALL: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
        2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    // Beyond 30 it is within 0.2 % of this.
    SMALL.get(freedom.saturating_sub(1)).copied().unwrap_or(1.96 + 2.4 / freedom as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_three_runs() {
        let interval = Interval::of(&[1.0, 2.0, 3.0]).unwrap();
        // 4.303 · 1 / √3
        assert!((interval.mean - 2.0).abs() < 1e-9 && (interval.high - 4.4843).abs() < 1e-3, "{interval:?}");
        assert!((interval.low + 0.4843).abs() < 1e-3);
        assert_eq!(Interval::of(&[5.0]), Some(Interval { runs: 1, mean: 5.0, low: 5.0, high: 5.0 }));
        assert_eq!(Interval::of(&[]), None);
        assert!((student(60) - 2.000).abs() < 0.005 && (student(1000) - 1.962).abs() < 0.005);
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let some = Figures { diameter: 3, mean_distance: Some(1.5), ..Figures::default() };
        let all = intervals(&[some, Figures::default()]);
        assert_eq!((all["diameter"].mean, all["mean_distance"].mean, all["mean_distance"].runs), (1.5, 1.5, 1));
        assert!(!all.contains_key("guard_entropy_bits"));
    }
}
