//! What a node is told: the command line, the environment, a TOML file and the defaults, in that
//! order of weight, brought together into one checked [`Config`].
//!
//! Called by: `cli::serve`. Calls: `file` (the TOML tree with lines and columns).
//! Invariants: every key of the file is known or the file is refused, and all complaints are
//! reported, not the first; a `Config` that exists has passed its checks.
//! Refuses: nothing is guessed: a value that does not parse is an error that names its source.

mod file;
pub mod keys;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use file::FileConfig;
use keys::{Given, KEYS, Takes};
use storage::{StoreOptions, WalWriterKind};

use crate::egress::Secrets;

/// Where the node listens unless it is told otherwise: this machine only.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);
/// Where the HTTP door listens unless it is told otherwise: this machine only.
pub const HTTP_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);

/// A checked configuration of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub data_dir: PathBuf,
    pub storage: StorageConfig,
    pub tier: TierConfig,
    pub compaction: CompactionConfig,
    pub cache: CacheConfig,
    pub limits: LimitsConfig,
    pub modules: ModulesConfig,
    pub secrets: Secrets,
}

/// The log, and where cold data is kept. `None` is the default everywhere here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageConfig {
    /// `file://`, `s3://` or `gs://`; without it a folder inside the data directory
    pub url: Option<String>,
    /// handed to the object store as they are: endpoint, region, keys, …
    pub options: StoreOptions,
    /// `auto`, `plain` or `io_uring`
    pub wal_writer: Option<WalWriterKind>,
    pub segment_bytes: Option<u64>,
    pub wal_bytes_max: Option<u64>,
    pub tail_bytes_max: Option<u64>,
    pub queue_bytes_max: Option<u64>,
    pub tier_bytes: Option<u64>,
    pub tier_age_ms: Option<u64>,
}

/// How data goes to the tier.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TierConfig {
    pub uploads_max: Option<u64>,
    pub bytes_per_s: Option<u64>,
    pub multipart_bytes: Option<u64>,
    pub backoff_ms: Option<u64>,
    pub backoff_ms_max: Option<u64>,
    pub merge_objects_min: Option<u64>,
    pub tick_ms: Option<u64>,
    pub collect_ms: Option<u64>,
    pub orphan_grace_ms: Option<u64>,
}

/// When compacted topics are compacted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompactionConfig {
    pub bytes_min: Option<u64>,
    pub age_ms: Option<u64>,
    pub dirty_percent: Option<u64>,
    pub keys_bytes_max: Option<u64>,
}

/// Blocks of the tier that are kept near.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheConfig {
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub dir: Option<PathBuf>,
    pub age_ms_max: Option<u64>,
    pub low_percent: Option<u64>,
}

/// Bounds a user may move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsConfig {
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub descriptors: Option<u64>,
    pub sql_memory_bytes: Option<u64>,
    pub sql_rows_max: Option<u64>,
    pub sql_timeout_ms: Option<u64>,
    pub module_memory_bytes: Option<u64>,
}

/// Whose modules are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModulesConfig {
    pub trust: Option<Vec<wasm::PublicKey>>,
    pub require_signed: Option<bool>,
    /// What of the addresses that are not public their requests may reach.
    pub http_networks: Option<Vec<wasm::http::address::Network>>,
}

impl ModulesConfig {
    /// A list of keys means that one of them is needed, unless it is said otherwise.
    pub fn trust(&self) -> wasm::Trust {
        let keys = self.trust.clone().unwrap_or_default();
        wasm::Trust {
            required: self.require_signed.unwrap_or(!keys.is_empty()),
            keys,
        }
    }
}

/// What the command line of `serve` says; each beats file and environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub listen: Option<String>,
    pub http: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub memory_bytes: Option<String>,
    pub disk_bytes: Option<String>,
}

impl Overrides {
    /// What flags say, with the keys they stand for.
    fn flags(&self) -> [(&'static str, &'static str, &'static str, Option<&str>); 4] {
        [
            ("--listen", "", "listen", self.listen.as_deref()),
            ("--http", "", "http", self.http.as_deref()),
            (
                "--memory-bytes",
                "limits",
                "memory_bytes",
                self.memory_bytes.as_deref(),
            ),
            (
                "--disk-bytes",
                "limits",
                "disk_bytes",
                self.disk_bytes.as_deref(),
            ),
        ]
    }
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
    mut file: FileConfig,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let mut lines = Vec::new();
    for key in KEYS {
        let variable = key.variable();
        if let Takes::Options(_) = key.takes {
            continue;
        }
        if let Some(text) = env(&variable)
            && let Err(why) = key.set(&mut file, &Given::Loose(&text))
        {
            lines.push(format!("{variable}: {why}"));
        }
    }
    for (flag, section, name, text) in overrides.flags() {
        let key = KEYS
            .iter()
            .find(|key| (key.section, key.name) == (section, name));
        if let (Some(key), Some(text)) = (key, text)
            && let Err(why) = key.set(&mut file, &Given::Loose(text))
        {
            lines.push(format!("{flag}: {why}"));
        }
    }
    let trust = file.modules.trust();
    if trust.required && trust.keys.is_empty() {
        lines.push(
            "modules.require_signed is true and modules.trust names no key, so every module would be \
             refused: add the public keys of `rustmq module keygen`"
                .to_string(),
        );
    }
    // a path that is not Unicode is as good as any other
    let data_dir = overrides.data_dir.clone().or(file.data_dir);
    let data_dir = data_dir.or_else(|| data_dir_default(env));
    if data_dir.is_none() {
        lines.push(
            "no data directory: HOME and XDG_DATA_HOME are not set; give one with --data-dir"
                .to_string(),
        );
    }
    let Some(data_dir) = data_dir.filter(|_| lines.is_empty()) else {
        return Err(ConfigError { lines });
    };
    Ok(Config {
        listen: file.listen.unwrap_or(LISTEN_DEFAULT),
        http: file.http.unwrap_or(HTTP_DEFAULT),
        data_dir,
        storage: file.storage,
        tier: file.tier,
        compaction: file.compaction,
        cache: file.cache,
        limits: file.limits,
        modules: file.modules,
        secrets: file.secrets,
    })
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
    let authority = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err("a storage URL holds no keys; give them under [storage.options]".to_owned());
    }
    if known.iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(());
    }
    Err(format!(
        "`{url}` is not a storage URL; it starts with file://, s3:// or gs://"
    ))
}

/// How long a clean stop may take before the process ends anyway.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);
