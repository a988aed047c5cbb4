//! Batches split by the table's partition spec.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray, UInt32Array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, Fields};
use firn_shared::error::{Error, Result};
use iceberg::arrow::{PartitionValueCalculator, arrow_struct_to_literal, type_to_arrow_type};
use iceberg::spec::{
    Literal, PartitionField, PartitionSpec, PartitionSpecRef, PrimitiveLiteral, PrimitiveType, Schema, SchemaRef,
    Struct, StructType, Transform, Type,
};

use crate::table::{calendar, error};

/// A partition value in a path is cut to this many characters.
const PATH_VALUE_MAX: usize = 64;

/// Computes partition values and groups rows by them.
pub(super) struct Splitter {
    schema: SchemaRef,
    spec: PartitionSpecRef,
    /// `None` for unpartitioned tables.
    values: Option<(Values, RowConverter)>,
}

/// The rows of one partition.
pub(super) struct Part {
    /// Equal for equal partition values.
    pub key: Vec<u8>,
    /// The partition value.
    pub value: Struct,
    /// Its rows, in their order.
    pub batch: RecordBatch,
}

impl Splitter {
    pub fn new(schema: SchemaRef, spec: PartitionSpecRef) -> Result<Self> {
        if spec.is_unpartitioned() {
            return Ok(Self { schema, spec, values: None });
        }
        let values = Values::new(&spec, &schema)?;
        let field = SortField::new(DataType::Struct(values.fields.clone()));
        let converter = RowConverter::new(vec![field]).map_err(|e| Error::bug("partition values").with_source(e))?;
        Ok(Self { schema, spec, values: Some((values, converter)) })
    }

    /// The batch by partition, in order of first appearance.
    pub fn split(&mut self, batch: &RecordBatch) -> Result<Vec<Part>> {
        let Some((calculated, converter)) = &mut self.values else {
            return Ok(vec![Part { key: Vec::new(), value: Struct::empty(), batch: batch.clone() }]);
        };
        let values = calculated.of(batch)?;
        let failed = |e: arrow_schema::ArrowError| Error::bug(format!("cannot group rows: {e}")).with_source(e);
        let rows = converter.convert_columns(std::slice::from_ref(&values)).map_err(failed)?;
        let mut parts: Vec<(Vec<u8>, Vec<u32>)> = Vec::new();
        let mut index: HashMap<&[u8], usize> = HashMap::new();
        // Neighbours are mostly of one partition: raw objects hold one event hour each.
        let mut last: Option<(&[u8], usize)> = None;
        for (number, row) in rows.iter().enumerate() {
            let key = row.data();
            let part = match last {
                Some((previous, part)) if previous == key => part,
                _ => *index.entry(key).or_insert_with(|| {
                    parts.push((key.to_vec(), Vec::new()));
                    parts.len() - 1
                }),
            };
            last = Some((key, part));
            parts[part].1.push(number as u32);
        }
        let whole = parts.len() == 1;
        let value_of = |row: u32| partition_value(&calculated.r#type, &values, row as usize);
        let part = |(key, numbers): (Vec<u8>, Vec<u32>)| {
            let value = value_of(numbers[0])?;
            let batch = if whole {
                batch.clone()
            } else {
                arrow_select::take::take_record_batch(batch, &UInt32Array::from(numbers)).map_err(failed)?
            };
            Ok(Part { key, value, batch })
        };
        parts.into_iter().map(part).collect()
    }

    /// Directory of a partition.
    pub fn path(&self, value: &Struct) -> String {
        partition_path(&self.spec, &self.schema, value)
    }
}

/// Partition values of rows.
struct Values {
    transforms: Vec<Transform>,
    r#type: StructType,
    fields: Fields,
    /// Finds the source columns, and applies the transforms that are not of the calendar.
    calculator: PartitionValueCalculator,
}

impl Values {
    fn new(spec: &PartitionSpec, schema: &Schema) -> Result<Self> {
        let failed = |e| error("cannot partition rows", e);
        let r#type = spec.partition_type(schema).map_err(failed)?;
        let DataType::Struct(fields) = type_to_arrow_type(&Type::Struct(r#type.clone())).map_err(failed)? else {
            return Err(Error::bug("the type of a partition is not a struct"));
        };
        let calculator = PartitionValueCalculator::try_new(&sources(spec)?, schema).map_err(failed)?;
        Ok(Self { transforms: spec.fields().iter().map(|field| field.transform).collect(), r#type, fields, calculator })
    }

    fn of(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let found = self.calculator.calculate(batch).map_err(|e| error("cannot compute partition values", e))?;
        let found = found.as_struct_opt().ok_or_else(|| Error::bug("partition values are not a struct"))?;
        let value = |(transform, column): (&Transform, &ArrayRef)| {
            Ok(calendar::values(*transform, column)?.unwrap_or_else(|| Arc::clone(column)))
        };
        let columns = self.transforms.iter().zip(found.columns()).map(value).collect::<Result<Vec<_>>>()?;
        let values = StructArray::try_new_with_length(self.fields.clone(), columns, None, batch.num_rows());
        Ok(Arc::new(values.map_err(|e| Error::bug("partition values of another type").with_source(e))?))
    }
}

/// The spec with the source column itself where the calendar makes the value.
fn sources(spec: &PartitionSpec) -> Result<PartitionSpec> {
    let of_calendar =
        |transform| matches!(transform, Transform::Year | Transform::Month | Transform::Day | Transform::Hour);
    let field = |field: &PartitionField| {
        let transform = if of_calendar(field.transform) { Transform::Identity } else { field.transform };
        PartitionField { transform, ..field.clone() }
    };
    // The builder would refuse two fields of one source.
    let fields: Vec<PartitionField> = spec.fields().iter().map(field).collect();
    let spec = serde_json::json!({"spec-id": spec.spec_id(), "fields": fields});
    serde_json::from_value(spec).map_err(|e| Error::bug("a partition spec is not its own JSON").with_source(e))
}

/// Directory of a partition, for people: `created_at_hour=2026-11-22-07/id_bucket=3`.
pub(super) fn partition_path(spec: &PartitionSpec, schema: &Schema, value: &Struct) -> String {
    let Ok(types) = spec.partition_type(schema) else { return String::new() };
    let segment = |((field, r#type), value): ((_, &iceberg::spec::NestedFieldRef), Option<&Literal>)| {
        let field: &PartitionField = field;
        let text = r#type.field_type.as_primitive_type().zip(value);
        let text = text.and_then(|(r#type, value)| calendar::text(field.transform, r#type, value));
        let value = text.unwrap_or_else(|| field.transform.to_human_string(&r#type.field_type, value));
        format!("{}={}", plain(&field.name), plain(&value))
    };
    let segments: Vec<String> = spec.fields().iter().zip(types.fields()).zip(value.iter()).map(segment).collect();
    segments.join("/")
}

/// A partition value of an older file in the types of now: its source column may have been promoted.
pub(super) fn retyped(spec: &PartitionSpec, schema: &Schema, value: &Struct) -> Struct {
    let Ok(types) = spec.partition_type(schema) else { return value.clone() };
    let field = |(value, field): (Option<&Literal>, &iceberg::spec::NestedFieldRef)| {
        Some(match (value?, field.field_type.as_primitive_type()) {
            (Literal::Primitive(PrimitiveLiteral::Int(n)), Some(PrimitiveType::Long)) => Literal::long(i64::from(*n)),
            (Literal::Primitive(PrimitiveLiteral::Float(n)), Some(PrimitiveType::Double)) => {
                Literal::double(f64::from(n.0))
            }
            (other, _) => other.clone(),
        })
    };
    value.iter().zip(types.fields()).map(field).collect()
}

fn partition_value(r#type: &StructType, values: &ArrayRef, row: usize) -> Result<Struct> {
    debug_assert!(values.as_struct_opt().is_some());
    let literals = arrow_struct_to_literal(&values.slice(row, 1), r#type);
    match literals.map_err(|e| error("cannot read a partition value", e))?.into_iter().next().flatten() {
        Some(Literal::Struct(value)) => Ok(value),
        _ => Err(Error::bug("a partition value is not a struct")),
    }
}

/// Readers never parse paths; what could be read as a directory, a blank or an escape is replaced.
fn plain(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let text: String = text.chars().take(PATH_VALUE_MAX).map(safe).collect();
    if text.chars().all(|c| c == '.') { "_".repeat(text.len().max(1)) } else { text }
}
