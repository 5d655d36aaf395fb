//! Files of modules and what they say of themselves, damaged in many ways.
//!
//! Called by `cargo test`. Invariants: `../../fuzz/fuzz_targets/file_body.rs`. Some of the damaged files are
//! still taken and most are not; some params fit and some do not: or they prove nothing.

use rustmq_wasm::{Host, SigningKey, check};
use serde_json::{Map, Value, json};

use crate::body::calls;
use crate::file_body::{self, BREAK, DESCRIBE, EMPTY, section};
use crate::{At, Dice, run};

const KEYWORDS: [&str; 15] = [
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "anyOf",
    "allOf",
];
const TYPES: [&str; 8] = [
    "null", "boolean", "string", "array", "object", "number", "integer", "none",
];
const NAMES: [&str; 4] = ["a", "b", "\u{e4}\"", ""];

impl Dice {
    /// Any JSON, not deep.
    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(4)),
            3 => json!(f64::from(self.below(9)) / 2.0 - 2.0),
            4 => json!(self.one(&NAMES)),
            5 => json!([u64::MAX, 1 << 53][self.below(2) as usize]),
            6 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => self.map(|dice| dice.value(depth - 1)).into(),
        }
    }

    fn map(&mut self, mut value: impl FnMut(&mut Dice) -> Value) -> Map<String, Value> {
        let pairs = (0..self.below(4)).map(|_| (self.one(&NAMES).to_owned(), value(self)));
        pairs.collect()
    }

    /// A schema, or what looks like one.
    fn schema(&mut self, depth: u32) -> Value {
        if depth == 0 || self.below(8) == 0 {
            return self.value(1);
        }
        let mut schema = Map::new();
        for _ in 0..=self.below(3) {
            let keyword = self.one(&KEYWORDS);
            let wanted = match keyword {
                "type" => match self.below(3) {
                    0 => json!([self.one(&TYPES), self.one(&TYPES)]),
                    _ => json!(self.one(&TYPES)),
                },
                "properties" => self.map(|dice| dice.schema(depth - 1)).into(),
                "items" => self.schema(depth - 1),
                "additionalProperties" => match self.below(2) {
                    0 => json!(false),
                    _ => self.schema(depth - 1),
                },
                "anyOf" | "allOf" => (0..self.below(4)).map(|_| self.schema(depth - 1)).collect(),
                "required" => json!([self.one(&NAMES)]),
                "enum" => json!([self.value(1), self.value(1)]),
                "const" => self.value(1),
                _ => json!(self.below(4)),
            };
            schema.insert(keyword.to_owned(), wanted);
        }
        schema.into()
    }

    /// What a module may say of itself, and params.
    fn described(&mut self) -> Vec<u8> {
        let migrates: Vec<u32> = (0..self.below(3)).collect();
        let schema = (self.below(4) > 0).then_some(3);
        let said = json!({
            "name": self.one(&NAMES), "version": "1", "params": self.schema(4),
            "ports": [self.one(&NAMES)], "state_schema": schema, "migrates": migrates, "later": 1,
        });
        let params = self.value(3).to_string();
        [said.to_string().as_bytes(), &[BREAK], params.as_bytes()].concat()
    }

    /// A module that knows many names, and params with many others.
    fn strangers(&mut self) -> Vec<u8> {
        let many = |count: u32, what: &str| -> Map<String, Value> {
            let names = (0..count).map(|number| (format!("{what}{number}"), json!(0)));
            names.collect()
        };
        let known = many(200 + self.below(400), "known");
        let said = json!({"name": "n", "version": "1", "params":
            {"properties": known, "additionalProperties": false}});
        let params = Value::from(many(200 + self.below(400), "other")).to_string();
        [said.to_string().as_bytes(), &[BREAK], params.as_bytes()].concat()
    }

    /// One to four places are no longer what they were.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1) as u32) as usize;
            let byte = self.roll() as u8;
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => {
                    let end = bytes.len().min(at + 16);
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                3 if at < bytes.len() => drop(bytes.remove(at)),
                4 if at < bytes.len() => bytes[at] = self.one(&[0, 1, 0x7f, 0x80, 0xff]),
                5 if at < bytes.len() => bytes[at] ^= 1 << (byte & 7),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => {}
            }
        }
    }
}

/// Files that are modules, of each kind, some signed.
fn seeds() -> Vec<Vec<u8>> {
    let wat = |text: &str| wat::parse_str(text).expect("it is well-formed");
    let nested = wat(r#"(component (core module (func (export "f"))) (component)
        (import "wasi:io/poll@0.2.0" (instance)) (import "x" (func)))"#);
    let core = wat(r#"(module (import "env" "f" (func)) (memory (export "m") 1))"#);
    let mut said = EMPTY.to_vec();
    let text = json!({"name": "n", "version": "1", "params": {"type": "object"}, "ports": ["out"]});
    section::append(&mut said, DESCRIBE, text.to_string().as_bytes());
    let typed = calls::module();
    let made = check::encode(&typed).expect("it is a component");
    let mut seeds = vec![EMPTY.to_vec(), said, nested, core, typed, made];
    let secret = format!("rustmq-secret-ed25519:{}", "08".repeat(32));
    for number in 0..seeds.len() {
        let mut signed = seeds[number].clone();
        let key = SigningKey::parse(&secret).expect("a key");
        key.sign(&mut signed).expect("it can be signed");
        seeds.push(signed);
    }
    seeds
}

#[test]
fn no_file_harms_the_host() {
    let (mut dice, inputs) = run(6_000);
    let seeds = seeds();
    for seed in &seeds {
        assert!(file_body::file(seed).is_some());
    }
    let mut taken = [0, 0];
    for number in 1..=inputs {
        let _at = At(number);
        let seed = &seeds[dice.below(seeds.len() as u32) as usize];
        let mut file = seed.clone();
        dice.damage(&mut file);
        taken[usize::from(file_body::file(&file).is_some())] += 1;
    }
    eprintln!("refused, taken: {taken:?}");
    assert!(taken.iter().all(|count| *count > inputs / 50), "{taken:?}");
}

/// One byte makes two packages of one that need each other.
#[test]
fn packages_that_need_each_other_are_refused() {
    let (mut module, from) = (calls::module(), b"rustmq:etl/lookup");
    // the last is in its type
    let at = module.windows(from.len()).rposition(|name| name == from);
    module[at.expect("it looks up") + 9] = b'2';
    let refused = Host::inspect(&module).expect_err("no order").to_string();
    assert!(refused.contains("may need each other"), "{refused}");
}

#[test]
fn no_description_harms_the_host() {
    let (mut dice, inputs) = run(20_000);
    let mut ends = [0, 0, 0];
    for number in 1..=inputs {
        let _at = At(number);
        let mut data = match dice.below(500) {
            0 => dice.strangers(),
            _ => dice.described(),
        };
        if dice.below(4) == 0 {
            dice.damage(&mut data);
        }
        ends[file_body::described(&data).map_or(0, |fits| 1 + usize::from(fits))] += 1;
    }
    eprintln!("none, params that do not fit, that fit: {ends:?}");
    assert!(ends.iter().all(|count| *count > inputs / 50), "{ends:?}");
}
