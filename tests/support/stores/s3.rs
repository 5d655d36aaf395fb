//! The S3 server of the tests: versitygw over a folder, one bucket, one pair of keys.
//!
//! Called by: tests that need S3. Invariants: it keeps folder, port and keys over a restart.
//! Refuses: requests that are not signed with its keys.

use std::path::{Path, PathBuf};

use super::{Program, find, free_port, pins};

pub const BUCKET: &str = "rustmq-test";
pub const ACCESS_KEY: &str = "TESTACCESSKEYID";
/// Tests look for it in everything the product prints.
pub const SECRET_KEY: &str = "never-print-this-secret-access-key";
/// Times a port is taken by someone else before it is given up.
const PORTS_MAX: usize = 5;

pub struct S3 {
    path: PathBuf,
    dir: PathBuf,
    pub port: u16,
    program: Option<Program>,
}

impl S3 {
    /// In a folder of its own below `dir`, with an empty bucket.
    pub fn start(dir: &Path) -> S3 {
        let path = find(&pins::S3).expect("whoever asks has looked before");
        let dir = dir.join("s3");
        std::fs::create_dir_all(dir.join("objects").join(BUCKET)).unwrap();
        std::fs::create_dir_all(dir.join("attributes")).unwrap();
        let mut s3 = S3 {
            path,
            dir,
            port: 0,
            program: None,
        };
        for _ in 0..PORTS_MAX {
            s3.port = free_port();
            s3.program = s3.run();
            if s3.program.is_some() {
                return s3;
            }
        }
        let log = std::fs::read_to_string(s3.dir.join("log")).unwrap_or_default();
        panic!("the S3 server does not start: {log}");
    }

    fn run(&self) -> Option<Program> {
        let dir = |name: &str| self.dir.join(name).display().to_string();
        let port = format!("127.0.0.1:{}", self.port);
        let (attributes, objects) = (dir("attributes"), dir("objects"));
        let keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY];
        let serve = ["--quiet", "--health", "/health", "--port", &port];
        let backend = ["posix", "--sidecar", &attributes, &objects];
        let args = [&keys[..], &serve, &backend].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let log = self.dir.join("log");
        Program::start(&self.path, &args, &log, self.port, "/health")
    }

    /// `kill -9`; what it has stays.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// The same server again, on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.program = self.run();
        assert!(self.program.is_some(), "the S3 server does not come back");
    }
}

/// The URL of the tier in the test's bucket.
pub fn url(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

/// What a user writes to `[storage.options]` for the server on this port.
pub fn options(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("aws_endpoint", format!("http://127.0.0.1:{port}")),
        ("aws_access_key_id", ACCESS_KEY.to_owned()),
        ("aws_secret_access_key", SECRET_KEY.to_owned()),
        ("allow_http", "true".to_owned()),
    ]
}
