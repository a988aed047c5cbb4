//! Which data files may hold one of some values, by what is known of a file without reading its rows: bounds and counts in
//! manifests, and statistics, bloom filters and dictionaries in the file.
//!
//! A "no" must be certain, so only what Firn has written of its own files counts: others have cut bounds, left out values or
//! ordered texts in their own ways. Such files may hold anything. So may columns of which nothing is said.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_shared::error::Result;
use iceberg::spec::{DataFile, PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, Type};
use parquet::file::statistics::Statistics;
use uuid::Uuid;

use super::Prune;
use super::reader::OpenFile;

/// What a footer says of Firn's files.
const CREATED_BY: &str = "firn ";

/// Values of a column that are looked for.
#[derive(Debug, Clone)]
pub struct Values {
    /// The column, one of the table's top-level ones.
    pub field_id: i32,
    /// In the column's current type: texts, longs or uuids.
    pub values: HashSet<PrimitiveLiteral>,
}

/// Rows that have one of the values in one of the columns.
#[derive(Debug, Default)]
pub struct Wanted {
    columns: Vec<Values>,
    /// Files that bounds have left out.
    excluded: AtomicU64,
}

impl Wanted {
    /// Of these columns; `None` when the type of one is none whose order is certain.
    #[must_use]
    pub fn new(schema: &Schema, columns: Vec<Values>) -> Option<Self> {
        use PrimitiveType as P;
        let certain = |of: &Values| {
            let field = schema.as_struct().field_by_id(of.field_id)?;
            matches!(*field.field_type, Type::Primitive(P::Int | P::Long | P::String | P::Uuid)).then_some(())
        };
        columns.iter().all(|of| certain(of).is_some()).then(|| Self { columns, excluded: AtomicU64::new(0) })
    }

    /// How many files bounds in manifests have left out since it was made.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.excluded.load(Ordering::Relaxed)
    }

    /// The row groups of a file that may hold such a row; `None` when nothing can be told, so that all may.
    ///
    /// # Errors
    /// As the store says; `Data` for a filter or dictionary that cannot be read.
    pub async fn row_groups(&self, file: &mut OpenFile) -> Result<Option<Vec<usize>>> {
        let by = file.metadata().file_metadata().created_by();
        if !by.is_some_and(|by| by.starts_with(CREATED_BY)) {
            return Ok(None);
        }
        let mut may = Vec::new();
        for group in 0..file.metadata().num_row_groups() {
            for of in &self.columns {
                if self.may_be_in(file, group, of).await? {
                    may.push(group);
                    break;
                }
            }
        }
        Ok(Some(may))
    }

    async fn may_be_in(&self, file: &mut OpenFile, group: usize, of: &Values) -> Result<bool> {
        // A column that was added later is null in this file.
        let Some(leaf) = file.leaf(of.field_id) else { return Ok(false) };
        let column = file.metadata().row_group(group).column(leaf);
        let by_statistics = match column.statistics() {
            Some(known) if known.null_count_opt() == Some(column.num_values() as u64) => false,
            Some(known) => of.values.iter().any(|value| is_between(known, value)),
            None => true,
        };
        Ok(by_statistics
            && !of.values.is_empty()
            && file.may_hold(group, of.field_id, &of.values).await?
            && file.dictionary_may_hold(group, leaf, &of.values).await?)
    }
}

impl Prune for Wanted {
    fn file(&self, _: &Schema, _: &PartitionSpec, file: &DataFile) -> bool {
        let may = !is_firns(file.file_path()) || self.columns.iter().any(|of| may_be_over(file, of));
        if !may {
            self.excluded.fetch_add(1, Ordering::Relaxed);
        }
        may
    }
}

/// Whether a data file has the name that runs give: the run's identity, the slice, a number.
#[must_use]
pub fn is_firns(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let run = name.get(..36).and_then(|text| Uuid::try_parse(text).ok());
    run.is_some_and(|run| run.get_version_num() == 7) && name.get(36..).is_some_and(|rest| rest.starts_with('-'))
}

/// Whether a file may hold one of the values, by what its manifest says.
fn may_be_over(file: &DataFile, of: &Values) -> bool {
    let id = of.field_id;
    let (values, nulls) = (file.value_counts().get(&id), file.null_value_counts().get(&id));
    if values.is_some() && values == nulls {
        return false;
    }
    let (lower, upper) = (file.lower_bounds().get(&id), file.upper_bounds().get(&id));
    of.values.iter().any(|value| {
        lower.is_none_or(|lower| compare(lower.literal(), value).is_none_or(std::cmp::Ordering::is_le))
            && upper.is_none_or(|upper| compare(upper.literal(), value).is_none_or(std::cmp::Ordering::is_ge))
    })
}

/// The order of a bound and a value; `None` when it cannot be told.
fn compare(bound: &PrimitiveLiteral, value: &PrimitiveLiteral) -> Option<std::cmp::Ordering> {
    use PrimitiveLiteral as P;
    match (bound, value) {
        (P::Int(a), P::Long(b)) => Some(i64::from(*a).cmp(b)),
        (P::Long(a), P::Long(b)) => Some(a.cmp(b)),
        (P::String(a), P::String(b)) => Some(a.cmp(b)),
        (P::UInt128(a), P::UInt128(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Whether a value lies between the smallest and the largest of a column chunk, as far as these are known.
fn is_between(known: &Statistics, value: &PrimitiveLiteral) -> bool {
    fn within<T: PartialOrd + ?Sized>(low: Option<&T>, value: &T, high: Option<&T>) -> bool {
        low.is_none_or(|low| low <= value) && high.is_none_or(|high| high >= value)
    }
    use PrimitiveLiteral as P;
    match (known, value) {
        (Statistics::Int32(of), P::Long(n)) => {
            let wide = |n: Option<&i32>| n.copied().map(i64::from);
            within(wide(of.min_opt()).as_ref(), n, wide(of.max_opt()).as_ref())
        }
        (Statistics::Int64(of), P::Long(n)) => within(of.min_opt(), n, of.max_opt()),
        (Statistics::ByteArray(of), P::String(text)) => {
            let bytes = |of: Option<&parquet::data_type::ByteArray>| of.map(|of| of.data().to_vec());
            within(bytes(of.min_opt()).as_deref(), text.as_bytes(), bytes(of.max_opt()).as_deref())
        }
        (Statistics::FixedLenByteArray(of), P::UInt128(n)) => {
            let bytes = |of: Option<&parquet::data_type::FixedLenByteArray>| of.map(|of| of.data().to_vec());
            within(bytes(of.min_opt()).as_deref(), n.to_be_bytes().as_slice(), bytes(of.max_opt()).as_deref())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_runs_give_are_ours() {
        let run = firn_shared::ids::RunId::new();
        assert!(is_firns(&format!("s3://lake/t/data/day=1/{run}-0-00001.parquet")));
        for theirs in [
            "s3://lake/t/data/00000-0-550e8400-e29b-41d4-a716-446655440000-00001.parquet",
            "s3://lake/t/data/550e8400-e29b-41d4-a716-446655440000-0-00001.parquet",
            "s3://lake/t/data/x.parquet",
            "",
        ] {
            assert!(!is_firns(theirs), "{theirs}");
        }
    }
}
