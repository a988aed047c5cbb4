//! One protection on the columns of a batch: along its path to the values, and back with the protected text.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, MapArray, StringArray, StructArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use firn_shared::config::domain::PathStep;
use firn_shared::crypto::payload::text_of;
use firn_shared::crypto::{DataKey, Landed, Sealer, Treatment};
use firn_shared::error::{Error, Result};

use super::text;

/// Which key seals the values of each row.
#[derive(Debug, Default)]
pub struct RowKeys {
    /// Ids of keys, those of landing included.
    ids: Vec<String>,
    keys: Vec<Option<Arc<DataKey>>>,
    /// Into both; [`NONE`] for rows without a value.
    of_row: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl RowKeys {
    /// One key for all rows that have a value.
    pub fn all(key: Arc<DataKey>, has_value: impl Iterator<Item = bool>) -> Self {
        let of_row = has_value.map(|has| if has { 0 } else { NONE }).collect();
        Self { ids: vec![key.id().to_owned()], keys: vec![Some(key)], of_row }
    }

    /// A key for each row.
    pub fn by_row(keys: impl Iterator<Item = Result<Option<Arc<DataKey>>>>) -> Result<Self> {
        let (mut found, mut numbers) = (Self::default(), HashMap::new());
        for key in keys {
            let number = match key? {
                None => NONE,
                Some(key) => *numbers.entry(key.id().to_owned()).or_insert_with(|| {
                    found.ids.push(key.id().to_owned());
                    found.keys.push(Some(key));
                    found.ids.len() as u32 - 1
                }),
            };
            found.of_row.push(number);
        }
        Ok(found)
    }

    fn key(&self, row: usize) -> Option<&Arc<DataKey>> {
        self.keys.get(*self.of_row.get(row)? as usize)?.as_ref()
    }

    /// The values of this row came sealed, by that key.
    fn came_sealed(&mut self, row: usize, id: &str) {
        let known = self.ids.iter().rposition(|known| known == id);
        let number = known.unwrap_or_else(|| {
            self.ids.push(id.to_owned());
            self.keys.push(None);
            self.ids.len() - 1
        });
        if let Some(of) = self.of_row.get_mut(row) {
            *of = number as u32;
        }
    }

    /// Counts values sealed, and their bytes. Keys of subjects never come near their bounds.
    fn count(&self, (values, bytes): (u64, u64)) {
        if let [Some(key)] = &self.keys[..] {
            key.count(values, bytes);
        }
    }

    /// The column that names the keys.
    pub fn column(&self, rows: usize) -> StringArray {
        (0..rows).map(|row| self.ids.get(self.of_row[row] as usize).map(String::as_str)).collect()
    }
}

/// What is done to the values at the end of a path.
pub struct Cells<'a> {
    pub work: &'a Treatment,
    pub keys: &'a mut RowKeys,
    /// Values are JSON text that landing may have protected.
    pub landed: bool,
    pub sealer: &'a mut Sealer,
}

/// Values and their tokens.
type Done = (ArrayRef, Option<ArrayRef>);

/// Protects the value at `path` in these columns (or fields). `rows` says of each position which row of the batch it is
/// in; `None` where that is the same.
pub fn protect(
    mut columns: Vec<(Arc<Field>, ArrayRef)>,
    path: &[PathStep],
    token_name: Option<&str>,
    rows: Option<&[u32]>,
    cells: &mut Cells<'_>,
) -> Result<Vec<(Arc<Field>, ArrayRef)>> {
    let lost = || Error::bug("a protection does not find its column");
    let Some((PathStep::Field(name), rest)) = path.split_first() else { return Err(lost()) };
    let at = columns.iter().position(|(field, _)| field.name() == name).ok_or_else(lost)?;
    let ends_here = !rest.iter().any(|step| matches!(step, PathStep::Field(_)));
    if ends_here && cells.work.drops() {
        columns.remove(at);
        return Ok(columns);
    }
    let (field, array) = &columns[at];
    let (array, token) = inside(array, rest, token_name.filter(|_| !ends_here), rows, cells)?;
    let changed = |name: &str, array: &ArrayRef| {
        let field = Field::new(name, array.data_type().clone(), field.is_nullable());
        (Arc::new(field), Arc::clone(array))
    };
    let token = token_name.filter(|_| ends_here).zip(token).map(|(name, array)| changed(name, &array));
    columns[at] = changed(name, &array);
    if let Some(token) = token {
        columns.insert(at + 1, token);
    }
    Ok(columns)
}

fn inside(
    array: &ArrayRef,
    path: &[PathStep],
    token_name: Option<&str>,
    rows: Option<&[u32]>,
    cells: &mut Cells<'_>,
) -> Result<Done> {
    let bug = |e: arrow_schema::ArrowError| Error::bug("a protected value does not fit its column").with_source(e);
    match (path.split_first(), array.data_type()) {
        (None, _) => leaf(array, rows, cells),
        (Some((PathStep::Field(_), _)), DataType::Struct(fields)) => {
            let array = array.as_struct();
            let columns = fields.iter().cloned().zip(array.columns().iter().cloned()).collect();
            let columns = protect(columns, path, token_name, rows, cells)?;
            let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
            let made = StructArray::try_new(fields.into(), arrays, array.nulls().cloned()).map_err(bug)?;
            Ok((Arc::new(made), None))
        }
        (Some((PathStep::Each, rest)), DataType::List(element)) => {
            let list = array.as_list::<i32>();
            let rows = rows_of_elements(list.offsets(), list.values().len(), rows);
            let (values, tokens) = inside(list.values(), rest, token_name, Some(&rows), cells)?;
            let again = |values: ArrayRef| -> Result<ArrayRef> {
                let field = Field::new(element.name(), values.data_type().clone(), element.is_nullable());
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                Ok(Arc::new(ListArray::try_new(Arc::new(field), offsets, values, nulls).map_err(bug)?))
            };
            Ok((again(values)?, tokens.map(again).transpose()?))
        }
        (Some((PathStep::Each, rest)), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let rows = rows_of_elements(map.offsets(), map.values().len(), rows);
            let (values, tokens) = inside(map.values(), rest, token_name, Some(&rows), cells)?;
            let again = |values: ArrayRef| -> Result<ArrayRef> {
                let DataType::Struct(of) = entries.data_type() else { return Err(Error::bug("a map without entries")) };
                let field = Field::new(of[1].name(), values.data_type().clone(), of[1].is_nullable());
                let fields = vec![Arc::clone(&of[0]), Arc::new(field)].into();
                let both = StructArray::try_new(fields, vec![Arc::clone(map.keys()), values], None).map_err(bug)?;
                let field = Arc::new(Field::new(entries.name(), both.data_type().clone(), entries.is_nullable()));
                let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
                Ok(Arc::new(MapArray::try_new(field, offsets, both, nulls, *sorted).map_err(bug)?))
            };
            Ok((again(values)?, tokens.map(again).transpose()?))
        }
        (Some(_), other) => Err(Error::bug(format!("a protection leads into {other}"))),
    }
}

/// The row of each element.
fn rows_of_elements(offsets: &OffsetBuffer<i32>, elements: usize, rows: Option<&[u32]>) -> Vec<u32> {
    let mut of = vec![0; elements];
    for (at, bounds) in offsets.windows(2).enumerate() {
        let row = rows.map_or(at as u32, |rows| rows[at]);
        of[bounds[0] as usize..bounds[1] as usize].fill(row);
    }
    of
}

/// Text under construction, one value after the other.
struct Texts {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Texts {
    fn new(values: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(values + 1);
        offsets.push(0);
        Self { offsets, data: Vec::with_capacity(bytes) }
    }

    fn end_value(&mut self) -> Result<()> {
        let end = i32::try_from(self.data.len());
        self.offsets
            .push(end.map_err(|_| Error::data("protected values of one batch pass 2 GiB; lower compactor.memory"))?);
        Ok(())
    }

    fn finish(self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        let made = StringArray::try_new(offsets, Buffer::from_vec(self.data), nulls);
        Ok(Arc::new(made.map_err(|e| Error::bug("protected text is no text").with_source(e))?))
    }
}

/// Protects values that are not looked into any further.
fn leaf(array: &ArrayRef, rows: Option<&[u32]>, cells: &mut Cells<'_>) -> Result<Done> {
    let texts = text::canonical(array)?;
    let length = texts.value_data().len();
    let mut out =
        Texts::new(texts.len(), if cells.work.sealing().is_some() { length * 2 + texts.len() * 40 } else { length });
    let mut tokens = cells.work.token_key().map(|_| Texts::new(texts.len(), texts.len() * 64));
    let (mut known, mut known_tokens) = (Known::default(), Known::default());
    let mut sealed = (0, 0);
    for at in 0..texts.len() {
        let row = rows.map_or(at, |rows| rows[at] as usize);
        if texts.is_valid(at) {
            let raw = texts.value(at);
            let plain = if cells.landed { text_of(raw.as_bytes()).unwrap_or_default() } else { raw.into() };
            let landed = if cells.landed { Landed::parse(&plain) } else { None };
            if let Some(landed) = landed {
                out.data.extend_from_slice(landed.value.as_bytes());
                if let Some(id) = landed.key {
                    cells.keys.came_sealed(row, id);
                }
                if let (Some(tokens), Some(token)) = (&mut tokens, landed.token) {
                    tokens.data.extend_from_slice(token.as_bytes());
                }
            } else {
                if cells.work.is_token() && !cells.landed {
                    let work = cells.work;
                    let sealer = &mut *cells.sealer;
                    known.put(raw, &mut out.data, |out| work.apply(raw, None, sealer, out))?;
                } else {
                    let key = cells.work.sealing().and_then(|_| cells.keys.key(row)).map(Arc::as_ref);
                    cells.work.apply(&plain, key, cells.sealer, &mut out.data)?;
                    sealed = (sealed.0 + 1, sealed.1 + plain.len() as u64);
                }
                if let (Some(tokens), Some(key)) = (&mut tokens, cells.work.token_key()) {
                    if cells.landed {
                        key.token(plain.as_bytes(), &mut tokens.data);
                    } else {
                        known_tokens.put(raw, &mut tokens.data, |out| {
                            key.token(raw.as_bytes(), out);
                            Ok(())
                        })?;
                    }
                }
            }
        }
        out.end_value()?;
        tokens.as_mut().map_or(Ok(()), Texts::end_value)?;
    }
    cells.keys.count(sealed);
    let nulls = texts.nulls().cloned();
    let tokens = tokens.map(|tokens| tokens.finish(nulls.clone())).transpose()?;
    Ok((out.finish(nulls)?, tokens))
}

/// Results of values that came before in the batch: a token costs more than a look-up, and values repeat.
#[derive(Default)]
struct Known<'a>(HashMap<&'a str, (usize, usize)>);

impl<'a> Known<'a> {
    fn put(&mut self, value: &'a str, out: &mut Vec<u8>, make: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        if let Some((from, to)) = self.0.get(value) {
            out.extend_from_within(*from..*to);
            return Ok(());
        }
        let from = out.len();
        make(out)?;
        self.0.insert(value, (from, out.len()));
        Ok(())
    }
}
