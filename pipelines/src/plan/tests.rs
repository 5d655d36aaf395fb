//! Plans as they are shown.

use super::*;
use crate::spec::parse;
use crate::spec::tests::FLIGHTS;

fn spec(text: &str) -> Spec {
    parse("p.yaml", text, &|_| None).expect("a pipeline without errors")
}

fn digests(seed: &str) -> BTreeMap<String, Digest> {
    BTreeMap::from([("tidy".to_string(), Digest::of(seed.as_bytes()))])
}

fn check(text: &str, digest: &str, expected: &str) {
    check_kept(text, digest, &Kept::new(), expected);
}

fn check_kept(text: &str, digest: &str, kept: &Kept, expected: &str) {
    let (old, before) = (spec(FLIGHTS), digests("abc"));
    let previous = Previous {
        spec: &old,
        modules: &before,
        kept,
        held: &Held::new(),
    };
    let plan = plan(&spec(text), &digests(digest), Some(previous), None);
    let changes: Vec<String> = plan
        .changes
        .iter()
        .map(|c| format!("{} {}", c.class, c.what))
        .collect();
    assert_eq!(changes.join("; "), expected);
}

#[test]
fn a_new_pipeline() {
    let shown = plan(&spec(FLIGHTS), &digests("abc"), None, Some(&Catalog::new())).to_string();
    assert_eq!(
        shown,
        "\
pipeline flights: new
topic raw    4 partitions, to be created
topic clean  4 partitions, to be created
topic hours  4 partitions, to be created
topic bad    1 partition, to be created
module tidy  ./modules/tidy sha256:ba7816bf8f01…
stage in: topic raw, 4 lanes, from earliest
  tidy   wasm tidy   <- in
  known  filter      <- tidy
  more   map         <- known
  split  route       <- known
  hours  sink hours  <- more
  out    sink clean  <- split.late, split.rest
  dead letters -> bad
"
    );
}

#[test]
fn classes_of_changes() {
    let with = |from: &str, to: &str| {
        assert!(FLIGHTS.contains(from), "{from}");
        FLIGHTS.replacen(from, to, 1)
    };
    check(FLIGHTS, "abc", "");
    check(&with("  in:    {", "  in: {"), "abc", "");
    check(
        FLIGHTS,
        "xyz",
        "live module tidy: code sha256:ba7816bf8f01… -> sha256:3608bca1e44e…",
    );
    check(
        &with("params: {}", "params: { a: 1 }"),
        "abc",
        "live node tidy: params",
    );
    check(
        &with("params: {}", "params: {}, lookups: { carriers: hours }"),
        "abc",
        "live node tidy: lookups",
    );
    check(
        &with("memory: 64MiB", "memory: 32MiB"),
        "abc",
        "live module tidy: limits",
    );
    check(
        &with("\"dep_delay > 15\"", "\"dep_delay > 16\""),
        "abc",
        "live node split: cases",
    );
    check(
        &with("rows: 1000", "rows: 500"),
        "abc",
        "drain policy: batch",
    );
    check(
        &with("[tidy], where", "[in], where")
            .replace("\"carrier is not null\"", "true")
            .replace("dep_delay / 60.0", "1")
            .replace("dep_delay > 15", "true")
            .replace("carrier: carrier, ", "")
            .replace(", key: carrier", ""),
        "abc",
        "drain node known: inputs; live node known: where; live node more: select; \
         reset node more: key; live node split: cases",
    );
    check(
        &with("start: earliest", "start: latest"),
        "abc",
        "reset node in: start earliest -> latest",
    );
    check(
        &with("topic: clean }", "topic: clean, key: carrier }"),
        "abc",
        "reset node out: key",
    );
    check(
        &with("partitions: 4", "partitions: 8"),
        "abc",
        "reset topic raw: partitions is 4, not 8",
    );
}

#[test]
fn what_would_lose_state_is_reset() {
    let kept = |modules: &[(&str, u32)]| -> Kept {
        let one = |(seed, version): &(&str, u32)| {
            let (version, migrates) = (*version, vec![]);
            (
                Digest::of(seed.as_bytes()),
                KeptSchema { version, migrates },
            )
        };
        modules.iter().map(one).collect()
    };
    let code = "live module tidy: code sha256:ba7816bf8f01… -> sha256:3608bca1e44e…";
    let check = |modules: &[(&str, u32)], expected: &str| {
        let expected = match expected {
            "" => code.to_string(),
            more => format!("{code}; {more}"),
        };
        check_kept(FLIGHTS, "xyz", &kept(modules), &expected);
    };
    check(&[("abc", 1), ("xyz", 1)], "");
    check(
        &[("abc", 1), ("xyz", 2)],
        "reset node tidy: state schema 1 -> 2, but the new version takes over no older state",
    );
    check(
        &[("abc", 1)],
        "reset node tidy: what it keeps would be lost",
    );
    check(&[("xyz", 1)], "drain node tidy: keeps state from now on");
    let late = FLIGHTS.replacen("params: {}", "params: {}, lateness: 1m", 1);
    check_kept(
        &late,
        "abc",
        &kept(&[("abc", 1)]),
        "live node tidy: lateness",
    );
}

#[test]
fn a_node_that_keeps_state_gets_the_records_of_the_same_sources_or_is_reset() {
    let text = "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: { name: p }\n\
         topics:\n  raw: { partitions: 2 }\n  more: { partitions: 2 }\n  out: { partitions: 2 }\n\
         modules:\n  tidy: { source: ./m }\n\
         nodes:\n  src: { kind: source, topic: raw, start: earliest }\n  \
         other: { kind: source, topic: more, start: earliest }\n  \
         f: { kind: filter, inputs: [src], where: \"true\" }\n  \
         w: { kind: wasm, module: tidy, inputs: [f] }\n  \
         o: { kind: sink, inputs: [w, other], topic: out }\n";
    let schema = KeptSchema {
        version: 1,
        migrates: vec![],
    };
    let kept = Kept::from([(Digest::of(b"abc"), schema)]);
    let (old, modules) = (spec(text), digests("abc"));
    let check = |from: &str, to: &str, kept: &Kept, expected: &str| {
        assert!(text.contains(from), "{from}");
        let previous = Previous {
            spec: &old,
            modules: &modules,
            kept,
            held: &Held::new(),
        };
        let plan = plan(
            &spec(&text.replace(from, to)),
            &modules,
            Some(previous),
            None,
        );
        let about = plan.changes.iter().filter(|c| c.what.starts_with("node w"));
        let changes: Vec<String> = about.map(|c| format!("{} {}", c.class, c.what)).collect();
        assert_eq!(changes.join("; "), expected);
    };
    check("\"true\"", "\"1 < 2\"", &kept, "");
    check("[w, other]", "[w]", &kept, "");
    let raw = "reset node w: keeps state of source src (topic raw), not of";
    let to_from = format!("{raw} source from (topic raw)");
    check("src", "from", &kept, &to_from);
    let to_other = format!("{raw} source other (topic more)");
    check("inputs: [src]", "inputs: [other]", &kept, &to_other);
    let both = format!("{raw} source other (topic more) and source src (topic raw)");
    check("inputs: [src]", "inputs: [src, other]", &kept, &both);
    let inputs = "drain node w: inputs; reset node w: inputs of a node that keeps state";
    check("inputs: [f]", "inputs: [src]", &kept, inputs);
    // of nodes that keep nothing nobody asks
    check("inputs: [src]", "inputs: [other]", &Kept::new(), "");
}

#[test]
fn what_the_new_version_takes_over_is_migrated() {
    let (old, before) = (spec(FLIGHTS), digests("abc"));
    let schema = |version, migrates: &[u32]| {
        let migrates = migrates.to_vec();
        KeptSchema { version, migrates }
    };
    let check = |held: &[u32], migrates: &[u32], expected: &str| {
        let kept = [("abc", schema(2, &[1])), ("xyz", schema(3, migrates))];
        let kept = kept.map(|(seed, schema)| (Digest::of(seed.as_bytes()), schema));
        let kept = Kept::from(kept);
        let held = match held {
            [] => Held::new(),
            held => Held::from([("tidy".to_string(), held.iter().copied().collect())]),
        };
        let previous = Previous {
            spec: &old,
            modules: &before,
            kept: &kept,
            held: &held,
        };
        let plan = plan(&old, &digests("xyz"), Some(previous), None);
        let about_state = plan.changes.iter().filter(|c| c.what.contains("schema"));
        let changes: Vec<String> = about_state
            .map(|c| format!("{} {}", c.class, c.what))
            .collect();
        assert_eq!(changes.join("; "), expected);
    };
    let (one, two) = (
        "node tidy: state schema 1 -> 3",
        "node tidy: state schema 2 -> 3",
    );
    check(&[], &[1, 2], &format!("migrate {two}"));
    check(&[1], &[1, 2], &format!("migrate {one}"));
    check(&[1, 2], &[1, 2], &format!("migrate {one}; migrate {two}"));
    // a lane that did not take the last change is asked for too
    let none = "but the new version takes over from [2] only";
    check(
        &[1, 2],
        &[2],
        &format!("reset {one}, {none}; migrate {two}"),
    );
    // and where none took it, there is nothing to be done
    check(&[3], &[], "");
}

#[test]
fn changes_line_up() {
    let change = |class, what: &str| Change {
        what: what.into(),
        class,
        hint: None,
    };
    let shown = Plan {
        changes: vec![change(Reload::Live, "a"), change(Reload::Migrate, "b")],
        ..plan(&spec(FLIGHTS), &digests("abc"), None, None)
    };
    let shown = shown.to_string();
    assert!(shown.ends_with("\nlive     a\nmigrate  b\n"), "{shown}");
}
