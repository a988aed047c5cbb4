//! From the raw zone to Iceberg tables, one atomic commit a run.
//!
//! See ARCHITECTURE.md.

pub mod provenance;
pub mod seam;
