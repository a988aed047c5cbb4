//! Whole runs in one process: local files, SQLite, and faults at every operation.
//!
//! `bed` lands batches and reads tables back, `ahead` has a quarantine that is not where its table is, `backlog` cuts a large run into several commits, `crash` stops the work after
//! every single operation and starts again,
//! `races` has several writers at once, `history` rolls back and expires, `input` breaks what is read, `upsert` and `changes`
//! hold tables against a model of their keys, `images` has what change events lack and `memory` what is remembered of deletes,
//! `loads` replaces whole tables, `maintain` compacts, expires and cleans them,
//! `versions` is the model of upserts, `branch` compares before it publishes, `truncate` empties source tables, `model` says what
//! any table holds after anything and `model_test` does anything to it; `seen_elsewhere` and `peers` have what went wrong in
//! other programs, with tables that change and with what comes in.
//! `dedup` has equal rows in every slice.
//! `specs` changes the partitioning of live tables, `topics` what they are fed from.
//! `pipeline_tests` are the tests of tests, `pii_scan` looks for people in real events.
//! `protect` looks for plaintext of protected columns wherever a run leaves something, `protect_later` where a table was plain
//! before, `erase` for what is left of a person, `forgotten` where no pipeline names a table any more;
//! `identity` has values of every type encrypted and back.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod ahead;
mod backlog;
mod bed;
mod branch;
mod changes;
mod crash;
mod dedup;
mod erase;
mod forgotten;
mod history;
mod identity;
mod images;
mod input;
mod loads;
mod maintain;
mod memory;
mod model;
mod model_test;
mod peers;
mod pii_scan;
mod pipeline_tests;
mod protect;
mod protect_later;
mod races;
mod seen_elsewhere;
mod specs;
mod topics;
mod truncate;
mod upsert;
mod versions;
