//! A line that moves while something long runs: only on a terminal, only on standard error.
//!
//! Called by: `produce`, `module build`, `pipeline apply`.
//! Invariants: without a terminal nothing is drawn, so logs and pipes stay clean; the line is
//! gone before a result or an error is printed.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Dropping it clears the line.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` is the size in bytes of what is read, when it is known.
    pub fn bytes(total: Option<u64>) -> Progress {
        Progress::make(|| {
            let (bar, text) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                ),
                None => (ProgressBar::no_length(), "{msg} {bytes} {bytes_per_sec}"),
            };
            bar.with_style(
                ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        })
    }

    /// Steps that say what they do.
    pub fn steps() -> Progress {
        Progress::make(|| {
            ProgressBar::no_length().with_style(
                ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            )
        })
    }

    fn make(bar: impl FnOnce() -> ProgressBar) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { bar: None };
        }
        let bar = bar();
        bar.set_draw_target(ProgressDrawTarget::stderr());
        Progress { bar: Some(bar) }
    }

    pub fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    pub fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_string());
            bar.tick();
        }
    }

    /// Prints a whole line above the moving one; without a terminal, plainly.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
