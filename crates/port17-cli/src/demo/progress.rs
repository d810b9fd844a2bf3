//! The progress bar, where somebody looks at it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 40;
/// How often it is drawn at most.
const REDRAW: Duration = Duration::from_millis(100);

/// A bar on standard error; nothing where that is no terminal.
pub(super) struct Progress {
    total: usize,
    drawn: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { total, drawn: None, is_terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&mut self, done: usize) {
        if !self.is_terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        draw(&format!("\r{}", bar(done, self.total)));
    }

    /// Takes it away.
    pub(super) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            draw("\r\x1b[K");
        }
    }
}

fn draw(text: &str) {
    // A terminal that goes away is noticed elsewhere.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn bar(done: usize, total: usize) -> String {
    let done = done.min(total);
    let full = done * WIDTH / total.max(1);
    format!(
        "[{}{}] {:>3} %  {} of {} MB",
        "#".repeat(full),
        ".".repeat(WIDTH - full),
        done * 100 / total.max(1),
        done / 1_000_000,
        total / 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_goes_from_empty_to_full() {
        assert_eq!(bar(0, 100_000_000), format!("[{}]   0 %  0 of 100 MB", ".".repeat(40)));
        assert_eq!(bar(50_000_000, 100_000_000), format!("[{}{}]  50 %  50 of 100 MB", "#".repeat(20), ".".repeat(20)));
        assert_eq!(bar(100_000_001, 100_000_000), format!("[{}] 100 %  100 of 100 MB", "#".repeat(40)));
    }
}
