//! The raw zone to Iceberg tables, exactly once.
//!
//! ```text
//! manifests of the raw zone, and the position in the table's current snapshot
//!     │
//!   plan      which raw objects, up to which offsets, cut into slices: plain data, nothing is written
//!     │
//!   execute   a slice: decode → transform → protect → write      only adds files that nothing names yet
//!     │           │          │          └→ quarantine: what does not fit, with its bytes and the reason
//!     │           └ upsert: rows by key to local disk, who wins, which rows of the table go
//!     │
//!   commit    the quarantine's snapshot, then the table's, which carries the new position (run/commit.rs → table)
//! ```
//! Read [`run`] first: `run/once.rs` is a run from beginning to end. Then [`plan`]; [`execute`], which takes the records
//! through [`decode`], [`transform`], [`protect`] and [`write`]; [`upsert`] for tables with keys; and [`table`], which knows
//! Iceberg: offsets in the metadata, commits, catalogs. [`seam`] is the one door between waiting (tokio) and computing
//! (rayon), and hands out the memory.
//!
//! The other commands stand on these: [`maintain`], [`reconcile`], [`diff`] (a reprocess on a branch), [`erase`], [`scan`]
//! (`pii scan`), [`access`] (`grants`), [`testing`] (`compactor test`); [`cli`] has them all.
//!
//! Nothing here links Kafka.

pub mod access;
pub mod arrow_types;
pub mod bench;
pub mod cli;
pub mod decode;
pub mod diff;
pub mod erase;
pub mod execute;
pub mod maintain;
pub mod plan;
pub mod plugin;
pub mod protect;
pub mod provenance;
pub mod quarantine;
pub mod reconcile;
pub mod run;
pub mod scan;
pub mod seam;
mod spill;
pub mod table;
pub mod testing;
pub mod transform;
pub mod upsert;
pub mod write;
