//! A whole `rustmq` process for tests: started, asked, stopped, killed.
//!
//! Called by: the test files of this folder. Invariants: every test has folders, ports and
//! environment of its own; a server dies with its test.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    reason = "support of tests: a failure here fails the test"
)]

#[path = "../../../../tests/support/wait.rs"]
pub mod wait;

pub mod asked;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

pub const BINARY: &str = env!("CARGO_BIN_EXE_rustmq");

/// A folder of a test's own, with the environment that keeps it apart from all else.
pub struct World {
    pub dir: tempfile::TempDir,
}

/// What a command said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> Said {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Exit code and a part of what was said on standard error.
    #[track_caller]
    pub fn fails(self, code: i32, part: &str) -> Said {
        let (out, err) = (&self.out, &self.err);
        assert_eq!(self.code, code, "stdout: {out}\nstderr: {err}");
        assert!(err.contains(part), "no {part:?} in stderr: {err}");
        assert!(!err.contains("panicked"), "{err}");
        self
    }
}

impl World {
    pub fn new() -> World {
        World {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.command_after(&[], args)
    }

    /// The same, run by something else: its words come before ours.
    pub fn command_after(&self, front: &[String], args: &[&str]) -> Command {
        let binary = [BINARY.to_owned()];
        let mut words = front.iter().chain(&binary);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command
            .args(words)
            .args(args)
            .current_dir(self.dir.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_DATA_HOME", self.path("share"))
            .stdin(Stdio::null());
        for name in [
            "RUSTMQ_SERVER",
            "RUSTMQ_CA",
            "RUSTMQ_LISTEN",
            "RUSTMQ_HTTP",
            "RUSTMQ_LOG",
        ] {
            command.env_remove(name);
        }
        // the keys of whoever runs the tests are not theirs
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AWS_") || text.starts_with("GOOGLE_") {
                command.env_remove(&name);
            }
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Said {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // a command that fails early does not read to the end
        let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feed.join().unwrap();
        said(output)
    }

    /// On free ports, in the folder `data`.
    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, more: &[&str]) -> Server {
        self.serve_after(&[], more)
    }

    pub fn serve_after(&self, front: &[String], more: &[&str]) -> Server {
        let mut args = vec!["serve"];
        let any = "127.0.0.1:0";
        for (flag, default) in [("--data-dir", "data"), ("--listen", any), ("--http", any)] {
            if !more.contains(&flag) {
                args.extend([flag, default]);
            }
        }
        args.extend(more);
        let mut child = self
            .command_after(front, &args)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(self.path("serve.err")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = |name: &str| {
            let word = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name));
            word.map(str::to_owned).unwrap_or_else(|| {
                let errors = std::fs::read_to_string(self.path("serve.err")).unwrap();
                panic!("no {name} in {line:?}; stderr: {errors}")
            })
        };
        let (quic, http) = (address("quic="), address("http="));
        assert_eq!(line, format!("ready quic={quic} http={http}\n"));
        Server { child, quic, http }
    }
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running `rustmq serve`.
pub struct Server {
    child: Child,
    pub quic: String,
    pub http: String,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        wait::until("the server's end", || self.child.try_wait().unwrap())
    }

    /// A clean stop.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{status}");
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Status and body of one HTTP request.
    pub fn http(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        let fixed = "host: localhost\r\nconnection: close";
        let length = body.len();
        let request =
            format!("{head} HTTP/1.1\r\n{fixed}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        (
            status,
            if chunked {
                unchunked(body)
            } else {
                body.to_owned()
            },
        )
    }
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    text
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a folder holds a file of this name, anywhere.
pub fn holds(dir: &Path, name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy() == name || holds(&entry.path(), name))
}
