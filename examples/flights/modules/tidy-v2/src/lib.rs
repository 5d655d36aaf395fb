//! Version 2: as version 1, and the minutes that the crew made up in the air.

use flight::{Flight, RawFlight};
use rustmq::Reject;

#[rustmq::map]
fn tidy(raw: RawFlight<'_>) -> Result<Flight<'_>, Reject> {
    let mut flight =
        flight::tidy(&raw, 2).map_err(|fault| Reject::new(fault.code, fault.message))?;
    flight.gain = flight
        .dep_delay
        .zip(flight.arr_delay)
        .map(|(dep, arr)| dep - arr);
    Ok(flight)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_gain_is_what_was_made_up() {
        let row = r#"{"row":1,"month":"1","dep_time":"517","dep_delay":"2","arr_delay":"-11",
            "carrier":"UA","flight":"1545","tailnum":"N14228","origin":"EWR","dest":"IAH",
            "distance":"1400","minute":"15","time_hour":"2013-01-01T10:00:00Z"}"#;
        let out = rustmq::testing::run::<super::tidy>([row]);
        assert!(
            out.texts("out")[0].contains(r#""gain":13.0"#),
            "{:?}",
            out.texts("out")
        );
    }
}
