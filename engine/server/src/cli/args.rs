//! The command line as types: every command, flag and help text of `rustmq`.
//!
//! Called by: `cli::run`, `completions`. Calls: clap's derive only.
//! Invariants: what is listed in `--help` is built; every command has examples; a flag means the
//! same everywhere (`--json`, `--server`, `--ca`).
//! Refuses: unknown flags and commands (clap says which is close), exit 2; commands that are
//! planned are known but hidden and say that they are not built yet.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::values::{self, From, Limit};
use crate::module::Lang;

const MAIN_EXAMPLES: &str = "\
Examples:
  rustmq serve                                  start a node on 127.0.0.1:7420
  rustmq topic create orders --partitions 4     in another terminal: no flags needed
  rustmq produce orders orders.jsonl --key id
  rustmq consume orders --max 10
  rustmq sql 'select count(*) from orders'
  rustmq pipeline apply pipeline.yaml

Exit codes:
  0 done   1 failed   2 wrong usage   3 the server cannot be reached

Environment:
  RUSTMQ_SERVER, RUSTMQ_CA   the server and its certificate, as --server and --ca
  RUSTMQ_LOG                 what is logged to standard error: error, warn (the default), info, debug";

/// Streams, WASM pipelines and SQL in one binary.
///
/// A node keeps topics in a write-ahead log, runs pipelines of WebAssembly modules over them,
/// moves what is old to Parquet in a folder or an object store, and answers SQL over all of it.
/// Results go to standard output, everything else to standard error.
#[derive(Debug, Parser)]
#[command(name = "rustmq", version, arg_required_else_help = true, max_term_width = 100,
    disable_help_subcommand = true, subcommand_required = true, after_long_help = MAIN_EXAMPLES,
    after_help = "rustmq --help shows examples, exit codes and the environment.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The server, as HOST:PORT; a server started by this user on this machine is found without
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        env = "RUSTMQ_SERVER",
        hide_env_values = true
    )]
    pub server: Option<String>,
    /// The certificate to trust, a PEM file (DATA_DIR/tls/cert.pem of the server)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "RUSTMQ_CA",
        hide_env_values = true
    )]
    pub ca: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(Demo),
    Serve(Serve),
    #[command(subcommand)]
    Topic(Topic),
    Produce(Produce),
    Consume(Consume),
    #[command(subcommand)]
    Module(Module),
    #[command(subcommand)]
    Pipeline(Pipeline),
    Sql(Sql),
    #[command(subcommand)]
    Group(Group),
    Status(Status),
    Completions(Completions),
    #[command(hide = true)]
    Top(Unbuilt),
    #[command(hide = true)]
    Bench(Unbuilt),
}

/// What is typed after a command that does not exist yet.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Unbuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<OsString>,
}

/// Show the whole way on real data, then exit
///
/// Starts a node inside this process, builds the flights example's modules, produces all flights
/// of 2013 from New York, runs them through a pipeline, swaps a module while records flow, tiers
/// to Parquet, asks SQL and compares every figure with the truth.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rustmq demo
  rustmq demo --data-dir ./demo --serve")]
pub struct Demo {
    /// Keep the data here instead of in a temporary folder
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Leave the node up afterwards and print commands to try
    #[arg(long)]
    pub serve: bool,
}

/// Run a node
///
/// Prints `ready quic=ADDR http=ADDR` on standard output once it takes requests. Ends cleanly on
/// SIGTERM or Ctrl-C; a second signal ends it at once (nothing that was acknowledged is lost).
#[derive(Debug, Args)]
#[command(after_long_help = serve_help())]
pub struct Serve {
    /// A TOML file
    #[arg(
        long,
        value_name = "FILE",
        env = "RUSTMQ_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: ~/.local/share/rustmq]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the native door, QUIC and TCP; port 0 takes a free one [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address of the HTTP door; port 0 takes a free one [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Memory that the node divides among its rooms, such as 1GiB [default: half of the
    /// machine's, at most 2GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory_bytes: Option<String>,
    /// Disk that the log and the cache may take together, such as 20GiB; beyond it producers
    /// are told that the disk is full [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub disk_bytes: Option<String>,
}

fn serve_help() -> String {
    format!(
        "\
Examples:
  rustmq serve
  rustmq serve --data-dir /var/lib/rustmq --listen 0.0.0.0:7420
  rustmq serve --config node.toml --memory-bytes 1GiB

A config file:
  listen = \"0.0.0.0:7420\"
  data_dir = \"/var/lib/rustmq\"
  [storage]
  url = \"s3://bucket/prefix\"
  [storage.options]                # what is not here comes from AWS_… and GOOGLE_… variables
  aws_access_key_id = \"…\"         # also aws_secret_access_key, aws_region, timeout
  aws_endpoint = \"http://127.0.0.1:9000\"     # any store that speaks S3
  allow_http = \"true\"              # only for an endpoint without TLS
  google_service_account = \"key.json\"
  google_base_url = \"http://127.0.0.1:4443\"  # any store that speaks Google's XML interface
  google_skip_signature = \"true\"   # and has no accounts
  [cache]
  disk_bytes = \"50GiB\"
  dir = \"/mnt/nvme/rustmq\"

The log goes to standard error. RUSTMQ_LOG says how much: error, warn (the default), info, debug.
What modules log or print is at their own level, so most of it needs info:
  RUSTMQ_LOG=info rustmq serve
  RUSTMQ_LOG=warn,rustmq::module=info rustmq serve    # info of modules alone

{}",
        crate::config::keys::help()
    )
}

/// Create, list, describe, alter, trim and delete topics
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Examples:
  rustmq topic create orders --partitions 4
  rustmq topic create orders --value json --schema orders.schema.json
  rustmq topic list --json
  rustmq topic describe orders
  rustmq topic alter orders --retention 14d
  rustmq topic trim orders --partition 0 --before 1000
  rustmq topic delete orders")]
pub enum Topic {
    Create(TopicCreate),
    /// List the topics
    List,
    /// Show one topic: its settings and the offsets of each partition
    Describe {
        name: String,
    },
    Alter(TopicAlter),
    Trim(TopicTrim),
    /// Delete a topic and everything in it; refused while a pipeline uses it
    Delete {
        name: String,
    },
}

/// Change settings of a topic while it is used; what is not named stays
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct TopicAlter {
    pub name: String,
    /// Drop records older than this: a TIME such as 12h or 14d, or none
    #[arg(long, value_name = "TIME", group = "change", value_parser = super::values::parse_time_limit)]
    pub retention: Option<Limit>,
    /// Drop the oldest records of a partition above this: a SIZE such as 10GiB, or none
    #[arg(long, value_name = "SIZE", group = "change", value_parser = super::values::parse_size_limit)]
    pub retention_bytes: Option<Limit>,
    /// When a produce is acknowledged: after the sync, or after the write
    #[arg(long, value_enum, group = "change")]
    pub durability: Option<DurabilityArg>,
}

/// Remove the oldest records of a topic for good
///
/// Consumers that have not read them go on at the first record that is kept, SQL no longer shows
/// them, and Parquet objects with nothing else in them are deleted a few minutes later.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("point").required(true), after_long_help = "\
Examples:
  rustmq topic trim orders --partition 0 --before 1000
  rustmq topic trim orders --before-time 2026-01-31T00:00:00Z
  rustmq topic trim orders --partition 2 --before-time 2026-01-31T00:00:00Z --json")]
pub struct TopicTrim {
    pub name: String,
    /// Which partition [default: all of them, with --before-time]
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// Remove the records before this offset
    #[arg(long, value_name = "OFFSET", group = "point")]
    pub before: Option<u64>,
    /// Remove the records before the first one whose timestamp is not before this
    #[arg(long, value_name = "TIME", group = "point", value_parser = values::parse_moment)]
    pub before_time: Option<i64>,
}

/// Create a topic
///
/// Names are 1 to 249 of A-Z a-z 0-9 . _ - and do not start with _ (those are internal).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rustmq topic create orders --partitions 4
  rustmq topic create orders --schema orders.json --misfits nulls
  rustmq topic create clicks --retention 7d --retention-bytes 10GiB
  rustmq topic create balances --compact --tombstone-retention 7d")]
pub struct TopicCreate {
    pub name: String,
    /// How many partitions
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub partitions: u32,
    /// What values are [default: raw; json with a schema, avro with one of Avro]
    #[arg(long, value_enum, value_name = "CODEC")]
    pub value: Option<ValueCodec>,
    /// A JSON file: {"field": "type", …}, a list of {name, type}, a JSON Schema object (types are
    /// bool, int64, float64, string, bytes, timestamp), or an Avro schema (.avsc)
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// What a pipeline makes of a value that does not fit the schema
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = MisfitsArg::DeadLetter)]
    pub misfits: MisfitsArg,
    /// When a produce is acknowledged: after the sync, or after the write
    #[arg(long, value_enum, default_value_t = DurabilityArg::Fsync)]
    pub durability: DurabilityArg,
    /// Drop records older than this (by append time): 12h, 14d [default: keep all]
    #[arg(long, value_name = "TIME", value_parser = values::parse_time_limit)]
    pub retention: Option<Limit>,
    /// Drop the oldest records of a partition above this: 500MiB, 10GiB [default: keep all]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size_limit)]
    pub retention_bytes: Option<Limit>,
    /// Keep only the newest record of each key, in the log and in the object store
    #[arg(long)]
    pub compact: bool,
    /// How long a compacted topic shows that a key was deleted [default: 1d]
    #[arg(long, value_name = "TIME", requires = "compact", value_parser = values::parse_time)]
    pub tombstone_retention: Option<Duration>,
    /// Leave records of a compacted topic alone that are younger than this [default: 0s]
    #[arg(long, value_name = "TIME", requires = "compact", value_parser = values::parse_time)]
    pub min_compaction_lag: Option<Duration>,
    /// Keep all records in the log, none in the object store
    #[arg(long)]
    pub no_tier: bool,
    /// Do nothing if a topic of this name and these settings is there
    #[arg(long)]
    pub if_absent: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ValueCodec {
    Raw,
    Json,
    /// Rows with the schema's fields in its order; an empty field is null
    Csv,
    /// Datums of the schema, without a header; `produce` writes them from JSON, `consume` shows
    /// them as JSON
    Avro,
    /// Typed columns of the schema, at rest and between modules; JSON for everyone else
    Columns,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MisfitsArg {
    /// A dead letter of code `schema`, where the columns are needed
    DeadLetter,
    /// A row whose columns are null, as SQL shows it
    Nulls,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DurabilityArg {
    Fsync,
    Memory,
}

/// Send records to a topic
///
/// Exits 0 only when every record was acknowledged, and says how many were.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rustmq produce orders orders.jsonl --key id
  cat orders.jsonl | rustmq produce orders -
  rustmq produce flights flights.csv --format csv
  echo hello | rustmq produce notes --format raw")]
pub struct Produce {
    pub topic: String,
    /// The file, or - for standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// The field whose value becomes the record's key (jsonl and csv)
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// jsonl: a line is a value, kept byte for byte; csv: rows become JSON objects of strings;
    /// raw: a line is a value. To a topic of Avro, jsonl is written as its schema says
    #[arg(long, value_enum, default_value_t = InputFormat::Jsonl)]
    pub format: InputFormat,
    /// Give up when nothing gets through for so long (a full disk, say): 500ms, 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = values::parse_time)]
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    Jsonl,
    Csv,
    Raw,
}

/// Print the records of a topic
///
/// Starts at the group's commit, else at --from; stops at the end of the topic as it was at the
/// start, or after --max, unless --follow.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rustmq consume orders --max 10
  rustmq consume orders --from 2026-01-31T00:00:00Z --format raw
  rustmq consume orders --group billing --follow")]
pub struct Consume {
    pub topic: String,
    /// Share the partitions with the other members of this group and commit what was printed
    #[arg(long, value_name = "G")]
    pub group: Option<String>,
    /// earliest, latest, an OFFSET or an RFC 3339 time [default: earliest; with --group latest]
    #[arg(long, value_name = "POSITION", value_parser = super::values::parse_from)]
    pub from: Option<From>,
    /// Stop after N records
    #[arg(long, value_name = "N")]
    pub max: Option<u64>,
    /// jsonl: an object a record; raw: only the value, one a line
    #[arg(long, value_enum, default_value_t = OutputFormat::Jsonl)]
    pub format: OutputFormat,
    /// Go on waiting for new records
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Jsonl,
    Raw,
}

/// Write, build and inspect WebAssembly modules
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Examples:
  rustmq module new tidy
  rustmq module new tidy --lang python
  rustmq module build tidy
  rustmq module test tidy
  rustmq module sign tidy/build/tidy.wasm --key publisher.key
  rustmq module inspect tidy/build/tidy.wasm --json")]
pub enum Module {
    /// Make a folder NAME with a module to start from, and the SDK inside it
    New {
        name: String,
        #[arg(long, value_enum, default_value_t = Lang::Rust)]
        lang: Lang,
    },
    /// Build a module's folder to DIR/build/NAME.wasm and print that path
    ///
    /// Cargo.toml, pyproject.toml or package.json in the folder says the language. Rust needs cargo;
    /// Python needs python3 with pip and JavaScript needs node with npm: the first build fetches
    /// componentize-py or componentize-js into DIR/.rustmq/tools, or into RUSTMQ_TOOLS, which modules
    /// may share.
    Build { dir: PathBuf },
    /// Run a module's native tests, then the same cases through its component
    ///
    /// The cases are the runs of the SDK's `testing` in the native tests: params, rows, and what came out.
    /// What differs in the component is printed, `-` native and `+` component, and the exit code is 1.
    Test { dir: PathBuf },
    /// Print what a row costs in the component, beside native code
    ///
    /// The rows are those of the cases of `module test`, repeated to a batch of 1,000. Native code is the
    /// module's own: optimised Rust, python3, node.
    Bench { dir: PathBuf },
    /// Write a new secret key into FILE and print its public key
    ///
    /// The public key goes into `modules.trust` of the servers that shall take what it signs.
    Keygen { file: PathBuf },
    /// Sign a built module with a secret key of `module keygen`
    ///
    /// The signature is put into the file, behind all that it signs; several keys may sign a file.
    Sign {
        file: PathBuf,
        /// The file that `module keygen` wrote
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Show what a module imports and exports, its size, digest and signers
    Inspect { file: PathBuf },
}

/// Check, plan, apply and look at pipelines
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Examples:
  rustmq pipeline lint pipeline.yaml
  rustmq pipeline plan pipeline.yaml
  rustmq pipeline apply pipeline.yaml
  rustmq pipeline describe flights
  rustmq pipeline schema > pipeline.schema.json")]
pub enum Pipeline {
    /// Check a file without a server: every error with FILE:LINE:COL
    Lint { file: PathBuf },
    /// Show what apply would do, and how each change is taken in: live, drain, migrate or reset
    Plan { file: PathBuf },
    /// Build the modules, create the topics, start the pipeline or swap it in between two batches
    Apply { file: PathBuf },
    /// List the pipelines
    List,
    /// Show one pipeline: its lanes, positions, counts and errors
    Describe { name: String },
    /// Stop a pipeline and forget it; its topics stay
    Delete { name: String },
    #[command(subcommand)]
    Canary(Canary),
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    #[command(hide = true)]
    Test(Unbuilt),
    #[command(hide = true)]
    Dev(Unbuilt),
    #[command(hide = true)]
    Tap(Unbuilt),
    #[command(hide = true)]
    Dlq(Unbuilt),
}

/// Try a new version of a module in the shadow of the one that runs
///
/// The candidate gets what the node got in each committed batch, on a thread of its own with a lower
/// priority; what it makes is compared and dropped. It never holds up the pipeline: where it is too
/// slow, batches are skipped and counted, and, of a node that keeps state, those that pass until it has
/// a copy of that again. One canary a pipeline; it ends with the server, when the pipeline is applied,
/// and when a lane goes back from the generation that it is compared with.
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Examples:
  rustmq pipeline canary start flights tidy ./modules/tidy --records 100000
  rustmq pipeline canary show flights
  rustmq pipeline canary promote flights
  rustmq pipeline canary stop flights")]
pub enum Canary {
    /// Start one: MODULE is a folder (built) or a .wasm file
    Start {
        pipeline: String,
        node: String,
        module: PathBuf,
        /// End after so many compared records
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        records: Option<u64>,
        /// End after this time, such as 30s
        #[arg(long = "for", value_name = "TIME", value_parser = values::parse_time)]
        time: Option<Duration>,
    },
    /// Show what differs so far, with the first records of each difference
    Show { pipeline: String },
    /// Swap the candidate in between two batches, as an apply would; put it where the file says
    /// as well, or the next apply brings the old one back
    Promote {
        pipeline: String,
        /// Also when it failed, or has compared nothing
        #[arg(long)]
        force: bool,
    },
    /// End it and forget it
    Stop { pipeline: String },
}

/// Ask SQL over topics, hot and tiered rows alike
///
/// Every topic is a table: _partition, _offset, _timestamp, _key, _value, _value_text, _headers,
/// and typed columns where the topic has a schema. Read-only.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rustmq sql 'select count(*) from orders'
  rustmq sql 'select carrier, avg(dep_delay) from clean group by carrier' --format csv
  rustmq sql 'select * from system.topics' --json")]
pub struct Sql {
    pub query: String,
    /// How rows are printed [default: table on a terminal, else csv; --json is jsonl]
    #[arg(long, value_enum)]
    pub format: Option<SqlFormat>,
    /// Stop after this many rows
    #[arg(long, value_name = "N")]
    pub rows_max: Option<u64>,
    /// Give up after this many milliseconds
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SqlFormat {
    Table,
    Jsonl,
    Csv,
}

/// List, describe and reset consumer groups
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Examples:
  rustmq group list
  rustmq group describe billing
  rustmq group reset billing orders --to earliest")]
pub enum Group {
    /// List the groups
    List,
    /// Show one group: members, partitions, commits and lag
    Describe { name: String },
    /// Move a group's commits on a topic; refused while it has members
    Reset {
        name: String,
        topic: String,
        /// earliest, latest, an OFFSET or an RFC 3339 time
        #[arg(long, value_name = "POSITION", value_parser = super::values::parse_from)]
        to: From,
    },
    /// Forget a group and its commits; refused while it has members
    Delete { name: String },
}

/// Show how the node is: version, addresses, log, topics, pipelines
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rustmq status
  rustmq status --json")]
pub struct Status {}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rustmq completions bash > ~/.local/share/bash-completion/completions/rustmq
  rustmq completions zsh > ~/.zfunc/_rustmq")]
pub struct Completions {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
