//! Groups: fencing and expiry by example, assignment by property.

use proptest::prelude::*;

use super::*;

const SESSION: u64 = 10_000;

fn subscribe(topics: &[(u32, u32)]) -> Vec<Subscription> {
    let one = |(topic, partitions): &(u32, u32)| Subscription {
        topic: TopicId(*topic),
        partitions: *partitions,
    };
    topics.iter().map(one).collect()
}

fn join(group: &mut GroupState, member: &str, topics: &[(u32, u32)], now_ms: u64) -> Joined {
    group
        .join(member, &subscribe(topics), SESSION, now_ms)
        .unwrap()
}

fn show(partitions: &[PartitionId]) -> String {
    partitions
        .iter()
        .map(PartitionId::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The assignment of everybody, in words.
fn check(group: &GroupState, expected: &str) {
    let each = |(name, m): (&String, &Member)| format!("{name}: {}", show(&m.assignment));
    let got: Vec<String> = group.members().iter().map(each).collect();
    assert_eq!(got.join("; "), expected);
}

#[test]
fn members_share_and_keep() {
    let g = &mut GroupState::new();
    join(g, "a", &[(1, 4)], 0);
    check(g, "a: 1/0 1/1 1/2 1/3");
    join(g, "b", &[(1, 4)], 0);
    check(g, "a: 1/0 1/1; b: 1/2 1/3");
    join(g, "c", &[(1, 4)], 0);
    check(g, "a: 1/0; b: 1/2 1/3; c: 1/1");
    assert!(g.leave("a"));
    check(g, "b: 1/2 1/3; c: 1/0 1/1");
    g.topic_changed(TopicId(1), 6);
    check(g, "b: 1/2 1/3 1/4; c: 1/0 1/1 1/5");
    g.topic_changed(TopicId(1), 0);
    check(g, "b: ; c: ");
    assert!(!g.leave("a"));
}

#[test]
fn only_subscribers_get_a_topic() {
    let g = &mut GroupState::new();
    join(g, "a", &[(1, 2), (2, 2)], 0);
    join(g, "b", &[(2, 2)], 0);
    check(g, "a: 1/0 1/1; b: 2/0 2/1");
}

#[test]
fn a_join_again_changes_nothing() {
    let g = &mut GroupState::new();
    let first = join(g, "a", &[(1, 2)], 0);
    assert_eq!(join(g, "a", &[(1, 2)], 5), first);
    assert_eq!(join(g, "a", &[(1, 3)], 5).generation, first.generation + 1);
}

#[test]
fn silence_expires() {
    let g = &mut GroupState::new();
    let generation = join(g, "a", &[(1, 2)], 0).generation;
    assert_eq!(
        g.heartbeat("a", generation, 6_000),
        Ok(Heartbeat { rejoin: false })
    );
    join(g, "b", &[(1, 2)], 7_000);
    assert_eq!(
        g.heartbeat("a", generation, 8_000),
        Ok(Heartbeat { rejoin: true })
    );
    assert_eq!(g.next_deadline_ms(), Some(17_000));
    assert!(g.expire(16_999).is_empty());
    assert_eq!(g.expire(17_000), vec!["b".to_owned()]);
    check(g, "a: 1/0 1/1");
    let gone = g.heartbeat("a", generation, 18_000).unwrap_err();
    assert_eq!(
        gone.to_string(),
        "member `a` is not in the group (any more): join again"
    );
    assert_eq!(gone.advice(), Advice::Fenced);
}

#[test]
fn commits_are_fenced() {
    let g = &mut GroupState::new();
    let p = |index| PartitionId::new(TopicId(1), index);
    let check = |g: &GroupState, by, p, expected, want: &str| {
        let got = g.commit_check(by, p, expected, "");
        assert_eq!(
            got.map_or_else(|e| e.to_string(), |()| "ok".to_owned()),
            want
        );
    };
    check(g, None, p(0), None, "ok");
    let old = join(g, "a", &[(1, 2)], 0).generation;
    check(g, Some(("a", old)), p(0), None, "ok");
    check(
        g,
        None,
        p(0),
        None,
        "the group has members: only they may commit",
    );
    let new = join(g, "b", &[(1, 2)], 0).generation;
    check(g, Some(("a", old)), p(0), None, {
        "member `a` is of generation 1, but the group is at 2: join again"
    });
    check(g, Some(("a", new)), p(1), None, {
        "partition 1/1 is not assigned to member `a`: join again"
    });
    check(g, Some(("c", new)), p(1), None, {
        "member `c` is not in the group (any more): join again"
    });
    check(
        g,
        Some(("b", new)),
        p(1),
        Some(7),
        "commit of partition 1/1 is at None, not at 7",
    );
    g.commit(p(1), 7, "note");
    check(g, Some(("b", new)), p(1), Some(7), "ok");
    assert_eq!(g.position(p(1)), Some(7));
    let long = "x".repeat(COMMIT_METADATA_BYTES_MAX + 1);
    assert!(g.commit_check(Some(("b", new)), p(1), None, &long).is_err());
    g.topic_changed(TopicId(1), 0);
    assert_eq!(g.position(p(1)), None);
}

#[test]
fn bad_joins_are_refused() {
    let g = &mut GroupState::new();
    let mut check = |member: &str, topics: &[(u32, u32)], session, want: &str| {
        let error = g.join(member, &subscribe(topics), session, 0).unwrap_err();
        assert_eq!(error.to_string(), want);
    };
    check("", &[(1, 1)], SESSION, "a member name has 1 to 249 bytes");
    check(
        "a",
        &[],
        SESSION,
        "a member subscribes to 1 to 1000 topics, not 0",
    );
    check(
        "a",
        &[(1, 1)],
        1,
        "a session lasts 1000 to 1800000 ms, not 1",
    );
    check(
        "a",
        &[(1, 100_001)],
        SESSION,
        "a group reads at most 100000 partitions, not 100001",
    );
    assert!(g.is_empty());
    assert_eq!(group_name_check("flights"), Ok(()));
    assert_eq!(group_name_check(""), Err(GroupError::Name));
    assert_eq!(group_name_check("a\nb"), Err(GroupError::Name));
}

/// What may happen to a group.
#[derive(Debug, Clone)]
enum Step {
    Join(u8, Vec<u32>),
    Leave(u8),
    Resize(u32, u32),
    Pass(u64),
}

fn step_any() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, prop::collection::vec(1u32..4, 1..4)).prop_map(|(m, t)| Step::Join(m, t)),
        2 => (0u8..6).prop_map(Step::Leave),
        1 => (1u32..4, 0u32..9).prop_map(|(t, n)| Step::Resize(t, n)),
        2 => (0u64..4_000).prop_map(Step::Pass),
    ]
}

fn owners(group: &GroupState) -> BTreeMap<PartitionId, String> {
    let of = |(name, m): (&String, &Member)| {
        m.assignment
            .iter()
            .map(|p| (*p, name.clone()))
            .collect::<Vec<_>>()
    };
    group.members().iter().flat_map(of).collect()
}

proptest! {
    #[test]
    fn each_partition_has_one_reader(steps in prop::collection::vec(step_any(), 1..40)) {
        let mut group = GroupState::new();
        let mut sizes = BTreeMap::from([(1u32, 3u32), (2, 1), (3, 7)]);
        let mut now = 0;
        for step in steps {
            let before = (group.generation(), owners(&group));
            match step {
                Step::Join(m, topics) => {
                    let topics: Vec<_> = topics.iter().map(|t| (*t, sizes[t])).collect();
                    join(&mut group, &format!("m{m}"), &topics, now);
                }
                Step::Leave(m) => drop(group.leave(&format!("m{m}"))),
                Step::Resize(topic, n) => {
                    sizes.insert(topic, n);
                    group.topic_changed(TopicId(topic), n);
                }
                Step::Pass(ms) => {
                    now += ms;
                    group.expire(now);
                }
            }
            let after = owners(&group);
            let given: usize = group.members().values().map(|m| m.assignment.len()).sum();
            prop_assert_eq!(given, after.len(), "a partition has two readers");
            for (topic, n) in &sizes {
                let topic = TopicId(*topic);
                let has_readers = group.members().values().any(|m| m.topics.contains(&topic));
                for index in 0..*n {
                    let owner = after.get(&PartitionId::new(topic, index));
                    prop_assert_eq!(owner.is_some(), has_readers);
                    let reads = owner.is_none_or(|o| group.members()[o].topics.contains(&topic));
                    prop_assert!(reads);
                }
            }
            if before.1 != after {
                prop_assert_ne!(before.0, group.generation());
            }
        }
    }

    #[test]
    fn loads_are_even_and_few_move(
        members in 1u32..12,
        partitions in 1u32..64,
        leaver in 0u32..12,
    ) {
        let mut group = GroupState::new();
        let topics = [(1, partitions)];
        for m in 0..members {
            let before = owners(&group);
            join(&mut group, &format!("m{m:02}"), &topics, 0);
            even(&group)?;
            let moved = owners(&group).iter().filter(|(p, o)| before.get(p) != Some(o)).count();
            prop_assert!(moved <= partitions.div_ceil(m + 1) as usize || m == 0);
        }
        let name = format!("m{:02}", leaver % members);
        let before = owners(&group);
        group.leave(&name);
        even(&group)?;
        for (partition, owner) in owners(&group) {
            prop_assert!(before[&partition] == owner || before[&partition] == name);
        }
    }
}

fn even(group: &GroupState) -> Result<(), TestCaseError> {
    let loads: Vec<usize> = group
        .members()
        .values()
        .map(|m| m.assignment.len())
        .collect();
    let (least, most) = (loads.iter().min(), loads.iter().max());
    prop_assert!(
        most.zip(least)
            .is_none_or(|(most, least)| most - least <= 1),
        "{:?}",
        loads
    );
    Ok(())
}
