//! Requests of a guest, answered by a double: what it says, what it hears, and where it ends.

use std::sync::Mutex;

use super::*;
use crate::Metric;
use crate::http::grant::{Grant, Host as Named, Rule};
use crate::http::{
    Access, Answer, Egress, Failed, Request, Response, Sending, Stop, Stopped, Trouble,
};

/// `tests/guests/asks` as it was released with 0.1.3.
const ASKS: &[u8] = include_bytes!("../../../../tests/guests/conformance/released/0.1.3-http.wasm");

/// The same of the versions after it.
const ASKS_0_1_4: &[u8] =
    include_bytes!("../../../../tests/guests/conformance/released/0.1.4-http.wasm");
const ASKS_0_1_5: &[u8] =
    include_bytes!("../../../../tests/guests/conformance/released/0.1.5-http.wasm");

/// Answers by the last word of the URL, and keeps what it was asked.
#[derive(Debug, Default)]
pub(super) struct Echo(pub(super) Mutex<Vec<Request>>);

impl Egress for Echo {
    fn refuses(&self, _: &Rule) -> Option<String> {
        None
    }

    fn send(&self, sending: &Sending<'_>) -> Result<Vec<Answer>, Stopped> {
        if sending.stop.is_set() {
            return Err(Stopped);
        }
        let mut asked = self.0.lock().expect("requests");
        asked.extend(sending.requests.iter().cloned());
        Ok(sending.requests.iter().map(answer).collect())
    }
}

fn answer(request: &Request) -> Answer {
    let (_, word) = request.url.rsplit_once('/').unwrap_or_default();
    let failed = |code| Err(Failed::new(code, word));
    match word {
        "timeout" => failed(Trouble::Timeout),
        "other" => failed(Trouble::Other),
        "too-large" => failed(Trouble::TooLarge),
        word => Ok(Response {
            status: 201,
            url: request.url.clone(),
            headers: vec![("x-seen".into(), " ä".into())],
            body: word.into(),
        }),
    }
}

fn asks(egress: Option<Arc<dyn Egress>>) -> Module {
    asks_of(ASKS, egress)
}

fn asks_of(released: &[u8], egress: Option<Arc<dyn Egress>>) -> Module {
    let config = HostConfig {
        egress,
        ..HostConfig::default()
    };
    let host = Host::new(config).expect("the engine starts");
    host.load(released, &Grants::http()).expect("it loads")
}

pub(super) fn granted() -> OpenContext {
    let rule = Rule::new(Named::parse("a.example").expect("a host"));
    let grant = Grant { rules: vec![rule] };
    OpenContext {
        http: Some(Arc::new(Access::new(grant, 100))),
        ..opened_with("")
    }
}

fn opened_with(params: &str) -> OpenContext {
    OpenContext {
        params: params.into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        ..OpenContext::default()
    }
}

fn tell(guest: &mut Guest, rows: &[&str]) -> Result<String, ProcessError> {
    let mut builder = RowsBuilder::new();
    for row in rows {
        builder.push(5, Some(b"k"), Some(row.as_bytes()), &[]);
    }
    let batch = Batch::new(builder.finish(), (0..rows.len() as u64).collect());
    guest.process(input(batch)).map(|outcome| text(&outcome))
}

#[test]
fn what_a_guest_asks_is_sent_and_what_is_answered_comes_back() {
    for released in [ASKS, ASKS_0_1_4, ASKS_0_1_5] {
        asked_and_answered(released);
    }
}

fn asked_and_answered(released: &[u8]) {
    let echo = Arc::new(Echo::default());
    let module = asks_of(released, Some(echo.clone()));
    let context = granted();
    let mut guest = module.open(&context, &Limits::default()).expect("it opens");
    let rows = [
        "GET https://a.example/one",
        "POST https://a.example/two a b",
        "GET https://a.example/too-large",
    ];
    let said = tell(&mut guest, &rows).expect("it works");
    assert_eq!(
        said,
        "emit 0 0 k=201 one ä\nemit 0 1 k=201 two ä\nreject [2] too-large: too-large\n"
    );
    let asked = echo.0.lock().expect("requests").clone();
    let header = |row: &str| vec![("x-row".to_owned(), row.to_owned())];
    let two = Request {
        method: "POST".into(),
        url: "https://a.example/two".into(),
        headers: header("1"),
        body: Some(b"a b".to_vec()),
        timeout_ms: Some(60_000),
    };
    assert_eq!((asked.len(), &asked[1]), (3, &two));
    assert_eq!((&asked[0].body, &asked[0].headers), (&None, &header("0")));
    let said = tell(&mut guest, &["GET https://a.example/timeout"]).expect("it works");
    assert_eq!(said, "retry [0] 10 ms timeout: timeout\n");
    let numbers = context.metrics.read();
    assert_eq!(numbers["http.requests"], Metric::Counter { value: 4 });
    assert_eq!(numbers["http.failures"], Metric::Counter { value: 2 });
    assert!(numbers.contains_key("http.wait_us"), "{numbers:?}");
}

#[test]
fn the_import_must_be_granted() {
    let error = host().load(ASKS, &Grants::default()).err();
    let error = error.map(|e| e.to_string()).unwrap_or_default();
    assert!(
        error.contains("grants: { http: [{ host: api.example.com, methods: [GET] }] }"),
        "{error}"
    );
    let info = Host::inspect(ASKS).expect("it is a module");
    assert_eq!(info.grants_needed, ["rustmq:etl/http@0.1.3"]);
    assert_eq!(info.world.as_deref(), Some("rustmq:etl/granted@0.1.5"));
    assert!(Host::check(ASKS, &Grants::http()).is_ok());
}

#[test]
fn without_a_grant_or_a_client_all_is_denied() {
    let denied = "reject [0] denied: the node grants no requests\n";
    let echo: Arc<dyn Egress> = Arc::new(Echo::default());
    for (egress, context) in [(Some(echo), opened_with("")), (None, granted())] {
        let module = asks(egress);
        let mut guest = module.open(&context, &Limits::default()).expect("it opens");
        let said = tell(&mut guest, &["GET https://a.example/one"]);
        assert_eq!(said.as_deref(), Ok(denied));
    }
}

#[test]
fn too_many_requests_end_the_guest_and_a_stop_ends_the_call() {
    let module = asks(Some(Arc::new(Echo::default())));
    let limits = Limits {
        http_requests: 2,
        ..Limits::default()
    };
    let context = granted();
    let mut guest = module.open(&context, &limits).expect("it opens");
    let row = "GET https://a.example/one";
    assert!(tell(&mut guest, &[row, row]).is_ok());
    // each batch anew
    assert!(tell(&mut guest, &[row, row]).is_ok());
    let limit = ProcessError::Limit {
        what: "requests for one batch",
        limit: 2,
    };
    assert_eq!(tell(&mut guest, &[row, row, row]), Err(limit));
    let stop: Stop = context.stop.clone();
    let mut guest = module.open(&context, &limits).expect("it opens");
    stop.set();
    assert_eq!(tell(&mut guest, &[row]), Err(ProcessError::Stopped));
    assert!(guest.is_dead());
    let over = Limits {
        http_per_s: Limits::CAPS.http_per_s + 1,
        ..Limits::default()
    };
    let refused = module.open(&context, &over).err().map(|e| e.to_string());
    assert!(refused.is_some_and(|e| e.contains("requests a second")));
}
