//! Record batches that cannot be read: bytes that rotted on a broker's disk, a codec that nobody knows.
//!
//! librdkafka passes over a batch whose checksum is wrong, and asks again and again for one that it cannot decompress; it
//! says so once, without naming the partition to us. Neither loss nor standing still in silence will do, so the reader
//! gives up at once, before it takes anything that comes after, and looks here which partition it was: that one is stopped
//! before the damage until an operator acts, the others go on.

use std::time::{Duration, Instant};

use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, PartitionRef};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use crate::kafka::{Logged, PATIENCE};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// A place from which Kafka cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The partition.
    pub partition: PartitionRef,
    /// Everything below has been read.
    pub offset: Offset,
    /// What librdkafka says.
    pub why: String,
}

/// Whether this error of a consumer is about what is in a partition, and will not go away by itself.
#[must_use]
pub fn is_damage(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::NotImplemented
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::MessageSizeTooLarge
    )
}

/// Puts those first that what was said names.
pub fn order(suspects: &mut [(PartitionRef, Offset)], said: &str) {
    suspects.sort_by_key(|(_, offset)| !said.contains(&format!("offset {offset} ")));
}

/// The first of these places from which Kafka cannot be read; `None` when all can. Blocks.
///
/// # Errors
/// `Config` when librdkafka refuses the properties.
pub fn find(mut member: ClientConfig, suspects: Vec<(PartitionRef, Offset)>) -> Result<Option<Damage>> {
    // Assigned by hand: it joins no group.
    member.set("enable.partition.eof", "true");
    for (partition, offset) in suspects {
        if let Some(why) = read(&member, &partition, offset)? {
            return Ok(Some(Damage { partition, offset, why }));
        }
    }
    Ok(None)
}

/// What is wrong with the first thing that a reader gets from `offset` on.
fn read(config: &ClientConfig, partition: &PartitionRef, offset: Offset) -> Result<Option<String>> {
    let failed = |e: KafkaError| Error::config("librdkafka refuses to read one partition").with_source(e);
    let consumer: BaseConsumer<Logged> = config.create_with_context(Logged::default()).map_err(failed)?;
    let mut place = TopicPartitionList::new();
    let (topic, number) = (partition.topic.topic.as_str(), partition.partition.0 as i32);
    place.add_partition_offset(topic, number, KafkaOffset::Offset(offset as i64)).map_err(failed)?;
    consumer.assign(&place).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match consumer.poll(POLL) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(KafkaError::MessageConsumption(code))) if is_damage(code) => {
                return Ok(Some(consumer.context().complaint().unwrap_or_else(|| code.to_string())));
            }
            Some(Err(error)) => tracing::debug!(%partition, %error, "kafka"),
            None => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use firn_shared::ids::Partition;

    use super::*;

    #[test]
    fn whom_the_complaint_names_is_looked_at_first() {
        let at =
            |number, offset| (PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(number) }, offset);
        let mut suspects = [at(0, 1), at(1, 12), at(2, 120)];
        order(&mut suspects, "MessageSet at offset 12 (345 bytes) failed CRC32C check");
        assert_eq!(suspects.map(|(partition, _)| partition.partition.0), [1, 0, 2]);
    }
}
