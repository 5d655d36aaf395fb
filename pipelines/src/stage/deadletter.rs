//! What becomes of rejected rows: the lane stops, or they are dropped, or they become dead
//! letters with their whole provenance.
//!
//! Called by: `run` (stop) and `commit` (dead letters). Pure. Invariants: a dead letter has the
//! key, value, time and headers of the record of the source topic that it came from, so that it
//! can be produced again as it was; its own headers are named `rustmq.…` and replace older ones,
//! so that the letter of a replayed record tells of the last time. Where both do not fit into one
//! record, the letter says what of the original was cut; the source topic still has it whole.

use codec::Format;
use model::batch::EncodeError;
use model::ids::{Offset, PartitionId, TopicId};
use model::limits::{HEADERS_MAX, RECORD_BYTES_MAX};
use model::port::Append;
use model::rows::{Rows, RowsBuilder, RowsError};

use super::{Disposal, Stage};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::operator::{Cut, Reject, Report, Why, sink};

const PREFIX: &str = "rustmq.";
/// Which parts of the original are not whole.
const CUT: &str = "rustmq.cut";
/// What a letter has beside its key, value and headers, and the header that says what was cut.
const LETTER_BYTES: usize = 256;
/// What a header takes beside its name and value.
const HEADER_BYTES: usize = 8;

/// A rejected row whose node says `stop` ends the batch before it; timers the whole batch, as all of its
/// rows made them due.
pub(crate) fn stop_where_told(stage: &Stage, report: &mut Report) {
    let stops = |reject: &&Reject| stage.nodes[reject.node].then == Disposal::Stop;
    let Some(first) = report
        .rejects
        .iter()
        .filter(stops)
        .min_by_key(|r| r.stops_at)
    else {
        return;
    };
    let message = format!(
        "node `{}` rejected a record ({}): {}; its policy is to stop",
        stage.nodes[first.node].name, first.code, first.message
    );
    let cut = Cut {
        origin: first.stops_at,
        why: Why::Stop { message },
    };
    report.cut(cut);
}

/// The dead letters of a batch, and how many rows were dropped without one.
pub(crate) fn letters(
    stage: &Stage,
    lane: u32,
    rows: &Rows,
    offsets: &[Offset],
    rejects: &[Reject],
    out: &mut Vec<Append>,
) -> Result<u64, EncodeError> {
    let written;
    let rows = match (stage.source_format(), rejects) {
        (Some(format), [_, ..]) if rows.columns.is_some() => {
            written = with_bytes(rows, format)?;
            &written
        }
        _ => rows,
    };
    let mut topics: Vec<(TopicId, u32, RowsBuilder)> = Vec::new();
    let mut dropped = 0;
    for reject in rejects {
        let Disposal::DeadLetter { topic, partitions } = stage.nodes[reject.node].then else {
            dropped += 1;
            continue;
        };
        let known = topics.iter().position(|(t, _, _)| *t == topic);
        let at = known.unwrap_or_else(|| {
            topics.push((topic, partitions, RowsBuilder::new()));
            topics.len() - 1
        });
        letter(stage, lane, rows, offsets, reject, &mut topics[at].2);
    }
    for (topic, partitions, builder) in topics {
        // By the lane, not by the key: letters of one lane stay in order.
        let rows = builder.finish();
        let own = lane % partitions;
        sink::appends_to(PartitionId::new(topic, own), &rows, out)?;
    }
    Ok(dropped)
}

/// The records of a topic that keeps columns, with their values as JSON.
fn with_bytes(rows: &Rows, format: &Format) -> Result<Rows, RowsError> {
    let wrong = |error: String| RowsError::Typed(error);
    let columns = format.columns_of(rows);
    let columns = columns.map_err(|e| wrong(e.to_string()))?.columns;
    let values = format.values(&columns, &rows.values);
    Ok(Rows {
        values: values.map_err(|e| wrong(e.to_string()))?,
        columns: None,
        ..rows.clone()
    })
}

fn letter(
    stage: &Stage,
    lane: u32,
    rows: &Rows,
    offsets: &[Offset],
    reject: &Reject,
    out: &mut RowsBuilder,
) {
    let node = &stage.nodes[reject.node];
    let record = rows.record(reject.origin as usize);
    let message = cut(&reject.message, MESSAGE_BYTES_MAX);
    let (attempt, partition) = (reject.attempt.to_string(), lane.to_string());
    let offset = offsets[reject.origin as usize].to_string();
    let module = node.module.map(|digest| digest.to_string());
    let port = reject
        .port
        .and_then(|port| node.ports.get(port))
        .map(|port| port.name.as_str());
    let own: [(&str, Option<&str>); 10] = [
        ("rustmq.pipeline", Some(&stage.pipeline)),
        ("rustmq.node", Some(&node.name)),
        ("rustmq.port", Some(port.unwrap_or(&node.edge))),
        ("rustmq.code", Some(&reject.code)),
        ("rustmq.message", Some(message)),
        ("rustmq.attempt", Some(&attempt)),
        ("rustmq.topic", Some(&stage.topic_name)),
        ("rustmq.partition", Some(&partition)),
        ("rustmq.offset", Some(&offset)),
        ("rustmq.module", Some(module.as_deref().unwrap_or_default())),
    ];
    let kept = record.headers.clone();
    let kept = kept.filter(|(name, _)| !name.starts_with(PREFIX));
    let added = own.iter();
    let added: Vec<Header<'_>> = added.map(|(n, v)| (*n, v.map(str::as_bytes))).collect();
    let mut fitting = Fitting {
        key: record.key,
        value: record.value,
        headers: kept.collect(),
    };
    let lost = fitting.fit(&added);
    let said = lost.join(", ");
    fitting.headers.extend(added);
    if !lost.is_empty() {
        fitting.headers.push((CUT, Some(said.as_bytes())));
    }
    let Fitting {
        key,
        value,
        headers,
    } = fitting;
    out.push(record.timestamp, key, value, &headers);
}

type Header<'a> = (&'a str, Option<&'a [u8]>);

/// What of the original goes into its letter.
struct Fitting<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<Header<'a>>,
}

impl Fitting<'_> {
    /// Makes room for the letter's own headers; what was cut, in words.
    fn fit(&mut self, own: &[Header<'_>]) -> Vec<&'static str> {
        let room = RECORD_BYTES_MAX - LETTER_BYTES - bytes_of(own);
        let len = |cell: Option<&[u8]>| cell.map_or(0, <[u8]>::len);
        let mut lost = Vec::new();
        // one more for what was cut
        if self.headers.len() + own.len() >= HEADERS_MAX {
            self.headers.truncate(HEADERS_MAX - own.len() - 1);
            lost.push("headers");
        }
        if len(self.key) + len(self.value) + bytes_of(&self.headers) <= room {
            return lost;
        }
        if !self.headers.is_empty() {
            self.headers.clear();
            lost = vec!["headers"];
        }
        let mut shorten = |what, cell: &mut Option<&[u8]>, room: usize| {
            if len(*cell) > room {
                *cell = cell.map(|bytes| &bytes[..room]);
                lost.push(what);
            }
        };
        shorten("key", &mut self.key, room / 2);
        shorten("value", &mut self.value, room - len(self.key));
        lost
    }
}

fn bytes_of(headers: &[Header<'_>]) -> usize {
    let header =
        |(name, value): &Header<'_>| HEADER_BYTES + name.len() + value.map_or(0, <[u8]>::len);
    headers.iter().map(header).sum()
}

/// At most `max` bytes, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
