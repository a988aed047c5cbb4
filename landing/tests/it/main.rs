//! Landing against librdkafka's mock cluster and local files, in process: what lands, and what a crash after any store
//! operation leaves.

#![allow(clippy::unwrap_used, reason = "everything here is test code")]

mod crash;
mod group;
mod lands;
mod memory;
mod peers;
mod support;
