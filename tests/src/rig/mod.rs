//! From the ground up: [`procs`] starts processes that never outlive the tests and keeps their logs; [`http`] asks them;
//! [`kafka`] and [`s3`] are servers on top of both, [`proxy`] spoils the way to them; `programs` runs the built `landing` and `compactor`; `workspace` writes the
//! configuration of one test; `readers` asks DuckDB, PyIceberg, Spark and, through `trino`, Trino;
//! `recipes` runs what the documents say; `lambda`, `kms` and `moto` are parts of AWS; `samples` holds the events.
//!
//! Servers that many tests share live until the test binary ends. Each test has its own topics, buckets and tables.

pub mod daemon;
pub mod http;
pub mod kafka;
pub mod kms;
pub mod lambda;
pub mod moto;
pub mod procs;
pub mod programs;
pub mod proxy;
pub mod readers;
pub mod recipes;
pub mod s3;
pub mod samples;
pub mod trino;
pub mod workspace;
