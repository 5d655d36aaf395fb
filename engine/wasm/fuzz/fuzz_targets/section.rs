//! A custom section at the end of a module or component.
//!
//! Called by `calls.rs` and `file_body.rs`. Not the host's own way, so that a fault there is not made here
//! too.

/// Appends a section of that name; panics where the name is longer than 127 bytes.
pub fn append(file: &mut Vec<u8>, name: &str, content: &[u8]) {
    assert!(name.len() < 0x80, "one byte says how long the name is");
    file.push(0);
    leb(file, 1 + name.len() + content.len());
    file.push(name.len() as u8);
    file.extend_from_slice(name.as_bytes());
    file.extend_from_slice(content);
}

fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
