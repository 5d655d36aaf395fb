//! Who reads which partition: balanced, and stable when members come and go.
//!
//! Called by `group` at each change. Invariants: the outcome depends on the members, the
//! partitions and the assignment before, and on nothing else; every partition whose topic has
//! a subscriber gets exactly one; a partition moves only where that makes loads more even.

use std::collections::BTreeMap;

use super::Member;
use crate::ids::{PartitionId, TopicId};

/// Assigns every partition to one of the members that subscribed to its topic.
pub(super) fn assign(members: &mut BTreeMap<String, Member>, topics: &BTreeMap<TopicId, u32>) {
    let mut owners = owned_before(members, topics);
    let mut members: Vec<&mut Member> = members.values_mut().collect();
    let mut loads = vec![0usize; members.len()];
    owners.values().for_each(|owner| loads[*owner] += 1);
    for (topic, partitions) in topics {
        let readers = readers_of(&members, *topic);
        for index in 0..*partitions {
            let partition = PartitionId::new(*topic, index);
            if owners.contains_key(&partition) {
                continue;
            }
            if let Some(least) = least_loaded(&readers, &loads) {
                owners.insert(partition, least);
                loads[least] += 1;
            }
        }
    }
    even_out(&mut owners, &mut loads, &members, topics);
    for member in &mut members {
        member.assignment.clear();
    }
    // In order of partition, so each assignment is ascending.
    for (partition, owner) in owners {
        members[owner].assignment.push(partition);
    }
}

/// What every member keeps unless it must give away: partitions that still are, of topics it
/// still reads. Owners are positions in the order of the names.
fn owned_before(
    members: &BTreeMap<String, Member>,
    topics: &BTreeMap<TopicId, u32>,
) -> BTreeMap<PartitionId, usize> {
    let mut owners = BTreeMap::new();
    for (position, member) in members.values().enumerate() {
        for partition in &member.assignment {
            let still = topics
                .get(&partition.topic)
                .is_some_and(|n| partition.index < *n);
            if still && member.topics.contains(&partition.topic) {
                owners.entry(*partition).or_insert(position);
            }
        }
    }
    owners
}

fn readers_of(members: &[&mut Member], topic: TopicId) -> Vec<usize> {
    (0..members.len())
        .filter(|m| members[*m].topics.binary_search(&topic).is_ok())
        .collect()
}

fn least_loaded(readers: &[usize], loads: &[usize]) -> Option<usize> {
    readers.iter().copied().min_by_key(|reader| loads[*reader])
}

/// Moves partitions from the member with most to one with at least two fewer, until there is
/// none. Every move lowers the sum of the squares of the loads, so it ends; and with equal
/// subscriptions no partition moves twice.
fn even_out(
    owners: &mut BTreeMap<PartitionId, usize>,
    loads: &mut [usize],
    members: &[&mut Member],
    topics: &BTreeMap<TopicId, u32>,
) {
    let readers: BTreeMap<TopicId, Vec<usize>> = topics
        .keys()
        .map(|t| (*t, readers_of(members, *t)))
        .collect();
    let mut owned = vec![Vec::new(); members.len()];
    owners
        .iter()
        .for_each(|(partition, owner)| owned[*owner].push(*partition));
    loop {
        let mut heaviest: Vec<usize> = (0..members.len()).collect();
        heaviest.sort_by_key(|m| std::cmp::Reverse(loads[*m]));
        let found = heaviest.into_iter().find_map(|from| {
            // The last first: the lowest partitions stay where they are.
            owned[from]
                .iter()
                .enumerate()
                .rev()
                .find_map(|(at, partition)| {
                    let to = least_loaded(&readers[&partition.topic], loads)?;
                    (loads[from] > loads[to] + 1).then_some((from, at, to))
                })
        });
        let Some((from, at, to)) = found else { return };
        let partition = owned[from].remove(at);
        owned[to].push(partition);
        owners.insert(partition, to);
        loads[from] -= 1;
        loads[to] += 1;
    }
}
