//! Hot and cold together give what plain Rust gives over the same records.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Debug, Clone)]
struct Record {
    partition: u32,
    seconds: i64,
    carrier: Option<u8>,
    delay: Option<i16>,
    json: bool,
}

fn record() -> impl Strategy<Value = Record> {
    (
        0..2_u32,
        0..1000_i64,
        proptest::option::of(0..4_u8),
        proptest::option::of(-50..500_i16),
        0..8_u8,
    )
        .prop_map(|(partition, seconds, carrier, delay, json)| Record {
            partition,
            seconds,
            carrier,
            delay,
            json: json > 0,
        })
}

impl Record {
    fn value(&self) -> String {
        if !self.json {
            return "not json".to_string();
        }
        let carrier = self.carrier.map(|c| format!("C{c}"));
        serde_json::json!({ "carrier": carrier, "dep_delay": self.delay }).to_string()
    }

    fn carrier(&self) -> Option<u8> {
        self.carrier.filter(|_| self.json)
    }

    fn delay(&self) -> Option<i16> {
        self.delay.filter(|_| self.json)
    }
}

/// Batches of one partition each; after some of them the tier runs.
async fn load(steps: &[(Vec<Record>, bool)]) -> (World, Vec<Record>) {
    let world = World::new(SqlLimits {
        threads: 2,
        ..SqlLimits::default()
    })
    .await;
    let mut all = Vec::new();
    for (records, tier) in steps {
        for index in 0..2 {
            let mut rows = RowsBuilder::new();
            for record in records.iter().filter(|r| r.partition == index) {
                rows.push(
                    record.seconds * 1_000_000,
                    None,
                    Some(record.value().as_bytes()),
                    &[],
                );
            }
            if !rows.is_empty() {
                world.append_rows("flights", index, &rows.finish()).await;
            }
        }
        all.extend(records.iter().cloned());
        if *tier {
            world.tier().await;
        }
    }
    (world, all)
}

async fn compare(steps: Vec<(Vec<Record>, bool)>, low: i64, late: i16) {
    let (world, all) = load(&steps).await;
    let mut groups: BTreeMap<u8, (u64, i64)> = BTreeMap::new();
    for record in &all {
        if let Some(carrier) = record.carrier() {
            let group = groups.entry(carrier).or_default();
            group.0 += 1;
            group.1 += i64::from(record.delay().unwrap_or(0));
        }
    }
    let mut expected = String::from("carrier,n,s\n");
    for (carrier, (n, s)) in groups {
        writeln!(expected, "C{carrier},{n},{s}").unwrap();
    }
    world
        .check(
            "select carrier, count(*) as n, cast(coalesce(sum(dep_delay), 0) as bigint) as s \
             from flights where carrier is not null group by carrier order by carrier",
            &expected,
        )
        .await;

    let n = all
        .iter()
        .filter(|r| r.seconds >= low && r.delay().is_some_and(|d| d > late))
        .count();
    let sql = format!(
        "select count(*) as n from flights where _timestamp >= to_timestamp({low}) and dep_delay > {late}"
    );
    world.check(&sql, &format!("n\n{n}")).await;

    let n = all.len();
    world
        .check(
            "select count(*) as n, count(distinct _partition * 1000000 + _offset) as d from flights",
            &format!("n,d\n{n},{n}"),
        )
        .await;
    world
        .check("select count(*) as n from flights", &format!("n\n{n}"))
        .await;

    // Offsets are dense in each partition, whatever lies where.
    let mut expected = String::from("_partition,low,high\n");
    for index in 0..2 {
        let rows = all.iter().filter(|r| r.partition == index).count();
        if rows > 0 {
            writeln!(expected, "{index},0,{}", rows - 1).unwrap();
        }
    }
    world
        .check(
            "select _partition, min(_offset) as low, max(_offset) as high from flights \
             group by _partition order by _partition",
            &expected,
        )
        .await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn hot_and_cold_equal_plain_rust(
        steps in vec((vec(record(), 0..40), any::<bool>()), 1..5),
        low in 0..1000_i64,
        late in -50..500_i16,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(compare(steps, low, late));
    }
}
