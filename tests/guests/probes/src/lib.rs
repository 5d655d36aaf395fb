//! What a module finds of the machine through the standard library; a row's value says what it looks for.
//!
//! `map` is the order of a hash map, `now` the microseconds since 1970, `later` what goes by between two
//! readings of a clock. `env`, `file` and `exit` are not had, nor `tcp` and `dns`.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use rustmq::{Raw, Reject};

#[rustmq::map]
fn probe(what: &str) -> Result<Raw<String>, Reject> {
    Ok(Raw(match what {
        "map" => {
            let map: HashMap<u32, ()> = (0..16).map(|n| (n, ())).collect();
            let order: Vec<String> = map.keys().map(u32::to_string).collect();
            order.join(" ")
        }
        "now" => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            now.as_micros().to_string()
        }
        "later" => format!("{:?}", Instant::now().elapsed()),
        "env" => format!("{:?}", std::env::vars().count()),
        "file" => format!("{:?}", std::fs::read("/etc/passwd")?.len()),
        "exit" => std::process::exit(3),
        #[cfg(feature = "net")]
        "tcp" => format!("{:?}", std::net::TcpStream::connect("127.0.0.1:22")?),
        #[cfg(feature = "net")]
        "dns" => {
            use std::net::ToSocketAddrs;
            format!("{}", "localhost:80".to_socket_addrs()?.count())
        }
        _ => "nothing".to_owned(),
    }))
}
