//! `rustmq produce`: a file or standard input becomes records of a topic.
//!
//! Called by: `cli::run`. Calls: `connectors` (on a thread of its own, it blocks), the client's
//! producer.
//! Invariants: exit 0 only when every record was acknowledged; how many were is always said,
//! also when it goes wrong, so that the rest can be sent again; memory is bounded by one small
//! channel and the producer's window; a wait for the server's disk is said, once.

use std::convert::Infallible;
use std::path::Path;

use arrow::array::{Array, BinaryArray};
use client::{ProduceError, Producer, ProducerConfig, Record};
use connectors::file::{FileSource, Format, Input, SourceRecord, open};
use protocol::code;
use tokio::sync::mpsc;

use super::args::{InputFormat, Produce};
use super::connect::{Session, refused};
use super::exit::{Failure, written};
use super::translation::Translation;
use crate::output;
use crate::output::progress::Progress;

/// Records between the reading thread and the producer, in chunks.
const CHUNKS_MAX: usize = 8;
const CHUNK_RECORDS: usize = 512;

type Chunk = Result<Vec<SourceRecord>, String>;

pub async fn run(args: Produce, session: &Session) -> Result<(), Failure> {
    if args.format == InputFormat::Raw && args.key.is_some() {
        return Err(Failure::usage(
            "--key names a field, and --format raw has none; use jsonl or csv",
        ));
    }
    let server = session.server().await?;
    // so that an empty input to a topic that is not there fails too
    let found = server.client.topic(&args.topic).await.map_err(refused)?;
    let translation = Translation::of(&found.topic).filter(|_| args.format != InputFormat::Raw);
    let progress = Progress::bytes(file_bytes(&args.file));
    progress.say(&args.topic);
    let config = ProducerConfig {
        delivery_timeout: args.timeout,
        ..ProducerConfig::default()
    };
    let producer = server.client.producer(config).await.map_err(refused)?;
    let mut sent = Sent::default();
    let sending = async {
        let sender = Sender {
            args: &args,
            producer: &producer,
            progress: &progress,
            translation,
        };
        let result = sender.send_all(&mut sent).await;
        // also after an error: what was taken is sent, and the count that is said is true
        (result, producer.flush().await)
    };
    let mut said = None;
    let (result, flushed) = tokio::select! {
        ended = sending => ended,
        never = tell(&args, &producer, &progress, &mut said) => match never {},
    };
    if said.is_some() && flushed.is_ok() {
        progress.line(AGAIN);
    }
    drop(progress);
    let acked = match &flushed {
        Ok(acked) => acked.records,
        Err(_) => producer.acked(),
    };
    let failure = match (result, flushed) {
        (Ok(()), Ok(_)) if acked == sent.records => None,
        (Ok(()), Ok(_)) => Some(Failure::failed("not all were acknowledged")),
        (Err(failure), _) => Some(failure),
        (Ok(()), Err(error)) => Some(undelivered(error)),
    };
    report(&args, session, acked, &sent, failure)
}

/// What follows a warning once it is over.
const AGAIN: &str = "records get through again";

/// Says when nothing gets through, and when something does again. `said` is the code of what
/// was said last and is not over.
async fn tell(
    args: &Produce,
    producer: &Producer,
    progress: &Progress,
    said: &mut Option<String>,
) -> Infallible {
    let mut troubles = producer.trouble();
    loop {
        let trouble = troubles.borrow_and_update().clone();
        match (trouble, &*said) {
            (Some(trouble), before) if before.as_ref() != Some(&trouble.code) => {
                let what = match trouble.code.as_str() {
                    code::DISK_FULL => "disk full",
                    "" => "no answer",
                    other => other,
                };
                progress.say(&format!("{}: {what}, retrying", args.topic));
                progress.line(&format!(
                    "warning: topic {}, partition {}: {}; retrying, for {:?} at most (--timeout)",
                    trouble.topic, trouble.partition, trouble.message, args.timeout
                ));
                *said = Some(trouble.code);
            }
            (None, Some(_)) => {
                progress.say(&args.topic);
                progress.line(AGAIN);
                *said = None;
            }
            (Some(_), _) | (None, None) => {}
        }
        if troubles.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The server's own words, with topic and partition before them.
fn undelivered(error: ProduceError) -> Failure {
    let message = error.to_string();
    Failure {
        message,
        ..refused(*error.error)
    }
}

#[derive(Default)]
struct Sent {
    records: u64,
    bytes: u64,
    unkeyed: u64,
}

fn report(
    args: &Produce,
    session: &Session,
    acked: u64,
    sent: &Sent,
    failure: Option<Failure>,
) -> Result<(), Failure> {
    let acknowledged = output::count(acked, "record");
    let done = format!("{acknowledged} acknowledged by {}", args.topic);
    if let Some(failure) = failure {
        let message = format!("{}; {done}", failure.message);
        return Err(Failure { message, ..failure });
    }
    if sent.unkeyed > 0 {
        let field = args.key.as_deref().unwrap_or_default();
        eprintln!(
            "warning: without a field `{field}`, so without a key: {}",
            output::count(sent.unkeyed, "record")
        );
    }
    if session.json() {
        let object = serde_json::json!({ "topic": args.topic, "records": acked });
        return written(output::print(&output::json(&object)));
    }
    eprintln!("{done}");
    Ok(())
}

/// What sends the records of the input.
struct Sender<'a> {
    args: &'a Produce,
    producer: &'a Producer,
    progress: &'a Progress,
    /// Of topics whose values are not what the lines say.
    translation: Option<Translation>,
}

impl Sender<'_> {
    async fn send_all(&self, sent: &mut Sent) -> Result<(), Failure> {
        let mut chunks = read_in_background(self.args);
        while let Some(chunk) = chunks.recv().await {
            let (records, bad) = self.translated(chunk.map_err(Failure::failed)?);
            for record in records {
                self.send(record, sent).await?;
            }
            if let Some(message) = bad {
                return Err(Failure::failed(message));
            }
            self.progress.at(sent.bytes);
        }
        Ok(())
    }

    async fn send(&self, record: SourceRecord, sent: &mut Sent) -> Result<(), Failure> {
        sent.bytes += record.value.len() as u64 + 1;
        if self.args.key.is_some() && record.key.is_none() {
            sent.unkeyed += 1;
        }
        let outgoing = Record {
            timestamp: None,
            key: record.key,
            value: Some(record.value),
            headers: Vec::new(),
        };
        let topic = &self.args.topic;
        if let Err(error) = self.producer.send(topic, outgoing).await {
            let failure = undelivered(error);
            let message = format!("{}: {}", self.place(record.line), failure.message);
            return Err(Failure { message, ..failure });
        }
        sent.records += 1;
        Ok(())
    }

    /// The records as the topic keeps them, up to the first that it cannot keep; with what is
    /// wrong with that.
    fn translated(&self, mut records: Vec<SourceRecord>) -> (Vec<SourceRecord>, Option<String>) {
        let Some(translation) = &self.translation else {
            return (records, None);
        };
        let lines = BinaryArray::from_iter_values(records.iter().map(|record| &record.value));
        let (values, bad) = translation.kept(&lines);
        let bad = bad.map(|reason| {
            let line = records.get(values.len()).map_or(0, |record| record.line);
            format!("{}: {reason}", self.place(line))
        });
        records.truncate(values.len());
        for (record, value) in records.iter_mut().zip(values.iter().flatten()) {
            record.value = value.to_vec().into();
        }
        (records, bad)
    }

    fn place(&self, line: u64) -> String {
        format!("{}:{line}", self.args.file.display())
    }
}

fn read_in_background(args: &Produce) -> mpsc::Receiver<Chunk> {
    let (to, from) = mpsc::channel::<Chunk>(CHUNKS_MAX);
    let format = match args.format {
        InputFormat::Jsonl => Format::Jsonl,
        InputFormat::Csv => Format::Csv,
        InputFormat::Raw => Format::Raw,
    };
    let source = FileSource {
        format,
        key: args.key.clone(),
        ..FileSource::default()
    };
    let input = Input::Path(args.file.clone());
    // not a task: reading standard input cannot be cancelled, and must not hold the exit up
    std::thread::spawn(move || {
        if let Err(error) = read(input, source, &to) {
            let _ = to.blocking_send(Err(error));
        }
    });
    from
}

/// Ends early when nobody listens any more.
fn read(input: Input, source: FileSource, to: &mpsc::Sender<Chunk>) -> Result<(), String> {
    let mut chunk = Vec::with_capacity(CHUNK_RECORDS);
    let mut bytes = 0;
    for record in open(input, source).map_err(|error| error.to_string())? {
        match record {
            Ok(record) => {
                bytes += record.value.len();
                chunk.push(record);
            }
            Err(error) => {
                // what came before the bad line is sent
                let _ = to.blocking_send(Ok(chunk));
                return Err(error.to_string());
            }
        }
        let idle = to.capacity() == CHUNKS_MAX; // a slow input is sent on as it comes
        if idle || chunk.len() == CHUNK_RECORDS || bytes >= CHUNK_BYTES {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_RECORDS));
            bytes = 0;
            if to.blocking_send(Ok(full)).is_err() {
                return Ok(());
            }
        }
    }
    let _ = to.blocking_send(Ok(chunk));
    Ok(())
}

const CHUNK_BYTES: usize = 1 << 20;

/// Size for the progress bar; none for standard input and for compressed files.
fn file_bytes(path: &Path) -> Option<u64> {
    if path.extension().is_some_and(|extension| extension == "zst") {
        return None;
    }
    std::fs::metadata(path)
        .ok()
        .filter(|metadata| metadata.is_file())
        .map(|m| m.len())
}
