//! A JSON map through serde structs, as a user writes it.
//!
//! Called by: `benches/benches/boundary.rs`, which runs `row::convert` in native Rust too.

mod row;

#[rustmq::map]
fn convert(row: row::In<'_>) -> row::Out<'_> {
    row::convert(row)
}
