//! Names and positions. Each type checks its invariant once, at construction.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, TimeDelta, TimeZone, Timelike, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Declares a string newtype whose content was checked by `$check`.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Checks and wraps a ", $what, ".")]
            ///
            /// # Errors
            /// `Config`, naming the text and the rule it breaks.
            pub fn new(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                let check: fn(&str) -> std::result::Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(rule) => Err(Error::config(format!(concat!($what, " `{}` {}"), text, rule))),
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

/// The rule of Kafka topic names (`org.apache.kafka.common.internals.Topic`).
fn kafka_name(text: &str) -> std::result::Result<(), &'static str> {
    if text.is_empty() || text.len() > 249 {
        return Err("must have 1 to 249 characters");
    }
    if text == "." || text == ".." {
        return Err("must not be `.` or `..`");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err("may hold only ASCII letters, digits, `.`, `_` and `-`");
    }
    Ok(())
}

/// Athena's rule for identifiers: lower case letters, digits and underscore.
fn sql_name(text: &str) -> std::result::Result<(), &'static str> {
    if text.is_empty() || text.len() > 255 {
        return Err("must have 1 to 255 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err("may hold only lower-case ASCII letters, digits and `_`, as Athena requires");
    }
    Ok(())
}

/// Rule of names that others begin with, a dot behind them.
fn word(text: &str) -> std::result::Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("must have 1 to 64 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err("may hold only lower-case ASCII letters, digits and `_`");
    }
    Ok(())
}

/// Rule of pipeline and cluster names, which become parts of object keys.
fn slug(text: &str) -> std::result::Result<(), &'static str> {
    if text.is_empty() || text.len() > 100 {
        return Err("must have 1 to 100 characters");
    }
    if text.starts_with(['.', '-', '_'])
        || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        return Err("may hold only ASCII letters, digits, `.`, `_` and `-`, and starts with a letter or digit");
    }
    Ok(())
}

checked_name!(
    /// A Kafka topic.
    Topic, "topic", kafka_name
);
checked_name!(
    /// The name of a Kafka cluster in `firn.yaml`.
    ClusterName, "cluster", slug
);
checked_name!(
    /// The name of a pipeline.
    PipelineName, "pipeline", slug
);
checked_name!(
    /// A key that protects personal data; part of column names (`_key_people`).
    KeyName, "key", sql_name
);
checked_name!(
    /// A WebAssembly plug-in in `firn.yaml`; what the names of its functions begin with.
    PluginName, "plug-in", word
);
checked_name!(
    /// A column (or field of a struct column) of a destination table.
    ColumnName, "column", sql_name
);
checked_name!(
    /// A database (Glue database, Iceberg namespace of one level).
    DatabaseName, "database", sql_name
);
checked_name!(
    /// A table inside a database.
    TableName, "table", sql_name
);

/// A Kafka partition number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A Kafka offset; never negative.
pub type Offset = u64;

/// How often a topic was deleted and made again under the same name, as declared by the operator; 1 at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Default for Generation {
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A half-open, never empty range of offsets of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Offset, Offset)", into = "(Offset, Offset)")]
pub struct OffsetRange {
    start: Offset,
    end: Offset,
}

impl OffsetRange {
    /// The range `start..end`.
    ///
    /// # Errors
    /// `Data` when it would be empty.
    pub fn new(start: Offset, end: Offset) -> Result<Self> {
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(Error::data(format!("offset range {start}..{end} is empty")))
        }
    }

    /// First offset of the range.
    #[must_use]
    pub fn start(self) -> Offset {
        self.start
    }

    /// First offset after the range.
    #[must_use]
    pub fn end(self) -> Offset {
        self.end
    }

    /// Number of offsets; at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether `offset` lies in the range.
    #[must_use]
    pub fn contains(self, offset: Offset) -> bool {
        (self.start..self.end).contains(&offset)
    }

    /// The part both ranges share.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
impl TryFrom<(Offset, Offset)> for OffsetRange {
    type Error = Error;
    fn try_from((start, end): (Offset, Offset)) -> Result<Self> {
        Self::new(start, end)
    }
}
impl From<OffsetRange> for (Offset, Offset) {
    fn from(range: OffsetRange) -> Self {
        (range.start, range.end)
    }
}

/// Which incarnation of each topic is read: the first one of those that are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations(BTreeMap<Topic, Generation>);

impl Generations {
    /// The incarnation of a topic.
    #[must_use]
    pub fn of(&self, topic: &Topic) -> Generation {
        self.0.get(topic).copied().unwrap_or_default()
    }

    /// Those that were said, by topic.
    pub fn said(&self) -> impl Iterator<Item = (&Topic, Generation)> {
        self.0.iter().map(|(topic, generation)| (topic, *generation))
    }
}

impl FromIterator<(Topic, Generation)> for Generations {
    fn from_iter<I: IntoIterator<Item = (Topic, Generation)>>(said: I) -> Self {
        Self(said.into_iter().collect())
    }
}

/// One incarnation of a topic on a cluster: what offsets belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicRef {
    /// The cluster's name in `firn.yaml`.
    pub cluster: ClusterName,
    /// The topic.
    pub topic: Topic,
    /// Which incarnation of the topic.
    pub generation: Generation,
}

impl fmt::Display for TopicRef {
    /// `cluster/topic/generation`; [`FromStr`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.topic, self.generation)
    }
}
impl FromStr for TopicRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::data(format!("`{text}` is not `cluster/topic/generation`"));
        let mut parts = text.split('/');
        let (Some(cluster), Some(topic), Some(generation), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok(Self {
            cluster: ClusterName::new(cluster)?,
            topic: Topic::new(topic)?,
            generation: Generation(generation.parse().map_err(|_| bad())?),
        })
    }
}

/// One partition of one incarnation of a topic: what a manifest chain belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionRef {
    /// The topic.
    pub topic: TopicRef,
    /// The partition.
    pub partition: Partition,
}

impl fmt::Display for PartitionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// A full hour of event time, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventHour(i64);

impl EventHour {
    /// The hour that holds `time`.
    #[must_use]
    pub fn of(time: DateTime<Utc>) -> Self {
        Self(time.timestamp().div_euclid(3600))
    }

    /// Before every hour that has a date.
    pub const MIN: Self = Self(i64::MIN);
    /// After every hour that has a date.
    pub const MAX: Self = Self(i64::MAX);

    /// The hour with this number of hours since 1970-01-01T00:00Z (Iceberg's `hour` transform).
    #[must_use]
    pub fn from_epoch_hours(hours: i64) -> Self {
        Self(hours)
    }

    /// Hours since 1970-01-01T00:00Z.
    #[must_use]
    pub fn epoch_hours(self) -> i64 {
        self.0
    }

    /// First instant of the hour.
    #[must_use]
    pub fn start(self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0 * 3600, 0).unwrap_or_default()
    }

    /// First instant after the hour.
    #[must_use]
    pub fn end(self) -> DateTime<Utc> {
        self.start() + TimeDelta::hours(1)
    }

    /// The hour after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The UTC date of the hour.
    #[must_use]
    pub fn date(self) -> NaiveDate {
        self.start().date_naive()
    }

    /// Hour of the day, 0 to 23.
    #[must_use]
    pub fn hour(self) -> u32 {
        self.start().hour()
    }

    /// The hour of a date.
    #[must_use]
    pub fn from_date_hour(date: NaiveDate, hour: u32) -> Option<Self> {
        Some(Self::of(Utc.from_utc_datetime(&date.and_hms_opt(hour, 0, 0)?)))
    }
}

impl fmt::Display for EventHour {
    /// `2026-11-22T07`; [`FromStr`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start().format("%Y-%m-%dT%H"))
    }
}
impl FromStr for EventHour {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::data(format!("`{text}` is not an event hour such as 2026-11-22T07"));
        let (date, hour) = text.split_once('T').ok_or_else(bad)?;
        let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").map_err(|_| bad())?;
        Self::from_date_hour(date, hour.parse().map_err(|_| bad())?).ok_or_else(bad)
    }
}
impl TryFrom<String> for EventHour {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<EventHour> for String {
    fn from(hour: EventHour) -> Self {
        hour.to_string()
    }
}

/// The identity of one compactor run; time-ordered (UUID v7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub uuid::Uuid);

impl RunId {
    /// A new identity.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "every call gives another identity")]
    pub fn new() -> Self {
        Self(uuid::Uuid::now_v7())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
