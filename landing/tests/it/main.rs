//! Landing against librdkafka's mock cluster and local files, in process: what lands, and what a crash after any store
//! operation leaves.

mod crash;
mod lands;
mod support;
