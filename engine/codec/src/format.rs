//! What the values of a topic are: a codec and a schema, as one thing that reads and writes, and
//! what the topic says of values that do not fit.
//!
//! Called by pipelines (typed edges, sinks), wasm (values that a guest asks for while only
//! columns hold them), storage (typed columns of the tier) and sql (hot rows). One per edge, cheap
//! to clone, shared between threads.
//! Invariants: what `encode` writes, `decode` reads back to the same columns (floats are finite, see
//! [`finite`]; Avro has types that are coarser than their column); decoding keeps the row count,
//! and whether a row is good does not depend on the columns asked for. A row that is not good is null in
//! all columns: what the topic says of misfits does not change what is decoded, only what its reader
//! does about the errors.
//! Refuses: raw values, which have no columns.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, Float64Array};
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use model::rows::Rows;
use model::schema::Schema;
use model::topic::{Misfits, PayloadCodec, TopicSpec};

use crate::avro::{AvroDecoder, AvroEncoder};
use crate::column::Decoded;
use crate::csv::{CsvDecoder, encode_csv};
use crate::json::{EncodeError, JsonDecoder, encode_json};

/// Reads and writes the values of one codec and schema. Equal are those that also say the same of
/// misfits; see [`Format::writes_like`].
#[derive(Debug, Clone)]
pub struct Format {
    codec: PayloadCodec,
    schema: Arc<Schema>,
    arrow: SchemaRef,
    misfits: Misfits,
    inner: Inner,
}

impl PartialEq for Format {
    fn eq(&self, other: &Format) -> bool {
        self.misfits == other.misfits && self.writes_like(other)
    }
}

#[derive(Debug, Clone)]
enum Inner {
    Json(JsonDecoder),
    Csv(CsvDecoder),
    Avro(AvroDecoder, AvroEncoder),
}

/// Values of all rows, and which rows do not fit the schema they are written by.
#[derive(Debug, Clone)]
pub struct Written {
    /// As many as there were rows; empty where the row is in `errors`.
    pub values: BinaryArray,
    /// In row order, at most one a row.
    pub errors: Vec<(u32, String)>,
}

/// Some of a format's columns, in a chosen order.
#[derive(Debug, Clone)]
pub struct Projection {
    indices: Arc<[usize]>,
    schema: SchemaRef,
}

impl Projection {
    /// The Arrow schema of what is decoded; the same object for every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Format {
    /// `None` where values of the codec have no columns, and where the schema has none in it.
    pub fn new(codec: PayloadCodec, schema: Arc<Schema>) -> Option<Format> {
        let inner = match codec {
            // at the edges rows of columns are JSON
            PayloadCodec::Json | PayloadCodec::Columns => Inner::Json(JsonDecoder::new(&schema)),
            PayloadCodec::Csv => Inner::Csv(CsvDecoder::new(&schema)),
            PayloadCodec::Avro => {
                let record = schema.to_avro().ok()?;
                Inner::Avro(AvroDecoder::new(&record), AvroEncoder::new(&record))
            }
            PayloadCodec::Raw => return None,
        };
        Some(Format {
            codec,
            arrow: schema.to_arrow(),
            schema,
            misfits: Misfits::default(),
            inner,
        })
    }

    /// Of a topic's values.
    pub fn of(topic: &TopicSpec) -> Option<Format> {
        let schema = topic.schema.clone()?;
        Format::new(topic.codec, Arc::new(schema)).map(|format| format.with_misfits(topic.misfits))
    }

    pub fn with_misfits(self, misfits: Misfits) -> Format {
        Format { misfits, ..self }
    }

    /// What a reader does about values that do not fit.
    pub fn misfits(&self) -> Misfits {
        self.misfits
    }

    /// Whether values and columns of one are those of the other.
    pub fn writes_like(&self, other: &Format) -> bool {
        self.codec == other.codec
            && (Arc::ptr_eq(&self.schema, &other.schema) || self.schema == other.schema)
    }

    pub fn codec(&self) -> PayloadCodec {
        self.codec
    }

    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Of all columns; the same object each time.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The columns that `wanted` says yes to, in the schema's order.
    pub fn project(&self, mut wanted: impl FnMut(&str) -> bool) -> Projection {
        let fields = self.schema.fields.iter().enumerate();
        let indices: Arc<[usize]> = fields
            .filter(|(_, field)| wanted(&field.name))
            .map(|(i, _)| i)
            .collect();
        let fields = indices.iter().map(|i| self.arrow.fields()[*i].clone());
        let fields: Vec<_> = fields.collect();
        let schema = Arc::new(ArrowSchema::new(fields));
        Projection { indices, schema }
    }

    /// The columns with these numbers, in this order; `None` if the schema does not have one.
    pub fn columns(&self, indices: &[usize]) -> Option<Projection> {
        let schema = Arc::new(self.arrow.project(indices).ok()?);
        let indices = indices.into();
        Some(Projection { indices, schema })
    }

    /// All columns.
    pub fn all(&self) -> Projection {
        Projection {
            indices: (0..self.schema.fields.len()).collect(),
            schema: self.arrow.clone(),
        }
    }

    /// Decodes columns of this format's own projection.
    pub fn decode(&self, values: &BinaryArray, columns: &Projection) -> Decoded {
        match &self.inner {
            Inner::Json(json) => json.read(values, &columns.indices, columns.schema.clone()),
            Inner::Csv(csv) => csv.read(values, &columns.indices, columns.schema.clone()),
            Inner::Avro(avro, _) => avro.read(values, &columns.indices, columns.schema.clone()),
        }
    }

    /// Whether rows of the right columns may still not be writable: an Avro field without null,
    /// say.
    pub fn may_refuse(&self) -> bool {
        matches!(self.inner, Inner::Avro(..))
    }

    /// Whether a value of one schema is read by another: JSON names its fields, and the other
    /// codecs do not.
    pub fn names_fields(&self) -> bool {
        self.codec == PayloadCodec::Json
    }

    /// Whether values are columns at rest too, and JSON only where bytes are asked for.
    pub fn keeps_columns(&self) -> bool {
        self.codec == PayloadCodec::Columns
    }

    /// The values of rows that only columns hold. Where a topic keeps columns, `before` says which
    /// rows have a value; elsewhere it means nothing.
    ///
    /// # Errors
    /// As [`Format::encode`].
    pub fn values(
        &self,
        columns: &RecordBatch,
        before: &BinaryArray,
    ) -> Result<BinaryArray, EncodeError> {
        let values = self.encode(columns)?;
        if !self.keeps_columns() || before.null_count() == 0 {
            return Ok(values);
        }
        let value = |row: usize| before.is_valid(row).then(|| values.value(row));
        Ok((0..values.len()).map(value).collect())
    }

    /// The columns of rows that a topic keeps as columns; those of rows that have none are read
    /// from their bytes, which are JSON, and the rows that do not fit are named.
    ///
    /// # Errors
    /// Columns of another schema.
    pub fn columns_of(&self, rows: &Rows) -> Result<Decoded, ArrowError> {
        let Some(columns) = &rows.columns else {
            return Ok(self.decode(&rows.values, &self.all()));
        };
        let columns = RecordBatch::try_new(self.arrow.clone(), columns.arrays().to_vec())?;
        Ok(Decoded {
            columns,
            errors: Vec::new(),
        })
    }

    /// Writes each row that can be; `columns` has the fields of the schema, in its order.
    ///
    /// # Errors
    /// More bytes than one array can hold.
    pub fn write(&self, columns: &RecordBatch) -> Result<Written, EncodeError> {
        let values = match &self.inner {
            Inner::Json(_) => encode_json(columns)?,
            Inner::Csv(_) => encode_csv(columns)?,
            Inner::Avro(_, avro) => return avro.write(columns),
        };
        Ok(Written {
            values,
            errors: Vec::new(),
        })
    }

    /// Writes each row; `columns` has the fields of the schema, in its order.
    ///
    /// # Errors
    /// More bytes than one array can hold; a row that cannot be written.
    pub fn encode(&self, columns: &RecordBatch) -> Result<BinaryArray, EncodeError> {
        let written = self.write(columns)?;
        match written.errors.into_iter().next() {
            None => Ok(written.values),
            Some((row, message)) => Err(EncodeError::Row { row, message }),
        }
    }
}

/// Floats with null for what is infinite or no number, which JSON cannot say: so columns that are
/// never written are the same as those that are.
pub fn finite(floats: Float64Array) -> Float64Array {
    match all_finite(floats.values().iter().map(|n| n.to_bits())) {
        true => floats,
        false => floats.iter().map(|v| v.filter(|v| v.is_finite())).collect(),
    }
}

/// Whether floats, of which these are the bits, are all finite. Without an early end and without
/// comparisons, so that the processor looks at several at once: the exponent of what is not finite is
/// the largest, and one more reaches the bit of the sign.
#[inline]
pub fn all_finite(bits: impl Iterator<Item = u64>) -> bool {
    const SIGN: u64 = 1 << 63;
    const EXPONENT: u64 = 1 << (f64::MANTISSA_DIGITS - 1);
    bits.fold(0, |all, bits| all | ((bits & !SIGN) + EXPONENT)) & SIGN == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_that_are_not_finite_are_null() {
        let floats = [Some(1.0), None, Some(f64::NAN), Some(f64::NEG_INFINITY)];
        let floats = finite(Float64Array::from_iter(floats));
        let expected = Float64Array::from_iter([Some(1.0), None, None, None]);
        assert_eq!(floats, expected);
        assert_eq!(finite(floats), expected);
        let finite = [f64::MAX, f64::MIN, -0.0, f64::MIN_POSITIVE, 5e-324, -1.5];
        assert!(all_finite(finite.iter().map(|n| n.to_bits())));
        for wrong in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let among = [1.0, wrong, 2.0];
            assert!(!all_finite(among.iter().map(|n| n.to_bits())), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let schema =
            Schema::from_json(&serde_json::json!({"s": "string", "i": "int", "b": "bool"}));
        let schema = Arc::new(schema.expect("it is a schema"));
        let format = Format::new(PayloadCodec::Json, schema).expect("json has columns");
        let text = br#"{"s":"a","i":1,"b":true}"#.as_slice();
        let values = BinaryArray::from_vec(vec![text]);
        let all = format.decode(&values, &format.project(|_| true));
        assert_eq!(format.encode(&all.columns).expect("it is small"), values);
        let some = format.project(|name| name != "i");
        let decoded = format.decode(&values, &some);
        assert!(Arc::ptr_eq(decoded.columns.schema_ref(), some.schema()));
        assert_eq!(decoded.columns.num_columns(), 2);
    }
}
