//! One member of a pipeline's group: a thread that polls librdkafka and hands records to the lanes.
//!
//! It holds the blocking calls and no policy: where a partition starts is decided in `assign.rs`, what becomes of a
//! record in `lane.rs`. When anything about its lanes or its client breaks, it gives everything up and is started again
//! from the chain by `pipeline.rs`; that is the only way it recovers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use firn_shared::error::{Error, Result};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message, Timestamp};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::lane::Work;
use crate::membership::{Membership, Slots};
use crate::pipeline::Shared;
use crate::rotate::{self, Cause};
use crate::{damage, headers, kafka};

/// How long one poll waits; also how stale a chunk may get before it is handed on.
const POLL: Duration = Duration::from_millis(50);
/// How often lanes are looked after.
const CHORES: Duration = Duration::from_millis(200);
/// How long a reader waits for memory before it pauses its partitions, which throws away what librdkafka has fetched.
const PATIENCE: Duration = Duration::from_secs(2);

/// A member of the group.
pub struct Reader {
    shared: Arc<Shared>,
    index: usize,
    consumer: BaseConsumer<Membership>,
    subscribed: Vec<String>,
    chores_at: Instant,
}

impl Reader {
    /// Joins the pipeline's group.
    ///
    /// # Errors
    /// `Config` when librdkafka refuses the properties, `Unavailable` when the cluster cannot be found.
    pub fn join(shared: &Arc<Shared>, index: usize) -> Result<Self> {
        let mut config = kafka::client(&shared.cluster_name, &shared.cluster)?;
        kafka::member(&mut config, &shared.group, &shared.shares);
        let consumer: BaseConsumer<Membership> = config
            .create_with_context(Membership::new(Arc::clone(shared), index))
            .map_err(|e| Error::config(format!("librdkafka refuses cluster {}", shared.cluster_name)).with_source(e))?;
        Ok(Self { shared: Arc::clone(shared), index, consumer, subscribed: Vec::new(), chores_at: Instant::now() })
    }

    /// Reads until the pipeline stops, then drains and leaves the group.
    ///
    /// # Errors
    /// What ended it before; nothing is lost, the chain knows how far it came.
    pub fn read(mut self) -> Result<()> {
        while !self.shared.stop.is_cancelled() {
            if self.chores_at.elapsed() >= CHORES {
                self.chores()?;
            }
            if !self.has_memory()? {
                continue;
            }
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => self.take(&message)?,
                Some(Err(error)) => self.judge(error)?,
                None => self.rest()?,
            }
        }
        self.drain()
    }

    fn take(&self, message: &BorrowedMessage<'_>) -> Result<()> {
        let mut slots = self.consumer.context().slots();
        // Not in the slots: a stopped partition, or one that has just left.
        let Some(slot) = slots.get(message.topic(), message.partition()) else { return Ok(()) };
        let offset = message.offset();
        if offset < slot.expected as i64 {
            return Err(Error::bug(format!(
                "{}: kafka returned offset {offset}, {} was due",
                slot.lane.partition, slot.expected
            )));
        }
        slot.expected = offset as u64 + 1;
        let timestamp = match message.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(at) | Timestamp::LogAppendTime(at) => Some(at),
        };
        slot.chunk.push(offset as u64, timestamp, message.key(), message.payload(), headers::of(message));
        if slot.chunk.len() >= self.shared.shares.chunk {
            slot.flush(&self.shared);
        }
        Ok(())
    }

    /// The queue is empty: hand on what there is, and how far librdkafka has come past markers.
    fn rest(&self) -> Result<()> {
        let mut slots = self.consumer.context().slots();
        if slots.is_empty() {
            return Ok(());
        }
        let positions = self.consumer.position().map_err(|e| unavailable("cannot ask for positions", e))?;
        for slot in slots.all() {
            slot.flush(&self.shared);
        }
        for element in positions.elements() {
            if let KafkaOffset::Offset(position) = element.offset()
                && let Some(slot) = slots.get(element.topic(), element.partition())
                && position > slot.expected as i64
            {
                // Everything returned before this position has been taken: what is left out holds no record.
                slot.expected = position as u64;
                slot.lane.push(Work::Position(slot.expected));
            }
        }
        Ok(())
    }

    /// What an error of the client means.
    fn judge(&self, error: KafkaError) -> Result<()> {
        let code = match &error {
            KafkaError::MessageConsumption(code) | KafkaError::Global(code) => *code,
            KafkaError::PartitionEOF(_) => return Ok(()),
            _ => return Err(unavailable("the consumer failed", error)),
        };
        match code {
            RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => {
                Err(Error::unavailable("a position is outside the log; starting again from the chain")
                    .with_source(error))
            }
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => Err(self.refused(code).with_source(error)),
            code if damage::is_damage(code) => Err(self.damaged()?),
            // The client goes on by itself.
            _ => {
                self.shared.metrics.kafka_error(&self.shared.name, &format!("{code:?}"));
                tracing::warn!(pipeline = %self.shared.name, %error, "kafka");
                Ok(())
            }
        }
    }

    /// What an operator has to allow.
    fn refused(&self, code: RDKafkaErrorCode) -> Error {
        let Shared { cluster_name, group, .. } = &*self.shared;
        let what = match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => "a topic".to_owned(),
            RDKafkaErrorCode::GroupAuthorizationFailed => format!("group {group}"),
            _ => "the cluster".to_owned(),
        };
        let topics = self.subscribed.join(", ");
        Error::config(format!(
            "cluster {cluster_name} refuses access to {what}; allow Read and Describe on topics {topics} and on group {group}"
        ))
    }

    /// Finds the partition that cannot be read, so that the next assignment stops it. Nothing that lies behind the damage
    /// has been taken: the error comes in its place among the records of its partition.
    fn damaged(&self) -> Result<Error> {
        let said = self.consumer.context().complaint();
        let mut suspects: Vec<_> = {
            let mut slots = self.consumer.context().slots();
            slots.all().map(|slot| (slot.lane.partition.clone(), slot.expected)).collect()
        };
        damage::order(&mut suspects, &said);
        let mut config = kafka::client(&self.shared.cluster_name, &self.shared.cluster)?;
        kafka::member(&mut config, &self.shared.group, &self.shared.shares);
        let Some(found) = damage::find(config, suspects)? else {
            return Ok(Error::unavailable(format!("kafka sent what cannot be read, and now sends it whole: {said}")));
        };
        let error = Error::unavailable(format!(
            "{} cannot be read from offset {} on: {}; it will be stopped there",
            found.partition, found.offset, found.why
        ));
        self.shared.damaged(found);
        Ok(error)
    }

    /// Looks after the lanes: failures, ages, hints, new topics.
    fn chores(&mut self) -> Result<()> {
        self.chores_at = Instant::now();
        let mut hints = TopicPartitionList::new();
        {
            let mut slots = self.consumer.context().slots();
            if let Some(failure) = slots.take_failure() {
                return Err(failure);
            }
            for slot in slots.all() {
                slot.flush_if_older(&self.shared, POLL);
                slot.lane.push(Work::Tick);
                let committed = slot.lane.status().committed;
                if committed > slot.hinted {
                    slot.hinted = committed;
                    let (topic, partition) = (&slot.lane.partition.topic.topic, slot.lane.partition.partition);
                    hints
                        .add_partition_offset(topic.as_str(), partition.0 as i32, KafkaOffset::Offset(committed as i64))
                        .map_err(|e| unavailable("cannot name an offset", e))?;
                }
            }
        }
        if hints.count() > 0
            && let Err(error) = self.consumer.commit(&hints, CommitMode::Async)
        {
            tracing::debug!(%error, "the group offset, a hint, was not committed");
        }
        let topics = self.shared.topics();
        if topics != self.subscribed && !topics.is_empty() {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            self.consumer.subscribe(&names).map_err(|e| unavailable("cannot subscribe", e))?;
            tracing::info!(pipeline = %self.shared.name, consumer = self.index, ?topics, "subscribed");
            self.subscribed = topics;
        }
        Ok(())
    }

    /// Back-pressure: below the bound read, at the bound wait a little for the lanes, then pause the partitions and only
    /// serve the group. Says whether to read.
    fn has_memory(&self) -> Result<bool> {
        let memory = &self.shared.rules.memory;
        let membership = self.consumer.context();
        let (pause_at, resume_at) = (memory.limit() * 3 / 4, memory.limit() / 2);
        if memory.used() < if membership.is_paused() { resume_at } else { pause_at } {
            if membership.is_paused() {
                membership.resume(&self.consumer)?;
            }
            return Ok(true);
        }
        self.relieve();
        if !membership.is_paused() {
            if memory.wait_below(pause_at, PATIENCE) {
                return Ok(true);
            }
            membership.pause(&self.consumer)?;
            tracing::warn!(pipeline = %self.shared.name, used = memory.used(), "memory is full; partitions paused");
        }
        // Only the group is served; a record that was already on its way is taken all the same.
        match self.consumer.poll(POLL) {
            Some(Ok(message)) => self.take(&message)?,
            Some(Err(error)) => self.judge(error)?,
            None => {}
        }
        Ok(false)
    }

    /// Hands on every chunk and closes the largest batch of this reader.
    fn relieve(&self) {
        let mut slots = self.consumer.context().slots();
        let mut batches = Vec::new();
        for slot in slots.all() {
            slot.flush(&self.shared);
            let status = slot.lane.status();
            // One that waits for its upload gives memory back soon enough.
            let bytes = if status.sealed == 0 { status.open_bytes } else { 0 };
            batches.push((Arc::clone(&slot.lane), bytes, status.opened_at.filter(|_| bytes > 0)));
        }
        if let Some(lane) = rotate::victim(batches) {
            lane.push(Work::Seal(Cause::Memory));
        }
    }

    /// Finishes what is open within the drain time and leaves the group.
    fn drain(self) -> Result<()> {
        let deadline = Instant::now() + self.shared.drain;
        let assignment = self.consumer.assignment().map_err(|e| unavailable("cannot ask for the assignment", e))?;
        self.consumer.pause(&assignment).map_err(|e| unavailable("cannot pause", e))?;
        self.rest()?;
        let (failure, slots) = {
            let mut slots = self.consumer.context().slots();
            (slots.take_failure(), slots.take_all())
        };
        let (hints, failed) = Slots::close(slots, deadline);
        if hints.count() > 0
            && let Err(error) = self.consumer.commit(&hints, CommitMode::Sync)
        {
            tracing::debug!(%error, "the group offset, a hint, was not committed");
        }
        failure.or(failed).map_or(Ok(()), Err)
    }
}

fn unavailable(what: &str, error: KafkaError) -> Error {
    Error::unavailable(what).with_source(error)
}
