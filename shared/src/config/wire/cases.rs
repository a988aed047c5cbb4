//! `*.test.yaml`.

use std::collections::BTreeMap;

use super::{wire, words};
use crate::config::cases::Tree;

wire! {
    /// Tests of a pipeline: events that go in, and what must come out. Run by `compactor test`, without servers.
    struct TestFileYaml {
        /// The pipeline, relative to this file (default: this file's name without `.test`).
        pipeline: Option<String>,
        /// Kafka's timestamp of records that give none, RFC 3339 (default 2026-01-01T00:00:00Z).
        timestamp: Option<String>,
        /// The wall clock of the runs, RFC 3339 (default 2026-01-01T00:00:00Z).
        now: Option<String>,
        /// Files in place of those that look-ups read: each as the pipeline names it (`s3://…`), and a file relative to this one.
        lookups: Option<BTreeMap<String, String>>,
        /// The cases; each starts with empty tables.
        #[schemars(required, length(min = 1), with = "Vec<CaseYaml>")]
        cases: Option<Vec<Option<CaseYaml>>>,
    }
    /// A case.
    struct CaseYaml {
        /// What it claims; unique in the file.
        #[schemars(required)]
        name: Option<String>,
        /// The records, in the order in which they were produced.
        #[schemars(with = "Option<Vec<EventYaml>>")]
        events: Option<Vec<Option<EventYaml>>>,
        /// Records from a file.
        file: Option<SampleYaml>,
        /// Several runs, one after the other, in place of `events` and `file`.
        #[schemars(with = "Option<Vec<BatchYaml>>")]
        runs: Option<Vec<Option<BatchYaml>>>,
        /// What must come out; `compactor test --update` writes it.
        expect: Option<ExpectYaml>,
    }
    /// What one run finds in the raw zone.
    struct BatchYaml {
        /// The records.
        #[schemars(with = "Option<Vec<EventYaml>>")]
        events: Option<Vec<Option<EventYaml>>>,
        /// Records from a file.
        file: Option<SampleYaml>,
    }
    /// A Kafka record: one of `value`, `text`, `base64` and `tombstone`.
    struct EventYaml {
        /// The payload as YAML; it becomes JSON.
        value: Option<Tree>,
        /// The payload as it is, byte for byte.
        text: Option<String>,
        /// The payload in base64, for bytes that are no text.
        base64: Option<String>,
        /// A record without payload.
        tombstone: Option<bool>,
        /// The key; a mapping or list becomes JSON.
        key: Option<Tree>,
        /// Headers.
        headers: Option<BTreeMap<String, String>>,
        /// Kafka's timestamp, RFC 3339.
        timestamp: Option<String>,
        /// The topic, where the pipeline reads several (default: its first).
        topic: Option<String>,
        /// The partition (default 0).
        partition: Option<u32>,
    }
    /// A file of records, one a line; `.zst` and `.gz` are read as they are.
    struct SampleYaml {
        /// The file, relative to this one.
        #[schemars(required)]
        path: Option<String>,
        /// What a line is (default `payloads`).
        lines: Option<LinesYaml>,
        /// Lines left out at the beginning (default 0).
        skip: Option<u32>,
        /// Lines read at most (default all).
        take: Option<u32>,
    }
    /// What must come out. Nothing else is refused or quarantined.
    struct ExpectYaml {
        /// What must become of the table, for a pipeline of one table.
        table: Option<TableExpectYaml>,
        /// The same by `database.table` or `table`.
        tables: Option<BTreeMap<String, Option<TableExpectYaml>>>,
        /// Records that landing refuses.
        #[schemars(with = "Option<Vec<RejectedYaml>>")]
        rejected: Option<Vec<Option<RejectedYaml>>>,
        /// The run must fail, with this in its message: a text or a matcher.
        error: Option<Tree>,
    }
    /// What must become of one table.
    struct TableExpectYaml {
        /// Its rows, each with the columns that matter; the order is free.
        #[schemars(with = "Option<Vec<BTreeMap<String, Tree>>>")]
        rows: Option<Vec<Option<BTreeMap<String, Tree>>>>,
        /// How many rows it has.
        row_count: Option<u32>,
        /// Whether `rows` stand in the order of the records (default false).
        ordered: Option<bool>,
        /// Its columns in order, as `name: type` or `name: type required`.
        schema: Option<Vec<String>>,
        /// Records in its quarantine (default none).
        #[schemars(with = "Option<Vec<QuarantinedYaml>>")]
        quarantine: Option<Vec<Option<QuarantinedYaml>>>,
        /// How many records are in quarantine, in place of `quarantine`.
        quarantine_count: Option<u32>,
        /// Records left out, by reason.
        filtered: Option<BTreeMap<String, u32>>,
        /// Tombstones.
        tombstones: Option<u32>,
        /// Records whose key has a newer version.
        superseded: Option<u32>,
        /// Records that deleted their key.
        deleted: Option<u32>,
    }
    /// A record that landing refuses.
    struct RejectedYaml {
        /// Which record of the case, from 1.
        event: Option<Tree>,
        /// Why, such as `notJson`.
        reason: Option<Tree>,
        /// What exactly.
        detail: Option<Tree>,
    }
    /// A record in quarantine.
    struct QuarantinedYaml {
        /// Which record of the case, from 1.
        event: Option<Tree>,
        /// Where in the payload, such as `$.id`.
        path: Option<Tree>,
        /// Why, such as `wrongType`.
        reason: Option<Tree>,
        /// What exactly.
        detail: Option<Tree>,
        /// The number of the transformation that refused it, from 1; 0 for the decoder.
        step: Option<Tree>,
        /// The payload.
        payload: Option<Tree>,
    }
}

words! {
    /// What the lines of a file are.
    enum LinesYaml { Payloads, Records, }
}
