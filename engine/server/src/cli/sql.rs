//! `rustmq sql`: one question, its answer streamed to standard output.
//!
//! Called by: `cli::run`. Calls: the server.
//! Invariants: a table on a terminal, else CSV with a header line; `--json` is JSON lines; what
//! arrived before an error is printed, the error makes exit 1.

use std::io::{IsTerminal, Write};

use protocol::SqlFormat;

use super::args::{self, Sql};
use super::connect::{Session, refused};
use super::exit::{Failure, written};

pub async fn run(args: Sql, session: &Session) -> Result<(), Failure> {
    let format = match (args.format, session.json()) {
        (Some(args::SqlFormat::Table | args::SqlFormat::Csv), true) => {
            return Err(Failure::usage(
                "--json means --format jsonl; leave one of them out",
            ));
        }
        (Some(args::SqlFormat::Jsonl), _) | (None, true) => SqlFormat::Jsonl,
        (Some(args::SqlFormat::Table), false) => SqlFormat::Table,
        (Some(args::SqlFormat::Csv), false) => SqlFormat::Csv,
        (None, false) if std::io::stdout().is_terminal() => SqlFormat::Table,
        (None, false) => SqlFormat::Csv,
    };
    let server = session.server().await?;
    let request = protocol::Sql {
        query: args.query,
        format,
        row_limit: args.rows_max,
        timeout_ms: args.timeout_ms,
    };
    let mut pieces = server.client.sql_with(request).await.map_err(refused)?;
    while let Some(chunk) = pieces.next().await.map_err(refused)? {
        let mut out = std::io::stdout().lock();
        written(out.write_all(&chunk))?;
        written(out.flush())?;
    }
    Ok(())
}
