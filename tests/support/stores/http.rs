//! As much HTTP/1.1 as a test's proxy needs: whole requests in, whole answers out.
//!
//! Called by: `wire`, `gcs`, `Program`. Invariants: one request a connection; what is forwarded
//! is what came, but for `connection: close`. Refuses: bodies without a length.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Nothing that is honest takes longer on loopback.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// All of it, head and body, as it goes over the wire.
    pub raw: Vec<u8>,
}

impl Request {
    pub fn get(target: &str) -> Request {
        Request {
            method: "GET".to_owned(),
            target: target.to_owned(),
            ..Request::default()
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter();
        let found = named.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, as it stands there.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Reads one request; nothing if the other end is done.
    pub fn read(stream: &TcpStream) -> Result<Option<Request>> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(Error::new(ErrorKind::InvalidData, line));
        };
        let mut request = Request {
            method,
            target,
            ..Request::default()
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let pair = (name.to_owned(), value.trim().to_owned());
            request.headers.push(pair);
        }
        let length = request.header("content-length");
        let length = length.map_or(0, |length| length.parse().unwrap_or(0));
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    fn head(&self, port: u16) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if self.header("host").is_none() {
            head.push_str(&format!("host: 127.0.0.1:{port}\r\n"));
        }
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("connection") {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("connection: close\r\n\r\n");
        head
    }
}

impl Answer {
    pub fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("HTTP/1.1 {status} On purpose\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = body.len();
        let raw = format!("{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        Answer {
            status,
            raw: raw.into_bytes(),
        }
    }

    /// What follows the head.
    pub fn body(&self) -> String {
        let text = String::from_utf8_lossy(&self.raw);
        text.split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default()
    }
}

/// Asks a server on loopback and reads all it says.
pub fn forward(port: u16, request: &Request) -> Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.head(port).as_bytes())?;
    stream.write_all(&request.body)?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    let status = raw
        .get(9..12)
        .and_then(|code| std::str::from_utf8(code).ok());
    let status = status.and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no answer"))?;
    Ok(Answer { status, raw })
}

/// The first bytes of a request, as if the rest were lost on the way.
pub fn forward_torn(port: u16, request: &Request) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(request.head(port).as_bytes())?;
    stream.write_all(&request.body[..request.body.len() / 2])
}
