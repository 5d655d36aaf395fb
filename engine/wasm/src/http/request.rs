//! Whether what a module wants to send is a request, and where a redirect leads.
//!
//! Called by: the server's client. Pure.
//! Invariants: what comes out of here has no control characters, no user and no header that the client
//! writes itself; what is for one origin is not sent to another.
//! Refuses: what is no HTTP, more headers and longer ones than a server takes.

use url::Url;

use super::grant::{HeaderValue, Rule, Scheme};
use super::{Failed, Request, Trouble};
use crate::limits::{
    HTTP_HEADER_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_METHOD_BYTES_MAX, HTTP_URL_BYTES_MAX, Limits,
};

/// Headers that belong to the connection, or that the client writes itself.
const OWN: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of a module that may go on to another origin.
const HARMLESS: [&str; 6] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "content-type",
    "range",
    "user-agent",
];

/// A request that can be made, if it is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub method: String,
    pub url: Url,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub timeout_ms: u64,
}

fn invalid<T>(message: impl std::fmt::Display) -> Result<T, Failed> {
    Err(Failed::new(Trouble::Invalid, message))
}

/// Whether a request is one, and small enough.
///
/// # Errors
/// `invalid`, with what is wrong.
pub fn check(request: Request, limits: &Limits) -> Result<Checked, Failed> {
    let Request {
        method,
        url,
        headers,
        body,
        timeout_ms,
    } = request;
    if method.len() > HTTP_METHOD_BYTES_MAX {
        let bytes = method.len();
        return invalid(format!(
            "a method of {bytes} bytes, of at most {HTTP_METHOD_BYTES_MAX}"
        ));
    }
    if !is_token(&method) {
        return invalid(format!("{method:?} is not a method such as GET"));
    }
    let url = parsed(&url)?;
    let headers = checked(headers)?;
    let bytes = body.as_ref().map_or(0, Vec::len);
    if bytes > limits.http_sent_bytes {
        let most = limits.http_sent_bytes;
        return invalid(format!(
            "a body of {bytes} bytes, of at most {most}; raise limits.http-sent if right"
        ));
    }
    let timeout_ms = timeout_ms.map_or(limits.http_timeout_ms, u64::from);
    Ok(Checked {
        method,
        url,
        headers,
        body,
        timeout_ms: timeout_ms.min(limits.http_timeout_ms),
    })
}

fn parsed(text: &str) -> Result<Url, Failed> {
    if text.len() > HTTP_URL_BYTES_MAX {
        let bytes = text.len();
        return invalid(format!(
            "a URL of {bytes} bytes, of at most {HTTP_URL_BYTES_MAX}"
        ));
    }
    let url = Url::parse(text);
    let mut url = url.or_else(|e| invalid(format!("{text:?} is not an absolute URL: {e}")))?;
    if Scheme::of(&url).is_none() {
        let scheme = url.scheme();
        return invalid(format!("a URL of {scheme}: requests are https or http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid("a URL with a user: put what it stands for into a header");
    }
    url.set_fragment(None);
    Ok(url)
}

fn checked(headers: Vec<(String, String)>) -> Result<Vec<(String, String)>, Failed> {
    if headers.len() > HTTP_HEADERS_MAX {
        let count = headers.len();
        return invalid(format!("{count} headers, of at most {HTTP_HEADERS_MAX}"));
    }
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > HTTP_HEADER_BYTES_MAX {
        return invalid(format!(
            "{bytes} bytes of headers, of at most {HTTP_HEADER_BYTES_MAX}"
        ));
    }
    let each = |(name, value): (String, String)| {
        let name = header_name(&name).or_else(invalid)?;
        match is_value(&value) {
            true => Ok((name, value)),
            false => invalid(format!(
                "the header {name} has control characters: no line ends here"
            )),
        }
    };
    headers.into_iter().map(each).collect()
}

/// A header's name in lower case, if a module or a grant may set it.
///
/// # Errors
/// What is wrong with it.
pub fn header_name(name: &str) -> Result<String, String> {
    if !is_token(name) {
        return Err(format!("{name:?} is not the name of a header"));
    }
    let name = name.to_ascii_lowercase();
    match OWN.contains(&name.as_str()) {
        true => Err(format!("the host writes the header {name} itself")),
        false => Ok(name),
    }
}

/// Whether it can be the value of a header.
pub fn is_value(value: &str) -> bool {
    !value.chars().any(|c| c != '\t' && c.is_control())
}

fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

/// The headers that go out: the module's, and over them those of the rule.
///
/// # Errors
/// A secret that is not there, as `secret` says it.
pub fn outgoing<S>(
    own: &[(String, String)],
    rule: &Rule,
    secret: impl Fn(&str) -> Result<String, S>,
) -> Result<Vec<(String, String, bool)>, S> {
    let replaced = |name: &String| rule.headers.iter().any(|(put, _)| put == name);
    let own = own.iter().filter(|(name, _)| !replaced(name));
    let mut out: Vec<_> = own
        .map(|(name, value)| (name.clone(), value.clone(), false))
        .collect();
    for (name, value) in &rule.headers {
        let (value, hidden) = match value {
            HeaderValue::Text(text) => (text.clone(), false),
            HeaderValue::Secret { name, prefix } => (format!("{prefix}{}", secret(name)?), true),
        };
        out.push((name.clone(), value, hidden));
    }
    Ok(out)
}

/// The request that an answer asks for instead, if it is a redirect; whether it is granted is for
/// [`super::grant::Grant::rule`] to say, as of any other.
///
/// # Errors
/// `redirect`: it leads nowhere.
pub fn redirected(
    sent: &Checked,
    status: u16,
    location: Option<&str>,
) -> Result<Option<Checked>, Failed> {
    let (true, Some(location)) = (matches!(status, 301 | 302 | 303 | 307 | 308), location) else {
        return Ok(None);
    };
    let lost = |why: String| Failed::new(Trouble::Redirect, why);
    if location.len() > HTTP_URL_BYTES_MAX {
        return Err(lost(format!(
            "a redirect to a URL of {} bytes",
            location.len()
        )));
    }
    let url = sent.url.join(location);
    let url = url.map_err(|e| lost(format!("a redirect to {location:?}: {e}")))?;
    let url = parsed(url.as_str()).map_err(|e| lost(format!("a redirect to {}", e.message)))?;
    let mut next = sent.clone();
    let reads = ["GET", "HEAD"].contains(&sent.method.as_str());
    // as browsers have done it for decades, and as HTTP says it since
    if (status == 303 && !reads) || (matches!(status, 301 | 302) && sent.method == "POST") {
        next.method = "GET".into();
        next.body = None;
        next.headers.retain(|(name, _)| name != "content-type");
    }
    if url.origin() != sent.url.origin() {
        next.headers
            .retain(|(name, _)| HARMLESS.contains(&name.as_str()));
    }
    next.url = url;
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::grant::Host;

    /// Method, URL, headers, and why not.
    type Refused<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

    fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Request {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Request {
            method: method.into(),
            url: url.into(),
            headers: headers.iter().map(owned).collect(),
            body: None,
            timeout_ms: None,
        }
    }

    fn get(url: &str, headers: &[(&str, &str)]) -> Checked {
        check(request("GET", url, headers), &Limits::default()).expect(url)
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = format!("https://a.example/{}", "x".repeat(HTTP_URL_BYTES_MAX));
        let refused: [Refused<'_>; 14] = [
            ("", "https://a.example/", &[], "not a method"),
            ("GET /", "https://a.example/", &[], "not a method"),
            ("GET\r\nX: y", "https://a.example/", &[], "not a method"),
            ("GET", "/path", &[], "not an absolute URL"),
            ("GET", "file:///etc/passwd", &[], "https or http"),
            ("GET", "https://user:word@a.example/", &[], "with a user"),
            ("GET", "https://", &[], "not an absolute URL"),
            ("GET", &long, &[], "a URL of"),
            (
                "GET",
                "https://a.example/",
                &[("x", "1\r\nhost: b.example")],
                "control characters",
            ),
            (
                "GET",
                "https://a.example/",
                &[("x", "a\0b")],
                "control characters",
            ),
            (
                "GET",
                "https://a.example/",
                &[("x\r\ny", "1")],
                "not the name of a header",
            ),
            (
                "GET",
                "https://a.example/",
                &[("Host", "b.example")],
                "host itself",
            ),
            (
                "GET",
                "https://a.example/",
                &[("Transfer-Encoding", "chunked")],
                "itself",
            ),
            (
                "GET",
                "https://a.example/",
                &[("content-length", "7")],
                "itself",
            ),
        ];
        for (method, url, headers, why) in refused {
            let failed = check(request(method, url, headers), &Limits::default()).expect_err(url);
            assert_eq!(failed.code, Trouble::Invalid);
            let why = why.replace("host itself", "the host writes the header host itself");
            assert!(
                failed.message.contains(&why),
                "{method} {url}: {}",
                failed.message
            );
        }
        let many = vec![("a", "b"); HTTP_HEADERS_MAX + 1];
        assert!(
            check(
                request("GET", "https://a.example/", &many),
                &Limits::default()
            )
            .is_err()
        );
        let wide = "x".repeat(HTTP_HEADER_BYTES_MAX);
        let wide = request("GET", "https://a.example/", &[("a", &wide)]);
        assert!(check(wide, &Limits::default()).is_err());
        let limits = Limits::default();
        let heavy = Request {
            body: Some(vec![0; limits.http_sent_bytes + 1]),
            ..request("POST", "https://a.example/", &[])
        };
        let failed = check(heavy, &limits).expect_err("too large");
        assert!(
            failed.message.contains("limits.http-sent"),
            "{}",
            failed.message
        );
    }

    #[test]
    fn a_request_is_made_plain() {
        // line ends in a URL are left out by the rules of URLs, never sent
        let checked = get(
            "https://A.example:443/a\r\nb?q=a b#part",
            &[("X-Key", "v"), ("t", "a\tb")],
        );
        assert_eq!(checked.url.as_str(), "https://a.example/ab?q=a%20b");
        assert_eq!(checked.headers[0], ("x-key".into(), "v".into()));
        let limits = Limits::default();
        assert_eq!(checked.timeout_ms, limits.http_timeout_ms);
        let timeout = |timeout_ms| {
            let request = Request {
                timeout_ms,
                ..request("GET", "https://a.example/", &[])
            };
            check(request, &limits).map(|checked| checked.timeout_ms)
        };
        assert_eq!(timeout(Some(7)), Ok(7));
        assert_eq!(timeout(Some(u32::MAX)), Ok(limits.http_timeout_ms));
    }

    #[test]
    fn the_headers_of_a_rule_come_over_those_of_the_module() {
        let mut rule = Rule::new(Host::parse("a.example").expect("a host"));
        let secret = |name: &str, prefix: &str| HeaderValue::Secret {
            name: name.into(),
            prefix: prefix.into(),
        };
        rule.headers = vec![
            ("authorization".into(), secret("token", "Bearer ")),
            ("user-agent".into(), HeaderValue::Text("rustmq".into())),
        ];
        let own = [("authorization", "mine"), ("accept", "a")].map(|(n, v)| (n.into(), v.into()));
        let all = outgoing(&own, &rule, |name| Ok::<_, ()>(format!("<{name}>")));
        let all: Vec<_> = all
            .into_iter()
            .flatten()
            .map(|(n, v, h)| format!("{n}: {v} {h}"))
            .collect();
        assert_eq!(
            all,
            [
                "accept: a false",
                "authorization: Bearer <token> true",
                "user-agent: rustmq false"
            ]
        );
        assert_eq!(
            outgoing(&own, &rule, |name| Err(name.to_owned())),
            Err("token".to_owned())
        );
    }

    #[test]
    fn redirects_keep_what_they_may() {
        let headers = [
            ("authorization", "mine"),
            ("cookie", "c"),
            ("x-key", "k"),
            ("accept", "a"),
        ];
        let mut post = get("https://a.example/x/y", &headers);
        (post.method, post.body) = ("POST".into(), Some(b"body".to_vec()));
        let next = |status, location: &str| {
            let next = redirected(&post, status, Some(location))
                .expect(location)
                .expect(location);
            let names: Vec<&str> = next.headers.iter().map(|(name, _)| name.as_str()).collect();
            format!(
                "{} {} {} {}",
                next.method,
                next.url,
                next.body.is_some(),
                names.join(",")
            )
        };
        let all = "authorization,cookie,x-key,accept";
        assert_eq!(
            next(307, "../z"),
            format!("POST https://a.example/z true {all}")
        );
        assert_eq!(
            next(302, "/z#part"),
            format!("GET https://a.example/z false {all}")
        );
        assert_eq!(
            next(303, "?q"),
            format!("GET https://a.example/x/y?q false {all}")
        );
        for other in [
            "https://b.example/",
            "http://a.example/",
            "https://a.example:8443/",
            "//b.example/",
        ] {
            assert!(next(308, other).ends_with("true accept"), "{other}");
        }
        for location in [
            "https://",
            "ftp://a.example/",
            "https://u:p@a.example/",
            "javascript:1",
        ] {
            let failed = redirected(&post, 301, Some(location)).expect_err(location);
            assert_eq!(failed.code, Trouble::Redirect, "{location}");
        }
        for (status, location) in [
            (200, Some("/z")),
            (304, Some("/z")),
            (301, None),
            (300, Some("/z")),
        ] {
            assert_eq!(redirected(&post, status, location), Ok(None));
        }
    }
}
