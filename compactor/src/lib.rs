//! The raw zone to Iceberg tables: plan, execute, commit. See ARCHITECTURE.md.

pub mod arrow_types;
pub mod bench;
pub mod decode;
pub mod plan;
pub mod provenance;
pub mod reconcile;
pub mod seam;
pub mod table;
pub mod write;
