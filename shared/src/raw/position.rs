//! Where to read on when a partition is assigned: decided from its chain and from what Kafka says, by rule and without IO.
//! The group's committed offset has no say: it only helps to find the chain's end.

use std::fmt;

use crate::error::{Error, Result};
use crate::ids::{Generation, Offset, OffsetRange, PartitionRef};
use crate::raw::manifest::GapReason;

/// What the chain knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainState<'a> {
    /// First offset that no manifest accounts for.
    pub end: Offset,
    /// The topic's id in the last manifest that had one.
    pub topic_id: Option<&'a str>,
}

/// What the broker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KafkaState<'a> {
    /// First offset that Kafka still holds.
    pub low: Offset,
    /// Offset that the next record will get.
    pub high: Offset,
    /// The topic's id, when the broker tells one.
    pub topic_id: Option<&'a str>,
}

/// What to do on assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// Read on where the chain ends.
    Resume(Offset),
    /// Kafka no longer holds these offsets: append them as a gap for that reason, then read from its end. A chain
    /// begins at offset 0, so the first one of a topic with history has a gap too, which is no loss.
    DeclareGap(OffsetRange, GapReason),
    /// There is no chain and nothing has expired: read from this offset, which is 0.
    Start(Offset),
}

/// Why a partition must not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The topic was deleted and made again under its name.
    Recreated {
        /// How that is known.
        evidence: Evidence,
    },
    /// Its generation was raised, but it is the topic that an earlier one has read.
    NotRecreated {
        /// Which one.
        earlier: Generation,
        /// The id that both have.
        topic_id: String,
    },
}

/// How a recreated topic is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Kafka's id is not the one in the chain.
    TopicId {
        /// In the chain.
        chain: String,
        /// Kafka's.
        kafka: String,
    },
    /// Kafka's end lies before the chain's.
    EndBehind {
        /// The chain's end.
        chain: Offset,
        /// Kafka's end.
        kafka: Offset,
    },
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopicId { chain, kafka } => write!(f, "its id was {chain} and is {kafka}"),
            Self::EndBehind { chain, kafka } => {
                write!(f, "it ends at offset {kafka}, but offsets up to {chain} were read")
            }
        }
    }
}

impl Refused {
    /// The error that stops the topic and tells the operator what to do.
    #[must_use]
    pub fn into_error(self, partition: &PartitionRef) -> Error {
        let topic = &partition.topic;
        Error::config(match self {
            Self::Recreated { evidence } => format!(
                "cannot read {partition}: the topic was deleted and made again ({evidence}); write `generation: {{{}: {}}}` \
                 to begin a new chain, what was read before stays",
                topic.topic,
                topic.generation.0 + 1
            ),
            Self::NotRecreated { earlier, topic_id } => format!(
                "cannot read {partition}: the topic was not made again, its id is {topic_id} as in generation {earlier}, and \
                 all of it would land a second time; write `generation: {{{}: {earlier}}}` to go on where that one ended",
                topic.topic
            ),
        })
    }
}

/// Decides what to do with a partition. `earlier` is the last generation before this one that knew an id of the topic,
/// and that id.
///
/// # Errors
/// `Config`, when reading on would mix two incarnations of a topic; the message says what to do.
pub fn on_assignment(
    partition: &PartitionRef,
    chain: Option<ChainState<'_>>,
    earlier: Option<(Generation, &str)>,
    kafka: KafkaState<'_>,
) -> Result<Assignment> {
    decide(chain, earlier, kafka).map_err(|refused| refused.into_error(partition))
}

/// The rule itself.
///
/// # Errors
/// Why the partition must not be read.
pub fn decide(
    chain: Option<ChainState<'_>>,
    earlier: Option<(Generation, &str)>,
    kafka: KafkaState<'_>,
) -> std::result::Result<Assignment, Refused> {
    let Some(chain) = chain else {
        if let Some((earlier, topic_id)) = earlier
            && kafka.topic_id == Some(topic_id)
        {
            return Err(Refused::NotRecreated { earlier, topic_id: topic_id.to_owned() });
        }
        return match OffsetRange::new(0, kafka.low) {
            Ok(expired) => Ok(Assignment::DeclareGap(expired, GapReason::BeforeFirstRead)),
            Err(_) => Ok(Assignment::Start(0)),
        };
    };
    if let (Some(was), Some(is)) = (chain.topic_id, kafka.topic_id)
        && was != is
    {
        let evidence = Evidence::TopicId { chain: was.to_owned(), kafka: is.to_owned() };
        return Err(Refused::Recreated { evidence });
    }
    if kafka.high < chain.end {
        return Err(Refused::Recreated { evidence: Evidence::EndBehind { chain: chain.end, kafka: kafka.high } });
    }
    match OffsetRange::new(chain.end, kafka.low) {
        Ok(expired) => Ok(Assignment::DeclareGap(expired, GapReason::Expired)),
        Err(_) => Ok(Assignment::Resume(chain.end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Partition;

    fn chain(end: Offset, topic_id: Option<&str>) -> ChainState<'_> {
        ChainState { end, topic_id }
    }

    fn kafka(low: Offset, high: Offset, topic_id: Option<&str>) -> KafkaState<'_> {
        KafkaState { low, high, topic_id }
    }

    #[test]
    fn every_meeting_of_chain_and_kafka_has_one_answer() {
        use Assignment::{DeclareGap, Resume, Start};
        let range = |start, end| OffsetRange::new(start, end).unwrap();
        let cases = [
            ("an empty topic", None, kafka(0, 0, None), Start(0)),
            ("a topic never read", None, kafka(0, 9, Some("A")), Start(0)),
            ("never read, with history", None, kafka(4, 9, None), DeclareGap(range(0, 4), GapReason::BeforeFirstRead)),
            ("a restart", Some(chain(5, Some("A"))), kafka(0, 9, Some("A")), Resume(5)),
            ("nothing new", Some(chain(9, Some("A"))), kafka(0, 9, Some("A")), Resume(9)),
            ("retention just behind us", Some(chain(5, None)), kafka(5, 9, None), Resume(5)),
            ("everything expired, all read", Some(chain(9, None)), kafka(9, 9, None), Resume(9)),
            (
                "retention ahead of us",
                Some(chain(5, None)),
                kafka(7, 9, None),
                DeclareGap(range(5, 7), GapReason::Expired),
            ),
            ("a broker that tells no id", Some(chain(5, Some("A"))), kafka(0, 9, None), Resume(5)),
            ("a chain from before ids", Some(chain(5, None)), kafka(0, 9, Some("A")), Resume(5)),
        ];
        for (what, chain, kafka, expected) in cases {
            assert_eq!(decide(chain, None, kafka), Ok(expected), "{what}");
        }
    }

    #[test]
    fn a_recreated_topic_stops_with_the_way_out() {
        let partition = PartitionRef { topic: "events/t/1".parse().unwrap(), partition: Partition(2) };
        let error = on_assignment(&partition, Some(chain(5, Some("A"))), None, kafka(0, 9, Some("B"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read events/t/1[2]: the topic was deleted and made again (its id was A and is B); write \
             `generation: {t: 2}` to begin a new chain, what was read before stays"
        );
        let error = on_assignment(&partition, Some(chain(5, Some("A"))), None, kafka(0, 4, Some("A"))).unwrap_err();
        assert!(error.to_string().contains("(it ends at offset 4, but offsets up to 5 were read)"), "{error}");
    }

    #[test]
    fn a_generation_raised_without_need_lands_nothing_a_second_time() {
        let partition = PartitionRef { topic: "events/t/3".parse().unwrap(), partition: Partition(2) };
        let begin = |earlier: Option<&'static str>, now: Option<&'static str>| {
            let earlier = earlier.map(|id| (Generation(1), id));
            on_assignment(&partition, None, earlier, kafka(0, 9, now))
        };
        assert_eq!(
            begin(Some("A"), Some("A")).unwrap_err().to_string(),
            "cannot read events/t/3[2]: the topic was not made again, its id is A as in generation 1, and all of it would \
             land a second time; write `generation: {t: 1}` to go on where that one ended"
        );
        for (earlier, now) in [(Some("A"), Some("B")), (Some("A"), None), (None, Some("A"))] {
            assert_eq!(begin(earlier, now).unwrap(), Assignment::Start(0), "{earlier:?} {now:?}");
        }
    }
}
