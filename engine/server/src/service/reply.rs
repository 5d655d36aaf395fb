//! The one place where errors of the rooms become what a peer is told: code, message, advice.
//!
//! Called by: the rest of `service`, `http`.
//! Invariants: a code is stable, a message is for people; an error that is our own fault says so
//! (`bug`) and is logged here, once.

use model::{Advice, ProposeError};
use protocol::{WireError, code};

/// A command that was refused or could not be made durable.
pub fn propose(error: ProposeError) -> WireError {
    WireError::new(error.advice(), error.code(), error.to_string())
}

/// What has no better place: a fault of ours.
pub fn bug(what: impl std::fmt::Display) -> WireError {
    tracing::error!("internal error: {what}");
    WireError::new(Advice::Bug, code::INTERNAL, what.to_string())
}

/// A group's refusal; a member that is told `fenced` joins again.
pub fn group(error: broker::GroupError) -> WireError {
    use broker::GroupError::{Catalog, Log, Rule, Topic, Unknown};
    use model::GroupError::{Generation, NotAssigned, UnknownMember};
    let code = match &error {
        Log(error) => error.code(),
        Catalog(error) => error.code(),
        Topic { .. } => code::NOT_FOUND,
        Unknown { .. } | Rule(UnknownMember { .. }) => code::UNKNOWN_MEMBER,
        Rule(Generation { .. } | NotAssigned { .. }) => code::REBALANCE,
        _ => code::INVALID,
    };
    WireError::new(error.advice(), code, error.to_string())
}
