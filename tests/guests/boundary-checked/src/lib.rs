//! The map of `boundary-columns` as an author writes it who trusts nothing: narrow integers, and a row
//! that makes no sense is refused.
//!
//! Called by: `benches/benches/boundary.rs`, which does the same on the same arrays in native Rust.

use rustmq::Reject;

#[derive(rustmq::Row)]
struct In {
    flight: i32,
    dep_delay: f64,
    distance: i32,
}

#[derive(rustmq::Row)]
struct Out {
    score: f64,
}

#[rustmq::map]
fn checked(row: In) -> Result<Out, Reject> {
    let hours = row.dep_delay + f64::from(row.flight);
    if hours <= 0.0 {
        let text = format!("flight {} left {} early", row.flight, -row.dep_delay);
        return Err(Reject::new("early", text));
    }
    Ok(Out { score: f64::from(row.distance) / hours })
}
