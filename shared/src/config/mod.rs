//! Configuration: `firn.yaml` says where (clusters, stores, catalog), `pipelines/*.yaml` say what.
//!
//! [`load`](load()) reads text into a tree that knows positions (`yaml`), expands `${ENV}` ([`env`]), compares the tree
//! with the generated JSON Schemas ([`schema`], `shape`), types what fits (`wire`), and turns that into the [`domain`]
//! types (`check`). Tests of pipelines ([`cases`]) come the same way. Each stage goes on after a problem, so that all [`Problems`] of all files come out at once; past that
//! door nothing is checked again.

pub mod access;
pub mod cases;
mod check;
pub mod domain;
pub mod env;
mod grammar;
mod load;
mod maintenance;
mod payload;
mod plugin;
mod problems;
pub mod protected;
mod protection;
mod ring;
pub mod schema;
mod shape;
mod show;
mod show_keys;
#[cfg(test)]
mod tests;
pub mod units;
mod wire;
mod yaml;

pub use check::{
    DELETED, DELETED_AT, OPERATION, change_columns, columns_after, decoded_columns, event_hour_partition,
    shaped_columns,
};
pub use domain::Config;
pub use load::{
    Files, TEST_SUFFIXES, find, key_names, load, load_pipeline, load_tests, load_with, plugin_files, read_tests,
    with_plugins, yaml_as_json,
};
pub use problems::{Problem, Problems};
pub use ring::{Ring, RingKey, RingStamp, read_ring, ring_stamp};
pub(crate) use shape::join;
pub use show::show;
