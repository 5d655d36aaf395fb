//! Objects with offsets that have no row: read from anywhere, nothing looks missing.

use super::*;

/// Two row groups with every third record of `large`, as compaction leaves it.
fn sparse() -> Vec<Batch> {
    let part = |batch: &Batch| {
        let rows = batch.rows().unwrap();
        let chosen: Vec<u32> = (0..rows.len() as u32).filter(|row| row % 3 == 1).collect();
        let rows = rows.try_take(&chosen).unwrap();
        let batch = batch.clone();
        let left = Batch::encode_compacted(&rows, &chosen, 1023, Codec::None).unwrap();
        left.stamped(batch.base_offset(), batch.epoch(), batch.append_time())
    };
    let mut batches: Vec<Batch> = Vec::new();
    for round in 0..3 {
        let moved = large().into_iter().map(|batch| {
            let base = batch.base_offset() + round * 5120;
            batch.stamped(base, ShardEpoch(2), 5)
        });
        batches.extend(moved.map(|batch| part(&batch)));
    }
    batches
}

#[tokio::test]
async fn an_object_with_holes_is_read_from_anywhere() {
    let written = write(&PartitionConfig::new(P0, "t"), &[sparse()]).unwrap();
    assert_eq!(written.objects[0].groups.len(), 2);
    let (tier, lists) = Shelf::default().put(written).await;
    let mut list = lists.into_iter().next().unwrap();
    // Neighbours of which nothing is left.
    let object = &mut list.objects[0];
    (object.base, object.next, list.end) = (0, 20_000, 20_000);
    let all = records(&sparse());
    let between = list.objects[0].groups[1].base;
    let edges = [0, 1, between - 1, between, 15_359, 15_360, 19_999];
    let inside = (0..20_000).step_by(977);
    for from in edges.into_iter().chain(inside) {
        for bytes in [1, 1 << 20, usize::MAX] {
            let mut at = from;
            let mut batches = Vec::new();
            while at < list.end {
                let read = tier.read(&list, at, bytes).await.unwrap();
                for batch in read {
                    assert!(batch.base_offset() <= at, "a gap at {at}, from {from}");
                    at = at.max(batch.next_offset());
                    batches.push(batch);
                }
            }
            assert_eq!(at, list.end);
            let mut found = records(&batches);
            found.retain(|(offset, ..)| *offset >= from);
            assert!(found.windows(2).all(|two| two[0].0 < two[1].0), "{from}");
            let wanted = all.iter().filter(|(offset, ..)| *offset >= from);
            assert!(found.iter().eq(wanted), "from {from}, {bytes} bytes");
        }
    }
    let whole = tier.read_whole(&list, &list.objects).await.unwrap();
    let ends = (whole[0].base_offset(), whole[whole.len() - 1].next_offset());
    assert_eq!(ends, (0, 20_000));
    assert_eq!(records(&whole), all);
    // Rows the list does not know of, and rows that are missing.
    for (more, expected) in [(true, "too early"), (false, "more rows")] {
        let mut wrong = list.clone();
        let object = &mut wrong.objects[0];
        object.foot = None;
        object.groups.clear();
        object.rows = if more {
            object.rows + 1
        } else {
            object.rows - 1
        };
        object.crc32c = 0;
        let error = tier.read(&wrong, 0, usize::MAX).await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("checksum") || said.contains(expected),
            "{said}"
        );
    }
}
