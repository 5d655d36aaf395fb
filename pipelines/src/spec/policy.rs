//! What a pipeline file says of batches and of rows that fail: `policy`, and a node's `on-error`.
//!
//! Called by: `types`, whose part it is, and all that read those. Invariants: those of `types`. Defaults are
//! those of `stage::build`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::types::{At, Millis, Size};

#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    pub batch: BatchPolicy,
    #[serde(default)]
    pub on_error: OnError,
}

#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchPolicy {
    /// Most rows of a batch, at most 100000. Without it 1000 are enough, and a lane that is behind may take
    /// up to 16000 at once where no module keeps state, may ask other services or has no second try.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub rows: Option<At<u32>>,
    /// Most bytes of keys, values and headers of a batch: 1MiB, at most 16MiB.
    #[serde(default)]
    pub bytes: Option<At<Size>>,
    /// How long a lane waits until that much is there: 5ms, at most 1m.
    #[serde(default)]
    pub wait: Option<At<Millis>>,
}

#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnError {
    #[serde(default)]
    pub retry: Option<Retry>,
    #[serde(default)]
    pub then: Option<Then>,
}

#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries after the first: 3, at most 1000.
    #[serde(default)]
    pub max: Option<u32>,
    /// The wait before the second try, doubled with each: 100ms.
    #[serde(default)]
    pub backoff: Option<Millis>,
    /// The longest wait: 5s.
    #[serde(default)]
    pub cap: Option<Millis>,
}

/// What happens with rows that cannot be processed.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    Stop,
    Drop,
    DeadLetter(At<String>),
}

impl JsonSchema for Then {
    fn schema_name() -> Cow<'static, str> {
        "Then".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "enum": ["stop", "drop"] },
                {
                    "type": "object",
                    "properties": { "dead-letter": { "type": "string" } },
                    "required": ["dead-letter"],
                    "additionalProperties": false
                }
            ]
        })
    }
}
