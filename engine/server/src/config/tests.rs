//! Config: file, environment and flags in, a `Config` or every complaint out.

use std::path::PathBuf;

use crate::egress::Source;

use super::keys::{self, KEYS, Takes};
use super::{FileConfig, Overrides, resolve};

fn check_file(text: &str, expect: &[&str]) {
    let got = match FileConfig::parse("node.toml", text) {
        Ok(_) => Vec::new(),
        Err(lines) => lines,
    };
    assert_eq!(got, expect, "for {text}");
}

#[test]
fn a_full_file_is_read() {
    let text = r#"
listen = "127.0.0.1:0"
http = "localhost:7481"
data_dir = "/tmp/x"
[storage]
url = "s3://bucket/prefix"
tier_bytes = "8MiB"
tier_age_ms = 1_000
[storage.options]
aws_region = "eu-central-1"
[tier]
bytes_per_s = 0
backoff_ms_max = "2m"
[compaction]
bytes_min = "16KiB"
dirty_percent = 30
[cache]
disk_bytes = "2TiB"
dir = "/mnt/nvme"
low_percent = 75
[limits]
memory_bytes = 0x4000_0000
sql_rows_max = 10
"#;
    let config = FileConfig::parse("node.toml", text).expect("valid");
    assert_eq!(config.listen, Some("127.0.0.1:0".parse().unwrap()));
    assert_eq!(config.http, Some("127.0.0.1:7481".parse().unwrap()));
    assert_eq!(config.storage.tier_bytes, Some(8 << 20));
    assert_eq!(config.storage.tier_age_ms, Some(1000));
    assert_eq!(config.storage.options["aws_region"], "eu-central-1");
    assert_eq!(config.limits.sql_rows_max, Some(10));
    assert_eq!(config.limits.memory_bytes, Some(1 << 30));
    assert_eq!(config.tier.bytes_per_s, Some(0));
    assert_eq!(config.tier.backoff_ms_max, Some(120_000));
    assert_eq!(config.compaction.bytes_min, Some(16 << 10));
    assert_eq!(config.compaction.dirty_percent, Some(30));
    assert_eq!(config.cache.disk_bytes, Some(2 << 40));
    assert_eq!(config.cache.dir, Some(PathBuf::from("/mnt/nvme")));
    assert_eq!(config.cache.low_percent, Some(75));
}

#[test]
fn every_key_is_read_from_the_file_and_the_environment_and_stands_in_the_help() {
    let help = keys::help();
    for key in KEYS {
        assert!(help.contains(&format!("  {} ", key.name)), "{}", key.name);
        let value = match key.takes {
            Takes::Address(_) => "127.0.0.1:9",
            Takes::Path(_) => "/x",
            Takes::Url(_) => "s3://x",
            Takes::Options(_) => continue,
            Takes::Writer(_) => "io_uring",
            Takes::Bytes(_) | Takes::BytesOrNone(_) => "64MiB",
            Takes::Millis(_) => "10s",
            Takes::Count(_) | Takes::CountOrNone(_) | Takes::Percent(_) => "7",
            Takes::Keys(_) => {
                "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
            }
            Takes::Networks(_) => "10.0.0.0/8",
            Takes::Flag(_) => "true",
        };
        let written = match key.takes {
            Takes::Count(_) | Takes::CountOrNone(_) | Takes::Percent(_) | Takes::Flag(_) => {
                value.to_string()
            }
            Takes::Keys(_) | Takes::Networks(_) => format!("[\"{value}\"]"),
            _ => format!("\"{value}\""),
        };
        let section = match key.section {
            "" => String::new(),
            section => format!("[{section}]\n"),
        };
        let text = format!("{section}{} = {written}\n", key.name);
        let file = FileConfig::parse("f", &text).expect("it is read");
        assert_ne!(file, FileConfig::default(), "{text}");
        let variable = key.variable();
        let env = |name: &str| match name {
            "HOME" => Some("/root".to_string()),
            _ => (name == variable).then(|| value.to_string()),
        };
        let by_file = resolve(file, &Overrides::default(), &|name| {
            (name == "HOME").then(|| "/root".to_string())
        });
        let by_env = resolve(FileConfig::default(), &Overrides::default(), &env);
        assert_eq!(by_file, by_env, "{variable}");
        let wrong = |name: &str| (name == variable).then(|| "?".to_string());
        let wrong = resolve(FileConfig::default(), &Overrides::default(), &wrong);
        let may_be_anything = matches!(key.takes, Takes::Path(_));
        let named = wrong.is_err_and(|e| e.lines.iter().any(|line| line.starts_with(&variable)));
        assert!(named || may_be_anything, "{variable}");
    }
}

#[test]
fn secrets_are_named_and_their_values_do_not_stand_in_the_file() {
    let text = "[secrets]\nweather = { env = \"WEATHER\", hosts = [\"*.weather.example\"] }\n\
                [secrets.other]\nfile = \"/run/other\"\nhosts = [\"a.example\", \"10.0.0.1\"]\n";
    let file = FileConfig::parse("f", text).expect("it is read");
    let weather = &file.secrets.0["weather"];
    assert_eq!(weather.source, Source::Env("WEATHER".into()));
    assert_eq!(weather.hosts[0].to_string(), "*.weather.example");
    let other = &file.secrets.0["other"];
    assert_eq!(other.source, Source::File("/run/other".into()));
    assert_eq!(other.hosts.len(), 2);
    let home = |name: &str| (name == "HOME").then(|| "/x".to_string());
    let config = resolve(file.clone(), &Overrides::default(), &home);
    assert_eq!(config.expect("a configuration").secrets, file.secrets);
    check_file(
        "[secrets]\na = \"s3cret\"\nb = { env = \"B\" }\nc = { fil = \"x\", hosts = [\"a b\"] }\n",
        &[
            "node.toml:2:5: error: the secret `a` is a table: { env = \"VARIABLE\", hosts = \
             [\"api.example.com\"] }, or `file` for `env`; its value does not stand here",
            "node.toml:3:1: error: the secret `b` needs `hosts`, where it may be sent, and one of `env` and \
             `file`",
            "node.toml:4:1: error: the secret `c` needs `hosts`, where it may be sent, and one of `env` and \
             `file`",
            "node.toml:4:7: error: unknown key `fil`; known here: env, file, hosts",
            "node.toml:4:26: error: `a b` is not a host: invalid international domain name",
        ],
    );
}

#[test]
fn every_complaint_has_its_place() {
    check_file(
        "listne = \"127.0.0.1:1\"\n[storage]\n  urll = 1\n  tier_bytes = \"8 cats\"\n",
        &[
            "node.toml:1:1: error: unknown key `listne`; known here: listen, http, data_dir, \
             storage, tier, compaction, cache, limits, modules, secrets",
            "node.toml:3:3: error: unknown key `storage.urll`; known here: url, options, \
             wal_writer, segment_bytes, wal_bytes_max, tail_bytes_max, queue_bytes_max, \
             tier_bytes, tier_age_ms",
            "node.toml:4:16: error: `8 cats` is not a size; write bytes, or a number with KiB, \
             MiB, GiB, TiB",
        ],
    );
    check_file(
        "[storage]\nwal_writer = \"fast\"\n",
        &["node.toml:2:14: error: `fast` is not a WAL writer; known: auto, plain, io_uring"],
    );
    check_file(
        "http = 7\n",
        &["node.toml:1:8: error: expected a string, found integer"],
    );
    check_file(
        "http = \"nowhere\"\n",
        &[
            "node.toml:1:8: error: `nowhere` is not an address; write IP:PORT, for example \
           127.0.0.1:7420",
        ],
    );
    check_file(
        "[limits]\nsql_rows_max = 0\n",
        &["node.toml:2:16: error: expected a whole number above 0"],
    );
    check_file(
        "[tier]\ntick_ms = \"5 parsecs\"\n[cache]\nlow_percent = 101\ndisk_bytes = true\n",
        &[
            "node.toml:2:11: error: `5 parsecs` is not a time; write milliseconds, or a number with \
             ms, s, m, h, d",
            "node.toml:4:15: error: expected a percentage, 1 to 100",
            "node.toml:5:14: error: expected a whole number, found boolean",
        ],
    );
    check_file(
        "tier = 1\n",
        &["node.toml:1:8: error: expected a table, found integer"],
    );
    check_file(
        "[storage]\nurl = \"ftp://x\"\n",
        &[
            "node.toml:2:7: error: `ftp://x` is not a storage URL; it starts with file://, s3:// or \
         gs://",
        ],
    );
    assert!(FileConfig::parse("node.toml", "listen = \n").is_err());
}

#[test]
fn flags_beat_environment_beats_file() {
    let file =
        FileConfig::parse("f", "listen = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\n").unwrap();
    let env = |name: &str| match name {
        "RUSTMQ_LISTEN" => Some("127.0.0.1:3".to_string()),
        "RUSTMQ_HTTP" => Some("127.0.0.1:4".to_string()),
        "XDG_DATA_HOME" => Some("/data".to_string()),
        _ => None,
    };
    let flags = Overrides {
        listen: Some("127.0.0.1:5".to_string()),
        ..Overrides::default()
    };
    let config = resolve(file, &flags, &env).unwrap();
    assert_eq!(config.listen.port(), 5);
    assert_eq!(config.http.port(), 4);
    assert_eq!(config.data_dir, PathBuf::from("/data/rustmq"));
}

#[test]
fn a_wrong_flag_names_itself() {
    let flags = Overrides {
        http: Some("x".to_string()),
        ..Overrides::default()
    };
    let env = |name: &str| (name == "HOME").then(|| "/root".to_string());
    let error = resolve(FileConfig::default(), &flags, &env).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("--http: `x` is not an address"),
        "{error}"
    );
    let flags = Overrides {
        memory_bytes: Some("lots".to_string()),
        disk_bytes: Some("1GiB".to_string()),
        ..Overrides::default()
    };
    let error = resolve(FileConfig::default(), &flags, &env).unwrap_err();
    assert_eq!(error.lines.len(), 1, "{error}");
    assert!(
        error.lines[0].starts_with("--memory-bytes: `lots` is not a size"),
        "{error}"
    );
}
