//! Servers of tests, on this machine, and names that lead where a test says.
//!
//! Called by: tests of `egress` and of the evil guest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wasm::http::address::Network;
use wasm::http::grant::{Host, Rule, Scheme};

use super::names::Names;

/// What a server does with a request.
pub(crate) enum Reply {
    Text(String),
    /// This again and again.
    Endless(&'static str, &'static str),
    /// This, and then nothing.
    Stuck(&'static str),
}

pub(crate) fn ok(body: &str) -> Reply {
    let bytes = body.len();
    Reply::Text(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\nX-Seen: ä\r\n\r\n{body}"
    ))
}

pub(crate) fn moved(to: &str) -> Reply {
    Reply::Text(format!(
        "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
    ))
}

/// A server on a port of its own; keeps the heads of requests.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (heads, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let server = Server { port, heads };
        let started = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().connection(stream, answer.clone()));
            }
        });
        started
    }

    async fn connection<A>(self, mut stream: TcpStream, answer: Arc<A>)
    where
        A: Fn(&str) -> Reply,
    {
        let mut held = Vec::new();
        loop {
            while !held.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read_buf(&mut held).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            let end = held
                .windows(4)
                .position(|end| end == b"\r\n\r\n")
                .expect("a head")
                + 4;
            let head = String::from_utf8_lossy(&held[..end]).into_owned();
            held.drain(..end);
            let length =
                header(&head, "content-length").map_or(0, |n| n.parse().expect("a length"));
            while held.len() < length {
                stream.read_buf(&mut held).await.expect("a body");
            }
            held.drain(..length);
            self.heads.lock().expect("heads").push(head.clone());
            let sent = match answer(&head) {
                Reply::Text(text) => stream.write_all(text.as_bytes()).await,
                Reply::Stuck(text) => {
                    stream
                        .write_all(text.as_bytes())
                        .await
                        .expect("a beginning");
                    std::future::pending().await
                }
                Reply::Endless(begin, piece) => {
                    let pieces = piece.repeat(1_000);
                    let mut sent = stream.write_all(begin.as_bytes()).await;
                    while sent.is_ok() {
                        sent = stream.write_all(pieces.as_bytes()).await;
                    }
                    sent
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("heads").clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What allows all of it.
    pub(crate) fn rule(&self, host: &str) -> Rule {
        let mut rule = Rule::new(Host::parse(host).expect(host));
        (rule.scheme, rule.port) = (Scheme::Http, self.port);
        rule.methods = ["GET", "POST"].map(String::from).into();
        rule.reach.networks = vec![Network::one(Ipv4Addr::LOCALHOST.into())];
        rule
    }
}

pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value)
}

/// Answers look-ups from a list, the last one for ever.
#[derive(Debug, Default)]
pub(crate) struct Doubled {
    answers: Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>,
    pub(crate) asked: AtomicUsize,
}

impl Doubled {
    pub(crate) fn new(names: &[(&str, &[&[&str]])]) -> Arc<Doubled> {
        let list = |list: &[&str]| list.iter().map(|ip| ip.parse().expect(ip)).collect();
        let names = names.iter().map(|(name, answers)| {
            let answers = answers.iter().map(|answer| list(answer));
            ((*name).to_owned(), answers.collect())
        });
        Arc::new(Doubled {
            answers: Mutex::new(names.collect()),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Names for Doubled {
    fn look_up(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().expect("answers");
        let known = answers.get_mut(&host);
        let found = known.map(|list| match list.len() {
            1 => list[0].clone(),
            _ => list.pop_front().unwrap_or_default(),
        });
        let none = || io::Error::new(io::ErrorKind::NotFound, "no such name");
        Box::pin(async move { found.ok_or_else(none) })
    }
}
