//! Counts and bounds of a data file, from its Parquet footer, as the Iceberg specification wants them in manifests.

use std::collections::{HashMap, HashSet};

use firn_shared::error::Result;
use iceberg::spec::{Datum, PrimitiveType, Schema, TableMetadata, Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use crate::protect::METRICS;
use crate::provenance;
use crate::table::error;

/// Columns that get bounds; Iceberg's `write.metadata.metrics.max-inferred-column-defaults`. A table of a thousand
/// leaves would else carry kilobytes a file in its manifests. `_firn` always has them, and so have those of [`always_bounded`].
pub(super) const BOUNDED_COLUMNS_MAX: usize = 100;
/// Values of [`METRICS`] that mean no bounds.
const UNBOUNDED: [&str; 2] = ["none", "counts"];
/// Texts and bytes are cut to this many characters or bytes, as Iceberg's `truncate(16)`.
const BOUND_LENGTH: usize = 16;

/// Per field id.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub sizes: HashMap<i32, u64>,
    pub values: HashMap<i32, u64>,
    pub nulls: HashMap<i32, u64>,
    pub lower: HashMap<i32, Datum>,
    pub upper: HashMap<i32, Datum>,
    pub split_offsets: Vec<i64>,
}

/// The fields of a table that have bounds however many columns there are: what it is partitioned or sorted by, and what its
/// properties name. Files that lie outside of what is looked for can be left out only by bounds.
pub(super) fn always_bounded(metadata: &TableMetadata) -> HashSet<i32> {
    let partitions = metadata.partition_specs_iter().flat_map(|spec| spec.fields()).map(|field| field.source_id);
    let sort = metadata.default_sort_order().fields.iter().map(|field| field.source_id);
    let named = metadata.properties().iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(METRICS).filter(|_| !UNBOUNDED.contains(&value.as_str()))?;
        metadata.current_schema().field_id_by_name(name)
    });
    partitions.chain(sort).chain(named).collect()
}

impl Metrics {
    /// Of a file written under `schema`; fields of `always` have bounds wherever they stand.
    ///
    /// # Errors
    /// `Bug` when a statistic does not have its column's type.
    pub fn of(parquet: &ParquetMetaData, schema: &Schema, always: &HashSet<i32>) -> Result<Self> {
        let mut metrics = Self::default();
        let mut unbounded = Vec::new();
        for group in parquet.row_groups() {
            metrics.split_offsets.extend(group.file_offset());
            for (number, column) in group.columns().iter().enumerate() {
                let leaf = column.column_descr();
                let info = leaf.self_type().get_basic_info();
                if !info.has_id() {
                    continue;
                }
                let id = info.id();
                *metrics.sizes.entry(id).or_default() += column.compressed_size() as u64;
                *metrics.values.entry(id).or_default() += column.num_values() as u64;
                let statistics = column.statistics();
                if let Some(nulls) = statistics.and_then(Statistics::null_count_opt) {
                    *metrics.nulls.entry(id).or_default() += nulls;
                }
                let root = leaf.path().parts().first().map(String::as_str);
                let bounded = number < BOUNDED_COLUMNS_MAX || root == Some(provenance::COLUMN) || always.contains(&id);
                // Repeated values have no bounds in Iceberg: a row has many of them.
                if !bounded || leaf.max_rep_level() > 0 {
                    continue;
                }
                let Some(Type::Primitive(r#type)) = schema.field_by_id(id).map(|f| f.field_type.as_ref()) else {
                    continue;
                };
                let all_null = metrics_all_null(statistics, column.num_values() as u64);
                if !all_null && !metrics.widen(id, r#type, statistics)? {
                    unbounded.push(id);
                }
            }
        }
        // A row group without statistics leaves the whole file without bounds: those of the others would be a lie.
        for id in unbounded {
            metrics.lower.remove(&id);
            metrics.upper.remove(&id);
        }
        metrics.shorten();
        Ok(metrics)
    }

    /// Widens the bounds by a row group's; `false` when it tells none.
    fn widen(&mut self, id: i32, r#type: &PrimitiveType, statistics: Option<&Statistics>) -> Result<bool> {
        let Some(statistics) = statistics else { return Ok(false) };
        let (Some(low), Some(high)) = (single_value(statistics, r#type, true), single_value(statistics, r#type, false))
        else {
            return Ok(false);
        };
        let datum = |bytes: Vec<u8>| {
            Datum::try_from_bytes(&bytes, r#type.clone()).map_err(|e| error(format!("bounds of field {id}"), e))
        };
        let (low, high) = (datum(low)?, datum(high)?);
        if low.is_nan() || high.is_nan() {
            return Ok(false);
        }
        let lower = self.lower.entry(id).or_insert_with(|| low.clone());
        if low < *lower {
            *lower = low;
        }
        let upper = self.upper.entry(id).or_insert_with(|| high.clone());
        if high > *upper {
            *upper = high;
        }
        Ok(true)
    }

    /// Cuts texts and bytes; a lower bound gets smaller by it, an upper bound is raised, or dropped if it cannot be.
    fn shorten(&mut self) {
        for bound in self.lower.values_mut() {
            if let Some(shorter) = shorter(bound, false) {
                *bound = shorter;
            }
        }
        self.upper.retain(|_, bound| {
            if !is_long(bound) {
                return true;
            }
            shorter(bound, true).map(|shorter| *bound = shorter).is_some()
        });
    }
}

fn metrics_all_null(statistics: Option<&Statistics>, values: u64) -> bool {
    statistics.and_then(Statistics::null_count_opt).is_some_and(|nulls| nulls == values)
}

/// Iceberg's binary form of a minimum or maximum ("Binary single-value serialization").
fn single_value(statistics: &Statistics, r#type: &PrimitiveType, min: bool) -> Option<Vec<u8>> {
    macro_rules! pick {
        ($s:expr) => {
            if min { $s.min_opt()? } else { $s.max_opt()? }
        };
    }
    let decimal = matches!(r#type, PrimitiveType::Decimal { .. });
    Some(match statistics {
        Statistics::Boolean(s) => vec![u8::from(*pick!(s))],
        Statistics::Int32(s) if decimal => i128::from(*pick!(s)).to_be_bytes().to_vec(),
        Statistics::Int64(s) if decimal => i128::from(*pick!(s)).to_be_bytes().to_vec(),
        Statistics::Int32(s) => pick!(s).to_le_bytes().to_vec(),
        Statistics::Int64(s) => pick!(s).to_le_bytes().to_vec(),
        Statistics::Float(s) => pick!(s).to_le_bytes().to_vec(),
        Statistics::Double(s) => pick!(s).to_le_bytes().to_vec(),
        // Cut by the Parquet writer to valid bounds: never above the minimum, never below the maximum.
        Statistics::ByteArray(s) => pick!(s).data().to_vec(),
        Statistics::FixedLenByteArray(s) => pick!(s).data().to_vec(),
        Statistics::Int96(_) => return None,
    })
}

fn is_long(bound: &Datum) -> bool {
    use iceberg::spec::PrimitiveLiteral as P;
    match bound.literal() {
        P::String(text) => text.chars().count() > BOUND_LENGTH,
        P::Binary(bytes) => bytes.len() > BOUND_LENGTH,
        _ => false,
    }
}

/// A long bound cut to its length; raised to stay above what was cut, when `up`.
fn shorter(bound: &Datum, up: bool) -> Option<Datum> {
    use iceberg::spec::PrimitiveLiteral as P;
    if !is_long(bound) {
        return None;
    }
    match bound.literal() {
        P::String(text) => {
            let mut kept: Vec<char> = text.chars().take(BOUND_LENGTH).collect();
            if up {
                loop {
                    let last = kept.pop()?;
                    if let Some(next) = next_char(last) {
                        kept.push(next);
                        break;
                    }
                }
            }
            Some(Datum::string(kept.into_iter().collect::<String>()))
        }
        P::Binary(bytes) => {
            let mut kept = bytes[..BOUND_LENGTH].to_vec();
            if up {
                loop {
                    let last = kept.pop()?;
                    if last < u8::MAX {
                        kept.push(last + 1);
                        break;
                    }
                }
            }
            Some(Datum::binary(kept))
        }
        _ => None,
    }
}

/// The next character in the order of code points, which is also that of UTF-8.
fn next_char(c: char) -> Option<char> {
    match c {
        '\u{D7FF}' => Some('\u{E000}'),
        char::MAX => None,
        c => char::from_u32(c as u32 + 1),
    }
}
