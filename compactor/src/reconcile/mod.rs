//! The proof that every offset read is a row, in quarantine, or left out for a stated reason.
//!
//! [`account`] is what a table's snapshots say of the offsets they consumed; [`ledger`] is what the manifests say of the
//! same offsets; [`report`] puts both side by side, and the difference must be 0. [`deep`] goes further and compares the
//! table's own offsets (`_firn`) with those of the raw objects, which [`objects`] reads line by line.

pub mod account;
pub mod deep;
pub mod ledger;
pub mod objects;
pub mod report;
#[cfg(test)]
mod tests;
