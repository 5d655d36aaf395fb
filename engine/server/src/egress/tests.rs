//! Against real servers on this machine, which the tests start; only the names of hosts are doubled.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wasm::Limits;
use wasm::http::Access;
use wasm::http::grant::{Grant, HeaderValue as Value, Host};

use super::doubles::{Doubled, Reply, Server, header, moved, ok};
use super::*;

/// A client, what it is granted and its limits.
struct World {
    client: Client,
    access: Access,
    limits: Limits,
    bytes_max: usize,
    stop: Stop,
}

impl World {
    fn new(rules: Vec<Rule>) -> World {
        let all = ["0.0.0.0/0", "::/0"].map(|n| n.parse().expect(n));
        World {
            client: Client::new(Handle::current(), Secrets::default(), all.into()),
            access: Access::new(Grant { rules }, 10_000),
            limits: Limits::default(),
            bytes_max: 32 << 20,
            stop: Stop::default(),
        }
    }

    fn named(mut self, names: &Arc<Doubled>) -> World {
        self.client.names = names.clone();
        self
    }

    fn sending<'a>(&'a self, requests: &'a [Request]) -> Sending<'a> {
        Sending {
            requests,
            access: &self.access,
            limits: &self.limits,
            time: Duration::from_millis(self.limits.http_time_ms),
            bytes_max: self.bytes_max,
            stop: &self.stop,
        }
    }

    async fn all(&self, requests: &[Request]) -> Vec<Answer> {
        self.client.all(&self.sending(requests)).await
    }

    async fn one(&self, request: Request) -> Answer {
        self.all(&[request]).await.pop().expect("an answer")
    }

    async fn get(&self, url: &str) -> Answer {
        self.one(get(url)).await
    }

    /// The request must fail so.
    async fn fails(&self, request: Request, code: Trouble, why: &str) {
        let url = request.url.clone();
        let failed = self.one(request).await.expect_err(&url);
        assert_eq!(failed.code, code, "{url}: {}", failed.message);
        assert!(failed.message.contains(why), "{url}: {}", failed.message);
    }
}

fn get(url: &str) -> Request {
    Request {
        method: "GET".into(),
        url: url.into(),
        headers: Vec::new(),
        body: None,
        timeout_ms: None,
    }
}

fn with(name: &str, value: &str, request: Request) -> Request {
    let mut request = request;
    request.headers.push((name.into(), value.into()));
    request
}

#[tokio::test]
async fn a_thousand_requests_are_answered_in_their_order() {
    let server = Server::start(|head| ok(head.split(' ').nth(1).unwrap_or_default())).await;
    let world = World::new(vec![server.rule("127.0.0.1")]);
    let requests: Vec<Request> = (0..1000)
        .map(|n| get(&server.url(&format!("/{n}"))))
        .collect();
    let answers = world.all(&requests).await;
    assert_eq!(answers.len(), 1000);
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap_or_else(|e| panic!("{number}: {}", e.message));
        assert_eq!(answer.body, format!("/{number}").as_bytes());
        assert_eq!(answer.status, 200);
        assert!(
            answer.headers.contains(&("x-seen".into(), "ä".into())),
            "{:?}",
            answer.headers
        );
        assert_eq!(answer.url, server.url(&format!("/{number}")));
    }
}

#[tokio::test]
async fn a_body_goes_out_and_any_status_is_an_answer() {
    let server = Server::start(|_| {
        Reply::Text("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno".into())
    });
    let server = server.await;
    let world = World::new(vec![server.rule("127.0.0.1")]);
    let mut request = with("Content-Type", "text/plain", get(&server.url("/")));
    (request.method, request.body) = ("POST".into(), Some(b"hello".to_vec()));
    let answer = world.one(request).await.expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (503, &b"no"[..]));
    let head = &server.heads()[0];
    assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(head, "content-length"), Some("5"));
    assert_eq!(header(head, "content-type"), Some("text/plain"));
    assert_eq!(
        header(head, "accept-encoding"),
        None,
        "nothing is decompressed"
    );
}

#[tokio::test]
async fn what_is_not_granted_is_not_sent() {
    let server = Server::start(|_| ok("no")).await;
    let world = World::new(vec![server.rule("127.0.0.1")]);
    let url = server.url("/");
    let other = format!("http://127.0.0.1:{}/", server.port.wrapping_add(1).max(1));
    let put = Request {
        method: "PUT".into(),
        ..get(&url)
    };
    let denied = Trouble::Denied;
    world.fails(get(&other), denied, "does not name").await;
    world
        .fails(
            get(&url.replace("http:", "https:")),
            denied,
            "does not name",
        )
        .await;
    world
        .fails(
            get(&url.replace("127.0.0.1", "localhost")),
            denied,
            "does not name",
        )
        .await;
    world
        .fails(
            get(&url.replace("127.0.0.1", "[::ffff:127.0.0.1]")),
            denied,
            "does not name",
        )
        .await;
    world.fails(put, denied, "allows no PUT").await;
    let split = with("x", "1\r\nhost: evil.example", get(&url));
    world
        .fails(split, Trouble::Invalid, "control characters")
        .await;
    let smuggled = with("transfer-encoding", "chunked", get(&url));
    world
        .fails(smuggled, Trouble::Invalid, "the host writes")
        .await;
    let user = url.replace("127.0.0.1", "me:secret@127.0.0.1");
    world
        .fails(get(&user), Trouble::Invalid, "with a user")
        .await;
    assert_eq!(server.heads(), [""; 0]);
}

#[tokio::test]
async fn addresses_that_are_not_public_are_not_reached() {
    let server = Server::start(|_| ok("no")).await;
    let names = Doubled::new(&[
        ("inside.example", &[&["127.0.0.1"]]),
        ("mapped.example", &[&["::ffff:127.0.0.1"]]),
        ("nat64.example", &[&["64:ff9b::a9fe:a9fe"]]),
        ("mixed.example", &[&["127.0.0.1", "10.0.0.1"]]),
        ("mixed.example.net", &[&["93.184.216.34", "127.0.0.1"]]),
        ("unspecified.example", &[&["0.0.0.0"]]),
        ("nowhere.example", &[&[]]),
    ]);
    let public = |host: &str| {
        let mut rule = server.rule(host);
        rule.reach = Reach::default();
        rule
    };
    let world = World::new(vec![
        server.rule("mixed.example"),
        public("*.example"),
        public("mixed.example.net"),
        public("127.0.0.1"),
    ]);
    let world = world.named(&names);
    let url = |host: &str| server.url("/").replace("127.0.0.1", host);
    for (host, code, why) in [
        ("inside.example", Trouble::Denied, "127.0.0.1 is loopback"),
        ("mapped.example", Trouble::Denied, "is loopback"),
        ("nat64.example", Trouble::Denied, "metadata service"),
        // the one is allowed, the other not: so the name is not
        ("mixed.example", Trouble::Denied, "10.0.0.1 is private"),
        (
            "mixed.example.net",
            Trouble::Denied,
            "127.0.0.1 is loopback",
        ),
        (
            "unspecified.example",
            Trouble::Denied,
            "no request goes there",
        ),
        ("nowhere.example", Trouble::Resolve, "has no address"),
        ("missing.example", Trouble::Resolve, "no such name"),
        // named in the URL
        ("127.0.0.1", Trouble::Denied, "is loopback"),
    ] {
        world.fails(get(&url(host)), code, why).await;
    }
    assert_eq!(server.heads(), [""; 0]);
    let mut world = World::new(vec![server.rule("127.0.0.1")]);
    world.client.networks = Vec::new();
    let why = "modules.http_networks does not hold it";
    world
        .fails(get(&server.url("/")), Trouble::Denied, why)
        .await;
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_each_time() {
    let close = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let server = Server::start(move |_| Reply::Text(close.into())).await;
    let names = Doubled::new(&[("rebound.example", &[&["127.0.0.1"], &["10.0.0.1"]])]);
    let world = World::new(vec![server.rule("rebound.example")]).named(&names);
    let url = server.url("/").replace("127.0.0.1", "rebound.example");
    assert!(world.get(&url).await.is_ok());
    assert_eq!(
        names.asked.load(Ordering::Relaxed),
        1,
        "checked and connected by one look-up"
    );
    world
        .fails(get(&url), Trouble::Denied, "10.0.0.1 is private")
        .await;
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test]
async fn redirects_are_decided_like_any_request() {
    let inner = Server::start(|_| ok("inside")).await;
    let port = inner.port;
    let server = Server::start(move |head| match head.split(' ').nth(1) {
        Some("/near") => moved("/there"),
        Some("/there") => ok("here"),
        Some("/loop") => moved("/loop"),
        Some("/named") => moved(&format!("http://inside.example:{port}/")),
        Some("/address") => moved(&format!("http://127.0.0.1:{port}/")),
        Some("/metadata") => moved("http://169.254.169.254/latest/meta-data/"),
        Some("/file") => moved("file:///etc/passwd"),
        _ => moved("http://other.example/"),
    });
    let server = server.await;
    let names = Doubled::new(&[
        ("a.example", &[&["127.0.0.1"]]),
        ("inside.example", &[&["127.0.0.1"]]),
    ]);
    let mut inside = inner.rule("inside.example");
    inside.reach = Reach::default();
    let world = World::new(vec![server.rule("a.example"), inside]).named(&names);
    let url = |path: &str| server.url(path).replace("127.0.0.1", "a.example");
    let answer = world.get(&url("/near")).await.expect("an answer");
    assert_eq!(
        (&answer.body[..], answer.url),
        (&b"here"[..], url("/there"))
    );
    world
        .fails(
            get(&url("/loop")),
            Trouble::Redirect,
            "more than 5 redirects",
        )
        .await;
    for path in ["/address", "/metadata", "/elsewhere"] {
        let why = "behind a redirect: the grant does not name the host";
        world.fails(get(&url(path)), Trouble::Denied, why).await;
    }
    // granted as a name, but not where it leads
    let why = "behind a redirect: inside.example: 127.0.0.1 is loopback";
    world.fails(get(&url("/named")), Trouble::Denied, why).await;
    world
        .fails(get(&url("/file")), Trouble::Redirect, "https or http")
        .await;
    assert_eq!(inner.heads(), [""; 0]);
}

#[tokio::test]
async fn secrets_go_to_their_host_and_no_further() {
    let server = Server::start(|head| match head.split(' ').nth(1) {
        Some("/away") => {
            let host = header(head, "host").unwrap_or_default();
            moved(&format!(
                "http://{}/",
                host.replace("a.example", "b.example")
            ))
        }
        _ => ok("fine"),
    });
    let server = server.await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "pssst-1\n").expect("a file");
    let both = ["a.example", "b.example"];
    let at: &[&[&str]] = &[&["127.0.0.1"]];
    let names = Doubled::new(&both.map(|host| (host, at)));
    let [mut a, b] = both.map(|host| server.rule(host));
    let named = |name: &str| Value::Secret {
        name: name.into(),
        prefix: "Bearer ".into(),
    };
    a.headers = vec![("authorization".into(), named("token"))];
    let mut world = World::new(vec![a.clone(), b.clone()]).named(&names);
    let secret = Secret {
        source: Source::File(path.clone()),
        hosts: vec![Host::parse("a.example").expect("a host")],
    };
    world.client.secrets.0.insert("token".into(), secret);
    let url = |path: &str| server.url(path).replace("127.0.0.1", "a.example");
    let own = with(
        "authorization",
        "mine",
        with("x-api-key", "own", get(&url("/away"))),
    );
    let answer = world.one(own).await.expect("an answer");
    assert!(answer.url.contains("b.example"), "{}", answer.url);
    let heads = server.heads();
    assert_eq!(header(&heads[0], "authorization"), Some("Bearer pssst-1"));
    assert_eq!(header(&heads[0], "x-api-key"), Some("own"));
    assert_eq!(
        header(&heads[1], "host").map(|h| h.starts_with("b.example")),
        Some(true)
    );
    assert_eq!(header(&heads[1], "authorization"), None);
    assert_eq!(header(&heads[1], "x-api-key"), None);
    // read anew each time, and told to nobody
    std::fs::write(&path, "pssst-2").expect("a file");
    assert!(world.get(&url("/")).await.is_ok());
    assert_eq!(
        header(&server.heads()[2], "authorization"),
        Some("Bearer pssst-2")
    );
    assert!(!format!("{:?}{:?}", world.client, world.access).contains("pssst"));
    std::fs::write(&path, "pssst\r\nx: y").expect("a file");
    let failed = world.get(&url("/")).await.expect_err("no header");
    assert_eq!(
        failed.message,
        "the server's secret `token` cannot be sent; its log says why"
    );
    refusals(&world, &a, &b, &path);
}

/// What `apply` says of rules that put secrets in.
fn refusals(world: &World, a: &Rule, b: &Rule, path: &std::path::Path) {
    let refused = |rule: &Rule| world.client.refuses(rule).unwrap_or_default();
    assert!(
        refused(a).contains("is empty or has several lines"),
        "{}",
        refused(a)
    );
    std::fs::write(path, "fine").expect("a file");
    assert_eq!(refused(a), "");
    assert_eq!(refused(b), "");
    let moved = Rule {
        headers: a.headers.clone(),
        ..b.clone()
    };
    assert!(
        refused(&moved).contains("go to a.example, not to b.example"),
        "{}",
        refused(&moved)
    );
    let wide = Rule {
        host: Host::parse("*.example.org").expect("a host"),
        ..a.clone()
    };
    assert!(
        refused(&wide).contains("not to *.example.org"),
        "{}",
        refused(&wide)
    );
    let clear = Rule {
        reach: Reach::default(),
        ..a.clone()
    };
    assert!(
        refused(&clear).contains("in the clear"),
        "{}",
        refused(&clear)
    );
    let mut unknown = a.clone();
    unknown.headers[0].1 = Value::Secret {
        name: "tokn".into(),
        prefix: String::new(),
    };
    assert!(refused(&unknown).contains("no secret `tokn` under [secrets]; it has token"));
    std::fs::remove_file(path).expect("it was there");
    assert!(refused(a).contains("cannot be read from"), "{}", refused(a));
    let closed = Client::new(Handle::current(), Secrets::default(), Vec::new());
    let why = closed.refuses(b).unwrap_or_default();
    assert!(why.contains("modules.http_networks"), "{why}");
}

#[tokio::test]
async fn answers_end_at_their_limits() {
    let server = Server::start(|head| match head.split(' ').nth(1) {
        Some("/long") => ok(&"x".repeat(1001)),
        Some("/fits") => ok(&"x".repeat(1000)),
        Some("/chunks") => Reply::Endless(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "a\r\n0123456789\r\n",
        ),
        Some("/until-close") => Reply::Endless("HTTP/1.1 200 OK\r\n\r\n", "0123456789"),
        Some("/head") => Reply::Endless("HTTP/1.1 200 OK\r\n", "x-a: 0123456789\r\n"),
        Some("/wide") => Reply::Text(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: {}\r\n\r\n",
            "y".repeat(HEAD_BYTES_MAX)
        )),
        Some("/none") => Reply::Text("SSH-2.0-OpenSSH_9.2\r\n\r\n".into()),
        Some("/short") => Reply::Stuck("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"),
        _ => Reply::Stuck("HTTP/1.1 200 OK\r\nx: "),
    });
    let server = server.await;
    let mut world = World::new(vec![server.rule("127.0.0.1")]);
    world.limits.http_received_bytes = 1000;
    let ask = |path: &str| get(&server.url(path));
    assert!(world.one(ask("/fits")).await.is_ok());
    let limit = "limits.http-received";
    for path in ["/long", "/chunks", "/until-close"] {
        world.fails(ask(path), Trouble::TooLarge, limit).await;
    }
    world
        .fails(ask("/wide"), Trouble::TooLarge, "of headers")
        .await;
    for path in ["/head", "/none"] {
        world.fails(ask(path), Trouble::Protocol, "").await;
    }
    world.bytes_max = 1500;
    let answers = world.all(&[ask("/fits"), ask("/fits")]).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let failed = answers
        .into_iter()
        .find_map(Result::err)
        .expect("one is too many");
    assert!(
        failed.message.contains("answers in one call"),
        "{}",
        failed.message
    );
    for path in ["/short", "/slow"] {
        let soon = Request {
            timeout_ms: Some(50),
            ..ask(path)
        };
        world
            .fails(soon, Trouble::Timeout, "did not answer within 50 ms")
            .await;
    }
    world.limits.http_time_ms = 60;
    world.limits.http_at_once = 1;
    let answers = world.all(&[ask("/slow"), ask("/slow")]).await;
    let codes: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map_err(|e| e.code))
        .collect();
    assert_eq!(codes, [Err(Trouble::Timeout), Err(Trouble::Timeout)]);
}

#[tokio::test]
async fn requests_wait_for_their_turn_or_hear_that_it_comes_too_late() {
    let server = Server::start(|_| ok("fine")).await;
    let mut world = World::new(vec![server.rule("127.0.0.1")]);
    world.access = Access::new(world.access.grant.clone(), 1);
    world.limits.http_time_ms = 900;
    let requests: Vec<Request> = (0..5).map(|_| get(&server.url("/"))).collect();
    let answers = world.all(&requests).await;
    let late = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(
        late.clone()
            .all(|e| e.code == Trouble::Rate && e.message.contains("limits.http-rate"))
    );
    assert_eq!((late.count(), server.heads().len()), (4, 1));
    // what is denied takes no turn
    let denied = get("http://other.example/");
    assert_eq!(
        world.one(denied).await.map_err(|e| e.code),
        Err(Trouble::Denied)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_told_to_stop_waits_no_longer() {
    let seen = Arc::new(AtomicBool::new(false));
    let server = {
        let seen = seen.clone();
        let answer = move |_: &str| {
            seen.store(true, Ordering::Relaxed);
            Reply::Stuck("HTTP/1.1 200 OK\r\n")
        };
        Server::start(answer).await
    };
    let world = World::new(vec![server.rule("127.0.0.1")]);
    let (stop, url) = (world.stop.clone(), server.url("/"));
    let waiting = tokio::task::spawn_blocking(move || {
        let requests = [get(&url)];
        world.client.send(&world.sending(&requests))
    });
    while !seen.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    stop.set();
    assert_eq!(waiting.await.expect("it returns"), Err(Stopped));
}

#[tokio::test]
async fn certificates_are_checked() {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("made");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.expect("a key"))
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 1024];
            if stream.read(&mut head).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let _ = stream.write_all(answer).await;
            }
        }
    });
    let at: &[&[&str]] = &[&["127.0.0.1"]];
    let names = Doubled::new(&[("a.example", at), ("b.example", at)]);
    let rule = |host: &str, port: u16| {
        let mut rule = Rule::new(Host::parse(host).expect(host));
        (rule.port, rule.reach.private) = (port, true);
        rule
    };
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let plain_port = plain.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    let rules = || vec![rule("*.example", port), rule("a.example", plain_port)];
    let own = "https://a.example:";
    let stranger = World::new(rules()).named(&names);
    stranger
        .fails(get(&format!("{own}{port}/")), Trouble::Tls, "certificate")
        .await;
    let mut friend = World::new(rules()).named(&names);
    let root = Certificate::from_der(made.cert.der()).expect("a certificate");
    friend.client.roots.push(root);
    let answer = friend
        .get(&format!("{own}{port}/"))
        .await
        .map_err(|e| e.message);
    assert_eq!(answer.map(|answer| answer.body), Ok(b"ok".to_vec()));
    // of another name
    friend
        .fails(
            get(&format!("https://b.example:{port}/")),
            Trouble::Tls,
            "b.example",
        )
        .await;
    // no TLS at all
    friend
        .fails(get(&format!("{own}{plain_port}/")), Trouble::Tls, "")
        .await;
    let nobody: SocketAddr = (Ipv4Addr::LOCALHOST, 1).into();
    let nobody = World::new(vec![rule("a.example", nobody.port())]).named(&names);
    nobody
        .fails(get(&format!("{own}1/")), Trouble::Connect, "")
        .await;
}
