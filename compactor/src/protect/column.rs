//! One protection on the columns of a batch: along its path to the values, and back with what they became.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, ListArray, MapArray, StringArray, StructArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_shared::config::domain::{Encoding, PathStep};
use firn_shared::crypto::keys::key_of;
use firn_shared::crypto::payload::text_of;
use firn_shared::crypto::token::TOKEN_CHARS;
use firn_shared::crypto::{DataKey, Landed, Sealer, Treatment};
use firn_shared::error::{Error, Result};
use firn_shared::ids::KeyName;

use super::text;

/// Which key seals the values of each row.
#[derive(Debug, Default)]
pub struct RowKeys {
    /// Ids of keys, those of landing included.
    ids: Vec<String>,
    /// `None` for one that nothing is to be sealed with: landing did all there was.
    keys: Vec<Option<Arc<DataKey>>>,
    /// Values and bytes sealed with each.
    used: Vec<(u64, u64)>,
    numbers: HashMap<String, u32>,
    /// Into these; [`NONE`] for rows without a value.
    of_row: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl RowKeys {
    /// No key for any row.
    pub fn new(rows: usize) -> Self {
        Self { of_row: vec![NONE; rows], ..Self::default() }
    }

    /// One key for all rows that have a value.
    pub fn all(key: &Arc<DataKey>, has_value: impl Iterator<Item = bool>) -> Self {
        let of_row = has_value.map(|has| if has { 0 } else { NONE }).collect();
        let mut all = Self { of_row, ..Self::default() };
        all.add(key.id(), Some(key));
        all
    }

    /// The row's values are sealed with this key from here on; `None` where its id alone is known.
    pub fn set(&mut self, row: usize, id: &str, key: Option<&Arc<DataKey>>) {
        self.of_row[row] = self.add(id, key);
    }

    fn add(&mut self, id: &str, key: Option<&Arc<DataKey>>) -> u32 {
        let number = self.numbers.get(id).copied().unwrap_or_else(|| {
            let number = self.ids.len() as u32;
            self.ids.push(id.to_owned());
            self.keys.push(None);
            self.used.push((0, 0));
            self.numbers.insert(id.to_owned(), number);
            number
        });
        if let Some(key) = key {
            self.keys[number as usize] = Some(Arc::clone(key));
        }
        number
    }

    /// The id of the row's key.
    pub fn id(&self, row: usize) -> Option<&str> {
        self.ids.get(*self.of_row.get(row)? as usize).map(String::as_str)
    }

    fn key(&self, row: usize) -> Option<&Arc<DataKey>> {
        self.keys.get(*self.of_row.get(row)? as usize)?.as_ref()
    }

    /// A value of the row was sealed.
    fn sealed(&mut self, row: usize, bytes: usize) {
        let used = self.of_row.get(row).and_then(|number| self.used.get_mut(*number as usize));
        if let Some((values, all)) = used {
            *values += 1;
            *all += bytes as u64;
        }
    }

    /// Tells the keys what they have sealed, so that they know when it is enough.
    fn count(&mut self) {
        for (key, used) in self.keys.iter().zip(&mut self.used) {
            let (values, bytes) = std::mem::take(used);
            if let Some(key) = key.as_ref().filter(|_| values > 0) {
                key.count(values, bytes);
            }
        }
    }

    /// The column that names the keys.
    pub fn column(&self, rows: usize) -> StringArray {
        (0..rows).map(|row| self.id(row)).collect()
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

/// Shows the text of every value at the end of `path`, with the row of the batch that it is in; `rows` says which row each
/// position is in, [`NONE`] for one that is null.
fn values(array: &ArrayRef, path: &[PathStep], rows: &[u32], see: &mut dyn FnMut(usize, &str)) -> Result<()> {
    let hidden = |(at, row): (usize, &u32)| if array.is_valid(at) { *row } else { NONE };
    let rows: Vec<u32> = rows.iter().enumerate().map(hidden).collect();
    match (path.split_first(), array.data_type()) {
        (None, _) => {
            let texts = text::canonical(array)?;
            for (at, row) in rows.iter().enumerate().filter(|(at, row)| **row != NONE && texts.is_valid(*at)) {
                see(*row as usize, texts.value(at));
            }
            Ok(())
        }
        (Some((PathStep::Field(name), rest)), DataType::Struct(_)) => {
            let field = array.as_struct().column_by_name(name);
            values(field.ok_or_else(|| Error::bug("a protection does not find its field"))?, rest, &rows, see)
        }
        (Some((PathStep::Each, rest)), DataType::List(_)) => {
            let list = array.as_list::<i32>();
            values(list.values(), rest, &rows_of_elements(list.offsets(), list.values().len(), Some(&rows)), see)
        }
        (Some((PathStep::Each, rest)), DataType::Map(..)) => {
            let map = array.as_map();
            values(map.values(), rest, &rows_of_elements(map.offsets(), map.values().len(), Some(&rows)), see)
        }
        (Some(_), other) => Err(Error::bug(format!("a protection leads into {other}"))),
    }
}

/// What landing left to be sealed in a batch. A row has one key: that of the first value that landing has sealed in it.
/// Returns which rows have something left.
pub fn landed(
    columns: &[(&ArrayRef, &[PathStep])],
    key: &KeyName,
    rows: usize,
    keys: &mut RowKeys,
) -> Result<BooleanBuffer> {
    let (mut left, all) = (vec![false; rows], (0..rows as u32).collect::<Vec<_>>());
    for (array, path) in columns {
        values(array, path, &all, &mut |row, raw| {
            let text = text_of(raw.as_bytes()).unwrap_or_default();
            match Landed::parse(&text) {
                Some(Landed { key: Some(id), .. }) if key_of(id).as_ref() == Some(key) => match keys.id(row) {
                    None => keys.set(row, id, None),
                    Some(known) => left[row] |= known != id,
                },
                Some(Landed { key: None, .. }) => {}
                _ => left[row] = true,
            }
        })?;
    }
    Ok(BooleanBuffer::from(left))
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

/// A column under construction, one value after the other.
struct Column {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Column {
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

    fn finish(self, encoding: Encoding, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let (offsets, data) = (OffsetBuffer::new(ScalarBuffer::from(self.offsets)), Buffer::from_vec(self.data));
        let bug = |e| Error::bug("protected values make no column").with_source(e);
        Ok(match encoding {
            Encoding::Base64 => Arc::new(StringArray::try_new(offsets, data, nulls).map_err(bug)?),
            Encoding::Binary => Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(bug)?),
        })
    }
}

/// Protects values that are not looked into any further.
fn leaf(array: &ArrayRef, rows: Option<&[u32]>, cells: &mut Cells<'_>) -> Result<Done> {
    let texts = text::canonical(array)?;
    let mut made = Made::new(&texts, cells.work);
    for at in 0..texts.len() {
        if texts.is_valid(at) {
            let row = rows.map_or(at, |rows| rows[at] as usize);
            if cells.landed {
                made.landed(texts.value(at), row, cells)?;
            } else {
                made.fresh(texts.value(at), row, cells)?;
            }
        }
        made.end_value()?;
    }
    cells.keys.count();
    made.finish(cells.work.encoding(), texts.nulls().cloned())
}

/// Protected values under construction, and their tokens.
struct Made<'a> {
    values: Column,
    tokens: Option<Column>,
    known: Known<'a>,
    known_tokens: Known<'a>,
}

impl<'a> Made<'a> {
    fn new(texts: &StringArray, work: &Treatment) -> Self {
        let (count, length) = (texts.len(), texts.value_data().len());
        let bytes = if work.sealing().is_some() { length * 2 + count * 40 } else { length };
        let tokens = work.token_key().map(|_| Column::new(count, count * TOKEN_CHARS));
        Self { values: Column::new(count, bytes), tokens, known: Known::default(), known_tokens: Known::default() }
    }

    /// A value in plain.
    fn fresh(&mut self, text: &'a str, row: usize, cells: &mut Cells<'_>) -> Result<()> {
        if cells.work.is_token() {
            let Cells { work, sealer, .. } = cells;
            self.known.put(text, &mut self.values.data, |out| work.apply(text, None, sealer, out))?;
        } else {
            self.put(text, row, cells)?;
        }
        let (Some(tokens), Some(key)) = (&mut self.tokens, cells.work.token_key()) else { return Ok(()) };
        self.known_tokens.put(text, &mut tokens.data, |out| {
            key.token(text.as_bytes(), out);
            Ok(())
        })
    }

    /// JSON text that landing may have protected.
    fn landed(&mut self, json: &str, row: usize, cells: &mut Cells<'_>) -> Result<()> {
        let text = text_of(json.as_bytes()).unwrap_or_default();
        // What another key has sealed than the row's is sealed once more as it stands: the row names one key.
        let same = |landed: &Landed<'_>| {
            cells.work.sealing().is_none() || landed.key.is_none_or(|id| cells.keys.id(row) == Some(id))
        };
        let Some(landed) = Landed::parse(&text).filter(same) else {
            self.put(&text, row, cells)?;
            if let (Some(tokens), Some(key)) = (&mut self.tokens, cells.work.token_key()) {
                key.token(text.as_bytes(), &mut tokens.data);
            }
            return Ok(());
        };
        let at = self.values.data.len();
        let out = &mut self.values.data;
        // What only looks like ciphertext stays as it is: nobody opens it in either form.
        if cells.work.encoding() == Encoding::Base64 || STANDARD.decode_vec(landed.value, out).is_err() {
            out.truncate(at);
            out.extend_from_slice(landed.value.as_bytes());
        }
        if let (Some(tokens), Some(token)) = (&mut self.tokens, landed.token) {
            tokens.data.extend_from_slice(token.as_bytes());
        }
        Ok(())
    }

    fn put(&mut self, text: &str, row: usize, cells: &mut Cells<'_>) -> Result<()> {
        let key = cells.work.sealing().and_then(|_| cells.keys.key(row)).map(Arc::as_ref);
        cells.work.apply(text, key, cells.sealer, &mut self.values.data)?;
        if cells.work.sealing().is_some() {
            cells.keys.sealed(row, text.len());
        }
        Ok(())
    }

    fn end_value(&mut self) -> Result<()> {
        self.values.end_value()?;
        self.tokens.as_mut().map_or(Ok(()), Column::end_value)
    }

    fn finish(self, encoding: Encoding, nulls: Option<NullBuffer>) -> Result<Done> {
        let tokens = self.tokens.map(|tokens| tokens.finish(Encoding::Base64, nulls.clone())).transpose()?;
        Ok((self.values.finish(encoding, nulls)?, tokens))
    }
}

/// Results of values that came before in the batch: a token costs more than a look-up, where values repeat.
#[derive(Default)]
struct Known<'a> {
    results: HashMap<&'a str, (usize, usize)>,
    asked: usize,
    distinct: bool,
}

/// So many values show whether they repeat: where three of four were new, nothing more is remembered.
const TRIED: usize = 1024;

impl<'a> Known<'a> {
    fn put(&mut self, value: &'a str, out: &mut Vec<u8>, make: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        if self.distinct {
            return make(out);
        }
        self.asked += 1;
        self.distinct = self.asked == TRIED && self.results.len() > TRIED * 3 / 4;
        if let Some((from, to)) = self.results.get(value) {
            out.extend_from_within(*from..*to);
            return Ok(());
        }
        let from = out.len();
        make(out)?;
        self.results.insert(value, (from, out.len()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use firn_shared::clock::SystemClock;
    use firn_shared::config::domain::{KmsOptions, Protect, Protection, S3Options};
    use firn_shared::crypto::{KeyBytes, Keys};
    use firn_shared::store::Stores;

    use super::*;
    use crate::protect::fixed;

    #[tokio::test]
    async fn every_key_of_a_batch_knows_what_it_has_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let name: KeyName = "people".parse().unwrap();
        let specs = fixed::keys(folder.path(), [name.clone()]).unwrap();
        let keys = Keys::of(specs, KmsOptions::default(), Stores::new(S3Options::default()), Arc::new(SystemClock));
        let (path, key) = ("v".parse().unwrap(), Some(name));
        let protection = Protection {
            path,
            how: Protect::Encrypt,
            token: false,
            key,
            subject: None,
            aad: None,
            encoding: Encoding::Base64,
        };
        let work = Treatment::new(&protection, &keys, "d.t.v").await.unwrap();
        let made = |id: &str| Arc::new(DataKey::new(id, &KeyBytes::new([1; 32])).unwrap());
        let (newest, hers) = (made("people/1"), made("people/s/ab"));
        let mut of_rows = RowKeys::new(4);
        for (row, key) in [(0, &newest), (1, &hers), (2, &newest)] {
            of_rows.set(row, key.id(), Some(key));
        }
        let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("bcd"), Some("ef"), None]));
        let columns = vec![(Arc::new(Field::new("v", DataType::Utf8, true)), values)];
        let mut sealer = Sealer::default();
        let mut cells = Cells { work: &work, keys: &mut of_rows, landed: false, sealer: &mut sealer };
        protect(columns, &[PathStep::Field("v".to_owned())], None, None, &mut cells).unwrap();
        assert_eq!((newest.used(), hers.used()), ((2, 3), (1, 3)));
    }
}
