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

/// How many values there are at the ends of these paths, at most, in so many rows of the batch.
pub fn at_most(values: &[(&ArrayRef, &[PathStep])], rows: usize) -> u64 {
    let of = |(array, path): &(&ArrayRef, &[PathStep])| {
        let one_a_row = !path.contains(&PathStep::Each);
        let all = at_end(array, path);
        if one_a_row || rows == 0 { all.min(rows) } else { all }
    };
    values.iter().map(of).sum::<usize>() as u64
}

/// All values at the end of a path.
fn at_end(array: &ArrayRef, path: &[PathStep]) -> usize {
    match (path.split_first(), array.data_type()) {
        (None, _) => array.len() - array.logical_null_count(),
        (Some((PathStep::Field(name), rest)), DataType::Struct(_)) => {
            array.as_struct().column_by_name(name).map_or(0, |field| at_end(field, rest))
        }
        (Some((PathStep::Each, rest)), DataType::List(_)) => at_end(array.as_list::<i32>().values(), rest),
        (Some((PathStep::Each, rest)), DataType::Map(..)) => at_end(array.as_map().values(), rest),
        (Some(_), _) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int64Type;
    use arrow_array::{ListArray, StringArray};

    use super::*;

    #[test]
    fn values_are_counted_where_the_path_ends_and_never_too_few() {
        let flat: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("c")]));
        let lists = [Some(vec![Some(1), None, Some(2)]), None, Some(vec![Some(3)]), Some(vec![])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let each = [PathStep::Each];
        for (values, rows, expected) in [
            (vec![(&flat, &[][..])], 4, 3),
            (vec![(&flat, &[][..])], 1, 1),
            (vec![(&lists, &each[..])], 1, 3),
            (vec![(&lists, &[][..])], 4, 3),
            (vec![(&lists, &each[..]), (&flat, &[][..])], 2, 5),
            (vec![(&lists, &each[..]), (&flat, &[][..])], 0, 0),
        ] {
            assert_eq!(at_most(&values, rows), expected, "{rows} rows of {values:?}");
        }
    }
}
