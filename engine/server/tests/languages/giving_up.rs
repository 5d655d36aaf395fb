//! A record that is given up after its tries, and those behind it, which the SDKs leave for the next try:
//! all languages in one pipeline, with state and without, and with the timers of a batch.
//!
//! Called by: `main`.

use std::fs;

use crate::pipeline::records;
use crate::support::World;
use crate::{keep_target, with_tools};

/// Passes on what is not `later`.
const PLAIN: &str = r#"
use std::time::Duration;

use rustmq::Reject;

#[rustmq::map]
fn plain(text: &str) -> Result<String, Reject> {
    match text {
        "later" => Err(Reject::retry(Duration::from_millis(1), "later", "as asked")),
        text => Ok(text.to_owned()),
    }
}
"#;

/// The same, and counts them.
const RUST: &str = r#"
use std::time::Duration;

use rustmq::{Reject, State};

#[rustmq::map]
fn counted(text: &str, state: &mut State) -> Result<String, Reject> {
    let count = 1 + state.get::<u64>(b"count")?.unwrap_or_default();
    state.put(b"count", &count)?;
    match text {
        "later" => Err(Reject::retry(Duration::from_millis(1), "later", "as asked")),
        text => Ok(format!("{text} {count}")),
    }
}
"#;

/// The same, and sets a timer for each, of which one is never done.
const PYTHON: &str = r#"
import rustmq


@rustmq.map
def counted(text: str, state):
    count = 1 + state.get("count", 0)
    state.put("count", count)
    if text == "later":
        raise rustmq.Retry(1, "later", "as asked")
    state.set_timer(text, 1)
    return f"{text} {count}"


@counted.on_timer
def due(key, time, state):
    if key == b"b":
        raise rustmq.Retry(1, "later", "as asked")
    return f"{key.decode()} due"
"#;

const JS: &str = r#"
import { Retry, map } from '#rustmq';

export default map(
  (text, meta, state) => {
    const count = 1 + (state.get('count') ?? 0);
    state.put('count', count);
    if (text === 'later') throw new Retry(1, 'later', 'as asked');
    return `${text} ${count}`;
  },
  { value: 'text', stateSchema: 1 },
);
"#;

const MODULES: [(&str, &str, &str, &str); 4] = [
    ("plain", "rust", "src/lib.rs", PLAIN),
    ("rust", "rust", "src/lib.rs", RUST),
    ("python", "python", "module.py", PYTHON),
    ("js", "js", "module.js", JS),
];

/// Each module has a stage of its own, which gives a record up after its tries.
fn pipeline(tries: &str) -> String {
    let all = |line: &str| -> String {
        MODULES
            .iter()
            .map(|(name, ..)| line.replace("NAME", name))
            .collect()
    };
    let topics = all("  NAME-out: { partitions: 1 }\n  NAME-bad: { partitions: 1 }\n");
    let modules = all("  NAME: { source: ./NAME/build/NAME.wasm, limits: { deadline: 10s } }\n");
    let then = format!("on-error: {{ retry: {{ {tries} }}, then: {{ dead-letter: NAME-bad }} }}");
    let nodes = all(&format!(
        "  NAME-in: {{ kind: source, topic: given, start: earliest }}\n  \
         NAME: {{ kind: wasm, module: NAME, inputs: [NAME-in], {then} }}\n  \
         NAME-sink: {{ kind: sink, inputs: [NAME], topic: NAME-out }}\n"
    ));
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: p }}\n\
         topics:\n  given: {{ partitions: 1 }}\n{topics}modules:\n{modules}nodes:\n{nodes}"
    )
}

const GIVEN: &str = "a\nb\nlater\nc\nlater\nd\n";

/// What a topic holds, in the order of its offsets.
fn held(world: &World, topic: &str, count: usize) -> Vec<String> {
    let mut records = records(world, topic, count);
    records.sort_by_key(|record| record["offset"].as_u64());
    let text = |record: &serde_json::Value| record["value"].as_str().unwrap().to_owned();
    records.iter().map(text).collect()
}

pub fn the_others_go_on() {
    let builder = World::new();
    keep_target(&builder);
    for (name, lang, file, source) in MODULES {
        builder.run(&["module", "new", name, "--lang", lang]).ok();
        builder.write(&format!("{name}/{file}"), source);
        with_tools(&builder, &["module", "build", name]).ok();
    }
    for tries in ["max: 0", "max: 2, backoff: 1ms"] {
        let world = World::new();
        for (name, ..) in MODULES {
            let built = format!("{name}/build/{name}.wasm");
            fs::create_dir_all(world.path(&built).parent().unwrap()).unwrap();
            fs::copy(builder.path(&built), world.path(&built)).unwrap();
        }
        let server = world.serve();
        world
            .run(&["topic", "create", "given", "--partitions", "1"])
            .ok();
        let file = world.write("p.yaml", pipeline(tries));
        // one batch
        world
            .run_with_input(&["produce", "given"], GIVEN.as_bytes())
            .ok();
        world.run(&["pipeline", "apply", &file]).ok();
        let plain = ["a", "b", "c", "d"];
        assert_eq!(held(&world, "plain-out", 4), plain, "{tries}");
        let counted = ["a 1", "b 2", "c 3", "d 4"];
        for name in ["rust", "js"] {
            assert_eq!(
                held(&world, &format!("{name}-out"), 4),
                counted,
                "{name}, {tries}"
            );
        }
        let python = held(&world, "python-out", 7);
        let timers: Vec<_> = python.iter().filter(|text| text.ends_with("due")).collect();
        assert_eq!(timers, ["a due", "c due", "d due"], "{tries}");
        assert!(
            counted
                .iter()
                .all(|text| python.contains(&(*text).to_owned())),
            "{python:?}"
        );
        for (name, bad) in [("plain", 2), ("rust", 2), ("js", 2), ("python", 3)] {
            held(&world, &format!("{name}-bad"), bad);
        }
        server.stop();
    }
}
