//! Configuration: `firn.yaml` says where (clusters, stores, catalog), `pipelines/*.yaml` say what.
//!
//! Text becomes located wire structs, wire structs become the [`domain`] types, once; past that door nothing is checked
//! again.

pub mod domain;
pub mod env;
mod grammar;
pub mod units;
