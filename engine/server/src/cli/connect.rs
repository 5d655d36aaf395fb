//! A connected command: reaches the server and turns what it answers into an exit code.
//!
//! Called by: every command that talks to a server. Calls: `client`.
//! Invariants: no command waits longer than the connect timeout for a server that is not there;
//! that is exit 3, an answer that refuses is exit 1.

use client::{Client, ClientConfig, ClientError};
use protocol::table::Call;
use tokio::sync::OnceCell;

use super::args::Global;
use super::exit::Failure;

/// One command: what it was told everywhere, and its connection once it has asked for one.
pub struct Session {
    global: Global,
    server: OnceCell<Server>,
}

/// A connection and the words for its errors.
pub struct Server {
    pub client: Client,
}

impl Session {
    /// Whether data is printed as JSON.
    pub fn json(&self) -> bool {
        self.global.json
    }

    /// Reaches the server, once.
    pub async fn server(&self) -> Result<&Server, Failure> {
        let connect = async || {
            let config = ClientConfig {
                server: self.global.server.clone(),
                ca: self.global.ca.clone(),
                ..ClientConfig::default()
            };
            let client = Client::connect(config)
                .await
                .map_err(Failure::unreachable)?;
            Ok(Server { client })
        };
        self.server.get_or_try_init(connect).await
    }
}

impl Server {
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Reply, Failure> {
        self.client.call(request).await.map_err(refused)
    }
}

/// Runs one command on a runtime of its own and says goodbye to the server it reached.
pub fn run_with(
    global: Global,
    command: impl AsyncFnOnce(&Session) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let session = Session {
        global,
        server: OnceCell::new(),
    };
    runtime()?.block_on(async {
        let result = Box::pin(command(&session)).await;
        if let Some(server) = session.server.get() {
            server.client.close().await;
        }
        result
    })
}

/// What a server's refusal or a broken connection becomes.
pub fn refused(error: ClientError) -> Failure {
    match error {
        ClientError::Connect(error) => Failure::unreachable(error),
        ClientError::Refused(wire) if !wire.diagnostics.is_empty() => {
            Failure::diagnosed(wire.diagnostics)
        }
        other => Failure::failed(other),
    }
}

/// Worker threads of a command that asks a server.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    crate::runtime::client().map_err(no_workers)
}

/// Why there are no worker threads.
pub fn no_workers(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot start worker threads: {error}"))
}
