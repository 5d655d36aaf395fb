//! What a node is told: the command line, the environment, a TOML file and the defaults, in that
//! order of weight, brought together into one checked [`Config`].
//!
//! Called by: `cli::serve`. Calls: `file` (the TOML tree with lines and columns).
//! Invariants: every key of the file is known or the file is refused, and all complaints are
//! reported, not the first; a `Config` that exists has passed its checks.
//! Refuses: nothing is guessed: a value that does not parse is an error that names its source.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use file::FileConfig;
use storage::WalWriterKind;

/// Where the node listens unless it is told otherwise: this machine only.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7420";
/// Where the HTTP door listens unless it is told otherwise: this machine only.
pub const HTTP_DEFAULT: &str = "127.0.0.1:7480";

/// A checked configuration of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub data_dir: PathBuf,
    pub storage: StorageConfig,
    pub limits: LimitsConfig,
}

/// Where and how cold data is kept. `None` means the storage room's own default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageConfig {
    /// `file://`, `s3://` or `gs://`; without it a folder inside the data directory
    pub url: Option<String>,
    /// handed to the object store as they are: endpoint, region, keys, …
    pub options: BTreeMap<String, String>,
    /// `auto`, `plain` or `io_uring`
    pub wal_writer: Option<WalWriterKind>,
    pub segment_bytes: Option<u64>,
    pub tail_bytes_max: Option<u64>,
    pub tier_bytes: Option<u64>,
    pub tier_age_ms: Option<u64>,
}

/// Bounds a user may move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsConfig {
    pub sql_memory_bytes: Option<u64>,
    pub sql_rows_max: Option<u64>,
    pub sql_timeout_ms: Option<u64>,
}

/// What the command line of `serve` says; each beats file and environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub listen: Option<String>,
    pub http: Option<String>,
    pub data_dir: Option<PathBuf>,
}

/// Why there is no configuration: one line per complaint, each with its place.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{}", lines.join("\n"))]
pub struct ConfigError {
    pub lines: Vec<String>,
}

impl ConfigError {
    fn one(line: String) -> ConfigError {
        ConfigError { lines: vec![line] }
    }
}

/// Reads the file if there is one and lays environment and flags over it.
pub fn load(
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let file = match &overrides.config {
        Some(path) => read(path)?,
        None => FileConfig::default(),
    };
    resolve(file, overrides, env)
}

fn read(path: &Path) -> Result<FileConfig, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError::one(format!(
            "cannot read the config file {}: {error}; check the path given with --config",
            path.display()
        ))
    })?;
    FileConfig::parse(&path.display().to_string(), &text).map_err(|lines| ConfigError { lines })
}

fn resolve(
    file: FileConfig,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let mut lines = Vec::new();
    let mut address =
        |flag: &Option<String>, name: &str, file: Option<SocketAddr>, default: &str| {
            let (text, source) = match (flag, env(name), file) {
                (Some(text), _, _) => (text.clone(), format!("--{}", flag_name(name))),
                (None, Some(text), _) => (text, name.to_string()),
                (None, None, Some(address)) => return Some(address),
                (None, None, None) => (default.to_string(), "the default".to_string()),
            };
            match parse_address(&text) {
                Ok(address) => Some(address),
                Err(why) => {
                    lines.push(format!("{source}: {why}"));
                    None
                }
            }
        };
    let listen = address(
        &overrides.listen,
        "RUSTMQ_LISTEN",
        file.listen,
        LISTEN_DEFAULT,
    );
    let http = address(&overrides.http, "RUSTMQ_HTTP", file.http, HTTP_DEFAULT);
    let data_dir = overrides
        .data_dir
        .clone()
        .or_else(|| env("RUSTMQ_DATA_DIR").map(PathBuf::from))
        .or(file.data_dir)
        .or_else(|| data_dir_default(env));
    if data_dir.is_none() {
        lines.push(
            "no data directory: HOME and XDG_DATA_HOME are not set; give one with --data-dir"
                .to_string(),
        );
    }
    let mut storage = file.storage;
    if let Some(url) = env("RUSTMQ_STORAGE_URL") {
        match check_url(&url) {
            Ok(()) => storage.url = Some(url),
            Err(why) => lines.push(format!("RUSTMQ_STORAGE_URL: {why}")),
        }
    }
    match (listen, http, data_dir) {
        (Some(listen), Some(http), Some(data_dir)) if lines.is_empty() => Ok(Config {
            listen,
            http,
            data_dir,
            storage,
            limits: file.limits,
        }),
        _ => Err(ConfigError { lines }),
    }
}

fn flag_name(variable: &str) -> &'static str {
    if variable == "RUSTMQ_HTTP" {
        "http"
    } else {
        "listen"
    }
}

/// `$XDG_DATA_HOME/rustmq`, else `~/.local/share/rustmq`.
pub fn data_dir_default(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local").join("share")))
        .map(|base| base.join("rustmq"))
}

/// `IP:PORT` or `localhost:PORT`; a name would need a resolver and could change under us.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_string(),
    };
    numeric.parse::<SocketAddr>().map_err(|_| {
        format!("`{text}` is not an address; write IP:PORT, for example 127.0.0.1:7420")
    })
}

pub(crate) fn check_url(url: &str) -> Result<(), String> {
    let known = ["file://", "s3://", "gs://"];
    if known.iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(());
    }
    Err(format!(
        "`{url}` is not a storage URL; it starts with file://, s3:// or gs://"
    ))
}

/// How long a clean stop may take before the process ends anyway.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);
