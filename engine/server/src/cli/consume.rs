//! `rustmq consume`: records of a topic on standard output.
//!
//! Called by: `cli::run`. Calls: the client's consumer.
//! Invariants: records of one partition are printed in order; `--max` counts printed records;
//! with a group, what is committed was printed and flushed before, also when a signal ends it.

use client::{Consumer, ConsumerConfig, Delivery, Start};
use model::PayloadCodec;

use super::args::{Consume, OutputFormat};
use super::connect::{Session, refused};
use super::exit::{Failure, written};
use super::translation::Translation;
use super::values::From;
use crate::output::record::{self, Line};
use crate::signals::Signals;

pub async fn run(args: Consume, session: &Session) -> Result<(), Failure> {
    if session.json() && args.format == OutputFormat::Raw {
        return Err(Failure::usage(
            "--json means --format jsonl; leave one of them out",
        ));
    }
    let server = session.server().await?;
    let found = server.client.topic(&args.topic).await.map_err(refused)?;
    let is_shown =
        args.format == OutputFormat::Jsonl && found.topic.spec.codec == PayloadCodec::Avro;
    let translation = Translation::of(&found.topic).filter(|_| is_shown);
    let from = args.from.unwrap_or(match args.group {
        Some(_) => From::Latest,
        None => From::Earliest,
    });
    let config = ConsumerConfig {
        group: args.group.clone(),
        from: match from {
            From::Earliest => Start::Earliest,
            From::Latest => Start::Latest,
            From::Offset(offset) => Start::Offset(offset),
            From::Time(time_us) => Start::Timestamp(time_us),
        },
        follow: args.follow,
        ..ConsumerConfig::all([args.topic.as_str()])
    };
    let mut consumer = server.client.consumer(config).await.map_err(refused)?;
    let printed = print_all(&args, translation, &mut consumer).await;
    // what was printed is committed and the group left at once, also after an error
    let closed = consumer.close().await.map_err(refused);
    printed.and(closed)
}

async fn print_all(
    args: &Consume,
    translation: Option<Translation>,
    consumer: &mut Consumer,
) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(Failure::failed)?;
    let mut printer = Printer {
        format: args.format,
        left: args.max,
        translation,
        buffer: Vec::new(),
    };
    while printer.left != Some(0) {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery.map_err(refused)?,
            _ = signals.next() => return Ok(()),
        };
        let Some(delivery) = delivery else { break };
        let next = printer.print(&delivery)?;
        consumer.done_to(delivery.partition, next);
    }
    Ok(())
}

/// Writes records; knows how many are still wanted.
struct Printer {
    format: OutputFormat,
    left: Option<u64>,
    /// Of topics whose values are not text.
    translation: Option<Translation>,
    buffer: Vec<u8>,
}

impl Printer {
    /// Prints what is wanted of a delivery; everything before the answered offset is done.
    fn print(&mut self, delivery: &Delivery) -> Result<u64, Failure> {
        let (mut rows, offsets) = delivery.rows().map_err(|error| {
            let (base, partition) = (delivery.batch.base_offset(), delivery.partition);
            Failure::failed(format!(
                "batch at offset {base} of partition {partition}: {error}"
            ))
        })?;
        if let Some(translation) = &self.translation {
            rows.values = translation.shown(&rows.values);
        }
        let mut next = delivery.next_offset();
        for (row, offset) in offsets.into_iter().enumerate() {
            if self.left == Some(0) {
                next = offset;
                break;
            }
            let found = rows.record(row);
            match self.format {
                OutputFormat::Raw => record::raw(found.value, &mut self.buffer),
                OutputFormat::Jsonl => {
                    let line = Line {
                        topic: &delivery.topic,
                        partition: delivery.partition.index,
                        offset,
                        timestamp_us: found.timestamp,
                        key: found.key,
                        value: found.value,
                    };
                    record::jsonl(&line, found.headers, &mut self.buffer);
                }
            }
            self.left = self.left.map(|left| left - 1);
        }
        self.flush()?;
        Ok(next)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        written(out.write_all(&self.buffer).and_then(|()| out.flush()))?;
        self.buffer.clear();
        Ok(())
    }
}
