//! The line format of raw objects: one Kafka record a line, its payload last and byte for byte.
//!
//! ```text
//! {"topic":"t","partition":0,"offset":7,"timestamp":1626847200000,"key":"k","headers":[["n","v"]],"event":"E","value":{…}}
//! ```
//! - `timestamp` is Kafka's, milliseconds since the epoch, or null; `event` is the event's name or null.
//! - `key` and header values are a string, `{"b64":"…"}` when they are not UTF-8, or null when absent. Headers are
//!   pairs, in order, duplicates kept.
//! - A tombstone (Kafka null payload) has `"tombstone":true,` before `"value":null`; a payload `null` has not.
//! - Line feeds inside a payload (JSON white space) are written as blanks, with their positions in the payload in
//!   `"lf":[…],` before `value`, so that the payload can be restored byte for byte.
//!
//! [`LineWriter`] appends lines to a buffer. [`Envelope::parse`] finds offset, event and value without copying when the
//! fields stand in the order above, and takes a general path when they do not. Refused records have a line of their own,
//! whose payload may be anything: [`QuarantineLine`].

mod quarantine;
mod read;
pub(crate) mod text;
mod write;

pub use quarantine::QuarantineLine;
pub use read::{Envelope, Headers, MalformedLine};
pub use text::Bytes;
pub use write::{LineWriter, Record, line_bytes, line_bytes_max};

#[cfg(test)]
mod tests;
