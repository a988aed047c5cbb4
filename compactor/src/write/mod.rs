//! Parquet data files.

pub mod properties;
