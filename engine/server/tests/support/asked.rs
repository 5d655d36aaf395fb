//! A service that modules ask: answers each request with its path, and keeps the heads.
//!
//! Called by: `pipeline`, `languages`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// On a port of its own, until the test ends.
pub struct Asked {
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Asked {
    pub fn start() -> Asked {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = heads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || connection(stream, &kept));
            }
        });
        Asked { port, heads }
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Requests without bodies, one after the other, until the other side has gone.
fn connection(mut stream: TcpStream, heads: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    loop {
        let head: Vec<String> = lines
            .by_ref()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else {
            return;
        };
        let length = path.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}");
        heads.lock().unwrap().push(head.join("\n"));
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
