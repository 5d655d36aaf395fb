//! A flat map: the words of a text; a text of one word becomes its own key.

use rustmq::{Raw, Record};

#[rustmq::flat_map]
fn words(text: &str) -> Vec<Record<Raw<String>>> {
    let words: Vec<&str> = text.split(' ').collect();
    let alone = words.len() == 1;
    words
        .into_iter()
        .map(|word| {
            let record = Record::new(Raw(word.to_owned()));
            if alone { record.key(word) } else { record }
        })
        .collect()
}
