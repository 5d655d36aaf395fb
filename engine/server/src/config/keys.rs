//! Every key of the configuration, once: its name, what it takes, what it is for.
//!
//! Called by: `file` (the TOML tree), `resolve` (environment and flags), `serve --help`.
//! Invariants: what the help lists is what is read, from the file and as `RUSTMQ_SECTION_KEY`;
//! units stand in the names, and sizes and times may be written with a unit.
//! Refuses: values that do not parse, sizes and counts of 0 where 0 means nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use storage::{StoreOptions, WalWriterKind};
use wasm::PublicKey;
use wasm::http::address::Network;

use super::{FileConfig, check_url, parse_address};

/// Where a key's value goes in the configuration.
type At<T> = fn(&mut FileConfig) -> &mut Option<T>;

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Address(At<SocketAddr>),
    Path(At<PathBuf>),
    Url(At<String>),
    /// A table of strings; only in the file.
    Options(fn(&mut FileConfig) -> &mut StoreOptions),
    Writer(At<WalWriterKind>),
    /// Bytes: a number or `"64MiB"`.
    Bytes(At<u64>),
    /// The same, and 0 means without.
    BytesOrNone(At<u64>),
    /// Milliseconds: a number or `"10s"`.
    Millis(At<u64>),
    Count(At<u64>),
    CountOrNone(At<u64>),
    Percent(At<u64>),
    /// An array of public keys; in the environment with commas between.
    Keys(At<Vec<PublicKey>>),
    /// An array of networks; in the environment with commas between.
    Networks(At<Vec<Network>>),
    Flag(At<bool>),
}

pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub takes: Takes,
    /// One line for the help, with the default in brackets.
    pub help: &'static str,
}

/// A value as it was found, in the file or the environment.
pub(super) enum Given<'a> {
    Text(&'a str),
    /// A whole number of the file; none if it does not fit.
    Whole(Option<u64>),
    Flag(bool),
    /// An array of strings.
    List(Vec<&'a str>),
    /// Text that may stand for anything: a flag or a variable.
    Loose(&'a str),
    /// Something else, named by its type.
    Other(&'a str),
}

macro_rules! keys {
    ($($section:literal { $($name:ident: $takes:ident($($field:ident).+), $help:expr;)* })*) => {
        &[$($(Key {
            section: $section,
            name: stringify!($name),
            takes: Takes::$takes(|config| &mut config.$($field).+),
            help: $help,
        },)*)*]
    };
}

/// The keys by section, in the order of the help.
pub(super) const KEYS: &[Key] = keys! {
    "" {
        listen: Address(listen), "address of the native door, QUIC and TCP [127.0.0.1:7420]";
        http: Address(http), "address of the HTTP door [127.0.0.1:7480]";
        data_dir: Path(data_dir), "where everything is kept [~/.local/share/rustmq]";
    }
    "storage" {
        url: Url(storage.url), "where cold data is kept: file://, s3:// or gs:// [DATA_DIR/tier]";
        options: Options(storage.options),
            "a table of strings for the object store: aws_region, aws_endpoint, …";
        wal_writer: Writer(storage.wal_writer),
            "how the log is written: auto, plain or io_uring [auto: plain]";
        segment_bytes: Bytes(storage.segment_bytes), "size of a file of the log [64MiB]";
        wal_bytes_max: Bytes(storage.wal_bytes_max),
            "above it partitions are tiered early, so that the log gets smaller [1GiB]";
        tail_bytes_max: Bytes(storage.tail_bytes_max),
            "recent batches in memory, over all partitions [1/8 of limits.memory_bytes]";
        queue_bytes_max: Bytes(storage.queue_bytes_max),
            "batches that wait for the log's writer [1/32 of limits.memory_bytes]";
        tier_bytes: Bytes(storage.tier_bytes), "size of an object that goes to the tier [32MiB]";
        tier_age_ms: Millis(storage.tier_age_ms), "age at which smaller ones go too [10m]";
    }
    "tier" {
        uploads_max: Count(tier.uploads_max), "objects that go to the tier at once [4]";
        bytes_per_s: BytesOrNone(tier.bytes_per_s),
            "most bytes a second that go to the tier; 0: no limit [0]";
        multipart_bytes: Bytes(tier.multipart_bytes), "larger objects go in parts [16MiB]";
        backoff_ms: Millis(tier.backoff_ms), "first pause after a failure [100ms]";
        backoff_ms_max: Millis(tier.backoff_ms_max), "longest pause after failures [1m]";
        merge_objects_min: CountOrNone(tier.merge_objects_min),
            "so many small neighbours become one object; 0: never [8]";
        tick_ms: Millis(tier.tick_ms), "how often is looked for what is due [1s]";
        collect_ms: Millis(tier.collect_ms), "how often is looked for orphans [10m]";
        orphan_grace_ms: Millis(tier.orphan_grace_ms), "how old an orphan must be to go [1h]";
    }
    "compaction" {
        bytes_min: Bytes(compaction.bytes_min),
            "new bytes of a partition that are worth a pass of compaction [1MiB]";
        age_ms: Millis(compaction.age_ms), "age at which fewer are, too [10m]";
        dirty_percent: Percent(compaction.dirty_percent),
            "if they are so many per cent of all [50]";
        keys_bytes_max: Bytes(compaction.keys_bytes_max),
            "memory for the keys of a pass; with more keys it takes several [64MiB]";
    }
    "cache" {
        memory_bytes: BytesOrNone(cache.memory_bytes),
            "blocks of the tier in memory [1/16 of limits.memory_bytes]";
        disk_bytes: BytesOrNone(cache.disk_bytes),
            "the same on disk; 0: none [4GiB for s3 and gs, at most 1/4 of limits.disk_bytes; else 0]";
        dir: Path(cache.dir), "where, best on a disk of its own [DATA_DIR/cache]";
        age_ms_max: Millis(cache.age_ms_max), "how old a block may become [24h]";
        low_percent: Percent(cache.low_percent),
            "what is full is emptied down to so many per cent [90]";
    }
    "limits" {
        memory_bytes: Bytes(limits.memory_bytes),
            "what tail, cache, queue, SQL and modules share [half of the machine's, at most 2GiB]";
        disk_bytes: BytesOrNone(limits.disk_bytes),
            "log and cache together; beyond it producers hear disk-full; 0: no limit [0]";
        descriptors: Count(limits.descriptors),
            "files and sockets that may be open [what the system allows]";
        sql_memory_bytes: Bytes(limits.sql_memory_bytes),
            "memory of all queries [1/4 of limits.memory_bytes]";
        sql_rows_max: Count(limits.sql_rows_max), "rows a query may answer [10000000]";
        sql_timeout_ms: Millis(limits.sql_timeout_ms), "time a query may take [5m]";
        module_memory_bytes: Bytes(limits.module_memory_bytes),
            "memory of all running modules [1/2 of limits.memory_bytes]";
    }
    "modules" {
        trust: Keys(modules.trust),
            "public keys of `rustmq module keygen` whose signature a module must have [none]";
        require_signed: Flag(modules.require_signed),
            "refuse modules that none of them signed; false: only log them [true with trust]";
        http_networks: Networks(modules.http_networks),
            "networks that are not public and that grants of modules may reach: 127.0.0.0/8, … [none]";
    }
};

impl Key {
    /// The environment variable that says the same.
    pub(super) fn variable(&self) -> String {
        let name = self.name.to_uppercase();
        if self.section.is_empty() {
            return format!("RUSTMQ_{name}");
        }
        format!("RUSTMQ_{}_{name}", self.section.to_uppercase())
    }

    /// Puts a value in its place, or says what was expected.
    pub(super) fn set(&self, config: &mut FileConfig, given: &Given<'_>) -> Result<(), String> {
        match self.takes {
            Takes::Address(at) => *at(config) = Some(parse_address(text(given)?)?),
            Takes::Path(at) => *at(config) = Some(PathBuf::from(text(given)?)),
            Takes::Url(at) => {
                let url = text(given)?;
                check_url(url)?;
                *at(config) = Some(url.to_string());
            }
            Takes::Writer(at) => *at(config) = Some(text(given)?.parse()?),
            Takes::Options(_) => return Err(expected("a table", given)),
            Takes::Bytes(at) => *at(config) = Some(above_0(unit(given, parse_bytes, SIZE)?)?),
            Takes::BytesOrNone(at) => *at(config) = Some(unit(given, parse_bytes, SIZE)?),
            Takes::Millis(at) => *at(config) = Some(above_0(unit(given, parse_millis, TIME)?)?),
            Takes::Count(at) => *at(config) = Some(above_0(whole(given)?)?),
            Takes::CountOrNone(at) => *at(config) = Some(whole(given)?),
            Takes::Percent(at) => {
                let percent = above_0(whole(given)?)?;
                if percent > 100 {
                    return Err("expected a percentage, 1 to 100".to_string());
                }
                *at(config) = Some(percent);
            }
            Takes::Keys(at) => *at(config) = Some(list(given, "public keys")?),
            Takes::Networks(at) => *at(config) = Some(list(given, "networks")?),
            Takes::Flag(at) => *at(config) = Some(flag(given)?),
        }
        Ok(())
    }
}

const SIZE: &str = "is not a size; write bytes, or a number with KiB, MiB, GiB, TiB";
const TIME: &str = "is not a time; write milliseconds, or a number with ms, s, m, h, d";
const ABOVE_0: &str = "expected a whole number above 0";

fn expected(what: &str, given: &Given<'_>) -> String {
    let found = match given {
        Given::Text(_) | Given::Loose(_) => "string",
        Given::Whole(_) => "integer",
        Given::Flag(_) => "boolean",
        Given::List(_) => "array",
        Given::Other(found) => found,
    };
    format!("expected {what}, found {found}")
}

fn text<'a>(given: &Given<'a>) -> Result<&'a str, String> {
    match given {
        Given::Text(text) | Given::Loose(text) => Ok(text),
        _ => Err(expected("a string", given)),
    }
}

fn above_0(number: u64) -> Result<u64, String> {
    if number == 0 {
        return Err(ABOVE_0.to_string());
    }
    Ok(number)
}

fn whole(given: &Given<'_>) -> Result<u64, String> {
    match given {
        Given::Whole(number) => number.ok_or_else(|| ABOVE_0.to_string()),
        Given::Loose(text) => text
            .parse()
            .map_err(|_| format!("`{text}` is not a whole number")),
        _ => Err(expected("a whole number", given)),
    }
}

fn flag(given: &Given<'_>) -> Result<bool, String> {
    match given {
        Given::Flag(flag) => Ok(*flag),
        Given::Loose("true") => Ok(true),
        Given::Loose("false") => Ok(false),
        _ => Err(expected("true or false", given)),
    }
}

fn list<T: FromStr<Err = String>>(given: &Given<'_>, what: &str) -> Result<Vec<T>, String> {
    let texts = match given {
        Given::List(texts) => texts.clone(),
        Given::Loose(text) => text.split(',').collect(),
        _ => return Err(expected(&format!("an array of {what}"), given)),
    };
    texts.into_iter().map(str::parse).collect()
}

/// A number, or text with a unit.
fn unit(given: &Given<'_>, parse: fn(&str) -> Option<u64>, otherwise: &str) -> Result<u64, String> {
    match given {
        Given::Text(text) | Given::Loose(text) => {
            parse(text).ok_or_else(|| format!("`{text}` {otherwise}"))
        }
        _ => whole(given),
    }
}

pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

pub fn parse_millis(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let is_other = |c: char| !c.is_ascii_digit();
    let (number, unit) = text.split_at(text.find(is_other).unwrap_or(text.len()));
    Some((number.parse().ok()?, unit.trim()))
}

/// The keys as `serve --help` lists them.
pub fn help() -> String {
    let mut help = String::from(
        "Keys of the config file. Each is also a variable RUSTMQ_SECTION_KEY (RUSTMQ_LISTEN,\n\
         RUSTMQ_TIER_UPLOADS_MAX); a flag beats the variable, the variable the file. `_bytes` are\n\
         numbers or \"64MiB\", `_ms` numbers or \"10s\".\n",
    );
    let width = KEYS.iter().map(|key| key.name.len()).max().unwrap_or(0);
    let mut section = None;
    for key in KEYS {
        if section != Some(key.section) {
            section = Some(key.section);
            help.push('\n');
            if !key.section.is_empty() {
                help.push_str(&format!("  [{}]\n", key.section));
            }
        }
        help.push_str(&format!("  {:width$}  {}\n", key.name, key.help));
    }
    help.push_str(
        "\n  [secrets], only in the file: what grants of modules put into headers, by name\n  \
         NAME = { env = \"VARIABLE\", hosts = [\"api.example.com\"] }, or file = \"PATH\" for env\n",
    );
    help
}
