//! One assigned partition: the order of its work, from chunks of records to sealed batches.
//!
//! A reader pushes [`Work`]; the processors take it in turns, one turn per lane at a time, so that offsets stay in
//! order; sealed batches go to the lane's committer (`commit.rs`) through a channel of [`SEALED_AHEAD`] places. When it
//! is full the batch stays open and grows until memory stops the reader.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use firn_shared::clock::Clock;
use firn_shared::crypto::{Guard, Scratch};
use firn_shared::error::{Error, ErrorKind};
use firn_shared::ids::{Offset, PartitionRef};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Sealed, Stamp};
use crate::chunk::{Chunk, RecordView};
use crate::cpu::{self, Cpu};
use crate::memory::Memory;
use crate::metrics::PartitionMetrics;
use crate::rotate::{self, Cause, Limits};
use firn_shared::raw::admit::{Admission, Facts, Verdict};
use firn_shared::raw::envelope::{LineWriter, Record};

/// Batches that may wait for their upload.
pub const SEALED_AHEAD: usize = 2;

/// Something to do for a partition, in order.
#[derive(Debug)]
pub enum Work {
    /// Take in these records.
    Records(Chunk),
    /// The consumer has passed everything below this position.
    Position(Offset),
    /// Kafka's end of the partition was this at that time.
    End(Offset, DateTime<Utc>),
    /// Kafka's id of the topic, which nobody knew when the lane began.
    TopicId(String),
    /// Look whether the batch is due.
    Tick,
    /// Close the batch whatever its size.
    Seal(Cause),
}

/// What a lane hands to its committer.
#[derive(Debug)]
pub enum Outgoing {
    /// A closed batch.
    Batch(Box<Sealed>),
    /// Nothing is open, and everything was read when Kafka's end was last seen.
    Idle {
        /// End of the chain once every batch before this is appended.
        end: Offset,
        /// The partition's watermark.
        watermark: Option<DateTime<Utc>>,
        /// When everything had been read.
        caught_up_at: DateTime<Utc>,
    },
}

/// Why a lane ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self { kind: error.kind(), message: format!("{error}{cause}") }
    }
}

/// What the reader and the supervisor see of a lane.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// End of the chain: everything below is safe.
    pub committed: Offset,
    /// Everything below has been taken in.
    pub taken: Offset,
    /// Bytes of the open batch.
    pub open_bytes: u64,
    /// When the open batch got its first offset.
    pub opened_at: Option<DateTime<Utc>>,
    /// Batches on their way up.
    pub sealed: usize,
    /// Largest event time seen.
    pub watermark: Option<DateTime<Utc>>,
    /// When everything had been read.
    pub caught_up_at: Option<DateTime<Utc>>,
    /// Set once; the lane does nothing more.
    pub failure: Option<Failure>,
    /// Progress has been written up to this time.
    pub progress_at: Option<DateTime<Utc>>,
}

/// What is the same for all lanes of a pipeline.
#[derive(Debug)]
pub struct LaneRules {
    /// Which records pass.
    pub admission: Admission,
    /// What is protected before it is uploaded; `None` when nothing is.
    pub guard: Option<Guard>,
    /// When batches close.
    pub limits: Limits,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The processors.
    pub cpu: Cpu,
    /// The bound.
    pub memory: Arc<Memory>,
    /// Bytes of a compressed frame's lines.
    pub frame: usize,
    /// Lateness after which hours are sealed.
    pub late_allowed: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    work: VecDeque<Work>,
    running: bool,
}

/// The batch, and whether somebody asked to close it.
#[derive(Debug)]
struct Open {
    batch: Batch,
    asked: Option<Cause>,
    scratch: Scratch,
}

/// An assigned partition.
#[derive(Debug)]
pub struct Lane {
    /// The partition.
    pub partition: PartitionRef,
    topic_id: OnceLock<String>,
    /// Its metrics.
    pub metrics: PartitionMetrics,
    rules: Arc<LaneRules>,
    writer: LineWriter,
    queue: Mutex<Queue>,
    open: Mutex<Open>,
    outgoing: mpsc::Sender<Outgoing>,
    status: Mutex<Status>,
    changed: Condvar,
    ended: CancellationToken,
}

/// Where a lane begins.
#[derive(Debug)]
pub struct Origin {
    /// The partition.
    pub partition: PartitionRef,
    /// Kafka's id of the topic, as far as the chain or the broker knows it.
    pub topic_id: Option<String>,
    /// End of the chain.
    pub start: Offset,
    /// The chain's watermark.
    pub watermark: Option<DateTime<Utc>>,
}

impl Lane {
    /// A lane that begins at the end of its chain, and the channel its committer reads.
    #[must_use]
    pub fn new(
        rules: Arc<LaneRules>,
        origin: Origin,
        metrics: PartitionMetrics,
    ) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (outgoing, receiver) = mpsc::channel(SEALED_AHEAD);
        let Origin { partition, topic_id, start, watermark } = origin;
        let identity = uuid::Uuid::new_v4().simple().to_string();
        let space = (Arc::clone(&rules.memory), rules.frame);
        let batch = Batch::new(partition.clone(), topic_id.clone(), identity, space, start, watermark);
        let lane = Self {
            writer: LineWriter::new(&partition.topic.topic, partition.partition),
            partition,
            topic_id: topic_id.map_or_else(OnceLock::new, OnceLock::from),
            metrics,
            rules,
            queue: Mutex::default(),
            open: Mutex::new(Open { batch, asked: None, scratch: Scratch::default() }),
            outgoing,
            status: Mutex::new(Status { committed: start, taken: start, watermark, ..Status::default() }),
            changed: Condvar::new(),
            ended: CancellationToken::new(),
        };
        (Arc::new(lane), receiver)
    }

    /// Queues work; never blocks. What it holds is bounded by the memory its chunks are counted against.
    pub fn push(self: &Arc<Self>, work: Work) {
        let mut queue = lock(&self.queue);
        queue.work.push_back(work);
        if !std::mem::replace(&mut queue.running, true) {
            let lane = Arc::clone(self);
            self.rules.cpu.spawn(move || lane.turn());
        }
    }

    /// One turn on the processors: one piece of work, then the others' turn.
    fn turn(self: Arc<Self>) {
        let work = lock(&self.queue).work.pop_front();
        if let Some(work) = work
            && !self.ended.is_cancelled()
            && lock(&self.status).failure.is_none()
        {
            // A panic is this lane's failure and nobody else's: what it left half done goes with the lane.
            let done = catch_unwind(AssertUnwindSafe(|| self.process(work)));
            if let Err(error) = done.unwrap_or_else(|panic| Err(cpu::panicked(&self.partition.to_string(), &*panic))) {
                self.fail(error);
            }
        }
        let mut queue = lock(&self.queue);
        if queue.work.is_empty() {
            queue.running = false;
            drop(queue);
            self.changed.notify_all();
        } else {
            drop(queue);
            let cpu = self.rules.cpu.clone();
            cpu.spawn(move || self.turn());
        }
    }

    fn process(&self, work: Work) -> Result<(), Error> {
        let now = self.rules.clock.now();
        let mut open = lock(&self.open);
        let Open { batch, asked, scratch } = &mut *open;
        match work {
            Work::Records(chunk) => {
                if let Some(guard) = &self.rules.guard {
                    guard.warm(chunk.records().filter_map(|record| record.payload()))?;
                }
                for record in chunk.records() {
                    self.take(batch, &record, now, scratch)?;
                }
            }
            Work::Position(position) => batch.skip_to(position, now),
            Work::End(end, at) => batch.observe_end(end, at),
            Work::TopicId(id) => batch.know_topic(id),
            Work::Tick => {}
            Work::Seal(why) => *asked = Some(why),
        }
        let insist = *asked == Some(Cause::Drain);
        if let Some(cause) = asked.or_else(|| rotate::due(batch.shape(), self.rules.limits, now))
            && self.seal(batch, cause, now)?
        {
            *asked = None;
        }
        self.rest(batch, insist);
        self.publish(batch);
        Ok(())
    }

    fn take(
        &self,
        batch: &mut Batch,
        view: &RecordView<'_>,
        now: DateTime<Utc>,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let payload = view.payload();
        let offset = view.offset();
        let guard = self.rules.guard.as_ref();
        let key = match (view.key(), guard) {
            (Some(key), Some(guard)) => Some(guard.protect_key(key, scratch)?),
            (key, _) => key.map(Cow::Borrowed),
        };
        let record = Record { offset, timestamp: view.timestamp(), key: key.as_deref(), headers: view.headers() };
        let (timestamp, beside, flaw) = (view.timestamp(), view.bytes_beside(), view.flaw());
        let kafka_time = timestamp.and_then(DateTime::from_timestamp_millis);
        match self.rules.admission.judge_whole(Facts { payload, timestamp, beside, flaw }, batch.watermark()) {
            Verdict::Admitted { event, time, hour } => {
                let stamp = Stamp { offset, event_time: Some(time), kafka_time, tombstone: payload.is_none() };
                let payload = match (payload, guard) {
                    (Some(payload), Some(guard)) => Some(guard.protect(payload, scratch)?),
                    (payload, _) => payload.map(Cow::Borrowed),
                };
                let payload = payload.as_deref();
                batch.record(stamp, hour, now, |line| self.writer.record(line, record, event.as_deref(), payload))
            }
            Verdict::Refused { reason, detail, time } => {
                let stamp = Stamp { offset, event_time: time, kafka_time, tombstone: payload.is_none() };
                let payload = match (payload, guard) {
                    (Some(payload), Some(guard)) => Some(guard.protect_unknown(payload, scratch)?),
                    (payload, _) => payload.map(Cow::Borrowed),
                };
                let payload = payload.as_deref();
                batch.refuse(stamp, reason, now, |line| self.writer.refused(line, record, (reason, &detail), payload))
            }
        }
    }

    /// Closes the batch if there is a place for it; else the committer ticks this lane when there is.
    fn seal(&self, batch: &mut Batch, cause: Cause, now: DateTime<Utc>) -> Result<bool, Error> {
        let Ok(place) = self.outgoing.try_reserve() else { return Ok(false) };
        if let Some(sealed) = batch.seal(now)? {
            self.metrics.sealed(cause);
            lock(&self.status).sealed += 1;
            place.send(Outgoing::Batch(Box::new(sealed)));
        }
        Ok(true)
    }

    /// Lets an idle partition say that it is caught up.
    fn rest(&self, batch: &Batch, insist: bool) {
        let Some(caught_up_at) = batch.caught_up_at().filter(|_| batch.is_empty()) else { return };
        let due = rotate::progress_due(self.status().progress_at, caught_up_at, self.rules.late_allowed);
        if (due || insist)
            && let Ok(place) = self.outgoing.try_reserve()
        {
            let mut status = lock(&self.status);
            status.progress_at = Some(caught_up_at);
            status.sealed += 1;
            place.send(Outgoing::Idle { end: batch.next(), watermark: batch.watermark(), caught_up_at });
        }
    }

    fn publish(&self, batch: &Batch) {
        let mut status = lock(&self.status);
        status.taken = batch.next();
        status.open_bytes = batch.held_bytes();
        status.opened_at = batch.shape().opened_at;
        status.watermark = batch.watermark();
        status.caught_up_at = batch.caught_up_at();
        drop(status);
        self.changed.notify_all();
    }

    /// A copy of what is known.
    #[must_use]
    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// The committer has finished one thing; `end` is the chain's end now.
    pub fn done(self: &Arc<Self>, end: Offset) {
        let mut status = lock(&self.status);
        status.sealed = status.sealed.saturating_sub(1);
        status.committed = end;
        drop(status);
        self.changed.notify_all();
        self.push(Work::Tick);
    }

    /// Ends the lane: the reader drops it and starts again from the chain.
    pub fn fail(&self, failure: impl Into<Failure>) {
        let mut status = lock(&self.status);
        status.failure.get_or_insert(failure.into());
        drop(status);
        self.changed.notify_all();
    }

    /// Ends the lane: nothing is appended any more. What was not appended the partition's next owner reads again.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Waits for the end.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Compares what Kafka says of the topic now with what was known of it: the id, once it is known, stays.
    ///
    /// # Errors
    /// `Unavailable` when the topic was made again: the assignment that follows stops it and says what to do.
    pub fn check_topic(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        if self.topic_id.set(id.to_owned()).is_ok() {
            self.push(Work::TopicId(id.to_owned()));
        }
        match self.topic_id.get() {
            Some(known) if known != id => {
                Err(Error::unavailable(format!("{}: the topic was made again", self.partition)))
            }
            _ => Ok(()),
        }
    }

    /// Waits until everything pushed so far is sealed and appended, or `deadline`; says whether it is.
    pub fn drain(self: &Arc<Self>, deadline: Instant) -> bool {
        self.push(Work::Seal(Cause::Drain));
        loop {
            // The queue first: once it is quiet, the status is final.
            let quiet = self.is_quiet();
            let status = lock(&self.status);
            if status.failure.is_some() {
                return false;
            }
            if quiet && status.is_drained() {
                return true;
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return false;
            }
            let wait = self.changed.wait_timeout(status, patience.min(Duration::from_millis(50)));
            drop(wait.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn is_quiet(&self) -> bool {
        let queue = lock(&self.queue);
        queue.work.is_empty() && !queue.running
    }
}

impl Status {
    /// Whether nothing is open or on its way.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.opened_at.is_none() && self.sealed == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
