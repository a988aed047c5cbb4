//! Which rows have something to protect.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, OffsetBuffer};
use arrow_schema::DataType;
use firn_shared::config::domain::PathStep;

/// Which rows have a value at `path`.
#[must_use]
pub fn holds(array: &ArrayRef, path: &[PathStep]) -> BooleanBuffer {
    let valid = || array.logical_nulls().map_or_else(|| BooleanBuffer::new_set(array.len()), |n| n.inner().clone());
    let any = |offsets: &OffsetBuffer<i32>, elements: BooleanBuffer| {
        let row = |bounds: &[i32]| (bounds[0]..bounds[1]).any(|at| elements.value(at as usize));
        offsets.windows(2).map(row).collect::<BooleanBuffer>()
    };
    match (path.split_first(), array.data_type()) {
        (None, _) => valid(),
        (Some((PathStep::Field(name), rest)), DataType::Struct(_)) => match array.as_struct().column_by_name(name) {
            Some(field) => &valid() & &holds(field, rest),
            None => BooleanBuffer::new_unset(array.len()),
        },
        (Some((PathStep::Each, rest)), DataType::List(_)) => {
            let list = array.as_list::<i32>();
            &valid() & &any(list.offsets(), holds(list.values(), rest))
        }
        (Some((PathStep::Each, rest)), DataType::Map(..)) => {
            let map = array.as_map();
            &valid() & &any(map.offsets(), holds(map.values(), rest))
        }
        (Some(_), _) => BooleanBuffer::new_unset(array.len()),
    }
}
