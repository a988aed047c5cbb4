//! Rows of live data files, with projection, deletes applied, and files that cannot matter left out.
//!
//! [`Rows`] says which rows are meant by where they came from; [`rows`] streams the record batches of the files that may
//! hold them.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::str::FromStr;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, BooleanArray, RecordBatch, StructArray};
use chrono::DateTime;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, OffsetRange, PartitionRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DataFile, Datum, PartitionSpec, PrimitiveLiteral, Schema};
use iceberg::table::Table;

use super::scan::{LiveBatch, LiveFile, Prune, Reader, each_entry, live};
use crate::provenance;

/// Before and after everything that has an event time.
const FIRST_HOUR: &str = "0001-01-01T00";
const LAST_HOUR: &str = "9999-12-31T23";

/// Rows by where they came from; rows without provenance are never meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// Of the event hours `from..to`.
    Hours {
        /// First hour.
        from: EventHour,
        /// First hour after the range.
        to: EventHour,
    },
    /// Of these offsets.
    Offsets(Vec<(PartitionRef, OffsetRange)>),
    /// Those that both mean.
    Both(Box<Rows>, Box<Rows>),
    /// All of them.
    All,
}

impl Rows {
    /// Whether a file may hold such rows, as far as its bounds tell. `schema` is any schema with the file's field ids.
    #[must_use]
    pub fn may_be_in(&self, schema: &Schema, file: &DataFile) -> bool {
        let bounds = |field: &str| bounds(schema, file, field);
        match self {
            Self::All => true,
            Self::Both(one, other) => one.may_be_in(schema, file) && other.may_be_in(schema, file),
            Self::Hours { from, to } => {
                let last = to.start().timestamp_micros() - 1;
                numbers_meet(&bounds(provenance::EVENT_HOUR), from.start().timestamp_micros(), last)
            }
            Self::Offsets(ranges) => {
                let (topic, partition) = (bounds(provenance::TOPIC), bounds(provenance::PARTITION));
                let offset = bounds(provenance::OFFSET);
                ranges.iter().any(|(of, range)| {
                    let number = i64::from(of.partition.0);
                    text_meets(&topic, of.topic.topic.as_str()..=of.topic.topic.as_str())
                        && numbers_meet(&partition, number, number)
                        && numbers_meet(&offset, range.start() as i64, range.end() as i64 - 1)
                })
            }
        }
    }

    /// Which rows of a batch are meant, from its provenance column.
    ///
    /// # Errors
    /// `Data` when the column does not have the shape of ours.
    pub fn select(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let Some(column) = batch.column_by_name(provenance::COLUMN) else {
            return Err(Error::config(format!(
                "the table has no column {}; rows cannot be told apart",
                provenance::COLUMN
            )));
        };
        let origin = Origins::of(column.as_struct_opt().ok_or_else(wrong_shape)?)?;
        Ok((0..batch.num_rows()).map(|row| Some(self.holds(&origin, row))).collect())
    }

    fn holds(&self, origin: &Origins<'_>, row: usize) -> bool {
        if origin.column.is_null(row) {
            return false;
        }
        match self {
            Self::All => true,
            Self::Both(one, other) => one.holds(origin, row) && other.holds(origin, row),
            Self::Hours { from, to } => {
                (from.start().timestamp_micros()..to.start().timestamp_micros()).contains(&origin.hours.value(row))
            }
            Self::Offsets(ranges) => ranges.iter().any(|(of, range)| {
                origin.partitions.value(row) == of.partition.0 as i32
                    && range.contains(origin.offsets.value(row) as u64)
                    && origin.topics.value(row) == of.topic.topic.as_str()
                    && origin.generations.value(row) == of.topic.generation.0 as i32
                    && origin.clusters.value(row) == of.topic.cluster.as_str()
            }),
        }
    }
}

/// What a file's bounds say of a field of the provenance. `schema` is any schema with the file's field ids.
pub(crate) fn bounds(schema: &Schema, file: &DataFile, field: &str) -> (Option<Datum>, Option<Datum>) {
    let id = schema.field_id_by_name(&format!("{}.{field}", provenance::COLUMN));
    let of = |map: &HashMap<i32, Datum>| id.and_then(|id| map.get(&id).cloned());
    (of(file.lower_bounds()), of(file.upper_bounds()))
}

fn number(datum: Option<&Datum>) -> Option<i64> {
    match datum?.literal() {
        PrimitiveLiteral::Long(value) => Some(*value),
        PrimitiveLiteral::Int(value) => Some(i64::from(*value)),
        _ => None,
    }
}

/// Whether `low..=high` meets the bounds; unknown bounds meet everything.
fn numbers_meet((lower, upper): &(Option<Datum>, Option<Datum>), low: i64, high: i64) -> bool {
    number(lower.as_ref()).is_none_or(|lower| lower <= high) && number(upper.as_ref()).is_none_or(|upper| upper >= low)
}

/// The same for text; bounds may be shortened, which only makes them wider.
pub(crate) fn text_meets((lower, upper): &(Option<Datum>, Option<Datum>), texts: RangeInclusive<&str>) -> bool {
    let of = |datum: &Option<Datum>| match datum.as_ref().map(Datum::literal) {
        Some(PrimitiveLiteral::String(value)) => Some(value.clone()),
        _ => None,
    };
    of(lower).is_none_or(|lower| lower.as_str() <= *texts.end())
        && of(upper).is_none_or(|upper| upper.as_str() >= *texts.start())
}

fn wrong_shape() -> Error {
    Error::data(format!("column {} does not have the fields {:?}", provenance::COLUMN, provenance::FIELDS))
}

/// The provenance column, taken apart.
pub struct Origins<'a> {
    column: &'a StructArray,
    /// Cluster names.
    pub clusters: &'a arrow_array::StringArray,
    /// Topic names.
    pub topics: &'a arrow_array::StringArray,
    /// Topic incarnations.
    pub generations: &'a arrow_array::Int32Array,
    /// Kafka partitions.
    pub partitions: &'a arrow_array::Int32Array,
    /// Kafka offsets.
    pub offsets: &'a arrow_array::Int64Array,
    /// Numbers of rows among those of their record, where a record may have several.
    pub ordinals: Option<&'a arrow_array::Int32Array>,
    /// First instants of event hours, microseconds.
    pub hours: &'a arrow_array::TimestampMicrosecondArray,
}

impl<'a> Origins<'a> {
    /// Takes the column apart.
    ///
    /// # Errors
    /// `Data` when a field is missing or has another type.
    pub fn of(column: &'a StructArray) -> Result<Self> {
        let field = |name: &str| column.column_by_name(name).ok_or_else(wrong_shape);
        Ok(Self {
            column,
            clusters: field(provenance::CLUSTER)?.as_string_opt().ok_or_else(wrong_shape)?,
            topics: field(provenance::TOPIC)?.as_string_opt().ok_or_else(wrong_shape)?,
            generations: field(provenance::GENERATION)?.as_primitive_opt::<Int32Type>().ok_or_else(wrong_shape)?,
            partitions: field(provenance::PARTITION)?.as_primitive_opt::<Int32Type>().ok_or_else(wrong_shape)?,
            offsets: field(provenance::OFFSET)?.as_primitive_opt::<Int64Type>().ok_or_else(wrong_shape)?,
            ordinals: column.column_by_name(provenance::ORDINAL).and_then(|ordinals| ordinals.as_primitive_opt()),
            hours: field(provenance::EVENT_HOUR)?
                .as_primitive_opt::<TimestampMicrosecondType>()
                .ok_or_else(wrong_shape)?,
        })
    }

    /// The number of a row among those of its record, from 0.
    #[must_use]
    pub fn ordinal(&self, row: usize) -> u32 {
        self.ordinals.map_or(0, |ordinals| ordinals.value(row).unsigned_abs())
    }

    /// How many of `rows` came from each partition. Rows without provenance are nobody's.
    ///
    /// # Errors
    /// As [`Self::partition`].
    pub fn count(&self, rows: impl IntoIterator<Item = usize>) -> Result<BTreeMap<PartitionRef, u64>> {
        let mut counts: HashMap<(&str, &str, i32, i32), (usize, u64)> = HashMap::new();
        for row in rows.into_iter().filter(|row| self.column.is_valid(*row)) {
            let (cluster, topic) = (self.clusters.value(row), self.topics.value(row));
            let key = (cluster, topic, self.generations.value(row), self.partitions.value(row));
            counts.entry(key).or_insert((row, 0)).1 += 1;
        }
        let mut found = BTreeMap::new();
        // The reference is built once a partition, not once a row.
        for (row, count) in counts.into_values() {
            if let Some(partition) = self.partition(row)? {
                *found.entry(partition).or_default() += count;
            }
        }
        Ok(found)
    }

    /// The partition a row came from; `None` for a row without provenance.
    ///
    /// # Errors
    /// `Data` for names and numbers that no topic has.
    pub fn partition(&self, row: usize) -> Result<Option<PartitionRef>> {
        use firn_shared::ids::{ClusterName, Generation, Partition, Topic, TopicRef};
        if self.column.is_null(row) {
            return Ok(None);
        }
        let positive = |n: i32| u32::try_from(n).map_err(|e| wrong_shape().with_source(e));
        Ok(Some(PartitionRef {
            topic: TopicRef {
                cluster: ClusterName::new(self.clusters.value(row))?,
                topic: Topic::new(self.topics.value(row))?,
                generation: Generation(positive(self.generations.value(row))?),
            },
            partition: Partition(positive(self.partitions.value(row))?),
        }))
    }
}

/// Bounds of the provenance column decide. Partition summaries of manifests do not help here: tables are partitioned by
/// columns of their own, which say nothing certain about where a row came from.
impl Prune for Rows {
    fn file(&self, schema: &Schema, _: &PartitionSpec, file: &DataFile) -> bool {
        self.may_be_in(schema, file)
    }
}

/// Streams the rows of all live files that may hold `rows`, only `columns` of them. Rows that are not meant come too:
/// pruning is by file; ask [`Rows::select`].
///
/// # Errors
/// As the store says; `Config` for a column that the table does not have.
pub async fn rows(table: &Table, columns: &[&str], rows: &Rows) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let reader = Reader::new(table, columns)?;
    Ok(batches(reader, live(table, None, rows).await?).map_ok(|live| live.batch).boxed())
}

/// How many rows are meant, by the partition they came from.
///
/// # Errors
/// As [`rows`] and [`Rows::select`].
pub async fn count(table: &Table, meant: &Rows) -> Result<BTreeMap<PartitionRef, u64>> {
    let mut batches = rows(table, &[provenance::COLUMN], meant).await?;
    let mut counts = BTreeMap::new();
    while let Some(batch) = batches.try_next().await? {
        let selected = meant.select(&batch)?;
        let column = batch.column_by_name(provenance::COLUMN).and_then(|column| column.as_struct_opt());
        let origins = Origins::of(column.ok_or_else(wrong_shape)?)?;
        for (partition, rows) in origins.count(selected.values().set_indices())? {
            *counts.entry(partition).or_default() += rows;
        }
    }
    Ok(counts)
}

/// The event hours that rows of the table may be of, `from..to`, as far as bounds of its files tell; `None` for a table
/// without files. What no bound tells may be of any year that has a date.
///
/// # Errors
/// As [`live`].
pub async fn hours(table: &Table) -> Result<Option<(EventHour, EventHour)>> {
    let schema = table.metadata().current_schema();
    let mut found: Option<(EventHour, EventHour)> = None;
    each_entry(table, |_, file| {
        let (lower, upper) = bounds(schema, file, provenance::EVENT_HOUR);
        let hour = |datum: Option<&Datum>| number(datum).and_then(DateTime::from_timestamp_micros).map(EventHour::of);
        let from = hour(lower.as_ref()).map_or_else(|| EventHour::from_str(FIRST_HOUR), Ok)?;
        let to = hour(upper.as_ref()).map(EventHour::next).map_or_else(|| EventHour::from_str(LAST_HOUR), Ok)?;
        found = Some(found.map_or((from, to), |known| (known.0.min(from), known.1.max(to))));
        Ok(())
    })
    .await?;
    Ok(found)
}

/// The live rows of some files, one file after the other.
pub(crate) fn batches(reader: Reader, files: Vec<LiveFile>) -> BoxStream<'static, Result<LiveBatch>> {
    let open = move |file: LiveFile| {
        let reader = reader.clone();
        async move { reader.rows(&file).await }
    };
    futures::stream::iter(files).then(open).try_flatten().boxed()
}
