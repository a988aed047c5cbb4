//! The raw zone: the contract between `landing`, which writes it, and `compactor`, which reads it.
//!
//! [`key`] turns identifiers into object keys and back, [`envelope`] is the line format of raw objects, [`inspect`] looks
//! into a payload before it becomes a line, [`admit`] judges it by the pipeline's rules, [`manifest`] is one batch of one
//! partition as the ledger records it, [`chain`] reads and extends the manifests of a partition (append with one winner,
//! find the end, fold into checkpoints, walk a range), [`position`] decides where to read on when a partition is assigned,
//! [`progress`] is what a known partition says of itself, so that its hours can be sealed while it is idle, too.

pub mod admit;
pub mod chain;
pub mod envelope;
pub mod inspect;
pub mod key;
pub mod manifest;
pub mod position;
pub mod progress;
