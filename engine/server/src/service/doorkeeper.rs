//! The rooms behind the native door: begins requests in order, finishes changes that were begun.
//!
//! Called by: `door`. Calls: `Rooms::answer`.
//! Invariants: what changes the catalog runs as a task of its own, so that a peer who hangs up
//! does not leave it half done; a read that waits ends when the door stops.

use std::sync::Arc;

use futures::StreamExt;
use model::BoxFuture;
use protocol::{Request, Response, SqlChunk, WireError, code};

use super::{Answer, Rooms, reply};
use crate::door::{Peer, Reply, Service};

pub struct Doorkeeper {
    rooms: Arc<Rooms>,
}

impl Doorkeeper {
    pub fn new(rooms: Arc<Rooms>) -> Doorkeeper {
        Doorkeeper { rooms }
    }
}

impl Service for Doorkeeper {
    fn call(&self, peer: &Peer, request: Request) -> BoxFuture<'static, Reply> {
        let rooms = Arc::clone(&self.rooms);
        match request {
            // appends are admitted at the first poll, in the order of the stream
            Request::Produce(_) => Box::pin(answer(rooms, request)),
            Request::Fetch(_) | Request::FetchMany(_) | Request::Sql(_) => {
                let stop = peer.stop.clone();
                Box::pin(async move {
                    tokio::select! {
                        reply = answer(rooms, request) => reply,
                        () = stop.cancelled() => {
                            refusal(WireError::retry(code::STOPPING, "the server is stopping"))
                        }
                    }
                })
            }
            _ => Box::pin(async move {
                match tokio::spawn(answer(rooms, request)).await {
                    Ok(reply) => reply,
                    Err(error) => refusal(reply::bug(format!("the request broke: {error}"))),
                }
            }),
        }
    }
}

fn refusal(error: WireError) -> Reply {
    Reply::One(Response::Error(error))
}

async fn answer(rooms: Arc<Rooms>, request: Request) -> Reply {
    match Box::pin(rooms.answer(request)).await {
        Ok(Answer::One(response)) => Reply::One(response),
        Ok(Answer::Pieces(pieces)) => Reply::Many(Box::pin(pieces.map(|piece| match piece {
            Ok(text) => Response::SqlChunk(SqlChunk { text }),
            Err(error) => Response::Error(error),
        }))),
        Err(error) => refusal(error),
    }
}
