//! Manifests: golden bytes, what is read of the old format, what is refused.

use super::*;

fn golden(object: ColdObject) -> Manifest {
    let mark = ProducerMark {
        id: model::ProducerId(7),
        epoch: 1,
        sequence: 2,
        base_offset: 3,
        records: 2,
    };
    let mut manifest = Manifest::empty(P0, "t").followed_by(0, Some(object), vec![mark]);
    manifest.writer = "node-0-1".to_owned();
    manifest.commit = 4;
    manifest.shard_epoch = manifest.objects[0].epoch;
    manifest
}

#[test]
fn manifest_golden_json() {
    let group = |at, base, rows| ColdGroup {
        at,
        len: 3,
        crc32c: 8,
        base,
        rows,
        min_ts: (base == 0).then_some(1),
        max_ts: (base == 0).then_some(2),
    };
    let object = ColdObject {
        epoch: 9,
        group: 1,
        groups: vec![group(2, 0, 2), group(5, 2, 3)],
        foot: Some(ColdFoot {
            at: 8,
            len: 2,
            crc32c: 7,
            groups: 4,
        }),
        ..object_of(0, 5)
    };
    let manifest = golden(object);
    let json = concat!(
        r#"{"format":4,"partition":{"topic":1,"index":0},"topic":"t","number":1,"#,
        r#""writer":"node-0-1","commit":4,"shard_epoch":9,"start":0,"end":5,"objects":[{"#,
        r#""path":"data/0","size":10,"base":0,"next":5,"rows":5,"min_ts":1,"max_ts":2,"#,
        r#""append_time":3,"row_bytes":50,"crc32c":6,"epoch":9,"group":1,"groups":["#,
        r#"{"at":2,"len":3,"crc32c":8,"base":0,"rows":2,"min_ts":1,"max_ts":2},"#,
        r#"{"at":5,"len":3,"crc32c":8,"base":2,"rows":3}],"#,
        r#""foot":{"at":8,"len":2,"crc32c":7,"groups":4}}],"producers":[{"id":7,"epoch":1,"#,
        r#""sequence":2,"base_offset":3,"records":2}]}"#
    );
    assert_eq!(String::from_utf8(manifest.to_json()).unwrap(), json);
    assert_eq!(Manifest::from_json(json.as_bytes(), P0).unwrap(), manifest);
    assert_eq!(manifest.format, FORMAT);
    for format in [2, 3] {
        let before = json.replacen('4', &format.to_string(), 1);
        let read = Manifest::from_json(before.as_bytes(), P0).unwrap();
        let expected = manifest.clone();
        assert_eq!(read, Manifest { format, ..expected });
    }
    assert_eq!(manifest.objects[0].bytes(), 6);
    let path = Manifest::path(P0, 1);
    assert_eq!(path.as_ref(), "manifests/1/0/00000000000000000001.json");
    assert_eq!(manifest_of(&path), Some((P0, 1)));
    assert_eq!(manifest_of(&Path::from("manifests/1/0/x.json")), None);
}

#[test]
fn manifests_of_format_1_are_read_and_go_on_as_the_newest() {
    let json = concat!(
        r#"{"format":1,"partition":{"topic":1,"index":0},"topic":"t","number":1,"#,
        r#""writer":"node-0-1","commit":4,"shard_epoch":0,"start":0,"end":5,"objects":[{"#,
        r#""path":"data/0","size":10,"base":0,"next":5,"rows":5,"min_ts":1,"max_ts":2,"#,
        r#""append_time":3,"row_bytes":50,"crc32c":6}],"producers":[{"id":7,"epoch":1,"#,
        r#""sequence":2,"base_offset":3,"records":2}]}"#
    );
    let manifest = Manifest::from_json(json.as_bytes(), P0).unwrap();
    let expected = golden(object_of(0, 5));
    assert_eq!(
        manifest,
        Manifest {
            format: 1,
            ..expected
        }
    );
    assert_eq!(manifest.objects[0].bytes(), 10);
    assert_eq!(String::from_utf8(manifest.to_json()).unwrap(), json);
    assert_eq!(manifest.followed_by(0, None, vec![]).format, FORMAT);
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let written = write(&PartitionConfig::new(P0, "t"), &[large(), large()]).unwrap();
    let check = |change: fn(&mut ColdObject), expected: &str| {
        let mut object = written.objects[1].clone();
        change(&mut object);
        let manifest = Manifest::empty(P0, "t").followed_by(0, Some(object), vec![]);
        let read = Manifest::from_json(&manifest.to_json(), P0);
        let said = read.map_or_else(|error| error, |_| "fine".to_owned());
        assert!(said.contains(expected), "{said}");
    };
    check(|_| {}, "fine");
    check(|object| object.foot = None, "no footer");
    check(|object| object.groups.clear(), "has not the row groups");
    check(|object| object.group = 3, "has not the row groups");
    check(|object| object.size -= 1, "does not end with its footer");
    check(|object| object.groups[1].at -= 1, "overlap");
    check(|object| object.groups[1].len = u64::MAX, "overlap");
    check(|object| object.groups[1].base = 5120, "out of order");
    check(|object| object.groups.swap(0, 1), "overlap");
    check(|object| object.groups[1].rows += 1, "counts its rows twice");
}

fn object_of(base: Offset, next: Offset) -> ColdObject {
    ColdObject {
        path: format!("data/{base}"),
        size: 10,
        base,
        next,
        rows: next - base,
        min_ts: 1,
        max_ts: 2,
        append_time: 3,
        row_bytes: 50,
        crc32c: 6,
        ..ColdObject::default()
    }
}

#[test]
fn manifests_out_of_order_are_refused_and_trimmed_ones_shrink() {
    let one = Manifest::empty(P0, "t").followed_by(0, Some(object_of(0, 5)), vec![]);
    let two = one.followed_by(7, Some(object_of(5, 9)), vec![]);
    assert_eq!(
        (two.objects.len(), two.start, two.end, two.number),
        (1, 7, 9, 2)
    );
    let check = |manifest: &Manifest, expected: &str| {
        let error = Manifest::from_json(&manifest.to_json(), P0).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let mut wrong = two.clone();
    wrong.objects.push(object_of(8, 9));
    check(&wrong, "out of order");
    wrong = Manifest {
        format: 5,
        ..two.clone()
    };
    check(&wrong, "format 5");
    wrong = Manifest { end: 3, ..two };
    check(&wrong, "objects end at 9");
}

#[test]
fn a_compacted_list_has_no_gap_and_says_how_far() {
    let mut list = Manifest::empty(P0, "t");
    for base in [0, 5, 10, 15] {
        list = list.followed_by(0, Some(object_of(base, base + 5)), vec![]);
    }
    let left = |base, next, rows| ColdObject {
        rows,
        ..object_of(base, next)
    };
    let spans = |list: &Manifest| -> Vec<_> {
        let objects = list.objects.iter();
        objects.map(|o| (o.base, o.next, o.rows)).collect()
    };
    let run = list.rewritten(1..3, Some(left(5, 15, 3))).unwrap();
    assert_eq!(spans(&run), [(0, 5, 5), (5, 15, 3), (15, 20, 5)]);
    let gone = run.rewritten(1..2, None).unwrap();
    assert_eq!(spans(&gone), [(0, 15, 5), (15, 20, 5)]);
    let first = gone.rewritten(0..1, None).unwrap();
    assert_eq!(spans(&first), [(0, 20, 5)]);
    assert_eq!(first.rewritten(0..1, None), None);
    assert!(!first.objects[0].is_dense());
    // Of five rows up to 20 two may be from 18 on, and all from 3 on.
    let dirty = [0, 3, 18, 20].map(|clean_to| first.objects[0].dirty_bytes(clean_to));
    assert_eq!(dirty, [50, 50, 20, 0]);
    let mut compacted = model::compaction::Compacted::default();
    compacted.add(20, 7, 1, 0);
    let list = first.compacted(compacted.clone());
    assert_eq!((list.number, list.format), (first.number + 1, FORMAT));
    let json = String::from_utf8(list.to_json()).unwrap();
    let end = r#""producers":[],"compacted":{"passes":[{"end":20,"at_us":7}],"tombstones":1,"horizon":0}}"#;
    assert!(json.ends_with(end), "{json}");
    assert_eq!(Manifest::from_json(json.as_bytes(), P0).unwrap(), list);
    assert_eq!(list.followed_by(0, None, vec![]).compacted, compacted);
}

#[test]
fn only_the_last_batches_of_a_producer_are_remembered() {
    let mark = |id, sequence| ProducerMark {
        id: model::ProducerId(id),
        epoch: 0,
        sequence,
        base_offset: 0,
        records: 1,
    };
    let marks = (0..9)
        .map(|sequence| mark(1, sequence))
        .chain([mark(2, 0)])
        .collect();
    let kept: Vec<(u64, u32)> = last_marks(marks)
        .iter()
        .map(|mark| (mark.id.0, mark.sequence))
        .collect();
    assert_eq!(kept, [(1, 4), (1, 5), (1, 6), (1, 7), (1, 8), (2, 0)]);
}
