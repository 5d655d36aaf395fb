//! Which fields each edge has, and the expressions compiled against them.
//!
//! Called by: `lint` (for the complaints) and the runtime (for the result), so that both mean the
//! same. Pure but for the catalog it is given. Invariants: an expression that compiled here sees
//! at run time exactly the columns and types it was compiled for.
//! Refuses: unknown topics, schemas that are not there, expressions that do not compile, with
//! their place inside the file.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema as ArrowSchema};
use codec::Format;
use expr::{Expr, Predicate, base_schema};
use model::catalog::Catalog;
use model::schema::{Field, FieldType, Schema};
use model::topic::{Misfits, PayloadCodec, TopicSpec};

use crate::graph::{Complaints, Graph, Link};
use crate::spec::types::{At, Expression, Map, Node, OutputSchema, Route, Sink};
use crate::spec::yaml::Pos;
use crate::spec::{Broken, Spec, hint};

/// What is known of the values on an edge.
#[derive(Clone, Debug, PartialEq)]
pub enum Fields {
    /// Typed fields, and how they are written.
    Known(Format),
    /// No schema: only the columns that every record has.
    Base,
    /// Not to be told without a catalog: expressions cannot be checked.
    Unknown,
}

/// A node with what can fail about it done.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub number: usize,
    pub inputs: Vec<Link>,
    /// Fields of each output.
    pub ports: Vec<Fields>,
    pub program: Program,
}

#[derive(Clone, Debug)]
pub enum Program {
    Source,
    Wasm,
    Filter(Predicate),
    Map {
        select: Vec<(Field, Expr)>,
        /// How the selected columns are written.
        format: Format,
        key: Option<Expr>,
    },
    Route(Vec<Predicate>),
    Sink {
        key: Option<Expr>,
        /// How the topic's values are written, where those of the edge are written otherwise.
        format: Option<Format>,
    },
}

/// Topics by name: those of the file first, then the catalog's.
pub(crate) struct Topics<'a> {
    pub spec: &'a Spec,
    pub broken: &'a Broken,
    pub catalog: Option<&'a Catalog>,
}

pub(crate) enum Found {
    Topic(TopicSpec),
    /// Nothing can be said: there is no catalog, or its definition has errors.
    Maybe,
    No,
}

impl Topics<'_> {
    pub fn find(&self, name: &str) -> Found {
        if self.broken.topics.iter().any(|b| b == name) {
            return Found::Maybe;
        }
        let existing = self.catalog.and_then(|c| c.topic(name)).map(|t| &t.spec);
        match (self.spec.topics.get(name), existing, self.catalog) {
            // What the file leaves out of an existing topic is as it is.
            (Some(def), Some(existing), _) if def.value.is_none() => Found::Topic(existing.clone()),
            (Some(def), existing, _) => Found::Topic(TopicSpec {
                misfits: def.misfits(existing),
                ..def.to_spec()
            }),
            (None, Some(existing), _) => Found::Topic(existing.clone()),
            (None, None, None) => Found::Maybe,
            (None, None, Some(_)) => Found::No,
        }
    }

    /// Complains where a topic is not known; says what its values have.
    pub fn check(&self, topic: &At<String>, out: &mut Complaints<'_>) -> Found {
        let found = self.find(topic);
        if let Found::No = found {
            let known = self
                .catalog
                .into_iter()
                .flat_map(|c| c.topics())
                .map(|t| t.name.as_str());
            let advice = hint(topic, self.spec.topics.names().chain(known))
                .unwrap_or_else(|| "declare it under `topics`, or create it first".to_string());
            out.error(
                topic.at,
                format!("no topic `{}`", topic.value),
                Some(advice),
            );
        }
        found
    }
}

impl Found {
    pub fn keeps_columns(&self) -> bool {
        matches!(self, Found::Topic(spec) if spec.codec == PayloadCodec::Columns)
    }

    fn fields(&self) -> Fields {
        match self {
            Found::Topic(TopicSpec {
                codec,
                schema: Some(schema),
                misfits,
                ..
            }) => known(*codec, schema.clone(), *misfits),
            Found::Topic(_) => Fields::Base,
            Found::Maybe | Found::No => Fields::Unknown,
        }
    }
}

/// Fields of values in a codec; none where it has no columns.
fn known(codec: PayloadCodec, schema: Schema, misfits: Misfits) -> Fields {
    match Format::new(codec, Arc::new(schema)) {
        Some(format) => Fields::Known(format.with_misfits(misfits)),
        None => Fields::Base,
    }
}

/// Compiles every node of the graph that has its inputs.
pub(crate) fn compile(
    graph: &Graph<'_>,
    topics: &Topics<'_>,
    out: &mut Complaints<'_>,
) -> Vec<Compiled> {
    let mut done: Vec<Option<Vec<Fields>>> = vec![None; graph.spec.nodes.len()];
    let mut compiled = Vec::with_capacity(graph.order.len());
    for number in &graph.order {
        let (name, node) = graph.node(*number);
        let inputs: Vec<Link> = graph.links[*number].iter().flatten().copied().collect();
        let edges: Vec<Fields> = inputs
            .iter()
            .map(|link| match &done[link.node] {
                Some(ports) => ports[link.port].clone(),
                None => Fields::Unknown,
            })
            .collect();
        let whole = inputs.len() == node.inputs().len();
        let edge = if whole {
            together(&edges)
        } else {
            Fields::Unknown
        };
        if !matches!(node, Node::Wasm(_)) {
            check_alike(name.at, &edges, out);
        }
        let mut scope = Scope {
            fields: &edge,
            reader: name,
            out,
        };
        let (program, ports) = match node {
            Node::Source(source) => {
                let fields = topics.check(&source.topic, scope.out).fields();
                (Some(Program::Source), vec![fields])
            }
            Node::Wasm(wasm) => {
                let output = |(_, schema): (_, &Option<At<OutputSchema>>)| match schema {
                    None => Fields::Base,
                    Some(schema) => output_fields(schema, topics, scope.out),
                };
                (
                    Some(Program::Wasm),
                    wasm.outputs.iter().map(output).collect(),
                )
            }
            Node::Filter(filter) => (
                scope.condition(&filter.condition).map(Program::Filter),
                vec![edge.clone()],
            ),
            Node::Map(map) => scope.map(map),
            Node::Route(route) => (
                scope.route(route),
                vec![edge.clone(); route.cases.len() + 1],
            ),
            Node::Sink(sink) => (scope.sink(sink, topics), Vec::new()),
        };
        done[*number] = Some(ports.clone());
        if let (Some(program), true) = (program, whole) {
            compiled.push(Compiled {
                number: *number,
                inputs,
                ports,
                program,
            });
        }
    }
    compiled
}

fn output_fields(
    schema: &At<OutputSchema>,
    topics: &Topics<'_>,
    out: &mut Complaints<'_>,
) -> Fields {
    match &schema.value {
        OutputSchema::Fields(schema) => known(
            PayloadCodec::Json,
            Schema {
                avro: None,
                ..schema.clone()
            },
            Misfits::DeadLetter,
        ),
        OutputSchema::Topic(name) => {
            let topic = At {
                value: name.clone(),
                at: schema.at,
            };
            let fields = topics.check(&topic, out).fields();
            if fields == Fields::Base {
                let advice = "declare one in its `value`, or write the fields here".to_string();
                out.error(
                    schema.at,
                    format!("topic `{name}` has no schema"),
                    Some(advice),
                );
                return Fields::Unknown;
            }
            fields
        }
    }
}

/// Complains unless one way reads the values of all edges of which the fields are known.
fn check_alike(at: Pos, edges: &[Fields], out: &mut Complaints<'_>) {
    let known = edges.iter().filter_map(|edge| match edge {
        Fields::Known(format) => Some(format),
        Fields::Base | Fields::Unknown => None,
    });
    let known: Vec<&Format> = known.collect();
    if !known.windows(2).all(|two| reads(two[0], two[1])) {
        let message = "its inputs have values of different codecs, or of different schemas in a \
                       codec that does not name its fields";
        let advice = "put a `map` behind each, which makes them alike".to_owned();
        out.error(at, message, Some(advice));
    }
}

/// Whether values of one format are read as another: JSON says its fields' names, so one schema's
/// objects are read by another; the other codecs have the fields of their own.
fn reads(wanted: &Format, given: &Format) -> bool {
    match wanted.names_fields() {
        true => given.codec() == wanted.codec(),
        false => given.writes_like(wanted),
    }
}

/// The fields that all inputs of a node have with the same type.
fn together(edges: &[Fields]) -> Fields {
    let Some(first) = edges.first() else {
        return Fields::Base;
    };
    let mut all = first.clone();
    for edge in &edges[1..] {
        all = match (all, edge) {
            (Fields::Unknown, _) | (_, Fields::Unknown) => Fields::Unknown,
            (Fields::Known(a), Fields::Known(b)) => both(a, b),
            _ => Fields::Base,
        };
    }
    all
}

/// The fields that values of both formats have. Nulls of misfits are among them if either says so.
fn both(a: Format, b: &Format) -> Fields {
    let misfits = a.misfits().max(b.misfits());
    if a.writes_like(b) {
        return Fields::Known(a.with_misfits(misfits));
    }
    let same = |f: &&Field| b.schema().field(&f.name) == Some(*f);
    let fields: Vec<Field> = a.schema().fields.iter().filter(same).cloned().collect();
    match fields.is_empty() {
        true => Fields::Base,
        false => known(PayloadCodec::Json, Schema { fields, avro: None }, misfits),
    }
}

/// The type under which a column of this Arrow type goes on.
pub(crate) fn field_type(ty: &DataType) -> Option<FieldType> {
    Some(match ty {
        DataType::Boolean => FieldType::Bool,
        ty if ty.is_integer() => FieldType::Int64,
        ty if ty.is_floating() || ty.is_decimal() => FieldType::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            FieldType::String
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => FieldType::Bytes,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => FieldType::Timestamp,
        DataType::Dictionary(_, value) => return field_type(value),
        _ => return None,
    })
}

/// The fields of a topic's Avro schema that cannot be null.
fn never_null(found: &Found) -> Vec<String> {
    let Found::Topic(TopicSpec {
        codec: PayloadCodec::Avro,
        schema: Some(schema),
        ..
    }) = found
    else {
        return Vec::new();
    };
    let fields = schema.to_avro().map_or_else(|_| Vec::new(), |r| r.fields);
    let never = fields.into_iter().filter(|field| !field.has_null());
    never.map(|field| field.name).collect()
}

/// Where an expression stands: the fields it sees and whom to complain to.
struct Scope<'a, 's> {
    fields: &'a Fields,
    reader: &'a At<String>,
    out: &'a mut Complaints<'s>,
}

impl Scope<'_, '_> {
    fn columns(&self) -> Option<ArrowSchema> {
        let mut columns: Vec<_> = base_schema().fields().iter().cloned().collect();
        match self.fields {
            Fields::Unknown => return None,
            Fields::Base => {}
            Fields::Known(format) => {
                columns.extend(format.schema().to_arrow().fields().iter().cloned());
            }
        }
        Some(ArrowSchema::new(columns))
    }

    fn complain(&mut self, expression: &Expression, error: expr::ExprError) {
        let at = expression.place(error.offset);
        let advice = (*self.fields == Fields::Base).then(|| {
            format!(
                "the input of `{}` has no schema: only _key, _value, _value_text and _timestamp \
                 exist; declare one on the topic, or as `outputs: {{ out: {{ schema: … }} }}`",
                self.reader.value
            )
        });
        self.out.error(at, error.message, advice);
    }

    fn condition(&mut self, expression: &Expression) -> Option<Predicate> {
        let columns = self.columns()?;
        match Predicate::compile(&expression.text, &columns) {
            Ok(predicate) => Some(predicate),
            Err(error) => {
                self.complain(expression, error);
                None
            }
        }
    }

    fn expression(&mut self, expression: &Expression) -> Option<Expr> {
        let columns = self.columns()?;
        match Expr::compile(&expression.text, &columns) {
            Ok(compiled) => Some(compiled),
            Err(error) => {
                self.complain(expression, error);
                None
            }
        }
    }

    fn typed(&mut self, what: &str, expression: &Expression) -> Option<(FieldType, Expr)> {
        let compiled = self.expression(expression)?;
        match field_type(compiled.data_type()) {
            Some(ty) => Some((ty, compiled)),
            None => {
                let message = format!("{what} has type {}", compiled.data_type());
                let advice = "take a part of it, or cast it to a simple type".to_string();
                self.out.error(expression.at, message, Some(advice));
                None
            }
        }
    }

    fn key(&mut self, key: Option<&Expression>) -> Option<Option<Expr>> {
        match key {
            None => Some(None),
            Some(expression) => self.typed("the key", expression).map(|(_, e)| Some(e)),
        }
    }

    fn map(&mut self, map: &Map) -> (Option<Program>, Vec<Fields>) {
        let mut select = Vec::new();
        for (name, expression) in map.select.iter() {
            if let Some((ty, compiled)) =
                self.typed(&format!("column `{}`", name.value), expression)
            {
                select.push((
                    Field {
                        name: name.value.clone(),
                        ty,
                    },
                    compiled,
                ));
            }
        }
        let key = self.key(map.key.as_ref());
        if select.len() < map.select.len() {
            return (None, vec![Fields::Unknown]);
        }
        let fields = select.iter().map(|(field, _)| field.clone()).collect();
        let schema = Schema { fields, avro: None };
        let Fields::Known(format) = known(PayloadCodec::Json, schema, Misfits::DeadLetter) else {
            return (None, vec![Fields::Unknown]);
        };
        let ports = vec![Fields::Known(format.clone())];
        let program = key.map(|key| Program::Map {
            select,
            format,
            key,
        });
        (program, ports)
    }

    fn route(&mut self, route: &Route) -> Option<Program> {
        let cases: Vec<Option<Predicate>> = route
            .cases
            .iter()
            .map(|(_, case)| self.condition(case))
            .collect();
        cases
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .map(Program::Route)
    }

    /// How values must be written again for a topic, if they must.
    fn format_of(&self, found: &Found) -> Option<Format> {
        let Found::Topic(spec) = found else {
            return None;
        };
        let wanted = Format::of(spec)?;
        let must = match self.fields {
            _ if wanted.keeps_columns() => true,
            Fields::Known(given) => !reads(&wanted, given),
            Fields::Base | Fields::Unknown => false,
        };
        must.then_some(wanted)
    }

    fn sink(&mut self, sink: &Sink, topics: &Topics<'_>) -> Option<Program> {
        let found = topics.check(&sink.topic, self.out);
        if let (
            Found::Topic(TopicSpec {
                schema: Some(wanted),
                ..
            }),
            Fields::Known(given),
        ) = (&found, self.fields)
        {
            let must = never_null(&found);
            for field in &wanted.fields {
                let message = match given.schema().field(&field.name) {
                    Some(other) if other.ty == field.ty => continue,
                    // A whole number is read as a float.
                    Some(Field {
                        ty: FieldType::Int64,
                        ..
                    }) if field.ty == FieldType::Float64 => {
                        continue;
                    }
                    Some(other) => format!(
                        "field `{}` is {} here, but {} in topic `{}`",
                        field.name, other.ty, field.ty, sink.topic.value
                    ),
                    None if must.contains(&field.name) => {
                        let message = format!(
                            "topic `{}` has a field `{}` that is not here, and its Avro schema has \
                             no null there",
                            sink.topic.value, field.name
                        );
                        let advice = "make it with a `map`, or make it a union with null";
                        self.out
                            .error(sink.topic.at, message, Some(advice.to_owned()));
                        continue;
                    }
                    None => format!(
                        "topic `{}` has a field `{}` that is not here: it will be null",
                        sink.topic.value, field.name
                    ),
                };
                self.out.warning(sink.topic.at, message, None);
            }
        }
        let format = self.format_of(&found);
        self.key(sink.key.as_ref())
            .map(|key| Program::Sink { key, format })
    }
}
