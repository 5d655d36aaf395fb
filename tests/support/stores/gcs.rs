//! The GCS server of the tests: fake-gcs-server behind a front.
//!
//! The client uploads by the XML interface, which fake-gcs-server has for reading, listing and
//! deleting only. The front says each upload again by its JSON interface, with the precondition
//! that came, so that the server is the one who decides; parts are gathered in the front.
//! Called by: tests that need GCS. Invariants: the front keeps its port over a restart of the
//! server. Refuses: nothing by itself; signatures are not looked at.

use std::collections::BTreeMap;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::http::{self, Answer, Request};
use super::wire::Wire;
use super::{Program, find, free_port, pins};

pub const BUCKET: &str = "rustmq-test";
const PORTS_MAX: usize = 5;

pub struct Gcs {
    path: PathBuf,
    dir: PathBuf,
    /// Of the server itself.
    upstream: u16,
    program: Option<Program>,
    /// What the product talks to.
    pub wire: Wire,
}

impl Gcs {
    /// In a folder of its own below `dir`, with an empty bucket.
    pub fn start(dir: &Path) -> Gcs {
        let path = find(&pins::GCS).expect("whoever asks has looked before");
        let dir = dir.join("gcs");
        std::fs::create_dir_all(&dir).unwrap();
        for _ in 0..PORTS_MAX {
            let upstream = free_port();
            let Some(program) = run(&path, &dir, upstream) else {
                continue;
            };
            make_bucket(upstream);
            let front = Front {
                upstream,
                uploads: Mutex::default(),
                begun: AtomicU64::new(0),
            };
            let wire = Wire::serving(upstream, Arc::new(move |request| front.serve(request)));
            return Gcs {
                path,
                dir,
                upstream,
                program: Some(program),
                wire,
            };
        }
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("the GCS server does not start: {log}");
    }

    /// `kill -9`; what it has stays.
    pub fn kill(&mut self) {
        self.program = None;
    }

    pub fn restart(&mut self) {
        self.kill();
        self.program = run(&self.path, &self.dir, self.upstream);
        assert!(self.program.is_some(), "the GCS server does not come back");
    }
}

fn run(path: &Path, dir: &Path, port: u16) -> Option<Program> {
    let root = dir.join("objects").display().to_string();
    let (port_text, host) = (port.to_string(), format!("127.0.0.1:{port}"));
    let listen = ["-scheme", "http", "-host", "127.0.0.1", "-port", &port_text];
    let keep = ["-public-host", &host, "-filesystem-root", &root];
    let quiet = ["-backend", "filesystem", "-log-level", "warn"];
    let args = [&listen[..], &keep, &quiet].concat();
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let health = "/_internal/healthcheck";
    Program::start(path, &args, &dir.join("log"), port, health)
}

fn make_bucket(port: u16) {
    let body = format!("{{\"name\":\"{BUCKET}\"}}").into_bytes();
    let mut make = Request::get("/storage/v1/b?project=test");
    make.method = "POST".to_owned();
    let length = body.len().to_string();
    make.headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("content-length".to_owned(), length),
    ];
    make.body = body;
    assert_eq!(http::forward(port, &make).unwrap().status, 200);
}

/// The URL of the tier in the test's bucket.
pub fn url(prefix: &str) -> String {
    format!("gs://{BUCKET}/{prefix}")
}

/// What a user writes to `[storage.options]` for a compatible server without accounts.
pub fn options(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("google_base_url", format!("http://127.0.0.1:{port}")),
        ("google_skip_signature", "true".to_owned()),
        ("allow_http", "true".to_owned()),
    ]
}

/// Uploads by XML, said again by JSON.
struct Front {
    upstream: u16,
    /// Parts by upload and number.
    uploads: Mutex<BTreeMap<String, BTreeMap<u32, Vec<u8>>>>,
    begun: AtomicU64,
}

impl Front {
    fn serve(&self, request: &Request) -> Result<Answer> {
        let upload = request.parameter("uploadId").map(str::to_owned);
        match (request.method.as_str(), upload) {
            ("PUT", None) => {
                let answer = self.insert(request, request.body.clone())?;
                Ok(as_put(&answer))
            }
            ("POST", None) if request.parameter("uploads").is_some() => Ok(self.begin()),
            ("PUT", Some(upload)) => Ok(self.part(request, &upload)),
            ("POST", Some(upload)) => self.complete(request, &upload),
            ("DELETE", Some(upload)) => {
                self.uploads.lock().unwrap().remove(&upload);
                Ok(Answer::new(204, &[], ""))
            }
            _ => self.pass(request),
        }
    }

    /// As it came, but to the host that the server knows itself by. A bucket that is not there
    /// is said as Google says it.
    fn pass(&self, request: &Request) -> Result<Answer> {
        let mut request = request.clone();
        request
            .headers
            .retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
        let answer = http::forward(self.upstream, &request)?;
        let is_gone = ["no bucket named", "no such file"];
        let body = answer.body();
        if answer.status == 500 && is_gone.iter().any(|words| body.contains(words)) {
            let body = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not \
                        exist.</Message></Error>";
            return Ok(Answer::new(404, &[], body));
        }
        Ok(answer)
    }

    fn insert(&self, request: &Request, body: Vec<u8>) -> Result<Answer> {
        let path = request.path().trim_start_matches('/');
        let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
        let condition = request.header("x-goog-if-generation-match");
        let condition = condition.map(|generation| format!("&ifGenerationMatch={generation}"));
        let target = format!(
            "/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{}",
            condition.unwrap_or_default()
        );
        let length = body.len().to_string();
        let insert = Request {
            method: "POST".to_owned(),
            target,
            headers: vec![("content-length".to_owned(), length)],
            body,
        };
        http::forward(self.upstream, &insert)
    }

    fn begin(&self) -> Answer {
        let id = format!("upload-{}", self.begun.fetch_add(1, Ordering::Relaxed));
        let mut uploads = self.uploads.lock().unwrap();
        uploads.insert(id.clone(), BTreeMap::new());
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        );
        Answer::new(200, &[("content-type", "application/xml")], &body)
    }

    fn part(&self, request: &Request, upload: &str) -> Answer {
        let number = request.parameter("partNumber").unwrap_or_default();
        let number: u32 = number.parse().unwrap_or(0);
        let mut uploads = self.uploads.lock().unwrap();
        let Some(parts) = uploads.get_mut(upload) else {
            return Answer::new(404, &[], "<Error><Code>NoSuchUpload</Code></Error>");
        };
        parts.insert(number, request.body.clone());
        Answer::new(200, &[("etag", &format!("\"part-{number}\""))], "")
    }

    fn complete(&self, request: &Request, upload: &str) -> Result<Answer> {
        let parts = self.uploads.lock().unwrap().get(upload).cloned();
        let Some(parts) = parts else {
            let gone = "<Error><Code>NoSuchUpload</Code></Error>";
            return Ok(Answer::new(404, &[], gone));
        };
        let whole = parts.into_values().flatten().collect();
        let answer = self.insert(request, whole)?;
        if answer.status != 200 {
            return Ok(answer);
        }
        self.uploads.lock().unwrap().remove(upload);
        let body = "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag>\
                    </CompleteMultipartUploadResult>";
        Ok(Answer::new(
            200,
            &[("content-type", "application/xml")],
            body,
        ))
    }
}

/// The answer to an upload by JSON as the one to an upload by XML.
fn as_put(answer: &Answer) -> Answer {
    if answer.status != 200 {
        return answer.clone();
    }
    let body = answer.body();
    let field = |name: &str| {
        let rest = body.split_once(&format!("\"{name}\":\""));
        rest.and_then(|(_, rest)| rest.split('"').next())
    };
    let etag = format!("\"{}\"", field("etag").unwrap_or_default());
    let generation = field("generation").unwrap_or_default();
    Answer::new(
        200,
        &[("etag", &etag), ("x-goog-generation", generation)],
        "",
    )
}
