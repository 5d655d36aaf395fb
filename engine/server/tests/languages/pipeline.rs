//! The example with a module in each language, applied to a whole server as it stands.
//!
//! Called by: `main`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{World, said};
use crate::{keep_target, repository, run, tools};

const READINGS: [&str; 4] = [
    r#"{"sensor":"roof","fahrenheit":77,"humidity":50}"#,
    r#"{"sensor":"cellar","fahrenheit":50,"humidity":0}"#,
    r#"{"sensor":"attic","humidity":40}"#,
    r#"{"sensor":"garden","fahrenheit":59,"humidity":80}"#,
];

/// The example and the SDKs, laid out as in the repository; what cargo compiles is kept there.
fn example(world: &World) {
    let repository = repository();
    for folder in ["examples/languages", "sdk-guest", "wit"] {
        let place = world.path(folder);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let (from, place) = (repository.join(folder), place.display().to_string());
        run(
            "cp",
            &["-R", from.to_str().unwrap(), &place],
            world.dir.path(),
        );
    }
    for file in ["Cargo.toml", "LICENSE"] {
        let from = match file {
            "Cargo.toml" => repository.join("sdk-guest/workspace.toml"),
            file => repository.join(file),
        };
        fs::copy(from, world.path(file)).unwrap();
    }
    keep_target(world);
}

/// Records of a topic, once there are so many.
pub(crate) fn records(world: &World, topic: &str, count: usize) -> Vec<Value> {
    let count = count.to_string();
    let words = [
        "consume", topic, "--from", "earliest", "--follow", "--max", &count,
    ];
    let out = world
        .run(&[&words[..], &["--format", "jsonl"]].concat())
        .ok()
        .out;
    let read = |line: &str| -> Value {
        let mut record: Value = serde_json::from_str(line).unwrap();
        if let Some(Ok(value)) = record["value"].as_str().map(serde_json::from_str) {
            record["value"] = value;
        }
        record
    };
    let mut records: Vec<Value> = out.lines().map(read).collect();
    records.sort_by_key(|record| record["value"].to_string());
    records
}

pub fn three_languages() {
    let world = World::new();
    example(&world);
    let server = world.serve();
    let file = world.path("examples/languages/pipeline.yaml");
    let file = file.to_str().unwrap();
    world.run(&["pipeline", "lint", file]).ok();
    let mut apply = world.command(&["pipeline", "apply", file]);
    said(apply.env("RUSTMQ_TOOLS", tools()).output().unwrap()).ok();
    let lines = READINGS.join("\n");
    let produce = ["produce", "readings", "--key", "sensor"];
    world.run_with_input(&produce, lines.as_bytes()).ok();

    let values = |records: Vec<Value>| -> Vec<Value> {
        records.into_iter().map(|mut r| r["value"].take()).collect()
    };
    let climate = values(records(&world, "climate", 2));
    let garden = json!({"sensor": "garden", "celsius": 15, "humidity": 80.0, "dew_point": 11.6});
    let roof = json!({"sensor": "roof", "celsius": 25, "humidity": 50.0, "dew_point": 13.9});
    let same = |ours: &Value, wanted: &Value| {
        let number = |v: &Value, name: &str| v[name].as_f64();
        ours["sensor"] == wanted["sensor"]
            && ["celsius", "humidity", "dew_point"]
                .iter()
                .all(|name| number(ours, name) == number(wanted, name))
    };
    assert!(
        same(&climate[0], &roof) || same(&climate[0], &garden),
        "{climate:?}"
    );
    assert!(
        same(&climate[1], &roof) || same(&climate[1], &garden),
        "{climate:?}"
    );
    assert_ne!(climate[0]["sensor"], climate[1]["sensor"]);
    let alert = records(&world, "alerts", 1).remove(0);
    assert_eq!(alert["value"]["text"], "roof: 25.0 °C");
    assert_eq!(alert["key"], "roof");
    let bad = records(&world, "bad_readings", 2);
    let codes: Vec<String> = bad
        .iter()
        .map(|record| record["headers"].to_string())
        .collect();
    let said = |node: &str, code: &str| {
        codes
            .iter()
            .any(|headers| headers.contains(node) && headers.contains(code))
    };
    assert!(said("comfort", "humidity"), "{codes:?}");
    assert!(said("celsius", "no-value"), "{codes:?}");

    let status = world
        .run(&["pipeline", "describe", "climate", "--json"])
        .ok()
        .out;
    assert!(status.contains("dry"), "{status}");
    drop(server);
    let log = fs::read_to_string(Path::new(&world.path("serve.err"))).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
