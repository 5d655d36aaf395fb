//! The guest of a node in a lane: opened, and opened again when it died.
//!
//! Called by: `wasm`, `migrate`, `stage`, the canary. Invariants: a lane has one guest of a node at a time;
//! what it counts and sees of tables goes on in the next one.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use codec::Format;
use model::schema::{Field, FieldType, Schema};
use model::topic::PayloadCodec;
use wasm::http::Stop;
use wasm::{Guest, Labels, Limits, Lookups, Metrics, Module, OpenContext, OpenError, View};

use super::OperatorError;
use super::breaker::Breaker;
use crate::compile::field_type;

/// What a lane needs to open the guest of a node, as often as it dies.
#[derive(Clone)]
pub(crate) struct Program {
    pub module: Module,
    pub context: OpenContext,
    pub limits: Limits,
    /// Tries after the first before the policy's `then`, and the waits between them.
    pub retry: RetryPolicy,
}

/// How often and how long; milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    pub max: u32,
    pub backoff_ms: u64,
    pub cap_ms: u64,
}

impl RetryPolicy {
    /// The wait after the given number of failed tries.
    pub(super) fn wait_ms(&self, failed: u32) -> u64 {
        let doubled = self
            .backoff_ms
            .saturating_mul(1 << failed.saturating_sub(1).min(20));
        doubled.min(self.cap_ms)
    }
}

/// The warm guest of one lane, and how much it may still misbehave.
pub(crate) struct Warm {
    pub(super) guest: Option<Guest>,
    /// By port: how rows emitted as columns are written where the port declares no schema.
    formats: Vec<Option<Format>>,
    metrics: Metrics,
    /// What the batch at work sees of the node's tables.
    lookups: Lookups,
    pub(super) stop: Stop,
    pub breaker: Breaker,
}

impl Program {
    pub fn open(&self, lane: u32, metrics: Metrics, stop: Stop) -> Result<Warm, OpenError> {
        let lookups = self.context.lookups.another();
        Ok(Warm {
            guest: Some(self.guest(lane, (&metrics, &lookups, &stop))?),
            metrics,
            lookups,
            stop,
            formats: vec![None; self.context.outputs.len()],
            breaker: Breaker::new(),
        })
    }

    fn guest(
        &self,
        lane: u32,
        (metrics, lookups, stop): (&Metrics, &Lookups, &Stop),
    ) -> Result<Guest, OpenError> {
        let context = OpenContext {
            partition: lane,
            labels: Labels {
                lane,
                ..self.context.labels.clone()
            },
            metrics: metrics.clone(),
            lookups: lookups.clone(),
            stop: stop.clone(),
            ..self.context.clone()
        };
        self.module.open(&context, &self.limits)
    }

    /// The lane's guest, opened again if it died or is about to, for want of memory.
    pub(super) fn alive<'w>(
        &self,
        lane: u32,
        warm: &'w mut Warm,
    ) -> Result<&'w mut Guest, OpenError> {
        let guest = match warm.guest.take().filter(|guest| !guest.is_swollen()) {
            Some(guest) => guest,
            None => self.guest(lane, (&warm.metrics, &warm.lookups, &warm.stop))?,
        };
        Ok(warm.guest.insert(guest))
    }
}

impl Warm {
    /// What the guest sees of its tables from now on.
    pub fn lend(&self, view: Option<View>) {
        self.lookups.lend(view);
    }

    /// The guest's selection of an input's columns.
    pub fn selected(&self, input: u16) -> &[Field] {
        self.guest
            .as_ref()
            .map_or(&[], |guest| guest.selected(input))
    }

    /// How rows emitted as columns are written: as the port's schema says, else as JSON of what
    /// the guest declared.
    pub(super) fn format(
        &mut self,
        outputs: &[Option<&Format>],
        port: u16,
        columns: &RecordBatch,
    ) -> Result<Format, OperatorError> {
        let at = usize::from(port);
        if let Some(Some(format)) = outputs.get(at) {
            return Ok((*format).clone());
        }
        let known = self.formats[at].as_ref();
        if let Some(format) = known.filter(|f| f.arrow().fields() == columns.schema_ref().fields())
        {
            return Ok(format.clone());
        }
        let fields = columns.schema_ref().fields().iter().map(|field| {
            let ty = field_type(field.data_type());
            Field {
                name: field.name().clone(),
                ty: ty.unwrap_or(FieldType::String),
            }
        });
        let schema = Arc::new(Schema {
            fields: fields.collect(),
            avro: None,
        });
        let format = Format::new(PayloadCodec::Json, schema).ok_or(OperatorError::Format)?;
        Ok(self.formats[at].insert(format).clone())
    }
}
