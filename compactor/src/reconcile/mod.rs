//! The proof that every offset read is a row, in quarantine, or left out for a stated reason.
//!
//! [`account`] is what a table's snapshots say of the offsets they consumed.

pub mod account;
