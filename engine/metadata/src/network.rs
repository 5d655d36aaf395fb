//! The way to other nodes of the catalog's group. A broker alone has none.
//!
//! Called by: Raft, when a group has more than one node. Invariants: nothing is sent. What a
//! cluster needs is another implementation of openraft's `RaftNetworkFactory`; the tests have
//! one in memory.
//! Refuses: every call, as unreachable.

use std::io;

use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};

use crate::types::{Member, NodeId, Types};

type Refused<E> = RPCError<NodeId, Member, E>;

/// No other nodes.
pub(crate) struct Alone;

fn unreachable<E: std::error::Error>() -> Refused<E> {
    let why = io::Error::other("this broker has no way to other brokers");
    RPCError::Unreachable(Unreachable::new(&why))
}

impl RaftNetworkFactory<Types> for Alone {
    type Network = Alone;

    async fn new_client(&mut self, _target: NodeId, _node: &Member) -> Alone {
        Alone
    }
}

impl RaftNetwork<Types> for Alone {
    async fn append_entries(
        &mut self,
        _ask: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Refused<RaftError<NodeId>>> {
        Err(unreachable())
    }

    async fn install_snapshot(
        &mut self,
        _ask: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Refused<RaftError<NodeId, InstallSnapshotError>>>
    {
        Err(unreachable())
    }

    async fn vote(
        &mut self,
        _ask: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Refused<RaftError<NodeId>>> {
        Err(unreachable())
    }
}
