//! A filter: even numbers.

#[rustmq::filter]
fn even(number: i64) -> bool {
    number % 2 == 0
}
