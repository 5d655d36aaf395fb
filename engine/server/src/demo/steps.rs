//! The demo's actions on the node, all through the native client.
//!
//! Called by `demo::run`, in the order of the functions. Every wait has a deadline; an error
//! names what was being done.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::{Client, ConsumerConfig, ProducerConfig, Record};
use protocol::{PipelineDescribe, SqlFormat, Status, Tier};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::feed::{self, FeedRecord};
use super::report::Report;
use super::verify::{OUTPUTS, Outputs};
use crate::cli::connect::Server;
use crate::cli::pipeline::apply_file;
use crate::module;

/// How often a condition on the node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Steps<'r> {
    server: Server,
    pub report: &'r mut Report,
}

impl<'r> Steps<'r> {
    pub fn new(client: Client, report: &'r mut Report) -> Steps<'r> {
        Steps {
            server: Server { client },
            report,
        }
    }

    /// Records of an earlier demo would be counted again.
    pub async fn fresh(&self) -> Result<()> {
        let topics = self.server.client.topics().await?;
        if topics.iter().any(|t| t.topic.name == "flights_raw") {
            bail!("this data folder holds an earlier demo: take another --data-dir, or remove it");
        }
        Ok(())
    }

    /// Builds both versions of the module; only the first demo on a machine waits for this.
    pub async fn build(&mut self, example: &Path) -> Result<()> {
        for name in ["tidy", "tidy-v2"] {
            let started = Instant::now();
            let folder = example.join("modules").join(name);
            let mut quiet = |_: &str| {};
            module::build(&folder, &mut quiet)
                .await
                .with_context(|| format!("building {name}"))?;
            let took = started.elapsed().as_secs_f64();
            self.report
                .step(&format!("built module {name} from source in {took:.1} s"));
        }
        Ok(())
    }

    pub async fn apply(&mut self, file: &Path) -> Result<()> {
        let applied = apply_file(&self.server, file).await?;
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let generation = applied.generation;
        self.report
            .step(&format!("applied {name}: pipeline generation {generation}"));
        Ok(())
    }

    pub async fn produce_weather(&mut self, csv: Vec<u8>) -> Result<()> {
        let producer = self
            .server
            .client
            .producer(ProducerConfig::default())
            .await?;
        for record in feed::weather(&csv)? {
            producer.send("weather_raw", outgoing(record?)).await?;
        }
        let acked = producer.flush().await?.records;
        self.report
            .step(&format!("produced {acked} hours of weather"));
        Ok(())
    }

    /// Produces all flights in a task of its own, so that the pipeline is swapped while they flow.
    pub fn produce_flights(&self, csv: Vec<u8>) -> JoinHandle<Result<u64>> {
        let client = self.server.client.clone();
        tokio::spawn(async move {
            let producer = client.producer(ProducerConfig::default()).await?;
            for record in feed::flights(&csv)? {
                producer.send("flights_raw", outgoing(record?)).await?;
            }
            Ok(producer.flush().await?.records)
        })
    }

    /// Waits until the lanes of a pipeline have taken in `records`.
    pub async fn wait_for_lanes(
        &mut self,
        pipeline: &str,
        records: u64,
        within: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let describe = PipelineDescribe {
                name: pipeline.to_owned(),
            };
            let status = self.server.client.call(describe).await?.status;
            let lanes = status["lanes"].as_array().cloned().unwrap_or_default();
            let done: u64 = lanes.iter().filter_map(|l| l["position"].as_u64()).sum();
            self.report.progress(pipeline, done, records);
            if done >= records {
                return Ok(());
            }
            let stopped = lanes.iter().find(|l| l["state"]["is"] == "stopped");
            if let Some(lane) = stopped {
                bail!("a lane of {pipeline} stopped: {lane}");
            }
            if Instant::now() > deadline {
                bail!("{pipeline} took in {done} of {records} records in {within:?}: {status}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Moves what is closed by now to Parquet.
    pub async fn tier(&mut self) -> Result<()> {
        let tiered = self.server.client.call(Tier { topic: None }).await?;
        let rows = tiered.report["records"].as_u64().unwrap_or(0);
        let objects = tiered.report["objects"].as_u64().unwrap_or(0);
        self.report.step(&format!(
            "tiered {rows} records to {objects} Parquet objects"
        ));
        Ok(())
    }

    /// Reads the output topics and the dead letters from the first offset to the last.
    pub async fn read_back(&mut self) -> Result<Outputs> {
        let mut outputs = Outputs::default();
        for topic in OUTPUTS {
            let mut consumer = self
                .server
                .client
                .consumer(ConsumerConfig::all([topic]))
                .await?;
            while let Some(delivery) = consumer.next().await? {
                let (rows, _) = delivery.rows()?;
                for i in 0..rows.len() {
                    let value = rows.record(i).value.unwrap_or_default();
                    outputs.add(topic, delivery.partition.index, value);
                }
            }
        }
        let mut consumer = self
            .server
            .client
            .consumer(ConsumerConfig::all(["bad_rows"]))
            .await?;
        while let Some(delivery) = consumer.next().await? {
            outputs.dead += delivery.rows()?.0.len() as u64;
        }
        self.report
            .step("read every output back, from Parquet and from the log");
        Ok(outputs)
    }

    /// Asks SQL and reads each line of the answer.
    pub async fn ask<T: DeserializeOwned>(&mut self, query: &str) -> Result<Vec<T>> {
        let started = Instant::now();
        let answer = self
            .server
            .client
            .sql(query, SqlFormat::Jsonl)
            .await?
            .text()
            .await?;
        let lines = answer.lines().filter(|l| !l.is_empty());
        let rows: Result<Vec<T>, _> = lines.map(serde_json::from_str).collect();
        let rows = rows.with_context(|| format!("the answer to {query}"))?;
        let took = started.elapsed().as_millis();
        self.report.step(&format!(
            "SQL over hot and cold: {} rows in {took} ms",
            rows.len()
        ));
        Ok(rows)
    }

    /// Records of the outputs that are only in the log, and those that are in Parquet.
    pub async fn hot_and_cold(&self) -> Result<(u64, u64)> {
        let status = self.server.client.call(Status {}).await?.status;
        let (mut hot, mut cold) = (0, 0);
        for partition in status["storage"]["partitions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if !OUTPUTS.contains(&partition["topic"].as_str().unwrap_or_default()) {
                continue;
            }
            let at = |name: &str| partition[name].as_u64().unwrap_or(0);
            cold += at("cold_end").saturating_sub(at("start"));
            hot += at("end").saturating_sub(at("cold_end"));
        }
        Ok((hot, cold))
    }
}

fn outgoing(record: FeedRecord) -> Record {
    Record::value(record.value).with_key(record.key)
}
