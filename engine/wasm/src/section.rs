//! Custom sections at the end of a component.
//!
//! Called by: `describe`.

/// Custom sections have this number.
const CUSTOM: u8 = 0;

/// Appends a section with that name and content.
pub(crate) fn append(component: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut head = Vec::with_capacity(name.len() + 5);
    number(&mut head, name.len());
    head.extend_from_slice(name.as_bytes());
    component.push(CUSTOM);
    number(component, head.len() + content.len());
    component.extend_from_slice(&head);
    component.extend_from_slice(content);
}

/// LEB128, seven bits a byte.
fn number(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
