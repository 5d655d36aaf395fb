//! `rustmq status`: how the node is, in one screen.
//!
//! Called by: `cli::run`. Calls: the server, whose status document is `service::status`'s.

use protocol::Status;

use super::connect::Session;
use super::exit::{Failure, written};
use crate::output;
use crate::service::status::NodeStatus;

pub async fn run(session: &Session) -> Result<(), Failure> {
    let server = session.server().await?;
    let report = server.call(Status {}).await?.status;
    if session.json() {
        return written(output::print(&output::json(&report)));
    }
    let status: NodeStatus = serde_json::from_value(report).map_err(|error| {
        Failure::failed(format!(
            "this server's status is of another version ({error}); use --json"
        ))
    })?;
    written(output::print(&text(&status)))
}

fn text(status: &NodeStatus) -> String {
    let mut text = output::fields(&[
        ("version", status.version.clone()),
        ("process", status.pid.to_string()),
        ("up", format!("{} s", status.uptime_s)),
        ("node", status.node_id.clone()),
        ("cluster", status.cluster_id.clone()),
        ("data", status.data_dir.clone()),
        ("quic, tcp", status.quic.clone()),
        ("http", status.http.clone()),
        (
            "log",
            format!(
                "{} in {} segments",
                output::bytes(status.wal_bytes),
                status.wal_segments
            ),
        ),
        ("topics", status.topics.to_string()),
        ("partitions", status.partitions.to_string()),
        ("records", status.records.to_string()),
        (
            "tiered",
            format!(
                "{} records in {} objects",
                status.tiered_records, status.objects
            ),
        ),
        ("tier", tier(&status.storage)),
        ("groups", status.groups.to_string()),
        ("pipelines", status.pipelines.len().to_string()),
    ]);
    if status.pipelines.is_empty() {
        return text;
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = status
        .pipelines
        .iter()
        .map(|p| {
            vec![
                p.name.clone(),
                p.generation.to_string(),
                p.lanes.to_string(),
                p.state.clone(),
            ]
        })
        .collect();
    text.push_str(&output::table(
        &["PIPELINE", ">GENERATION", ">LANES", "STATE"],
        &rows,
    ));
    text
}

/// Where the tier is; and what is wrong with it, while something is.
fn tier(storage: &serde_json::Value) -> String {
    let breaker = &storage["tier_breaker"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let url = text(&storage["tier_url"]);
    if matches!(breaker["state"].as_str(), Some("open" | "half-open")) {
        let seconds = breaker["since_ms"].as_u64().unwrap_or(0) / 1_000;
        let (state, failures) = (text(&breaker["state"]), &breaker["failures"]);
        let last = text(&breaker["last_error"]);
        return format!("{url}; breaker {state} for {seconds} s after {failures} failures: {last}");
    }
    match storage["tier_failure"].as_str() {
        Some(failure) => format!("{url}; failing: {failure}"),
        None => url,
    }
}
