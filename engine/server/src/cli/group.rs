//! `rustmq group list|describe|reset|delete`.
//!
//! Called by: `cli::run`. Calls: the server.

use model::Lookup;
use protocol::{GroupDelete, GroupDescribe, GroupDescription, GroupList, GroupReset, ResetTo};

use super::args::Group;
use super::connect::{Server, Session};
use super::exit::{Failure, deleted, written};
use super::values::From;
use crate::output;

pub async fn run(command: Group, session: &Session) -> Result<(), Failure> {
    let server = session.server().await?;
    match command {
        Group::List => list(server, session).await,
        Group::Describe { name } => {
            let found = server.call(GroupDescribe { group: name }).await?;
            describe(&found, session)
        }
        Group::Delete { name } => {
            let group = name.clone();
            server.call(GroupDelete { group }).await?;
            if session.json() {
                return deleted(&name);
            }
            eprintln!("deleted group {name}");
            Ok(())
        }
        Group::Reset { name, topic, to } => {
            let to = match to {
                From::Earliest => ResetTo::At(Lookup::Earliest),
                From::Latest => ResetTo::At(Lookup::Latest),
                From::Time(time_us) => ResetTo::At(Lookup::Timestamp(time_us)),
                From::Offset(offset) => ResetTo::Offset(offset),
            };
            let request = GroupReset {
                group: name,
                topic: topic.clone(),
                partition: None,
                to,
            };
            let positions = server.call(request).await?.positions;
            if session.json() {
                return written(output::print(&output::json(&positions)));
            }
            let cells = |p: &protocol::GroupPosition| {
                vec![
                    topic.clone(),
                    p.partition.index.to_string(),
                    p.offset.to_string(),
                ]
            };
            let rows: Vec<Vec<String>> = positions.iter().map(cells).collect();
            written(output::print(&output::table(
                &["TOPIC", ">PARTITION", ">OFFSET"],
                &rows,
            )))
        }
    }
}

async fn list(server: &Server, session: &Session) -> Result<(), Failure> {
    let groups = server.call(GroupList {}).await?.groups;
    if session.json() {
        return written(output::print(&output::json(&groups)));
    }
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|group| {
            vec![
                group.group.clone(),
                group.members.to_string(),
                group.generation.to_string(),
                group.partitions.to_string(),
            ]
        })
        .collect();
    let columns = ["NAME", ">MEMBERS", ">GENERATION", ">PARTITIONS"];
    written(output::print(&output::table(&columns, &rows)))
}

fn describe(found: &GroupDescription, session: &Session) -> Result<(), Failure> {
    if session.json() {
        return written(output::print(&output::json(found)));
    }
    let mut text = output::fields(&[
        ("name", found.group.clone()),
        ("generation", found.generation.to_string()),
        ("members", found.members.len().to_string()),
    ]);
    text.push('\n');
    let none = || "-".to_string();
    let rows: Vec<Vec<String>> = found
        .partitions
        .iter()
        .map(|p| {
            vec![
                p.topic.clone(),
                p.partition.to_string(),
                p.committed.map_or_else(none, |offset| offset.to_string()),
                p.end.to_string(),
                p.lag.to_string(),
                p.member.clone().unwrap_or_else(none),
            ]
        })
        .collect();
    let columns = [
        "TOPIC",
        ">PARTITION",
        ">COMMITTED",
        ">END",
        ">LAG",
        "MEMBER",
    ];
    text.push_str(&output::table(&columns, &rows));
    written(output::print(&text))
}
