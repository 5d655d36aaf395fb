//! The deeds, one function each; `deeds.in` lists them.

use std::time::Duration;
use std::hint::black_box;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

use rustmq::http;
use rustmq::{Column, Counter, Histogram, Level};

use crate::{Hands, column};

pub fn spin(_: &mut Hands<'_>) {
    let mut turns = 0u64;
    while black_box(turns) < u64::MAX {
        turns += 1;
    }
}

pub fn recurse(_: &mut Hands<'_>) {
    fn deeper(depth: u64) -> u64 {
        black_box(deeper(black_box(depth) + 1)) + 1
    }
    black_box(deeper(0));
}

pub fn eat_memory(_: &mut Hands<'_>) {
    loop {
        black_box(vec![1u8; 1 << 20].leak());
    }
}

pub fn panic(_: &mut Hands<'_>) {
    panic!("on purpose");
}

pub fn abort(_: &mut Hands<'_>) {
    std::process::abort();
}

pub fn flood_rows(hands: &mut Hands<'_>) {
    loop {
        hands.say("one more");
    }
}

pub fn flood_bytes(hands: &mut Hands<'_>) {
    hands.say(&"x".repeat(20 << 20));
}

pub fn flood_message(hands: &mut Hands<'_>) {
    let long = "x".repeat(10 << 20);
    hands.out().reject(&[0], &long, &long);
}

pub fn flood_rejections(hands: &mut Hands<'_>) {
    loop {
        hands.out().reject(&[0], "code", "message");
    }
}

pub fn flood_log(_: &mut Hands<'_>) {
    for _ in 0..10_000 {
        rustmq::log(Level::Error, &"line\u{1b}[2J ".repeat(200), &[]);
    }
}

pub fn flood_metrics(_: &mut Hands<'_>) {
    for number in 0..1000 {
        let name = format!("metric_{number}").leak();
        let counter: &'static Counter = Box::leak(Box::new(Counter::new(name)));
        counter.add(1);
    }
}

pub fn flood_observations(_: &mut Hands<'_>) {
    static SPREAD: Histogram = Histogram::new("spread", &[1.0]);
    for _ in 0..2_000_000 {
        SPREAD.observe(1.0);
    }
}

pub fn row_out_of_range(hands: &mut Hands<'_>) {
    hands.out().forward(0, &[u32::MAX]);
}

pub fn port_out_of_range(hands: &mut Hands<'_>) {
    hands
        .out()
        .emit(u16::MAX, &[0], &column(&["key"]), &column(&["value"]));
}

pub fn columns_not_declared(hands: &mut Hands<'_>) {
    hands.out().emit_columns(0, None);
}

pub fn look_into_no_table(hands: &mut Hands<'_>) {
    let failure = hands.nobody.expect("no node declares it");
    hands.say(&failure.message);
}

pub fn look_up_a_million(hands: &mut Hands<'_>) {
    let mut keys = Column::new();
    (0..1_000_000).for_each(|_| keys.push(Some(b"key")));
    hands.table().get_all(&keys);
}

pub fn look_up_huge_keys(hands: &mut Hands<'_>) {
    let huge = "x".repeat(8 << 20);
    let found = hands.table().get_all(&column(&[&huge, &huge]));
    hands.found(found.get(1).map(|_| "a huge key".into()));
}

/// The table has a value of 1 MiB at `large`.
pub fn look_up_too_much(hands: &mut Hands<'_>) {
    hands.table().get_all(&column(&["large"; 100]));
}

pub fn read_environment(hands: &mut Hands<'_>) {
    let found = ["PATH", "HOME", "AWS_ACCESS_KEY_ID"];
    hands.found(found.iter().find_map(|name| std::env::var(name).ok()));
}

pub fn read_arguments(hands: &mut Hands<'_>) {
    hands.found(std::env::args().next());
}

pub fn read_file(hands: &mut Hands<'_>) {
    hands.found(std::fs::read_to_string("/etc/passwd").ok());
}

pub fn write_file(hands: &mut Hands<'_>) {
    let written = std::fs::File::create("/tmp/evil").and_then(|mut file| file.write_all(b"evil"));
    hands.found(written.ok().map(|()| "a file to write".into()));
}

pub fn connect(hands: &mut Hands<'_>) {
    let connected = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 7480)));
    hands.found(connected.ok().map(|_| "a socket".into()));
}

pub fn resolve_name(hands: &mut Hands<'_>) {
    let resolved = ("localhost", 80).to_socket_addrs();
    hands.found(resolved.ok().map(|addresses| format!("{addresses:?}")));
}

pub fn spawn_thread(hands: &mut Hands<'_>) {
    let spawned = std::thread::Builder::new().spawn(|| {});
    hands.found(spawned.ok().map(|_| "a thread".into()));
}

pub fn spawn_process(hands: &mut Hands<'_>) {
    let spawned = std::process::Command::new("/bin/sh").spawn();
    hands.found(spawned.ok().map(|_| "a process".into()));
}

pub fn read_clock(hands: &mut Hands<'_>) {
    hands.found(Some(format!("{:?}", std::time::SystemTime::now())));
}

/// What came of a request to the test's own server, which knows its paths.
fn asked(hands: &Hands<'_>, host: &str, path: &str) -> String {
    said(http::get(url(hands, host, path)).send())
}

fn url(hands: &Hands<'_>, host: &str, path: &str) -> String {
    format!("http://{host}:{}{path}", hands.port)
}

fn said(answer: Result<http::Response, http::Error>) -> String {
    match answer {
        Ok(answer) => format!("found {}", answer.status),
        Err(error) => error.trouble.name().to_owned(),
    }
}

pub fn http_elsewhere(hands: &mut Hands<'_>) {
    let text = asked(hands, "elsewhere.example", "/");
    hands.say(&text);
}

/// A name that is granted, of an address that is not.
pub fn http_private(hands: &mut Hands<'_>) {
    let text = asked(hands, "inside.evil.example", "/");
    hands.say(&text);
}

pub fn http_redirected(hands: &mut Hands<'_>) {
    let text = asked(hands, "www.evil.example", "/to-inside");
    hands.say(&text);
}

/// A name that leads outside when it is looked up first, and inside afterwards.
pub fn http_rebound(hands: &mut Hands<'_>) {
    let first = asked(hands, "rebound.evil.example", "/close");
    let second = asked(hands, "rebound.evil.example", "/close");
    hands.say(&format!("{first}, {second}"));
}

pub fn http_endless(hands: &mut Hands<'_>) {
    let text = asked(hands, "www.evil.example", "/endless");
    hands.say(&text);
}

pub fn http_stuck(hands: &mut Hands<'_>) {
    let stuck = http::get(url(hands, "www.evil.example", "/stuck"));
    let text = said(stuck.timeout(Duration::from_millis(200)).send());
    hands.say(&text);
}

/// Another header, or another request, inside a header.
pub fn http_split(hands: &mut Hands<'_>) {
    let url = format!("http://www.evil.example:{}/close", hands.port);
    let text = said(http::get(url).header("x", "1\r\n\r\nGET /other HTTP/1.1").send());
    hands.say(&text);
}

pub fn http_flood(hands: &mut Hands<'_>) {
    let requests = vec![http::get("http://www.evil.example/"); 100_000];
    let text = format!("{} answers", http::send(&requests).len());
    hands.say(&text);
}

/// Lists that overlap: little memory of the guest's, and a hundred times the host's if it copied them all.
pub fn http_overlap(hands: &mut Hands<'_>) {
    #[link(wasm_import_module = "rustmq:etl/http@0.1.5")]
    unsafe extern "C" {
        #[link_name = "send"]
        fn send(requests: *const [usize; 11], len: usize, answers: *mut [usize; 2]);
    }
    let text = "x".repeat(100 << 10);
    let (text, len) = (text.as_ptr() as usize, text.len());
    let headers = [[text, len, text, len]; 64];
    let request = [text, 3, text, 9, headers.as_ptr() as usize, headers.len(), 0, 0, 0, 0, 0];
    let requests = vec![request; 1000];
    let mut answers = [0; 2];
    // SAFETY: records of the contract's `request`, in memory that lives through the call
    unsafe { send(requests.as_ptr(), requests.len(), &mut answers) };
    hands.say(&format!("{} answers", answers[1]));
}
