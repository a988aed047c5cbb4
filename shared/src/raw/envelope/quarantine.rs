//! The line of a refused record.

use serde::{Deserialize, Serialize};

use super::text::Bytes;
use crate::ids::{Offset, Partition, Topic};
use crate::raw::manifest::RejectReason;

/// A record that landing refused, with everything needed to send it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineLine {
    /// Where it was read.
    pub topic: Topic,
    /// Where it was read.
    pub partition: Partition,
    /// Where it was read.
    pub offset: Offset,
    /// Kafka's timestamp, milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Why it was refused.
    pub reason: RejectReason,
    /// What exactly was wrong; never a payload value.
    pub detail: String,
    /// The key.
    pub key: Option<Bytes>,
    /// Header names and values, in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The payload, byte for byte.
    pub payload: Option<Bytes>,
}
