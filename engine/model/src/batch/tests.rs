//! Tests of the batch.
