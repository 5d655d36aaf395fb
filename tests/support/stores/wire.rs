//! A proxy on loopback between the product and a store, which makes trouble by a rule.
//!
//! Called by: tests. Invariants: it looks at whole requests, so that a trouble is before the
//! store heard of it or after it did it, never in between by chance; without a rule all passes.
//! Refuses: nothing by itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::http::{self, Answer, Request};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Answered so without the store being asked.
    Status(u16),
    /// The connection goes before the store is asked.
    Reset,
    /// Half of the body reaches the store.
    Torn,
    /// The store does it, the answer is lost.
    LostAnswer,
    /// The store does it, the answer is an error.
    WrongAnswer,
    /// No answer as long as the wire is there.
    Silence,
}

type Rule = Box<dyn FnMut(&Request) -> Option<Trouble> + Send>;
/// How a request is answered when nothing goes wrong.
pub type Serve = Arc<dyn Fn(&Request) -> std::io::Result<Answer> + Send + Sync>;

struct State {
    rule: Mutex<Option<Rule>>,
    fired: Mutex<BTreeMap<Trouble, u64>>,
    requests: Mutex<Vec<String>>,
    silent: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
    /// Where the store is, for requests that arrive torn.
    upstream: u16,
    serve: Serve,
}

pub struct Wire {
    pub port: u16,
    state: Arc<State>,
}

impl Wire {
    /// Before a server on this port.
    pub fn before(upstream: u16) -> Wire {
        let pass = move |request: &Request| http::forward(upstream, request);
        Wire::serving(upstream, Arc::new(pass))
    }

    /// Before something that answers in its own way.
    pub fn serving(upstream: u16, serve: Serve) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            rule: Mutex::default(),
            fired: Mutex::default(),
            requests: Mutex::default(),
            silent: Mutex::default(),
            closed: AtomicBool::new(false),
            upstream,
            serve,
        });
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.closed.load(Ordering::Acquire) {
                    return;
                }
                let state = Arc::clone(&accepting);
                std::thread::spawn(move || state.take(stream));
            }
        });
        Wire { port, state }
    }

    /// From now on; the rule sees every request.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Option<Trouble> + Send + 'static) {
        *self.state.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// From now on all passes, and who was left without an answer is let go.
    pub fn calm(&self) {
        *self.state.rule.lock().unwrap() = None;
        self.state.silent.lock().unwrap().clear();
    }

    pub fn fired(&self) -> BTreeMap<Trouble, u64> {
        self.state.fired.lock().unwrap().clone()
    }

    /// Method and target of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl State {
    /// One connection, one request.
    fn take(&self, stream: TcpStream) {
        // A peer that goes away in the middle is what these tests are about.
        let Ok(Some(request)) = Request::read(&stream) else {
            return;
        };
        let line = format!("{} {}", request.method, request.target);
        self.requests.lock().unwrap().push(line);
        let trouble = match &mut *self.rule.lock().unwrap() {
            Some(rule) => rule(&request),
            None => None,
        };
        if let Some(trouble) = trouble {
            *self.fired.lock().unwrap().entry(trouble).or_default() += 1;
        }
        let answer = match trouble {
            None => (self.serve)(&request).ok(),
            Some(Trouble::Status(status)) => Some(excuse(status)),
            Some(Trouble::Reset) => None,
            Some(Trouble::Torn) => {
                let _ = http::forward_torn(self.upstream, &request);
                None
            }
            Some(Trouble::LostAnswer) => {
                let _ = (self.serve)(&request);
                None
            }
            Some(Trouble::WrongAnswer) => {
                let _ = (self.serve)(&request);
                Some(excuse(500))
            }
            Some(Trouble::Silence) => return self.silent.lock().unwrap().push(stream),
        };
        self.reply(stream, answer);
    }

    fn reply(&self, mut stream: TcpStream, answer: Option<Answer>) {
        if let Some(answer) = answer {
            let _ = stream.write_all(&answer.raw);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// The error document that both kinds of store send.
fn excuse(status: u16) -> Answer {
    let code = match status {
        409 => "ConditionalRequestConflict",
        503 => "SlowDown",
        _ => "InternalError",
    };
    let body = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    Answer::new(status, &[("content-type", "application/xml")], &body)
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Release);
        self.state.silent.lock().unwrap().clear();
        // Wakes the thread that accepts, so that it sees.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
