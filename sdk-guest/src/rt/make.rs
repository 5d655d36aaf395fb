//! How what a module's function returns becomes rows.
//!
//! Which way is decided by its type, when the module is compiled, as in `take`: a struct with
//! `#[derive(rustmq::Row)]` becomes typed columns, all else bytes: JSON, unless it is `Raw`.
//!
//! Called by: code of the attributes, and the loop of `Opened::emit`.
//! Invariants: rows are collected by port, one emit each; what a record does not say is its
//! parent's; a row that cannot be written leaves nothing behind.

use std::marker::PhantomData;

use super::{port_named, straight};
use crate::batch::{Batch, Context, first_rows};
use crate::column::Column;
use crate::outbox::Outbox;
use crate::record::{Failure, Record, Reject};
use crate::row::ToColumns;
use crate::value::{Output, Payload};

/// What a row of a map gave.
pub type Given<O> = Result<Option<O>, Reject>;

/// The type of an output.
pub struct Making<O>(PhantomData<fn() -> O>);

impl<O> Making<O> {
    /// Of a function that is only looked at.
    pub fn of(_: impl FnOnce() -> Result<O, Reject>) -> Making<O> {
        Making(PhantomData)
    }
}

pub trait MakeColumns<O> {
    fn way(&self) -> AsColumns<O>;
}

impl<O: RowOutput> MakeColumns<O> for Making<O> {
    fn way(&self) -> AsColumns<O> {
        AsColumns(PhantomData)
    }
}

pub trait MakeBytes<O> {
    fn way(&self) -> AsBytes<O>;
}

impl<O> MakeBytes<O> for &Making<O> {
    fn way(&self) -> AsBytes<O> {
        AsBytes(PhantomData)
    }
}

/// A row to be, as typed columns: a struct alone, or in a [`Record`].
pub trait RowOutput {
    type Value: ToColumns;
    /// Whether it says nothing but its value.
    const IS_PLAIN: bool;
    fn into_record(self) -> Record<Self::Value>;
}

impl<T: ToColumns> RowOutput for T {
    type Value = T;
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn into_record(self) -> Record<T> {
        Record::new(self)
    }
}

impl<T: ToColumns> RowOutput for Record<T> {
    type Value = T;
    const IS_PLAIN: bool = false;

    #[inline(always)]
    fn into_record(self) -> Record<T> {
        self
    }
}

/// One way of making rows.
pub trait Way {
    type Output;
    type Value;
    /// The values of a port's rows so far.
    type Values;

    fn declare(context: &Context, port: u16) -> Result<(), Failure>;
    fn values(rows: usize, bytes: usize) -> Self::Values;
    fn record(output: Self::Output) -> Record<Self::Value>;
    fn write(value: Self::Value, values: &mut Self::Values) -> Result<(), Reject>;
    fn emit(port: u16, made: &Made<Self::Values>, rows: &Batch, out: &mut Outbox);
    /// Bytes of the batch's values, where they say how much room is needed.
    fn bytes(rows: &Batch) -> usize;

    /// Whether `straight` is its loop of `map`.
    const IS_PLAIN: bool = false;

    /// The loop of `map` for rows that all go to the first output and say nothing of their own.
    fn straight(
        _rows: usize,
        _: &mut Outbox,
        _whole: Option<impl FnMut(usize) -> Given<Self::Output>>,
        _each: impl FnMut(usize) -> Given<Self::Output>,
    ) {
        unreachable!("its rows may say more than their value");
    }
}

/// No `whole` of [`super::Opened::map`].
pub fn not_sure<O>(_: &impl Way<Output = O>) -> Option<fn(usize) -> Given<O>> {
    None
}

/// As bytes: JSON, or raw.
pub struct AsBytes<O>(PhantomData<fn() -> O>);

impl<O: Output> Way for AsBytes<O> {
    type Output = O;
    type Value = O::Value;
    type Values = Column;

    fn declare(_: &Context, _: u16) -> Result<(), Failure> {
        Ok(())
    }

    fn values(rows: usize, bytes: usize) -> Column {
        Column::with_capacity(rows, bytes)
    }

    #[inline(always)]
    fn record(output: O) -> Record<O::Value> {
        output.into_record()
    }

    #[inline(always)]
    fn write(value: O::Value, values: &mut Column) -> Result<(), Reject> {
        value.write_to(values)
    }

    fn emit(port: u16, made: &Made<Column>, rows: &Batch, out: &mut Outbox) {
        let gathered;
        let keys = match &made.keys {
            Some(keys) => keys,
            None if made.parents.is_whole(rows) => rows.keys(),
            None => {
                gathered = gather(rows.keys(), &made.parents.to_vec());
                &gathered
            }
        };
        out.emit(port, &made.parents.to_vec(), keys, &made.values);
    }

    fn bytes(rows: &Batch) -> usize {
        rows.values().bytes().len()
    }
}

/// As typed columns.
pub struct AsColumns<O>(PhantomData<fn() -> O>);

impl<O: RowOutput> Way for AsColumns<O> {
    type Output = O;
    type Value = O::Value;
    type Values = <O::Value as ToColumns>::Columns;

    fn declare(context: &Context, port: u16) -> Result<(), Failure> {
        context.declare(port, O::Value::FIELDS)
    }

    fn values(rows: usize, _: usize) -> Self::Values {
        O::Value::columns(rows)
    }

    #[inline(always)]
    fn record(output: O) -> Record<O::Value> {
        output.into_record()
    }

    #[inline(always)]
    fn write(value: O::Value, values: &mut Self::Values) -> Result<(), Reject> {
        value.write(values);
        Ok(())
    }

    fn emit(port: u16, made: &Made<Self::Values>, rows: &Batch, out: &mut Outbox) {
        match &made.parents {
            parents if parents.is_whole(rows) => out.emit_columns(port, None),
            parents => out.emit_columns(port, Some(&parents.to_vec())),
        }
        O::Value::set(&made.values, out);
        if let Some(keys) = &made.keys {
            out.set_keys(keys);
        }
    }

    fn bytes(_: &Batch) -> usize {
        0
    }

    const IS_PLAIN: bool = O::IS_PLAIN;

    #[inline(always)]
    fn straight(
        rows: usize,
        out: &mut Outbox,
        whole: Option<impl FnMut(usize) -> Given<O>>,
        each: impl FnMut(usize) -> Given<O>,
    ) {
        straight::map(rows, out, whole, each);
    }
}

/// The input rows that outputs came from; while each row gives one in order, only their number.
#[derive(Debug)]
enum Parents {
    Each(u32),
    Listed(Vec<u32>),
}

impl Parents {
    #[inline(always)]
    fn push(&mut self, row: u32) {
        match self {
            Parents::Each(count) if *count == row => *count += 1,
            Parents::Each(count) => {
                let mut list = first_rows(*count as usize, *count as usize + 1);
                list.push(row);
                *self = Parents::Listed(list);
            }
            Parents::Listed(list) => list.push(row),
        }
    }

    fn len(&self) -> usize {
        match self {
            Parents::Each(count) => *count as usize,
            Parents::Listed(list) => list.len(),
        }
    }

    fn is_whole(&self, rows: &Batch) -> bool {
        matches!(self, Parents::Each(count) if *count as usize == rows.len())
    }

    fn to_vec(&self) -> Vec<u32> {
        match self {
            Parents::Each(count) => first_rows(*count as usize, 0),
            Parents::Listed(list) => list.clone(),
        }
    }
}

/// What was made for one port so far.
pub struct Made<V> {
    parents: Parents,
    values: V,
    /// `None` while every row has its parent's.
    keys: Option<Column>,
    event_times: Option<Vec<i64>>,
    headers: Vec<(String, Column)>,
}

/// Output rows, collected by port, one emit each.
pub(super) struct Emitter<'a, W: Way> {
    rows: &'a Batch,
    names: &'a [String],
    closed: &'a [Option<Failure>],
    ports: Vec<Made<W::Values>>,
}

/// One input row's way to the emitter.
pub struct Place<'e, 'a, W: Way> {
    emitter: &'e mut Emitter<'a, W>,
    row: u32,
}

impl<W: Way> Place<'_, '_, W> {
    #[inline(always)]
    pub fn put(&mut self, output: W::Output) -> Result<(), Reject> {
        self.emitter.put(self.row, W::record(output))
    }
}

impl<'a, W: Way> Emitter<'a, W> {
    pub(super) fn new(
        rows: &'a Batch,
        names: &'a [String],
        closed: &'a [Option<Failure>],
    ) -> Emitter<'a, W> {
        let made = |number: usize| Made {
            parents: Parents::Each(0),
            // room for what a map makes of the batch, on the port that nearly all of it goes to
            values: match number {
                0 => W::values(rows.len(), W::bytes(rows)),
                _ => W::values(0, 0),
            },
            keys: None,
            event_times: None,
            headers: Vec::new(),
        };
        Emitter {
            rows,
            names,
            closed,
            ports: (0..names.len()).map(made).collect(),
        }
    }

    pub(super) fn place(&mut self, row: u32) -> Place<'_, 'a, W> {
        Place { emitter: self, row }
    }

    #[inline(always)]
    fn put(&mut self, row: u32, record: Record<W::Value>) -> Result<(), Reject> {
        let port = match &record.port {
            None => 0,
            Some(name) => self.open_port(name)?,
        };
        let made = &mut self.ports[port];
        let plain =
            record.key.is_none() && record.event_time.is_none() && record.headers.is_empty();
        let untouched = made.keys.is_none() && made.event_times.is_none();
        if plain && untouched {
            W::write(record.value, &mut made.values)?;
            made.parents.push(row);
            return Ok(());
        }
        made.put(row, record, self.rows, W::write)
    }

    fn open_port(&self, name: &str) -> Result<usize, Reject> {
        let port = port_named(self.names, name)?;
        match &self.closed[port] {
            None => Ok(port),
            Some(failure) => Err(Reject::new("port", &failure.message)),
        }
    }

    pub(super) fn flush(self, out: &mut Outbox) {
        for (number, made) in self.ports.into_iter().enumerate() {
            let rows = made.parents.len();
            if rows == 0 {
                continue;
            }
            W::emit(number as u16, &made, self.rows, out);
            if let Some(times) = &made.event_times {
                out.set_event_times(times);
            }
            for (name, mut column) in made.headers {
                fill(&mut column, rows);
                out.set_header(&name, &column);
            }
        }
    }
}

impl<V> Made<V> {
    /// A row that has something of its own, or comes after one that had.
    fn put<T>(
        &mut self,
        row: u32,
        record: Record<T>,
        rows: &Batch,
        write: impl FnOnce(T, &mut V) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        write(record.value, &mut self.values)?;
        let before = self.parents.len();
        let parents = &self.parents;
        if self.keys.is_some() || record.key.is_some() {
            let keys = self
                .keys
                .get_or_insert_with(|| gather(rows.keys(), &parents.to_vec()));
            match &record.key {
                Some(key) => keys.push(key.as_deref()),
                None => keys.push(rows.keys().get(row as usize)),
            }
        }
        if self.event_times.is_some() || record.event_time.is_some() {
            let inherited = rows.event_times();
            let times = self.event_times.get_or_insert_with(|| {
                let parents = parents.to_vec();
                parents.iter().map(|row| inherited[*row as usize]).collect()
            });
            times.push(record.event_time.unwrap_or(inherited[row as usize]));
        }
        self.parents.push(row);
        for (name, value) in &record.headers {
            let place = match self.headers.iter().position(|(known, _)| known == name) {
                Some(place) => place,
                None => {
                    self.headers.push((name.clone(), Column::new()));
                    self.headers.len() - 1
                }
            };
            let column = &mut self.headers[place].1;
            // a name set twice in one record: the first stands
            if column.len() <= before {
                fill(column, before);
                column.push(Some(value));
            }
        }
        Ok(())
    }
}

fn gather(column: &Column, rows: &[u32]) -> Column {
    let mut taken = Column::with_capacity(rows.len(), 0);
    for row in rows {
        taken.push(column.get(*row as usize));
    }
    taken
}

fn fill(column: &mut Column, rows: usize) {
    while column.len() < rows {
        column.push(None);
    }
}
