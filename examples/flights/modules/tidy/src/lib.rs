//! Version 1: types every flight; what cannot be a flight is rejected with its reason.

use flight::{Flight, RawFlight};
use rustmq::Reject;

#[rustmq::map]
fn tidy(raw: RawFlight<'_>) -> Result<Flight<'_>, Reject> {
    flight::tidy(&raw, 1).map_err(|fault| Reject::new(fault.code, fault.message))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_row_without_a_carrier_is_rejected() {
        let row = r#"{"row":1,"month":"1","dep_time":"517","dep_delay":"2","arr_delay":"11",
            "carrier":"","flight":"1545","tailnum":"N14228","origin":"EWR","dest":"IAH",
            "distance":"1400","minute":"15","time_hour":"2013-01-01T10:00:00Z"}"#;
        let out = rustmq::testing::run::<super::tidy>([row]);
        assert_eq!(out.rejects[0].code, "missing");
        assert_eq!(out.rejects[0].message, "carrier is missing");
    }
}
