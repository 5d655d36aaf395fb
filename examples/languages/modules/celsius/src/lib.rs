//! The first of three: reads what sensors say in Fahrenheit.

use rustmq::Reject;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Reading<'a> {
    sensor: &'a str,
    fahrenheit: Option<f64>,
    humidity: f64,
}

#[derive(Serialize)]
struct Metric<'a> {
    sensor: &'a str,
    celsius: f64,
    humidity: f64,
}

#[rustmq::map]
fn celsius(reading: Reading<'_>) -> Result<Metric<'_>, Reject> {
    let Some(fahrenheit) = reading.fahrenheit else {
        return Err(Reject::new("no-value", "the reading has no temperature"));
    };
    let celsius = (fahrenheit - 32.0) * 5.0 / 9.0;
    Ok(Metric { sensor: reading.sensor, celsius, humidity: reading.humidity })
}

#[cfg(test)]
mod tests {
    use super::celsius;

    #[test]
    fn readings_become_metric() {
        let out = rustmq::testing::run::<celsius>([
            r#"{"sensor":"roof","fahrenheit":77,"humidity":50}"#,
            r#"{"sensor":"cellar","humidity":80}"#,
        ]);
        let roof = r#"{"sensor":"roof","celsius":25.0,"humidity":50.0}"#;
        assert_eq!(out.texts("out"), [roof]);
        assert_eq!(out.rejects[0].code, "no-value");
    }
}
