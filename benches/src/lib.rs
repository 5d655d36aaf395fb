//! What the benchmarks share: options, the lines they print, the raw disk, a plain QUIC stream.
//!
//! Called by: `benches/*.rs`, one program a name. Each prints a line about the machine, then one
//! line a case, whose form is fixed (README, "Benchmarks"):
//! `bench NAME CASE value=… unit=… baseline=… ratio=… runs=… records=…`.
//! Invariants: `ratio` is our speed over the baseline's, higher is better; ours and the baseline
//! are measured in turns in the same run and the medians are printed; records are counted where
//! they end.

pub mod cold;
pub mod disk;
pub mod lake;
pub mod line;
pub mod machine;
pub mod options;
pub mod plain_quic;
pub mod rig;

pub use line::{Case, Unit};
pub use options::Options;

/// Bytes of one.
pub const MEBIBYTE: f64 = (1 << 20) as f64;

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        for (values, want) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 2.5)] {
            assert_eq!(median(&values), want, "{values:?}");
        }
    }
}
