//! The host's side of `wit/columns.wit`: rows as typed columns, in and out.
//!
//! Called by: `link`. Invariants: those of `link`; a column is of the type that the module said in
//! `open`, and of as many rows as the emit it belongs to.
//! Refuses: columns that were not selected or declared, getters and setters of another type.

use std::fmt::{self, Display, Formatter};

use arrow::array::cast::AsArray;
use model::schema::{Field, FieldType, Schema};
use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, WasmList};

use super::{
    BatchHandle, ContextHandle, Cx, OutboxHandle, State, This, opening, outbox as outbox_of,
    selected,
};
use crate::column::{ColumnIn, ColumnOut, GuestColumn};
use crate::error::bad;
use crate::fields::Refusal;
use crate::guest::{Edge, Failure};
use crate::number::{
    BoolsIn, BoolsOut, FloatsIn, FloatsOut, GuestNumbers, IntsIn, IntsOut, Width, take,
};

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Kind {
    #[component(name = "bool")]
    Bool,
    #[component(name = "int64")]
    Int64,
    #[component(name = "float64")]
    Float64,
    #[component(name = "string")]
    String,
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "timestamp")]
    Timestamp,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct NamedKind {
    name: String,
    kind: Kind,
}

impl From<&Field> for NamedKind {
    fn from(field: &Field) -> NamedKind {
        let kind = match field.ty {
            FieldType::Bool => Kind::Bool,
            FieldType::Int64 => Kind::Int64,
            FieldType::Float64 => Kind::Float64,
            FieldType::String => Kind::String,
            FieldType::Bytes => Kind::Bytes,
            FieldType::Timestamp => Kind::Timestamp,
        };
        let name = field.name.clone();
        NamedKind { name, kind }
    }
}

impl From<NamedKind> for Field {
    fn from(NamedKind { name, kind }: NamedKind) -> Field {
        let ty = match kind {
            Kind::Bool => FieldType::Bool,
            Kind::Int64 => FieldType::Int64,
            Kind::Float64 => FieldType::Float64,
            Kind::String => FieldType::String,
            Kind::Bytes => FieldType::Bytes,
            Kind::Timestamp => FieldType::Timestamp,
        };
        Field { name, ty }
    }
}

fn listed(edges: &[Edge], at: u16, what: &str) -> Result<Vec<NamedKind>> {
    let Some(edge) = edges.get(usize::from(at)) else {
        return bad(format!("{what}: {at} of {}", edges.len()));
    };
    let fields = |schema: &Schema| schema.fields.iter().map(NamedKind::from).collect();
    Ok(edge.fields.as_deref().map_or_else(Vec::new, fields))
}

type FieldArgs = (This<ContextHandle>, u16, Vec<NamedKind>);

pub(super) fn open(columns: &mut LinkerInstance<'_, State>) -> Result<()> {
    columns.func_wrap(
        "input-fields",
        |cx: Cx<'_>, (_, input): (This<ContextHandle>, u16)| {
            Ok((listed(&opening(&cx)?.inputs, input, "input-fields")?,))
        },
    )?;
    columns.func_wrap(
        "output-fields",
        |cx: Cx<'_>, (_, port): (This<ContextHandle>, u16)| {
            Ok((listed(&opening(&cx)?.outputs, port, "output-fields")?,))
        },
    )?;
    columns.func_wrap("select", |mut cx: Cx<'_>, (_, input, fields): FieldArgs| {
        opening(&cx)?;
        let State {
            fields: known,
            context,
            ..
        } = cx.data_mut();
        let fields = fields.into_iter().map(Field::from).collect();
        Ok((answer(known.select(&context.inputs, input, fields)),))
    })?;
    columns.func_wrap("declare", |mut cx: Cx<'_>, (_, port, fields): FieldArgs| {
        opening(&cx)?;
        let State {
            fields: known,
            context,
            ..
        } = cx.data_mut();
        let fields = fields.into_iter().map(Field::from).collect();
        Ok((answer(known.declare(&context.outputs, port, fields)),))
    })
}

fn answer(result: Result<(), Refusal>) -> Result<(), Failure> {
    result.map_err(|Refusal { code, message }| Failure {
        code: code.into(),
        message,
    })
}

type ColumnArgs = (This<BatchHandle>, u16);

pub(super) fn batch(columns: &mut LinkerInstance<'_, State>) -> Result<()> {
    columns.func_wrap("get-bools", |cx: Cx<'_>, (_, column): ColumnArgs| {
        let (array, field) = selected(&cx, "get-bools", column)?;
        match array.as_boolean_opt() {
            Some(bools) => Ok((BoolsOut::new(bools),)),
            None => other("get-bools", field),
        }
    })?;
    columns.func_wrap("get-ints", |cx: Cx<'_>, (_, column): ColumnArgs| {
        Ok((ints(&cx, column)?,))
    })?;
    columns.func_wrap("get-floats", |cx: Cx<'_>, (_, column): ColumnArgs| {
        Ok((floats(&cx, column)?,))
    })?;
    columns.func_wrap("get-bytes", |cx: Cx<'_>, (_, column): ColumnArgs| {
        Ok((bytes(&cx, column)?,))
    })
}

fn other<T>(call: &str, field: &Field) -> Result<T> {
    bad(format!(
        "{call}: field `{}` was selected as {}",
        field.name, field.ty
    ))
}

pub(super) fn ints(cx: &Cx<'_>, column: u16) -> Result<IntsOut> {
    let (array, field) = selected(cx, "get-ints", column)?;
    match field.ty {
        FieldType::Int64 | FieldType::Timestamp => IntsOut::new(array),
        _ => None,
    }
    .map_or_else(|| other("get-ints", field), Ok)
}

pub(super) fn floats(cx: &Cx<'_>, column: u16) -> Result<FloatsOut> {
    let (array, field) = selected(cx, "get-floats", column)?;
    match field.ty {
        FieldType::Float64 => FloatsOut::new(array),
        _ => None,
    }
    .map_or_else(|| other("get-floats", field), Ok)
}

pub(super) fn bytes(cx: &Cx<'_>, column: u16) -> Result<ColumnOut> {
    let (array, field) = selected(cx, "get-bytes", column)?;
    if let Some(text) = array.as_string_opt::<i32>() {
        return Ok(ColumnOut::new(text));
    }
    match array.as_binary_opt::<i32>() {
        Some(bytes) => Ok(ColumnOut::new(bytes)),
        None => other("get-bytes", field),
    }
}

type EmitArgs = (This<OutboxHandle>, u16, Option<WasmList<u32>>);

pub(super) fn outbox(columns: &mut LinkerInstance<'_, State>) -> Result<()> {
    columns.func_wrap("emit", |mut cx: Cx<'_>, (_, port, parents): EmitArgs| {
        let parents = match parents {
            None => None,
            Some(parents) => {
                outbox_of(&mut cx)?.charge(parents.len() * 4)?;
                let out = &cx.data().outbox;
                Some(out.rows("columns emit", parents.as_le_slice(&cx))?)
            }
        };
        emit(&mut cx, port, parents)
    })?;
    columns.func_wrap(
        "set-keys",
        |mut cx: Cx<'_>, (_, keys): (This<OutboxHandle>, ColumnIn)| set_keys(&mut cx, &keys),
    )?;
    columns.func_wrap(
        "set-bools",
        |mut cx: Cx<'_>, (_, column, values): (This<OutboxHandle>, u16, BoolsIn)| {
            set_numbers(&mut cx, Setter::Bools, column, &values)
        },
    )?;
    columns.func_wrap(
        "set-ints",
        |mut cx: Cx<'_>, (_, column, values): (This<OutboxHandle>, u16, IntsIn)| {
            set_numbers(&mut cx, Setter::Ints, column, &values)
        },
    )?;
    columns.func_wrap(
        "set-floats",
        |mut cx: Cx<'_>, (_, column, values): (This<OutboxHandle>, u16, FloatsIn)| {
            set_numbers(&mut cx, Setter::Floats, column, &values)
        },
    )?;
    columns.func_wrap(
        "set-bytes",
        |mut cx: Cx<'_>, (_, column, values): (This<OutboxHandle>, u16, ColumnIn)| {
            set_bytes(&mut cx, column, &values)
        },
    )
}

/// Begins rows whose columns the calls after it set.
pub(super) fn emit(cx: &mut Cx<'_>, port: u16, parents: Option<Vec<u32>>) -> Result<()> {
    let out = outbox_of(cx)?;
    out.charge(0)?;
    out.port("columns emit", port)?;
    let state = cx.data_mut();
    let Some(declared) = state.fields.declared(port).cloned() else {
        return bad(format!(
            "columns emit: no fields were declared for port {port} in `open`"
        ));
    };
    state.outbox.begin_columns(port, parents, declared)
}

pub(super) fn set_keys(cx: &mut Cx<'_>, keys: &impl GuestColumn) -> Result<()> {
    outbox_of(cx)?.charge(keys.bytes())?;
    let rows = cx.data().outbox.columns_rows("set-keys")?;
    let keys = keys.take(cx, "set-keys", rows)?;
    outbox_of(cx)?.set_keys(keys);
    Ok(())
}

/// Which setter of numbers a module called.
#[derive(Clone, Copy)]
pub(super) enum Setter {
    Bools,
    Ints,
    Floats,
}

impl Setter {
    fn name(self) -> &'static str {
        match self {
            Setter::Bools => "set-bools",
            Setter::Ints => "set-ints",
            Setter::Floats => "set-floats",
        }
    }

    /// What it makes of a field declared so, if it is the one for it.
    fn width(self, given: FieldType) -> Option<Width> {
        match (self, given) {
            (Setter::Bools, FieldType::Bool) => Some(Width::Bool),
            (Setter::Ints, FieldType::Int64) => Some(Width::Int),
            (Setter::Ints, FieldType::Timestamp) => Some(Width::Time),
            (Setter::Floats, FieldType::Float64) => Some(Width::Float),
            _ => None,
        }
    }
}

pub(super) fn set_numbers(
    cx: &mut Cx<'_>,
    setter: Setter,
    column: u16,
    values: &impl GuestNumbers,
) -> Result<()> {
    outbox_of(cx)?.charge(values.bytes())?;
    let (place, rows) = cx.data().outbox.column(setter.name(), column)?;
    let what = What(setter.name(), &place.name);
    let Some(width) = setter.width(place.given) else {
        return bad(format!("{what} was declared as {}", place.given));
    };
    let array = take(values, cx, what, width, rows)?;
    outbox_of(cx)?.set_column(column, array)
}

pub(super) fn set_bytes(cx: &mut Cx<'_>, column: u16, values: &impl GuestColumn) -> Result<()> {
    outbox_of(cx)?.charge(values.bytes())?;
    let (place, rows) = cx.data().outbox.column("set-bytes", column)?;
    let what = What("set-bytes", &place.name);
    let array = match place.given {
        FieldType::String => values.take_text(cx, what, rows)?,
        FieldType::Bytes => std::sync::Arc::new(values.take(cx, what, rows)?),
        given => return bad(format!("{what} was declared as {given}")),
    };
    outbox_of(cx)?.set_column(column, array)
}

/// A call and the field it sets, put into words only where something is wrong.
#[derive(Clone, Copy)]
struct What<'a>(&'a str, &'a str);

impl Display for What<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: field `{}`", self.0, self.1)
    }
}
