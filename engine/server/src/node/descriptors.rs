//! How many files and sockets the process may have open, and who gets them.
//!
//! Called by: `Node::start`, before anything is opened. `divide` is pure; `claim` raises the soft
//! limit to the hard one and asks again.
//! Invariants: what the log, the tier and SQL need is kept from connections, so that a crowd of
//! clients cannot stop the log from going on in a new file.
//! Refuses: to start with fewer than the rooms need and a few connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::budget::Disk;

/// Streams, ports, the catalog, the locks, the threads' wakers.
const BASE: u64 = 64;
/// An object on its way to or from the tier.
const PER_UPLOAD: u64 = 2;
/// Blocks being read from the cache's disk, spilled files and objects of queries.
const READS: u64 = 192;
/// With fewer connections than this a node is of no use.
const CONNECTIONS_MIN: u64 = 32;
/// What is open in the log while segments are given back or many stay behind.
const SEGMENTS_SPARE: u64 = 16;
/// Part of the connections that the HTTP door may have.
const HTTP_PART: u64 = 4;
const HTTP_MAX: u64 = 1024;

/// Connections each door may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seats {
    pub native: usize,
    pub http: usize,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DescriptorError {
    #[error(
        "this process may open {allowed} files and sockets and needs {needed}: {rooms} for the \
         log, the tier and SQL, {CONNECTIONS_MIN} for clients; raise the limit (ulimit -n, \
         LimitNOFILE= of systemd, limits.descriptors), or make the log's files larger \
         (storage.segment_bytes)"
    )]
    TooFew {
        allowed: u64,
        needed: u64,
        rooms: u64,
    },
    #[error(
        "limits.descriptors is {wanted}, and the system allows this process {allowed}; raise its \
         hard limit (ulimit -Hn, LimitNOFILE= of systemd) or lower the key"
    )]
    TooMany { wanted: u64, allowed: u64 },
}

/// What the rooms keep open in the worst case they are configured for.
pub fn needed_by_rooms(disk: &Disk, segment_bytes: u64, uploads_max: u64) -> u64 {
    let log = disk.log.max(disk.log_pressure.saturating_mul(2));
    let segments = log / segment_bytes.max(1) + SEGMENTS_SPARE;
    BASE + READS + segments + uploads_max.saturating_mul(PER_UPLOAD)
}

/// Divides what is allowed.
pub fn divide(allowed: u64, rooms: u64, connections_max: usize) -> Result<Seats, DescriptorError> {
    let needed = rooms.saturating_add(CONNECTIONS_MIN);
    if allowed < needed {
        return Err(DescriptorError::TooFew {
            allowed,
            needed,
            rooms,
        });
    }
    let left = allowed - rooms;
    let http = (left / HTTP_PART).min(HTTP_MAX);
    let seats = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(Seats {
        native: seats(left - http).min(connections_max),
        http: seats(http),
    })
}

/// Raises the soft limit as far as the system lets us; answers how many may be open.
pub fn claim(wanted: Option<u64>) -> Result<u64, DescriptorError> {
    let limits = getrlimit(Resource::Nofile);
    let hard = limits.maximum.unwrap_or(u64::MAX);
    if let Some(wanted) = wanted.filter(|wanted| *wanted > hard) {
        return Err(DescriptorError::TooMany {
            wanted,
            allowed: hard,
        });
    }
    let soft = limits.current.unwrap_or(u64::MAX);
    if soft < hard {
        let raised = Rlimit {
            current: limits.maximum,
            maximum: limits.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, soft, hard, "the limit of open files stays as it is");
        }
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Ok(wanted.map_or(allowed, |wanted| wanted.min(allowed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk {
        log: 0,
        log_pressure: 1 << 30,
        cache: 0,
    };

    #[test]
    fn rooms_come_first_and_clients_share_the_rest() {
        let rooms = needed_by_rooms(&DISK, 64 << 20, 4);
        assert_eq!(rooms, 64 + 192 + 32 + 16 + 8);
        let seats = divide(1024, rooms, 4096).unwrap();
        assert_eq!(seats.native + seats.http, 1024 - rooms as usize);
        assert!(seats.http >= 64 && seats.native >= 256);
        let many = divide(1 << 20, rooms, 4096).unwrap();
        assert_eq!((many.native, many.http), (4096, 1024));
    }

    #[test]
    fn too_few_are_refused_with_what_to_do() {
        let tiny = needed_by_rooms(&DISK, 1 << 20, 4);
        let error = divide(256, tiny, 4096).unwrap_err().to_string();
        for part in ["may open 256", "needs 2360", "ulimit -n", "segment_bytes"] {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(claim(None).unwrap(), hard);
        assert_eq!(claim(Some(100)).unwrap(), 100);
        if hard < u64::MAX {
            let error = claim(Some(u64::MAX)).unwrap_err().to_string();
            assert!(error.contains("the system allows"), "{error}");
        }
    }
}
