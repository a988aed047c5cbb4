//! Rejected records on their way into the quarantine table, a bounded number at a time.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, Schema};
use firn_shared::error::{Error, Result};
use firn_shared::ids::Offset;

use crate::arrow_types::data_type;
use crate::decode::Rejected;
use crate::provenance::{self, Origin};

/// A record that does not fit.
#[derive(Debug)]
pub struct Reject<'a> {
    /// The record's value as Kafka held it.
    pub payload: &'a [u8],
    /// What does not fit.
    pub why: &'a Rejected,
    /// The transformation that found it; `None` for the decoder.
    pub step: Option<&'a str>,
    /// The event's name.
    pub event: Option<&'a str>,
    /// Kafka's timestamp, milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Index into the slice's origins.
    pub origin: u32,
    /// Kafka's offset.
    pub offset: Offset,
}

/// Rejected records, gathered.
#[derive(Debug, Default)]
pub struct Rejects {
    payload: BinaryBuilder,
    path: StringBuilder,
    reason: StringBuilder,
    detail: StringBuilder,
    step: StringBuilder,
    event: StringBuilder,
    timestamp: TimestampMicrosecondBuilder,
    origins: Vec<(u32, Offset)>,
    bytes: usize,
}

impl Rejects {
    /// Adds a record.
    pub fn push(&mut self, reject: &Reject<'_>) {
        self.payload.append_value(reject.payload);
        self.path.append_value(&reject.why.path);
        self.reason.append_value(reject.why.reason.as_str());
        self.detail.append_value(&reject.why.detail);
        self.step.append_option(reject.step);
        self.event.append_option(reject.event);
        self.timestamp.append_option(reject.timestamp.and_then(|millis| millis.checked_mul(1000)));
        self.origins.push((reject.origin, reject.offset));
        self.bytes += reject.payload.len() + reject.why.path.len() + reject.why.detail.len() + 128;
    }

    /// Whether none is gathered.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes them as a batch of the quarantine table's columns.
    ///
    /// # Errors
    /// As [`provenance::column`].
    pub fn finish(&mut self, origins: &[Origin]) -> Result<RecordBatch> {
        let firn = provenance::column(origins, &std::mem::take(&mut self.origins))?;
        self.bytes = 0;
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(self.payload.finish()),
            Arc::new(self.path.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.step.finish()),
            Arc::new(self.event.finish()),
            Arc::new(self.timestamp.finish().with_timezone(crate::arrow_types::UTC)),
            Arc::new(firn),
        ];
        let columns = super::columns();
        let fields = columns.iter().map(|c| Field::new(&c.name, data_type(&c.r#type), !c.required));
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), arrays)
            .map_err(|e| Error::bug("rows of the quarantine table").with_source(e))
    }
}
