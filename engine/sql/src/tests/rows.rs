//! What queries give over hot rows, tiered rows, and both.

use super::*;
use crate::error::SqlError;
use model::port::LogError;
use storage::CompactionConfig;

/// Questions that must have the same answers wherever the rows are.
const QUESTIONS: [(&str, &str); 14] = [
    (
        "select _partition, _offset, _timestamp, _key, \
         regexp_replace(_value_text, ',.ts.*}', '}') as _value_text from flights \
         order by _partition, _offset",
        r#"_partition,_offset,_timestamp,_key,_value_text
        0,0,1970-01-01T00:00:10.000000Z,UA,"{""carrier"":""UA"",""dep_delay"":5}"
        0,1,1970-01-01T00:00:20.000000Z,,"{""carrier"":""AA"",""dep_delay"":-1.5,""extra"":{""gate"":""C7""}}"
        1,0,1970-01-01T00:00:30.000000Z,??,"{""carrier"":7}"
        1,1,1970-01-01T00:00:40.000000Z,,"#,
    ),
    (
        "select ts, carrier, dep_delay, _offset from flights order by _partition, _offset",
        "ts,carrier,dep_delay,_offset
        2013-01-01T05:00:00.000000Z,UA,5.0,0
        ,AA,-1.5,1
        ,,,0
        ,,,1",
    ),
    ("select count(*) as n from flights", "n\n4"),
    (
        "select count(*) as n from flights where _partition = 1",
        "n\n2",
    ),
    (
        "select count(carrier) as n, sum(dep_delay) as s from flights",
        "n,s\n2,3.5",
    ),
    (
        "select _value from flights where _offset = 1 and _partition = 1",
        "_value\n//4=",
    ),
    (
        "select _headers from flights order by _partition, _offset",
        r#"_headers

        "[{""name"":""h"",""value"":""v""}]"

        "[{""name"":""h"",""value"":""v""}]""#,
    ),
    (
        "select carrier from flights \
         where _timestamp >= '1970-01-01T00:00:20Z' and carrier is not null",
        "carrier\nAA",
    ),
    (
        "select a.carrier from flights a join flights b on a.carrier = b.carrier order by 1",
        "carrier\nAA\nUA",
    ),
    (
        "select _value_text->'extra'->>'gate' as gate, _value_text->'carrier' as c \
         from flights where carrier = 'AA'",
        "gate,c\nC7,\"\"\"AA\"\"\"",
    ),
    (
        "select date_bin(interval '30 seconds', _timestamp) as bin, count(*) as n \
         from flights group by bin order by bin",
        "bin,n\n1970-01-01T00:00:00.000000Z,2\n1970-01-01T00:00:30.000000Z,2",
    ),
    (
        "select _offset from flights order by _offset desc limit 1",
        "_offset\n1",
    ),
    ("select count(*) as n from \"Empty\"", "n\n0"),
    ("select _offset from Empty", "_offset"),
];

async fn questions(world: &World) {
    for (sql, answer) in QUESTIONS {
        world.check(sql, answer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_only() {
    let world = World::new(SqlLimits::default()).await;
    world.some_flights().await;
    questions(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_only() {
    let world = World::new(SqlLimits::default()).await;
    world.some_flights().await;
    world.tier().await;
    let snapshot = world
        .store
        .snapshot(world.partition("flights", 1))
        .await
        .unwrap();
    assert_eq!((snapshot.cold.len(), snapshot.hot.len()), (1, 0));
    questions(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_and_cold() {
    let world = World::new(SqlLimits::default()).await;
    let ua: &[u8] = br#"{"carrier":"UA","dep_delay":5,"ts":"2013-01-01T05:00:00Z"}"#;
    let aa: &[u8] = br#"{"carrier":"AA","dep_delay":-1.5,"extra":{"gate":"C7"}}"#;
    world.append("flights", 0, &[(10, Some("UA"), ua)]).await;
    world
        .append("flights", 1, &[(30, Some("??"), br#"{"carrier":7}"#)])
        .await;
    world.tier().await;
    // The header stands on the second record of a batch: one that is cut off shifts it.
    for (index, second) in [(0, (20, None, aa)), (1, (40, None, b"\xff\xfe".as_slice()))] {
        let mut rows = RowsBuilder::new();
        rows.push(
            second.0 * 1_000_000,
            second.1,
            Some(second.2),
            &[("h", Some(b"v"))],
        );
        world.append_rows("flights", index, &rows.finish()).await;
    }
    questions(&world).await;
    world
        .check(
            "select topic, partition, start, \"end\", cold_end, objects from system.partitions \
             where topic = 'flights' order by partition",
            "topic,partition,start,end,cold_end,objects\nflights,0,0,2,1,1\nflights,1,0,2,1,1",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trimmed_rows_are_not_shown() {
    let world = World::new(SqlLimits::default()).await;
    let records: Vec<(i64, Option<&str>, &[u8])> = vec![(1, None, b"{}"); 10];
    world.append("flights", 0, &records).await;
    world.store.trim(world.partition("flights", 0), 4).unwrap();
    let sql = "select min(_offset) as low, count(*) as n from flights";
    world.check(sql, "low,n\n4,6").await;
    world.tier().await;
    world.check(sql, "low,n\n4,6").await;
    world
        .check("select count(*) as n from flights", "n\n6")
        .await;
    world.append("flights", 0, &records).await;
    world.store.trim(world.partition("flights", 0), 7).unwrap();
    world
        .check(
            "select min(_offset) as low, count(*) as n from flights",
            "low,n\n7,13",
        )
        .await;
    world
        .check("select count(*) as n from flights", "n\n13")
        .await;
    world
        .check(
            "select count(*) as n from flights where _offset < 8",
            "n\n1",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_match_is_not_read() {
    let world = World::new(SqlLimits::default()).await;
    for round in 0..4 {
        let records: Vec<(i64, Option<&str>, &[u8])> = vec![(round * 100, None, b"{}"); 5];
        world.append("flights", 0, &records).await;
        if round < 3 {
            world.tier().await;
        }
    }
    let explain = async |filter: &str| {
        let sql = format!("explain select carrier from flights where {filter}");
        let text = world
            .run(&sql, Format::Csv, QueryOptions::default())
            .await
            .unwrap();
        (
            text.matches(".parquet").count(),
            text.contains("StreamingTableExec"),
        )
    };
    assert_eq!(explain("true").await, (3, true));
    assert_eq!(explain("_offset between 6 and 8").await, (1, false));
    assert_eq!(explain("_offset = 17").await, (0, true));
    assert_eq!(
        explain("_timestamp > '1970-01-01T00:01:30Z'").await,
        (2, true)
    );
    assert_eq!(
        explain("_timestamp < timestamp '1970-01-01T00:01:30Z'").await,
        (1, true)
    );
    assert_eq!(explain("_partition = 1").await, (0, false));
    assert_eq!(explain("_offset < 5 or _offset >= 15").await, (1, true));
    let sql = "explain select carrier from flights where _offset between 6 and 8";
    let text = world
        .run(sql, Format::Csv, QueryOptions::default())
        .await
        .unwrap();
    assert!(
        text.contains("pruning_predicate=_offset_null_count"),
        "row groups too: {text}"
    );
    world
        .check(
            "select count(*) as n from flights where _offset between 6 and 8",
            "n\n3",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_are_an_error_and_never_rows() {
    let world = World::new(SqlLimits::default()).await;
    world.some_flights().await;
    world.tier().await;
    let partition = world.partition("flights", 0);
    let object = world
        .store
        .snapshot(partition)
        .await
        .unwrap()
        .cold
        .remove(0);
    let path = world.dir.path().join("tier").join(&object.path);
    let whole = std::fs::read(&path).unwrap();
    let sql = "select * from flights where _partition = 0";
    let run = async || world.run(sql, Format::Csv, QueryOptions::default()).await;
    // Once the footer was read it is known, so it comes first. What the other partition has of
    // the object is not asked for.
    let (group, foot) = (&object.groups[0], object.foot.as_ref().unwrap());
    assert!(foot.groups > 1, "it is shared");
    let footer = (foot.at..object.size).step_by(61);
    for at in footer.chain((group.at..group.at + group.len).step_by(17)) {
        let mut damaged = whole.clone();
        damaged[at as usize] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let error = run()
            .await
            .expect_err("the byte is part of what was asked for");
        let is_corrupt = matches!(&error, SqlError::Log(LogError::Corrupt { .. }));
        assert!(is_corrupt, "byte {at}: {error}");
        assert!(
            error.to_string().contains(&object.path),
            "byte {at}: {error}"
        );
    }
    std::fs::write(&path, &whole[..20]).unwrap();
    let error = run().await.unwrap_err().to_string();
    assert!(error.contains(&format!("not {}", whole.len())), "{error}");
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(run().await.unwrap().lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_decodes_nothing() {
    let world = World::new(SqlLimits::default()).await;
    world.some_flights().await;
    let sql = "explain select count(*) from flights where _partition = 0";
    let text = world
        .run(sql, Format::Csv, QueryOptions::default())
        .await
        .unwrap();
    assert!(
        text.contains("StreamingTableExec: partition_sizes=1, projection=[_partition]"),
        "{text}"
    );
}

fn bounded(rows_max: Option<u64>, timeout_ms: Option<u64>) -> QueryOptions {
    QueryOptions {
        rows_max,
        timeout_ms,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_bounded() {
    let world = World::new(SqlLimits::default()).await;
    world.some_flights().await;
    let sql = "select _offset from flights";
    assert!(
        world
            .run(sql, Format::Csv, bounded(Some(4), None))
            .await
            .is_ok()
    );
    let error = world
        .run(sql, Format::Csv, bounded(Some(3), None))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the query has more than 3 rows: add LIMIT, aggregate, or raise the limit"
    );
    assert!(
        world
            .run(sql, Format::Csv, bounded(Some(0), None))
            .await
            .is_err()
    );
}

/// Few matches, none, no condition, many matches, no end.
const HEAVY: [&str; 5] = [
    "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b \
     where a.value * b.value % 7 = 3",
    "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b \
     where a.value * b.value = -1",
    "select sum(a.value * b.value) \
     from generate_series(1, 1000000) a, generate_series(1, 1000000) b",
    "select count(*) from generate_series(1, 1000000) a join generate_series(1, 1000000) b \
     on a.value / 500000 = b.value / 500000",
    "with recursive n as (select 1 as x union all select 1 from n) select sum(x) from n",
];

#[tokio::test(flavor = "multi_thread")]
async fn time_stops_a_query_and_frees_its_place() {
    let world = World::new(SqlLimits {
        queries_max: 1,
        ..SqlLimits::default()
    })
    .await;
    world.some_flights().await;
    let light = "select _offset from flights";
    let (hurry, patient) = (bounded(None, Some(300)), bounded(None, Some(20_000)));
    for heavy in HEAVY {
        let error = world
            .run(heavy, Format::Csv, hurry.clone())
            .await
            .unwrap_err();
        assert!(
            matches!(error, SqlError::Timeout { timeout_ms: 300 }),
            "{heavy}: {error}"
        );
        let text = world
            .run(light, Format::Csv, patient.clone())
            .await
            .expect(heavy);
        assert_eq!(text.lines().count(), 5);

        let endless = world
            .engine
            .query(heavy, QueryOptions::default())
            .await
            .unwrap();
        let error = world
            .run(light, Format::Csv, hurry.clone())
            .await
            .unwrap_err();
        assert!(
            matches!(error, SqlError::Busy { queries_max: 1 }),
            "{heavy}: {error}"
        );
        drop(endless);
        assert!(
            world.run(light, Format::Csv, patient.clone()).await.is_ok(),
            "{heavy}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    let world = World::new(SqlLimits {
        memory_bytes: 1 << 20,
        ..SqlLimits::default()
    })
    .await;
    let sql = "select value, count(*) from generate_series(1, 3000000) group by value \
               order by value limit 1";
    match world.run(sql, Format::Csv, QueryOptions::default()).await {
        Ok(text) => assert_eq!(text, "value,count(*)\n1,1\n"),
        Err(error) => assert!(matches!(error, SqlError::Memory { .. }), "{error}"),
    }
    let sql = "select a.value from generate_series(1, 3000000) a \
               join generate_series(1, 3000000) b on a.value = b.value + 1 limit 1";
    let error = world
        .run(sql, Format::Csv, QueryOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, SqlError::Memory { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_division_by_zero_is_said() {
    let world = World::new(SqlLimits::default()).await;
    world.some_flights().await;
    world
        .check(
            "select 1 / _offset from flights",
            "the query failed: divide by zero error",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_shows_what_is_left_wherever_it_is() {
    let world = World::new(SqlLimits::default()).await;
    let topic = world.catalog.topic("raw.v1").unwrap();
    let mut config = PartitionConfig::of_topic(topic).remove(0);
    config.compact = Some(CompactionConfig::default());
    world.store.partition_alter(config).unwrap();
    let p = world.partition("raw.v1", 0);
    let append = |seconds: i64, own: &'static str| {
        let records = [
            (seconds, Some("a"), b"x".as_slice()),
            (seconds + 1, Some("b"), b"y"),
            (seconds + 2, Some(own), b"z"),
        ];
        let world = &world;
        async move { world.append("raw.v1", 0, &records).await }
    };
    for (seconds, own) in [(10, "k0"), (20, "k1"), (30, "k2")] {
        append(seconds, own).await;
        world.tier().await;
    }
    world.store.compact(p, i64::MAX).await.unwrap();
    let cold = world.store.snapshot(p).await.unwrap().cold;
    let spans = cold
        .iter()
        .map(|object| (object.base, object.next, object.rows));
    assert_eq!(spans.collect::<Vec<_>>(), [(0, 6, 2), (6, 9, 3)]);
    // Hot: the newest a and b, and k3.
    append(40, "k3").await;
    let check = async |sql: &str, answer: &str| {
        world.check(&sql.replace(" T", " \"raw.v1\""), answer).await;
    };
    let all = "n,low,high\n8,2,11";
    let left = "_offset\n2\n5\n6\n7\n8\n9\n10\n11";
    check("select _offset from T order by 1", left).await;
    check(
        "select count(*) as n, min(_offset) as low, max(_offset) as high from T",
        all,
    )
    .await;
    check(
        "select _offset from T where _offset in (0, 3, 4)",
        "_offset",
    )
    .await;
    check(
        "select _offset from T where _offset between 1 and 6 order by 1",
        "_offset\n2\n5\n6",
    )
    .await;
    check(
        "select _key from T where _timestamp < '1970-01-01T00:00:23Z' order by 1",
        "_key\nk0\nk1",
    )
    .await;
    check(
        "select _offset from T order by _offset limit 2",
        "_offset\n2\n5",
    )
    .await;
    world.store.trim_durable(p, 4).await.unwrap();
    check(
        "select _offset from T where _offset < 7 order by 1",
        "_offset\n5\n6",
    )
    .await;
    world.tier().await;
    world.store.compact(p, i64::MAX).await.unwrap();
    check(
        "select _offset from T order by 1",
        "_offset\n5\n8\n9\n10\n11",
    )
    .await;
}
