//! The fields that a module reads and writes as columns, agreed upon in `open`.
//!
//! Called by: `link::columns` (fills it), `guest` (which columns a batch must bring), `outbox` (what
//! an emitted column may be).
//! Invariants: what is selected is in the input's schema, what is declared fits the output's; a
//! value goes from one type into another only without loss, but for integers beyond 2^53 that are
//! taken as floats: see `goes_into`.
//! Refuses: with a failure for the module's author: what was asked for, and what there is.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use model::schema::{Field, FieldType, Schema};

use crate::guest::Edge;

/// What the module said, by input and by output.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    selected: Vec<Vec<Field>>,
    declared: Vec<Option<Arc<Declared>>>,
}

/// The fields that a module sets on one output.
#[derive(Debug)]
pub(crate) struct Declared {
    /// Of the rows as they go on: the output's, or else exactly those declared.
    pub(crate) schema: SchemaRef,
    /// In the module's order.
    pub(crate) fields: Vec<Place>,
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// What the module gives.
    pub(crate) given: FieldType,
    /// What the output wants.
    pub(crate) wanted: FieldType,
    /// Index in the schema.
    pub(crate) at: usize,
}

/// Why fields are refused; becomes the failure that the module gets.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

fn refusal<T>(code: &'static str, message: String) -> Result<T, Refusal> {
    Err(Refusal { code, message })
}

/// Whether values of one type may be taken as another: without loss, but that an integer beyond
/// 2^53 (in either direction) becomes the nearest float.
fn goes_into(from: FieldType, to: FieldType) -> bool {
    from == to
        || matches!(
            (from, to),
            (FieldType::Int64, FieldType::Float64)
                | (FieldType::Timestamp, FieldType::Int64)
                | (FieldType::String, FieldType::Bytes)
        )
}

impl Fields {
    pub(crate) fn new(inputs: usize, outputs: usize) -> Fields {
        Fields {
            selected: vec![Vec::new(); inputs],
            declared: (0..outputs).map(|_| None).collect(),
        }
    }

    pub(crate) fn selected(&self, input: u16) -> &[Field] {
        self.selected
            .get(usize::from(input))
            .map_or(&[], Vec::as_slice)
    }

    pub(crate) fn declared(&self, port: u16) -> Option<&Arc<Declared>> {
        self.declared.get(usize::from(port))?.as_ref()
    }

    pub(crate) fn select(
        &mut self,
        inputs: &[Edge],
        input: u16,
        fields: Vec<Field>,
    ) -> Result<(), Refusal> {
        let at = usize::from(input);
        let Some(edge) = inputs.get(at) else {
            let count = inputs.len();
            return refusal("input", format!("select: input {input} of {count}"));
        };
        let name = &edge.name;
        let Some(schema) = &edge.fields else {
            let message = format!(
                "input `{name}` has no schema, so it has no columns: declare one in the `value` \
                 of its topic, or as `outputs: {{ out: {{ schema: … }} }}` of the node before"
            );
            return refusal("no-schema", message);
        };
        for (i, field) in fields.iter().enumerate() {
            if fields[..i].iter().any(|f| f.name == field.name) {
                let message = format!("field `{}` is selected twice", field.name);
                return refusal("field", message);
            }
            match schema.field(&field.name) {
                Some(have) if goes_into(have.ty, field.ty) => {}
                Some(have) => {
                    let (field, asked, have) = (&field.name, field.ty, have.ty);
                    let message = format!("field `{field}` of `{name}` is {have}, not {asked}");
                    return refusal("field-type", message);
                }
                None => {
                    let message =
                        format!("`{name}` has no field `{}`; it has {schema}", field.name);
                    return refusal("no-field", message);
                }
            }
        }
        self.selected[at] = fields;
        Ok(())
    }

    pub(crate) fn declare(
        &mut self,
        outputs: &[Edge],
        port: u16,
        fields: Vec<Field>,
    ) -> Result<(), Refusal> {
        let at = usize::from(port);
        let Some(edge) = outputs.get(at) else {
            let count = outputs.len();
            return refusal("output", format!("declare: port {port} of {count}"));
        };
        let given = Schema::new(fields);
        let given = given.or_else(|e| refusal("field", format!("output `{}`: {e}", edge.name)))?;
        let schema = edge.fields.as_deref().unwrap_or(&given);
        let places = given.fields.iter().map(|field| place(edge, schema, field));
        let declared = Declared {
            schema: schema.to_arrow(),
            fields: places.collect::<Result<_, _>>()?,
        };
        self.declared[at] = Some(Arc::new(declared));
        Ok(())
    }
}

fn place(edge: &Edge, schema: &Schema, field: &Field) -> Result<Place, Refusal> {
    let (name, output) = (&field.name, &edge.name);
    let found = schema.fields.iter().position(|f| f.name == *name);
    let Some(at) = found else {
        let message = format!("output `{output}` has no field `{name}`; its schema is {schema}");
        return refusal("no-field", message);
    };
    let wanted = schema.fields[at].ty;
    if !goes_into(field.ty, wanted) {
        let given = field.ty;
        let message = format!("field `{name}` of output `{output}` is {wanted}, not {given}");
        return refusal("field-type", message);
    }
    Ok(Place {
        name: name.clone(),
        given: field.ty,
        wanted,
        at,
    })
}
