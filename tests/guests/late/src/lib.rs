//! A map from typed columns to typed columns, which counts and logs what it finds.

use rustmq::{Counter, Histogram, Reject, Timestamp};

static CANCELLED: Counter = Counter::new("cancelled");
static MINUTES: Histogram = Histogram::new("minutes", &[15.0, 60.0]);

#[derive(rustmq::Row)]
struct Flight<'a> {
    carrier: &'a str,
    delay: Option<f64>,
    due: Timestamp,
}

#[derive(rustmq::Row)]
struct Late<'a> {
    carrier: &'a str,
    left: Timestamp,
    long: bool,
}

#[rustmq::map]
fn late(flight: Flight<'_>) -> Result<Option<Late<'_>>, Reject> {
    let Some(minutes) = flight.delay else {
        CANCELLED.add(1);
        rustmq::debug!(carrier = flight.carrier; "it never left");
        return Ok(None);
    };
    if minutes < -60.0 {
        return Err(Reject::new("early", format!("{minutes} minutes")));
    }
    MINUTES.observe(minutes);
    Ok(Some(Late {
        carrier: flight.carrier,
        left: flight.due.plus_minutes(minutes as i64),
        long: minutes > 60.0,
    }))
}
