//! What `landing` and `compactor` agree on.
//!
//! Reading order: [`ids`] names things, [`error`] says what went wrong and whether to try again, [`config`] turns YAML
//! into checked pipelines, [`functions`] are what their steps call, [`crypto`] protects values, [`store`] keeps bytes,
//! [`raw`] is the contract between the two programs (object keys, the line format, the manifest chain that is the
//! exactly-once ledger), [`types`] is the one set of column types.
//!
//! Nothing here links Kafka, Arrow, Polars or Iceberg.

pub mod allocator;
pub mod aws;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
mod cursor;
pub mod error;
pub mod functions;
pub mod ids;
pub mod raw;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod types;
