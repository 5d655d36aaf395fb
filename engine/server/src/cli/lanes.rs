//! What `pipeline describe` shows of a pipeline that runs.
//!
//! Called by: `pipeline`. Invariants: what modules said is shown without what a terminal would obey.

use std::collections::BTreeMap;

use pipelines::{Handover, LaneStatus, LookupStatus, Metric, PipelineStatus};

use crate::output;

/// The lanes, a line each, what went wrong in them, and what their modules keep and count.
pub(super) fn lanes(status: &PipelineStatus) -> String {
    let rows: Vec<Vec<String>> = status
        .lanes
        .iter()
        .map(|lane| {
            let counts = [
                lane.position,
                lane.end,
                lane.rows_in,
                lane.rows_out,
                lane.rejected,
            ];
            let mut row = vec![lane.stage.clone(), lane.partition.to_string()];
            row.extend(counts.iter().map(u64::to_string));
            let state = lane.state.to_string();
            // a fault may go on for lines: it follows below the table
            let state = state.lines().next().unwrap_or_default().to_string();
            row.extend([lane.generation.to_string(), state]);
            row
        })
        .collect();
    let columns = [
        "STAGE",
        ">PARTITION",
        ">POSITION",
        ">END",
        ">IN",
        ">OUT",
        ">REJECTED",
        ">GENERATION",
        "STATE",
    ];
    let mut text = output::table(&columns, &rows);
    text.push_str(&beside(&status.lanes));
    text.extend(status.lanes.iter().map(faults));
    text.push_str(&kept(status));
    text.push_str(&lookups(status));
    text.push_str(&metrics(status));
    text
}

/// What became of records without a dead letter to show for it, at most two lines a stage.
fn beside(lanes: &[LaneStatus]) -> String {
    let mut stages: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for lane in lanes {
        let (nulled, dropped) = stages.entry(&lane.stage).or_default();
        *nulled += lane.nulled;
        *dropped += lane.dropped;
    }
    let mut text = String::new();
    for (stage, (nulled, dropped)) in stages {
        if nulled > 0 {
            let became = "did not fit their schema and went on as nulls (misfits: nulls)";
            text.push_str(&format!("{stage}: {nulled} of those read {became}\n"));
        }
        if dropped > 0 {
            let became = "were rejected and dropped, as `on-error` says";
            text.push_str(&format!("{stage}: {dropped} {became}\n"));
        }
    }
    text
}

/// Why a lane works with the generation before, and what went wrong in it last.
fn faults(lane: &LaneStatus) -> String {
    let place = format!("{}, partition {}", lane.stage, lane.partition);
    let refused = lane.rolled_back();
    let mut text = String::new();
    if let Some((Handover { from, offset, .. }, why)) = refused {
        let why = output::lines(why);
        text.push_str(&format!(
            "rolled back in {place}, at offset {offset}; generation {from} goes on: {why}\n"
        ));
    }
    let said = |fault: &&String| refused.is_none_or(|(_, why)| why != fault.as_str());
    if let Some(fault) = lane.fault.as_ref().filter(said) {
        let fault = output::lines(fault);
        text.push_str(&format!("last fault of {place}: {fault}\n"));
    }
    text
}

/// What the modules keep, a line a lane.
fn kept(status: &PipelineStatus) -> String {
    let mut rows = Vec::new();
    for lane in &status.lanes {
        for (node, kept) in &lane.kept {
            let watermark = kept
                .watermark
                .map_or("-".to_string(), output::time::rfc3339_us);
            rows.push(vec![
                node.clone(),
                lane.partition.to_string(),
                kept.schema.to_string(),
                kept.entries.to_string(),
                output::bytes(kept.bytes),
                watermark,
            ]);
        }
    }
    let columns = [
        "NODE",
        ">PARTITION",
        ">SCHEMA",
        ">ENTRIES",
        ">BYTES",
        "WATERMARK",
    ];
    match rows.is_empty() {
        true => String::new(),
        false => format!("\n{}", output::table(&columns, &rows)),
    }
}

/// The tables that modules look into, a line each, and what goes wrong with them.
fn lookups(status: &PipelineStatus) -> String {
    let row = |lookup: &LookupStatus| {
        let read = match lookup.read >= lookup.end {
            true => "all".to_string(),
            false => format!("{} of {}", lookup.read, lookup.end),
        };
        vec![
            lookup.node.clone(),
            lookup.table.clone(),
            lookup.topic.clone(),
            lookup.entries.to_string(),
            output::bytes(lookup.bytes),
            output::bytes(lookup.bytes_max),
            read,
        ]
    };
    let rows: Vec<Vec<String>> = status.lookups.iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = [
        "NODE", "TABLE", "TOPIC", ">ENTRIES", ">BYTES", ">LIMIT", "READ",
    ];
    let mut text = format!("\n{}", output::table(&columns, &rows));
    for lookup in &status.lookups {
        let (node, table) = (&lookup.node, &lookup.table);
        if let Some(fault) = &lookup.fault {
            let fault = output::lines(fault);
            text.push_str(&format!("last fault of table {table} of {node}: {fault}\n"));
        }
        if lookup.without_key > 0 {
            let count = output::count(lookup.without_key, "record");
            text.push_str(&format!(
                "table {table} of {node}: {count} without a key left out\n"
            ));
        }
    }
    text
}

/// What the modules count, a line each.
fn metrics(status: &PipelineStatus) -> String {
    let mut rows = Vec::new();
    for (node, metrics) in &status.metrics {
        for (name, metric) in metrics {
            let told = match metric {
                Metric::Counter { value } => value.to_string(),
                Metric::Histogram { count: 0, .. } => "no values".to_string(),
                Metric::Histogram { count, sum, .. } => {
                    format!("{count} values, mean {:.3}", sum / *count as f64)
                }
            };
            rows.push(vec![node.clone(), name.clone(), told]);
        }
    }
    match rows.is_empty() {
        true => String::new(),
        false => format!("\n{}", output::table(&["NODE", "METRIC", "VALUE"], &rows)),
    }
}
