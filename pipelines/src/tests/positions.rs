//! What is forgotten of pipelines and of sources that go: all of it, and nothing of others.

use crate::Runtime;
use crate::tests::support::{Fate, World, done, until};

/// A pipeline that copies the topics of its sources, whose names are theirs.
fn yaml(name: &str, sources: &[&str]) -> String {
    let source =
        |topic: &&str| format!("  {topic}: {{ kind: source, topic: {topic}, start: earliest }}\n");
    let nodes: String = sources.iter().map(source).collect();
    let inputs = sources.join(", ");
    format!(
        "apiVersion: rustmq/v1alpha1\nkind: Pipeline\nmetadata: {{ name: {name} }}\n\
         topics:\n  in: {{ partitions: 2 }}\n  more: {{ partitions: 1 }}\n  out-{name}: {{ partitions: 1 }}\n\
         nodes:\n{nodes}  o: {{ kind: sink, inputs: [{inputs}], topic: out-{name} }}\n"
    )
}

async fn apply(world: &World, runtime: &Runtime, name: &str, sources: &[&str]) {
    let applied = world.apply(runtime, &yaml(name, sources), &[]).await;
    applied.unwrap_or_else(|d| panic!("{d:#?}"));
    until(runtime, done).await;
}

#[tokio::test]
async fn a_pipeline_that_does_not_run_is_forgotten_and_none_that_is_called_nearly_so() {
    let world = World::new();
    let runtime = world.runtime();
    for name in ["p", "p-2", "p2"] {
        apply(&world, &runtime, name, &["in"]).await;
    }
    world.produce("in", 0, &["a", "b"]);
    until(&runtime, done).await;
    runtime.shutdown().await;
    // as after a restart in which none of them started
    let again = world.runtime();
    assert!(again.remains("p"));
    again.remove("p").await.unwrap();
    assert!(!again.remains("p") && again.remains("p-2") && again.remains("p2"));
    again.remove("unknown").await.unwrap();

    for name in ["p", "p-2", "p2"] {
        apply(&world, &again, name, &["in"]).await;
    }
    assert_eq!(world.values("out-p", 0), ["a", "b", "a", "b"]);
    assert_eq!(world.values("out-p-2", 0), ["a", "b"]);
    assert_eq!(world.values("out-p2", 0), ["a", "b"]);
}

#[tokio::test]
async fn a_deletion_that_found_no_room_is_finished_by_the_next() {
    let world = World::new();
    let runtime = world.runtime();
    apply(&world, &runtime, "p", &["in"]).await;
    world.log.fates([Fate::Refused]);
    let refused = runtime.remove("p").await.unwrap_err().to_string();
    assert!(refused.contains("positions are still there"), "{refused}");
    assert!(refused.contains("delete it again"), "{refused}");
    assert!(runtime.names().is_empty() && runtime.remains("p"));
    runtime.remove("p").await.unwrap();
    assert!(!runtime.remains("p"));
}

/// Whether its positions could be forgotten when it was taken out, or not.
#[tokio::test]
async fn a_source_that_was_taken_out_begins_anew_when_it_comes_again() {
    for fates in [vec![], vec![Fate::Refused]] {
        let forgotten = fates.is_empty();
        let world = World::new();
        let runtime = world.runtime();
        apply(&world, &runtime, "p", &["in", "more"]).await;
        world.produce("in", 1, &["a"]);
        world.produce("more", 0, &["b"]);
        until(&runtime, done).await;
        world.log.fates(fates);
        apply(&world, &runtime, "p", &["in"]).await;
        let more = ("_pipeline.p.more", world.partition("more", 0));
        assert_eq!(world.log.position_of(more.0, more.1).is_none(), forgotten);
        let kept = world
            .log
            .position_of("_pipeline.p.in", world.partition("in", 1));
        assert_eq!(kept.map(|position| position.offset), Some(1));

        apply(&world, &runtime, "p", &["in", "more"]).await;
        let mut values = world.values("out-p", 0);
        values.sort();
        assert_eq!(values, ["a", "b", "b"]);
    }
}
