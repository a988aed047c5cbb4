//! What a scan may leave out, and partitions that can be compared.

use std::collections::HashSet;
use std::fmt::Debug;

use iceberg::spec::{
    DataFile, Datum, FieldSummary, Literal, ManifestFile, PartitionField, PartitionSpec, PrimitiveLiteral, Schema,
    Struct, TableMetadata, Type,
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
    if keys.len() > KEYS_MAX {
        return true;
    }
    let Some(bounds) = bounds(metadata, manifest) else { return true };
    keys.iter().any(|(id, partition)| {
        *id == spec_id
            && partition.fields().len() == bounds.len()
            && partition.iter().zip(&bounds).all(|(value, bounds)| bounds.may_hold(value))
    })
}

/// Where a manifest's files begin, for putting manifests in an order in which neighbours hold near partitions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionOrder(Vec<Begin>);

/// The lower bound of a partition field; what is not known comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Begin {
    Unknown,
    Number(i128),
    Bytes(Vec<u8>),
}

impl PartitionOrder {
    /// Of fields with these lower bounds.
    #[cfg(test)]
    pub fn of_numbers(lower: &[i64]) -> Self {
        Self(lower.iter().map(|n| Begin::Number(i128::from(*n))).collect())
    }
}

/// The order of a manifest among those of its spec.
#[must_use]
pub fn partition_order(metadata: &TableMetadata, manifest: &ManifestFile) -> PartitionOrder {
    let bounds = bounds(metadata, manifest).unwrap_or_default();
    let begin = |bounds: Bounds| match bounds.lower {
        Some(Literal::Primitive(PrimitiveLiteral::Long(n))) => Begin::Number(i128::from(n)),
        Some(Literal::Primitive(PrimitiveLiteral::Int128(n))) => Begin::Number(n),
        Some(Literal::Primitive(PrimitiveLiteral::String(text))) => Begin::Bytes(text.into_bytes()),
        Some(Literal::Primitive(PrimitiveLiteral::Binary(bytes))) => Begin::Bytes(bytes),
        _ => Begin::Unknown,
    };
    PartitionOrder(bounds.into_iter().map(begin).collect())
}

/// What the summaries say of each partition field; `None` when nothing can be told.
fn bounds(metadata: &TableMetadata, manifest: &ManifestFile) -> Option<Vec<Bounds>> {
    let spec = metadata.partition_spec_by_id(manifest.partition_spec_id)?;
    let summaries = manifest.partitions.as_ref()?;
    // A column that was dropped leaves a spec without types.
    let types = spec.partition_type(metadata.current_schema()).ok()?;
    let types: Vec<&Type> = types.fields().iter().map(|f| f.field_type.as_ref()).collect();
    (types.len() == summaries.len()).then(|| summaries.iter().zip(types).map(|(s, t)| Bounds::of(s, t)).collect())
}

/// Whether a manifest may name a file that a rule lets pass: of each partition field it says, given what may be there,
/// whether one of the values it looks for is. "No" must be certain.
pub fn fields_may_hold(
    metadata: &TableMetadata,
    manifest: &ManifestFile,
    rule: impl Fn(&PartitionField, &dyn Fn(Option<&Literal>) -> bool) -> bool,
) -> bool {
    let Some(spec) = metadata.partition_spec_by_id(manifest.partition_spec_id) else { return true };
    let Some(bounds) = bounds(metadata, manifest) else { return true };
    spec.fields().iter().zip(&bounds).all(|(field, bounds)| rule(field, &|value| bounds.may_hold(value)))
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
