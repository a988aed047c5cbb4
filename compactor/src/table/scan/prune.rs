//! What a scan may leave out, and partitions that can be compared.

use std::collections::HashSet;
use std::fmt::Debug;

use iceberg::spec::{
    DataFile, Datum, FieldSummary, Literal, ManifestFile, PartitionSpec, PrimitiveLiteral, Schema, Struct,
    TableMetadata, Type,
};

/// Says which manifests and files cannot hold what a caller looks for. "No" must be certain; "yes" costs time only.
pub trait Prune: Debug + Send + Sync {
    /// Whether a data manifest may name such a file; [`summary_may_hold`] answers for known partitions.
    fn manifest(&self, metadata: &TableMetadata, manifest: &ManifestFile) -> bool {
        let (_, _) = (metadata, manifest);
        true
    }

    /// Whether a data file may hold such a row, by partition and bounds. `schema` is the table's current one, `spec` the
    /// file's; a partition value or bound may still have the type that its column had before a promotion.
    fn file(&self, schema: &Schema, spec: &PartitionSpec, file: &DataFile) -> bool;
}

/// Leaves nothing out.
#[derive(Debug, Clone, Copy)]
pub struct All;

impl Prune for All {
    fn file(&self, _: &Schema, _: &PartitionSpec, _: &DataFile) -> bool {
        true
    }
}

/// A partition: spec id, and its values with promoted types made equal, because files of both sides of a promotion lie
/// in one partition.
pub type PartitionKey = (i32, Struct);

/// Several partitions.
pub type PartitionKeys = HashSet<PartitionKey>;

/// The key of a file's partition.
#[must_use]
pub fn partition_key(spec_id: i32, partition: &Struct) -> PartitionKey {
    (spec_id, partition.iter().map(|value| value.map(widest)).collect())
}

/// A value in the widest type that its column may be promoted to, so that both sides of a promotion compare.
#[must_use]
pub fn widest(literal: &Literal) -> Literal {
    match literal {
        Literal::Primitive(PrimitiveLiteral::Int(n)) => Literal::Primitive(PrimitiveLiteral::Long(i64::from(*n))),
        Literal::Primitive(PrimitiveLiteral::Float(n)) => {
            Literal::Primitive(PrimitiveLiteral::Double(f64::from(n.0).into()))
        }
        other => other.clone(),
    }
}

/// Partitions beyond which looking at every summary costs more than it saves.
const KEYS_MAX: usize = 1000;

/// Whether a manifest may name a file of one of these partitions, by the summaries in the manifest list. Equality
/// deletes of an unpartitioned spec reach every partition, so such a manifest of deletes always may.
#[must_use]
pub fn summary_may_hold(metadata: &TableMetadata, manifest: &ManifestFile, keys: &PartitionKeys) -> bool {
    let spec_id = manifest.partition_spec_id;
    let Some(spec) = metadata.partition_spec_by_id(spec_id) else { return true };
    if spec.is_unpartitioned() {
        let deletes = manifest.content == iceberg::spec::ManifestContentType::Deletes;
        return deletes || keys.iter().any(|(id, _)| *id == spec_id);
    }
    let Some(summaries) = &manifest.partitions else { return true };
    if keys.len() > KEYS_MAX {
        return true;
    }
    // A column that was dropped leaves a spec without types; nothing can be told then.
    let Ok(types) = spec.partition_type(metadata.current_schema()) else { return true };
    let types: Vec<&Type> = types.fields().iter().map(|f| f.field_type.as_ref()).collect();
    if types.len() != summaries.len() {
        return true;
    }
    let bounds: Vec<Bounds> = summaries.iter().zip(types).map(|(s, t)| Bounds::of(s, t)).collect();
    keys.iter().any(|(id, partition)| {
        *id == spec_id
            && partition.fields().len() == bounds.len()
            && partition.iter().zip(&bounds).all(|(value, bounds)| bounds.may_hold(value))
    })
}

/// One field's summary; `None` is unknown.
struct Bounds {
    null: bool,
    nan: bool,
    lower: Option<Literal>,
    upper: Option<Literal>,
}

impl Bounds {
    fn of(summary: &FieldSummary, r#type: &Type) -> Self {
        let primitive = r#type.as_primitive_type();
        let datum = |bytes: Option<&[u8]>| {
            let datum = Datum::try_from_bytes(bytes?, primitive?.clone()).ok()?;
            Some(widest(&Literal::Primitive(datum.literal().clone())))
        };
        Self {
            null: summary.contains_null,
            nan: summary.contains_nan.unwrap_or(true),
            lower: datum(summary.lower_bound.as_ref().map(|b| b.as_slice())),
            upper: datum(summary.upper_bound.as_ref().map(|b| b.as_slice())),
        }
    }

    fn may_hold(&self, value: Option<&Literal>) -> bool {
        let Some(Literal::Primitive(value)) = value else { return self.null };
        if value.is_nan() {
            return self.nan;
        }
        let side = |bound: &Option<Literal>| match bound {
            Some(Literal::Primitive(bound)) => order(bound, value),
            _ => None,
        };
        side(&self.lower).is_none_or(|o| o.is_le()) && side(&self.upper).is_none_or(|o| o.is_ge())
    }
}

/// The order of two values of one type; `None` when it cannot be told.
fn order(a: &PrimitiveLiteral, b: &PrimitiveLiteral) -> Option<std::cmp::Ordering> {
    use PrimitiveLiteral as P;
    match (a, b) {
        (P::Boolean(a), P::Boolean(b)) => Some(a.cmp(b)),
        (P::Long(a), P::Long(b)) => Some(a.cmp(b)),
        (P::Double(a), P::Double(b)) => a.0.partial_cmp(&b.0),
        (P::String(a), P::String(b)) => Some(a.cmp(b)),
        (P::Binary(a), P::Binary(b)) => Some(a.cmp(b)),
        (P::Int128(a), P::Int128(b)) => Some(a.cmp(b)),
        (P::UInt128(a), P::UInt128(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
