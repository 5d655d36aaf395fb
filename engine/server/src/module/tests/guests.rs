//! Every guest of `tests/guests` has a test here, or this does not compile; and so has every deed of
//! the evil one.
//!
//! `host_tests!` makes a test of each name it lists, which needs a function of that name in
//! `hosted`; the assertion after it fails to compile where a member of the guests' workspace is not listed.

use std::sync::{Arc, LazyLock};

use serde_json::json;
use tokio::runtime::Runtime;
use wasm::http::Access;
use wasm::http::grant::{Grant, Rule};
use wasm::{Grants, Host, HostConfig, Keyed, Limits, Lookups, Module, OpenContext, Table};

use super::{built, run};
use crate::egress::doubles::{Doubled, Reply, Server, moved, ok};
use crate::egress::{Client, Secrets};
use crate::module::cases::Case;

const MANIFEST: &str = include_str!("../../../../../tests/guests/Cargo.toml");

macro_rules! host_tests {
    ($($guest:ident: $member:literal),* $(,)?) => {
        const TESTED: &[&str] = &[$($member),*];
        $(#[tokio::test]
        async fn $guest() {
            let path = built($member).await;
            // a guest waits for the answers to its requests, which a task must not
            std::thread::spawn(move || hosted::$guest(&load(path))).join().unwrap();
        })*
    };
}

host_tests! {
    asks: "asks",
    boundary: "boundary",
    boundary_checked: "boundary-checked",
    boundary_columns: "boundary-columns",
    boundary_json: "boundary-json",
    conformance: "conformance",
    doubled: "doubled",
    even: "even",
    evil: "evil",
    joins: "joins",
    keeps: "keeps",
    lanes: "lanes",
    late: "late",
    probes: "probes",
    sure: "sure",
    words: "words",
}

const _: () = assert!(
    members(MANIFEST) == TESTED.len() && all_members(MANIFEST, TESTED),
    "a member of tests/guests has no test here: write one"
);

/// Lines of the list of members: four spaces and a quoted name.
const fn members(manifest: &str) -> usize {
    let text = manifest.as_bytes();
    let (mut at, mut count) = (0, 0);
    while at + 5 < text.len() {
        count += is_member(text, at) as usize;
        at += 1;
    }
    count
}

const fn is_member(text: &[u8], at: usize) -> bool {
    text[at] == b'\n'
        && text[at + 1] == b' '
        && text[at + 2] == b' '
        && text[at + 3] == b' '
        && text[at + 4] == b' '
        && text[at + 5] == b'"'
}

const fn all_members(manifest: &str, names: &[&str]) -> bool {
    let mut name = 0;
    while name < names.len() {
        if !has_member(manifest.as_bytes(), names[name].as_bytes()) {
            return false;
        }
        name += 1;
    }
    true
}

const fn has_member(text: &[u8], name: &[u8]) -> bool {
    let mut at = 0;
    while at + 6 + name.len() < text.len() {
        if is_member(text, at) && text[at + 6 + name.len()] == b'"' {
            let mut letter = 0;
            while letter < name.len() && text[at + 6 + letter] == name[letter] {
                letter += 1;
            }
            if letter == name.len() {
                return true;
            }
        }
        at += 1;
    }
    false
}

/// Cargo refuses a folder that is no member, but only when it is asked to build it.
#[test]
fn every_folder_is_a_member() {
    let guests = super::repository().join("tests/guests");
    let entries = std::fs::read_dir(guests).unwrap().map(|e| e.unwrap());
    let mut folders: Vec<String> = entries
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, TESTED);
}

fn load(path: std::path::PathBuf) -> Module {
    let host = Host::new(HostConfig {
        egress: Some(WORLD.client.clone()),
        ..HostConfig::default()
    });
    let host = host.unwrap();
    let bytes = std::fs::read(path).unwrap();
    host.load(&bytes, &Grants::http())
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Opened with these params and outputs, rows in, text out.
fn check(module: &Module, params: &str, outputs: &[&str], values: &[&str], expected: &str) {
    let mut guest = module
        .open(&context(params, outputs), &Limits::default())
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(run(&mut guest, values), expected);
}

fn context(params: &str, outputs: &[&str]) -> OpenContext {
    OpenContext {
        params: params.into(),
        inputs: vec!["in".into()],
        outputs: outputs.iter().map(|o| (*o).into()).collect(),
        lookups: tables(),
        ..OpenContext::default()
    }
}

/// What a node has whose module looks something up.
fn tables() -> Lookups {
    let large = vec![b'x'; 1 << 20];
    let [users, table] = [Table::default(), Table::default()];
    let ann = (&b"ann"[..], Some(&br#"{"city":"Ghent"}"#[..]));
    let large = (&b"large"[..], Some(&large[..]));
    users.apply([ann], usize::MAX).unwrap();
    table.apply([large], usize::MAX).unwrap();
    let lookups = Lookups::new(["large", "users"].map(str::to_owned));
    lookups.lend(Some([table.pin(), users.pin()].map(Arc::new).into()));
    lookups
}

/// A server that guests may ask, and names that lead to it or where they should not.
struct World {
    server: Server,
    client: Arc<Client>,
    /// Runs the server and the client.
    _runtime: Runtime,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(|head| match head.split(' ').nth(1) {
        Some("/close") => {
            Reply::Text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into())
        }
        Some("/to-inside") => {
            let host = head.lines().find_map(|line| line.strip_prefix("host: "));
            let (_, port) = host.and_then(|host| host.rsplit_once(':')).unwrap();
            moved(&format!("http://inside.evil.example:{port}/"))
        }
        Some("/endless") => Reply::Endless("HTTP/1.1 200 OK\r\n\r\n", "evil"),
        Some("/stuck") => Reply::Stuck("HTTP/1.1 200 OK\r\nx: "),
        _ => ok("asked"),
    }));
    let names = Doubled::new(&[
        ("www.evil.example", &[&["127.0.0.1"]]),
        ("inside.evil.example", &[&["10.0.0.1"]]),
        (
            "rebound.evil.example",
            &[&["127.0.0.1"], &["169.254.169.254"]],
        ),
    ]);
    let networks = vec!["0.0.0.0/0".parse().unwrap()];
    let client = Client::new(runtime.handle().clone(), Secrets::default(), networks);
    World {
        server,
        client: Arc::new(client.named(names)),
        _runtime: runtime,
    }
});

/// What a node would grant.
fn access(host: &str) -> Option<Arc<Access>> {
    let rules: Vec<Rule> = vec![WORLD.server.rule(host)];
    Some(Arc::new(Access::new(Grant { rules }, 10_000)))
}

/// What each guest is for, in one check; what goes further is in tests of its own.
mod hosted {
    use super::*;

    pub fn asks(module: &Module) {
        let context = OpenContext {
            http: access("127.0.0.1"),
            ..context("", &["out"])
        };
        let mut guest = module.open(&context, &Limits::default()).unwrap();
        let get = format!("GET {}", WORLD.server.url("/"));
        let post = format!("POST {} body", WORLD.server.url("/"));
        let out = "emit 0 0 k=200 askedä\nemit 0 2 k=200 askedä\n";
        let text = run(&mut guest, &[&get, "GET http://elsewhere.example/", &post]);
        assert!(text.starts_with(out), "{text}");
        let denied =
            "reject [1] denied: the grant does not name the host elsewhere.example, but 127.0.0.1";
        assert!(text.contains(denied), "{text}");
        let needed = &module.info().grants_needed;
        assert_eq!(needed, &["rustmq:etl/http@0.1.5"]);
    }

    pub fn boundary(module: &Module) {
        check(
            module,
            r#"{"work":"forward"}"#,
            &["out"],
            &["a", "b"],
            "forward 0 [0, 1]\n",
        );
    }

    pub fn boundary_checked(module: &Module) {
        needs_columns(module);
    }

    pub fn boundary_columns(module: &Module) {
        needs_columns(module);
    }

    fn needs_columns(module: &Module) {
        let opened = module.open(&context("", &["out"]), &Limits::default());
        let error = opened.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("schema"), "it needs typed columns: {error}");
    }

    pub fn boundary_json(module: &Module) {
        let mut guest = module
            .open(&context("", &["out"]), &Limits::default())
            .unwrap();
        let text = run(&mut guest, &["{"]);
        assert!(text.starts_with("reject [0] json: "), "{text}");
    }

    pub fn conformance(module: &Module) {
        let rows = ["forward", "drop"];
        check(
            module,
            r#"{"tag":"t"}"#,
            &["out", "rest"],
            &rows,
            "forward 0 [0]\n",
        );
    }

    pub fn doubled(module: &Module) {
        let out =
            "emit 0 0 k=3\nemit 0 2 k=9\nreject [1] json: expected value at line 1 column 1\n";
        check(module, r#"{"factor":3}"#, &["out"], &["1", "x", "3"], out);
        let mut guest = module
            .open(&context(r#"{"factor":3}"#, &["out"]), &Limits::default())
            .unwrap();
        let panicked = run(&mut guest, &["1", "13"]);
        assert!(
            panicked.starts_with("the module trapped: panic: thirteen (at "),
            "{panicked}"
        );
        assert!(panicked.contains("\n  in doubled::doubled"), "{panicked}");
        assert!(!panicked.contains(env!("CARGO_MANIFEST_DIR")), "{panicked}");
        assert!(guest.is_dead());
        let said = module.info().describe.clone().unwrap();
        let schema = serde_json::json!({
            "type": "object",
            "properties": { "factor": {
                "description": "What each number is multiplied by.",
                "allOf": [{ "type": "integer" }],
            } },
            "required": ["factor"],
            "additionalProperties": false,
        });
        assert_eq!(
            (said.title(), said.params),
            ("doubled 0.1.0".into(), Some(schema))
        );
        assert_eq!(said.ports, None);
        let refused = module.open(&context(r#"{"factr":3}"#, &["out"]), &Limits::default());
        let refused = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("params: factor is missing"), "{refused}");
    }

    pub fn even(module: &Module) {
        check(module, "", &["out"], &["2", "3", "4"], "forward 0 [0, 2]\n");
    }

    pub fn joins(module: &Module) {
        let out = "emit 0 0 k=\"Ghent 5\"\nreject [1] user: no user bob\n";
        let rows = [r#"{"user":"ann","cents":5}"#, r#"{"user":"bob","cents":7}"#];
        check(module, "", &["out"], &rows, out);
        let nothing = OpenContext {
            lookups: Lookups::default(),
            ..context("", &["out"])
        };
        let refused = module.open(&nothing, &Limits::default()).err();
        let refused = refused.map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("lookups: { users: TOPIC }"), "{refused}");
    }

    /// What it keeps is tested in the sandbox and in pipelines, with the component that is released.
    pub fn keeps(module: &Module) {
        let open = || module.open(&context("", &["out"]), &Limits::default());
        let text = run(&mut open().unwrap(), &["x"]);
        assert!(
            text.contains("there is no state outside of a batch"),
            "{text}"
        );
        let said = module.info().describe.clone().unwrap();
        assert_eq!((said.state_schema, said.migrates), (Some(2), Some(vec![1])));
        lane_of(module);
        let mut keyed = Keyed::new(&Limits::default(), 1);
        keyed.load_entry(b"migrate-panic", b"1");
        keyed.migrate(&Limits::default(), 2);
        let old = keyed.old(None);
        let panicked = open()
            .unwrap()
            .migrate(1, &old, &mut keyed)
            .unwrap_err()
            .to_string();
        let says = "the module trapped: panic: on purpose (at ";
        assert!(panicked.starts_with(says), "{panicked}");
    }

    pub fn lanes(module: &Module) {
        let said = module.info().describe.clone().unwrap();
        assert_eq!(
            said.ports,
            Some(vec!["small".to_owned(), "big_one".to_owned()])
        );
        let out = "forward 0 [0, 2]\nforward 1 [1]\n";
        check(module, "", &["small", "big_one"], &["5", "50", "6"], out);
    }

    pub fn late(module: &Module) {
        super::super::columns_through(module);
    }

    /// Built for no system, it has none; `wasi` has what it finds where it asks for one.
    pub fn probes(module: &Module) {
        let out =
            "emit 0 0 k=nothing\nreject [1] error: operation not supported on this platform\n";
        check(module, "", &["out"], &["", "file"], out);
    }

    pub fn sure(module: &Module) {
        super::super::blocks_through(module);
    }

    pub fn words(module: &Module) {
        let out = "emit 0 0 k=a\nemit 0 0 k=b\nemit 0 1 c=c\n";
        check(module, "", &["out"], &["a b", "c"], out);
    }

    pub fn evil(module: &Module) {
        let good = "forward 0 [0]\n";
        check(module, "", &["out"], &["a good row"], good);
        for (deed, ends) in super::deeds() {
            contained(module, deed, ends);
        }
        for (deed, ends) in super::deeds() {
            if let Some(part) = ends.in_open {
                contained_in_open(module, deed, part);
            }
        }
    }
}

/// A lane as a harness writes it down, which begins with what an older version kept: compared and timed.
fn lane_of(module: &Module) {
    let row = |value| json!({ "key": "a", "value": value, "event_time": 1, "headers": [] });
    let out = |value| {
        let place = json!({ "port": "out", "parent": 0 });
        let mut out = row(value);
        out.as_object_mut()
            .unwrap()
            .extend(place.as_object().unwrap().clone());
        out
    };
    let batches = [
        json!({ "rows": [row("x")], "out": [out("3")] }),
        json!({ "rows": [row("x")], "out": [out("4")] }),
    ];
    let lane = json!({
        "lateness_us": 0,
        "migrated": { "schema": 1, "kept": [["a", "2"], ["migrate-drop", "1"]] },
        "batches": batches,
        "kept": [["a", r#"{"count":4}"#]],
        "timers": [],
    });
    let line = json!({ "params": "", "outputs": ["out"], "lane": lane, "native_ns": 1.0 });
    let cases = Case::read(&line.to_string()).unwrap();
    assert_eq!(cases[0].compare(module).as_deref(), Ok(""));
    assert_eq!(cases[0].rows_timed(), 1);
    assert!(cases[0].time(module).unwrap() > 0.0);
}

/// How a deed ends.
struct Ends {
    /// The whole text, if it begins with `emit` or `reject`; a part of it otherwise.
    with: &'static str,
    dead: bool,
    /// How it ends in `open`.
    in_open: Option<&'static str>,
}

const fn dies(with: &'static str) -> Ends {
    Ends {
        with,
        dead: true,
        in_open: None,
    }
}

const fn dies_anywhere(with: &'static str) -> Ends {
    Ends {
        with,
        dead: true,
        in_open: Some(with),
    }
}

const fn lives(with: &'static str) -> Ends {
    Ends {
        with,
        dead: false,
        in_open: None,
    }
}

const NOTHING: Ends = lives("emit 0 0 key=nothing\n");

/// One constant a deed: what stops it.
#[allow(non_upper_case_globals, reason = "they have the deeds' names")]
mod ends {
    use super::*;

    pub const spin: Ends = dies_anywhere("more than 100 ms of processor time");
    pub const recurse: Ends = dies_anywhere("the call stack is exhausted");
    pub const eat_memory: Ends = dies_anywhere("limit of 67108864 memory bytes");
    /// In `open` there is no outbox to say the last words to.
    pub const panic: Ends = Ends {
        in_open: Some("reached `unreachable`"),
        ..dies("panic: on purpose")
    };
    pub const abort: Ends = dies_anywhere("reached `unreachable`");
    pub const flood_rows: Ends = dies("limit of 1048576 output bytes");
    pub const flood_bytes: Ends = dies("limit of 1048576 output bytes");
    pub const flood_message: Ends = lives("reject [0] x");
    pub const flood_rejections: Ends = dies("limit of 1048576 output bytes");
    pub const flood_log: Ends = lives("");
    pub const flood_metrics: Ends = lives("");
    pub const flood_observations: Ends = dies("additions and observed values in one call");
    pub const row_out_of_range: Ends = dies("row 4294967295, but the batch has 1 rows");
    pub const port_out_of_range: Ends = dies("port 65535, but the node has 1 outputs");
    pub const columns_not_declared: Ends = dies("declare");
    pub const look_into_no_table: Ends =
        lives("emit 0 0 key=the node declares no table `nobody`; its `lookups` are large, users\n");
    pub const look_up_a_million: Ends = dies("limit of 100000 keys in one lookup");
    pub const look_up_huge_keys: Ends = NOTHING;
    pub const look_up_too_much: Ends = dies("limit of 67108864 bytes found in one lookup");
    pub const read_environment: Ends = NOTHING;
    pub const read_arguments: Ends = NOTHING;
    pub const read_file: Ends = NOTHING;
    pub const write_file: Ends = NOTHING;
    pub const connect: Ends = NOTHING;
    pub const resolve_name: Ends = NOTHING;
    pub const spawn_thread: Ends = NOTHING;
    pub const spawn_process: Ends = NOTHING;
    pub const read_clock: Ends = dies("time not implemented");
    /// In `open` nobody is asked.
    pub const http_elsewhere: Ends = Ends {
        in_open: Some("no requests are made outside of a batch"),
        ..lives("emit 0 0 key=denied\n")
    };
    pub const http_private: Ends = lives("emit 0 0 key=denied\n");
    pub const http_redirected: Ends = lives("emit 0 0 key=denied\n");
    pub const http_rebound: Ends = lives("emit 0 0 key=found 200, denied\n");
    pub const http_endless: Ends = lives("emit 0 0 key=too-large\n");
    pub const http_stuck: Ends = lives("emit 0 0 key=timeout\n");
    pub const http_split: Ends = lives("emit 0 0 key=invalid\n");
    pub const http_flood: Ends = dies("requests for one batch");
    pub const http_overlap: Ends = dies("bytes that cross the boundary in one call");
}

macro_rules! deeds {
    ($($name:ident),* $(,)?) => {
        fn deeds() -> &'static [(&'static str, Ends)] {
            &[$((stringify!($name), ends::$name)),*]
        }
    };
}
include!("../../../../../tests/guests/evil/src/deeds.in");

/// Time stops only what spins: how quick a machine is must not decide what stops the others.
fn limits(deed: &str) -> Limits {
    let defaults = Limits::default();
    let deadline_ms = match deed {
        "spin" => defaults.deadline_ms,
        _ => Limits::CAPS.deadline_ms,
    };
    Limits {
        deadline_ms,
        open_deadline_ms: deadline_ms,
        http_timeout_ms: Limits::CAPS.http_timeout_ms,
        http_time_ms: Limits::CAPS.http_time_ms,
        ..defaults
    }
}

/// The deed ends as it should, takes nothing with it, and the next guest works.
fn contained(module: &Module, deed: &str, ends: &Ends) {
    let before = module.host().memory_bytes();
    let port = WORLD.server.port;
    let context = OpenContext {
        http: access("*.evil.example"),
        ..context(&format!(r#"{{"port":{port}}}"#), &["out"])
    };
    let mut guest = module.open(&context, &limits(deed)).unwrap();
    let said = run(&mut guest, &[deed]);
    let fits = match ends.dead {
        true => said.contains(ends.with),
        false => said.starts_with(ends.with),
    };
    assert!(fits, "{deed}: {}", &said[..said.len().min(500)]);
    assert!(said.len() < 10_000, "{deed}: {} bytes", said.len());
    assert_eq!(guest.is_dead(), ends.dead, "{deed}");
    if !ends.dead {
        assert_eq!(
            run(&mut guest, &["good"]),
            "forward 0 [0]\n",
            "after {deed}"
        );
    }
    let numbers = context.metrics.read();
    let own = numbers.keys().filter(|name| !name.contains('.'));
    assert!(own.count() <= Limits::default().metrics);
    drop(guest);
    assert_eq!(module.host().memory_bytes(), before, "{deed} keeps memory");
}

fn contained_in_open(module: &Module, deed: &str, part: &str) {
    let before = module.host().memory_bytes();
    let params = format!(r#"{{"open":"{deed}"}}"#);
    let opened = module.open(&context(&params, &["out"]), &limits(deed));
    let said = opened.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.starts_with("in `open`: "), "{deed}: {said}");
    assert!(said.contains(part), "{deed}: {said}");
    assert_eq!(module.host().memory_bytes(), before, "{deed} keeps memory");
}
