//! A map over three columns of numbers that makes one, as a user writes it.
//!
//! Called by: `benches/benches/boundary.rs`, which does the same on the same arrays in native Rust.

#[derive(rustmq::Row)]
struct In {
    flight: f64,
    dep_delay: f64,
    distance: f64,
}

#[derive(rustmq::Row)]
struct Out {
    score: f64,
}

#[rustmq::map]
fn score(row: In) -> Out {
    Out { score: row.distance / (row.dep_delay + row.flight) }
}
