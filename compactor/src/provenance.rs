//! `_firn`: where a row came from, as a struct column of every table that does not switch it off.
//!
//! ```text
//! _firn: struct<cluster: string, topic: string, generation: int, partition: int, offset: long, event_hour: timestamptz>
//! ```
//! Tables fed from change events have a seventh field, `version: string`, which may be null: where in its source the change
//! happened, as text that sorts as the changes do ([`crate::decode::change`]). Those of Debezium have an eighth, `source:
//! string`, which may be null too: the table in the source, so that truncating it takes its rows and no others.
//!
//! Tables in which a record may have several rows have a seventh field of another kind, `ordinal: int`: the number of the row
//! among those of its record, from 0, so that offset and ordinal together are there once.
//!
//! All other fields are required inside the struct. `event_hour` is the first instant of the hour. Every field but `offset` is
//! constant per raw object, so dictionaries and run lengths make the column a few bits a row.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, StringArray, StructArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Fields, TimeUnit};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, Offset, PartitionRef};
use firn_shared::types::{LogicalType, StructField};

/// The column's name.
pub const COLUMN: &str = "_firn";
/// Field names, in order.
pub const FIELDS: [&str; 6] = [CLUSTER, TOPIC, GENERATION, PARTITION, OFFSET, EVENT_HOUR];
/// The cluster's name in `firn.yaml`.
pub const CLUSTER: &str = "cluster";
/// The topic.
pub const TOPIC: &str = "topic";
/// Which incarnation of the topic.
pub const GENERATION: &str = "generation";
/// The Kafka partition.
pub const PARTITION: &str = "partition";
/// The Kafka offset.
pub const OFFSET: &str = "offset";
/// Source position of a change event, as text that sorts like it; only in tables that change events feed.
pub const VERSION: &str = "version";
/// Table in the source of a change event of Debezium; only in tables that those feed.
pub const SOURCE: &str = "source";
/// Number of a row among those of its record; only in tables whose steps make several rows of one.
pub const ORDINAL: &str = "ordinal";
/// First instant of the event hour.
pub const EVENT_HOUR: &str = "event_hour";

/// The column's logical type with [`VERSION`], and [`SOURCE`] if the events say it.
#[must_use]
pub fn logical_type_of_changes(with_source: bool) -> LogicalType {
    let LogicalType::Struct(mut fields) = logical_type() else { return logical_type() };
    for name in [Some(VERSION), with_source.then_some(SOURCE)].into_iter().flatten() {
        fields.push(StructField { name: name.to_owned(), r#type: LogicalType::String, required: false });
    }
    LogicalType::Struct(fields)
}

/// The column's logical type with [`ORDINAL`].
#[must_use]
pub fn logical_type_of_several() -> LogicalType {
    let LogicalType::Struct(mut fields) = logical_type() else { return logical_type() };
    fields.push(StructField { name: ORDINAL.to_owned(), r#type: LogicalType::Int, required: true });
    LogicalType::Struct(fields)
}

/// The column's logical type.
#[must_use]
pub fn logical_type() -> LogicalType {
    let field = |name: &str, r#type| StructField { name: name.to_owned(), r#type, required: true };
    LogicalType::Struct(vec![
        field(CLUSTER, LogicalType::String),
        field(TOPIC, LogicalType::String),
        field(GENERATION, LogicalType::Int),
        field(PARTITION, LogicalType::Int),
        field(OFFSET, LogicalType::Long),
        field(EVENT_HOUR, LogicalType::TimestampTz),
    ])
}

/// Where the rows of one raw object came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The partition.
    pub partition: PartitionRef,
    /// The event hour of every record in the object.
    pub hour: EventHour,
}

/// The `_firn` column for `rows`, each an origin (index into `origins`) and an offset.
///
/// # Errors
/// `Data` for a partition or offset beyond Iceberg's int and long, `Bug` for an index out of `origins`.
pub fn column(origins: &[Origin], rows: &[(u32, Offset)]) -> Result<StructArray> {
    let of = |index: u32| origins.get(index as usize).ok_or_else(|| Error::bug("a row has no origin"));
    let mut clusters = Vec::with_capacity(rows.len());
    let mut topics = Vec::with_capacity(rows.len());
    let mut generations = Vec::with_capacity(rows.len());
    let mut partitions = Vec::with_capacity(rows.len());
    let mut offsets = Vec::with_capacity(rows.len());
    let mut hours = Vec::with_capacity(rows.len());
    for (index, offset) in rows {
        let Origin { partition, hour } = of(*index)?;
        let beyond = |_| Error::data(format!("{partition} offset {offset} is beyond the column {COLUMN}"));
        clusters.push(partition.topic.cluster.as_str());
        topics.push(partition.topic.topic.as_str());
        generations.push(i32::try_from(partition.topic.generation.0).map_err(beyond)?);
        partitions.push(i32::try_from(partition.partition.0).map_err(beyond)?);
        offsets.push(i64::try_from(*offset).map_err(beyond)?);
        hours.push(hour.start().timestamp_micros());
    }
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(clusters)),
        Arc::new(StringArray::from(topics)),
        Arc::new(Int32Array::from(generations)),
        Arc::new(Int32Array::from(partitions)),
        Arc::new(Int64Array::from(offsets)),
        Arc::new(TimestampMicrosecondArray::from(hours).with_timezone("+00:00")),
    ];
    StructArray::try_new(fields(), arrays, None).map_err(|e| Error::bug("the column _firn").with_source(e))
}

/// As [`column`], with the [`VERSION`] of each row and, where there is one, its [`SOURCE`].
///
/// # Errors
/// As [`column`]; `Bug` when there are not as many versions as rows.
pub fn column_of_changes(
    origins: &[Origin],
    rows: &[(u32, Offset)],
    (versions, sources): (ArrayRef, Option<ArrayRef>),
) -> Result<StructArray> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let column = with_field(column(origins, rows)?, text(VERSION), versions)?;
    match sources {
        Some(sources) => with_field(column, text(SOURCE), sources),
        None => Ok(column),
    }
}

/// As [`column`], with the [`ORDINAL`] of each row; rows of one record stand side by side.
///
/// # Errors
/// As [`column`].
pub fn column_of_several(origins: &[Origin], rows: &[(u32, Offset)]) -> Result<StructArray> {
    let mut before = None;
    let mut ordinal = 0;
    let ordinals = rows.iter().map(|row| {
        ordinal = if before.replace(row) == Some(row) { ordinal + 1 } else { 0 };
        ordinal
    });
    let ordinals: ArrayRef = Arc::new(ordinals.collect::<Int32Array>());
    with_field(column(origins, rows)?, Field::new(ORDINAL, DataType::Int32, false), ordinals)
}

fn with_field(column: StructArray, field: Field, values: ArrayRef) -> Result<StructArray> {
    let (fields, mut arrays, nulls) = column.into_parts();
    let fields: Fields = fields.iter().cloned().chain([Arc::new(field)]).collect();
    arrays.push(values);
    StructArray::try_new(fields, arrays, nulls).map_err(|e| Error::bug("the column _firn").with_source(e))
}

/// The Arrow fields of the column.
#[must_use]
pub fn fields() -> Fields {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let types = [DataType::Utf8, DataType::Utf8, DataType::Int32, DataType::Int32, DataType::Int64, utc];
    FIELDS.iter().zip(types).map(|(name, r#type)| Field::new(*name, r#type, false)).collect()
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int64Type, TimestampMicrosecondType};
    use firn_shared::ids::{ClusterName, Generation, Partition, Topic, TopicRef};

    use super::*;

    fn origin(partition: u32, hour: i64) -> Origin {
        let topic = TopicRef {
            cluster: ClusterName::new("c").unwrap(),
            topic: Topic::new("t").unwrap(),
            generation: Generation(2),
        };
        let partition = PartitionRef { topic, partition: Partition(partition) };
        Origin { partition, hour: EventHour::from_epoch_hours(hour) }
    }

    #[test]
    fn each_row_tells_its_own_origin() {
        let column = column(&[origin(3, 10), origin(4, 11)], &[(1, 7), (0, 9)]).unwrap();
        assert_eq!((column.len(), column.null_count()), (2, 0));
        assert_eq!(column.column_by_name(OFFSET).unwrap().as_primitive::<Int64Type>().values(), &[7, 9]);
        let hours = column.column_by_name(EVENT_HOUR).unwrap().as_primitive::<TimestampMicrosecondType>();
        assert_eq!(hours.values(), &[11 * 3_600_000_000, 10 * 3_600_000_000]);
    }

    #[test]
    fn rows_of_one_record_are_numbered() {
        let column = column_of_several(&[origin(3, 10), origin(4, 11)], &[(0, 7), (0, 7), (1, 7), (1, 8)]).unwrap();
        let ordinals = column.column_by_name(ORDINAL).unwrap().as_primitive::<arrow_array::types::Int32Type>();
        assert_eq!(ordinals.values(), &[0, 1, 0, 0]);
        assert_eq!(&crate::arrow_types::data_type(&logical_type_of_several()), column.data_type());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_named() {
        let error = column(&[origin(u32::MAX, 1)], &[(0, 5)]).unwrap_err();
        assert!(error.to_string().contains("[4294967295]"), "{error}");
        assert!(column(&[], &[(0, 5)]).is_err());
    }
}
