//! Sections of a file: custom ones are appended, all of them walked.
//!
//! Called by: `describe`, `sign`.

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

/// Bytes of the head of a module or component.
const HEAD_BYTES: usize = 8;

/// A section of a module or component, at its outermost level.
pub(crate) struct Section<'a> {
    /// Where it begins in the file.
    pub(crate) start: usize,
    id: u8,
    payload: &'a [u8],
}

impl<'a> Section<'a> {
    /// The content, if it is a custom section of that name.
    pub(crate) fn custom(&self, name: &str) -> Option<&'a [u8]> {
        let (length, rest) = read_number(self.payload).filter(|_| self.id == CUSTOM)?;
        let (found, content) = rest.split_at_checked(length)?;
        (found == name.as_bytes()).then_some(content)
    }
}

/// All sections in order, or why they are none.
pub(crate) fn walk(file: &[u8]) -> Result<Vec<Section<'_>>, String> {
    let mut sections = Vec::new();
    let mut rest = file.get(HEAD_BYTES..).ok_or("it is no WebAssembly")?;
    while let Some((id, behind)) = rest.split_first() {
        let start = file.len() - rest.len();
        let (length, behind) = read_number(behind).ok_or("a section has no length")?;
        let cut = behind.split_at_checked(length);
        let (payload, behind) = cut.ok_or("a section ends behind the file")?;
        let id = *id;
        sections.push(Section { start, id, payload });
        rest = behind;
    }
    Ok(sections)
}

/// Of at most 32 bits.
fn read_number(mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((value as usize, bytes));
        }
    }
    None
}
