//! The chain's invariant: each link starts where the last one ended.

use crate::error::{Error, Result};
use crate::ids::{Offset, OffsetRange, PartitionRef};

/// Checks links as they come.
#[derive(Debug)]
pub(super) struct Links<'a> {
    partition: &'a PartitionRef,
    /// Where the next link must start; `None` when the first one seen is taken as it is.
    expected: Option<Offset>,
}

impl<'a> Links<'a> {
    /// Links whose first is taken as it is.
    pub(super) fn unknown(partition: &'a PartitionRef) -> Self {
        Self { partition, expected: None }
    }

    /// Links that go on from `end`.
    pub(super) fn after(partition: &'a PartitionRef, end: Offset) -> Self {
        Self { partition, expected: Some(end) }
    }

    pub(super) fn folded(&mut self, range: OffsetRange) -> Result<()> {
        self.link(range, "checkpoint")
    }

    pub(super) fn next(&mut self, range: OffsetRange) -> Result<()> {
        self.link(range, "batch")
    }

    fn link(&mut self, range: OffsetRange, what: &str) -> Result<()> {
        let partition = self.partition;
        match self.expected.replace(range.end()) {
            Some(end) if range.start() > end => Err(Error::data(format!(
                "the ledger of {partition} has a hole: no manifest accounts for offsets {end}..{}, {what} {range} comes \
                 after it; nothing was read past it; restore the manifest from a version of the bucket",
                range.start()
            ))),
            Some(end) if range.start() < end => Err(Error::data(format!(
                "the ledger of {partition} overlaps: {what} {range} starts before offset {end}, where the one before it \
                 ended; restore the manifest from a version of the bucket"
            ))),
            _ => Ok(()),
        }
    }
}
