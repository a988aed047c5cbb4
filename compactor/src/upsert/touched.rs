//! What a run's keys say about the files that may hold them: bounds of each key column, and the values of partition
//! fields that are made of key columns. A file outside of either holds none of the keys. Few keys are known one by one, so
//! that a file's bloom filters can be asked for them.

use std::cmp::Ordering;
use std::collections::HashSet;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_row::{RowConverter, SortField};
use firn_shared::error::{Error, Result};
use iceberg::arrow::arrow_primitive_to_literal;
use iceberg::spec::{
    DataFile, Literal, ManifestFile, PartitionField, PartitionSpec, PrimitiveLiteral, PrimitiveType, TableMetadata,
    Transform, Type,
};
use iceberg::transform::{BoxedTransformFunction, create_transform_function};

use crate::table::scan::{fields_may_hold, widest};
use crate::table::{calendar, error};

/// More different partition values than this are not listed; then the field prunes nothing.
const VALUES_MAX: usize = 16 * 1024;

/// More different values of a key column than this are not known one by one: a bloom filter is wrong about one in a hundred, so
/// for more it would nearly always say yes.
const ASKED_MAX: usize = 1024;

/// What a run's keys touch. Filled by one thread; those of several are merged.
#[derive(Debug)]
pub struct Touched {
    columns: Vec<KeyColumn>,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct KeyColumn {
    name: String,
    id: i32,
    r#type: PrimitiveType,
    order: RowConverter,
    bounds: Option<(PrimitiveLiteral, PrimitiveLiteral)>,
    /// `None`: too many.
    values: Option<HashSet<PrimitiveLiteral>>,
}

/// A partition field of a key column, in whatever spec.
struct Field {
    column: usize,
    transform: Transform,
    r#type: Type,
    function: BoxedTransformFunction,
    /// `None`: too many.
    values: Option<HashSet<Option<Literal>>>,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Field")
            .field("transform", &self.transform)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

impl Touched {
    /// Nothing touched yet, for a table with these key columns.
    ///
    /// # Errors
    /// `Data` for key columns that the table lacks or that are not primitive.
    pub fn new(metadata: &TableMetadata, keys: &[String]) -> Result<Self> {
        let schema = metadata.current_schema();
        let column = |name: &String| {
            let field = schema.field_by_name(name);
            let field = field.ok_or_else(|| Error::data(format!("the table has no column `{name}`")))?;
            let Type::Primitive(r#type) = field.field_type.as_ref() else {
                return Err(Error::data(format!("key column `{name}` is not primitive")));
            };
            let arrow = iceberg::arrow::type_to_arrow_type(&field.field_type);
            let arrow = arrow.map_err(|e| error("cannot type a key column", e))?;
            let order = RowConverter::new(vec![SortField::new(arrow)]);
            let order = order.map_err(|e| Error::bug("a key column has no order").with_source(e))?;
            let (name, r#type, values) = (name.clone(), r#type.clone(), Some(HashSet::new()));
            Ok(KeyColumn { name, id: field.id, r#type, order, bounds: None, values })
        };
        let columns = keys.iter().map(column).collect::<Result<Vec<_>>>()?;
        let mut fields: Vec<Field> = Vec::new();
        for spec in metadata.partition_specs_iter() {
            for field in spec.fields() {
                let Some(at) = columns.iter().position(|c| c.id == field.source_id) else { continue };
                let known = fields.iter().any(|f| f.column == at && f.transform == field.transform);
                if known || matches!(field.transform, Transform::Void | Transform::Unknown) {
                    continue;
                }
                let function = create_transform_function(&field.transform);
                let function = function.map_err(|e| error("a partition transform that is not known", e))?;
                let r#type = field.transform.result_type(&Type::Primitive(columns[at].r#type.clone()));
                let r#type = r#type.map_err(|e| error("a partition transform without a type", e))?;
                let values = Some(HashSet::new());
                fields.push(Field { column: at, transform: field.transform, r#type, function, values });
            }
        }
        Ok(Self { columns, fields })
    }

    /// Adds the keys of a batch with the table's types.
    ///
    /// # Errors
    /// `Bug` when it has others.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let array = |column: &KeyColumn| {
            let found = batch.column_by_name(&column.name).cloned();
            found.ok_or_else(|| Error::bug(format!("a batch without column `{}`", column.name)))
        };
        for column in &mut self.columns {
            let array = array(column)?;
            let rows = column.order.convert_columns(std::slice::from_ref(&array));
            let rows = rows.map_err(|e| Error::bug("a key column has another type").with_source(e))?;
            let by_bytes = |a: &usize, b: &usize| rows.row(*a).cmp(&rows.row(*b));
            for at in [(0..rows.num_rows()).min_by(by_bytes), (0..rows.num_rows()).max_by(by_bytes)] {
                let Some(at) = at else { continue };
                let literals = arrow_primitive_to_literal(&array.slice(at, 1), &Type::Primitive(column.r#type.clone()));
                let literals = literals.map_err(|e| error("cannot read a key", e))?;
                if let Some(Some(Literal::Primitive(value))) = literals.into_iter().next() {
                    column.widen(value);
                }
            }
            column.list(&array)?;
        }
        for field in &mut self.fields {
            let Some(mut values) = field.values.take() else { continue };
            let array = array(&self.columns[field.column])?;
            for transformed in field.transformed(array)? {
                let literals = arrow_primitive_to_literal(&transformed, &field.r#type);
                let literals = literals.map_err(|e| error("cannot read a partition value", e))?;
                values.extend(literals.iter().map(|literal| literal.as_ref().map(widest)));
            }
            field.values = Some(values).filter(|values| values.len() <= VALUES_MAX);
        }
        Ok(())
    }

    /// Adds what another thread has seen.
    pub fn merge(&mut self, other: Self) {
        for (column, theirs) in self.columns.iter_mut().zip(other.columns) {
            if let Some((lower, upper)) = theirs.bounds {
                column.widen(lower);
                column.widen(upper);
            }
            column.values = both(column.values.take(), theirs.values, ASKED_MAX);
        }
        for (field, theirs) in self.fields.iter_mut().zip(other.fields) {
            field.values = both(field.values.take(), theirs.values, VALUES_MAX);
        }
    }

    /// The values of key columns that have few, by field id: a row with one of the keys has one of them in each.
    pub fn few(&self) -> impl Iterator<Item = (i32, &HashSet<PrimitiveLiteral>)> {
        self.columns.iter().filter_map(|column| Some((column.id, column.values.as_ref()?)))
    }

    /// Whether a manifest may name a file that may hold one of the keys, by its partition summaries.
    pub fn may_be_named_by(&self, metadata: &TableMetadata, manifest: &ManifestFile) -> bool {
        fields_may_hold(metadata, manifest, |field, may_hold| {
            let values = self.field(field).and_then(|f| f.values.as_ref());
            values.is_none_or(|values| values.iter().any(|value| may_hold(value.as_ref())))
        })
    }

    /// What is known of a partition field.
    fn field(&self, field: &PartitionField) -> Option<&Field> {
        self.fields.iter().find(|f| self.columns[f.column].id == field.source_id && f.transform == field.transform)
    }

    /// Whether a file written under `spec` may hold one of the keys.
    pub fn may_be_in(&self, spec: &PartitionSpec, file: &DataFile) -> bool {
        let in_bounds = self.columns.iter().all(|column| {
            let Some((low, high)) = &column.bounds else { return false };
            let beyond = |bound: Option<&iceberg::spec::Datum>, value: &PrimitiveLiteral, way: Ordering| {
                bound.and_then(|bound| compare(bound.literal(), value)) == Some(way)
            };
            !beyond(file.lower_bounds().get(&column.id), high, Ordering::Greater)
                && !beyond(file.upper_bounds().get(&column.id), low, Ordering::Less)
        });
        in_bounds
            && spec.fields().iter().zip(file.partition().iter()).all(|(field, value)| {
                self.field(field)
                    .and_then(|f| f.values.as_ref())
                    .is_none_or(|values| values.contains(&value.map(widest)))
            })
    }
}

impl Field {
    /// The partition values of keys. Of days there are two columns: older files may lie where the crate counted their times
    /// before 1970.
    fn transformed(&self, array: ArrayRef) -> Result<Vec<ArrayRef>> {
        let by_crate = |array| self.function.transform(array).map_err(|e| error("cannot partition a key", e));
        Ok(match calendar::values(self.transform, &array)? {
            Some(days) if self.transform == Transform::Day => vec![days, by_crate(array)?],
            Some(values) => vec![values],
            None => vec![by_crate(array)?],
        })
    }
}

impl KeyColumn {
    /// Adds values one by one, while they are few.
    fn list(&mut self, array: &ArrayRef) -> Result<()> {
        // Those of a batch need not differ; what most runs have is far beyond, and not worth to be counted.
        let Some(values) = self.values.as_mut().filter(|_| array.len() <= 8 * ASKED_MAX) else {
            self.values = None;
            return Ok(());
        };
        let literals = arrow_primitive_to_literal(array, &Type::Primitive(self.r#type.clone()));
        for literal in literals.map_err(|e| error("cannot read a key", e))?.into_iter().flatten() {
            if let Literal::Primitive(value) = literal {
                values.insert(value);
            }
        }
        if values.len() > ASKED_MAX {
            self.values = None;
        }
        Ok(())
    }

    fn widen(&mut self, value: PrimitiveLiteral) {
        match &mut self.bounds {
            None => self.bounds = Some((value.clone(), value)),
            Some((lower, upper)) => {
                if compare(&value, lower) == Some(Ordering::Less) {
                    *lower = value;
                } else if compare(&value, upper) == Some(Ordering::Greater) {
                    *upper = value;
                }
            }
        }
    }
}

/// Values of two threads; `None` for too many.
fn both<T: Eq + std::hash::Hash>(
    ours: Option<HashSet<T>>,
    theirs: Option<HashSet<T>>,
    most: usize,
) -> Option<HashSet<T>> {
    let (mut ours, theirs) = ours.zip(theirs)?;
    ours.extend(theirs);
    Some(ours).filter(|values| values.len() <= most)
}

/// Values of one column, also from before it was widened; `None` when they cannot be compared.
fn compare(a: &PrimitiveLiteral, b: &PrimitiveLiteral) -> Option<Ordering> {
    let number = |value: &PrimitiveLiteral| match value {
        PrimitiveLiteral::Int(n) => Some(i128::from(*n)),
        PrimitiveLiteral::Long(n) => Some(i128::from(*n)),
        PrimitiveLiteral::Int128(n) => Some(*n),
        _ => None,
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ if std::mem::discriminant(a) == std::mem::discriminant(b) => a.partial_cmp(b),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use firn_shared::config::domain::{self, PartitionField as Partition};
    use firn_shared::ids::ColumnName;
    use iceberg::spec::{
        DataContentType, DataFileBuilder, DataFileFormat, Datum, FieldSummary, ManifestContentType, Struct,
        TableMetadataBuilder,
    };
    use iceberg::{NamespaceIdent, TableIdent};

    use super::*;
    use crate::table::create::Definition;
    use crate::table::schema::TableColumn;

    const BUCKETS: u32 = 8;

    fn metadata() -> TableMetadata {
        built(&definition("long", domain::Transform::Bucket(BUCKETS)))
    }

    fn built(definition: &Definition) -> TableMetadata {
        let built = TableMetadataBuilder::from_table_creation(definition.creation().unwrap());
        built.unwrap().build().unwrap().metadata
    }

    fn definition(r#type: &str, transform: domain::Transform) -> Definition {
        Definition {
            ident: TableIdent::new(NamespaceIdent::new("d".to_owned()), "t".to_owned()),
            location: "file:///t".to_owned(),
            columns: vec![TableColumn {
                name: "id".to_owned(),
                r#type: r#type.parse().unwrap(),
                required: true,
                doc: None,
            }],
            partition_by: vec![Partition { column: ColumnName::new("id").unwrap(), transform }],
            sort_by: Vec::new(),
            properties: BTreeMap::new(),
            needed: BTreeMap::new(),
        }
    }

    fn manifest(spec: i32, buckets: Option<(i32, i32)>) -> ManifestFile {
        let summary = |(lower, upper)| FieldSummary {
            contains_null: false,
            contains_nan: None,
            lower_bound: Some(Datum::int(lower).to_bytes().unwrap()),
            upper_bound: Some(Datum::int(upper).to_bytes().unwrap()),
        };
        ManifestFile {
            manifest_path: "m".to_owned(),
            manifest_length: 1,
            partition_spec_id: spec,
            content: ManifestContentType::Data,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: Some(1),
            existing_files_count: None,
            deleted_files_count: None,
            added_rows_count: None,
            existing_rows_count: None,
            deleted_rows_count: None,
            partitions: buckets.map(|buckets| vec![summary(buckets)]),
            key_metadata: None,
            first_row_id: None,
        }
    }

    #[test]
    fn manifests_of_partitions_without_the_keys_are_left_out() {
        let metadata = metadata();
        let mut touched = Touched::new(&metadata, &["id".to_owned()]).unwrap();
        let ids = Arc::new(Int64Array::from(vec![3, 3, 77]));
        touched.add(&RecordBatch::try_from_iter([("id", ids as _)]).unwrap()).unwrap();
        let values = touched.fields[0].values.clone().unwrap();
        let holds = |n: i32| values.contains(&Some(widest(&Literal::int(n))));
        assert!((0..BUCKETS as i32).filter(|n| holds(*n)).count() < 3, "{values:?}");
        for lower in 0..BUCKETS as i32 {
            for upper in lower..BUCKETS as i32 {
                let may = touched.may_be_named_by(&metadata, &manifest(0, Some((lower, upper))));
                assert_eq!(may, (lower..=upper).any(holds), "{lower}..={upper}");
            }
        }
        // What says nothing may hold anything.
        assert!(touched.may_be_named_by(&metadata, &manifest(0, None)));
        assert!(touched.may_be_named_by(&metadata, &manifest(9, Some((0, 0)))));
        touched.fields[0].values = None;
        assert!((0..BUCKETS as i32).all(|n| touched.may_be_named_by(&metadata, &manifest(0, Some((n, n))))));
    }

    #[test]
    fn the_last_second_of_a_day_before_1970_is_looked_for_in_both_days_that_files_may_have() {
        let column = ColumnName::new("at").unwrap();
        let mut definition = definition("timestamptz", domain::Transform::Day);
        definition.columns[0].name = "at".to_owned();
        definition.partition_by[0].column = column;
        let metadata = built(&definition);
        let mut touched = Touched::new(&metadata, &["at".to_owned()]).unwrap();
        let at = arrow_array::TimestampMicrosecondArray::from(vec![-86_400_500_000]).with_timezone("+00:00");
        touched.add(&RecordBatch::try_from_iter([("at", Arc::new(at) as _)]).unwrap()).unwrap();
        let days = [-2, -1].map(|day| Some(widest(&Literal::date(day))));
        assert_eq!(touched.fields[0].values, Some(days.into()));
    }

    fn file(bucket: Option<i32>, ids: Option<(i64, i64)>) -> DataFile {
        let bounds = |of: fn((i64, i64)) -> i64| ids.map(|ids| (1, Datum::long(of(ids)))).into_iter().collect();
        let mut file = DataFileBuilder::default();
        file.content(DataContentType::Data)
            .file_path("f".to_owned())
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::from_iter([bucket.map(Literal::int)]))
            .record_count(9)
            .file_size_in_bytes(9)
            .lower_bounds(bounds(|ids| ids.0))
            .upper_bounds(bounds(|ids| ids.1));
        file.build().unwrap()
    }

    #[test]
    fn files_without_the_keys_are_left_out_by_their_bounds_and_their_partition() {
        let metadata = metadata();
        let spec = metadata.default_partition_spec();
        let mut touched = Touched::new(&metadata, &["id".to_owned()]).unwrap();
        assert!(!touched.may_be_in(spec, &file(Some(0), None)), "no key is in no file");
        let ids = Arc::new(Int64Array::from(vec![30, 77]));
        touched.add(&RecordBatch::try_from_iter([("id", ids as _)]).unwrap()).unwrap();
        let values = touched.fields[0].values.clone().unwrap();
        let (with, without): (Vec<i32>, Vec<i32>) =
            (0..BUCKETS as i32).partition(|n| values.contains(&Some(widest(&Literal::int(*n)))));
        for (ids, expected) in [
            (Some((0, 29)), false),
            (Some((0, 30)), true),
            (Some((31, 76)), true),
            (Some((77, 90)), true),
            (Some((78, 90)), false),
            // What says nothing may hold anything.
            (None, true),
        ] {
            assert!(with.iter().all(|n| touched.may_be_in(spec, &file(Some(*n), ids)) == expected), "{ids:?}");
            assert!(without.iter().all(|n| !touched.may_be_in(spec, &file(Some(*n), ids))), "{ids:?}");
        }
        assert!(!with.is_empty() && !without.is_empty() && !touched.may_be_in(spec, &file(None, Some((0, 90)))));
        // Too many values are not listed; the bounds are known still.
        touched.fields[0].values = None;
        assert!(without.iter().all(|n| touched.may_be_in(spec, &file(Some(*n), Some((0, 90))))));
        assert!(!touched.may_be_in(spec, &file(Some(with[0]), Some((78, 90)))));
    }
}
