//! Disks that are full, and files that have changed.
//!
//! What: a small file system in a mount namespace of the test's own runs full under load and
//! gets space back; a byte flips in the log or in the tier; a tail is torn.
//! Where neither root nor user namespaces are to be had, the full disk is skipped, loudly.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::{Client, ClientConfig, ConsumerConfig, ProduceError, ProducerConfig, Record};
use protocol::Advice;

use crate::support::{Server, World, wait};

const SKIPPED: &str =
    "SKIPPED: a full disk: no file system of its own, neither root nor user namespaces here";

/// A process that holds a small file system in a mount namespace; both go with it.
struct Small {
    holder: Child,
    dir: PathBuf,
}

impl Small {
    fn mount(dir: &Path, size: &str) -> Option<Small> {
        fs::create_dir_all(dir).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs {} && echo up && exec cat",
            dir.display()
        );
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let out = holder.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let small = Small {
            holder,
            dir: dir.to_owned(),
        };
        (line == "up\n").then_some(small)
    }

    /// The words before a command that shall see the file system.
    fn enter(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        ["nsenter", "--preserve-credentials", "-U", "-m", "-t", &pid]
            .map(str::to_owned)
            .to_vec()
    }

    fn run(&self, script: &str) -> bool {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(["sh", "-c", script]);
        command.stderr(Stdio::null()).status().unwrap().success()
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let ballast = self.dir.join("ballast");
        self.run(&format!("cat /dev/zero > {}", ballast.display()));
    }

    fn free(&self) {
        assert!(self.run(&format!("rm {}", self.dir.join("ballast").display())));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn native(world: &World) -> ClientConfig {
    ClientConfig {
        state_dir: Some(world.path("state/rustmq")),
        environment: false,
        ..ClientConfig::default()
    }
}

/// Values of a topic through the command line.
fn values(world: &World, topic: &str) -> Vec<String> {
    let out = world.run(&["consume", topic, "--format", "raw"]).ok().out;
    out.lines()
        .map(|line| line.trim_end_matches('.').to_owned())
        .collect()
}

/// Half a kilobyte each, so that a disk fills.
fn record(n: u64) -> Record {
    Record::value(format!("{n}{}", ".".repeat(500)))
}

async fn send(world: &World, numbers: Range<u64>, timeout: Duration) -> Result<u64, ProduceError> {
    let client = Client::connect(native(world)).await.unwrap();
    let config = ProducerConfig {
        delivery_timeout: timeout,
        batch_bytes: 32 << 10,
        ..ProducerConfig::default()
    };
    let producer = client.producer(config).await.unwrap();
    for n in numbers {
        producer.send("t", record(n)).await?;
    }
    Ok(producer.flush().await?.records)
}

/// A topic `t` on a small disk that its segments fill.
struct Crowded {
    world: World,
    small: Small,
    args: [String; 4],
    runtime: tokio::runtime::Runtime,
}

impl Crowded {
    fn new() -> Option<Crowded> {
        let world = World::new();
        let small = Small::mount(&world.path("small"), "6m")?;
        // absolute: who enters a namespace stands at its root
        let config = world.write("node.toml", "[storage]\nsegment_bytes = \"512KiB\"\n");
        let data = world.path("small/data").display().to_string();
        let args = ["--config".to_owned(), config, "--data-dir".to_owned(), data];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Some(Crowded {
            world,
            small,
            args,
            runtime,
        })
    }

    fn start(&self) -> Server {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.world.serve_after(&self.small.enter(), &args)
    }

    fn send(&self, numbers: Range<u64>, timeout: Duration) -> Result<u64, ProduceError> {
        self.runtime.block_on(send(&self.world, numbers, timeout))
    }

    fn values(&self) -> Vec<u64> {
        let values = values(&self.world, "t");
        values.iter().map(|value| value.parse().unwrap()).collect()
    }
}

#[test]
fn a_full_disk_refuses_writers_and_recovers() {
    let Some(crowded) = Crowded::new() else {
        return eprintln!("{SKIPPED}");
    };
    let (world, small) = (&crowded.world, &crowded.small);
    let server = crowded.start();
    world.run(&["topic", "create", "t"]).ok();
    assert_eq!(crowded.send(0..500, wait::PATIENCE).unwrap(), 500);
    small.fill();

    // more than what is left of the segment
    let error = crowded.send(500..3000, Duration::from_secs(2)).unwrap_err();
    let said = (error.error.code(), error.error.advice());
    assert_eq!(said, ("disk-full", Advice::Retry), "{error}");
    for part in ["topic t, partition 0", "full", "free"] {
        assert!(error.to_string().contains(part), "no {part:?} in: {error}");
    }
    let said = world.run(&["topic", "create", "another"]);
    if said.code != 0 {
        said.fails(1, "full");
    }
    // readers go on
    let during = crowded.values();
    assert!(during[..500].iter().copied().eq(0..500), "{during:?}");
    world.run(&["sql", "select count(*) from t"]).ok();

    // one who waits is served when space returns
    let waiting = crowded.runtime.block_on(async {
        let client = Client::connect(native(world)).await.unwrap();
        let producer = client.producer(ProducerConfig::default()).await.unwrap();
        for n in 10_000..11_000 {
            producer.send("t", record(n)).await.unwrap();
        }
        producer
    });
    small.free();
    let flushed = crowded.runtime.block_on(waiting.flush()).unwrap();
    assert_eq!(flushed.records, 1000);
    drop(waiting);
    let before = crowded.values();
    server.kill();

    small.fill();
    let server = crowded.start();
    let after = crowded.values();
    assert_eq!(
        before, after,
        "read before, read after a start on a full disk"
    );
    small.free();
    assert_eq!(crowded.send(20_000..20_100, wait::PATIENCE).unwrap(), 100);
    let acked = |range: Range<u64>| after.iter().copied().filter(move |n| range.contains(n));
    assert!(acked(0..500).eq(0..500) && acked(10_000..11_000).eq(10_000..11_000));
    server.stop();
}

/// Lines that are more than what is left of a segment.
fn lines(numbers: Range<u64>) -> String {
    let line = |n: u64| format!("{n}{}\n", ".".repeat(500));
    numbers.map(line).collect()
}

#[test]
fn the_command_line_says_that_it_waits_for_space_and_for_how_long() {
    let Some(crowded) = Crowded::new() else {
        return eprintln!("{SKIPPED}");
    };
    let (world, small) = (&crowded.world, &crowded.small);
    let server = crowded.start();
    world.run(&["topic", "create", "t"]).ok();
    small.fill();
    let input = lines(0..3000);
    let said = world.run_with_input(&["produce", "t", "--timeout", "2s"], input.as_bytes());
    let said = said.fails(1, "the disk is full");
    assert!(
        said.err.contains("records acknowledged by t"),
        "{}",
        said.err
    );
    let told = said.err.matches("retrying, for 2s at most").count();
    assert_eq!(told, 1, "{}", said.err);
    let status = world.run(&["status"]).ok().out;
    assert!(status.contains("FULL for"), "{status}");

    // Without an end in sight it waits, and goes on by itself when space returns.
    let mut waiting = world.command(&["produce", "t"]);
    let waiting = waiting.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut waiting = waiting.spawn().unwrap();
    let mut stdin = waiting.stdin.take().unwrap();
    let feed = std::thread::spawn(move || drop(stdin.write_all(lines(10_000..13_000).as_bytes())));
    let mut err = BufReader::new(waiting.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("full") {
        assert!(err.read_line(&mut told).unwrap() > 0, "it ended: {told}");
    }
    small.free();
    err.read_to_string(&mut told).unwrap();
    feed.join().unwrap();
    assert!(waiting.wait().unwrap().success(), "{told}");
    assert!(told.contains("records get through again"), "{told}");
    assert!(told.contains("3000 records acknowledged by t"), "{told}");
    let log = fs::read_to_string(world.path("serve.err")).unwrap();
    let warnings = log.matches("no room for a WAL segment").count();
    assert!((1..=4).contains(&warnings), "{warnings} times: {log}");
    let all = crowded.values();
    let later = all.iter().copied().filter(|n| *n >= 10_000);
    assert!(later.eq(10_000..13_000));
    server.stop();
}

#[test]
fn a_limit_of_the_disk_is_like_a_full_disk_until_the_tier_makes_room() {
    let world = World::new();
    let config = world.write(
        "node.toml",
        "[storage]\nsegment_bytes = \"512KiB\"\ntier_bytes = \"64MiB\"\nwal_bytes_max = \"64MiB\"\n\
         [tier]\ntick_ms = \"1h\"\n[limits]\ndisk_bytes = \"2MiB\"\n",
    );
    let server = world.serve_with(&["--config", &config]);
    world.run(&["topic", "create", "t"]).ok();
    // More than the limit: what is full is pressed, goes to the tier, and there is room again.
    let input = lines(0..10_000);
    world
        .run_with_input(&["produce", "t", "--timeout", "60s"], input.as_bytes())
        .ok();
    let wal: u64 = fs::read_dir(world.path("data/wal"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(wal <= (2 << 20) + (512 << 10), "{wal}");
    assert_eq!(values(&world, "t").len(), 10_000);
    assert!(world.run(&["status"]).ok().out.contains("evicted"));
    server.stop();
}

#[test]
fn limits_that_cannot_be_kept_are_refused_at_the_start() {
    let world = World::new();
    let check = |text: &str, parts: &[&str]| {
        let config = world.write("node.toml", text);
        let said = world.run(&["serve", "--data-dir", "data", "--config", &config]);
        for part in parts {
            assert!(said.err.contains(part), "no {part:?} in: {}", said.err);
        }
        assert_eq!(said.code, 1, "{}", said.err);
    };
    check(
        "[limits]\nmemory_bytes = \"64MiB\"\nsql_memory_bytes = \"65MiB\"\n",
        &["limits.memory_bytes is 67108864", "raise it or lower them"],
    );
    check(
        "[limits]\ndisk_bytes = \"100MiB\"\n",
        &["limits.disk_bytes is 104857600", "storage.segment_bytes"],
    );
    check(
        "[limits]\ndescriptors = 100\n",
        &["may open 100 files", "ulimit -n", "limits.descriptors"],
    );
    check(
        "[cache]\ndisk_byte = 1\n",
        &["node.toml:2:1: error: unknown key `cache.disk_byte`"],
    );
}

#[test]
fn a_full_or_unwritable_data_directory_does_not_start() {
    let world = World::new();
    let Some(small) = Small::mount(&world.path("small"), "1m") else {
        return eprintln!("{SKIPPED}");
    };
    small.fill();
    let data = world.path("small/data").display().to_string();
    let args = [
        "serve",
        "--data-dir",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ];
    let output = world.command_after(&small.enter(), &args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.starts_with("error: ") && err.contains("small/data"),
        "{err}"
    );
    assert!(
        err.contains("No space left") || err.contains("full"),
        "{err}"
    );
}

/// Entries of the log's first segment: position and kind. The magic word begins an entry.
fn entries(bytes: &[u8]) -> Vec<(usize, u8)> {
    let starts = (64..bytes.len() - 16)
        .step_by(8)
        .filter(|at| &bytes[*at..at + 4] == b"RQE1");
    starts.map(|at| (at, bytes[at + 12])).collect()
}

const MARK: u8 = 2;

/// A stopped world whose log holds a few entries, the last of them a mark of its idle writer.
fn killed_with_log(world: &World) -> PathBuf {
    let server = world.serve();
    world.run(&["topic", "create", "t"]).ok();
    for lines in ["a\nb\n", "c\nd\n", "e\n"] {
        world
            .run_with_input(&["produce", "t"], lines.as_bytes())
            .ok();
    }
    let path = world.path("data/wal/0000000000000000.wal");
    wait::until("the idle mark", || {
        let bytes = fs::read(&path).unwrap();
        entries(&bytes)
            .last()
            .filter(|last| last.1 == MARK)
            .map(drop)
    });
    server.kill();
    path
}

#[test]
fn a_flipped_byte_below_synced_data_is_named_and_nothing_starts() {
    let world = World::new();
    let path = killed_with_log(&world);
    let whole = fs::read(&path).unwrap();
    let batches: Vec<usize> = entries(&whole)
        .into_iter()
        .filter(|e| e.1 == 1)
        .map(|e| e.0)
        .collect();
    assert!(batches.len() >= 3, "{batches:?}");
    let hit = batches[1];
    for at in [hit + 5, hit + 30, hit + 120] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        fs::write(&path, &damaged).unwrap();
        let said = world.run(&[
            "serve",
            "--data-dir",
            "data",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ]);
        let said = said.fails(1, "the write-ahead log is damaged");
        let said = said.fails(1, &format!("0000000000000000.wal at byte {hit}:"));
        said.fails(1, "restore this file from a copy");
        assert_eq!(fs::read(&path).unwrap(), damaged, "nothing was cut");
    }
    fs::write(&path, &whole).unwrap();
    let server = world.serve();
    assert_eq!(values(&world, "t"), ["a", "b", "c", "d", "e"]);
    server.stop();
}

#[test]
fn a_torn_tail_is_cut() {
    let world = World::new();
    let path = killed_with_log(&world);
    let whole = fs::read(&path).unwrap();
    let (mark, _) = *entries(&whole).last().unwrap();
    for length in [whole.len() - 1, mark + 64, mark + 20, mark + 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let server = world.serve();
        assert_eq!(
            values(&world, "t"),
            ["a", "b", "c", "d", "e"],
            "cut at {length}"
        );
        server.kill();
    }
    // unsynced writes may land in any order: what stands after the last entry is no damage
    let mut torn = whole.clone();
    torn[mark + 200..mark + 230].fill(0xee);
    fs::write(&path, &torn).unwrap();
    let server = world.serve();
    world.run_with_input(&["produce", "t"], b"f\n").ok();
    assert_eq!(values(&world, "t"), ["a", "b", "c", "d", "e", "f"]);
    server.stop();
}

fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(objects(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_damaged_object_is_named_and_other_partitions_go_on() {
    let world = World::new();
    let server = world.serve();
    for topic in ["hurt", "well"] {
        world.run(&["topic", "create", topic]).ok();
        let lines: String = (0..200).map(|n| format!("{topic} {n}\n")).collect();
        world
            .run_with_input(&["produce", topic], lines.as_bytes())
            .ok();
    }
    let tier = |server: &Server| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert!(!server.quic.is_empty());
        runtime.block_on(async {
            let client = Client::connect(native(&world)).await.unwrap();
            client.call(protocol::Tier { topic: None }).await.unwrap();
        });
    };
    tier(&server);
    server.stop();
    let all = objects(&world.path("data"));
    let hurt = all
        .iter()
        .find(|path| path.display().to_string().contains("hurt"));
    let hurt = hurt.unwrap_or_else(|| panic!("no object of the topic in {all:?}"));
    let size = fs::metadata(hurt).unwrap().len();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(hurt)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, size / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 0x80], size / 2).unwrap();

    let mut server = world.serve();
    let name = hurt.file_name().unwrap().to_str().unwrap();
    world
        .run(&["consume", "hurt", "--format", "raw"])
        .fails(1, name);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async {
        let client = Client::connect(native(&world)).await.unwrap();
        let mut consumer = client
            .consumer(ConsumerConfig::all(["hurt"]))
            .await
            .unwrap();
        consumer.next().await.unwrap_err()
    });
    assert_eq!(error.code(), "corrupt", "{error}");
    assert_eq!(values(&world, "well").len(), 200);
    world.run_with_input(&["produce", "hurt"], b"new\n").ok();
    let new = world
        .run(&["consume", "hurt", "--from", "200", "--format", "raw"])
        .ok()
        .out;
    assert_eq!(new, "new\n", "what came after the damage can be read");
    world.run(&["sql", "select * from hurt"]).fails(1, name);
    assert!(server.is_running());
    server.stop();
}
