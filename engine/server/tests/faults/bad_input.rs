//! What users get wrong on the command line, in files and in SQL: each is told what, where and
//! what to do, with the right exit code, and the server answers as before.

use crate::support::{Server, World};

/// A pipeline that is right; the table below says what is done to it.
const GOOD: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: p }
topics:
  raw: { partitions: 2, value: { codec: json, schema: { id: int64, euros: float64 } } }
  clean: { partitions: 2, value: json }
  bad: { partitions: 1, value: raw }
policy:
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: raw, start: earliest }
  known: { kind: filter, inputs: [in], where: \"id is not null and euros > 0\" }
  out: { kind: sink, inputs: [known], topic: clean }
";

pub fn answers(world: &World, server: &mut Server) {
    assert!(server.is_running());
    assert_eq!(world.run(&["sql", "select 1 as one"]).ok().out, "one\n1\n");
}

/// What is replaced | by what | line and column of the complaint | the complaint.
const WRONG_FILES: &str = r#"
policy: | polcy: | 8:1 | unknown key `polcy` in a pipeline (did you mean `policy`?)
filter, | filter, colour: red, | 12:26 | unknown key `colour` in filter `known`
2, value: json | two, value: json | 6:24 | `partitions` of topic `clean` is a whole number
[in] | in2 | 12:34 | `inputs` of filter `known` is a list, not the text "in2"
[in] | [known] | 12:35 | cycle: known -> known
[known] | [known.late] | 13:31 | input `known.late` of `out`: `known` has no output `late`
[known] | [knwon] | 13:31 | input `knwon` of `out`: no node `knwon` (did you mean `known`?)
topic: clean | topic: claen | 13:46 | no topic `claen` (did you mean `clean`?)
topic: raw, | topic: rwa, | 11:30 | no topic `rwa` (did you mean `raw`?)
letter: bad | letter: bda | 9:36 | no topic `bda` (did you mean `bad`?)
euros > 0 | euros > | 12:74 | expected: an expression, found: EOF
euros > 0 | eurso > 0 | 12:67 | unknown column `eurso`: did you mean `euros`?
euros > 0 | nofunc(euros) | 12:67 | unknown function `nofunc`
earliest | yesterday | 11:42 | `start` is `earliest`, `latest` or a time such as
v1alpha1 | v9 | 1:13 | `apiVersion` is `rustmq/v1alpha1` here, not `rustmq/v9`
name: p | name: ../p | 3:19 | pipeline name `../p` has '.' at position 1
clean: { | ../x: { | 6:3 | topic name `../x` has '/' at position 3
id: int64 | id: int65 | 5:55 | field `id` has type `int65`; the types are bool, int64
bad: { | clean: { | 7:3 | key `clean` is here twice, first in line 6
metadata: { | metadata: [ | 4:1 | not YAML
filter, | wasm, module: nope, | 12:32 | no module `nope` (declare it under `modules`)
"#;

/// The fields of a table, one row a line.
fn rows<const N: usize>(table: &str) -> impl Iterator<Item = [&str; N]> {
    table.trim().lines().map(|line| {
        let fields: Vec<&str> = line.split(" | ").collect();
        fields
            .try_into()
            .unwrap_or_else(|_| panic!("not {N} fields: {line}"))
    })
}

#[test]
fn pipeline_files() {
    let world = World::new();
    let mut server = world.serve();
    for [from, to, place, message] in rows(WRONG_FILES) {
        assert!(GOOD.contains(from), "{from}");
        let mut text = GOOD.replacen(from, to, 1);
        if to.starts_with("wasm") {
            text = text.replace(", where: \"id is not null and euros > 0\"", "");
        }
        world.write("p.yaml", text);
        let wanted = format!("p.yaml:{place}: error: {message}");
        for verb in ["apply", "plan", "lint"] {
            // what needs the catalog is for the server to say
            if verb == "lint" && message.starts_with("no topic") {
                continue;
            }
            world.run(&["pipeline", verb, "p.yaml"]).fails(1, &wanted);
        }
        let raw = world.run(&["topic", "describe", "raw"]);
        raw.fails(1, "does not exist");
    }
    answers(&world, &mut server);
    world.write("p.yaml", GOOD);
    world.run(&["pipeline", "apply", "p.yaml"]).ok();
    server.stop();
}

#[test]
fn all_errors_of_a_file_come_at_once_in_its_order() {
    let world = World::new();
    // a warning among them is no error, also when it comes first
    let check = |one: (&str, &str), other: (&str, &str), lines: [&str; 2]| {
        world.write(
            "p.yaml",
            GOOD.replace(one.0, one.1).replace(other.0, other.1),
        );
        let said = world
            .run(&["pipeline", "lint", "p.yaml"])
            .fails(1, "p.yaml:");
        let at = lines.map(|line| said.err.find(&format!("p.yaml:{line}: ")));
        assert!(at[0] == Some(0) && at[0] < at[1], "{lines:?}: {}", said.err);
    };
    let colour = ("filter,", "filter, colour: red,");
    check(("earliest", "soon"), colour, ["11:42", "12:26"]);
    let late = ("[known]", "[known.late]");
    check(("euros > 0", "euros >"), late, ["12:3", "12:74"]);
    check(("euros > 0", "euros >"), late, ["12:3", "13:31"]);
}

/// A query | what is said about it.
const WRONG_SQL: &str = r#"
create external table x stored as csv location 'SECRET' | CREATE EXTERNAL TABLE READS
create external table x stored as parquet location '/etc/passwd' | CREATE EXTERNAL TABLE READS
create table x as select * from t | CREATE TABLE READS
create view x as select * from t | CREATE VIEW READS
copy t to 'OUT' | COPY READS
copy (select 1) to 'OUT' stored as parquet | COPY READS
explain analyze copy t to 'OUT' | COPY READS
insert into t values (1) | INSERT INTO READS
insert overwrite t select * from t | READS
update t set _key = null | UPDATE READS
delete from t | DELETE FROM READS
drop table t | DROP TABLE READS
truncate table t | TRUNCATE TABLE READS
set datafusion.execution.batch_size = 1 | SET READS
prepare p as select 1 | PREPARE READS
begin | BEGIN READS
select 1; copy t to 'OUT' | one statement at a time: remove what follows the first `;`
with x as (insert into t values (1) returning *) select * from x | INSERT
select * from '/etc/passwd' | unknown topic `/etc/passwd`
select * from 'SECRET' | unknown topic `SECRET`
select * from "SECRET" | unknown topic `SECRET`
select * from "file:///etc/passwd" | unknown topic `file:///etc/passwd`
select * from read_csv('SECRET') | unknown topic `read_csv`
select * from read_parquet('SECRET') | unknown topic `read_parquet`
select * from glob('/etc/*') | unknown topic `glob`
select pg_read_file('SECRET') | function 'pg_read_file'
select * from tt | did you mean `t`?
select _valeu from t | did you mean `_value`?
selct 1 | found: selct
"#;

#[test]
fn sql_neither_writes_nor_reads_files() {
    let world = World::new();
    let mut server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    world.run_with_input(&["produce", "t"], b"one\n").ok();
    let secret = world.write("secret.csv", "a,b\nhidden,2\n");
    let out = world.path("out").display().to_string();
    let reads = "is not possible: SQL only reads here; use `rustmq topic`, `rustmq produce` or";
    for [query, message] in rows(WRONG_SQL) {
        let query = query.replace("SECRET", &secret).replace("OUT", &out);
        let message = message.replace("SECRET", &secret).replace("READS", reads);
        let said = world.run(&["sql", &query]).fails(1, &message);
        assert!(said.err.starts_with("error: "), "{query}: {}", said.err);
        let (status, body) = server.http("POST /v1/sql", &query);
        assert_eq!(status, 400, "{query}: {body}");
        let all = said.out + &said.err + &body;
        assert!(!all.contains("hidden"), "{query}: {all}");
        assert!(!world.path("out").exists(), "{query}");
    }
    answers(&world, &mut server);
    let count = world.run(&["sql", "select count(*) as n from t"]);
    assert_eq!(count.ok().out, "n\n1\n");
    server.stop();
}

#[test]
fn names_flags_and_large_records() {
    let world = World::new();
    let mut server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    let check = |args: &[&str], code: i32, message: &str| {
        world.run(args).fails(code, message);
    };
    for command in ["create", "describe", "delete"] {
        check(
            &["topic", command, "../x"],
            1,
            "topic name `../x` has '/' at position 3",
        );
    }
    check(
        &["consume", "../x"],
        1,
        "topic name `../x` has '/' at position 3",
    );
    check(
        &["produce", "../x"],
        1,
        "topic name `../x` has '/' at position 3",
    );
    check(&["topic", "create", &"x".repeat(250)], 1, "249");
    check(&["topic", "create", ""], 1, "empty");
    check(
        &["consume", "t", "--folow"],
        2,
        "a similar argument exists: '--follow'",
    );
    check(
        &["topic", "create", "x", "--partitons", "3"],
        2,
        "a similar argument exists: '--partitions'",
    );
    check(
        &["sql", "--fromat", "csv", "select 1"],
        2,
        "a similar argument exists: '--format'",
    );
    check(&["pipeline", "aply", "p.yaml"], 2, "'apply'");
    check(
        &["serve", "--data-dri", "x"],
        2,
        "a similar argument exists: '--data-dir'",
    );
    check(&["group", "describe", "nobody"], 1, "nobody");
    check(&["group", "describe", "_pipeline.x"], 1, "_");
    let mut large = b"first\n".to_vec();
    large.resize(9 << 20, b'x');
    let said = world.run_with_input(&["produce", "t", "--format", "raw"], &large);
    let said = said.fails(1, "<stdin>:2: the record is larger than 8388608 bytes");
    assert!(
        said.err.contains("1 record acknowledged by t"),
        "{}",
        said.err
    );
    assert!(!world.path("x").exists() && !world.dir.path().parent().unwrap().join("x").exists());
    answers(&world, &mut server);
    server.stop();
}
