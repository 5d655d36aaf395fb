//! Statements and names that are refused, and how.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names() {
    let world = World::new(SqlLimits::default()).await;
    let topics = "known topics: Empty, flights, raw.v1";
    world
        .check(
            "select * from flight",
            &format!("1:15: unknown topic `flight`: did you mean `flights`? {topics}"),
        )
        .await;
    world
        .check(
            "select *\nfrom xyzzy",
            &format!("2:6: unknown topic `xyzzy`: {topics}"),
        )
        .await;
    world
        .check(
            "select * from raw.v1",
            "1:15: write the topic in double quotes: \"raw.v1\"",
        )
        .await;
    world
        .check("select count(*) as n from \"raw.v1\"", "n\n0")
        .await;
    world
        .check(
            "select * from system.topic",
            "1:15: unknown system table `topic`: did you mean `topics`? known system tables: \
             modules, partitions, pipelines, store, topics",
        )
        .await;
    let columns = "known columns: _partition, _offset, _timestamp, _key, _value, _value_text, \
                   _headers, carrier, dep_delay, ts";
    world
        .check(
            "select carier from flights",
            &format!("1:8: unknown column `carier`: did you mean `carrier`? {columns}"),
        )
        .await;
    world
        .check(
            "select 1 from flights where Carrier = 'UA'",
            &format!("1:29: unknown column `Carrier`: did you mean `carrier`? {columns}"),
        )
        .await;
    world
        .check("selec 1", "1:1: expected: an SQL statement, found: selec")
        .await;
    world
        .check("select", "1:7: expected: an expression, found: EOF")
        .await;
    world.check("", "the query is empty").await;
    world
        .check(
            "select 1; select 2",
            "one statement at a time: remove what follows the first `;`",
        )
        .await;
}

const REFUSED: [&str; 20] = [
    "drop table flights",
    "create table t (a int)",
    "create table t as select 1",
    "create view v as select 1",
    "create external table t stored as csv location '/etc/passwd'",
    "insert into flights select * from flights",
    "update flights set carrier = 'x'",
    "delete from flights",
    "truncate table flights",
    "copy flights to '/tmp/x.csv'",
    "copy (select 1) to '/tmp/x.parquet'",
    "explain copy (select 1) to '/tmp/x.parquet'",
    "set datafusion.execution.batch_size = 1",
    "reset datafusion.execution.batch_size",
    "begin",
    "prepare p as select 1",
    "create function f() returns int return 1",
    "load data inpath '/tmp/x' into table flights",
    "with w as (select 1) insert into flights select * from w",
    "select 1 into x",
];

#[tokio::test(flavor = "multi_thread")]
async fn only_reading() {
    let world = World::new(SqlLimits::default()).await;
    world.some_flights().await;
    for sql in REFUSED {
        let error = world
            .run(sql, Format::Csv, QueryOptions::default())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            !text.contains("bug") && !text.contains("internal"),
            "{sql}: {text}"
        );
        if !matches!(error, SqlError::ReadOnly { .. }) {
            assert!(matches!(error, SqlError::Text { .. }), "{sql}: {text}");
        }
    }
    let error = "DROP TABLE is not possible: SQL only reads here; use `rustmq topic`, \
                 `rustmq produce` or `rustmq pipeline` to change something";
    world.check("drop table flights", error).await;
    let known = "known topics: Empty, flights, raw.v1";
    world
        .check(
            "select * from '/etc/passwd'",
            &format!("1:16: unknown topic `/etc/passwd`: {known}"),
        )
        .await;
    for function in [
        "read_csv('/etc/passwd')",
        "parquet_metadata('x')",
        "glob('/*')",
    ] {
        let sql = format!("select * from {function}");
        assert!(
            world
                .run(&sql, Format::Csv, QueryOptions::default())
                .await
                .is_err(),
            "{sql}"
        );
    }
    for call in [
        "repeat('x', 1000000000)",
        "range(1, 10000000000)",
        "lpad('x', 1000000000, 'y')",
    ] {
        let sql = format!("select {call}");
        let error = world
            .run(&sql, Format::Csv, QueryOptions::default())
            .await
            .unwrap_err();
        assert!(matches!(error, SqlError::Text { .. }), "{sql}: {error}");
    }
    world
        .check("select count(*) as n from flights", "n\n4")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_reads() {
    let world = World::new(SqlLimits::default()).await;
    world
        .check("values (1, 'a'), (2, null)", "column1,column2\n1,a\n2,")
        .await;
    world
        .check("with n as (select 1 as x) select x + 1 as y from n", "y\n2")
        .await;
    world
        .check("select value from generate_series(1, 3)", "value\n1\n2\n3")
        .await;
    world
        .check(
            "select name, partitions, codec, schema from system.topics where name = 'flights'",
            "name,partitions,codec,schema\n\
             flights,2,json,\"carrier: string, dep_delay: float64, ts: timestamp\"",
        )
        .await;
    for sql in [
        "show tables",
        "describe flights",
        "explain select 1",
        "select now()",
        "select * from system.store",
        "select * from system.pipelines",
        "select * from system.modules",
        "select column_name from information_schema.columns where table_name = 'flights'",
    ] {
        let text = world
            .run(sql, Format::Csv, QueryOptions::default())
            .await
            .unwrap();
        assert!(
            text.lines().count()
                > usize::from(!text.starts_with("name,generation") && !text.starts_with("digest")),
            "{sql}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_texts_do_not_break_the_process() {
    let world = World::new(SqlLimits::default()).await;
    for sql in [
        format!("select {}1", "1+".repeat(100_000)),
        format!("select {}1{}", "(".repeat(5000), ")".repeat(5000)),
        vec!["select 1"; 5000].join(" union all "),
        format!(
            "select 1 from {}",
            vec!["generate_series(1,1)"; 3000].join(" cross join ")
        ),
    ] {
        assert!(
            world
                .run(&sql, Format::Csv, QueryOptions::default())
                .await
                .is_err()
        );
    }
    let chain = vec!["1"; expr::limits::OPERATORS_MAX].join("+");
    world.check(&format!("select {chain} as n"), "n\n400").await;
    let sets = vec!["select 1 as n"; expr::limits::SET_OPERATIONS_MAX].join(" union all ");
    world
        .check(&format!("select sum(n) as n from ({sets})"), "n\n100")
        .await;
}
