//! The rows of the JSON case and the work on them; compiled into the guest and into the benchmark.

use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub struct In<'a> {
    carrier: &'a str,
    flight: u32,
    origin: &'a str,
    dest: &'a str,
    dep_delay: Option<f64>,
    distance: u32,
    tail: &'a str,
}

#[derive(Serialize)]
pub struct Out<'a> {
    carrier: &'a str,
    flight: u32,
    origin: &'a str,
    dest: &'a str,
    hours: Option<f64>,
    far: bool,
    distance: u32,
    tail: &'a str,
}

pub fn convert(row: In<'_>) -> Out<'_> {
    Out {
        carrier: row.carrier,
        flight: row.flight,
        origin: row.origin,
        dest: row.dest,
        hours: row.dep_delay.map(|minutes| minutes / 60.0),
        far: row.distance > 1000,
        distance: row.distance,
        tail: row.tail,
    }
}
