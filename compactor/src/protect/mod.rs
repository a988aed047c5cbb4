//! Personal data on its way into the table: after the transformations, before anything is written, spilled or shuffled.
//!
//! A table's protections see the batch as one struct of its columns. [`column`] follows each path to the values, [`text`]
//! gives every value its canonical text, and `firn_shared::crypto` makes of the text what the protection says. What a
//! row's values were sealed with stands in a column of its own for each key (`_key_people`), so that a reader finds the
//! key, and rotation touches new rows only. Rejected records pass a [`Guard`], which does the same inside their bytes, and
//! for what the pipeline's other tables protect as well: their values are in the same records.

mod column;
pub mod fixed;
mod held;
#[cfg(test)]
mod landed_tests;
mod text;

pub use held::{at_most, holds};
pub use text::canonical;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Schema};
use firn_shared::config::domain::{Column, Encoding, Output, PathStep, Protect};
use firn_shared::config::protected::{decoded_name, key_column, protected, sealing_keys, steps};
use firn_shared::crypto::naming::Naming;
use firn_shared::crypto::payload::{Protected, text_of};
use firn_shared::crypto::{DataKey, Guard, Key, KeyBytes, Keys, Landed, Scratch, Sealer, TokenKey, Treatment};
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::types::{LogicalType, StructField};

use column::{Cells, RowKeys};

/// Protects the batches of one table; shared by all slices of a run.
#[derive(Debug)]
pub struct Protector {
    works: Vec<Work>,
    sealing: Vec<Sealing>,
    /// Values may have been protected by landing: they come as JSON text.
    landed: bool,
    /// Of the pipeline, because a rejected record holds what other tables protect, too.
    guard: Guard,
}

/// One protection.
#[derive(Debug)]
struct Work {
    steps: Vec<PathStep>,
    treatment: Treatment,
    token_name: Option<String>,
    /// Which of [`Protector::sealing`] seals.
    sealing: Option<usize>,
}

/// A key that seals values of the table.
#[derive(Debug)]
struct Sealing {
    key: Arc<Key>,
    /// The column that names the subject whose key it is, and how it writes a subject.
    subject: Option<(String, Naming)>,
    /// The table's column that names the key.
    column: String,
    /// The values to seal.
    values: Vec<Vec<PathStep>>,
}

/// A slice's buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    sealer: Sealer,
    scratch: Scratch,
}

impl Protector {
    /// What the table's protections need, keys included; `None` when no table of the pipeline has any. `pipeline` holds all
    /// outputs that are fed by the same records.
    ///
    /// # Errors
    /// `Config` for keys that cannot be used, else as their provider says.
    pub async fn new(output: &Output, pipeline: &[Output], landed: bool, keys: &Keys) -> Result<Option<Self>> {
        let protections = &output.table.protections;
        let protected = protected(output);
        let own = |other: &&Output| {
            (&other.table.database, &other.table.name) == (&output.table.database, &output.table.name)
        };
        // Its own first: where two tables protect one value, theirs is how it looks.
        let others = pipeline.iter().filter(|other| !own(other)).flat_map(firn_shared::config::protected::protected);
        let all: Vec<Protected> = protected.iter().cloned().chain(others).collect();
        let Some(guard) = Guard::new(&all, keys).await? else { return Ok(None) };
        let guard = guard.of_landed(landed);
        let names = sealing_keys(protections);
        let mut sealing = Vec::new();
        for name in names.iter().copied() {
            let sealed = || {
                let of = move |p: &&Protected| p.protection.key.as_ref() == Some(name) && p.protection.seals();
                protected.iter().filter(of)
            };
            let subject = |p: &Protected| p.protection.subject.as_ref().map(|subject| (subject.to_string(), p.naming));
            sealing.push(Sealing {
                key: keys.key(name).await?,
                subject: sealed().find_map(subject),
                column: key_column(name),
                values: sealed().map(|p| steps(&p.protection.path)).collect(),
            });
        }
        let mut works = Vec::new();
        for (protection, place) in protections.iter().zip(&protected) {
            let treatment = Treatment::new(protection, keys, &place.column).await?.for_values(place.value);
            if treatment.keeps() {
                continue;
            }
            works.push(Work {
                steps: steps(&protection.path),
                token_name: protection.token.then(|| protection.token_name()),
                sealing: protection
                    .seals()
                    .then(|| names.iter().position(|n| Some(*n) == protection.key.as_ref()))
                    .flatten(),
                treatment,
            });
        }
        Ok(Some(Self { works, sealing, landed, guard }))
    }

    /// Whether landing may have protected values.
    #[must_use]
    pub fn is_landed(&self) -> bool {
        self.landed
    }

    /// The bytes of a rejected record without plaintext of protected values.
    ///
    /// # Errors
    /// Those of keys that had to be fetched.
    pub fn payload<'a>(&self, payload: &'a [u8], buffers: &mut Buffers) -> Result<Cow<'a, [u8]>> {
        self.guard.protect_unknown(payload, &mut buffers.scratch)
    }

    /// The batch in the table's columns.
    ///
    /// # Errors
    /// Those of keys that had to be fetched; `Bug` for a batch of other columns.
    pub fn apply(&self, batch: RecordBatch, buffers: &mut Buffers) -> Result<RecordBatch> {
        if self.works.is_empty() {
            return Ok(batch);
        }
        let mut row_keys = self.sealing.iter().map(|s| self.row_keys(s, &batch)).collect::<Result<Vec<_>>>()?;
        let (schema, arrays, rows) = batch.into_parts();
        let mut columns: Vec<(Arc<Field>, ArrayRef)> = schema.fields().iter().cloned().zip(arrays).collect();
        for work in &self.works {
            let mut none = RowKeys::default();
            let keys = match work.sealing {
                Some(at) => &mut row_keys[at],
                None => &mut none,
            };
            let mut cells = Cells { work: &work.treatment, keys, landed: self.landed, sealer: &mut buffers.sealer };
            columns = column::protect(columns, &work.steps, work.token_name.as_deref(), None, &mut cells)?;
        }
        for (sealing, keys) in self.sealing.iter().zip(&row_keys) {
            columns.push((Arc::new(Field::new(&sealing.column, DataType::Utf8, true)), Arc::new(keys.column(rows))));
        }
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|e| Error::bug("protected columns make no batch").with_source(e))
    }

    /// The subject's name in the key store. `None` where landing has left only what stands for the subject.
    fn subject_name(&self, (column, naming): (&str, Naming), text: &str, token: &TokenKey) -> Option<String> {
        let protected =
            self.works.iter().any(|work| matches!(&work.steps[..], [PathStep::Field(name)] if name == column));
        if !self.landed || !protected {
            return Some(token.subject(text.as_bytes()));
        }
        let text = text_of(text.as_bytes())?;
        Landed::parse(&text).is_none().then(|| token.subject(naming.canonical(&text).as_bytes()))
    }

    /// The key of every row: the one by which landing has sealed in it, else the newest version or that of the row's
    /// subject.
    fn row_keys(&self, sealing: &Sealing, batch: &RecordBatch) -> Result<RowKeys> {
        let rows = batch.num_rows();
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| Error::bug(format!("no column `{name}` in a batch to protect")))
        };
        let mut values = Vec::with_capacity(sealing.values.len());
        for path in &sealing.values {
            let Some((PathStep::Field(name), rest)) = path.split_first() else { continue };
            values.push((column(name)?, rest));
        }
        let newest = |rows: usize| sealing.key.current_blocking(at_most(&values, rows));
        let (mut keys, mut left) = (RowKeys::new(rows), BooleanBuffer::new_unset(rows));
        if self.landed {
            // Those that landing has sealed need no key here, and a subject who was erased gets none again.
            left = column::landed(&values, sealing.key.name(), rows, &mut keys)?;
            left = go_on(&sealing.key, &mut keys, &left, &|rows| at_most(&values, rows))?;
        } else {
            for (array, path) in &values {
                left = &left | &holds(array, path);
            }
            if sealing.subject.is_none() {
                return Ok(RowKeys::all(&newest(left.count_set_bits())?, left.iter()));
            }
        }
        let mut left: Vec<usize> = left.set_indices().collect();
        if let Some((subject, naming)) = &sealing.subject {
            self.subject_keys(sealing, (column(subject)?, subject, *naming), &mut left, &mut keys)?;
        }
        // Data of nobody: only rows that delete lack what is required of others.
        let newest = newest(left.len())?;
        for row in left {
            keys.set(row, newest.id(), Some(&newest));
        }
        Ok(keys)
    }

    /// The keys of the subjects of the rows that are `left`; of these stay the ones that nobody's name is in.
    fn subject_keys(
        &self,
        sealing: &Sealing,
        (subjects, subject, naming): (&ArrayRef, &str, Naming),
        left: &mut Vec<usize>,
        keys: &mut RowKeys,
    ) -> Result<()> {
        let subjects = canonical(subjects)?;
        let token = sealing.key.token_key_blocking()?;
        let mut names: HashMap<&str, Option<String>> = HashMap::new();
        for text in left.iter().filter(|row| subjects.is_valid(**row)).map(|row| subjects.value(*row)) {
            names.entry(text).or_insert_with(|| self.subject_name((subject, naming), text, &token));
        }
        let wanted: Vec<String> = names.values().flatten().cloned().collect();
        let found = sealing.key.subjects_blocking(&wanted)?;
        for row in std::mem::take(left) {
            let name = subjects.is_valid(row).then(|| names.get(subjects.value(row))).flatten();
            let Some(name) = name.and_then(Option::as_ref) else {
                left.push(row);
                continue;
            };
            let key = found.get(name).ok_or_else(|| Error::bug("a subject without a key"))?;
            keys.set(row, key.id(), Some(key));
        }
        Ok(())
    }
}

/// Opens the keys by which landing has sealed, in rows where something is `left`: what comes now is sealed by the same.
/// Returns the rows that have none. `values` says how many there are at most in so many rows.
fn go_on(key: &Key, keys: &mut RowKeys, left: &BooleanBuffer, values: &dyn Fn(usize) -> u64) -> Result<BooleanBuffer> {
    let mut opened: HashMap<String, Option<Arc<DataKey>>> = HashMap::new();
    let mut without = vec![false; left.len()];
    let mut rows: HashMap<String, usize> = HashMap::new();
    for id in left.set_indices().filter_map(|row| keys.id(row)) {
        *rows.entry(id.to_owned()).or_default() += 1;
    }
    for row in left.set_indices() {
        let Some(id) = keys.id(row).map(ToOwned::to_owned) else {
            without[row] = true;
            continue;
        };
        if !opened.contains_key(&id) {
            let found = match key.seal_on_blocking(&id, values(rows.get(&id).copied().unwrap_or_default())) {
                Ok(Some(found)) => Some(found),
                // Destroyed: what is sealed now cannot be opened either.
                Ok(None) => Some(Arc::new(DataKey::new(id.as_str(), &KeyBytes::random()?)?)),
                // It only looks like something that landing has sealed, or its version has sealed all it may.
                Err(e) if e.kind() == ErrorKind::Data => None,
                Err(e) => return Err(e),
            };
            opened.insert(id.clone(), found);
        }
        match opened.get(&id).and_then(Option::as_ref) {
            Some(found) => keys.set(row, &id, Some(found)),
            None => without[row] = true,
        }
    }
    Ok(BooleanBuffer::from(without))
}

/// Iceberg's property that says which statistics a column has.
pub const METRICS: &str = "write.metadata.metrics.column.";
/// Iceberg's property that asks for a bloom filter.
pub const BLOOM: &str = "write.parquet.bloom-filter-enabled.column.";

/// Firn's property that says how a column is compressed, where it is not as the table: one of the values below.
pub const CODEC: &str = "firn.parquet.compression-codec.column.";
/// Not at all.
pub const UNCOMPRESSED: &str = "uncompressed";
/// By zstd at its fastest level.
pub const FAST: &str = "zstd(1)";

/// Properties for all writers of the table: no statistics of ciphertext, whose bounds say nothing and cost space, no
/// compression where it is bytes that no codec makes smaller, the fastest where it is base64 or hexadecimal, of which every
/// level leaves as much, and bloom filters on tokens, which are looked for one by one.
#[must_use]
pub fn properties(output: &Output) -> BTreeMap<String, String> {
    let columns = firn_shared::config::columns_after(output);
    let fields = columns.into_iter().map(|c| StructField { name: c.name, r#type: c.r#type, required: c.required });
    let table = LogicalType::Struct(fields.collect());
    let mut properties = BTreeMap::new();
    for protection in output.table.protections.iter().filter(|p| p.protects()) {
        let path = steps(&protection.path);
        if protection.seals() {
            let name = field_name(&table, &path);
            let codec = if protection.encoding == Encoding::Binary { UNCOMPRESSED } else { FAST };
            properties.insert(format!("{CODEC}{name}"), codec.to_owned());
            properties.insert(format!("{METRICS}{name}"), "none".to_owned());
        }
        let mut beside = path.clone();
        if let Some(last) = beside.iter_mut().rfind(|step| matches!(step, PathStep::Field(_))) {
            *last = PathStep::Field(protection.token_name());
        }
        let token = match &protection.how {
            Protect::Token => Some(path),
            _ => protection.token.then_some(beside),
        };
        if let Some(path) = token {
            let name = field_name(&table, &path);
            properties.insert(format!("{CODEC}{name}"), FAST.to_owned());
            properties.insert(format!("{BLOOM}{name}"), "true".to_owned());
        }
    }
    properties
}

/// The full name that Iceberg gives a field.
fn field_name(of: &LogicalType, path: &[PathStep]) -> String {
    let Some((step, rest)) = path.split_first() else { return String::new() };
    let (name, inner) = match (step, of) {
        (PathStep::Field(name), LogicalType::Struct(fields)) => {
            (name.as_str(), fields.iter().find(|field| field.name == *name).map(|field| &field.r#type))
        }
        (PathStep::Each, LogicalType::Map(value)) => ("value", Some(&**value)),
        (PathStep::Each, LogicalType::List(element)) => ("element", Some(&**element)),
        (PathStep::Field(name), _) => (name.as_str(), None),
        (PathStep::Each, _) => ("element", None),
    };
    match inner {
        Some(inner) if !rest.is_empty() => format!("{name}.{}", field_name(inner, rest)),
        _ => name.to_owned(),
    }
}

/// The columns to decode: where landing may have protected a value, it is read as the JSON that stands there.
#[must_use]
pub fn decoded_columns(output: &Output, landed: bool) -> Vec<Column> {
    let mut columns = output.table.columns.clone();
    if !landed {
        return columns;
    }
    for protection in output.table.protections.iter().filter(|p| p.protects()) {
        let name = decoded_name(output, &protection.path.column);
        if let Some(column) = columns.iter_mut().find(|column| Some(column.name.as_str()) == name) {
            column.r#type = as_json(&column.r#type, &protection.path.inside);
            column.format = None;
        }
    }
    columns
}

/// The type with JSON where `path` leads.
fn as_json(r#type: &LogicalType, path: &[PathStep]) -> LogicalType {
    match (path.split_first(), r#type) {
        (Some((PathStep::Each, rest)), LogicalType::List(element)) => {
            LogicalType::List(Box::new(as_json(element, rest)))
        }
        (Some((PathStep::Each, rest)), LogicalType::Map(value)) => LogicalType::Map(Box::new(as_json(value, rest))),
        (Some((PathStep::Field(name), rest)), LogicalType::Struct(fields)) => {
            let inside = |field: &StructField| {
                let r#type = if field.name == *name { as_json(&field.r#type, rest) } else { field.r#type.clone() };
                StructField { r#type, ..field.clone() }
            };
            LogicalType::Struct(fields.iter().map(inside).collect())
        }
        _ => LogicalType::Json,
    }
}
