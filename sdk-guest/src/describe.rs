//! What a module says of itself without being run: the custom section `rustmq:describe`.
//!
//! The section is JSON, made by the compiler: name and version of the crate, the JSON Schema of the
//! node's `params` (from [`macro@crate::Params`]), the outputs it names (from [`macro@crate::Port`]), the
//! schema of its state and the older ones that it takes over.
//!
//! Called by: [`crate::export!`], code of the attributes and derives.
//! Invariants: everything is a constant; texts in it are JSON-escaped where they are made.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use crate::Module;

/// A type that a node's `params`, or a part of them, can be: what it is as JSON Schema.
/// `#[derive(rustmq::Params)]` implements it for structs and for enums without fields.
pub trait Params {
    const SCHEMA: Schema;
}

/// A JSON Schema, as a tree of constants.
#[derive(Debug, Clone, Copy)]
pub enum Schema {
    /// JSON, as it is.
    Text(&'static str),
    Nullable(&'static Schema),
    Array(&'static Schema),
    /// An object with any keys.
    Map(&'static Schema),
    /// An object with these keys and no others.
    Object {
        description: &'static str,
        properties: &'static [Property],
    },
}

/// A key of an object. Its texts are escaped for JSON.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    pub name: &'static str,
    pub description: &'static str,
    pub required: bool,
    pub schema: &'static Schema,
}

macro_rules! schemas {
    ($($schema:literal: $($ty:ty),+;)*) => { $($(
        impl Params for $ty {
            const SCHEMA: Schema = Schema::Text($schema);
        }
    )+)* };
}

schemas! {
    r#"{"type":"boolean"}"#: bool;
    r#"{"type":"integer","minimum":-128,"maximum":127}"#: i8;
    r#"{"type":"integer","minimum":-32768,"maximum":32767}"#: i16;
    r#"{"type":"integer","minimum":-2147483648,"maximum":2147483647}"#: i32, isize;
    r#"{"type":"integer"}"#: i64;
    r#"{"type":"integer","minimum":0,"maximum":255}"#: u8;
    r#"{"type":"integer","minimum":0,"maximum":65535}"#: u16;
    r#"{"type":"integer","minimum":0,"maximum":4294967295}"#: u32, usize;
    r#"{"type":"integer","minimum":0}"#: u64;
    r#"{"type":"number"}"#: f32, f64;
    r#"{"type":"string"}"#: String, Cow<'_, str>;
    "{}": serde_json::Value;
}

impl<T: Params> Params for Option<T> {
    const SCHEMA: Schema = Schema::Nullable(&T::SCHEMA);
}

impl<T: Params> Params for Vec<T> {
    const SCHEMA: Schema = Schema::Array(&T::SCHEMA);
}

impl<T: Params> Params for BTreeMap<String, T> {
    const SCHEMA: Schema = Schema::Map(&T::SCHEMA);
}

impl<T: Params, S> Params for HashMap<String, T, S> {
    const SCHEMA: Schema = Schema::Map(&T::SCHEMA);
}

impl<T: Params> Params for Box<T> {
    const SCHEMA: Schema = T::SCHEMA;
}

impl Params for crate::rt::NoParams {
    const SCHEMA: Schema = Schema::Object {
        description: "",
        properties: &[],
    };
}

/// The outputs that a type can name; of [`macro@crate::Port`].
pub trait PortNames {
    const NAMES: &'static [&'static str];
}

/// Asks a type what it says; for most there is nothing, and the inherent constants win where
/// there is. Not for people.
#[derive(Debug)]
pub struct Of<T>(PhantomData<T>);

pub trait Silent {
    const SCHEMA: Option<&'static Schema> = None;
    const PORTS: Option<&'static [&'static str]> = None;
}

impl<T> Silent for Of<T> {}

impl<T: Params> Of<T> {
    pub const SCHEMA: Option<&'static Schema> = Some(&T::SCHEMA);
}

impl<T: PortNames> Of<T> {
    pub const PORTS: Option<&'static [&'static str]> = Some(T::NAMES);
}

/// What stands in the section.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    name: &'static str,
    version: &'static str,
    params: Option<&'static Schema>,
    ports: Option<&'static [&'static str]>,
    state_schema: Option<u32>,
    migrates: &'static [u32],
    module: Option<&'static str>,
}

impl Description {
    /// Of a module in the crate of that name and version.
    pub const fn of<M: Module>(name: &'static str, version: &'static str) -> Description {
        Description {
            name,
            version,
            params: M::PARAMS,
            ports: M::PORTS,
            state_schema: M::STATE_SCHEMA,
            migrates: M::MIGRATES,
            module: None,
        }
    }

    /// The same with the path of the module's type, by which `rustmq module test` knows its tests.
    pub const fn of_type(self, path: &'static str) -> Description {
        Description {
            module: Some(path),
            ..self
        }
    }

    /// Bytes of the JSON.
    pub const fn len(&self) -> usize {
        let mut out = Out::<0>::new();
        self.write(&mut out);
        out.len
    }

    /// Never: it has a name.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The JSON; `N` is its length.
    pub const fn json<const N: usize>(&self) -> [u8; N] {
        let mut out = Out::<N>::new();
        self.write(&mut out);
        out.bytes
    }

    const fn write<const N: usize>(&self, out: &mut Out<N>) {
        out.text("{\"name\":");
        out.quoted(self.name);
        out.text(",\"version\":");
        out.quoted(self.version);
        out.text(",\"params\":");
        match self.params {
            Some(schema) => schema.write(out),
            None => out.text("null"),
        }
        out.text(",\"ports\":");
        match self.ports {
            Some(ports) => out.list(ports),
            None => out.text("null"),
        }
        out.text(",\"state_schema\":");
        match self.state_schema {
            Some(version) => out.number(version),
            None => out.text("null"),
        }
        if !self.migrates.is_empty() {
            out.text(",\"migrates\":[");
            let mut at = 0;
            while at < self.migrates.len() {
                out.comma(at);
                out.number(self.migrates[at]);
                at += 1;
            }
            out.text("]");
        }
        if let Some(path) = self.module {
            out.text(",\"module\":");
            out.quoted(path);
        }
        out.text("}");
    }
}

impl Schema {
    const fn write<const N: usize>(&self, out: &mut Out<N>) {
        match self {
            Schema::Text(text) => out.text(text),
            Schema::Nullable(inner) => {
                out.text("{\"anyOf\":[");
                inner.write(out);
                out.text(",{\"type\":\"null\"}]}");
            }
            Schema::Array(items) => {
                out.text("{\"type\":\"array\",\"items\":");
                items.write(out);
                out.text("}");
            }
            Schema::Map(values) => {
                out.text("{\"type\":\"object\",\"additionalProperties\":");
                values.write(out);
                out.text("}");
            }
            Schema::Object {
                description,
                properties,
            } => object(description, properties, out),
        }
    }
}

const fn object<const N: usize>(description: &str, properties: &[Property], out: &mut Out<N>) {
    out.text("{\"type\":\"object\"");
    if !description.is_empty() {
        out.text(",\"description\":");
        out.quoted(description);
    }
    out.text(",\"properties\":{");
    let mut at = 0;
    while at < properties.len() {
        let property = &properties[at];
        out.comma(at);
        out.quoted(property.name);
        out.text(":");
        if property.description.is_empty() {
            property.schema.write(out);
        } else {
            out.text("{\"description\":");
            out.quoted(property.description);
            out.text(",\"allOf\":[");
            property.schema.write(out);
            out.text("]}");
        }
        at += 1;
    }
    out.text("},\"required\":[");
    let (mut at, mut listed) = (0, 0);
    while at < properties.len() {
        if properties[at].required {
            out.comma(listed);
            out.quoted(properties[at].name);
            listed += 1;
        }
        at += 1;
    }
    out.text("],\"additionalProperties\":false}");
}

/// Where the JSON is written; of no bytes, it only counts.
struct Out<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Out<N> {
    const fn new() -> Out<N> {
        Out {
            bytes: [0; N],
            len: 0,
        }
    }

    const fn text(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() {
            if self.len < N {
                self.bytes[self.len] = text[at];
            }
            self.len += 1;
            at += 1;
        }
    }

    const fn quoted(&mut self, text: &str) {
        self.text("\"");
        self.text(text);
        self.text("\"");
    }

    const fn number(&mut self, number: u32) {
        if number >= 10 {
            self.number(number / 10);
        }
        if self.len < N {
            self.bytes[self.len] = b'0' + (number % 10) as u8;
        }
        self.len += 1;
    }

    const fn comma(&mut self, before: usize) {
        if before > 0 {
            self.text(",");
        }
    }

    const fn list(&mut self, texts: &[&str]) {
        self.text("[");
        let mut at = 0;
        while at < texts.len() {
            self.comma(at);
            self.quoted(texts[at]);
            at += 1;
        }
        self.text("]");
    }
}
