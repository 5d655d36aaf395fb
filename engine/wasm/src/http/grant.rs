//! What a node lets its module ask of others: hosts, ports, methods, and the headers put in for it.
//!
//! Called by: pipelines (from `grants.http` of a module), the server's client. Pure.
//! Invariants: what no rule allows is denied; the first rule that allows a request is the one whose
//! headers and addresses count; a secret is a name here, never its value.

use std::fmt;
use std::net::IpAddr;

use url::Url;

use super::address::{Network, Reach};
use super::{Failed, Trouble};

/// A host, or all below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Exact(String),
    /// `*.example.com`: any number of labels below, not itself.
    Below(String),
}

impl Host {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Host, String> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let wrong = |why: &str| Err(format!("`{text}` is not a host: {why}"));
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(name).parse::<IpAddr>() {
            return match below {
                true => wrong("an address has nothing below it"),
                false => Ok(Host::Exact(literal(address))),
            };
        }
        if name.contains("://") || name.contains('/') {
            return wrong("write the name alone, without scheme and path");
        }
        if name.contains(':') {
            return wrong("the port is a key of its own, `port`");
        }
        if name.contains('*') {
            return wrong("a `*` stands at the beginning, `*.example.com`");
        }
        match url::Host::parse(name) {
            Ok(url::Host::Domain(domain)) if !domain.is_empty() => Ok(match below {
                true => Host::Below(domain),
                false => Host::Exact(domain),
            }),
            // 127.1 and 0x7f.1 are addresses too, to a browser
            Ok(_) => wrong("write an address as 10.1.2.3"),
            Err(error) => wrong(&error.to_string()),
        }
    }

    /// Whether a URL's host is meant.
    pub fn holds(&self, host: &str) -> bool {
        match self {
            Host::Exact(name) => name == host,
            Host::Below(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }

    /// The address, where it is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Host::Exact(name) => name.trim_matches(['[', ']']).parse().ok(),
            Host::Below(_) => None,
        }
    }

    /// Whether all that this one means is meant by the other.
    pub fn within(&self, other: &Host) -> bool {
        match (self, other) {
            (Host::Exact(name), other) => other.holds(name),
            (Host::Below(domain), Host::Below(wider)) => domain == wider || other.holds(domain),
            (Host::Below(_), Host::Exact(_)) => false,
        }
    }
}

/// As a URL has it.
fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Exact(name) => f.write_str(name),
            Host::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Https,
    Http,
}

impl Scheme {
    pub fn port(self) -> u16 {
        match self {
            Scheme::Https => 443,
            Scheme::Http => 80,
        }
    }

    pub fn of(url: &Url) -> Option<Scheme> {
        match url.scheme() {
            "https" => Some(Scheme::Https),
            "http" => Some(Scheme::Http),
            _ => None,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Https => "https",
            Scheme::Http => "http",
        })
    }
}

/// What a header that the host puts in is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    Text(String),
    /// A secret of the server's configuration, with text before it.
    Secret {
        name: String,
        prefix: String,
    },
}

/// What is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub host: Host,
    pub scheme: Scheme,
    pub port: u16,
    /// In upper case.
    pub methods: Vec<String>,
    pub reach: Reach,
    /// Names in lower case.
    pub headers: Vec<(String, HeaderValue)>,
}

impl Rule {
    /// What a rule that names a host alone allows.
    pub fn new(host: Host) -> Rule {
        let named = host.address().map(Network::one);
        Rule {
            host,
            scheme: Scheme::Https,
            port: Scheme::Https.port(),
            methods: ["GET", "HEAD"].map(String::from).into(),
            reach: Reach {
                private: false,
                networks: named.into_iter().collect(),
            },
            headers: Vec::new(),
        }
    }

    fn place(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.host, self.port)
    }

    /// Whether it allows nothing but to read, as HTTP means it.
    pub fn reads_only(&self) -> bool {
        let reads = |method: &String| ["GET", "HEAD"].contains(&method.as_str());
        self.methods.iter().all(reads)
    }
}

/// All that a node allows its module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    pub rules: Vec<Rule>,
}

impl Grant {
    /// The rule by which a request is allowed.
    ///
    /// # Errors
    /// `denied`, with what of the grant comes nearest.
    pub fn rule(&self, method: &str, url: &Url) -> Result<&Rule, Failed> {
        let denied = |message: String| Err(Failed::new(Trouble::Denied, message));
        let host = url.host_str().unwrap_or_default();
        let of_host: Vec<&Rule> = self.rules.iter().filter(|r| r.host.holds(host)).collect();
        if of_host.is_empty() {
            let known = list(self.rules.iter().map(|rule| rule.host.to_string()));
            return denied(format!(
                "the grant does not name the host {host}, but {known}"
            ));
        }
        let (scheme, port) = (Scheme::of(url), url.port_or_known_default());
        let there = |rule: &&&Rule| Some(rule.scheme) == scheme && Some(rule.port) == port;
        let there: Vec<&Rule> = of_host.iter().filter(there).copied().collect();
        if there.is_empty() {
            let (scheme, port) = (url.scheme(), port.unwrap_or_default());
            let known = list(of_host.iter().map(|rule| rule.place()));
            return denied(format!(
                "the grant does not name {scheme}://{host}:{port}, but {known}"
            ));
        }
        let allowed = there
            .iter()
            .find(|rule| rule.methods.iter().any(|m| m == method));
        allowed.copied().ok_or_else(|| {
            let known = list(there.iter().flat_map(|rule| rule.methods.iter().cloned()));
            let place = there[0].place();
            Failed::new(
                Trouble::Denied,
                format!("the grant allows no {method} of {place}, but {known}"),
            )
        })
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.dedup();
    match names.is_empty() {
        true => "nothing".into(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = Rule::new(Host::parse(host).expect(host));
        change(&mut rule);
        rule
    }

    fn grant() -> Grant {
        Grant {
            rules: vec![
                rule("api.example.com", |_| {}),
                rule("*.tiles.example", |rule| rule.methods = vec!["POST".into()]),
                rule("localhost", |rule| {
                    (rule.scheme, rule.port) = (Scheme::Http, 8080);
                }),
                rule("10.1.2.3", |_| {}),
                rule("::1", |_| {}),
            ],
        }
    }

    #[test]
    fn what_no_rule_allows_is_denied() {
        let grant = grant();
        let asked = |method: &str, url: &str| {
            grant
                .rule(method, &Url::parse(url).expect(url))
                .map(Rule::place)
        };
        for (method, url) in [
            ("GET", "https://api.example.com/v1?q=1"),
            ("HEAD", "https://API.example.com:443/"),
            ("POST", "https://a.b.tiles.example/"),
            ("GET", "http://localhost:8080/"),
            ("GET", "https://10.1.2.3/"),
            // what a browser reads as that address is that address
            ("GET", "https://0x0a.1.515/"),
            ("GET", "https://[::1]/"),
        ] {
            assert!(
                asked(method, url).is_ok(),
                "{method} {url}: {:?}",
                asked(method, url)
            );
        }
        for (method, url, why) in [
            (
                "GET",
                "https://example.com/",
                "does not name the host example.com, but api.example.com, *",
            ),
            (
                "GET",
                "https://api.example.com.evil.org/",
                "does not name the host",
            ),
            (
                "GET",
                "https://evilapi.example.com/",
                "does not name the host",
            ),
            ("GET", "https://api.example.com./", "does not name the host"),
            ("POST", "https://tiles.example/", "does not name the host"),
            (
                "POST",
                "https://eviltiles.example/",
                "does not name the host",
            ),
            ("POST", "https://.tiles.example/", "does not name the host"),
            (
                "GET",
                "http://api.example.com/",
                "http://api.example.com:80, but https://api.example.com:443",
            ),
            (
                "GET",
                "https://api.example.com:8443/",
                "https://api.example.com:8443, but",
            ),
            (
                "GET",
                "http://localhost/",
                "http://localhost:80, but http://localhost:8080",
            ),
            (
                "GET",
                "https://localhost:8080/",
                "https://localhost:8080, but",
            ),
            (
                "POST",
                "https://api.example.com/",
                "allows no POST of https://api.example.com:443, but GET, HEAD",
            ),
            ("get", "https://api.example.com/", "allows no get"),
            ("GET", "ftp://api.example.com/", "does not name ftp://"),
            ("GET", "https://10.1.2.4/", "does not name the host"),
        ] {
            let denied = asked(method, url).expect_err(url);
            assert_eq!(denied.code, Trouble::Denied);
            assert!(
                denied.message.contains(why),
                "{method} {url}: {}",
                denied.message
            );
        }
        let url = Url::parse("https://a.example/").expect("a URL");
        let nothing = Grant::default();
        let nothing = nothing.rule("GET", &url);
        assert!(nothing.is_err_and(|e| e.message.contains("but nothing")));
    }

    #[test]
    fn hosts_are_read_and_refused() {
        for (text, host) in [
            ("API.Example.com", "api.example.com"),
            ("*.Example.com", "*.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("[FD00::1]", "[fd00::1]"),
            ("fd00::1", "[fd00::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(
                Host::parse(text).map(|h| h.to_string()).as_deref(),
                Ok(host)
            );
        }
        for (text, why) in [
            ("https://a.example", "without scheme"),
            ("a.example:80", "`port`"),
            ("a.*.example", "stands at the beginning"),
            ("*", "stands at the beginning"),
            ("*.10.0.0.1", "nothing below"),
            ("127.1", "as 10.1.2.3"),
            ("", "is not a host"),
            ("a b", "is not a host"),
        ] {
            let error = Host::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let within = |a: &str, b: &str| {
            let host = |text| Host::parse(text).expect("a host");
            host(a).within(&host(b))
        };
        assert!(
            within("a.example.com", "*.example.com") && within("*.b.example.com", "*.example.com")
        );
        assert!(within("*.example.com", "*.example.com") && within("a.example", "a.example"));
        assert!(
            !within("*.example.com", "a.example.com") && !within("example.com", "*.example.com")
        );
        assert!(!within("*.example.com", "*.b.example.com"));
    }
}
