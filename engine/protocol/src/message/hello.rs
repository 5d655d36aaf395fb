//! Who is there and which version is spoken: the first message of a connection.
//!
//! What: `Hello` and `Welcome`. Called by: client, doors (which answer it themselves).
//! Invariants: the highest version both sides know is used; without one the answer says which
//! versions the server speaks, in a frame that every version can read.

use serde::{Deserialize, Serialize};

use crate::wire::json_bodies;
use crate::{PROTOCOL_VERSION, WireError, code};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest and the highest protocol version that the client speaks.
    pub version_min: u16,
    pub version_max: u16,
    /// Name and version of the client, for logs.
    pub client: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    /// Name and version of the server.
    pub server: String,
}

impl Hello {
    pub fn new(client: &str) -> Hello {
        let version = PROTOCOL_VERSION.into();
        Hello {
            version_min: version,
            version_max: version,
            client: client.to_owned(),
        }
    }

    /// The server's answer.
    pub fn answer(&self, server: &str) -> Result<Welcome, WireError> {
        let ours = u16::from(PROTOCOL_VERSION);
        if (self.version_min..=self.version_max).contains(&ours) {
            return Ok(Welcome {
                version: ours,
                server: server.to_owned(),
            });
        }
        let older = if self.version_max < ours {
            "client"
        } else {
            "server"
        };
        Err(WireError::fix(
            code::UNSUPPORTED_VERSION,
            format!(
                "{server} speaks protocol version {ours}, {client} speaks {min} to {max}: \
                 update the {older}",
                client = self.client,
                min = self.version_min,
                max = self.version_max,
            ),
        ))
    }
}

json_bodies!(Hello, Welcome);
