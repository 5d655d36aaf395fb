//! Near names: what somebody may have meant.
//!
//! Called by the error paths of expr and sql. Deterministic: ties keep the given order.

/// How many known names a message lists.
const LISTED_MAX: usize = 20;

/// The nearest of `known`, if any is near enough to be worth saying.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let bound = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `: did you mean X? known WHAT: A, B, C`, ready to follow "unknown WHAT `name`".
pub fn advice(name: &str, what: &str, known: &[&str]) -> String {
    let mut out = String::from(": ");
    if let Some(near) = nearest(name, known.iter().copied()) {
        out.push_str(&format!("did you mean `{near}`? "));
    }
    if known.is_empty() {
        out.push_str(&format!("there are no {what}"));
        return out;
    }
    let listed: Vec<&str> = known.iter().take(LISTED_MAX).copied().collect();
    out.push_str(&format!("known {what}: {}", listed.join(", ")));
    if known.len() > LISTED_MAX {
        out.push_str(&format!(" and {} more", known.len() - LISTED_MAX));
    }
    out
}

/// Edits (insert, delete, replace, swap of neighbours) between two short names.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        let known = ["carrier", "dep_delay", "_value_text", "_value"];
        assert_eq!(advice(name, "columns", &known), expected);
    }

    #[test]
    fn suggests() {
        const KNOWN: &str = "known columns: carrier, dep_delay, _value_text, _value";
        check("carier", &format!(": did you mean `carrier`? {KNOWN}"));
        check("CARRIER", &format!(": did you mean `carrier`? {KNOWN}"));
        check("dep_dealy", &format!(": did you mean `dep_delay`? {KNOWN}"));
        check("value", &format!(": did you mean `_value`? {KNOWN}"));
        check("altogether_else", &format!(": {KNOWN}"));
        assert_eq!(advice("x", "topics", &[]), ": there are no topics");
    }
}
