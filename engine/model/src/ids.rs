//! Names and numbers of things: topics, partitions, producers, shards, module digests.
//!
//! Called by every room. Invariants: ids are small and `Copy`; a topic id is never used twice;
//! a digest is the SHA-256 of the bytes it names. Refuses names that could leave a folder or
//! hide as internal.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::limits::{PIPELINE_NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX};

/// Position of a record in its partition, from 0.
pub type Offset = u64;

/// A topic, by the number the catalog gave it. Never used again after the topic is deleted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct TopicId(pub u32);

impl TopicId {
    /// `_offsets`: the commits of consumer groups. One partition, always there.
    pub const OFFSETS: TopicId = TopicId(0);
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One partition of one topic. Shown as `topic/index`, for example `3/0`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct PartitionId {
    pub topic: TopicId,
    pub index: u32,
}

impl PartitionId {
    /// Partition `index` of `topic`.
    pub const fn new(topic: TopicId, index: u32) -> PartitionId {
        PartitionId { topic, index }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

/// Partitions by id. Looked up several times a batch, and only ids that the catalog gave are in
/// it, so the hash is a quick one.
pub type PartitionMap<T> = HashMap<PartitionId, T, foldhash::fast::RandomState>;

/// A producer that numbers its batches, so that a retry is not written twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct ProducerId(pub u64);

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A broker, by the number the catalog gave it at its first start. Never used again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct BrokerId(pub u32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One life of a broker, from a start to the next: what an earlier life still says is refused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct BrokerLife {
    pub broker: BrokerId,
    /// Counts the starts of this broker, from 1.
    pub incarnation: u64,
}

/// A set of partitions that is written atomically and later replicated together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The shard every catalog begins with.
    pub const FIRST: ShardId = ShardId(0);
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Counts the leaders of a shard; what carries an older one is refused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct ShardEpoch(pub u32);

impl fmt::Display for ShardEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// SHA-256 of a module's bytes, written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The 64 hex digits alone, as used in object names.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: write `sha256:` and 64 hex digits")]
pub struct DigestError {
    pub text: String,
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let bad = || DigestError {
            text: text.chars().take(80).collect(),
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?.as_bytes();
        if hex.len() != 64 {
            return Err(bad());
        }
        let digit = |c: u8| (c as char).to_digit(16).ok_or_else(bad);
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Digest(out))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a {what} name must not be empty")]
    Empty { what: &'static str },
    #[error("a {what} name has at most {max} characters; this one has {length}")]
    TooLong {
        what: &'static str,
        length: usize,
        max: usize,
    },
    #[error("{what} name `{name}` has {bad:?} at position {position}; allowed are {allowed}")]
    Character {
        what: &'static str,
        name: String,
        bad: char,
        /// Counted from 1, in characters.
        position: usize,
        allowed: &'static str,
    },
    #[error("topic name `{name}` starts with `_`; such names are internal, choose another")]
    Internal { name: String },
    #[error("`{name}` cannot be a topic name: it would mean a folder; choose another")]
    Folder { name: String },
}

/// A name users may give to a topic: `[A-Za-z0-9._-]{1,249}`, not `.` or `..`, not starting
/// with `_`.
pub fn topic_name_check(name: &str) -> Result<(), NameError> {
    topic_name_check_internal(name)?;
    if name.starts_with('_') {
        return Err(NameError::Internal {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// As [`topic_name_check`], but a leading `_` is allowed: for topics the platform makes.
pub fn topic_name_check_internal(name: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    check(
        "topic",
        name,
        TOPIC_NAME_BYTES_MAX,
        "letters, digits, `.`, `_` and `-`",
        allowed,
    )?;
    if name == "." || name == ".." {
        return Err(NameError::Folder {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// A name for a pipeline: `[a-z0-9-]{1,100}`.
pub fn pipeline_name_check(name: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    check(
        "pipeline",
        name,
        PIPELINE_NAME_BYTES_MAX,
        "a-z, 0-9 and `-`",
        allowed,
    )
}

fn check(
    what: &'static str,
    name: &str,
    max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if let Some((index, bad)) = name.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
        let name = name.chars().take(max).collect();
        return Err(NameError::Character {
            what,
            name,
            bad,
            position: index + 1,
            allowed,
        });
    }
    if name.len() > max {
        return Err(NameError::TooLong {
            what,
            length: name.len(),
            max,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_name(name: &str, expected: &str) {
        let got = match topic_name_check(name) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "name {name:?}");
    }

    #[test]
    fn topic_names() {
        let allowed = "allowed are letters, digits, `.`, `_` and `-`";
        check_name("flights", "ok");
        check_name("a.B_c-9", "ok");
        check_name("...", "ok");
        check_name(&"x".repeat(249), "ok");
        check_name("", "a topic name must not be empty");
        check_name(
            &"x".repeat(250),
            "a topic name has at most 249 characters; this one has 250",
        );
        check_name(
            "../x",
            &format!("topic name `../x` has '/' at position 3; {allowed}"),
        );
        check_name(
            "für",
            &format!("topic name `für` has 'ü' at position 2; {allowed}"),
        );
        check_name(
            "_offsets",
            "topic name `_offsets` starts with `_`; such names are internal, choose another",
        );
        check_name(
            "..",
            "`..` cannot be a topic name: it would mean a folder; choose another",
        );
        assert_eq!(topic_name_check_internal("_offsets"), Ok(()));
    }

    #[test]
    fn pipeline_names() {
        assert_eq!(pipeline_name_check("flights-2"), Ok(()));
        assert_eq!(
            pipeline_name_check("Flights").map_err(|e| e.to_string()),
            Err(
                "pipeline name `Flights` has 'F' at position 1; allowed are a-z, 0-9 and `-`"
                    .to_owned()
            )
        );
    }

    #[test]
    fn digest_text_round_trip() {
        let digest = Digest::of(b"abc");
        // NIST FIPS 180-2, appendix B.1.
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>(), Ok(digest));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        for bad in [
            "",
            "sha256:",
            "md5:00",
            &text[..70],
            &text.replace("ba", "xy"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(
            format!("sha256:{}", "é".repeat(32))
                .parse::<Digest>()
                .is_err()
        );
    }

    #[test]
    fn partition_is_shown_as_topic_and_index() {
        assert_eq!(PartitionId::new(TopicId(3), 0).to_string(), "3/0");
    }
}
