//! What becomes of rejected rows: the lane stops, or they are dropped, or they become dead
//! letters with their whole provenance.
//!
//! Called by: `run` (stop) and `commit` (dead letters). Pure. Invariants: a dead letter has the
//! key, value, time and headers of the record of the source topic that it came from, so that it
//! can be produced again as it was; its own headers are named `rustmq.…` and replace older ones,
//! so that the letter of a replayed record tells of the last time.

use codec::Format;
use model::batch::EncodeError;
use model::ids::{Offset, PartitionId, TopicId};
use model::port::Append;
use model::rows::{Rows, RowsBuilder, RowsError};

use super::{Disposal, Stage};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::operator::{Cut, Reject, Report, Why, sink};

const PREFIX: &str = "rustmq.";

/// A rejected row whose node says `stop` ends the batch before it.
pub(crate) fn stop_where_told(stage: &Stage, report: &mut Report) {
    let stops = |reject: &&Reject| stage.nodes[reject.node].then == Disposal::Stop;
    let Some(first) = report.rejects.iter().filter(stops).min_by_key(|r| r.origin) else {
        return;
    };
    let message = format!(
        "node `{}` rejected a record ({}): {}; its policy is to stop",
        stage.nodes[first.node].name, first.code, first.message
    );
    let cut = Cut {
        origin: first.origin,
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
    let kept = record
        .headers
        .clone()
        .filter(|(name, _)| !name.starts_with(PREFIX));
    let added = own
        .iter()
        .map(|(name, value)| (*name, value.map(str::as_bytes)));
    let headers: Vec<(&str, Option<&[u8]>)> = kept.chain(added).collect();
    out.push(record.timestamp, record.key, record.value, &headers);
}

/// At most `max` bytes, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
