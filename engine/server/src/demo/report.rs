//! What the demo prints: steps as they happen, the hand-over, answers, the closing table.
//!
//! Called by `demo::run` and `demo::steps`. Steps and progress go to standard error, the results
//! to standard output.

use std::io::{IsTerminal, Write as _};
use std::time::Instant;

use super::truth::Truth;
use super::verify::{AirportHour, CarrierMonth, OUTPUTS, Outputs};
use crate::output;

/// Rows of an answer that are shown; all of them are compared.
const SHOWN: usize = 5;
/// Differences that are printed one by one.
const DIFFERENCES_SHOWN: usize = 20;

pub struct Report {
    started: Instant,
    terminal: bool,
}

impl Report {
    pub fn start() -> Report {
        Report {
            started: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    pub fn step(&self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        eprintln!(
            "{clear}[{:6.1} s] {text}",
            self.started.elapsed().as_secs_f64()
        );
    }

    /// A line that moves, on a terminal only.
    pub fn progress(&self, pipeline: &str, done: u64, records: u64) {
        if self.terminal {
            let percent = done * 100 / records.max(1);
            eprint!("\r\x1b[K           {pipeline}: {done} of {records} records, {percent} %");
            let _ = std::io::stderr().flush();
        }
    }

    /// Where each lane went over to version 2.
    pub fn handover(&self, outputs: &Outputs) {
        for (partition, last_old, first_new) in outputs.handovers() {
            self.step(&format!(
                "lane {partition}: version 1 through row {last_old}, version 2 from row {first_new}"
            ));
        }
    }

    pub fn answers(&self, by_carrier: &[CarrierMonth], by_hour: &[AirportHour]) {
        let mean = |mean: Option<f64>| mean.map_or("-".to_owned(), |m| format!("{m:.2}"));
        let months: Vec<Vec<String>> = by_carrier
            .iter()
            .take(SHOWN)
            .map(|r| {
                let (month, flights) = (r.month.to_string(), r.flights.to_string());
                vec![r.carrier.clone(), month, flights, mean(r.mean_delay)]
            })
            .collect();
        println!(
            "\nFlights and mean delay per carrier and month ({} rows):",
            by_carrier.len()
        );
        print!(
            "{}",
            output::table(&["CARRIER", ">MONTH", ">FLIGHTS", ">DELAY min"], &months)
        );
        let hours: Vec<Vec<String>> = by_hour
            .iter()
            .filter(|r| r.flights >= 10)
            .take(SHOWN)
            .map(|r| {
                let (hour, flights) = (r.hour.get(..16).unwrap_or(&r.hour), r.flights.to_string());
                let hour = hour.replace('T', " ");
                vec![
                    r.origin.clone(),
                    hour,
                    flights,
                    mean(r.mean_delay),
                    mean(r.wind),
                ]
            })
            .collect();
        println!(
            "\nThe worst hours with 10 flights or more, and the wind ({} hours):",
            by_hour.len()
        );
        let columns = [
            "AIRPORT",
            "HOUR (UTC)",
            ">FLIGHTS",
            ">DELAY min",
            ">WIND mph",
        ];
        print!("{}", output::table(&columns, &hours));
    }

    pub fn table(&self, outputs: &Outputs, truth: &Truth, broken: u64, hot: u64, cold: u64) {
        let expected = [truth.on_time, truth.delayed, truth.cancelled];
        let mut rows: Vec<Vec<String>> = OUTPUTS
            .into_iter()
            .zip(expected)
            .map(|(topic, expected)| line(topic, outputs.count(topic), Some(expected)))
            .collect();
        rows.push(line("dead letters", outputs.dead, Some(broken)));
        rows.push(line("made by version 1", outputs.by_version(1), None));
        rows.push(line("made by version 2", outputs.by_version(2), None));
        rows.push(line("rows only in the log", hot, None));
        rows.push(line("rows in Parquet", cold, None));
        println!();
        print!("{}", output::table(&["WHAT", ">FOUND", ">TRUTH"], &rows));
    }

    pub fn verdict(&self, differences: &[String]) {
        let took = self.started.elapsed().as_secs_f64();
        if differences.is_empty() {
            println!(
                "\nEvery row once and in order, every count and mean as in the file; {took:.0} s."
            );
            println!("demo: ok");
            return;
        }
        println!("\n{} differences from the truth:", differences.len());
        for difference in differences.iter().take(DIFFERENCES_SHOWN) {
            println!("  {difference}");
        }
        println!("demo: failed");
    }

    pub fn commands_to_try(&self, http: &str) {
        println!("\nThe node stays up until Ctrl-C. Try, in another terminal:");
        println!("  rustmq sql 'select carrier, avg(gain) as gain from delayed group by carrier'");
        println!("  rustmq consume bad_rows --max 3");
        println!("  curl -s http://{http}/v1/sql -d 'select count(*) as flights from on_time'");
    }
}

fn line(what: &str, found: u64, truth: Option<u64>) -> Vec<String> {
    let truth = truth.map_or("-".to_owned(), |t| t.to_string());
    vec![what.to_owned(), found.to_string(), truth]
}
