//! YAML as a tree in which every key and value knows its line and column.
//!
//! Called by: `spec::parse`. Built from saphyr-parser's events, so that duplicate keys, unknown
//! tags and the place of every scalar are seen. Anchors and aliases work by value: an alias is
//! a copy, counted against the node limit, so that nothing can be blown up by repetition.
//! Refuses: more than one document, tags, merge keys (`<<`), keys that are not scalars,
//! duplicate keys, files, depths and node counts over the named limits.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::limits::{SPEC_BYTES_MAX, SPEC_DEPTH_MAX, SPEC_NODES_MAX};

/// A place in the file: both count from 1, columns are characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    pub line: u32,
    pub column: u32,
}

/// What the reader could not accept, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    pub at: Pos,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Single,
    Double,
    Literal,
    Folded,
}

/// A scalar as written, before anything is replaced in it.
#[derive(Clone, Debug)]
pub struct Scalar {
    pub text: String,
    pub style: Style,
    /// Where the raw text lies in the file, in characters.
    pub chars: std::ops::Range<usize>,
    pub lines: u32,
}

#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub at: Pos,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub at: Pos,
    pub kind: Kind,
}

impl Node {
    /// What a person would call this value.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a mapping".into(),
            Kind::Scalar(s) => match s.resolve() {
                Plain::Null => "nothing".into(),
                Plain::Bool(b) => format!("the boolean {b}"),
                Plain::Int(_) | Plain::Float(_) => format!("the number {}", s.text),
                Plain::Text => format!("the text {:?}", shorten(&s.text)),
            },
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(s) if s.resolve() == Plain::Null)
    }

    /// Calls `each` for every scalar value of the tree; keys are not values.
    pub fn scalars<'a>(&'a self, each: &mut dyn FnMut(&'a Node, &'a Scalar)) {
        match &self.kind {
            Kind::Scalar(s) => each(self, s),
            Kind::List(items) => items.iter().for_each(|n| n.scalars(each)),
            Kind::Map(entries) => entries.iter().for_each(|(_, n)| n.scalars(each)),
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// A scalar by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

impl Scalar {
    pub fn resolve(&self) -> Plain {
        if self.style != Style::Plain {
            return Plain::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
            "true" | "True" | "TRUE" => return Plain::Bool(true),
            "false" | "False" | "FALSE" => return Plain::Bool(false),
            _ => {}
        }
        let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E');
        if !self.text.chars().all(numeric) || !self.text.chars().any(|c| c.is_ascii_digit()) {
            return Plain::Text;
        }
        if let Ok(int) = self.text.parse::<i64>() {
            return Plain::Int(int);
        }
        match self.text.parse::<f64>() {
            Ok(float) if float.is_finite() => Plain::Float(float),
            _ => Plain::Text,
        }
    }

    /// The place in the file of every byte of the scalar's text and of its end, or nothing where
    /// that cannot be told (folded and multi-line scalars).
    pub fn places(&self, at: Pos, source: &str) -> Vec<Pos> {
        let raw: Vec<char> = source
            .chars()
            .skip(self.chars.start)
            .take(self.chars.len())
            .collect();
        let places = match self.style {
            Style::Literal => return self.places_literal(at, source),
            Style::Plain if self.lines == 1 => widths_plain(&self.text),
            Style::Single if self.lines == 1 => widths_single(&raw),
            Style::Double if self.lines == 1 => widths_double(&raw),
            _ => return Vec::new(),
        };
        let column = |shift: u32| Pos {
            line: at.line,
            column: at.column + shift,
        };
        let mut out = Vec::with_capacity(self.text.len() + 1);
        let mut shifts = places.into_iter();
        let mut last = 0;
        for c in self.text.chars() {
            let Some((start, end)) = shifts.next() else {
                return Vec::new();
            };
            out.extend(std::iter::repeat_n(column(start), c.len_utf8()));
            last = end;
        }
        out.push(column(last));
        out
    }

    fn places_literal(&self, at: Pos, source: &str) -> Vec<Pos> {
        // The parser gives the place of the content, or of the `|` where that is empty.
        let mut lines = source.lines().enumerate().skip(at.line as usize - 1);
        let Some((first, line)) = lines.find(|(_, line)| !line.trim().is_empty()) else {
            return Vec::new();
        };
        if self.text.starts_with([' ', '\n']) {
            return Vec::new();
        }
        let indent = line.chars().take_while(|c| *c == ' ').count() as u32;
        let mut here = Pos {
            line: first as u32 + 1,
            column: indent + 1,
        };
        let mut out = Vec::with_capacity(self.text.len() + 1);
        for c in self.text.chars() {
            out.extend(std::iter::repeat_n(here, c.len_utf8()));
            here = match c {
                '\n' => Pos {
                    line: here.line + 1,
                    column: indent + 1,
                },
                _ => Pos {
                    line: here.line,
                    column: here.column + 1,
                },
            };
        }
        out.push(here);
        out
    }
}

fn widths_plain(text: &str) -> Vec<(u32, u32)> {
    (0..text.chars().count() as u32)
        .map(|i| (i, i + 1))
        .collect()
}

fn widths_single(raw: &[char]) -> Vec<(u32, u32)> {
    let mut out = Vec::new();
    let mut i = 1;
    while i + 1 < raw.len() {
        let width = if raw[i] == '\'' { 2 } else { 1 };
        out.push((i as u32, (i + width) as u32));
        i += width;
    }
    out
}

fn widths_double(raw: &[char]) -> Vec<(u32, u32)> {
    let mut out = Vec::new();
    let mut i = 1;
    while i + 1 < raw.len() {
        let width = match (raw[i], raw[i + 1]) {
            ('\\', 'x') => 4,
            ('\\', 'u') => 6,
            ('\\', 'U') => 10,
            ('\\', _) => 2,
            _ => 1,
        };
        out.push((i as u32, (i + width) as u32));
        i += width;
    }
    out
}

/// Reads one document. What can be read with an error in it is read: all errors come back.
pub fn parse(text: &str) -> (Option<Node>, Vec<YamlError>) {
    let mut builder = Builder::default();
    let start = Pos { line: 1, column: 1 };
    if text.len() > SPEC_BYTES_MAX {
        let message = format!(
            "the file has {} bytes, more than the {SPEC_BYTES_MAX} a pipeline file may have",
            text.len()
        );
        return (None, vec![YamlError { at: start, message }]);
    }
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(e) => {
                let at = pos(e.marker().line(), e.marker().col());
                builder.fail(at, format!("not YAML: {}", e.info()));
                Err(Stop)
            }
        };
        if step.is_err() {
            return (None, builder.errors);
        }
    }
    if builder.root.is_none() && builder.errors.is_empty() {
        builder.fail(start, "the file is empty; a pipeline is expected".into());
    }
    (builder.root, builder.errors)
}

fn pos(line: usize, column: usize) -> Pos {
    Pos {
        line: line.max(1) as u32,
        column: column as u32 + 1,
    }
}

/// Reading ends here: what follows would only repeat the first error.
struct Stop;

enum Open {
    List(Node, usize),
    Map(Node, usize, Option<Key>),
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
    errors: Vec<YamlError>,
}

impl Builder {
    fn fail(&mut self, at: Pos, message: String) {
        self.errors.push(YamlError { at, message });
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let at = pos(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.fail(at, "a second document: one file holds one pipeline".into());
                    return Err(Stop);
                }
                Ok(())
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((node, count)) => self.place(node, count, at),
                None => {
                    self.fail(at, "an alias inside the value that it names".into());
                    Err(Stop)
                }
            },
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(at, tag.is_some());
                let node = Node {
                    at,
                    kind: Kind::Scalar(scalar(text.into_owned(), style, span)),
                };
                self.finish(node, anchor, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(at, tag.is_some());
                self.open(
                    Open::List(
                        Node {
                            at,
                            kind: Kind::List(Vec::new()),
                        },
                        anchor,
                    ),
                    at,
                )
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(at, tag.is_some());
                self.open(
                    Open::Map(
                        Node {
                            at,
                            kind: Kind::Map(Vec::new()),
                        },
                        anchor,
                        None,
                    ),
                    at,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List(node, anchor) | Open::Map(node, anchor, _)) => {
                    let count = count(&node);
                    self.finish(node, anchor, count)
                }
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn tag(&mut self, at: Pos, tagged: bool) {
        if tagged {
            self.fail(at, "tags (`!name`) are not supported in a pipeline".into());
        }
    }

    fn open(&mut self, open: Open, at: Pos) -> Result<(), Stop> {
        if self.stack.len() >= SPEC_DEPTH_MAX {
            self.fail(at, format!("nested deeper than {SPEC_DEPTH_MAX} levels"));
            return Err(Stop);
        }
        if let Some(Open::Map(_, _, None)) = self.stack.last() {
            self.fail(
                at,
                "a key must be plain text, not a list or a mapping".into(),
            );
            return Err(Stop);
        }
        self.stack.push(open);
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize, count: usize) -> Result<(), Stop> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), count));
        }
        let at = node.at;
        // Scalars and aliases add to the count; what a collection holds was counted before.
        let added = if matches!(node.kind, Kind::Scalar(_)) {
            count
        } else {
            1
        };
        self.place(node, added, at)
    }

    fn place(&mut self, node: Node, added: usize, at: Pos) -> Result<(), Stop> {
        self.nodes += added;
        if self.nodes > SPEC_NODES_MAX {
            self.fail(
                at,
                format!("more than {SPEC_NODES_MAX} values, aliases counted"),
            );
            return Err(Stop);
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(
                Node {
                    kind: Kind::List(items),
                    ..
                },
                _,
            )) => items.push(node),
            Some(Open::Map(
                Node {
                    kind: Kind::Map(entries),
                    ..
                },
                _,
                key,
            )) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Kind::Scalar(scalar) = node.kind else {
                        self.fail(at, "a key must be plain text, not an alias".into());
                        return Err(Stop);
                    };
                    let duplicate = entries.iter().find(|(k, _)| k.text == scalar.text);
                    let message = match duplicate {
                        Some((first, _)) => Some(format!(
                            "key `{}` is here twice, first in line {}",
                            scalar.text, first.at.line
                        )),
                        None if scalar.text == "<<" => {
                            Some("merge keys (`<<`) are not supported; write the keys out".into())
                        }
                        None => None,
                    };
                    *key = Some(Key {
                        text: scalar.text,
                        at,
                    });
                    if let Some(message) = message {
                        self.fail(at, message);
                    }
                }
            },
            Some(_) => {}
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar(_) => 1,
        Kind::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, n)| 1 + count(n)).sum::<usize>(),
    }
}

fn scalar(text: String, style: ScalarStyle, span: Span) -> Scalar {
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::Single,
        ScalarStyle::DoubleQuoted => Style::Double,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    };
    let lines = (span.end.line() - span.start.line()) as u32 + 1;
    Scalar {
        text,
        style,
        chars: span.start.index()..span.end.index(),
        lines,
    }
}
