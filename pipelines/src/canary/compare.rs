//! What two versions of a module made of the same rows, record by record.
//!
//! Called by: `shadow`. Pure. Invariants: the unit is the record of the source topic, which every
//! row names as its origin; bytes are compared, not their meaning; a record counts once. Whole
//! columns are compared first, so that versions that agree cost little.

use std::collections::BTreeMap;

use model::ids::Offset;
use model::rows::{RecordRef, Rows};

use super::report::{Difference, Example};
use crate::limits::{
    CANARY_EXAMPLES_PER_DIFFERENCE_MAX, CANARY_TEXT_BYTES_MAX, CANARY_TEXT_ROWS_MAX,
};
use crate::operator::{Chunk, Reject};

/// What a version made of a batch; the values are written.
pub(crate) struct Answer {
    /// By port.
    pub ports: Vec<Chunk>,
    pub rejects: Vec<Reject>,
}

impl Answer {
    fn mentions(&self, origin: u32) -> bool {
        let mut rows = self.ports.iter().flat_map(|chunk| &chunk.origins);
        rows.any(|o| *o == origin) || self.rejects.iter().any(|r| r.origin == origin)
    }
}

/// What both were given.
pub(crate) struct Asked<'a> {
    pub lane: u32,
    /// Of the lane's batch, by origin.
    pub offsets: &'a [Offset],
    /// Rows of the node's inputs, with written values.
    pub inputs: &'a [Chunk],
    pub ports: &'a [&'a str],
}

/// What was found in a batch, to be added to the report.
#[derive(Default)]
pub(crate) struct Compared {
    pub records: u64,
    pub same: u64,
    pub differences: BTreeMap<Difference, u64>,
    pub content: BTreeMap<String, u64>,
    pub failures: BTreeMap<String, u64>,
    /// The rows are the same, but not their order.
    pub reordered: bool,
    pub examples: Vec<Example>,
}

/// Compares the answers and counts what it finds. `known` are the differences of the batches before: of
/// each the first few are shown.
pub(crate) fn compare(
    asked: &Asked<'_>,
    old: &Answer,
    new: &Answer,
    known: &BTreeMap<Difference, u64>,
) -> Compared {
    let mut found = Compared::default();
    let mut origins: Vec<u32> = asked
        .inputs
        .iter()
        .flat_map(|chunk| chunk.origins.iter().copied())
        .collect();
    // what timers make counts as made of the batch's last record, which the node may not have been given
    let last = asked.offsets.len().saturating_sub(1) as u32;
    if old.mentions(last) || new.mentions(last) {
        origins.push(last);
    }
    origins.sort_unstable();
    origins.dedup();
    found.records = origins.len() as u64;
    if equal(old, new) {
        found.same = found.records;
        return found;
    }
    let (old, new) = (Index::of(old), Index::of(new));
    let mut different = 0;
    for origin in origins {
        let Some((difference, content)) = judged(&old, &new, origin) else {
            continue;
        };
        different += 1;
        let count = found.differences.entry(difference).or_default();
        *count += 1;
        let count = *count + known.get(&difference).copied().unwrap_or_default();
        for what in &content {
            *found.content.entry((*what).to_string()).or_default() += 1;
        }
        if let (Difference::Failed, Some(reject)) = (difference, new.rejects.get(&origin)) {
            *found.failures.entry(reject.code.to_string()).or_default() += 1;
        }
        if count <= CANARY_EXAMPLES_PER_DIFFERENCE_MAX {
            let example = example(asked, &old, &new, origin, difference, content);
            found.examples.push(example);
        }
    }
    found.same = found.records - different;
    found.reordered = different == 0;
    found
}

/// Whether both said the same, in the same order.
fn equal(old: &Answer, new: &Answer) -> bool {
    let same_code = |(a, b): (&Reject, &Reject)| a.origin == b.origin && a.code == b.code;
    let same = |(a, b): (&Chunk, &Chunk)| a.origins == b.origins && a.rows == b.rows;
    old.rejects.len() == new.rejects.len()
        && old.rejects.iter().zip(&new.rejects).all(same_code)
        && old.ports.iter().zip(&new.ports).all(same)
}

/// An answer by origin.
struct Index<'a> {
    answer: &'a Answer,
    /// By port: row numbers in the order of their origins; rows of one origin keep their order.
    rows: Vec<Vec<u32>>,
    rejects: BTreeMap<u32, &'a Reject>,
}

impl<'a> Index<'a> {
    fn of(answer: &'a Answer) -> Index<'a> {
        let sorted = |chunk: &Chunk| {
            let mut rows: Vec<u32> = (0..chunk.len() as u32).collect();
            rows.sort_by_key(|row| chunk.origins[*row as usize]);
            rows
        };
        let rejects = answer.rejects.iter().rev();
        Index {
            answer,
            rows: answer.ports.iter().map(sorted).collect(),
            rejects: rejects.map(|reject| (reject.origin, reject)).collect(),
        }
    }

    /// The rows on a port that came of a record.
    fn on(&self, port: usize, origin: u32) -> impl ExactSizeIterator<Item = RecordRef<'a>> + '_ {
        let answer = self.answer;
        let chunk = &answer.ports[port];
        let rows = &self.rows[port];
        let from = rows.partition_point(|row| chunk.origins[*row as usize] < origin);
        let to = rows.partition_point(|row| chunk.origins[*row as usize] <= origin);
        rows[from..to]
            .iter()
            .copied()
            .map(move |row| chunk.rows.record(row as usize))
    }

    fn counts(&self, origin: u32) -> Vec<usize> {
        let ports = 0..self.rows.len();
        ports.map(|port| self.on(port, origin).len()).collect()
    }
}

/// How a record differs, and what of its content.
fn judged(
    old: &Index<'_>,
    new: &Index<'_>,
    origin: u32,
) -> Option<(Difference, Vec<&'static str>)> {
    let plain = |difference| Some((difference, Vec::new()));
    match (old.rejects.get(&origin), new.rejects.get(&origin)) {
        (None, Some(_)) => return plain(Difference::Failed),
        (Some(_), None) => return plain(Difference::Mended),
        (Some(a), Some(b)) if a.code != b.code => return plain(Difference::Code),
        _ => {}
    }
    let (before, after) = (old.counts(origin), new.counts(origin));
    if before.iter().sum::<usize>() != after.iter().sum::<usize>() {
        return plain(Difference::Rows);
    }
    if before != after {
        return plain(Difference::Port);
    }
    let mut content = Vec::new();
    for port in 0..before.len() {
        for (a, b) in old.on(port, origin).zip(new.on(port, origin)) {
            let pairs = [
                ("key", a.key != b.key),
                ("value", a.value != b.value),
                ("time", a.timestamp != b.timestamp),
                ("headers", !a.headers.eq(b.headers)),
            ];
            let differ = pairs.iter().filter(|(_, differ)| *differ);
            content.extend(differ.map(|(what, _)| *what));
        }
    }
    content.sort_unstable();
    content.dedup();
    (!content.is_empty()).then_some((Difference::Content, content))
}

fn example(
    asked: &Asked<'_>,
    old: &Index<'_>,
    new: &Index<'_>,
    origin: u32,
    difference: Difference,
    content: Vec<&'static str>,
) -> Example {
    let given = asked.inputs.iter().find_map(|chunk| {
        let row = chunk.origins.iter().position(|o| *o == origin)?;
        Some(value(&chunk.rows, row))
    });
    let offset = asked.offsets.get(origin as usize);
    Example {
        partition: asked.lane,
        offset: offset.copied().unwrap_or_default(),
        difference,
        input: given.unwrap_or_default(),
        running: told(asked, old, origin, &content),
        candidate: told(asked, new, origin, &content),
        content: content.into_iter().map(String::from).collect(),
    }
}

/// What became of a record, a line a row.
fn told(asked: &Asked<'_>, index: &Index<'_>, origin: u32, content: &[&str]) -> Vec<String> {
    let rejected = index.rejects.get(&origin);
    let mut lines: Vec<String> = rejected
        .map(|reject| {
            let message = text(reject.message.as_bytes());
            format!("rejected ({}): {message}", reject.code)
        })
        .into_iter()
        .collect();
    for (port, name) in asked.ports.iter().enumerate() {
        for record in index.on(port, origin) {
            lines.push(format!("{name}: {}", row(&record, content)));
        }
    }
    if lines.is_empty() {
        lines.push("filtered".to_string());
    }
    if lines.len() > CANARY_TEXT_ROWS_MAX {
        let more = lines.len() - CANARY_TEXT_ROWS_MAX;
        lines.truncate(CANARY_TEXT_ROWS_MAX);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// A row's value, with what differs beside it in front.
fn row(record: &RecordRef<'_>, content: &[&str]) -> String {
    let mut line = String::new();
    if content.contains(&"key") {
        line.push_str(&format!("key={} ", bytes(record.key)));
    }
    if content.contains(&"time") {
        line.push_str(&format!("time={} ", record.timestamp));
    }
    if content.contains(&"headers") {
        let headers = record.headers.clone();
        let headers = headers.map(|(name, value)| format!("{name}={}", bytes(value)));
        let headers = headers.collect::<Vec<_>>().join(",");
        line.push_str(&format!("headers={} ", text(headers.as_bytes())));
    }
    line.push_str(&bytes(record.value));
    line
}

fn value(rows: &Rows, row: usize) -> String {
    bytes(rows.record(row).value)
}

fn bytes(bytes: Option<&[u8]>) -> String {
    bytes.map_or("none".to_string(), text)
}

/// At most so much of a text as an example is worth.
fn text(bytes: &[u8]) -> String {
    let cut = bytes.len() > CANARY_TEXT_BYTES_MAX;
    let shown = &bytes[..bytes.len().min(CANARY_TEXT_BYTES_MAX)];
    let shown = String::from_utf8_lossy(shown);
    match cut {
        true => format!("{shown}…"),
        false => shown.into_owned(),
    }
}
