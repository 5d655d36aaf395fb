//! The catalog survives what disk and network may do to it, or says what was damaged.

mod cluster;
mod handle;
mod log;
mod suite;
mod takeover;
mod twin;

use model::{Catalog, Command, TopicSpec};

use crate::types::LogId;

fn create(name: &str) -> Command {
    let (name, spec) = (name.to_owned(), TopicSpec::default());
    Command::TopicCreate {
        name,
        spec,
        if_absent: true,
        internal: false,
    }
}

/// Names of the topics users made.
fn names(catalog: &Catalog) -> String {
    let topics = catalog.topics().filter(|topic| !topic.is_internal());
    let names: Vec<&str> = topics.map(|topic| topic.name.as_str()).collect();
    names.join(" ")
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, 1), index)
}
