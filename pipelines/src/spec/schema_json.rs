//! The JSON Schema of a pipeline file, generated from the types.
//!
//! Called by: the command line (`pipeline lint --schema`), docs. Invariant: its keys are those
//! the reader accepts; the test below holds the two together.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::types::Spec;

/// JSON Schema, draft 2020-12, for editors.
pub fn json_schema() -> Value {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Spec>()
        .to_value()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::nodes::KINDS;
    use super::super::parse::{KEYS, VALUE_KEYS};
    use super::*;

    fn keys(schema: &Value) -> BTreeSet<&str> {
        let properties = schema["properties"].as_object().expect("an object type");
        assert_eq!(schema["additionalProperties"], false, "{schema}");
        properties.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_keys_are_those_the_reader_accepts() {
        let root = json_schema();
        for (name, allowed) in KEYS {
            let schema = if *name == "Pipeline" {
                &root
            } else {
                &root["$defs"][*name]
            };
            assert!(schema.is_object(), "{name} is in the schema:\n{root:#}");
            assert_eq!(keys(schema), allowed.iter().copied().collect(), "{name}");
        }
        let value = &root["$defs"]["Value"]["anyOf"][1];
        assert_eq!(keys(value), VALUE_KEYS.iter().copied().collect());
        let nodes = root["$defs"]["Node"]["oneOf"]
            .as_array()
            .expect("one schema per kind");
        assert_eq!(nodes.len(), KINDS.len());
        for (schema, (kind, allowed)) in nodes.iter().zip(KINDS) {
            let reference = schema["$ref"].as_str();
            let def = reference
                .and_then(|r| r.rsplit('/').next())
                .map(|d| &root["$defs"][d]);
            let kind_key = &schema["properties"]["kind"]["const"];
            assert_eq!(kind_key, kind);
            let mut found: BTreeSet<&str> = def.map(keys).unwrap_or_else(|| keys(schema));
            found.insert("kind");
            assert_eq!(found, allowed.iter().copied().collect(), "{kind}");
        }
    }
}
