//! How far a table has consumed its topics.
//!
//! A [`Position`] is the next offset to read, per partition of every topic incarnation. It lies on a batch boundary of the
//! manifest chain, travels in the snapshot summary (`firn.position`) as compact JSON
//! (`{"events/github.events/1":{"0":812,"1":790}}`), and never goes backwards in a commit of ours.

use std::collections::BTreeMap;

use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, Partition, PartitionRef, TopicRef};
use serde::{Deserialize, Serialize};

/// Next offset to read, per partition; a partition that is not named has not been read at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Position(BTreeMap<TopicRef, BTreeMap<Partition, Offset>>);

/// The JSON form: topic incarnations as text, because JSON keys are text.
type Text = BTreeMap<String, BTreeMap<Partition, Offset>>;

impl TryFrom<Text> for Position {
    type Error = Error;
    fn try_from(text: Text) -> Result<Self> {
        let topics = text.into_iter().map(|(topic, parts)| Ok((topic.parse()?, parts)));
        Ok(Self(topics.collect::<Result<_>>()?))
    }
}

impl From<Position> for Text {
    fn from(position: Position) -> Self {
        position.0.into_iter().map(|(topic, parts)| (topic.to_string(), parts)).collect()
    }
}

impl Position {
    /// Nothing has been read.
    pub fn start() -> Self {
        Self::default()
    }

    /// The next offset of a partition; `None` when none of it has been read.
    pub fn get(&self, partition: &PartitionRef) -> Option<Offset> {
        self.0.get(&partition.topic)?.get(&partition.partition).copied()
    }

    /// Moves a partition forward.
    ///
    /// # Errors
    /// `Bug` when it would move back.
    pub fn advance(&mut self, partition: &PartitionRef, to: Offset) -> Result<()> {
        let slot = self.0.entry(partition.topic.clone()).or_default().entry(partition.partition).or_insert(to);
        if *slot > to {
            return Err(Error::bug(format!("position of {partition} would go back from {slot} to {to}")));
        }
        *slot = to;
        Ok(())
    }

    /// All partitions, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionRef, Offset)> + '_ {
        self.0.iter().flat_map(|(topic, parts)| {
            parts.iter().map(move |(p, o)| (PartitionRef { topic: topic.clone(), partition: *p }, *o))
        })
    }

    /// Whether nothing has been read.
    pub fn is_start(&self) -> bool {
        self.0.values().all(BTreeMap::is_empty)
    }

    /// Whether no partition of `self` lies before where `earlier` has it, and none is missing.
    pub fn is_at_or_after(&self, earlier: &Self) -> bool {
        earlier.iter().all(|(partition, offset)| self.get(&partition).is_some_and(|mine| mine >= offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(topic: u8, partition: u32) -> PartitionRef {
        let topic = format!("events/topic-{topic}/1").parse().expect("topic");
        PartitionRef { topic, partition: Partition(partition) }
    }

    #[test]
    fn json_is_keyed_by_topic_incarnation() {
        let mut position = Position::start();
        position.advance(&partition(1, 0), 812).expect("forward");
        let json = serde_json::to_string(&position).expect("json");
        assert_eq!(json, r#"{"events/topic-1/1":{"0":812}}"#);
        assert_eq!(serde_json::from_str::<Position>(&json).expect("position"), position);
    }

    #[test]
    fn going_back_is_refused() {
        let mut position = Position::start();
        position.advance(&partition(1, 0), 9).expect("forward");
        position.advance(&partition(1, 0), 9).expect("standing still is no step back");
        assert!(position.advance(&partition(1, 0), 8).is_err());
    }

    proptest! {
        #[test]
        fn advancing_reaches_the_largest_offset_and_stays_at_or_after(
            steps in prop::collection::vec((0u8..3, 0u32..3, 0u64..50), 0..40)
        ) {
            let mut position = Position::start();
            for (t, p, offset) in steps {
                let before = position.clone();
                let at = partition(t, p);
                let held = position.get(&at).unwrap_or(0);
                prop_assert_eq!(position.advance(&at, offset).is_ok(), offset >= held);
                prop_assert!(position.is_at_or_after(&before));
                prop_assert_eq!(position.get(&at).unwrap_or(0), held.max(offset));
            }
            let json = serde_json::to_string(&position).expect("json");
            prop_assert_eq!(serde_json::from_str::<Position>(&json).expect("position"), position);
        }
    }
}
