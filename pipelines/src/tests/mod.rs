//! Pipelines at work over a log in memory.
//!
//! - `property` random pipelines, failures and restarts against a plain model
//! - `codecs` topics of CSV; `columns` modules over typed columns
//! - `lanes` dead letters, policies, retention, restarts; `guests` modules that misbehave, swaps
//! - `positions` what is forgotten of pipelines and sources that go
//! - `http` modules that ask other services
//! - `canary` new versions in the shadow of those that run, `canary_state` on copies of what they keep
//! - `state` modules that keep something from batch to batch, `migration` in another way
//! - `lookup` modules that look into tables
//! - `stuck` rows, tries and commits at the limits
//! - `support` the log in memory and the world around it

mod canary;
mod canary_state;
mod codecs;
mod columns;
mod guests;
mod http;
mod lanes;
mod lookup;
mod migration;
mod positions;
mod property;
mod state;
mod stuck;
pub(crate) mod support;
