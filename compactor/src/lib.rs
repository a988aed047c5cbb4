//! The raw zone to Iceberg tables: plan, execute, commit. See ARCHITECTURE.md.

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
pub mod table;
pub mod testing;
pub mod transform;
pub mod upsert;
pub mod write;
