//! Words that are not used here, each with what to write in its place.
//!
//! Called by `tidy::run`. A rule applies to product lines, to test lines or to both; a path that
//! has a reason to differ is named in the rule.

use super::source::Source;
use super::{Finding, finding};

/// Where a rule looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Product,
    Tests,
    Both,
}

struct Rule {
    word: &'static str,
    reach: Reach,
    instead: &'static str,
    except: &'static [&'static str],
}

const PRINTS: &[&str] = &[
    "engine/server/src/",
    "xtask/src/",
    "benches/",
    "tests/",
    "examples/",
    "sdk-guest/",
];

const RULES: [Rule; 16] = [
    rule(
        "FIXME",
        Reach::Both,
        "fix it, or file an issue and say what is missing",
        &[],
    ),
    rule("XXX", Reach::Both, "say what is wrong in a sentence", &[]),
    rule(
        "todo!(",
        Reach::Both,
        "build it, or return an error that says it is not built",
        &[],
    ),
    rule(
        "unimplemented!(",
        Reach::Both,
        "return an error that says it is not built",
        &[],
    ),
    rule("dbg!(", Reach::Both, "tracing::debug!", &[]),
    rule(
        ".unwrap()",
        Reach::Product,
        "`?`, or expect(\"why it holds\")",
        &["examples/"],
    ),
    rule(
        "unbounded_channel",
        Reach::Both,
        "a bounded channel with a named capacity",
        &[],
    ),
    rule(
        "mpsc::channel()",
        Reach::Both,
        "sync_channel with a named capacity",
        &[],
    ),
    rule(
        "thread::sleep",
        Reach::Tests,
        "tests/support/wait.rs",
        &["tests/support/wait.rs"],
    ),
    rule(
        "time::sleep",
        Reach::Tests,
        "tests/support/wait.rs",
        &["tests/support/wait.rs"],
    ),
    rule(
        "println!(",
        Reach::Product,
        "tracing, or the CLI's output",
        PRINTS,
    ),
    rule(
        "#[ignore",
        Reach::Tests,
        "make it quick enough to run, or delete it",
        &[],
    ),
    rule("Manager", Reach::Product, "the noun of what it owns", &[]),
    rule(
        "struct Common",
        Reach::Product,
        "the noun of what it is",
        &[],
    ),
    rule(
        "mod util",
        Reach::Product,
        "a room named after what is in it",
        &[],
    ),
    rule(
        "mod helpers",
        Reach::Product,
        "a room named after what is in it",
        &[],
    ),
];

const fn rule(
    word: &'static str,
    reach: Reach,
    instead: &'static str,
    except: &'static [&'static str],
) -> Rule {
    Rule {
        word,
        reach,
        instead,
        except,
    }
}

/// Every banned word in every source.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    sources
        .iter()
        .filter(|s| !s.path.starts_with("xtask/src/tidy/"))
        .flat_map(check_one)
        .collect()
}

fn check_one(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        let is_test = index >= source.tests_from;
        for rule in &RULES {
            let reached = match rule.reach {
                Reach::Product => !is_test && !source.is_test_file(),
                Reach::Tests => is_test,
                Reach::Both => true,
            };
            let excepted = rule.except.iter().any(|e| source.path.starts_with(e));
            if reached && !excepted && line.contains(rule.word) {
                let message = format!("`{}`: instead, {}", rule.word, rule.instead);
                findings.push(finding(&source.path, index + 1, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str) -> usize {
        check_one(&Source::from_text(path, text)).len()
    }

    #[test]
    fn unwrap_is_for_tests() {
        assert_eq!(check_text("engine/a/src/b.rs", "x.unwrap();"), 1);
        assert_eq!(
            check_text(
                "engine/a/src/b.rs",
                "#[cfg(test)]\nmod tests {\nx.unwrap();"
            ),
            0
        );
        assert_eq!(check_text("engine/a/tests/b.rs", "x.unwrap();"), 0);
    }

    #[test]
    fn only_the_waiting_helper_sleeps() {
        assert_eq!(check_text("tests/tests/a.rs", "std::thread::sleep(d);"), 1);
        assert_eq!(
            check_text("tests/support/wait.rs", "std::thread::sleep(d);"),
            0
        );
    }
}
