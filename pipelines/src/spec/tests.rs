//! What the reader and lint say about a file, message by message.

mod grants;

use model::catalog::{Catalog, Command};
use model::topic::TopicSpec;

use super::*;

pub(crate) const FLIGHTS: &str = r#"apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: flights }
topics:
  raw:   { partitions: 4, value: json }
  clean: { partitions: 4, value: { codec: json, schema: {carrier: string, dep_delay: float64, ts: timestamp}}}
  hours: { partitions: 4, value: json }
  bad:   { partitions: 1, value: raw, retention: 14d }
modules:
  tidy: { source: ./modules/tidy, grants: {}, limits: { memory: 64MiB, deadline: 100ms } }
policy:
  batch: { rows: 1000, bytes: 1MiB, wait: 5ms }
  on-error: { retry: { max: 3, backoff: 100ms, cap: 5s }, then: { dead-letter: bad } }
nodes:
  in:    { kind: source, topic: raw, start: earliest }
  tidy:  { kind: wasm, module: tidy, inputs: [in], outputs: { out: { schema: clean } }, params: {} }
  known: { kind: filter, inputs: [tidy], where: "carrier is not null" }
  more:  { kind: map, inputs: [known], select: { carrier: carrier, hours: "dep_delay / 60.0" }, key: carrier }
  split: { kind: route, inputs: [known], cases: { late: "dep_delay > 15" }, else: rest }
  hours: { kind: sink, inputs: [more], topic: hours }
  out:   { kind: sink, inputs: [split.late, split.rest], topic: clean }
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "TOPIC" => Some("raw".into()),
        "QUOTES" => Some("a \"b\": ${TOPIC}\n- c".into()),
        _ => None,
    }
}

fn read(name: &str) -> Result<String, String> {
    match name {
        "row.json" => Ok(r#"{ "properties": { "carrier": { "type": "string" } } }"#.into()),
        _ => Err("no such file".into()),
    }
}

fn diagnostics(text: &str, catalog: Option<&Catalog>) -> String {
    let found = match parse_with(
        "p.yaml",
        text,
        &Surroundings {
            env: &env,
            read: &read,
        },
    ) {
        Ok(spec) => crate::lint(&spec, catalog),
        Err(diagnostics) => diagnostics,
    };
    found.iter().map(|d| format!("{d}\n")).collect()
}

fn check(text: &str, expected: &str) {
    let found = diagnostics(text, None);
    assert_eq!(
        found.trim(),
        expected.trim(),
        "\nfound:\n{found}\nof:\n{text}"
    );
}

/// The flights pipeline with one piece of text replaced.
fn check_with(from: &str, to: &str, expected: &str) {
    assert!(FLIGHTS.contains(from), "{from}");
    check(&FLIGHTS.replacen(from, to, 1), expected);
}

#[test]
fn the_contract_example_has_nothing_wrong() {
    check(FLIGHTS, "");
    let spec = parse("p.yaml", FLIGHTS, &env).unwrap();
    assert_eq!(spec.name(), "flights");
    assert_eq!(spec.topics()[3].1.retention_ms, Some(14 * 86_400_000));
}

#[test]
fn limits_have_names_and_caps() {
    let all = "limits: { memory: 1GiB, deadline: 60s, open-deadline: 2s, output: 1MiB, \
               output-ratio: 1000, log: 1KiB, metrics: 256, table-elements: 100000 }";
    let limits = "limits: { memory: 64MiB, deadline: 100ms }";
    check_with(limits, all, "");
    for (one, said) in [
        (
            "memory: 2GiB",
            "`memory` of module `tidy` is at most 1024MiB",
        ),
        (
            "deadline: 2m",
            "`deadline` of module `tidy` is at most 60000ms",
        ),
        (
            "open-deadline: 0s",
            "a limit of module `tidy` must be more than 0",
        ),
        (
            "output-ratio: 1001",
            "`output-ratio` of module `tidy` is at most 1000",
        ),
        ("metrics: 257", "`metrics` of module `tidy` is at most 256"),
    ] {
        let found = diagnostics(
            &FLIGHTS.replace(limits, &format!("limits: {{ {one} }}")),
            None,
        );
        assert!(
            found.starts_with("p.yaml:10:") && found.contains(said),
            "{found}"
        );
    }
}

#[test]
fn topics_say_how_long_and_what_is_kept() {
    let bad = "bad:   { partitions: 1, value: raw, retention: 14d }";
    let more = "bad: { retention-bytes: 2GiB, compact: true, tier: false, \
                tombstone-retention: 1h, min-compaction-lag: 5s }";
    let spec = parse("p.yaml", &FLIGHTS.replacen(bad, more, 1), &env).unwrap();
    let topic = &spec.topics()[3].1;
    assert_eq!(topic.retention_bytes, Some(2 << 30));
    assert_eq!((topic.compact, topic.tier), (true, false));
    assert_eq!(topic.tombstone_retention_ms, Some(3_600_000));
    assert_eq!(topic.min_compaction_lag_ms, Some(5_000));
}

#[test]
fn misfits_stand_beside_the_schema() {
    let from = "timestamp}}}";
    let nulls = FLIGHTS.replacen(from, "timestamp}, misfits: nulls }}", 1);
    check(&nulls, "");
    let spec = parse("p.yaml", &nulls, &env).unwrap();
    assert_eq!(spec.topics()[1].1.misfits, Misfits::Nulls);
    let with = |misfits: &str, said: &str| {
        let to = format!("timestamp}}, misfits: {misfits} }}}}");
        let expected = match said {
            "" => String::new(),
            said => format!("p.yaml:6:120: error: `misfits` of `value` of topic `clean` is {said}"),
        };
        check_with(from, &to, &expected);
    };
    with("dead-letter", "");
    let one = "one of `dead-letter` and `nulls`, not";
    with("nul", &format!("{one} `nul`"));
    with("nuls", &format!("{one} `nuls` (did you mean `nulls`?)"));
    with("null", &format!("{one} null (did you mean `nulls`?)"));
    with("drop", &format!("{one} `drop`"));
    check_with(
        "hours: { partitions: 4, value: json }",
        "hours: { partitions: 4, value: { codec: json, misfits: nulls } }",
        "\
p.yaml:7:3: error: topic `hours`: misfits as `nulls` need a schema: without one there are no \
columns to be null",
    );
    check_with(
        "codec: json, schema: {carrier: string, dep_delay: float64, ts: timestamp}",
        "codec: columns, schema: {carrier: string, dep_delay: float64, ts: timestamp}, misfits: nulls",
        "\
p.yaml:6:3: error: topic `clean`: value codec `columns` has no misfits to be `nulls`: a record that does not \
fit is refused when it is produced",
    );
    let def = |text: &str| {
        parse("p.yaml", text, &env)
            .unwrap()
            .topics
            .get("clean")
            .cloned()
    };
    let (said, unsaid) = (def(&nulls).unwrap(), def(FLIGHTS).unwrap());
    let existing = said.to_spec();
    assert_eq!(unsaid.difference(&existing), None);
    let strict = unsaid.to_spec();
    let difference = said.difference(&strict);
    assert_eq!(
        difference.as_deref(),
        Some("misfits is dead-letter, not nulls")
    );
}

#[test]
fn keys_and_types() {
    check_with(
        "kind: source, topic",
        "kind: source, topik",
        "\
p.yaml:15:3: error: source `in` needs the key `topic`
p.yaml:15:26: error: unknown key `topik` in source `in` (did you mean `topic`?)",
    );
    check_with(
        "partitions: 4, value: json }\n  clean",
        "partitions: \"4\", value: jsn }\n  clean",
        "\
p.yaml:5:24: error: `partitions` of topic `raw` is a whole number of 0 or more, not the text \"4\"
p.yaml:5:36: error: `value` of topic `raw` is one of `raw`, `json`, `csv`, `avro` and `columns`, \
not `jsn` (did you mean `json`?)",
    );
    check_with(
        "value: raw, ret",
        "value: avro, ret",
        "\
p.yaml:8:3: error: topic `bad`: value codec `avro` needs a schema: it says what the fields of a row are",
    );
    check_with(
        "value: raw, ret",
        "value: columns, ret",
        "\
p.yaml:8:3: error: topic `bad`: value codec `columns` needs a schema: it says what the fields of a row are
p.yaml:13:80: error: topic `bad` keeps columns, and a dead letter has the bytes of its record \
(use a topic of `raw` or `json`)",
    );
    check_with(
        "bytes: 1MiB",
        "bytes: 1 mile",
        "\
p.yaml:12:31: error: `bytes` is a size such as 64KiB or 1MiB, not `1 mile`",
    );
    check_with(
        "rows: 1000",
        "rows: 0",
        "\
p.yaml:12:18: error: `rows` is 1 to 100000, not 0",
    );
    check_with(
        "start: earliest",
        "start: erliest",
        "\
p.yaml:15:45: error: `start` is `earliest`, `latest` or a time such as 2013-01-01T00:00:00Z, not \
`erliest` (did you mean `earliest`?)",
    );
    check_with(
        ", start: earliest",
        "",
        "\
p.yaml:15:3: error: source `in` needs the key `start`",
    );
    check_with(
        "inputs: [known], select",
        "inputs: known, select",
        "\
p.yaml:18:31: error: `inputs` of map `more` is a list, not the text \"known\"",
    );
}

#[test]
fn grants_names_and_schemas() {
    check_with(
        "grants: {}",
        "grants: { htpp: [x] }",
        "\
p.yaml:10:45: error: unknown key `htpp` in `grants` of module `tidy` (did you mean `http`?)",
    );
    check_with(
        "name: flights",
        "name: Flights",
        "\
p.yaml:3:19: error: pipeline name `Flights` has 'F' at position 1; allowed are a-z, 0-9 and `-`",
    );
    check_with(
        "  bad:  ",
        "  ../x: ",
        "\
p.yaml:8:3: error: topic name `../x` has '/' at position 3; allowed are letters, digits, `.`, `_` and `-`",
    );
    check_with(
        "ts: timestamp",
        "ts: time",
        "\
p.yaml:6:57: error: field `ts` has type `time`; the types are bool, int64, float64, string, bytes \
and timestamp",
    );
    check_with(
        "apiVersion: rustmq/v1alpha1",
        "apiVersion: v2",
        "\
p.yaml:1:13: error: `apiVersion` is `rustmq/v1alpha1` here, not `v2`",
    );
}

#[test]
fn kinds() {
    check_with(
        "kind: filter",
        "kind: filtre",
        "\
p.yaml:17:18: error: unknown kind `filtre` (did you mean `filter`?)",
    );
    check_with(
        "kind: filter",
        "kind: window",
        "\
p.yaml:17:18: error: kind `window` is not built yet (the kinds are `source`, `sink`, `wasm`, \
`filter`, `map` and `route`; later kinds: merge, dedupe, lookup, window, join are not built yet)",
    );
    check_with(
        "else: rest",
        "other: rest",
        "\
p.yaml:19:3: error: route `split` needs the key `else`
p.yaml:19:77: error: unknown key `other` in route `split` (the keys here are `kind`, `inputs`, \
`cases`, `else` and `on-error`)",
    );
    check_with(
        "else: rest",
        "else: late",
        "\
p.yaml:19:83: error: `else` has the name of the case `late`",
    );
}

#[test]
fn references() {
    check_with(
        "inputs: [tidy], where",
        "inputs: [tydi], where",
        "\
p.yaml:16:3: warning: output `out` of `tidy` goes nowhere: its rows are dropped
p.yaml:17:35: error: input `tydi` of `known`: no node `tydi` (did you mean `tidy`?)",
    );
    check_with("split.late,", "split.lat,", "\
p.yaml:19:3: warning: output `late` of `split` goes nowhere: its rows are dropped
p.yaml:21:33: error: input `split.lat` of `out`: `split` has no output `lat` (did you mean `late`?)");
    check_with(
        "[split.late, split.rest]",
        "[split]",
        "\
p.yaml:19:3: warning: output `late` of `split` goes nowhere: its rows are dropped
p.yaml:19:3: warning: output `rest` of `split` goes nowhere: its rows are dropped
p.yaml:21:33: error: input `split` of `out`: `split` has no output `out` (its outputs are \
`split.late` and `split.rest`)",
    );
    check_with(
        "[split.late, split.rest]",
        "[split.late, hours]",
        "\
p.yaml:19:3: warning: output `rest` of `split` goes nowhere: its rows are dropped
p.yaml:21:45: error: input `hours` of `out`: `hours` is a sink and has no outputs (read its topic \
with a source: hours)",
    );
    check_with(
        "module: tidy",
        "module: tyde",
        "\
p.yaml:10:3: warning: module `tidy` is not used
p.yaml:16:32: error: no module `tyde` (did you mean `tidy`?)",
    );
    check_with(
        "inputs: [in], out",
        "inputs: [split.late], out",
        "\
p.yaml:15:3: warning: output `out` of `in` goes nowhere: its rows are dropped
p.yaml:16:47: error: cycle: tidy -> known -> split -> tidy (records flow one way; to go round, \
write to a topic and read it elsewhere)",
    );
    check_with(
        "topic: hours }",
        "topic: raw }",
        "\
p.yaml:20:47: error: sink to topic `raw` would go round for ever: raw -> raw (write to another topic)",
    );
}

#[test]
fn topics_of_the_catalog() {
    let mut catalog = Catalog::new();
    let spec = TopicSpec {
        partitions: 2,
        ..TopicSpec::default()
    };
    let create = |name: &str| Command::TopicCreate {
        name: name.into(),
        spec: spec.clone(),
        if_absent: false,
        internal: false,
    };
    catalog.apply(&create("raw")).unwrap();
    let check = |from: &str, to: &str, expected: &str| {
        let found = diagnostics(&FLIGHTS.replacen(from, to, 1), Some(&catalog));
        assert_eq!(found.trim(), expected);
    };
    check(
        "",
        "",
        "p.yaml:5:3: error: topic `raw` exists already and differs: partitions is 2, not 4 \
(say what exists, use another name, or delete the topic)",
    );
    check("raw:   { partitions: 4, value: json }", "raw: {}", "");
    check("  raw:   { partitions: 4, value: json }\n", "", "");
    let from = "  raw:   { partitions: 4, value: json }\n  clean:";
    check(from, "  rows: {}\n  clean:", "");
    catalog
        .apply(&Command::TopicDelete { name: "raw".into() })
        .unwrap();
    let found = diagnostics(
        &FLIGHTS.replacen(from, "  rows: {}\n  clean:", 1),
        Some(&catalog),
    );
    assert_eq!(
        found.trim(),
        "p.yaml:15:33: error: no topic `raw` (declare it under `topics`, or create it first)"
    );
}

#[test]
fn expressions_point_into_the_file() {
    check_with(
        "\"carrier is not null\"",
        "\"carier is not null\"",
        "\
p.yaml:17:50: error: unknown column `carier`: did you mean `carrier`? known columns: _timestamp, \
_key, _value, _value_text, carrier, dep_delay, ts",
    );
    check_with(
        "\"dep_delay > 15\"",
        "'dep_delay > ''x'' +'",
        "p.yaml:19:77: error: expected: an expression, found: EOF",
    );
    let found = diagnostics(
        &FLIGHTS.replace("{ out: { schema: clean } }", "[out]"),
        None,
    );
    assert_eq!(found.lines().count(), 5, "{found}");
    assert_eq!(
        found.lines().next().unwrap(),
        "p.yaml:17:50: error: unknown column `carrier`: known \
columns: _timestamp, _key, _value, _value_text (the input of `known` has no schema: only _key, \
_value, _value_text and _timestamp exist; declare one on the topic, or as \
`outputs: { out: { schema: … } }`)"
    );
    let block = "  known:\n    kind: filter\n    inputs: [tidy]\n    where: |\n      carrier = \
'x' and\n      nope = 1\n";
    let line = FLIGHTS.lines().find(|l| l.starts_with("  known")).unwrap();
    let found = diagnostics(&FLIGHTS.replace(&format!("{line}\n"), block), None);
    assert!(
        found.starts_with("p.yaml:22:7: error: unknown column `nope`"),
        "{found}"
    );
}

#[test]
fn yaml_itself() {
    check(
        "",
        "p.yaml:1:1: error: the file is empty; a pipeline is expected",
    );
    check(
        "a: [1",
        "p.yaml:2:1: error: not YAML: while parsing a flow sequence, expected ',' or ']'",
    );
    check_with(
        "kind: Pipeline",
        "kind: Pipeline\nkind: Pipeline",
        "\
p.yaml:3:1: error: key `kind` is here twice, first in line 2",
    );
    check_with("metadata: { name", "metadata: { <<: 3, name", "\
p.yaml:3:13: error: merge keys (`<<`) are not supported; write the keys out
p.yaml:3:13: error: unknown key `<<` in `metadata` (the keys here are `name`, `description` and `labels`)");
    check(
        "a: !x 1\n--- \nb: 2\n",
        "\
p.yaml:1:4: error: tags (`!name`) are not supported in a pipeline
p.yaml:2:1: error: a second document: one file holds one pipeline",
    );
    check(
        &"[".repeat(100),
        "p.yaml:1:33: error: nested deeper than 32 levels",
    );
    check(
        "- 1",
        "p.yaml:1:1: error: a pipeline is a mapping with the keys `apiVersion`, `kind`, \
`metadata`, `topics`, `modules`, `policy` and `nodes`, not a list",
    );
}

#[test]
fn anchors_are_copies_and_counted() {
    let text = FLIGHTS
        .replace(
            "schema: {carrier: string,",
            "schema: &fields {carrier: string,",
        )
        .replace("{ schema: clean }", "{ schema: *fields }");
    check(&text, "");
    let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for i in 1..9 {
        let alias = format!("*a{}", i - 1);
        bomb += &format!("b{i}: &a{i} [{}]\n", [alias.as_str(); 10].join(", "));
    }
    let found = diagnostics(&bomb, None);
    assert_eq!(
        found.trim(),
        "p.yaml:5:25: error: more than 50000 values, aliases counted"
    );
}

#[test]
fn environment_and_schema_files() {
    check_with(
        "kind: source, topic: raw",
        "kind: source, topic: \"${TOPIC}\"",
        "",
    );
    check_with(
        "kind: source, topic: raw",
        "kind: source, topic: \"${NOPE}x\"",
        "\
p.yaml:15:33: error: the environment variable `NOPE` is not set",
    );
    check_with(
        "partitions: 4",
        "partitions: ${TOPIC}",
        "\
p.yaml:5:25: error: not YAML: while parsing a flow mapping, did not find expected ',' or '}' \
(quote a value with `${…}` inside `{ }` or `[ ]`)",
    );
    check_with(
        "partitions: 4",
        "partitions: '${TOPIC}'",
        "\
p.yaml:5:24: error: `partitions` of topic `raw` is a whole number of 0 or more, not the text \"${TOPIC}\"",
    );
}

#[test]
fn frozen_files_mean_the_same() {
    let files = FLIGHTS.replace(
        "codec: json, schema: {carrier: string, dep_delay: float64, ts: timestamp}",
        "codec: json, schema: row.json",
    );
    let found = diagnostics(&files.replace("row.json", "col.json"), None);
    let expected = "p.yaml:6:57: error: schema file `col.json`: no such file\n";
    assert_eq!(found, expected);
    let around = Surroundings {
        env: &env,
        read: &read,
    };
    let text = files.replace(
        "params: {}",
        "params: { a: \"${QUOTES} $${x}\", b: \"${TOPIC}\n    two\" }",
    );
    let frozen = freeze("p.yaml", &text, &around).unwrap();
    assert_eq!(frozen.lines().count(), text.lines().count(), "{frozen}");
    let nothing = |_: &str| None;
    let direct = parse_with("p.yaml", &text, &around).unwrap();
    let frozen = parse(
        "p.yaml",
        &freeze("p.yaml", &text, &around).unwrap(),
        &nothing,
    )
    .unwrap();
    assert_eq!(direct, frozen);
    let block =
        "nodes:\n  in:\n    kind: source\n    topic: >-\n      ${TOPIC}\n\n    start: earliest\n";
    let text = text
        .replace("nodes:\n", block)
        .replace("  in:    {", "  in2:   {");
    let direct = parse_with("p.yaml", &text, &around).unwrap();
    let frozen_text = freeze("p.yaml", &text, &around).unwrap();
    assert_eq!(
        direct,
        parse("p.yaml", &frozen_text, &nothing).unwrap(),
        "{frozen_text}"
    );
    assert_eq!(frozen_text.lines().count(), text.lines().count());
    let types::Node::Wasm(wasm) = frozen.nodes.get("tidy").unwrap() else {
        panic!("wasm")
    };
    assert_eq!(wasm.params["a"], "a \"b\": ${TOPIC}\n- c ${x}");
}

mod mutations {
    //! Whatever stands in the file, reading ends, and every place named is inside it.

    use proptest::prelude::*;

    use super::*;

    fn mutated() -> impl Strategy<Value = String> {
        let edit = (
            any::<prop::sample::Index>(),
            0..40usize,
            "[-a-z0-9:{}\\[\\],&*!|>'\"# \n$%@\u{e9}]{0,6}",
        );
        prop::collection::vec(edit, 1..5).prop_map(|edits| {
            let mut chars: Vec<char> = FLIGHTS.chars().collect();
            for (at, cut, put) in edits {
                let at = at.index(chars.len() + 1);
                let end = (at + cut % 7).min(chars.len());
                chars.splice(at..end, put.chars());
            }
            chars.into_iter().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn reading_always_ends(text in mutated()) {
            let around = Surroundings { env: &env, read: &read };
            let lines = text.lines().count() as u32 + 1;
            let found = match parse_with("p.yaml", &text, &around) {
                Ok(spec) => crate::lint(&spec, Some(&Catalog::new())),
                Err(diagnostics) => diagnostics,
            };
            for diagnostic in found {
                prop_assert!((1..=lines).contains(&diagnostic.line), "{diagnostic}");
            }
            if let Ok(frozen) = freeze("p.yaml", &text, &around) {
                prop_assert_eq!(frozen.lines().count(), text.lines().count());
            }
        }
    }
}

#[test]
fn lookups_are_topics_under_names() {
    let with = |lookups: &str| FLIGHTS.replacen("params: {}", &format!("lookups: {lookups}"), 1);
    let spec = parse(
        "p.yaml",
        &with("{ a: hours, b: { topic: raw, limit: 1GiB } }"),
        &env,
    )
    .unwrap();
    let Some(types::Node::Wasm(wasm)) = spec.nodes.get("tidy") else {
        panic!("a wasm node");
    };
    let said: Vec<_> = wasm
        .lookups
        .iter()
        .map(|(name, def)| {
            (
                &name.value[..],
                &def.topic.value[..],
                def.limit.as_ref().map(|l| l.0),
            )
        })
        .collect();
    assert_eq!(said, [("a", "hours", None), ("b", "raw", Some(1 << 30))]);
    let check = |lookups: &str, expected: &str| check(&with(lookups), expected);
    check("{ a: hours }", "");
    check(
        "{ a: { topic: raw, limit: 5GiB } }",
        "p.yaml:16:124: error: `limit` of lookup `a` is at most 4GiB",
    );
    check(
        "{ a: { topc: raw } }",
        "p.yaml:16:100: error: lookup `a` needs the key `topic`\n\
         p.yaml:16:105: error: unknown key `topc` in lookup `a` (did you mean `topic`?)",
    );
    check(
        "{ a b: raw }",
        "p.yaml:16:100: error: table name `a b` is not 1 to 100 letters, digits, `-` and `_`",
    );
    check(
        "[raw]",
        "p.yaml:16:98: error: `lookups` of wasm `tidy` is a mapping, not a list",
    );
    check(
        "{ a: 3 }",
        "p.yaml:16:103: error: lookup `a` (a topic) is text (quote it), not the number 3",
    );
    let catalog = Catalog::default();
    assert_eq!(
        diagnostics(&with("{ a: huors }"), Some(&catalog)).trim(),
        "p.yaml:16:103: error: no topic `huors` (did you mean `hours`?)"
    );
    check_with(
        "params: {}",
        "lookup: { a: raw }",
        "p.yaml:16:89: error: unknown key `lookup` in wasm `tidy` (did you mean `lookups`?)",
    );
}
