//! Modules in Python and JavaScript that make requests: granted, not granted, and to whom nobody may.
//!
//! Called by: `main`.

use std::fs;

use serde_json::{Value, json};

use crate::pipeline::records;
use crate::support::World;
use crate::support::asked::Asked;
use crate::support::wait;
use crate::with_tools;

const PYTHON: &str = r#"
import rustmq
from rustmq import http


@rustmq.map
def py(row):
    return {**row, "py": told(http.get(row["py"], headers={"x-lang": "python"}))}


def told(answer):
    return f"{answer.ok().status} {answer.text}"
"#;

const JS: &str = r#"
import { batch, Column } from '#rustmq';
import { Response, send } from '#rustmq/http';

export default batch((rows, out) => {
  const given = rows.values().texts().map((text) => JSON.parse(text));
  const answers = send(given.map((row) => ({ url: row.js, headers: { 'x-lang': 'javascript' } })));
  const kept = [];
  const values = [];
  answers.forEach((answer, row) => {
    if (!(answer instanceof Response)) {
      out.reject([row], answer.code, answer.message);
      return;
    }
    kept.push(row);
    values.push(JSON.stringify({ ...given[row], js: `${answer.ok().status} ${answer.text()}` }));
  });
  out.emit(0, kept, rows.keys().gather(kept), Column.ofTexts(values));
});
"#;

const PIPELINE: &str = "
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: asking }
topics:
  urls: { partitions: 1, value: raw }
  answers: { partitions: 1, value: raw }
  bad: { partitions: 1, value: raw }
modules:
  py: { source: ./py/build/py.wasm, GRANTS limits: { deadline: 10s } }
  js: { source: ./js/build/js.wasm, GRANTS limits: { deadline: 10s } }
policy:
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: urls, start: earliest }
  py: { kind: wasm, module: py, inputs: [in] }
  js: { kind: wasm, module: js, inputs: [py] }
  out: { kind: sink, inputs: [js], topic: answers }
";

/// The host's `http` is imported where a module uses the SDK's, and nowhere else.
fn built(world: &World, name: &str, lang: &str, file: &str, source: &str) {
    world.run(&["module", "new", name, "--lang", lang]).ok();
    world.write(&format!("{name}/{file}"), source);
    with_tools(world, &["module", "build", name]).ok();
    let component = format!("{name}/build/{name}.wasm");
    let info = world.run(&["module", "inspect", &component, "--json"]);
    let info: Value = serde_json::from_str(&info.ok().out).unwrap();
    assert_eq!(info["grants_needed"], json!(["rustmq:etl/http@0.1.5"]));
}

pub fn granted_and_refused() {
    let world = World::new();
    built(&world, "py", "python", "module.py", PYTHON);
    built(&world, "js", "js", "module.js", JS);
    let asked = Asked::start();
    let config = "[modules]\nhttp_networks = [\"127.0.0.0/8\"]\n";
    let config = world.write("node.toml", config);
    let server = world.serve_with(&["--config", &config]);

    let without = world.write("without.yaml", PIPELINE.replace("GRANTS", ""));
    let refused = world.run(&["pipeline", "apply", &without]);
    for name in ["py", "js"] {
        let part = format!("module `{name}`");
        assert!(refused.err.contains(&part), "{}", refused.err);
    }
    refused.fails(1, "rustmq:etl/http");

    let port = asked.port;
    let grant = format!("{{ host: 127.0.0.1, scheme: http, port: {port}, private: true }}");
    let grants = format!("grants: {{ http: [{grant}] }},");
    let file = world.write("asking.yaml", PIPELINE.replace("GRANTS", &grants));
    world.run(&["pipeline", "apply", &file]).ok();
    let url = |host: &str, path: &str| format!("http://{host}:{port}/{path}");
    let (here, there) = ("127.0.0.1", "127.0.0.2");
    let rows = [
        json!({"py": url(here, "a"), "js": url(here, "b")}),
        json!({"py": url(there, "c"), "js": url(here, "d")}),
        json!({"py": url(here, "e"), "js": url(there, "f")}),
        json!({"py": url(here, "g"), "js": url(here, "h")}),
    ];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    world
        .run_with_input(&["produce", "urls"], lines.as_bytes())
        .ok();

    let answers = records(&world, "answers", 2);
    let values: Vec<&Value> = answers.iter().map(|record| &record["value"]).collect();
    let told = |py: &str, js: &str| json!({"py": format!("200 /{py}"), "js": format!("200 /{js}")});
    assert_eq!(values, [&told("a", "b"), &told("g", "h")]);
    let bad = records(&world, "bad", 2);
    let headers: Vec<String> = bad.iter().map(|r| r["headers"].to_string()).collect();
    for node in ["py", "js"] {
        let said = |text: &&String| {
            let parts = [node, "http-denied", "127.0.0.2"];
            parts.iter().all(|part| text.contains(part))
        };
        assert!(headers.iter().any(|text| said(&text)), "{headers:?}");
    }
    let heads = asked.heads();
    let made = |lang: &str| {
        let lang = format!("x-lang: {lang}");
        heads.iter().filter(|head| head.contains(&lang)).count()
    };
    // at least once each; nothing reached the other host, which nobody serves
    assert!(made("python") >= 3 && made("javascript") >= 2, "{heads:?}");
    let counted = |name: &str| {
        let described = world.run(&["pipeline", "describe", "asking", "--json"]);
        described.ok().out.contains(name)
    };
    wait::until("requests are counted", || {
        (counted("http.requests") && counted("http.failures")).then_some(())
    });
    server.stop();
    let log = fs::read_to_string(world.path("serve.err")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
