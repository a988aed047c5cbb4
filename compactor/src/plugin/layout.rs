//! Arrow arrays as a plug-in sees them, and back. What comes back is not trusted.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::DataType as Arrow;

use super::world::{Column, DataType, Flat, Lists};
use crate::arrow_types::data_type;

/// The array's buffers, from row 0 on.
///
/// # Errors
/// What of it is not of the type.
pub fn lower(array: &ArrayRef, of: DataType) -> Result<Column, String> {
    if *array.data_type() != of.arrow() {
        return Err(format!("a column of {} where {} is read", array.data_type(), of.logical()));
    }
    let Some(list) = array.as_list_opt::<i32>() else { return Ok(values(array, of)) };
    let (offsets, first) = from_zero(list.value_offsets());
    let elements = list.values().slice(first, offsets.last().map_or(0, |last| *last as usize));
    let lists = Some(Lists { validity: validity(array), offsets });
    Ok(Column { lists, ..values(&elements, of) })
}

/// The buffers of an array of values without parts.
fn values(array: &ArrayRef, of: DataType) -> Column {
    let rows = array.len();
    let data = array.to_data();
    let (offset, buffers) = (data.offset(), data.buffers());
    let (offsets, values) = match of.values().arrow() {
        Arrow::Utf8 | Arrow::Binary => {
            let all: &[i32] = buffers.first().map(Buffer::typed_data).unwrap_or_default();
            let (offsets, first) = from_zero(all.get(offset..=offset + rows).unwrap_or(&[0]));
            let bytes = buffers.get(1).map(Buffer::as_slice).unwrap_or_default();
            let last = first + offsets.last().map_or(0, |last| *last as usize);
            (offsets, bytes.get(first..last).unwrap_or_default().to_vec())
        }
        Arrow::Boolean => {
            let buffer = buffers.first().cloned().unwrap_or_default();
            (Vec::new(), bits(&BooleanBuffer::new(buffer, offset, rows)))
        }
        fixed => {
            let width = fixed.primitive_width().unwrap_or_default();
            let bytes = buffers.first().map(Buffer::as_slice).unwrap_or_default();
            (Vec::new(), bytes.get(offset * width..(offset + rows) * width).unwrap_or_default().to_vec())
        }
    };
    Column { data_type: of, lists: None, validity: validity(array), offsets, values }
}

/// Offsets counted from their first, and that.
fn from_zero(offsets: &[i32]) -> (Vec<i32>, usize) {
    let first = offsets.first().copied().unwrap_or_default();
    (offsets.iter().map(|at| at - first).collect(), first as usize)
}

fn validity(array: &ArrayRef) -> Option<Vec<u8>> {
    array.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| bits(nulls.inner()))
}

/// Bits from the first on.
fn bits(of: &BooleanBuffer) -> Vec<u8> {
    of.sliced().as_slice()[..of.len().div_ceil(8)].to_vec()
}

/// Why a column is none.
#[derive(Debug)]
pub enum NoColumn {
    /// It is of another type or length.
    Shape(String),
    /// Offsets do not ascend, or bytes are no text: it may be that of one row.
    Value(String),
}

/// The array that a plug-in made. Whether its values are of the type is for [`super::unfit`] to say.
///
/// # Errors
/// What of it is no array of this type and length.
pub fn lift(column: Column, of: DataType, rows: usize) -> Result<ArrayRef, NoColumn> {
    let Column { data_type: said, lists, validity, offsets, values } = column;
    if said != of {
        return Err(NoColumn::Shape(format!("a column of {}, it said {}", shown(said), shown(of))));
    }
    let values = Values { of: of.values(), validity, offsets, bytes: values };
    match (of, lists) {
        (DataType::Flat(_), None) => values.lift(rows, "rows"),
        (DataType::List(_), Some(lists)) => lift_lists(lists, values, of, rows),
        (DataType::Flat(_), Some(_)) => Err(NoColumn::Shape(format!("`lists` for a column of {}", shown(of)))),
        (DataType::List(_), None) => Err(NoColumn::Shape(format!("no `lists` for a column of {}", shown(of)))),
    }
}

/// Not each of the types that a plug-in may name is one.
fn shown(of: DataType) -> String {
    if of.exists() { of.logical().to_string() } else { "a decimal of no such digits".to_owned() }
}

fn lift_lists(lists: Lists, elements: Values, of: DataType, rows: usize) -> Result<ArrayRef, NoColumn> {
    let Lists { validity, offsets } = lists;
    exactly("offsets of lists", offsets.len(), rows + 1, (rows, "rows"))?;
    // How many elements there are may hang on a row: what is wrong with them is looked for in fewer.
    let count = offsets.last().and_then(|last| usize::try_from(*last).ok());
    let count = count.ok_or_else(|| NoColumn::Value("lists that end before they begin".to_owned()))?;
    let elements = elements.lift(count, "elements").map_err(|why| match why {
        NoColumn::Shape(why) | NoColumn::Value(why) => NoColumn::Value(why),
    })?;
    let data = ArrayData::builder(of.arrow())
        .len(rows)
        .nulls(nulls(validity, rows, "rows")?)
        .add_buffer(Buffer::from_vec(offsets))
        .add_child_data(elements.to_data());
    build(data)
}

/// What is made of the buffers of values without parts.
struct Values {
    of: Flat,
    validity: Option<Vec<u8>>,
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Values {
    fn lift(self, count: usize, unit: &str) -> Result<ArrayRef, NoColumn> {
        let Self { of, validity, offsets, bytes: values } = self;
        let mut data = ArrayData::builder(of.arrow()).len(count).nulls(nulls(validity, count, unit)?);
        data = match of.arrow() {
            Arrow::Utf8 | Arrow::Binary => {
                exactly("offsets", offsets.len(), count + 1, (count, unit))?;
                data.add_buffer(Buffer::from_vec(offsets)).add_buffer(Buffer::from_vec(values))
            }
            other => {
                let bytes = other.primitive_width().map_or(count.div_ceil(8), |width| count.saturating_mul(width));
                exactly("bytes of values", values.len(), bytes, (count, unit))?;
                // Numbers need an alignment that bytes do not have.
                let mut aligned = MutableBuffer::new(values.len());
                aligned.extend_from_slice(&values);
                data.add_buffer(aligned.into())
            }
        };
        build(data)
    }
}

impl Flat {
    fn arrow(self) -> Arrow {
        data_type(&self.logical())
    }
}

fn nulls(validity: Option<Vec<u8>>, count: usize, unit: &str) -> Result<Option<NullBuffer>, NoColumn> {
    let Some(validity) = validity else { return Ok(None) };
    exactly("bytes of validity", validity.len(), count.div_ceil(8), (count, unit))?;
    Ok(Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(validity), 0, count))))
}

fn exactly(what: &str, found: usize, wanted: usize, (count, unit): (usize, &str)) -> Result<(), NoColumn> {
    if found == wanted {
        return Ok(());
    }
    Err(NoColumn::Shape(format!("{found} {what}, {wanted} belong to {count} {unit}")))
}

/// Checks offsets and UTF-8, too.
fn build(data: arrow_data::ArrayDataBuilder) -> Result<ArrayRef, NoColumn> {
    data.build().map(make_array).map_err(|e| NoColumn::Value(e.to_string()))
}
