//! `rustmq status`: how the node is, in one screen.
//!
//! Called by: `cli::run`. Calls: the server, whose status document is `service::status`'s.

use protocol::Status;
use serde_json::Value;

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
    let storage = Storage(&status.storage);
    let mut fields = vec![
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
                "{} in {}",
                output::bytes(status.wal_bytes),
                output::count(status.wal_segments, "segment")
            ),
        ),
        ("topics", status.topics.to_string()),
        ("partitions", status.partitions.to_string()),
        ("records", status.records.to_string()),
        (
            "tiered",
            format!(
                "{} in {}",
                output::count(status.tiered_records, "record"),
                output::count(status.objects, "object")
            ),
        ),
        ("tier", tier(&status.storage)),
        ("groups", status.groups.to_string()),
        ("tail", storage.tail()),
        ("cache", storage.cache()),
        ("pipelines", status.pipelines.len().to_string()),
    ];
    fields.extend(storage.full().map(|full| ("disk", full)));
    fields.extend(storage.cache_failure().map(|why| ("cache disk", why)));
    let mut text = output::fields(&fields);
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

/// What the store reports, which may be an older or newer one's.
struct Storage<'a>(&'a Value);

impl Storage<'_> {
    fn number(&self, path: &str) -> u64 {
        self.0.pointer(path).and_then(Value::as_u64).unwrap_or(0)
    }

    fn used(&self, used: &str, of: &str) -> String {
        let bytes = |path| output::bytes(self.number(path));
        format!("{} of {}", bytes(used), bytes(of))
    }

    fn tail(&self) -> String {
        format!("{} in memory", self.used("/tail_bytes", "/tail_bytes_max"))
    }

    fn cache(&self) -> String {
        let memory = self.used("/cache/memory/bytes", "/cache/memory/high_bytes");
        let mut text = format!("{memory} in memory");
        let is_on = self.0.pointer("/cache/disk").is_some_and(Value::is_object);
        if is_on {
            let disk = self.used("/cache/disk/bytes", "/cache/disk/high_bytes");
            text.push_str(&format!(", {disk} on disk"));
        }
        let hits = self.number("/cache/memory/hits") + self.number("/cache/disk/hits");
        let misses = self.number("/cache/misses");
        let evicted = self.number("/cache/memory/evictions") + self.number("/cache/disk/evictions");
        text.push_str(&format!(
            "; {hits} hits, {misses} misses, {evicted} evicted"
        ));
        text
    }

    fn full(&self) -> Option<String> {
        let full_ms = self.0.pointer("/full_ms").and_then(Value::as_u64)?;
        let seconds = full_ms / 1000;
        Some(format!(
            "FULL for {seconds} s: producers are refused until there is space"
        ))
    }

    fn cache_failure(&self) -> Option<String> {
        let why = self.0.pointer("/cache/disk/failure")?.as_str()?;
        Some(format!("not used for now: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_store_reports_is_read_and_what_it_does_not_is_nothing() {
        let report = json!({
            "tail_bytes": 1 << 20, "tail_bytes_max": 4 << 20, "full_ms": 12_345,
            "cache": {
                "memory": { "bytes": 1 << 20, "high_bytes": 2 << 20, "hits": 5, "evictions": 1 },
                "disk": { "bytes": 0, "high_bytes": 1 << 30, "hits": 2, "evictions": 3,
                    "failure": "no space" },
                "misses": 4,
            },
        });
        let storage = Storage(&report);
        assert_eq!(storage.tail(), "1.0 MiB of 4.0 MiB in memory");
        assert_eq!(
            storage.cache(),
            "1.0 MiB of 2.0 MiB in memory, 0 B of 1.0 GiB on disk; 7 hits, 4 misses, 4 evicted"
        );
        assert!(
            storage
                .full()
                .is_some_and(|text| text.starts_with("FULL for 12 s"))
        );
        assert!(
            storage
                .cache_failure()
                .is_some_and(|text| text.ends_with("no space"))
        );
        let older = Storage(&Value::Null);
        assert_eq!((older.full(), older.cache_failure()), (None, None));
        assert!(older.cache().ends_with("0 hits, 0 misses, 0 evicted"));
    }
}
