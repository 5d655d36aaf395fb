//! Modules built for `wasm32-wasip2`: what they find of the machine, and that all else is not there.

use std::sync::LazyLock;

use wasm::{Ambient, Batch, Module};

use super::*;

const WASI: &str = "wasm32-wasip2";

/// `tests/guests/probes`, built as anybody builds for WASI, without and with its feature; in turn, as both
/// are built into one file.
static PROBES: LazyLock<Option<[Vec<u8>; 2]>> = LazyLock::new(|| {
    let build = |more: &[&str]| {
        let words = [&["build", "--release", "--target", WASI], more].concat();
        let dir = repository().join("tests/guests/probes");
        by_cargo(&dir, &words, Needs::Target(WASI))?;
        Some(fs::read(release(WASI, "probes.wasm")).unwrap())
    };
    Some([build(&[])?, build(&["--features", "net"])?])
});

fn loaded(component: &[u8]) -> Result<Module, String> {
    let host = Host::new(HostConfig::default()).unwrap();
    let module = host.load(component, &Grants::default());
    module.map_err(|e| e.to_string())
}

/// What it finds, a line a row; the batch begins at this offset, and its latest event time is 1.7 s.
fn found(
    module: &Module,
    ambient: Ambient,
    first: u64,
    words: &[&str],
) -> Result<Vec<String>, String> {
    let context = OpenContext {
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        ambient,
        ..OpenContext::default()
    };
    let mut guest = module.open(&context, &Limits::default()).unwrap();
    let mut rows = RowsBuilder::new();
    for (word, time) in words.iter().zip((0..=1_700_000).rev()) {
        rows.push(time, None, Some(word.as_bytes()), &[]);
    }
    let offsets = (first..first + words.len() as u64).collect();
    let outcome = guest.process(input(Batch::new(rows.finish(), offsets)));
    let outcome = outcome.map_err(|e| e.to_string())?;
    let [Emission::Emit { values, .. }] = &outcome.emissions[..] else {
        panic!("one emit: {outcome:?}");
    };
    let text =
        |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    Ok(values.iter().map(text).collect())
}

#[test]
fn a_batch_finds_its_own_time_and_chance() {
    let Some([component, _]) = &*PROBES else {
        return;
    };
    let module = loaded(component).unwrap();
    let info = module.info();
    let named = |name: &str| info.ambient.iter().any(|n| n.starts_with(name));
    assert!(named("wasi:random/") && named("wasi:clocks/"), "{info:?}");
    assert!(info.grants_needed.is_empty(), "{info:?}");
    let words = ["map", "now", "later", "map"];
    let none = Ambient::default();
    let first = found(&module, none.clone(), 7, &words).unwrap();
    assert_eq!((&first[1][..], &first[2][..]), ("1700000", "1µs"));
    let mut order: Vec<u32> = first[0].split(' ').map(|n| n.parse().unwrap()).collect();
    order.sort_unstable();
    assert!(order.into_iter().eq(0..16), "{first:?}");
    // in another instance, too
    assert_eq!(found(&module, none.clone(), 7, &words).unwrap(), first);
    let granted = Ambient {
        clock: true,
        random: true,
        ..none.clone()
    };
    let real = found(&module, granted, 7, &words).unwrap();
    let now: u64 = real[1].parse().unwrap();
    assert!(now > 1_700_000_000_000_000, "{real:?}");
    // of 16! orders
    assert_ne!(real[0], first[0]);
}

#[test]
fn nothing_else_of_the_machine_is_there() {
    let Some([component, asking]) = &*PROBES else {
        return;
    };
    let module = loaded(component).unwrap();
    for (word, called) in [
        ("env", "wasi:cli/environment"),
        ("file", "wasi:"),
        ("exit", "wasi:cli/exit"),
    ] {
        let ended = found(&module, Ambient::default(), 0, &[word]).unwrap_err();
        let denied = ended.contains(&format!("the module called {called}"));
        assert!(
            denied && ended.contains("which is not granted"),
            "{word}: {ended}"
        );
    }
    let refused = loaded(asking).err().unwrap_or_default();
    assert!(refused.contains("wasi:sockets/"), "{refused}");
    assert!(
        refused.contains("make the request with `rustmq::http`"),
        "{refused}"
    );
}

/// Our own interfaces of an older version are still ours beside WASI's.
#[test]
fn a_module_for_wasi_and_an_older_contract_is_linked() {
    let Some([component, _]) = &*PROBES else {
        return;
    };
    let (mut older, now) = (component.clone(), wasm::world::VERSION.as_bytes());
    let at = older.windows(now.len()).enumerate();
    let at: Vec<usize> = at.filter(|(_, w)| *w == now).map(|(at, _)| at).collect();
    for at in at {
        // 0.1.4, which has all that it names
        older[at + now.len() - 1] = b'4';
    }
    let module = loaded(&older).unwrap();
    assert_eq!(module.info().contract.as_deref(), Some("0.1.4"));
    let found = found(&module, Ambient::default(), 0, &["now"]);
    assert_eq!(found.unwrap(), ["1700000"]);
}

/// What `module new` makes is built for WASI as it is.
#[test]
fn a_new_module_is_built_for_wasip2_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let made = new(dir.path(), "unchanged2", Lang::Rust).unwrap();
    let words = ["build", "--release", "--target", WASI];
    if by_cargo(&made, &words, Needs::Target(WASI)).is_none() {
        return;
    }
    let mut guest = open(&release(WASI, "unchanged2.wasm"), "{}", &["out"]);
    let text = run(&mut guest, &[r#"{"sensor":"roof","celsius":20}"#]);
    assert_eq!(
        text,
        "emit 0 0 k={\"sensor\":\"roof\",\"fahrenheit\":68.0}\n"
    );
}
