//! "Did you mean": the known name nearest to a mistyped one.
//!
//! Called by: the spec reader and `lint`. Pure. Refuses to guess when more than about a third
//! of the letters differ.

/// The nearest of `known`, if it is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = name.chars().count().div_ceil(3).min(3);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(d, _)| *d <= most)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// The same as a hint for a diagnostic.
pub fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|n| format!("did you mean `{n}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours; letter case counts nothing.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().take(64).map(|c| c.to_ascii_lowercase()).collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<&str>) {
        let known = ["source", "sink", "wasm", "filter", "map", "route"];
        assert_eq!(nearest(name, known), expected, "{name}");
    }

    #[test]
    fn names_near_enough() {
        check("soruce", Some("source"));
        check("Sink", Some("sink"));
        check("flter", Some("filter"));
        check("mapp", Some("map"));
        check("window", None);
        check("", None);
        check("x", None);
    }
}
