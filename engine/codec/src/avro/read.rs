//! Avro datums to columns: same rows in, same rows out, bad ones named and null.
//!
//! Called by [`crate::Format`]. Invariants: the row count is kept; whether a row is good does not
//! depend on the columns asked for; a length is checked against the bytes at hand before it is
//! used, so memory taken is bounded by the input's.
//! Refuses: nothing as a whole; a bad row gives an entry in [`Decoded::errors`].

use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::datatypes::SchemaRef;
use model::schema::FieldType;
use model::schema::avro::{AvroField, AvroRecord, AvroType, Branches, SINGLE_OBJECT_MARK};

use crate::column::{Column, Columns, Decoded};

const MICROS_PER_MILLI: i64 = 1_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// `00` and the number of a schema in Confluent's registry.
const CONFLUENT_HEAD_BYTES: usize = 5;
/// Registries count from 1: a larger number is more likely a part of a datum.
const CONFLUENT_NUMBER_MAX: u32 = 1_000_000;
/// Seven bits a byte are enough for 64.
const VARINT_BYTES_MAX: usize = 10;

/// Reads datums of one schema.
#[derive(Debug, Clone)]
pub(crate) struct AvroDecoder {
    fields: Arc<[AvroField]>,
    types: Arc<[FieldType]>,
    fingerprint: u64,
    /// What a single object of this schema begins with.
    head: [u8; 10],
}

impl AvroDecoder {
    pub(crate) fn new(record: &AvroRecord) -> AvroDecoder {
        let fingerprint = record.fingerprint();
        let mut head = [0; 10];
        head[..2].copy_from_slice(&SINGLE_OBJECT_MARK);
        head[2..].copy_from_slice(&fingerprint.to_le_bytes());
        AvroDecoder {
            types: record.fields.iter().map(|f| f.ty.field_type()).collect(),
            fields: record.fields.as_slice().into(),
            fingerprint,
            head,
        }
    }

    pub(crate) fn read(
        &self,
        values: &BinaryArray,
        wanted: &[usize],
        schema: SchemaRef,
    ) -> Decoded {
        let fields = (&self.types[..], wanted);
        Columns::read(fields, schema, values, |value, row, columns| {
            self.value(value, row, columns)
        })
    }

    fn value(&self, value: &[u8], row: usize, columns: &mut Columns) -> Result<(), String> {
        let datum = value.strip_prefix(&self.head).unwrap_or(value);
        self.datum(datum, Some(columns), row).map_err(|wrong| {
            let (what, at) = (wrong.what, wrong.at + value.len() - datum.len());
            let place = match wrong.field {
                Some(AvroField { name, ty, .. }) => format!("field `{name}` ({ty}): "),
                None => String::new(),
            };
            let hint = self.foreign_head(value).unwrap_or_default();
            format!("not Avro of the topic's schema: {place}{what} at byte {at}{hint}")
        })
    }

    /// Reads all fields, each into its column if there is one.
    fn datum(
        &self,
        datum: &[u8],
        mut columns: Option<&mut Columns>,
        row: usize,
    ) -> Result<(), Wrong<'_>> {
        let mut scan = Scan {
            bytes: datum,
            at: 0,
        };
        for (index, field) in self.fields.iter().enumerate() {
            let begin = scan.at;
            let column = columns.as_deref_mut().and_then(|c| c.get(index));
            if let Err(what) = cell(&mut scan, field, column, row) {
                return Err(Wrong {
                    field: Some(field),
                    what,
                    at: begin,
                });
            }
        }
        match datum.len() - scan.at {
            0 => Ok(()),
            left => Err(Wrong {
                field: None,
                what: format!("the datum ends {left} bytes before the value does,"),
                at: scan.at,
            }),
        }
    }

    /// What a value that could not be read begins with, if it looks like another program's head.
    fn foreign_head(&self, value: &[u8]) -> Option<String> {
        if let Some(rest) = value.strip_prefix(&SINGLE_OBJECT_MARK)
            && let Some(found) = rest.first_chunk()
        {
            let (found, own) = (u64::from_le_bytes(*found), self.fingerprint);
            return (found != own).then(|| {
                format!(
                    "; it begins as a single object of schema {found:016x}, and the topic's is \
                     {own:016x}"
                )
            });
        }
        let (head, datum) = value.split_at_checked(CONFLUENT_HEAD_BYTES)?;
        let [0, number @ ..] = head else { return None };
        let number = number.first_chunk().map(|n| u32::from_be_bytes(*n))?;
        let what = match self.datum(datum, None, 0) {
            Ok(()) => "it begins as Confluent's serializers begin a value",
            Err(_) if !(1..=CONFLUENT_NUMBER_MAX).contains(&number) => return None,
            Err(_) => "it may begin as Confluent's serializers begin a value, of another schema",
        };
        Some(format!(
            "; {what} (00, schema {number}), and datums may begin so too: send values without these \
             {CONFLUENT_HEAD_BYTES} bytes, or to a topic of `raw`, from which a pipeline can cut them off"
        ))
    }
}

/// What is wrong, and where in the datum.
struct Wrong<'a> {
    field: Option<&'a AvroField>,
    what: String,
    at: usize,
}

/// The bytes of one datum, and how far they are read.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..bytes) else {
            return Err(format!(
                "it needs {bytes} bytes and {} are left,",
                rest.len()
            ));
        };
        self.at += bytes;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A variable-length zig-zag number.
    #[inline]
    fn long(&mut self) -> Result<i64, String> {
        let mut number = 0u64;
        for (index, byte) in self.bytes[self.at..]
            .iter()
            .take(VARINT_BYTES_MAX)
            .enumerate()
        {
            if index == VARINT_BYTES_MAX - 1 && *byte > 1 {
                return Err("a number of more than 64 bits".to_owned());
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number that does not end".to_owned())
    }

    fn int(&mut self) -> Result<i32, String> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| format!("{number}, which has more than 32 bits,"))
    }

    /// Bytes with their length before them.
    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(format!("a length of {length}")),
        }
    }

    /// Whether the field is there, by its union.
    fn is_there(&mut self, branches: Branches) -> Result<bool, String> {
        let (there, count) = match branches {
            Branches::None => return Ok(true),
            Branches::One => (0, 1),
            Branches::NullFirst => (1, 2),
            Branches::NullLast => (0, 2),
        };
        match self.long()? {
            index if index == there => Ok(true),
            index if (0..count).contains(&index) => Ok(false),
            index => Err(format!("branch {index} of a union of {count}")),
        }
    }
}

/// Reads a field, and sets it if its column is asked for.
fn cell(
    scan: &mut Scan<'_>,
    field: &AvroField,
    column: Option<&mut Column>,
    row: usize,
) -> Result<(), String> {
    if !scan.is_there(field.branches)? {
        return Ok(());
    }
    match &field.ty {
        AvroType::Null => {}
        AvroType::Boolean => {
            let [byte] = scan.array()?;
            if byte > 1 {
                return Err(format!("{byte}, which is neither 0 nor 1,"));
            }
            column.into_iter().for_each(|c| c.set_bool(row, byte == 1));
        }
        AvroType::Int => set_int(column, row, scan.int()?.into()),
        AvroType::Long | AvroType::TimestampMicros => set_int(column, row, scan.long()?),
        AvroType::TimestampMillis => {
            set_int(column, row, micros(scan.long()?, MICROS_PER_MILLI)?);
        }
        AvroType::Date => set_int(column, row, micros(scan.int()?.into(), MICROS_PER_DAY)?),
        AvroType::Float => {
            let number = f32::from_le_bytes(scan.array()?);
            column
                .into_iter()
                .for_each(|c| c.set_float(row, number.into()));
        }
        AvroType::Double => {
            let number = f64::from_le_bytes(scan.array()?);
            column.into_iter().for_each(|c| c.set_float(row, number));
        }
        AvroType::Bytes => set_bytes(column, row, scan.bytes()?),
        AvroType::Fixed { size, .. } => set_bytes(column, row, scan.take(*size)?),
        AvroType::String => {
            let text = std::str::from_utf8(scan.bytes()?).map_err(|e| {
                format!(
                    "a string that is not UTF-8 from its byte {}",
                    e.valid_up_to()
                )
            })?;
            column.into_iter().for_each(|c| c.set_text(row, text));
        }
        AvroType::Enum { symbols, .. } => {
            let index = scan.int()?;
            let symbol = usize::try_from(index).ok().and_then(|i| symbols.get(i));
            let symbol = symbol.ok_or_else(|| format!("symbol {index} of {}", symbols.len()))?;
            column.into_iter().for_each(|c| c.set_text(row, symbol));
        }
    }
    Ok(())
}

fn micros(number: i64, factor: i64) -> Result<i64, String> {
    let time = number.checked_mul(factor);
    time.ok_or_else(|| format!("{number}, a time beyond what microseconds hold,"))
}

#[inline]
fn set_int(column: Option<&mut Column>, row: usize, number: i64) {
    if let Some(column) = column {
        column.set_int(row, number);
    }
}

fn set_bytes(column: Option<&mut Column>, row: usize, bytes: &[u8]) {
    if let Some(column) = column {
        column.set_bytes(row, bytes);
    }
}
