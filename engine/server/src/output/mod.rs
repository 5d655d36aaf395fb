//! What commands print: aligned tables for people, JSON for programs, progress on a terminal.
//!
//! Called by: `cli`. Calls: comfy-table, indicatif.
//! Invariants: standard output carries results only; a table has no colour and no borders, so
//! that it can be cut by `awk`; control characters in data are made visible in tables.

pub mod progress;
pub mod record;
pub mod time;

use std::io::{IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table with a header line; columns named with a leading `>` are aligned to the right.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|name| name.trim_start_matches('>')));
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)));
    }
    for (index, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `name: value` lines, values aligned.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let line = |(name, value): &(&str, String)| {
        let name = format!("{name}:");
        format!("{name:<width$}{}\n", visible(value))
    };
    pairs.iter().map(line).collect()
}

/// Text that may go on for lines, as a module's panic does.
pub fn lines(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

/// Terminal control sequences inside data must not reach the terminal.
fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// A time for people, as they would write it: in the largest unit that says it exactly.
pub fn time_ms(ms: u64) -> String {
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    let exact = units
        .iter()
        .find(|(_, len)| ms > 0 && ms.is_multiple_of(*len));
    exact.map_or_else(
        || format!("{ms}ms"),
        |(unit, len)| format!("{}{unit}", ms / len),
    )
}

/// A number of things: `1 case`, `2 cases`. The word is given for one of them.
pub fn count(number: u64, one: &str) -> String {
    let more = match number {
        1 => "",
        _ if one.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{number} {one}{more}")
}

/// Results to standard output.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Pretty on a terminal, one line else.
pub fn json(value: &impl serde::Serialize) -> String {
    let text = if std::io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.expect("our own types have string keys and finite numbers") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_write_them() {
        let times = [0, 1_500, 90_000, 3_600_000, 604_800_000, 86_400_001];
        let said = times.map(time_ms).join(" ");
        assert_eq!(said, "0ms 1500ms 90s 1h 7d 86400001ms");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(
            [0, 1, 2].map(|n| count(n, "row")).join(", "),
            "0 rows, 1 row, 2 rows"
        );
        assert_eq!(
            [1, 2].map(|n| count(n, "batch")).join(", "),
            "1 batch, 2 batches"
        );
    }

    #[test]
    fn tables_align_and_hide_control_characters() {
        let rows = [
            vec!["a".to_string(), "5".to_string()],
            vec!["long\u{1b}[31m".to_string(), "12345".to_string()],
        ];
        let text = table(&["NAME", ">ROWS"], &rows);
        assert_eq!(
            text,
            "NAME             ROWS\na                   5\nlong\\u{1b}[31m  12345\n"
        );
    }

    #[test]
    fn sizes() {
        let check = |count, expect: &str| assert_eq!(bytes(count), expect);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(64 << 20, "64.0 MiB");
        check(u64::MAX, "16777216.0 TiB");
    }

    #[test]
    fn named_fields() {
        assert_eq!(
            fields(&[("a", "1".into()), ("long", "x".into())]),
            "a:    1\nlong: x\n"
        );
    }
}
