//! Imports of `rustmq:etl/http`.
//!
//! Called by: `http` (on WebAssembly only). Invariants: those of `abi`.

use super::{list, string};
use crate::http::{Error, Request, Response, Trouble};

#[link(wasm_import_module = "rustmq:etl/http@0.1.5")]
unsafe extern "C" {
    #[link_name = "send"]
    fn host_send(requests: *const RequestOut, requests_len: usize, ret: *mut [u32; 2]);
}

#[repr(C)]
struct Text {
    text: *const u8,
    len: usize,
}

impl Text {
    fn of(text: &str) -> Text {
        Text {
            text: text.as_ptr(),
            len: text.len(),
        }
    }
}

/// `record request`
#[repr(C)]
struct RequestOut {
    method: Text,
    url: Text,
    headers: *const [Text; 2],
    headers_len: usize,
    has_body: u32,
    body: *const u8,
    body_len: usize,
    has_timeout: u32,
    timeout_ms: u32,
}

/// In the order of the contract.
const TROUBLES: [Trouble; 11] = [
    Trouble::Invalid,
    Trouble::Denied,
    Trouble::Rate,
    Trouble::Resolve,
    Trouble::Connect,
    Trouble::Tls,
    Trouble::Timeout,
    Trouble::TooLarge,
    Trouble::Redirect,
    Trouble::Protocol,
    Trouble::Other,
];

pub(crate) fn send(requests: &[Request]) -> Vec<Result<Response, Error>> {
    let pair = |(name, value): &(String, String)| [Text::of(name), Text::of(value)];
    let headers = requests
        .iter()
        .map(|r| r.headers.iter().map(pair).collect());
    let headers: Vec<Vec<[Text; 2]>> = headers.collect();
    let out = requests.iter().zip(&headers).map(|(request, headers)| {
        let body = request.body.as_deref();
        let timeout = request.timeout.map(|t| t.as_millis());
        RequestOut {
            method: Text::of(&request.method),
            url: Text::of(&request.url),
            headers: headers.as_ptr(),
            headers_len: headers.len(),
            has_body: u32::from(body.is_some()),
            body: body.unwrap_or_default().as_ptr(),
            body_len: body.map_or(0, <[u8]>::len),
            has_timeout: u32::from(timeout.is_some()),
            timeout_ms: timeout.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX)),
        }
    });
    let out: Vec<RequestOut> = out.collect();
    let mut ret = [0; 2];
    // SAFETY: the lists are read during the call, which writes the list of answers into `ret`
    let answers = unsafe {
        host_send(out.as_ptr(), out.len(), &mut ret);
        list::<[u32; 8]>(ret[0], ret[1])
    };
    // SAFETY: each is an answer that the host wrote, taken over once
    answers
        .into_iter()
        .map(|parts| unsafe { answer(parts) })
        .collect()
}

/// # Safety
/// `parts` is a `result<response, error>` of the host.
unsafe fn answer(parts: [u32; 8]) -> Result<Response, Error> {
    let [kind, first, a, b, c, d, e, f] = parts;
    // SAFETY: texts and lists, each its own allocation. What is narrower than its word has padding behind
    // it, which the host does not write.
    unsafe {
        if kind & 0xff != 0 {
            let code = (first & 0xff) as usize;
            let trouble = TROUBLES.get(code).copied().unwrap_or(Trouble::Other);
            return Err(Error::new(trouble, string(a, b)));
        }
        let pair = |[name, name_len, value, value_len]: [u32; 4]| {
            (string(name, name_len), string(value, value_len))
        };
        Ok(Response {
            status: (first & 0xffff) as u16,
            url: string(a, b),
            headers: list::<[u32; 4]>(c, d).into_iter().map(pair).collect(),
            body: list(e, f),
        })
    }
}
