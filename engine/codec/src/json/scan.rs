//! A strict JSON scanner (RFC 8259) over one value's text, without building a tree.
//!
//! Called by the decoder. Values it is not asked to keep are checked and skipped.
//! Invariants: never reads past the text, never panics, never allocates but for unescaping.
//! Refuses: anything `serde_json` refuses, lone surrogates included; nesting deeper than
//! [`DEPTH_MAX`].

use std::borrow::Cow;

/// Nesting a value may have; the same as serde_json's.
pub(crate) const DEPTH_MAX: u32 = 128;

/// What is wrong, and at which byte.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub at: usize,
    pub what: &'static str,
}

/// A scanned value. Numbers are grammatical, strings have checked escapes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Text<'a>),
    Array(&'a str),
    Object(&'a str),
}

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Text<'a> {
    pub raw: &'a str,
    pub escaped: bool,
}

impl<'a> Text<'a> {
    pub(crate) fn get(&self) -> Cow<'a, str> {
        if self.escaped {
            Cow::Owned(unescape(self.raw))
        } else {
            Cow::Borrowed(self.raw)
        }
    }
}

pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Scanner {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// The next byte that is not white space, without taking it.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b) = bytes.get(self.at) {
            if !matches!(b, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*b);
            }
            self.at += 1;
        }
        None
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        if self.text.as_bytes().get(self.at) == Some(&byte) {
            self.at += 1;
            return true;
        }
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.fault(what))
        }
    }

    /// Nothing but white space may be left.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        if self.peek().is_none() {
            Ok(())
        } else {
            Err(self.fault("text after the value"))
        }
    }

    pub(crate) fn fault(&self, what: &'static str) -> Fault {
        let what = if self.at >= self.text.len() {
            "the text ends too early"
        } else {
            what
        };
        Fault { at: self.at, what }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// What was taken since it was at `from`.
    pub(crate) fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    /// A key with its colon.
    pub(crate) fn key(&mut self) -> Result<Text<'a>, Fault> {
        self.expect(b'"', "expected a field name in double quotes")?;
        let key = self.string_rest()?;
        self.expect(b':', "expected `:` after the field name")?;
        Ok(key)
    }

    /// Takes exactly these bytes if they are next.
    #[inline]
    pub(crate) fn take_all(&mut self, bytes: &[u8]) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(bytes);
        self.at += if found { bytes.len() } else { 0 };
        found
    }

    /// Takes a plain integer of up to 18 digits; otherwise takes nothing.
    #[inline]
    pub(crate) fn quick_int(&mut self) -> Option<i64> {
        let bytes = self.text.as_bytes();
        let minus = bytes.get(self.at) == Some(&b'-');
        let start = self.at + usize::from(minus);
        let (number, end) = digits(bytes, start, 0)?;
        let plain = !matches!(bytes.get(end), Some(b'.' | b'e' | b'E'));
        if !plain || end - start > QUICK_DIGITS || leading_zero(bytes, start, end) {
            return None;
        }
        self.at = end;
        let number = number as i64;
        Some(if minus { -number } else { number })
    }

    /// Takes a number without an exponent whose digits and fraction a float holds exactly, so that
    /// one division rounds as the full algorithm would; otherwise takes nothing.
    #[inline]
    pub(crate) fn quick_float(&mut self) -> Option<f64> {
        let bytes = self.text.as_bytes();
        let minus = bytes.get(self.at) == Some(&b'-');
        let start = self.at + usize::from(minus);
        let (mut number, mut end) = digits(bytes, start, 0)?;
        if leading_zero(bytes, start, end) {
            return None;
        }
        let mut places = 0;
        if bytes.get(end) == Some(&b'.') {
            let from = end + 1;
            (number, end) = digits(bytes, from, number)?;
            places = end - from;
        }
        let exact = end - start <= QUICK_DIGITS && number <= 1 << 53 && places < POWERS.len();
        if !exact || matches!(bytes.get(end), Some(b'e' | b'E')) {
            return None;
        }
        self.at = end;
        let number = number as f64 / POWERS[places];
        Some(if minus { -number } else { number })
    }

    /// Takes a string without escapes; otherwise takes nothing.
    #[inline]
    pub(crate) fn quick_text(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        let from = self.at + 1;
        let to = plain_until(bytes, from);
        if bytes.get(to) != Some(&b'"') {
            return None;
        }
        self.at = to + 1;
        Some(&self.text[from..to])
    }

    pub(crate) fn value(&mut self) -> Result<Value<'a>, Fault> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Value::Text(self.string_rest()?))
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b'{') => self.container(Self::object_rest).map(Value::Object),
            Some(b'[') => self.container(Self::array_rest).map(Value::Array),
            Some(b't') => self.word("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Value::Bool(false)),
            Some(b'n') => self.word("null").map(|()| Value::Null),
            _ => Err(self.fault("expected a value")),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(Fault {
            at: self.at,
            what: "expected a value",
        })
    }

    fn container(&mut self, rest: fn(&mut Self) -> Result<(), Fault>) -> Result<&'a str, Fault> {
        let start = self.at;
        self.at += 1;
        self.depth += 1;
        if self.depth >= DEPTH_MAX {
            return Err(self.fault("nested too deeply"));
        }
        rest(self)?;
        self.depth -= 1;
        Ok(&self.text[start..self.at])
    }

    fn object_rest(&mut self) -> Result<(), Fault> {
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.key()?;
            self.value()?;
            if !self.take(b',') {
                return self.expect(b'}', "expected `,` or `}`");
            }
        }
    }

    fn array_rest(&mut self) -> Result<(), Fault> {
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value()?;
            if !self.take(b',') {
                return self.expect(b']', "expected `,` or `]`");
            }
        }
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        while bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.fault("expected a digit"))
        } else {
            Ok(())
        }
    }

    fn number(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += usize::from(bytes[start] == b'-');
        if bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
            if bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
                return Err(self.fault("a number must not start with 0"));
            }
        } else {
            self.digits()?;
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// The rest of a string whose opening quote is taken.
    fn string_rest(&mut self) -> Result<Text<'a>, Fault> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = plain_until(bytes, self.at);
            match bytes.get(self.at) {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.fault("control character inside a string")),
                None => return Err(self.fault("")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let bad = Fault {
                    at: self.at,
                    what: "bad \\u escape",
                };
                let unit = hex4(bytes, self.at + 2).ok_or_else(|| bad.clone())?;
                self.at += 6;
                if (0xDC00..0xE000).contains(&unit) {
                    return Err(bad);
                }
                if (0xD800..0xDC00).contains(&unit) {
                    let low = (bytes.get(self.at..self.at + 2) == Some(b"\\u".as_slice()))
                        .then(|| hex4(bytes, self.at + 2))
                        .flatten();
                    if !low.is_some_and(|low| (0xDC00..0xE000).contains(&low)) {
                        return Err(bad);
                    }
                    self.at += 6;
                }
                Ok(())
            }
            _ => Err(self.fault("bad escape")),
        }
    }
}

/// Digits that fit an `i64` and, with a point, are counted cheaply.
const QUICK_DIGITS: usize = 18;

/// The powers of ten that a float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Reads digits on to `number`: the result and where they end. `None` without a digit. Beyond 18
/// digits the number means nothing.
#[inline]
fn digits(bytes: &[u8], from: usize, mut number: u64) -> Option<(u64, usize)> {
    let mut at = from;
    while let Some(digit) = bytes
        .get(at)
        .map(|b| b.wrapping_sub(b'0'))
        .filter(|d| *d < 10)
    {
        number = number.wrapping_mul(10).wrapping_add(digit.into());
        at += 1;
    }
    (at > from).then_some((number, at))
}

fn leading_zero(bytes: &[u8], from: usize, to: usize) -> bool {
    to - from > 1 && bytes[from] == b'0'
}

/// The first byte from `at` on that is a quote, a backslash or a control character, which are
/// those that a JSON string escapes. Eight bytes
/// at a time: a byte below 0x20 or equal to one of the two borrows into its top bit.
pub(super) fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("the slice has 8 bytes"));
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let slash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quote | slash | control) & TOPS;
        if found != 0 {
            // Borrows only spoil bytes after the first hit, so the lowest set bit is right.
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(b) = bytes.get(at) {
        if *b == b'"' || *b == b'\\' || *b < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let mut unit = 0;
    for b in bytes.get(at..at + 4)? {
        unit = unit * 16 + char::from(*b).to_digit(16)?;
    }
    Some(unit)
}

/// `raw` has been scanned, so its escapes are complete.
fn unescape(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while at < bytes.len() {
        let plain = raw[at..].find('\\').map_or(raw.len(), |found| at + found);
        out.push_str(&raw[at..plain]);
        at = plain;
        let Some(kind) = bytes.get(at + 1) else { break };
        at += 2;
        match kind {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let mut code = hex4(bytes, at).unwrap_or(0xFFFD);
                at += 4;
                if (0xD800..0xDC00).contains(&code) {
                    let low = hex4(bytes, at + 2).unwrap_or(0xDC00);
                    code = 0x10000 + ((code - 0xD800) << 10) + (low.wrapping_sub(0xDC00) & 0x3FF);
                    at += 6;
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.push(char::from(*other)),
        }
    }
    out
}
