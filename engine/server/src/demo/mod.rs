//! `rustmq demo`: the whole way on real data, compared with the truth at every step.
//!
//! Called by `cli::run`. Embeds a `node::Node`, talks to it with the native client as any user's
//! program would, and reads in this order: `embed` (the example's files), `feed` (what is
//! produced), `steps` (apply, produce, tier, wait, read back), `questions` (SQL), `truth` and
//! `verify` (what it must be), `report` (what is printed).
//! Invariants: `demo: ok` is printed only when no difference was found; with differences each is
//! printed and the exit code is 1. Refuses nothing: an error on the way ends the demo with it.

pub mod embed;
pub mod feed;
mod questions;
mod report;
mod steps;
mod truth;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::Client;

use crate::cli::args::Demo as Args;
use crate::node::{Node, NodeConfig};
use report::Report;
use steps::Steps;
use truth::Truth;
use verify::{AirportHour, CarrierMonth, Outputs};

/// Part of the flights that version 1 of the module handles before version 2 is applied.
const SWAP_AT: f64 = 0.25;
/// How long the lanes may take to catch up before the demo gives up.
const CATCH_UP: Duration = Duration::from_secs(120);

/// Runs the demo; false when something differs from the truth.
pub async fn run(args: Args) -> Result<bool> {
    let kept = args.data_dir.clone();
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let data_dir = kept.unwrap_or_else(|| scratch.path().join("data"));
    let mut report = Report::start();
    let node = Node::start(node_config(&data_dir, args.serve)).await?;
    report.step(&format!(
        "a node is up on {}, data in {}",
        node.quic_addr(),
        data_dir.display()
    ));
    let outcome = whole_way(&node, &mut report).await;
    let agreed = match outcome {
        Ok(agreed) => agreed,
        Err(error) => {
            node.stop().await;
            return Err(error);
        }
    };
    if args.serve {
        serve(&node, &report).await;
    }
    node.stop().await;
    Ok(agreed)
}

fn node_config(data_dir: &Path, serve: bool) -> NodeConfig {
    // found by other commands of this user only when it stays up
    let state_dir = serve.then(client::state::state_dir);
    NodeConfig {
        state_dir,
        ..NodeConfig::local(data_dir)
    }
}

async fn whole_way(node: &Node, report: &mut Report) -> Result<bool> {
    let client = Client::connect(node.client_config()).await?;
    let mut steps = Steps::new(client, report);
    let flights = feed::unpack(embed::FLIGHTS_CSV_ZST)?;
    let weather = feed::unpack(embed::WEATHER_CSV_ZST)?;
    let truth = truth::compute(&flights, &weather)?;

    let example = embed::write_example(&cache_dir())?;
    steps.fresh().await?;
    steps.build(&example).await?;
    steps.apply(&example.join("weather.yaml")).await?;
    steps.apply(&example.join("pipeline.yaml")).await?;
    steps.produce_weather(weather).await?;
    let producing = steps.produce_flights(flights);
    let swap_at = (truth.flights as f64 * SWAP_AT) as u64;
    steps.wait_for_lanes("flights", swap_at, CATCH_UP).await?;
    steps.apply(&example.join("pipeline-v2.yaml")).await?;
    steps.tier().await?;
    let produced = producing
        .await
        .context("the producing task ended early")??;
    let broken = feed::broken_among(truth.flights);
    if produced != truth.flights + broken {
        bail!(
            "{produced} flights were acked, {} were sent",
            truth.flights + broken
        );
    }
    steps.report.step(&format!(
        "produced {produced} flights, {broken} of them broken"
    ));
    steps.wait_for_lanes("flights", produced, CATCH_UP).await?;
    steps
        .wait_for_lanes("weather", truth.weather, CATCH_UP)
        .await?;

    let outputs = steps.read_back().await?;
    steps.report.handover(&outputs);
    let by_carrier: Vec<CarrierMonth> = steps.ask(&questions::by_carrier_month()).await?;
    let by_hour: Vec<AirportHour> = steps.ask(&questions::by_hour()).await?;
    let (hot, cold) = steps.hot_and_cold().await?;
    let differences = differences(&outputs, &by_carrier, &by_hour, &truth, broken);
    steps.report.answers(&by_carrier, &by_hour);
    steps.report.table(&outputs, &truth, broken, hot, cold);
    steps.report.verdict(&differences);
    Ok(differences.is_empty())
}

fn differences(
    outputs: &Outputs,
    by_carrier: &[CarrierMonth],
    by_hour: &[AirportHour],
    truth: &Truth,
    broken: u64,
) -> Vec<String> {
    let mut found = outputs.differences(truth, broken);
    found.extend(verify::carrier_months(by_carrier, truth));
    found.extend(verify::airport_hours(by_hour, truth));
    for version in [1, 2] {
        if outputs.by_version(version) == 0 {
            found.push(format!("version {version} of the module made no flight"));
        }
    }
    found
}

/// Where the example's modules are built, so that the second demo need not build them again. Another
/// example or SDK has another folder: files of two of them do not mix.
pub fn cache_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home);
    let cache = cache.unwrap_or_else(std::env::temp_dir);
    cache.join("rustmq").join(format!("demo-{}", embed::mark()))
}

async fn serve(node: &Node, report: &Report) {
    report.commands_to_try(&node.http_addr().to_string());
    let Ok(mut signals) = crate::signals::Signals::listen() else {
        return;
    };
    signals.next().await;
}
