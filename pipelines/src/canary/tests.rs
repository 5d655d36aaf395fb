//! What lanes ask of a canary and hand to it, without its thread.

use std::sync::mpsc::{Receiver, channel};

use model::ids::TopicId;

use super::*;
use crate::stage::{Batching, Disposal, Op, StageNode};

/// A canary of node `w`, and what it is given.
fn canary() -> (Canary, Receiver<Sample>) {
    let of = Of {
        node: "w".to_string(),
        alias: "m".to_string(),
        running: Digest::of(b"old"),
        candidate: Digest::of(b"new"),
        generation: 3,
    };
    let (queue, samples) = sync_channel(CANARY_QUEUE_BATCHES_MAX);
    let ledger = Ledger {
        report: Mutex::new(CanaryReport::new(&of)),
        over: AtomicBool::new(false),
        bytes: AtomicUsize::new(0),
        stop: Stop::default(),
        changed: Arc::new(watch::Sender::new(0)),
    };
    let canary = Canary {
        of,
        queue: Mutex::new(Some(queue)),
        ledger: Arc::new(ledger),
        follows: None,
    };
    (canary, samples)
}

/// With the nodes `v` and `w`.
fn stage(generation: u64) -> Arc<Stage> {
    let node = |name: &str| StageNode {
        name: name.to_string(),
        inputs: Vec::new(),
        edge: String::new(),
        op: Op::Source,
        ports: Vec::new(),
        then: Disposal::Drop,
        module: None,
        kept: None,
        lookups: Vec::new(),
    };
    Arc::new(Stage {
        pipeline: "p".to_string(),
        name: "src".to_string(),
        group: "_pipeline.p.src".to_string(),
        generation,
        topic: TopicId(7),
        topic_name: "in".to_string(),
        partitions: 1,
        nodes: vec![node("v"), node("w")],
        batch: Batching::ONE,
        modules: Default::default(),
    })
}

fn sample(generation: u64, node: usize) -> Sample {
    Sample {
        stage: stage(generation),
        node,
        lane: 0,
        inputs: vec![Chunk::empty()],
        ports: Vec::new(),
        rejects: Vec::new(),
        cut: None,
        took: Duration::ZERO,
        offsets: vec![5],
        view: None,
        newest: None,
        changed: 0,
        from: 5,
        next: 6,
        copy: None,
    }
}

#[test]
fn what_was_made_for_another_canary_is_not_taken() {
    let (canary, samples) = canary();
    let slot = Slot::default();
    slot.put(canary);
    let check = |generation: u64, node: usize, taken: bool| {
        slot.offer(sample(generation, node));
        let got = samples.try_recv().is_ok();
        assert_eq!(got, taken, "generation {generation}, node {node}");
    };
    check(3, 1, true);
    // of the canary before this one, which watched `v`
    check(3, 0, false);
    check(2, 1, false);
    check(3, 2, false);
    let report = slot.report().expect("it is there");
    assert_eq!(
        report.skipped_batches, 0,
        "that is not left out of this one"
    );
}

#[test]
fn lanes_do_not_wait_for_the_report() {
    let (canary, samples) = canary();
    let ledger = canary.ledger.clone();
    let slot = Slot::default();
    slot.put(canary);
    // somebody reads or writes it meanwhile
    let report = ledger.report();
    let (answer, answers) = channel();
    let lane = std::thread::spawn(move || {
        let watched = slot.watches(&stage(3));
        slot.offer(sample(3, 1));
        answer.send((watched, slot.runs())).expect("the test waits");
    });
    let answered = answers.recv_timeout(Duration::from_secs(30));
    drop(report);
    lane.join().expect("the lane goes on");
    assert_eq!(answered, Ok((Some(1), true)));
    assert_eq!(samples.try_iter().count(), 1);
}

#[test]
fn an_ended_one_takes_nothing_and_lets_its_thread_go() {
    let check = |ends: &dyn Fn(&Slot), why: &str| {
        let (canary, samples) = canary();
        let slot = Slot::default();
        slot.put(canary);
        ends(&slot);
        slot.offer(sample(3, 1));
        // nobody can send any more: its thread, which waits for samples, sees that
        let (over, gone) = (!slot.runs(), samples.try_recv());
        assert_eq!(over, !why.is_empty());
        match why {
            "" => assert!(gone.is_ok()),
            why => {
                let gone = gone.map(|_| ()).expect_err("nothing is sent");
                assert_eq!(gone, std::sync::mpsc::TryRecvError::Disconnected);
                let state = slot.report().expect("what it found stays").state;
                assert_eq!(state.to_string(), format!("done: {why}"));
            }
        }
    };
    check(&|slot| slot.end("enough"), "enough");
    let back = "a lane went back to the generation before: it trapped";
    check(&|slot| slot.rolled_back(3, "it trapped"), back);
    check(&|slot| slot.rolled_back(2, "it trapped"), "");
}
