//! Ground truth: the demo's answers computed straight from the CSV files.
//!
//! Called by `demo::verify`. Shares no code with the feed, the module, the pipeline or SQL: plain
//! loops over the same files, so that agreement means something. Refuses nothing: the files are ours.

use std::collections::{BTreeMap, HashMap};
use std::io;

/// How many flights and how late they left, on average.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Delay {
    pub flights: u64,
    pub known: u64,
    pub minutes: f64,
}

impl Delay {
    pub fn mean(&self) -> Option<f64> {
        (self.known > 0).then(|| self.minutes / self.known as f64)
    }

    fn add(&mut self, minutes: Option<f64>) {
        self.flights += 1;
        self.known += u64::from(minutes.is_some());
        self.minutes += minutes.unwrap_or(0.0);
    }
}

/// One hour at one airport with its weather.
#[derive(Debug, Default, Clone, Copy)]
pub struct Hour {
    pub delay: Delay,
    pub wind_known: u64,
    pub wind_sum: f64,
}

/// All that the demo compares itself with.
#[derive(Debug, Default)]
pub struct Truth {
    pub flights: u64,
    pub weather: u64,
    pub on_time: u64,
    pub delayed: u64,
    pub cancelled: u64,
    /// Entries that the pipeline's filter leaves out.
    pub filtered: u64,
    pub by_carrier_month: BTreeMap<(String, i64), Delay>,
    /// Keyed by airport and hour (`2013-01-01T10`); only hours that the weather table knows.
    pub by_hour: BTreeMap<(String, String), Hour>,
}

/// Reads both tables.
pub fn compute(flights_csv: &[u8], weather_csv: &[u8]) -> io::Result<Truth> {
    let mut truth = Truth::default();
    let mut winds: HashMap<(String, String), Vec<Option<f64>>> = HashMap::new();
    let mut weather = csv::Reader::from_reader(weather_csv);
    let columns = Columns::of(&mut weather)?;
    for row in weather.records() {
        let row = row?;
        let cell = |name| columns.cell(&row, name);
        let hour = cell("time_hour")[..13].to_owned();
        let wind = cell("wind_speed").parse().ok();
        winds
            .entry((cell("origin").to_owned(), hour))
            .or_default()
            .push(wind);
        truth.weather += 1;
    }
    let mut flights = csv::Reader::from_reader(flights_csv);
    let columns = Columns::of(&mut flights)?;
    for row in flights.records() {
        let row = row?;
        let cell = |name| columns.cell(&row, name);
        truth.flights += 1;
        if cell("distance")
            .parse::<i64>()
            .is_ok_and(|miles| miles < 50)
        {
            truth.filtered += 1;
            continue;
        }
        let delay: Option<f64> = cell("dep_delay").parse().ok();
        match delay {
            _ if cell("dep_time") == "NA" => truth.cancelled += 1,
            Some(minutes) if minutes > 15.0 => truth.delayed += 1,
            _ => truth.on_time += 1,
        }
        let month = cell("month").parse().unwrap_or_default();
        let carrier_month = (cell("carrier").to_owned(), month);
        truth
            .by_carrier_month
            .entry(carrier_month)
            .or_default()
            .add(delay);
        let place = (
            cell("origin").to_owned(),
            cell("time_hour")[..13].to_owned(),
        );
        for wind in winds.get(&place).into_iter().flatten() {
            let hour = truth.by_hour.entry(place.clone()).or_default();
            hour.delay.add(delay);
            hour.wind_known += u64::from(wind.is_some());
            hour.wind_sum += wind.unwrap_or(0.0);
        }
    }
    Ok(truth)
}

/// Where each named column stands.
struct Columns(HashMap<String, usize>);

impl Columns {
    fn of(reader: &mut csv::Reader<&[u8]>) -> io::Result<Columns> {
        let names = reader.headers()?.iter().enumerate();
        Ok(Columns(
            names.map(|(i, name)| (name.to_owned(), i)).collect(),
        ))
    }

    fn cell<'r>(&self, row: &'r csv::StringRecord, name: &str) -> &'r str {
        self.0.get(name).and_then(|i| row.get(*i)).unwrap_or("NA")
    }
}
