//! The demo's input: each line of the CSV files as a JSON object of strings, some broken on purpose.
//!
//! Called by `demo::produce`. Every flight carries its line number as `row`, so that order and
//! completeness can be checked at the other end. Every `BROKEN_EVERY`-th flight is followed by a
//! damaged copy of itself, which must end among the dead letters.

use std::io;

use bytes::Bytes;

/// A damaged copy follows each flight whose line number this divides.
const BROKEN_EVERY: u64 = 7_001;

/// One record to produce.
#[derive(Debug, Clone)]
pub struct FeedRecord {
    pub key: Bytes,
    pub value: Bytes,
}

/// How many damaged rows the feed adds to `flights` rows.
pub fn broken_among(flights: u64) -> u64 {
    flights / BROKEN_EVERY
}

/// Unpacks an embedded `.zst` file.
pub fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    zstd::decode_all(packed)
}

/// All flights in the order of the file, damaged copies among them; keyed by the plane.
pub fn flights(csv_text: &[u8]) -> io::Result<impl Iterator<Item = io::Result<FeedRecord>> + '_> {
    let mut reader = csv::Reader::from_reader(csv_text);
    let names = reader.headers()?.clone();
    let key_column = names.iter().position(|n| n == "tailnum").unwrap_or(0);
    let mut row = 0_u64;
    let records = reader.into_records().flat_map(move |record| {
        row += 1;
        let record = match record {
            Ok(record) => record,
            Err(e) => return vec![Err(e.into())],
        };
        let key = Bytes::copy_from_slice(record[key_column].as_bytes());
        let value = object(&names, &record, Some(row));
        let mut out = Vec::with_capacity(1);
        if row.is_multiple_of(BROKEN_EVERY) {
            let damaged = damage(&value, row / BROKEN_EVERY);
            out.push(Ok(FeedRecord {
                key: key.clone(),
                value: damaged,
            }));
        }
        out.insert(
            0,
            Ok(FeedRecord {
                key,
                value: value.into(),
            }),
        );
        out
    });
    Ok(records)
}

/// All weather rows in the order of the file, keyed by the airport.
pub fn weather(csv_text: &[u8]) -> io::Result<impl Iterator<Item = io::Result<FeedRecord>> + '_> {
    let mut reader = csv::Reader::from_reader(csv_text);
    let names = reader.headers()?.clone();
    Ok(reader.into_records().map(move |record| {
        let record = record?;
        let key = Bytes::copy_from_slice(record[0].as_bytes());
        let value = object(&names, &record, None).into();
        Ok(FeedRecord { key, value })
    }))
}

fn object(names: &csv::StringRecord, record: &csv::StringRecord, row: Option<u64>) -> Vec<u8> {
    let mut json = Vec::with_capacity(512);
    json.push(b'{');
    if let Some(row) = row {
        json.extend_from_slice(format!("\"row\":{row},").as_bytes());
    }
    for (name, cell) in names.iter().zip(record.iter()) {
        for (text, end) in [(name, b':'), (cell, b',')] {
            serde_json::to_writer(&mut json, text).expect("a string always has a JSON form");
            json.push(end);
        }
    }
    json.pop();
    json.push(b'}');
    json
}

/// Five ways in which rows break in the field, in turn.
fn damage(value: &[u8], turn: u64) -> Bytes {
    let text = String::from_utf8_lossy(value);
    let replace = |name: &str, cell: &str| {
        let start = text.find(&format!("\"{name}\":")).unwrap_or(0) + name.len() + 3;
        let end = start + text[start..].find([',', '}']).unwrap_or(0);
        format!("{}{cell}{}", &text[..start], &text[end..]).into_bytes()
    };
    let damaged = match turn % 5 {
        0 => value[..value.len() / 2].to_vec(),
        1 => replace("carrier", "\"\""),
        2 => replace("dep_delay", "\"late\""),
        3 => replace("month", "\"13\""),
        _ => [&value[..value.len() - 2], b"\xff\"}"].concat(),
    };
    damaged.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "month,carrier,dep_delay,tailnum,time_hour\n1,UA,2,N1,2013-01-01T10:00:00Z\n";

    #[test]
    fn a_row_becomes_an_object_of_strings_with_its_number() {
        let records: Vec<_> = flights(CSV.as_bytes())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let value: serde_json::Value = serde_json::from_slice(&records[0].value).unwrap();
        assert_eq!(value["row"], 1);
        assert_eq!(value["carrier"], "UA");
        assert_eq!(records[0].key, "N1");
    }

    #[test]
    fn damaged_copies_are_damaged_each_in_its_way() {
        let records: Vec<_> = flights(CSV.as_bytes())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let good = &records[0].value;
        let damaged: Vec<Bytes> = (0..5).map(|turn| damage(good, turn)).collect();
        let parsed = |b: &Bytes| serde_json::from_slice::<serde_json::Value>(b).ok();
        assert!(parsed(&damaged[0]).is_none() && parsed(&damaged[4]).is_none());
        assert_eq!(parsed(&damaged[1]).unwrap()["carrier"], "");
        assert_eq!(parsed(&damaged[2]).unwrap()["dep_delay"], "late");
        assert_eq!(parsed(&damaged[3]).unwrap()["month"], "13");
    }
}
