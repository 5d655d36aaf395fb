//! A map with params and a temper: numbers times a factor, thirteen is a panic.

use serde::Deserialize;

#[derive(Deserialize, rustmq::Params)]
struct Params {
    /// What each number is multiplied by.
    factor: i64,
}

#[rustmq::map]
fn doubled(number: i64, params: &Params) -> i64 {
    assert!(number != 13, "thirteen");
    number * params.factor
}
