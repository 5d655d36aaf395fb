//! `rustmq pipeline canary start|show|promote|stop`, and what a report looks like.
//!
//! Called by: `cli::pipeline`. Calls: `module` (building a folder), the server.
//! Invariants: the report goes to standard output, what was done to standard error.

use std::path::Path;

use model::Digest;
use pipelines::{CanaryReport, Difference, KeptReport};
use protocol::{CanaryPromote, CanaryShow, CanaryStart, CanaryStop};

use super::args::Canary;
use super::connect::{Server, Session};
use super::exit::{Failure, written};
use super::pipeline::send;
use crate::module;
use crate::output::{self, progress::Progress};

pub async fn run(command: Canary, session: &Session) -> Result<(), Failure> {
    let server = session.server().await?;
    match command {
        Canary::Start {
            pipeline,
            node,
            module,
            records,
            time,
        } => {
            let ask = CanaryStart {
                module: uploaded(server, &module).await?,
                pipeline: pipeline.clone(),
                node,
                records,
                time_ms: time.map(|time| time.as_millis() as u64),
            };
            let report = server.call(ask).await?.report;
            if session.json() {
                return written(output::print(&output::json(&report)));
            }
            eprint!("started: {}", line(&parsed(report)?));
            eprintln!("`rustmq pipeline canary show {pipeline}` tells what differs");
            Ok(())
        }
        Canary::Show { pipeline } => {
            let report = server.call(CanaryShow { pipeline }).await?.report;
            show(report, session)
        }
        Canary::Promote { pipeline, force } => {
            let ask = CanaryPromote {
                pipeline: pipeline.clone(),
                force,
            };
            let promoted = server.call(ask).await?;
            eprintln!(
                "promoted: pipeline {pipeline}, generation {}",
                promoted.generation
            );
            show(promoted.report, session)
        }
        Canary::Stop { pipeline } => {
            let ask = CanaryStop {
                pipeline: pipeline.clone(),
            };
            let report = server.call(ask).await?.report;
            eprintln!("stopped the canary of pipeline {pipeline}");
            show(report, session)
        }
    }
}

/// Builds what is a folder, and sends what the server lacks.
async fn uploaded(server: &Server, path: &Path) -> Result<Digest, Failure> {
    if !path.is_dir() {
        return send(server, path).await;
    }
    let progress = Progress::steps();
    let built = module::build(path, &mut |step| progress.line(step)).await;
    drop(progress);
    let built = built.map_err(|error| {
        let (name, error) = (path.display(), error.in_short());
        Failure::failed(format!("{name} does not build: {error}"))
    })?;
    send(server, &built).await
}

fn parsed(report: serde_json::Value) -> Result<CanaryReport, Failure> {
    serde_json::from_value(report).map_err(|error| {
        let message = format!("this server's report is of another version ({error})");
        Failure::failed(format!("{message}; use --json"))
    })
}

fn show(report: serde_json::Value, session: &Session) -> Result<(), Failure> {
    if session.json() {
        return written(output::print(&output::json(&report)));
    }
    written(output::print(&text(&parsed(report)?)))
}

/// One line for those who look at something else.
pub fn line(report: &CanaryReport) -> String {
    let different = report.records - report.same;
    let compared = output::count(report.records, "record");
    format!(
        "node {}, {}: {compared} compared, {different} differ, {} skipped\n",
        report.node, report.state, report.skipped_records
    )
}

fn text(report: &CanaryReport) -> String {
    let mut fields = vec![
        (
            "node",
            format!("{} (module {})", report.node, report.module),
        ),
        ("running", report.running.to_string()),
        ("candidate", report.candidate.to_string()),
        ("state", report.state.to_string()),
        ("compared", of_batches(report.records, report.batches)),
        (
            "skipped",
            of_batches(report.skipped_records, report.skipped_batches),
        ),
        ("same", report.same.to_string()),
        (
            "time",
            format!(
                "{} for 1,000 records, running {}",
                per_thousand(report.candidate_us, report.records),
                per_thousand(report.running_us, report.records)
            ),
        ),
    ];
    fields.extend(
        report
            .kept
            .as_ref()
            .map(|kept| ("state changes", changes(kept))),
    );
    if report.reordered > 0 {
        fields.push(("reordered", output::count(report.reordered, "batch")));
    }
    let mut text = output::fields(&fields);
    if let Some(fault) = &report.fault {
        text.push_str(&format!("last fault: {}\n", output::lines(fault)));
    }
    let rows: Vec<Vec<String>> = Difference::ALL
        .iter()
        .filter_map(|kind| {
            let records = report.differences.get(kind)?;
            let words = kind.words().to_string();
            Some(vec![words, records.to_string(), details(report, *kind)])
        })
        .collect();
    if !rows.is_empty() {
        let table = output::table(&["DIFFERENCE", ">RECORDS", "OF THEM"], &rows);
        text.push_str(&format!("\n{table}"));
    }
    for example in &report.examples {
        let (partition, offset) = (example.partition, example.offset);
        let words = example.difference.words();
        text.push_str(&format!(
            "\npartition {partition}, offset {offset}: {words}\n"
        ));
        let mut rows = vec![("  in", example.input.clone())];
        let running = example.running.iter();
        rows.extend(running.map(|line| ("  running", line.clone())));
        let candidate = example.candidate.iter();
        rows.extend(candidate.map(|line| ("  candidate", line.clone())));
        text.push_str(&output::fields(&rows));
    }
    text
}

fn of_batches(records: u64, batches: u64) -> String {
    let (records, batches) = (
        output::count(records, "record"),
        output::count(batches, "batch"),
    );
    format!("{records}, {batches}")
}

/// Of what the node keeps.
fn changes(kept: &KeptReport) -> String {
    format!(
        "{}, running {}; their number differs in {}; {} copied, {} migrated",
        kept.candidate,
        kept.running,
        output::count(kept.batches_differ, "batch"),
        kept.copies,
        kept.migrated
    )
}

/// By code, or by what differs.
fn details(report: &CanaryReport, kind: Difference) -> String {
    let counts = match kind {
        Difference::Failed => &report.failures,
        Difference::Content => &report.content,
        _ => return String::new(),
    };
    let counts = counts.iter().map(|(what, count)| format!("{what} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn per_thousand(us: u64, records: u64) -> String {
    match records {
        0 => "-".to_string(),
        records => format!("{:.0} µs", us as f64 * 1000.0 / records as f64),
    }
}
