//! What a consumer owns at the moment, and what happens when the group changes it.
//!
//! librdkafka calls back on the polling thread. An assigned partition starts where `assign.rs` says, by explicit offset
//! in the assignment itself: no seek, no committed offset. A revoked one is drained before the call returns, so that
//! the next owner finds the chain at rest; if the group has already given it away, it is abandoned at once. Either way
//! the chain fences: an append that comes too late loses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firn_shared::error::Error;
use firn_shared::ids::{Offset, Partition, Topic};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::assign::{self, Decision};
use crate::chunk::Chunk;
use crate::kafka;
use crate::lane::{Lane, Work};
use crate::pipeline::Shared;
use crate::server::Part;

/// How long a revoked partition may take to finish its batch; the group waits for `max.poll.interval.ms`, much longer.
const REVOKE: Duration = Duration::from_secs(20);

/// A partition being read.
#[derive(Debug)]
pub struct Slot {
    /// Its lane.
    pub lane: Arc<Lane>,
    /// Records not handed to the lane yet.
    pub chunk: Chunk,
    /// The next offset that may come.
    pub expected: Offset,
    /// The group offset committed last.
    pub hinted: Offset,
    flushed_at: Instant,
}

impl Slot {
    /// Hands the records to the lane.
    pub fn flush(&mut self, shared: &Shared) {
        self.flushed_at = Instant::now();
        if !self.chunk.is_empty() {
            let empty = Chunk::new(shared.rules.memory.hold());
            self.lane.push(Work::Records(std::mem::replace(&mut self.chunk, empty)));
        }
    }

    /// Hands them on if they have waited for `age`.
    pub fn flush_if_older(&mut self, shared: &Shared, age: Duration) {
        if self.flushed_at.elapsed() >= age {
            self.flush(shared);
        }
    }
}

/// The partitions of one consumer.
#[derive(Debug, Default)]
pub struct Slots {
    topics: HashMap<String, HashMap<i32, Slot>>,
    stopped: Vec<(String, i32)>,
    failure: Option<Error>,
}

impl Slots {
    /// The slot of a partition that is being read.
    pub fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Slot> {
        self.topics.get_mut(topic)?.get_mut(&partition)
    }

    /// All of them.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.topics.values_mut().flat_map(HashMap::values_mut)
    }

    /// Whether nothing is being read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.values().all(HashMap::is_empty)
    }

    /// Partitions that wait for an operator.
    #[must_use]
    pub fn stopped(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in &self.stopped {
            list.add_partition(topic, *partition);
        }
        list
    }

    /// The first failure of the consumer or one of its lanes.
    pub fn take_failure(&mut self) -> Option<Error> {
        let of_lane = self.all().find_map(|slot| slot.lane.status().failure);
        self.failure.take().or_else(|| of_lane.map(|failure| Error::new(failure.kind, failure.message)))
    }

    /// Takes everything out.
    pub fn take_all(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.topics).into_values().flat_map(HashMap::into_values).collect()
    }

    /// Takes these out: what was read, and what waited for an operator.
    fn take(&mut self, list: &TopicPartitionList) -> (Vec<Slot>, Vec<(String, i32)>) {
        let (mut taken, mut waited) = (Vec::new(), Vec::new());
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            waited.extend(self.stopped.extract_if(.., |(t, p)| (t.as_str(), *p) == (topic, partition)));
            taken.extend(self.topics.get_mut(topic).and_then(|p| p.remove(&partition)));
        }
        (taken, waited)
    }

    /// Drains slots together until `deadline`, abandons what is left, and returns how far each one's chain came, and
    /// what failed on the way.
    pub fn close(slots: Vec<Slot>, deadline: Instant) -> (TopicPartitionList, Option<Error>) {
        let mut ends = TopicPartitionList::new();
        let mut failure = None;
        let mut lanes = Vec::new();
        for slot in slots {
            if !slot.chunk.is_empty() {
                slot.lane.push(Work::Records(slot.chunk));
            }
            slot.lane.push(Work::Seal(crate::rotate::Cause::Drain));
            lanes.push(slot.lane);
        }
        for lane in lanes {
            lane.drain(deadline);
            lane.end();
            failure = failure.or_else(|| lane.status().failure.map(|f| Error::new(f.kind, f.message)));
            let (topic, partition) = (lane.partition.topic.topic.as_str(), lane.partition.partition.0 as i32);
            let end = KafkaOffset::Offset(lane.status().committed as i64);
            if let Err(error) = ends.add_partition_offset(topic, partition, end) {
                tracing::debug!(%error, "cannot name an offset");
            }
        }
        (ends, failure)
    }
}

/// A consumer's context.
pub struct Membership {
    shared: Arc<Shared>,
    index: usize,
    slots: Mutex<Slots>,
    /// Whether the consumer reads nothing until there is memory: what it is given meanwhile is paused too.
    paused: AtomicBool,
    /// What librdkafka said with its last error.
    complaint: Mutex<String>,
}

impl Membership {
    /// The member of this number, which owns nothing yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index, slots: Mutex::default(), paused: AtomicBool::default(), complaint: Mutex::default() }
    }

    /// What librdkafka said with its last error.
    #[must_use]
    pub fn complaint(&self) -> String {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether everything is paused for memory.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Pauses everything that the consumer has, and what it will be given.
    ///
    /// # Errors
    /// `Unavailable`, from librdkafka.
    pub fn pause(&self, consumer: &BaseConsumer<Self>) -> Result<(), Error> {
        self.paused.store(true, Ordering::Relaxed);
        self.hold(consumer)
    }

    /// Lets the consumer read again.
    ///
    /// # Errors
    /// `Unavailable`, from librdkafka.
    pub fn resume(&self, consumer: &BaseConsumer<Self>) -> Result<(), Error> {
        self.paused.store(false, Ordering::Relaxed);
        let assignment = consumer.assignment().map_err(|e| failed("cannot ask for the assignment", e))?;
        consumer.resume(&assignment).map_err(|e| failed("cannot resume", e))?;
        self.hold(consumer)
    }

    /// Pauses what must not be read now: everything, or what waits for an operator.
    fn hold(&self, consumer: &BaseConsumer<Self>) -> Result<(), Error> {
        let mut held = self.slots().stopped();
        let mut of_memory = 0;
        if self.is_paused() {
            held = consumer.assignment().map_err(|e| failed("cannot ask for the assignment", e))?;
            of_memory = held.count();
        }
        if held.count() > 0 {
            consumer.pause(&held).map_err(|e| failed("cannot pause", e))?;
        }
        self.shared.metrics.paused(&self.shared.name, self.index, of_memory);
        Ok(())
    }

    /// What it owns. Never hold this across a poll: the callbacks take it.
    pub fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), Error> {
        let hints = consumer
            .committed_offsets(list.clone(), kafka::PATIENCE)
            .map_err(|e| failed("cannot ask for the group's offsets", e))?;
        let wanted = hints.elements().into_iter().map(|element| {
            let hint = match element.offset() {
                KafkaOffset::Offset(offset) => Some(offset as Offset),
                _ => None,
            };
            Ok((Topic::new(element.topic())?, Partition(element.partition() as u32), hint))
        });
        let wanted = wanted.collect::<Result<Vec<_>, Error>>()?;
        self.remember(&wanted);
        let decisions = self.shared.runtime.block_on(assign::decide(&self.shared, wanted))?;

        let mut starts = TopicPartitionList::new();
        let mut slots = self.slots();
        for ((topic, partition), decision) in decisions {
            let number = partition.0 as i32;
            let start = match decision {
                Decision::Start(origin, ledger) => {
                    let start = origin.start;
                    let lane = self.shared.open_lane(origin, *ledger);
                    let slot = Slot {
                        lane,
                        chunk: Chunk::new(self.shared.rules.memory.hold()),
                        expected: start,
                        hinted: 0,
                        flushed_at: Instant::now(),
                    };
                    slots.topics.entry(topic.to_string()).or_default().insert(number, slot);
                    KafkaOffset::Offset(start as i64)
                }
                Decision::Stop => {
                    slots.stopped.push((topic.to_string(), number));
                    KafkaOffset::End
                }
            };
            starts.add_partition_offset(topic.as_str(), number, start).map_err(|e| failed("cannot name a start", e))?;
        }
        drop(slots);
        consumer.incremental_assign(&starts).map_err(|e| failed("cannot take the assignment", e))?;
        self.hold(consumer)?;
        self.shared.state().joined.insert(self.index);
        self.shared.readiness.has(&self.shared.name, Part::Consumer(self.index));
        Ok(())
    }

    /// Keeps the group's offsets for those who cannot ask the chains.
    fn remember(&self, wanted: &[(Topic, Partition, Option<Offset>)]) {
        let mut state = self.shared.state();
        for (topic, partition, hint) in wanted {
            if let Some(hint) = hint {
                state.hints.insert(self.shared.partition(topic, *partition), *hint);
            }
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let (taken, waited) = self.slots().take(list);
        let lost = consumer.assignment_lost();
        tracing::info!(pipeline = %self.shared.name, partitions = taken.len(), lost, "partitions revoked");
        let deadline = Instant::now() + if lost { Duration::ZERO } else { REVOKE.min(self.shared.drain) };
        if lost {
            for slot in &taken {
                slot.lane.end();
            }
        }
        for (topic, number) in waited {
            if let Ok(topic) = Topic::new(topic) {
                self.shared.release(&self.shared.partition(&topic, Partition(number as u32)));
            }
        }
        let (ends, failure) = Slots::close(taken, deadline);
        if let Some(failure) = failure {
            self.slots().failure.get_or_insert(failure);
        }
        if !lost
            && ends.count() > 0
            && let Err(error) = consumer.commit(&ends, CommitMode::Sync)
        {
            tracing::debug!(%error, "the group offset, a hint, was not committed");
        }
        // What is paused for memory is fewer now, too.
        let given_up = consumer.incremental_unassign(list).map_err(|e| failed("cannot give partitions up", e));
        if let Err(error) = given_up.and_then(|()| self.hold(consumer)) {
            self.slots().failure.get_or_insert(error);
        }
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = reason.to_owned();
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = self.assigned(consumer, list) {
                // The reader ends with this and joins again; until then the protocol wants an answer.
                self.slots().failure.get_or_insert(error);
                let answer = consumer.incremental_assign(list).and_then(|()| consumer.pause(list));
                if let Err(error) = answer {
                    tracing::debug!(%error, "the assignment was not taken");
                }
            }
        } else {
            self.revoked(consumer, list);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "the group offset, a hint, was not committed");
        }
    }
}

fn failed(what: &str, error: KafkaError) -> Error {
    Error::unavailable(what).with_source(error)
}
