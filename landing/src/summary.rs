//! What a run has done.

use std::collections::BTreeMap;

use firn_shared::raw::manifest::{BatchManifest, RejectReason};
use serde::Serialize;

/// What one pipeline has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineSummary {
    /// Manifests appended, gaps included.
    pub batches: u64,
    /// Records in raw objects, tombstones included.
    pub records: u64,
    /// Records without payload.
    pub tombstones: u64,
    /// Refused records by reason.
    pub rejects: BTreeMap<RejectReason, u64>,
    /// Offsets without a record.
    pub absent: u64,
    /// Offsets that were gone before they were read.
    pub gap_offsets: u64,
    /// Objects uploaded.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Bytes of their lines.
    pub line_bytes: u64,
}

impl PipelineSummary {
    /// Counts an appended manifest.
    pub fn add(&mut self, manifest: &BatchManifest) {
        self.batches += 1;
        self.records += manifest.records();
        self.tombstones += manifest.tombstones();
        self.absent += manifest.absent;
        self.gap_offsets += manifest.gap_offsets();
        for (reason, records) in &manifest.rejects {
            *self.rejects.entry(*reason).or_default() += records;
        }
        for object in manifest.objects.iter().chain(&manifest.quarantine) {
            self.objects += 1;
            self.object_bytes += object.bytes;
            self.line_bytes += object.raw_bytes;
        }
    }
}

/// What a run of landing has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// By pipeline.
    pub pipelines: BTreeMap<String, PipelineSummary>,
    /// The most bytes ever buffered outside librdkafka.
    pub buffer_bytes_peak: u64,
}
