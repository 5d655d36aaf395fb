//! The requests that modules make: the client behind [`wasm::http::Egress`].
//!
//! - `names` from a host's name to addresses that may be reached; `secrets` what is put into headers
//!
//! Called by: `node` (makes it), the sandbox (`send`, from the thread of a lane), `apply` (`refuses`).
//! Invariants: what may be sent, and where, is decided by [`wasm::http`]; each hop of a redirect is decided
//! anew; a connection goes to an address that was checked, with no second look-up; no proxy, no
//! cookies, no decompression; a secret goes into a header on its way out and nowhere else.
//! Refuses: all that is not granted; answers above the limits, while they are read.

#[cfg(test)]
pub(crate) mod doubles;
mod names;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Method};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wasm::http::address::{Network, Reach};
use wasm::http::grant::{Rule, Scheme};
use wasm::http::request::{Checked, check, outgoing, redirected};
use wasm::http::{Answer, Egress, Failed, Request, Response, Sending, Stop, Stopped, Trouble};

use names::{Checking, Names, Refused, System};
pub use secrets::{Secret, Secrets, Source};

/// Redirects that are followed for one request.
const REDIRECTS_MAX: usize = 5;
/// Most bytes of an answer's headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests that are under way at a time, of all modules.
const UNDER_WAY_MAX: usize = 256;
/// Connections that wait for the next request, by host, and how long.
const IDLE_MAX: usize = 8;
const IDLE: Duration = Duration::from_secs(30);
/// Sets of connections that are kept; there is one for each reach that a grant has.
const CLIENTS_MAX: usize = 64;
/// How often is looked whether the lane was told to stop.
const LOOK: Duration = Duration::from_millis(20);

/// The client of a node. Its connections are kept by what they may reach.
#[derive(Debug)]
pub struct Client {
    handle: Handle,
    secrets: Secrets,
    /// What of the addresses that are not public grants may name.
    networks: Vec<Network>,
    names: Arc<dyn Names>,
    roots: Vec<Certificate>,
    clients: Mutex<BTreeMap<Reach, reqwest::Client>>,
    under_way: Semaphore,
}

impl Client {
    pub fn new(handle: Handle, secrets: Secrets, networks: Vec<Network>) -> Client {
        Client {
            handle,
            secrets,
            networks,
            names: Arc::new(System),
            roots: Vec::new(),
            clients: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
        }
    }

    /// One whose names lead where a test says.
    #[cfg(test)]
    pub(crate) fn named(mut self, names: Arc<doubles::Doubled>) -> Client {
        self.names = names;
        self
    }

    async fn all(&self, sending: &Sending<'_>) -> Vec<Answer> {
        let batch = &Batch {
            sending,
            until: Instant::now() + sending.time,
            bytes_left: AtomicUsize::new(sending.bytes_max),
        };
        let each = |at: usize| async move {
            let request = sending.requests[at].clone();
            (at, self.one(batch, request).await)
        };
        let requests = stream::iter((0..sending.requests.len()).map(each));
        let at_once = requests.buffer_unordered(sending.limits.http_at_once.max(1));
        let mut answers: Vec<(usize, Answer)> = at_once.collect().await;
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn one(&self, batch: &Batch<'_>, request: Request) -> Answer {
        let request = check(request, batch.sending.limits)?;
        // what is denied costs nobody a turn
        batch.rule(&request)?;
        batch.turn().await?;
        let place = request.url.origin().ascii_serialization();
        let time = Duration::from_millis(request.timeout_ms).min(batch.left());
        let work = async {
            let _place = self.under_way.acquire().await;
            self.follow(batch, request).await
        };
        tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
            let ms = time.as_millis();
            let why = format!("{place} did not answer within {ms} ms");
            Err(Failed::new(Trouble::Timeout, why))
        })
    }

    async fn follow(&self, batch: &Batch<'_>, mut request: Checked) -> Answer {
        for hop in 0..=REDIRECTS_MAX {
            let behind = |failed: Failed| match hop {
                0 => failed,
                _ => Failed::new(
                    failed.code,
                    format!("behind a redirect: {}", failed.message),
                ),
            };
            let rule = batch.rule(&request).map_err(behind)?;
            if hop > 0 {
                batch.turn().await?;
            }
            let response = self.exchange(rule, &request).await.map_err(behind)?;
            let location = response.headers().get("location");
            let location = location.and_then(|value| value.to_str().ok());
            match redirected(&request, response.status().as_u16(), location)? {
                Some(next) => request = next,
                None => return batch.read(&request, response).await,
            }
        }
        Err(Failed::new(
            Trouble::Redirect,
            format!("more than {REDIRECTS_MAX} redirects"),
        ))
    }

    /// One request, one answer.
    async fn exchange(&self, rule: &Rule, request: &Checked) -> Result<reqwest::Response, Failed> {
        if let Some(address) = literal(request) {
            let allowed = rule.reach.allows(address, &self.networks);
            allowed.map_err(|why| Failed::new(Trouble::Denied, why))?;
        }
        let headers = outgoing(&request.headers, rule, |name| self.secrets.value(name))?;
        let method = Method::from_bytes(request.method.as_bytes());
        let method = method.map_err(|e| Failed::new(Trouble::Invalid, e))?;
        let mut sent = self
            .client(&rule.reach)?
            .request(method, request.url.clone());
        sent = sent.headers(map(headers)?);
        if let Some(body) = &request.body {
            sent = sent.body(body.clone());
        }
        sent.send().await.map_err(failed)
    }

    /// The connections to what may be reached so.
    fn client(&self, reach: &Reach) -> Result<reqwest::Client, Failed> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(reach) {
            return Ok(client.clone());
        }
        let names = Checking {
            names: self.names.clone(),
            reach: reach.clone(),
            bound: self.networks.clone(),
        };
        let mut made = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE)
            .dns_resolver(Arc::new(names));
        for root in &self.roots {
            made = made.add_root_certificate(root.clone());
        }
        let made = made.build().map_err(|error| {
            tracing::error!(error = %chain(&error), "no HTTP client for modules");
            Failed::new(
                Trouble::Other,
                "the server has no HTTP client; its log says why",
            )
        })?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(reach.clone(), made.clone());
        Ok(made)
    }
}

impl Egress for Client {
    fn refuses(&self, rule: &Rule) -> Option<String> {
        let open = rule.reach.private || !rule.reach.networks.is_empty();
        if open && self.networks.is_empty() {
            return Some(
                "this server lets no grant reach addresses that are not public; its operator may, with \
                 modules.http_networks"
                    .into(),
            );
        }
        if let Some(Err(why)) = rule
            .host
            .address()
            .map(|a| rule.reach.allows(a, &self.networks))
        {
            return Some(why);
        }
        let plain = rule.scheme == Scheme::Http && !open;
        self.secrets.refuse(rule, plain)
    }

    fn send(&self, sending: &Sending<'_>) -> Result<Vec<Answer>, Stopped> {
        self.handle.block_on(async {
            tokio::select! {
                biased;
                () = stopped(sending.stop) => Err(Stopped),
                answers = self.all(sending) => Ok(answers),
            }
        })
    }
}

async fn stopped(stop: &Stop) {
    while !stop.is_set() {
        tokio::time::sleep(LOOK).await;
    }
}

/// The requests of one call of a module.
struct Batch<'a> {
    sending: &'a Sending<'a>,
    until: Instant,
    bytes_left: AtomicUsize,
}

impl Batch<'_> {
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn rule(&self, request: &Checked) -> Result<&Rule, Failed> {
        self.sending
            .access
            .grant
            .rule(&request.method, &request.url)
    }

    /// Waits until the node may make another request.
    async fn turn(&self) -> Result<(), Failed> {
        let left = self.left();
        if left.is_zero() {
            let all = self.sending.limits.http_time_ms;
            let why =
                format!("the {all} ms of a batch's requests are over; raise limits.http-time");
            return Err(Failed::new(Trouble::Timeout, why));
        }
        let Some(wait) = self.sending.access.turn(left) else {
            let per_s = self.sending.limits.http_per_s;
            let why = format!(
                "at {per_s} a second its turn would not come in the time of this batch; raise \
                 limits.http-rate or limits.http-time, or make batches smaller"
            );
            return Err(Failed::new(Trouble::Rate, why));
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Reads an answer, as far as the limits go.
    async fn read(&self, request: &Checked, mut response: reqwest::Response) -> Answer {
        let limit = self.sending.limits.http_received_bytes;
        let too_large = |what: &str, most: usize| {
            let what = format!("more than {most} bytes of {what}");
            Err(Failed::new(Trouble::TooLarge, what))
        };
        let (status, mut headers, mut bytes) = (response.status().as_u16(), Vec::new(), 0);
        for (name, value) in response.headers() {
            bytes += name.as_str().len() + value.len();
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.push((name.as_str().to_owned(), value));
        }
        if bytes > HEAD_BYTES_MAX {
            return too_large("headers", HEAD_BYTES_MAX);
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > limit {
                return too_large("answer: limits.http-received", limit);
            }
            let take = |left: usize| left.checked_sub(piece.len());
            let order = Ordering::Relaxed;
            if self.bytes_left.fetch_update(order, order, take).is_err() {
                let all = self.sending.bytes_max;
                return too_large("answers in one call: half of limits.memory", all);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Response {
            status,
            url: request.url.to_string(),
            headers,
            body,
        })
    }
}

/// The address that a URL names instead of a host.
fn literal(request: &Checked) -> Option<IpAddr> {
    match request.url.host()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

fn map(headers: Vec<(String, String, bool)>) -> Result<HeaderMap, Failed> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value, hidden) in headers {
        // never with its value: it may be a secret
        let wrong = || {
            Failed::new(
                Trouble::Invalid,
                format!("the header {name} cannot be sent"),
            )
        };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?;
        value.set_sensitive(hidden);
        map.append(key, value);
    }
    Ok(map)
}

/// What went wrong, without the URL.
fn failed(error: reqwest::Error) -> Failed {
    let error = error.without_url();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(this) = cause {
        if let Some(Refused { code, why }) = this.downcast_ref() {
            return Failed::new(*code, why);
        }
        if let Some(tls) = tls(this) {
            return Failed::new(Trouble::Tls, tls);
        }
        cause = this.source();
    }
    let code = match () {
        () if error.is_timeout() => Trouble::Timeout,
        () if error.is_connect() => Trouble::Connect,
        () => Trouble::Protocol,
    };
    Failed::new(code, chain(&error))
}

/// The error of TLS, which comes wrapped in errors of the socket that do not say so.
fn tls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapped) => wrapped.get_ref().and_then(|inner| tls(inner)),
        None => error.downcast_ref(),
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(this) = cause {
        let said = this.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = this.source();
    }
    text
}
