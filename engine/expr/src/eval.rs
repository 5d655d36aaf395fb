//! Evaluation on a batch.
//!
//! Called by pipelines for every batch, on a worker thread.
//! Invariants: the result has as many entries as the batch has rows; a batch may have more
//! columns than the expression uses, in any order.
//! Refuses: a missing column, or one of another type.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, BooleanArray, new_empty_array, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::DataFusionError;

use crate::compile::Expr;
use crate::error::{EvalError, ExprError, plain_message};

impl Expr {
    /// One value a row.
    ///
    /// # Errors
    /// [`EvalError::Failed`] when a row makes the expression fail; [`Expr::eval_each`] finds it.
    pub fn eval(&self, batch: &RecordBatch) -> Result<ArrayRef, EvalError> {
        let batch = self.narrow(batch)?;
        self.run(&batch)
    }

    /// Like [`Expr::eval`], but a row that fails is null and named, with the reason.
    ///
    /// # Errors
    /// Only [`EvalError::Column`].
    pub fn eval_each(
        &self,
        batch: &RecordBatch,
    ) -> Result<(ArrayRef, Vec<(u32, String)>), EvalError> {
        let batch = self.narrow(batch)?;
        let mut parts = Vec::new();
        let mut errors = Vec::new();
        self.halve(&batch, 0, &mut parts, &mut errors);
        if parts.len() == 1 {
            return Ok((parts.remove(0), errors));
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let all = match parts.is_empty() {
            true => new_empty_array(&self.data_type),
            false => concat(&parts).map_err(|e| self.failed(&e.into()))?,
        };
        Ok((all, errors))
    }

    /// Splits a failing batch in two until the rows that fail stand alone.
    fn halve(
        &self,
        batch: &RecordBatch,
        first: u32,
        parts: &mut Vec<ArrayRef>,
        errors: &mut Vec<(u32, String)>,
    ) {
        match self.run(batch) {
            Ok(values) => parts.push(values),
            Err(_) if batch.num_rows() > 1 => {
                let half = batch.num_rows() / 2;
                self.halve(&batch.slice(0, half), first, parts, errors);
                let rest = batch.slice(half, batch.num_rows() - half);
                self.halve(&rest, first + half as u32, parts, errors);
            }
            Err(error) => {
                parts.push(new_null_array(&self.data_type, batch.num_rows()));
                errors.push((first, error.to_string()));
            }
        }
    }

    fn run(&self, batch: &RecordBatch) -> Result<ArrayRef, EvalError> {
        let value = self.physical.evaluate(batch).map_err(|e| self.failed(&e))?;
        value
            .into_array(batch.num_rows())
            .map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &DataFusionError) -> EvalError {
        EvalError::Failed {
            expr: self.text.to_string(),
            message: plain_message(error),
        }
    }

    /// The batch with just the columns used, in the order the physical expression expects.
    fn narrow(&self, batch: &RecordBatch) -> Result<RecordBatch, EvalError> {
        let mut columns = Vec::with_capacity(self.input.fields().len());
        let mut fields = Vec::with_capacity(self.input.fields().len());
        for field in self.input.fields() {
            let column = batch.column_by_name(field.name());
            let Some(column) = column.filter(|c| c.data_type() == field.data_type()) else {
                return Err(EvalError::Column {
                    expr: self.text.to_string(),
                    column: field.name().clone(),
                    expected: field.data_type().to_string(),
                    found: column.map_or("none".to_string(), |c| c.data_type().to_string()),
                });
            };
            fields.push(field.as_ref().clone().with_nullable(true));
            columns.push(column.clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
                .expect("columns of one batch, each of its field's type"),
        )
    }
}

/// An expression that decides: null counts as false.
#[derive(Debug, Clone)]
pub struct Predicate {
    expr: Expr,
}

impl Predicate {
    /// Compiles an expression whose type is boolean.
    ///
    /// # Errors
    /// As [`Expr::compile`], and another type than boolean.
    pub fn compile(text: &str, schema: &Schema) -> Result<Predicate, ExprError> {
        let expr = Expr::compile(text, schema)?;
        match expr.data_type() {
            DataType::Boolean | DataType::Null => Ok(Predicate { expr }),
            other => Err(ExprError {
                message: format!(
                    "a condition must be true or false, this gives {other}: compare it with something"
                ),
                offset: Some(0),
            }),
        }
    }

    /// The expression inside.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// True where the row is wanted; no nulls.
    ///
    /// # Errors
    /// As [`Expr::eval`].
    pub fn eval(&self, batch: &RecordBatch) -> Result<BooleanArray, EvalError> {
        Ok(decided(&self.expr.eval(batch)?))
    }

    /// As [`Predicate::eval`], but a row that fails is false and named.
    ///
    /// # Errors
    /// Only [`EvalError::Column`].
    pub fn eval_each(
        &self,
        batch: &RecordBatch,
    ) -> Result<(BooleanArray, Vec<(u32, String)>), EvalError> {
        let (values, errors) = self.expr.eval_each(batch)?;
        Ok((decided(&values), errors))
    }
}

fn decided(values: &ArrayRef) -> BooleanArray {
    let Some(values) = values.as_boolean_opt() else {
        return BooleanArray::from(vec![false; values.len()]);
    };
    match values.nulls() {
        Some(nulls) => BooleanArray::new(values.values() & nulls.inner(), None),
        None => values.clone(),
    }
}
