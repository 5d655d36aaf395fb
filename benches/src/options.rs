//! What a benchmark program was asked: which case, and whether only to see that it works.
//!
//! Called by: every benchmark's `main`. `cargo bench` itself adds `--bench`, which is dropped.
//! Refuses: flags it does not know, with exit code 2.

use std::time::Duration;

/// `[CASE] [--quick]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A smoke run: one short turn a case.
    pub quick: bool,
    case: Option<String>,
}

impl Options {
    /// From the arguments of the program; ends it where they are wrong.
    pub fn from_args() -> Options {
        match Options::parse(std::env::args().skip(1)) {
            Ok(options) => options,
            Err(flag) => {
                eprintln!("error: unknown flag {flag}; usage: cargo bench … -- [CASE] [--quick]");
                std::process::exit(2);
            }
        }
    }

    fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        for arg in args {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--bench" => {}
                flag if flag.starts_with('-') => return Err(arg),
                _ => options.case = Some(arg),
            }
        }
        Ok(options)
    }

    /// Whether a case was asked for: all are when none is named, and `quic` means all `quic-…`.
    pub fn wants(&self, case: &str) -> bool {
        let Some(asked) = &self.case else { return true };
        case.strip_prefix(asked.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// Turns of ours and the baseline.
    pub fn runs(&self) -> usize {
        if self.quick { 1 } else { 7 }
    }

    /// How long one turn lasts.
    pub fn turn(&self) -> Duration {
        Duration::from_millis(if self.quick { 150 } else { 2_000 })
    }

    /// `full`, or much less of it in a smoke run.
    pub fn amount(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &str, case: &str, want: Result<(bool, bool), &str>) {
        let got = Options::parse(args.split_whitespace().map(str::to_string));
        let got = got.map(|options| (options.quick, options.wants(case)));
        assert_eq!(got, want.map_err(str::to_string), "{args}");
    }

    #[test]
    fn arguments() {
        check("--bench", "quic-1", Ok((false, true)));
        check("--bench quic --quick", "quic-1", Ok((true, true)));
        check("quic-1", "quic-16", Ok((false, false)));
        check("producers", "quic-1", Ok((false, false)));
        check("--fast", "quic-1", Err("--fast"));
    }
}
