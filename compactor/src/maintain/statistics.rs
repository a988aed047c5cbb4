//! What the columns of a table take, and what could be done about it: from the manifests alone, no data file is read.

use std::collections::{BTreeMap, HashMap, HashSet};

use firn_shared::config::domain::Maintenance;
use firn_shared::error::Result;
use iceberg::spec::{DataFile, PrimitiveType, Type};
use iceberg::table::Table;
use serde::Serialize;

use super::Subject;
use crate::run::Env;
use crate::table::scan::{each_entry, live_deletes};

/// Advice on a column needs this many rows to stand on.
const ROWS_MIN: u64 = 10_000;
/// A column with this share of a table's bytes is worth a thought.
const LARGE_SHARE: f64 = 0.4;
/// Partitions of fewer bytes cost more to open than to read.
const PARTITION_BYTES_MIN: u64 = 16 << 20;
/// But a few small ones are no trouble.
const PARTITIONS_MIN: usize = 100;
/// Small files beyond this share are worth a compaction.
const SMALL_SHARE: f64 = 0.5;

/// What a table is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Live data files.
    pub files: usize,
    /// Those that are small.
    pub small_files: usize,
    /// Delete files.
    pub delete_files: usize,
    /// Partitions with files.
    pub partitions: usize,
    /// Rows, deleted ones included.
    pub rows: u64,
    /// Bytes of the data files.
    pub bytes: u64,
    /// Columns without fields of their own, the largest first.
    pub columns: Vec<ColumnSize>,
    /// What could be done.
    pub advice: Vec<String>,
}

/// A column's part of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnSize {
    /// Its name, with those of the columns around it.
    pub column: String,
    /// Its type.
    pub r#type: String,
    /// Compressed bytes.
    pub bytes: u64,
    /// Values, as far as files say.
    pub values: u64,
    /// Nulls among them.
    pub nulls: u64,
}

/// Adds up the files of a table.
///
/// # Errors
/// As catalog and stores say.
pub async fn statistics(env: &Env, subject: &Subject) -> Result<Statistics> {
    let table = super::load(env, subject).await?;
    let mut sums = add_up(&table, &subject.settings).await?;
    sums.advice = advice(&sums);
    Ok(sums)
}

async fn add_up(table: &Table, settings: &Maintenance) -> Result<Statistics> {
    let mut by_id: HashMap<i32, ColumnSize> = HashMap::new();
    let (mut sums, mut partitions) = (Statistics::default(), HashSet::new());
    let add = |partition, file: &DataFile| {
        partitions.insert(partition);
        sums.files += 1;
        sums.rows += file.record_count();
        sums.bytes += file.file_size_in_bytes();
        sums.small_files += usize::from(file.file_size_in_bytes() < settings.small_file_bytes);
        for (id, bytes) in file.column_sizes() {
            let column = by_id.entry(*id).or_default();
            column.bytes += bytes;
            column.values += file.value_counts().get(id).copied().unwrap_or_default();
            column.nulls += file.null_value_counts().get(id).copied().unwrap_or_default();
        }
        Ok(())
    };
    each_entry(table, add).await?;
    sums.partitions = partitions.len();
    sums.delete_files = live_deletes(table).await?.len();
    let schema = table.metadata().current_schema();
    let named = by_id.into_iter().filter_map(|(id, column)| {
        // A column that was dropped is in older files still.
        let field = schema.field_by_id(id)?;
        let name = schema.name_by_field_id(id)?.to_owned();
        Some(ColumnSize { column: name, r#type: field.field_type.to_string(), ..column })
    });
    sums.columns = named.collect();
    sums.columns.sort_by(|a, b| (b.bytes, &a.column).cmp(&(a.bytes, &b.column)));
    Ok(sums)
}

/// What the numbers suggest.
fn advice(sums: &Statistics) -> Vec<String> {
    let mut advice = Vec::new();
    let share = |part: u64| part as f64 / sums.bytes.max(1) as f64;
    if sums.files > sums.partitions && sums.small_files as f64 > SMALL_SHARE * sums.files as f64 {
        advice.push(format!("{} of {} data files are small: `maintain --only compact`", sums.small_files, sums.files));
    }
    if sums.delete_files > sums.files {
        let deletes = sums.delete_files;
        advice.push(format!("{deletes} delete files for {} data files: `maintain --only compact`", sums.files));
    }
    let of_partition = sums.bytes / sums.partitions.max(1) as u64;
    if sums.partitions >= PARTITIONS_MIN && of_partition < PARTITION_BYTES_MIN {
        advice.push(format!(
            "{} partitions of {} KiB on average: a coarser `partitionBy` (a day instead of an hour) makes fewer, larger files",
            sums.partitions,
            of_partition >> 10
        ));
    }
    for column in sums.columns.iter().filter(|_| sums.rows >= ROWS_MIN) {
        let ColumnSize { column: name, r#type, bytes, values, nulls } = column;
        if *values > 0 && values == nulls {
            advice.push(format!("`{name}` is null in every row: look whether its `path` is right, or leave it out"));
        } else if share(*bytes) >= LARGE_SHARE && *r#type == Type::Primitive(PrimitiveType::String).to_string() {
            advice.push(format!(
                "`{name}` takes {:.0} % of the table: when it is JSON, `extract` the fields that are read and leave the rest \
                 to the raw zone",
                share(*bytes) * 100.0
            ));
        }
    }
    advice
}

impl Statistics {
    /// Bytes by column at the top level, the largest first.
    #[must_use]
    pub fn tops(&self) -> Vec<(&str, u64)> {
        let mut tops: BTreeMap<&str, u64> = BTreeMap::new();
        for column in &self.columns {
            let top = column.column.split('.').next().unwrap_or_default();
            *tops.entry(top).or_default() += column.bytes;
        }
        let mut tops: Vec<_> = tops.into_iter().collect();
        tops.sort_by_key(|(name, bytes)| (std::cmp::Reverse(*bytes), *name));
        tops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, r#type: &str, bytes: u64, nulls: u64) -> ColumnSize {
        ColumnSize { column: name.to_owned(), r#type: r#type.to_owned(), bytes, values: 20_000, nulls }
    }

    fn check(sums: &Statistics, expected: &[&str]) {
        let advice = advice(sums);
        assert_eq!(advice.len(), expected.len(), "{advice:?}");
        for (advice, expected) in advice.iter().zip(expected) {
            assert!(advice.contains(expected), "{advice}");
        }
    }

    #[test]
    fn advice_follows_from_the_numbers() {
        let good = Statistics { files: 10, partitions: 10, rows: 20_000, bytes: 1 << 30, ..Statistics::default() };
        check(&good, &[]);
        check(&Statistics { files: 20, small_files: 15, ..good.clone() }, &["15 of 20 data files are small"]);
        check(&Statistics { delete_files: 11, ..good.clone() }, &["11 delete files for 10 data files"]);
        let hourly = Statistics { files: 1000, partitions: 1000, ..good.clone() };
        check(&hourly, &["1000 partitions of 1048 KiB"]);
        let columns = vec![
            column("payload", "string", 1 << 29, 0),
            column("empty", "long", 10, 20_000),
            column("large", "long", 1 << 29, 0),
        ];
        let wide = Statistics { columns, ..good.clone() };
        check(&wide, &["`payload` takes 50 %", "`empty` is null in every row"]);
        check(&Statistics { rows: 9_999, ..wide }, &[]);
        check(&Statistics::default(), &[]);
    }

    #[test]
    fn fields_of_a_struct_count_for_it() {
        let columns = vec![
            column("_firn.offset", "long", 10, 0),
            column("id", "long", 12, 0),
            column("_firn.topic", "string", 5, 0),
        ];
        let sums = Statistics { columns, ..Statistics::default() };
        assert_eq!(sums.tops(), [("_firn", 15), ("id", 12)]);
    }
}
