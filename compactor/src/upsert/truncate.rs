//! Truncates: a delete of every key that came from one table of the source, below one version.
//!
//! A truncate meets no key in a bucket; every bucket asks all of them ([`Truncations::over`]). Of one source table the
//! newest says all that older ones do, so that one is kept, for good: it is a line in the table's state, and keeping it
//! answers whatever comes late and whatever a `reprocess` converts again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_row::Rows as Order;
use arrow_schema::{Field, Schema as ArrowSchema};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{EventHour, Offset, Partition, PartitionRef, TopicRef};
use iceberg::spec::{DataFile, Schema};
use serde::{Deserialize, Serialize};

use super::key::Keys;
use crate::decode::change;
use crate::provenance::{self, Origin};
use crate::table::read::{Rows, bounds, text_meets};

/// A source table was emptied: rows of it with a smaller version are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Truncation {
    /// The table in the source.
    pub source: String,
    /// Where in the source.
    pub version: String,
    /// The topic that the event came from.
    pub topic: TopicRef,
    /// Its Kafka partition.
    pub partition: Partition,
    /// Its Kafka offset.
    pub offset: Offset,
    /// Its event hour.
    pub hour: EventHour,
    /// When it happened, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micros: Option<i64>,
}

impl Truncation {
    /// As an event said it that came from `origin`.
    #[must_use]
    pub fn new(of: change::Truncation, origin: &Origin, offset: Offset) -> Self {
        let change::Truncation { source, version, micros } = of;
        let PartitionRef { topic, partition } = origin.partition.clone();
        Self { source, version, topic, partition, offset, hour: origin.hour, micros }
    }

    fn is(&self, other: &Self) -> bool {
        (&self.topic, self.partition, self.offset) == (&other.topic, other.partition, other.offset)
    }
}

/// The newest truncate of each source table.
#[derive(Debug)]
pub struct Truncations {
    list: Vec<Truncation>,
    /// Where each of the list stands among rows.
    order: Order,
    by_source: BTreeMap<String, usize>,
}

impl Truncations {
    /// The newest of each source table in `all`.
    ///
    /// # Errors
    /// `Data` for origins that no table has.
    pub fn newest(keys: &Keys, all: impl IntoIterator<Item = Truncation>) -> Result<Self> {
        let all: Vec<Truncation> = all.into_iter().collect();
        let order = order_of(keys, &all)?;
        let mut newest: BTreeMap<String, usize> = BTreeMap::new();
        for (number, one) in all.iter().enumerate() {
            let best = newest.entry(one.source.clone()).or_insert(number);
            if order.row(*best).data() < order.row(number).data() {
                *best = number;
            }
        }
        let list: Vec<Truncation> = newest.values().map(|number| all[*number].clone()).collect();
        let by_source = newest.into_keys().enumerate().map(|(number, source)| (source, number)).collect();
        Ok(Self { order: order_of(keys, &list)?, list, by_source })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn list(&self) -> &[Truncation] {
        &self.list
    }

    /// Of each row of a batch the truncate that it came before, if there is one.
    ///
    /// # Errors
    /// `Bug` for a batch without provenance.
    pub fn over(&self, keys: &Keys, batch: &RecordBatch) -> Result<Vec<Option<&Truncation>>> {
        let sources = sources(batch)?.filter(|_| !self.is_empty());
        let Some(sources) = sources else { return Ok(vec![None; batch.num_rows()]) };
        let order = keys.ties(batch)?;
        let over = |row: usize| {
            let number = *self.by_source.get(sources.is_valid(row).then(|| sources.value(row))?)?;
            (order.row(row).data() < self.order.row(number).data()).then(|| &self.list[number])
        };
        Ok((0..batch.num_rows()).map(over).collect())
    }

    /// Whether a file may hold rows that came before one of them, by the bounds of where its rows came from. `schema` is any
    /// schema with the file's field ids.
    pub fn may_be_over(&self, schema: &Schema, file: &DataFile) -> bool {
        let (sources, versions) = (bounds(schema, file, provenance::SOURCE), bounds(schema, file, provenance::VERSION));
        let version = schema.field_id_by_name(&format!("{}.{}", provenance::COLUMN, provenance::VERSION));
        // Rows without a version are older than any that has one, and no bounds tell of them.
        let all_have_one = version.is_some_and(|id| file.null_value_counts().get(&id) == Some(&0));
        self.list.iter().any(|one| {
            let (source, version) = (one.source.as_str(), one.version.as_str());
            text_meets(&sources, source..=source) && (!all_have_one || text_meets(&versions, ""..=version))
        })
    }
}

/// Those that are not made of records that are converted again; and whether one of the others has come to nothing, so
/// that rows which it took may count again.
///
/// # Errors
/// As [`Truncations::newest`].
pub fn without(
    keys: &Keys,
    known: Vec<Truncation>,
    replaced: &Rows,
    again: &[Truncation],
) -> Result<(Vec<Truncation>, bool)> {
    if known.is_empty() {
        return Ok((known, false));
    }
    let marks = replaced.select(&batch_of(&known)?)?;
    let (gone, left): (Vec<_>, Vec<_>) = known.into_iter().enumerate().partition(|(number, _)| marks.value(*number));
    let plain = |list: Vec<(usize, Truncation)>| list.into_iter().map(|(_, one)| one).collect::<Vec<_>>();
    let (gone, left) = (plain(gone), plain(left));
    let mut lost = false;
    for one in gone {
        // A newer one of the same source says the same and more.
        let of_source = again.iter().chain([&one]).filter(|other| other.source == one.source).cloned();
        let newest = Truncations::newest(keys, of_source)?;
        lost |= newest.list.iter().any(|newest| newest.is(&one)) && !again.iter().any(|other| other.is(&one));
    }
    Ok((left, lost))
}

fn sources(batch: &RecordBatch) -> Result<Option<&StringArray>> {
    let origin = batch.column_by_name(provenance::COLUMN).and_then(|column| column.as_struct_opt());
    let origin = origin.ok_or_else(|| Error::bug("rows without provenance"))?;
    Ok(origin.column_by_name(provenance::SOURCE).and_then(|column| column.as_string_opt()))
}

fn order_of(keys: &Keys, list: &[Truncation]) -> Result<Order> {
    if list.is_empty() { Ok(keys.none().1) } else { keys.ties(&batch_of(list)?) }
}

/// The provenance of truncates, as rows have it.
fn batch_of(list: &[Truncation]) -> Result<RecordBatch> {
    let origin = |one: &Truncation| Origin {
        partition: PartitionRef { topic: one.topic.clone(), partition: one.partition },
        hour: one.hour,
    };
    let origins: Vec<Origin> = list.iter().map(origin).collect();
    let rows: Vec<(u32, Offset)> = (0..).zip(list).map(|(number, one)| (number, one.offset)).collect();
    let texts =
        |of: fn(&Truncation) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(list.iter().map(of))) };
    let places = (texts(|one| &one.version), Some(texts(|one| &one.source)));
    let column = provenance::column_of_changes(&origins, &rows, places)?;
    let schema = ArrowSchema::new(vec![Field::new(provenance::COLUMN, column.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)])
        .map_err(|e| Error::bug("truncates have no provenance").with_source(e))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::time::Duration;

    use firn_shared::config::domain::{Upsert, WriteStrategy};
    use firn_shared::ids::{ColumnName, Partition};
    use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Datum, Struct, TableMetadataBuilder};
    use iceberg::{NamespaceIdent, TableIdent};

    use super::*;
    use crate::table::create::Definition;
    use crate::table::schema::{TableColumn, arrow_schema};

    #[test]
    fn files_of_other_sources_and_of_newer_rows_are_left_out() {
        let id = TableColumn { name: "id".to_owned(), r#type: "long".parse().unwrap(), required: true, doc: None };
        let definition = Definition {
            ident: TableIdent::new(NamespaceIdent::new("d".to_owned()), "t".to_owned()),
            location: "file:///t".to_owned(),
            columns: vec![id, TableColumn::provenance_of_changes(true)],
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            properties: BTreeMap::new(),
            needed: BTreeMap::new(),
        };
        let metadata = TableMetadataBuilder::from_table_creation(definition.creation().unwrap()).unwrap().build();
        let schema = metadata.unwrap().metadata.current_schema().clone();
        let upsert = Upsert {
            keys: vec![ColumnName::new("id").unwrap()],
            versions: Vec::new(),
            strategy: WriteStrategy::CopyOnWrite,
            delete_memory: Duration::from_hours(1),
            soft_delete: false,
        };
        let keys = Keys::new(&upsert, &arrow_schema(&schema).unwrap()).unwrap();
        let one = Truncation {
            source: "shop.orders".to_owned(),
            version: "00500".to_owned(),
            topic: "c/t/1".parse().unwrap(),
            partition: Partition(0),
            offset: 7,
            hour: EventHour::from_epoch_hours(1),
            micros: None,
        };
        let truncations = Truncations::newest(&keys, [one]).unwrap();
        let field = |name: &str| schema.field_id_by_name(&format!("{}.{name}", provenance::COLUMN)).unwrap();
        let (source, version) = (field(provenance::SOURCE), field(provenance::VERSION));
        let may = |sources: Option<[&str; 2]>, versions: Option<[&str; 2]>, without_version: Option<u64>| {
            let bounds = |side: usize| {
                let of = [(source, sources), (version, versions)].into_iter();
                of.filter_map(|(id, texts)| Some((id, Datum::string(texts?[side])))).collect::<HashMap<_, _>>()
            };
            let mut file = DataFileBuilder::default();
            file.content(DataContentType::Data)
                .file_path("f".to_owned())
                .file_format(DataFileFormat::Parquet)
                .partition(Struct::empty())
                .record_count(9)
                .file_size_in_bytes(9)
                .lower_bounds(bounds(0))
                .upper_bounds(bounds(1))
                .null_value_counts(without_version.map(|count| (version, count)).into_iter().collect());
            truncations.may_be_over(&schema, &file.build().unwrap())
        };
        let (orders, later) = (Some(["shop.a", "shop.orders"]), Some(["00501", "00900"]));
        assert!(may(orders, Some(["00500", "00900"]), Some(0)));
        assert!(!may(orders, later, Some(0)));
        assert!(!may(Some(["shop.p", "shop.z"]), Some(["00100", "00900"]), Some(0)));
        // Some rows have no version, or nobody counted them; nothing is known.
        assert!(may(orders, later, Some(1)) && may(orders, later, None));
        assert!(may(None, None, None) && may(None, None, Some(0)));
    }
}
