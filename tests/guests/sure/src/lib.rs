//! A map over columns that refuses no row, and so makes them by blocks; of the number 13 it panics.

#[derive(rustmq::Row)]
struct Number {
    number: i64,
}

#[rustmq::map]
fn sure(row: Number) -> Number {
    assert!(row.number != 13, "thirteen");
    Number { number: row.number + 1 }
}
