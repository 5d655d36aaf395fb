//! A map over three columns of numbers that makes one, as a user writes it.
//!
//! Called by: `benches/benches/boundary.rs`, which does the same on the same arrays in native Rust.

#[derive(rustmq::Row)]
struct In {
    flight: i64,
    dep_delay: f64,
    distance: i64,
}

#[derive(rustmq::Row)]
struct Out {
    score: f64,
}

#[rustmq::map]
fn score(row: In) -> Out {
    Out { score: row.distance as f64 / (row.dep_delay + row.flight as f64) }
}
