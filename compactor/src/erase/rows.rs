//! Which rows of a table are the subject's, and what they are without the values.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, LargeBinaryArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StringArray,
    StructArray, UInt32Array,
};
use arrow_buffer::{BooleanBuffer, OffsetBuffer};
use arrow_schema::DataType;
use async_trait::async_trait;
use firn_shared::config::domain::PathStep;
use firn_shared::config::protected::key_column;
use firn_shared::crypto::erase::{Erased, Eraser, Naming, Sealed, Subject};
use firn_shared::crypto::keys::key_of;
use firn_shared::crypto::{Erasable, Keys, Plaintext};
use firn_shared::error::{Error, ErrorKind, Result};
use iceberg::spec::{PrimitiveLiteral, PrimitiveType, Schema, Type};

use crate::protect::{canonical, holds};
use crate::table::scan::{Values, Wanted};

/// Rows before and after an erasure.
#[async_trait]
pub trait Erase: Send + Sync {
    /// The columns that [`Self::may_be_in`] looks at; few and small, because every file of the table is looked through.
    fn first_look(&self) -> Vec<String>;

    /// What a file of the table says somewhere if it holds rows that lose something; `None` when that cannot be told before
    /// it is read.
    fn wanted(&self, schema: &Schema) -> Option<Wanted> {
        let _ = schema;
        None
    }

    /// Whether a batch of these columns may hold rows that lose something.
    fn may_be_in(&self, batch: &RecordBatch) -> Result<bool>;

    /// All columns without the subject's values, and how many rows lost some.
    async fn apply(&self, batch: RecordBatch) -> Result<(RecordBatch, u64)>;

    /// How many rows hold something sealed that could not be opened; they were looked through as they are.
    fn unopened(&self) -> u64 {
        0
    }
}

/// The columns that say which key sealed a row's values.
fn keys(values: &BTreeSet<Erasable>) -> BTreeSet<String> {
    values.iter().filter(|of| of.seals).filter_map(|of| of.key.as_ref()).map(key_column).collect()
}

/// The columns with something that goes, and those that say whose it is.
pub fn columns(values: &BTreeSet<Erasable>) -> BTreeSet<String> {
    let gone = values.iter().flat_map(|of| &of.columns).filter_map(|path| match path.first() {
        Some(PathStep::Field(name)) => Some(name.clone()),
        _ => None,
    });
    gone.chain(values.iter().map(|of| of.subject.to_string())).chain(keys(values)).collect()
}

/// Rows of a table by their subject columns and the keys that sealed them.
pub struct Matching {
    subject: Subject,
    /// Columns that name the subject, and how.
    subjects: Vec<(String, Naming)>,
    keys: Vec<String>,
    /// Values that go, tokens included.
    gone: Vec<Vec<PathStep>>,
}

impl Matching {
    /// Of a table with these values; `naming` says how a column names a subject, and which columns there are, and `stays`
    /// which values are left.
    pub fn new(
        values: &BTreeSet<Erasable>,
        subject: &Subject,
        naming: impl Fn(&str) -> Option<Naming>,
        stays: impl Fn(&[PathStep]) -> bool,
    ) -> Self {
        // Sealed or not: the column, and the token beside it, as far as the table has them.
        let names = values.iter().flat_map(|of| [of.subject.to_string(), format!("{}_token", of.subject)]);
        let names: BTreeSet<String> = names.collect();
        let subjects = names.into_iter().filter_map(|name| naming(&name).map(|naming| (name, naming))).collect();
        let gone = values.iter().flat_map(|of| of.columns.iter().cloned()).filter(|path| !stays(path));
        let gone: BTreeSet<Vec<PathStep>> = gone.collect();
        let keys = keys(values).into_iter().collect();
        Self { subject: subject.clone(), subjects, keys, gone: gone.into_iter().collect() }
    }

    fn mask(&self, batch: &RecordBatch) -> Result<BooleanBuffer> {
        let mut mask = vec![false; batch.num_rows()];
        let mut look = |name: &str, hers: &dyn Fn(&str) -> bool| -> Result<()> {
            let Some(column) = batch.column_by_name(name) else { return Ok(()) };
            let text = canonical(column)?;
            for (row, hit) in mask.iter_mut().enumerate().filter(|(row, _)| text.is_valid(*row)) {
                *hit |= hers(text.value(row));
            }
            Ok(())
        };
        for (name, naming) in &self.subjects {
            look(name, &|text| self.subject.is_named(text, *naming))?;
        }
        for name in &self.keys {
            look(name, &|text| self.subject.has_key(text))?;
        }
        Ok(BooleanBuffer::from(mask))
    }
}

#[async_trait]
impl Erase for Matching {
    fn first_look(&self) -> Vec<String> {
        self.subjects.iter().map(|(name, _)| name).chain(&self.keys).cloned().collect()
    }

    fn wanted(&self, schema: &Schema) -> Option<Wanted> {
        let fields = schema.as_struct();
        let named = self.subjects.iter().filter_map(|(name, _)| {
            let field = fields.field_by_name(name)?;
            let values = self.subject.texts().filter_map(|text| value(text, &field.field_type));
            Some(Values { field_id: field.id, values: values.collect() })
        });
        let sealed = self.keys.iter().filter_map(|name| {
            let field = fields.field_by_name(name)?;
            let values = self.subject.key_ids().filter_map(|id| value(id, &field.field_type));
            Some(Values { field_id: field.id, values: values.collect() })
        });
        Wanted::new(schema, named.chain(sealed).collect())
    }

    fn may_be_in(&self, batch: &RecordBatch) -> Result<bool> {
        Ok(self.mask(batch)?.count_set_bits() > 0)
    }

    async fn apply(&self, batch: RecordBatch) -> Result<(RecordBatch, u64)> {
        let mask = self.mask(&batch)?;
        let (schema, mut arrays, count) = batch.into_parts();
        let keys: Vec<Vec<PathStep>> = self.keys.iter().map(|name| vec![PathStep::Field(name.clone())]).collect();
        let mut held = BooleanBuffer::new_unset(count);
        for path in self.gone.iter().chain(&keys) {
            let Some((PathStep::Field(name), rest)) = path.split_first() else { continue };
            let Ok(at) = schema.index_of(name) else { continue };
            held = &held | &holds(&arrays[at], rest);
            arrays[at] = without(&arrays[at], rest, &mask)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|e| {
            Error::config("a required column would lose its value; make it optional in the table").with_source(e)
        })?;
        // Only rows that still had values: an erasure that is done again finds nothing.
        Ok((batch, (&held & &mask).count_set_bits() as u64))
    }
}

/// What a column of this type holds where it says `text`; `None` where it never does.
fn value(text: &str, r#type: &Type) -> Option<PrimitiveLiteral> {
    match r#type {
        Type::Primitive(PrimitiveType::Int | PrimitiveType::Long) => text.parse().ok().map(PrimitiveLiteral::Long),
        Type::Primitive(PrimitiveType::Uuid) => {
            uuid::Uuid::try_parse(text).ok().map(|uuid| PrimitiveLiteral::UInt128(uuid.as_u128()))
        }
        _ => Some(PrimitiveLiteral::String(text.to_owned())),
    }
}

/// The values at `path` set to null where `mask` says so; nothing of them is left behind the nulls.
fn without(array: &ArrayRef, path: &[PathStep], mask: &BooleanBuffer) -> Result<ArrayRef> {
    let bug = |e: arrow_schema::ArrowError| Error::bug("a value cannot be erased").with_source(e);
    match (path.split_first(), array.data_type()) {
        (None, _) => {
            let kept = (0..array.len() as u32).map(|row| (!mask.value(row as usize)).then_some(row));
            arrow_select::take::take(array, &kept.collect::<UInt32Array>(), None).map_err(bug)
        }
        (Some((PathStep::Field(name), rest)), DataType::Struct(fields)) => {
            let of = array.as_struct();
            let Some(at) = fields.iter().position(|field| field.name() == name) else { return Ok(Arc::clone(array)) };
            let mut columns = of.columns().to_vec();
            columns[at] = without(&columns[at], rest, mask)?;
            let made = StructArray::try_new(fields.clone(), columns, of.nulls().cloned());
            Ok(Arc::new(made.map_err(|e| {
                Error::config("a required field would lose its value; make it optional in the table").with_source(e)
            })?))
        }
        (Some((PathStep::Each, rest)), DataType::List(element)) => {
            let list = array.as_list::<i32>();
            let mask = of_elements(list.offsets(), list.values().len(), mask);
            let values = without(list.values(), rest, &mask)?;
            let made = ListArray::try_new(Arc::clone(element), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(made.map_err(bug)?))
        }
        (Some((PathStep::Each, rest)), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let mask = of_elements(map.offsets(), map.values().len(), mask);
            let values = without(map.values(), rest, &mask)?;
            let DataType::Struct(fields) = entries.data_type() else { return Err(Error::bug("a map without entries")) };
            let both = StructArray::try_new(fields.clone(), vec![Arc::clone(map.keys()), values], None).map_err(bug)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, both, nulls, *sorted).map_err(bug)?))
        }
        (Some(_), _) => Ok(Arc::clone(array)),
    }
}

fn of_elements(offsets: &OffsetBuffer<i32>, elements: usize, mask: &BooleanBuffer) -> BooleanBuffer {
    let mut of = vec![false; elements];
    for (row, bounds) in offsets.windows(2).enumerate() {
        of[bounds[0] as usize..bounds[1] as usize].fill(mask.value(row));
    }
    BooleanBuffer::from(of)
}

/// Rows of a quarantine table, by what is in their payloads.
pub struct Rejects {
    eraser: Eraser,
    keys: Arc<Keys>,
    /// Hashes of payloads with something in them that could not be opened.
    unopened: Mutex<HashSet<blake3::Hash>>,
}

/// The column of a quarantine that has whole records.
pub const PAYLOAD: &str = "payload";
/// Where in the payload a fault lies; of rows that older versions wrote, keys of maps are in it, which are data.
const PATH: &str = "json_path";
/// The path of the whole payload.
const WHOLE: &str = "$";

impl Rejects {
    /// As `eraser` finds them.
    pub fn new(eraser: Eraser, keys: Arc<Keys>) -> Self {
        Self { eraser, keys, unopened: Mutex::default() }
    }

    async fn payload(&self, payload: &[u8]) -> Result<Option<Vec<u8>>> {
        let erased = match self.eraser.erase(payload) {
            Erased::Sealed(sealed) => {
                let (opened, unopened) = opened(&self.keys, &sealed).await?;
                if unopened > 0 {
                    let mut known = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(blake3::hash(payload));
                }
                self.eraser.erase_opened(payload, &opened)
            }
            other => other,
        };
        Ok(if let Erased::Changed(new) = erased { Some(new) } else { None })
    }

    /// Whether a path has the subject for one of its keys.
    fn is_in_path(&self, path: &str) -> bool {
        keys_in(path).iter().any(|key| self.eraser.subject().is_mentioned(key.as_bytes()))
    }
}

/// The keys in a path, without the places in lists, which are nobody's numbers.
fn keys_in(path: &str) -> Vec<String> {
    let (mut keys, mut rest) = (Vec::new(), path.trim_start_matches('$'));
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let escaped = |at: usize| quoted[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
            let end = quoted.match_indices("']").map(|(at, _)| at).find(|at| !escaped(*at)).unwrap_or(quoted.len());
            keys.push(quoted[..end].replace("\\'", "'").replace("\\\\", "\\"));
            rest = quoted.get(end + 2..).unwrap_or_default();
        } else if rest.starts_with('[') {
            rest = rest.split_once(']').unwrap_or_default().1;
        } else {
            let name = rest.trim_start_matches('.');
            let end = name.find(['.', '[']).unwrap_or(name.len());
            keys.push(name[..end].to_owned());
            rest = &name[end..];
        }
    }
    keys
}

#[async_trait]
impl Erase for Rejects {
    fn first_look(&self) -> Vec<String> {
        vec![PAYLOAD.to_owned(), PATH.to_owned()]
    }

    fn may_be_in(&self, batch: &RecordBatch) -> Result<bool> {
        let payloads = payloads(batch)?;
        let subject = self.eraser.subject();
        Ok(payloads.iter().flatten().any(|payload| subject.may_be_in(payload))
            || paths(batch)?.is_some_and(|paths| paths.iter().flatten().any(|path| self.is_in_path(path))))
    }

    async fn apply(&self, batch: RecordBatch) -> Result<(RecordBatch, u64)> {
        let (payloads_before, paths_before) = (payloads(&batch)?, paths(&batch)?);
        let (mut payloads, mut paths, mut rows) = (Vec::new(), Vec::new(), 0);
        for (row, payload) in payloads_before.iter().enumerate() {
            let path = paths_before.as_ref().filter(|paths| paths.is_valid(row)).map(|paths| paths.value(row));
            let new = match payload {
                Some(payload) => self.payload(payload).await?,
                None => None,
            };
            let loses = new.is_some() || path.is_some_and(|path| self.is_in_path(path));
            rows += u64::from(loses);
            payloads.push(new.or_else(|| payload.map(<[u8]>::to_vec)));
            paths.push(if loses { Some(WHOLE) } else { path });
        }
        let (schema, mut arrays, count) = batch.into_parts();
        let at = schema.index_of(PAYLOAD).map_err(|e| Error::bug("a quarantine without payload").with_source(e))?;
        let payloads = payloads.iter().map(Option::as_deref);
        arrays[at] = match arrays[at].data_type() {
            DataType::LargeBinary => Arc::new(payloads.collect::<LargeBinaryArray>()),
            _ => Arc::new(payloads.collect::<BinaryArray>()),
        };
        if let Ok(at) = schema.index_of(PATH) {
            let text: ArrayRef = Arc::new(paths.into_iter().collect::<StringArray>());
            let typed = arrow_cast::cast(&text, arrays[at].data_type());
            arrays[at] = typed.map_err(|e| Error::bug("paths of the quarantine").with_source(e))?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options);
        Ok((batch.map_err(|e| Error::bug("rows of the quarantine").with_source(e))?, rows))
    }

    fn unopened(&self) -> u64 {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
}

/// The payloads. Iceberg's readers give large arrays of bytes, files by themselves small ones.
fn payloads(batch: &RecordBatch) -> Result<LargeBinaryArray> {
    let column = batch.column_by_name(PAYLOAD);
    let large = column.and_then(|column| column.as_binary_opt::<i64>()).cloned();
    let small = || column.and_then(|column| column.as_binary_opt::<i32>()).map(|small| small.iter().collect());
    large.or_else(small).ok_or_else(|| Error::data("the quarantine table has no column `payload` of bytes"))
}

/// The paths, as far as the table has them.
fn paths(batch: &RecordBatch) -> Result<Option<StringArray>> {
    let Some(column) = batch.column_by_name(PATH) else { return Ok(None) };
    let text = arrow_cast::cast(column, &DataType::Utf8);
    let text = text.map_err(|e| Error::data(format!("`{PATH}` of the quarantine table is no text")).with_source(e))?;
    Ok(Some(text.as_string().clone()))
}

/// What is in something sealed, `None` where its key is gone; and how much of it cannot be opened with the keys of this
/// deployment. Anybody may send what only looks sealed, and that holds up nothing.
///
/// # Errors
/// Those of keys that are there and do not answer.
pub async fn opened(keys: &Keys, sealed: &[Sealed]) -> Result<(Vec<Option<Plaintext>>, u64)> {
    let (mut opened, mut unopened) = (Vec::with_capacity(sealed.len()), 0);
    for one in sealed {
        let name = key_of(&one.key).filter(|name| keys.names().any(|known| known == name));
        let found = match &name {
            Some(name) => match keys.key(name).await?.open(&one.key).await {
                Ok(Some(key)) => key.open(one.value.as_bytes(), b"").ok(),
                Ok(None) => {
                    opened.push(None);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Data => None,
                Err(e) => return Err(e),
            },
            None => None,
        };
        unopened += u64::from(found.is_none());
        opened.push(found);
    }
    Ok((opened, unopened))
}

#[cfg(test)]
mod tests {
    use firn_shared::clock::SystemClock;
    use firn_shared::config::domain::{KmsOptions, S3Options};
    use firn_shared::crypto::Sealer;
    use firn_shared::store::Stores;

    use super::*;
    use crate::protect::fixed;

    #[test]
    fn keys_are_told_from_places_in_lists() {
        for (path, expected) in [
            ("$", vec![]),
            ("$.a.42[7].b[*]", vec!["a", "42", "b"]),
            (r"$.m['alice@example.com'][3]['a\'b.c\\']", vec!["m", "alice@example.com", r"a'b.c\"]),
            ("$.m['cut", vec!["m", "cut"]),
        ] {
            assert_eq!(keys_in(path), expected, "{path}");
        }
    }

    /// Rows that were refused while paths still said the keys of maps.
    #[tokio::test]
    async fn a_path_that_says_a_key_goes_with_the_payload() {
        let folder = tempfile::tempdir().unwrap();
        let specs = fixed::keys(folder.path(), ["people".parse().unwrap()]).unwrap();
        let keys = Keys::of(specs, KmsOptions::default(), Stores::new(S3Options::default()), Arc::new(SystemClock));
        let subject = Subject::new("42", &keys, &["people".parse().unwrap()].into(), &[].into()).await.unwrap();
        let rejects = Rejects::new(Eraser::new(subject, &[]).unwrap(), keys);
        let payload: ArrayRef =
            Arc::new(LargeBinaryArray::from_iter_values([&b"no JSON of 42"[..], b"no JSON of 7", b"{}", b"{}"]));
        let paths = ["$.ages['alice@example.com']", "$.ages['bob@example.com']", "$.who.42", "$.list[42]"];
        let path: ArrayRef = Arc::new(StringArray::from_iter_values(paths));
        let batch = RecordBatch::try_from_iter([(PAYLOAD, payload), (PATH, path)]).unwrap();
        assert!(rejects.may_be_in(&batch.slice(2, 1)).unwrap() && !rejects.may_be_in(&batch.slice(3, 1)).unwrap());
        let (after, rows) = rejects.apply(batch).await.unwrap();
        let after: Vec<_> = after.column(1).as_string::<i32>().iter().flatten().collect();
        assert_eq!((after, rows), (vec!["$", "$.ages['bob@example.com']", "$", "$.list[42]"], 2));
    }

    #[tokio::test]
    async fn what_only_looks_sealed_holds_up_nothing_and_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let specs = fixed::keys(folder.path(), ["people".parse().unwrap()]).unwrap();
        let keys = Keys::of(specs, KmsOptions::default(), Stores::new(S3Options::default()), Arc::new(SystemClock));
        let subject = Subject::new("42", &keys, &["people".parse().unwrap()].into(), &[].into()).await.unwrap();
        let rejects = Rejects::new(Eraser::new(subject, &[]).unwrap(), Arc::clone(&keys));
        let key = keys.key(&"people".parse().unwrap()).await.unwrap().current(1).await.unwrap();
        let whole = |id: &str, value: &str| format!("{{\"_firn_sealed\":\"firn:1:e:{id}:{value}:\"}}");
        let mut sealed = Vec::new();
        Sealer::default().seal(&key, b"", b"cut short: 42,", &mut sealed).unwrap();
        let real = String::from_utf8(sealed).unwrap();
        let subject = format!("people/s/{}", "0".repeat(32));
        for fake in [
            whole("nokey/1", "QUJD"),
            whole("people/1", "QUJD"),
            whole("people/99", &real),
            whole("people/x", &real),
            whole(&subject, &real),
        ] {
            assert_eq!(rejects.payload(fake.as_bytes()).await.unwrap(), None, "{fake}");
        }
        assert_eq!(rejects.unopened(), 4, "a key of a subject may be gone");
        assert_eq!(rejects.payload(whole("nokey/1", "QUJD").as_bytes()).await.unwrap(), None);
        assert_eq!(rejects.unopened(), 4, "the same again");
        let erased = rejects.payload(whole("people/1", &real).as_bytes()).await.unwrap();
        assert_eq!(erased.unwrap(), b"{\"_firn_erased\":true}");
    }
}
