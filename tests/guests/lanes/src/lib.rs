//! A route by an enum of outputs.

#[derive(rustmq::Port)]
enum Size {
    Small,
    BigOne,
}

#[rustmq::route]
fn lanes(number: i64) -> Size {
    if number < 10 {
        Size::Small
    } else {
        Size::BigOne
    }
}
