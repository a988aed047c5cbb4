//! What a run takes of one partition, decided manifest by manifest.

use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, Offset, OffsetRange, PartitionRef};
use firn_shared::raw::manifest::BatchManifest;

use super::{PartitionLedger, SliceObject};
use crate::reconcile::account::Totals;

/// The batches of one partition that a run consumes, from the table's position on.
#[derive(Debug, Clone)]
pub struct Consumption {
    partition: PartitionRef,
    from: Offset,
    next: Offset,
    batches: u64,
    raw_bytes: u64,
    totals: Totals,
    objects: Vec<SliceObject>,
}

impl Consumption {
    /// Nothing yet, from the table's position on (0 when it has read none of the partition).
    pub fn new(partition: PartitionRef, from: Offset) -> Self {
        let totals = Totals::default();
        Self { partition, from, next: from, batches: 0, raw_bytes: 0, totals, objects: Vec::new() }
    }

    /// Takes the next batch of the chain, as a whole.
    ///
    /// # Errors
    /// `Data` when the table's position lies inside the batch, or offsets are missing before it.
    pub fn take(&mut self, batch: BatchManifest) -> Result<()> {
        let range = batch.range;
        if range.contains(self.next) && range.start() < self.next {
            return Err(inside(&self.partition, self.next, range));
        }
        if range.start() != self.next {
            return Err(Error::data(format!(
                "cannot plan {}: the next batch after offset {} is {range}; the ledger is broken or was exchanged",
                self.partition, self.next
            )));
        }
        self.totals.add_batch(&batch);
        self.next = range.end();
        self.batches += 1;
        for object in batch.objects {
            self.raw_bytes += object.raw_bytes;
            let (topic, partition) = (self.partition.topic.clone(), self.partition.partition);
            self.objects.push(SliceObject { topic, partition, object });
        }
        Ok(())
    }

    /// Bytes of the lines taken so far.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Raw objects taken so far.
    pub fn objects(&self) -> u64 {
        self.objects.len() as u64
    }

    /// Where the table stands afterwards, the ledger's part of the plan (`None` when nothing was taken), the objects.
    pub fn finish(self) -> (Offset, Option<PartitionLedger>, Vec<SliceObject>) {
        let Self { partition, from, next, batches, totals, objects, .. } = self;
        let ledger = OffsetRange::new(from, next).ok().map(|range| PartitionLedger {
            topic: partition.topic,
            partition: partition.partition,
            range,
            batches,
            totals: Totals { start: from, ..totals },
        });
        (next, ledger, objects)
    }
}

/// The objects of some event hours that a table has consumed from one partition.
#[derive(Debug, Clone)]
pub struct Revisit {
    partition: PartitionRef,
    position: Offset,
    from: EventHour,
    to: EventHour,
    objects: Vec<SliceObject>,
}

impl Revisit {
    /// Objects of the hours `from..to` in batches that end at or before `position`.
    pub fn new(partition: PartitionRef, position: Offset, (from, to): (EventHour, EventHour)) -> Self {
        Self { partition, position, from, to, objects: Vec::new() }
    }

    /// Looks at the next batch of the chain; `false` when no later one can matter.
    ///
    /// # Errors
    /// `Data` when the table's position lies inside the batch.
    pub fn look(&mut self, batch: BatchManifest) -> Result<bool> {
        if batch.range.start() >= self.position {
            return Ok(false);
        }
        if batch.range.end() > self.position {
            return Err(inside(&self.partition, self.position, batch.range));
        }
        let wanted = self.from..self.to;
        for object in batch.objects {
            if object.event_hour.is_some_and(|hour| wanted.contains(&hour)) {
                let (topic, partition) = (self.partition.topic.clone(), self.partition.partition);
                self.objects.push(SliceObject { topic, partition, object });
            }
        }
        Ok(true)
    }

    /// The objects found.
    pub fn finish(self) -> Vec<SliceObject> {
        self.objects
    }
}

fn inside(partition: &PartitionRef, position: Offset, batch: OffsetRange) -> Error {
    Error::data(format!(
        "cannot plan {partition}: the table's position {position} lies inside batch {batch} of the ledger; the table was \
         written from another raw zone, or its ledger was exchanged"
    ))
}
