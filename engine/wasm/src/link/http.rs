//! The host's side of `wit/http.wit`.
//!
//! Called by: `link`. Invariants: those of `link`, but that `send` waits; the time it waits is not the
//! guest's.
//! Refuses: calls outside a batch, more requests or bytes in one call than its limits.

use std::time::Instant;

use arrow::buffer::ScalarBuffer;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, WasmList, WasmStr};
use wasmtime::{Error, Result};

use super::{Cx, State};
use crate::deadline::Pause;
use crate::error::{Fault, bad, over};
use crate::http::{Answer, Failed, Request, Response, Stopped, Trouble};
use crate::limits::HTTP_HEADERS_MAX;
use crate::list::List;

#[derive(ComponentType, Lift)]
#[component(record)]
struct HeaderIn {
    name: WasmStr,
    value: WasmStr,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct RequestIn {
    method: WasmStr,
    url: WasmStr,
    headers: WasmList<HeaderIn>,
    body: Option<WasmList<u8>>,
    #[component(name = "timeout-ms")]
    timeout_ms: Option<u32>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct HeaderOut {
    name: String,
    value: String,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct ResponseOut {
    status: u16,
    url: String,
    headers: Vec<HeaderOut>,
    body: List<u8>,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum TroubleOut {
    #[component(name = "invalid")]
    Invalid,
    #[component(name = "denied")]
    Denied,
    #[component(name = "rate")]
    Rate,
    #[component(name = "resolve")]
    Resolve,
    #[component(name = "connect")]
    Connect,
    #[component(name = "tls")]
    Tls,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "redirect")]
    Redirect,
    #[component(name = "protocol")]
    Protocol,
    #[component(name = "other")]
    Other,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct ErrorOut {
    code: TroubleOut,
    message: String,
}

impl From<Trouble> for TroubleOut {
    fn from(code: Trouble) -> TroubleOut {
        match code {
            Trouble::Invalid => TroubleOut::Invalid,
            Trouble::Denied => TroubleOut::Denied,
            Trouble::Rate => TroubleOut::Rate,
            Trouble::Resolve => TroubleOut::Resolve,
            Trouble::Connect => TroubleOut::Connect,
            Trouble::Tls => TroubleOut::Tls,
            Trouble::Timeout => TroubleOut::Timeout,
            Trouble::TooLarge => TroubleOut::TooLarge,
            Trouble::Redirect => TroubleOut::Redirect,
            Trouble::Protocol => TroubleOut::Protocol,
            Trouble::Other => TroubleOut::Other,
        }
    }
}

pub(super) fn http(interface: &mut LinkerInstance<'_, State>) -> Result<()> {
    interface.func_wrap("send", |mut cx: Cx<'_>, (list,): (WasmList<RequestIn>,)| {
        if cx.data().lent.is_none() {
            return bad("http: no requests are made outside of a batch".into());
        }
        cx.data_mut().http.take(list.len())?;
        if let Err(denied) = cx.data().http.granted() {
            let denied = (0..list.len()).map(|_| told(Err(denied.clone())));
            return Ok((denied.collect::<Vec<_>>(),));
        }
        let requests = read_all(&mut cx, &list)?;
        let answers = waited(cx.data_mut(), &requests)?;
        Ok((answers.into_iter().map(told).collect::<Vec<_>>(),))
    })
}

/// Copies the requests out of the guest. Its lists may overlap: what the host would hold of them is counted,
/// and of each list of headers before it is looked at, because wasmtime counts each of them anew.
fn read_all(cx: &mut Cx<'_>, list: &WasmList<RequestIn>) -> Result<Vec<Request>> {
    let most = cx.hostcall_fuel();
    let listed: Vec<RequestIn> = list.iter(&mut *cx)?.collect::<Result<_>>()?;
    let mut left = most;
    let mut requests = Vec::with_capacity(listed.len());
    for request in &listed {
        cx.set_hostcall_fuel(left);
        let read = read(cx, request);
        cx.set_hostcall_fuel(most);
        let read = read?;
        let Some(rest) = left.checked_sub(read.bytes()) else {
            return over("bytes of requests in one call", most);
        };
        left = rest;
        requests.push(read);
    }
    Ok(requests)
}

/// The guest stands still meanwhile: neither time is its own.
fn waited(state: &mut State, requests: &[Request]) -> Result<Vec<Answer>> {
    let (pause, since) = (Pause::begin(), Instant::now());
    let answers = state.http.send(requests);
    state.clock.resume(&pause);
    let answers = answers.map_err(|Stopped| Error::new(Fault::Stopped))?;
    let failures = answers.iter().filter(|answer| answer.is_err()).count();
    let metrics = &state.context.metrics;
    metrics.count("http.requests", answers.len() as u64);
    metrics.count("http.failures", failures as u64);
    metrics.count("http.wait_us", since.elapsed().as_micros() as u64);
    Ok(answers)
}

fn read(cx: &mut Cx<'_>, request: &RequestIn) -> Result<Request> {
    if request.headers.len() > HTTP_HEADERS_MAX {
        return over("headers of one request", HTTP_HEADERS_MAX);
    }
    let listed: Vec<HeaderIn> = request.headers.iter(&mut *cx)?.collect::<Result<_>>()?;
    let text = |text: &WasmStr| text.to_str(&*cx).map(|text| text.into_owned());
    let pair = |header: &HeaderIn| Ok((text(&header.name)?, text(&header.value)?));
    let body = request.body.as_ref();
    Ok(Request {
        method: text(&request.method)?,
        url: text(&request.url)?,
        headers: listed.iter().map(pair).collect::<Result<_>>()?,
        body: body.map(|body| body.as_le_slice(&*cx).to_vec()),
        timeout_ms: request.timeout_ms,
    })
}

fn told(answer: Answer) -> std::result::Result<ResponseOut, ErrorOut> {
    let header = |(name, value)| HeaderOut { name, value };
    match answer {
        Ok(Response {
            status,
            url,
            headers,
            body,
        }) => Ok(ResponseOut {
            status,
            url,
            headers: headers.into_iter().map(header).collect(),
            body: ScalarBuffer::<u8>::from(body).into(),
        }),
        Err(Failed { code, message }) => Err(ErrorOut {
            code: code.into(),
            message,
        }),
    }
}
