//! Three voters in one process: the same code as a broker alone, with a network between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{CatalogView, Command};
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{ChangeMembers, ServerState};

use super::twin::TwinFolder;
use super::{create, names};
use crate::Metadata;
use crate::log::Sizes;
use crate::node::{Node, Settings};
use crate::types::{Member, NodeId, Raft, Types};

const SETTINGS: Settings = Settings {
    timers: true,
    heartbeat_ms: 100,
    log_bytes_max: 3_000,
    entries_kept: 3,
    sizes: Sizes {
        reserve: 2_000,
        growth: 8_000,
        dead_max: 4_000,
    },
};
const DEADLINE: Duration = Duration::from_secs(30);

/// The members that are up, and who is cut off.
#[derive(Clone, Default)]
struct Router {
    members: Arc<Mutex<BTreeMap<NodeId, Raft>>>,
    cut_off: Arc<Mutex<BTreeSet<NodeId>>>,
}

/// The way from one member to another.
struct Way {
    router: Router,
    from: NodeId,
    to: NodeId,
}

struct From(Router, NodeId);

impl RaftNetworkFactory<Types> for From {
    type Network = Way;

    async fn new_client(&mut self, to: NodeId, _member: &Member) -> Way {
        let From(router, from) = self;
        Way {
            router: router.clone(),
            from: *from,
            to,
        }
    }
}

type Failed<E> = RPCError<NodeId, Member, RaftError<NodeId, E>>;

impl Way {
    fn open<E: std::error::Error>(&self) -> Result<Raft, Failed<E>> {
        let cut_off = self.router.cut_off.lock().unwrap();
        let members = self.router.members.lock().unwrap();
        let is_cut = cut_off.contains(&self.from) || cut_off.contains(&self.to);
        let target = members.get(&self.to).filter(|_| !is_cut).cloned();
        let lost = || RPCError::Network(NetworkError::new(&std::io::Error::other("no way")));
        target.ok_or_else(lost)
    }

    /// An answer that does not come back while the way is cut.
    fn back<T, E: std::error::Error>(
        &self,
        answer: Result<T, RaftError<NodeId, E>>,
    ) -> Result<T, Failed<E>> {
        self.open::<E>()?;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        ask: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, Member, RaftError<NodeId>>> {
        let answer = self.open()?.append_entries(ask).await;
        self.back(answer)
    }

    async fn install_snapshot(
        &mut self,
        ask: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failed<InstallSnapshotError>> {
        let answer = self.open()?.install_snapshot(ask).await;
        self.back(answer)
    }

    async fn vote(
        &mut self,
        ask: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, Member, RaftError<NodeId>>> {
        let answer = self.open()?.vote(ask).await;
        self.back(answer)
    }
}

/// The members, their disks and the network between them.
#[derive(Default)]
struct Cluster {
    router: Router,
    folders: BTreeMap<NodeId, TwinFolder>,
    up: BTreeMap<NodeId, Metadata>,
}

impl Cluster {
    async fn start(&mut self, id: NodeId) {
        let folder = self.folders.entry(id).or_default().clone();
        let network = From(self.router.clone(), id);
        let node = Node::open(Arc::new(folder), id, network, SETTINGS)
            .await
            .unwrap();
        let mut members = self.router.members.lock().unwrap();
        members.insert(id, node.raft.clone());
        let node = Arc::new(node);
        self.up.insert(id, Metadata { node });
    }

    /// Stops a member; what it had not synced is lost.
    async fn kill(&mut self, id: NodeId) {
        self.router.members.lock().unwrap().remove(&id);
        let member = self.up.remove(&id).unwrap();
        member.close().await;
        let folder = self.folders.get_mut(&id).unwrap();
        *folder = folder.crashed(|| false);
    }

    fn cut_off(&self, id: NodeId) {
        self.router.cut_off.lock().unwrap().insert(id);
    }

    fn heal(&self) {
        self.router.cut_off.lock().unwrap().clear();
    }

    /// A leader that is not cut off.
    async fn leader(&self) -> NodeId {
        let cut_off = self.router.cut_off.lock().unwrap().clone();
        let (ids, raft): (Vec<NodeId>, Vec<Raft>) = self
            .up
            .iter()
            .filter(|(id, _)| !cut_off.contains(id))
            .map(|(id, member)| (*id, member.node.raft.clone()))
            .unzip();
        let leads = raft.iter().map(|raft| {
            let wait = raft.wait(Some(DEADLINE));
            Box::pin(async move { wait.state(ServerState::Leader, "leads").await })
        });
        let (led, at, _) = futures::future::select_all(leads).await;
        led.unwrap();
        ids[at]
    }

    /// Proposes to whoever leads until it is done.
    async fn propose(&self, command: Command) {
        let tried = async {
            loop {
                let leader = self.leader().await;
                match self.up[&leader].propose(command.clone()).await {
                    Ok(_) => return,
                    Err(error) => println!("{leader}: {error}"),
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, tried)
            .await
            .expect("nobody takes it");
    }

    /// Waits until a member has these topics.
    async fn sees(&self, id: NodeId, topics: &str) {
        let mut watch = self.up[&id].watch();
        let seen = watch.wait_for(|catalog| names(catalog) == topics);
        let seen = tokio::time::timeout(DEADLINE, seen).await;
        assert!(
            seen.is_ok(),
            "member {id} has {}",
            names(&self.up[&id].catalog())
        );
    }

    async fn all_see(&self, topics: &str) {
        for id in self.up.keys() {
            self.sees(*id, topics).await;
        }
        let mut catalogs = self.up.values().map(Metadata::catalog);
        let first = catalogs.next().unwrap();
        assert!(catalogs.all(|other| other == first));
    }
}

async fn three() -> Cluster {
    let mut cluster = Cluster::default();
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let members: BTreeMap<NodeId, Member> = (1..=3).map(|id| (id, Member::default())).collect();
    cluster.up[&1].node.raft.initialize(members).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_says_nothing_wrong() {
    let cluster = three().await;
    cluster.propose(create("a")).await;
    cluster.all_see("a").await;
    let old = cluster.leader().await;
    cluster.cut_off(old);
    // It still believes that it leads, and may not answer for anything.
    let cut = cluster.up[&old].clone();
    let never = tokio::spawn(async move { cut.propose(create("lost")).await });
    cluster.propose(create("b")).await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    assert_eq!(names(&cluster.up[&old].catalog()), "a");
    cluster.heal();
    cluster.propose(create("c")).await;
    cluster.all_see("a b c").await;
    let answer = tokio::time::timeout(DEADLINE, never)
        .await
        .unwrap()
        .unwrap();
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_member_comes_back_from_its_files() {
    let mut cluster = three().await;
    cluster.propose(create("t0")).await;
    let mut topics = "t0".to_owned();
    for round in 1..=3 {
        cluster.kill(round).await;
        // Enough for a snapshot, so that the log does not reach back to what it missed.
        for number in 0..20 {
            cluster
                .propose(create(&format!("t{round}-{number:02}")))
                .await;
            topics = format!("{topics} t{round}-{number:02}");
        }
        cluster.start(round).await;
        cluster.all_see(&topics).await;
    }
    // All at once, as after a power cut.
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    cluster.propose(create("z")).await;
    cluster.all_see(&format!("{topics} z")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_member_is_replaced_under_a_new_number() {
    let mut cluster = three().await;
    let mut topics = Vec::new();
    for number in 0..30 {
        topics.push(format!("t{number:02}"));
        cluster.propose(create(topics.last().unwrap())).await;
    }
    let topics = topics.join(" ");
    let lost = (1..=3).find(|id| *id != 2).unwrap();
    cluster.kill(lost).await;
    cluster.start(4).await;
    let leader = cluster.leader().await;
    let raft = cluster.up[&leader].node.raft.clone();
    raft.add_learner(4, Member::default(), true).await.unwrap();
    // The log no longer reaches back to the beginning: it came by snapshot.
    cluster.sees(4, &topics).await;
    assert!(!cluster.folders[&4].bytes("snapshot").is_empty());
    let voters: BTreeSet<NodeId> = [2, 3, 4].into();
    let change = ChangeMembers::ReplaceAllVoters(voters.clone());
    raft.change_membership(change, false).await.unwrap();
    // Now the new one counts: with it and one other there is a majority.
    cluster.kill(3).await;
    cluster.propose(create("z")).await;
    cluster.all_see(&format!("{topics} z")).await;
}
