//! From the name of a host to addresses that a request may go to.
//!
//! Called by: the client's connector, once for each connection.
//! Invariants: all addresses of a name are checked, and the connection is made to one of these.
//! Refuses: a name of which one address is not allowed, also if the others are: who answers with both
//! is mistaken or means harm.

use std::fmt::{self, Debug};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use wasm::http::Trouble;
use wasm::http::address::{Network, Reach};

/// Who knows the addresses of names.
pub(super) trait Names: Debug + Send + Sync {
    fn look_up(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system.
#[derive(Debug)]
pub(super) struct System;

impl Names for System {
    fn look_up(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Names whose addresses are allowed.
#[derive(Debug)]
pub(super) struct Checking {
    pub names: Arc<dyn Names>,
    pub reach: Reach,
    pub bound: Vec<Network>,
}

/// Why there is no address; found again by downcast.
#[derive(Debug)]
pub(super) struct Refused {
    pub code: Trouble,
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}

impl Resolve for Checking {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.names.look_up(host.clone());
        let (reach, bound) = (self.reach.clone(), self.bound.clone());
        Box::pin(async move {
            let found = found.await;
            let addresses = checked(&host, found, &reach, &bound)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn checked(
    host: &str,
    found: io::Result<Vec<IpAddr>>,
    reach: &Reach,
    bound: &[Network],
) -> Result<Vec<SocketAddr>, Refused> {
    let refused = |code, why: String| Err(Refused { code, why });
    let found = match found {
        Ok(found) if found.is_empty() => {
            return refused(Trouble::Resolve, format!("{host} has no address"));
        }
        Ok(found) => found,
        Err(error) => return refused(Trouble::Resolve, format!("{host} has no address: {error}")),
    };
    for address in &found {
        if let Err(why) = reach.allows(*address, bound) {
            return refused(Trouble::Denied, format!("{host}: {why}"));
        }
    }
    // the port of the URL takes the place of 0
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
}
