//! Which version of each key stays: the one rule of an upsert, on bytes alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow_row::Rows;

/// Rows that arrive, with their keys and versions.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Their keys.
    pub keys: &'a Rows,
    /// Their versions.
    pub versions: &'a Rows,
}

/// What the table knows of keys: rows it has, or deletes it remembers.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Their keys.
    pub keys: &'a Rows,
    /// Their versions, or what else they are compared by.
    pub versions: &'a Rows,
    /// The same of the incoming rows.
    pub with: &'a Rows,
}

/// The outcome for one bucket. Every incoming row is in exactly one of `winners` and `superseded`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Incoming rows that are the newest of their key, ascending.
    pub winners: Vec<u32>,
    /// Incoming rows that are not, ascending.
    pub superseded: Vec<u32>,
    /// Rows of the table whose key has a newer version now, ascending.
    pub outdated: Vec<u32>,
}

/// The newest incoming row of each key, by number, ascending. Of equal versions the later number stays: a record that
/// comes twice is the same record.
pub fn newest(incoming: Incoming<'_>) -> Vec<u32> {
    newest_of(incoming, 0..incoming.keys.num_rows() as u32)
}

/// As [`newest`], of some rows, given by number, ascending.
pub fn newest_of(incoming: Incoming<'_>, rows: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut best: HashMap<&[u8], u32> = HashMap::with_capacity(rows.size_hint().1.unwrap_or_default());
    for number in rows {
        match best.entry(incoming.keys.row(number as usize).data()) {
            Entry::Vacant(new) => {
                new.insert(number);
            }
            Entry::Occupied(mut found) => {
                let before = incoming.versions.row(*found.get() as usize);
                if incoming.versions.row(number as usize).data() >= before.data() {
                    found.insert(number);
                }
            }
        }
    }
    let mut numbers: Vec<u32> = best.into_values().collect();
    numbers.sort_unstable();
    numbers
}

/// Resolves a bucket. An incoming row wins when it is newer than every other incoming row of its key, and newer than
/// everything the table has or remembers of it; then the table's rows of the key go. Else everything stays as it is. A
/// remembered delete that lost needs no forgetting: it is older than the row that stands now.
pub fn resolve(incoming: Incoming<'_>, rows: Known<'_>, deletes: &[Known<'_>]) -> Resolution {
    let newest = newest(incoming);
    let mut by_key: HashMap<&[u8], (u32, bool)> =
        newest.iter().map(|n| (incoming.keys.row(*n as usize).data(), (*n, true))).collect();
    for known in [&rows].into_iter().chain(deletes) {
        for number in 0..known.keys.num_rows() {
            if let Some((candidate, wins)) = by_key.get_mut(known.keys.row(number).data()) {
                let ours = known.with.row(*candidate as usize);
                *wins &= ours.data() > known.versions.row(number).data();
            }
        }
    }
    let loses = |n: &u32| by_key.get(rows.keys.row(*n as usize).data()).is_some_and(|(_, wins)| *wins);
    let outdated = (0..rows.keys.num_rows() as u32).filter(loses).collect();
    let mut winners: Vec<u32> = by_key.values().filter(|(_, wins)| *wins).map(|(n, _)| *n).collect();
    winners.sort_unstable();
    let mut next = winners.iter().peekable();
    let superseded = (0..incoming.keys.num_rows() as u32).filter(|n| next.next_if_eq(&n).is_none()).collect();
    Resolution { winners, superseded, outdated }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array};
    use arrow_row::{RowConverter, SortField};
    use arrow_schema::DataType;
    use proptest::prelude::*;

    use super::*;

    fn rows(values: impl Iterator<Item = i64>) -> Rows {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RowConverter::new(vec![SortField::new(DataType::Int64)]).unwrap().convert_columns(&[column]).unwrap()
    }

    fn both(list: &[(i64, i64)]) -> (Rows, Rows) {
        (rows(list.iter().map(|(k, _)| *k)), rows(list.iter().map(|(_, v)| *v)))
    }

    fn resolved(incoming: &[(i64, i64)], table: &[(i64, i64)], deleted: &[(i64, i64)]) -> Resolution {
        let (incoming, table, deleted) = (both(incoming), both(table), both(deleted));
        resolve(
            Incoming { keys: &incoming.0, versions: &incoming.1 },
            Known { keys: &table.0, versions: &table.1, with: &incoming.1 },
            &[Known { keys: &deleted.0, versions: &deleted.1, with: &incoming.1 }],
        )
    }

    #[test]
    fn an_older_version_changes_nothing() {
        let found = resolved(&[(1, 5), (2, 9)], &[(1, 7), (2, 3)], &[]);
        let expected = Resolution { winners: vec![1], superseded: vec![0], outdated: vec![1] };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_remembered_delete_keeps_an_older_row_out_and_gives_way_to_a_newer_one() {
        let found = resolved(&[(1, 5), (2, 9)], &[], &[(1, 7), (2, 3)]);
        let expected = Resolution { winners: vec![1], superseded: vec![0], outdated: Vec::new() };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_delete_without_a_version_is_compared_by_what_it_has() {
        let (incoming, deleted) = (both(&[(1, 5), (2, 9)]), both(&[(1, 30), (2, 30)]));
        // Where the incoming rows came from: the first before the delete, the second after it.
        let origins = rows([20, 40].into_iter());
        let none = both(&[]);
        let found = resolve(
            Incoming { keys: &incoming.0, versions: &incoming.1 },
            Known { keys: &none.0, versions: &none.1, with: &incoming.1 },
            &[Known { keys: &deleted.0, versions: &deleted.1, with: &origins }],
        );
        assert_eq!((found.winners, found.superseded), (vec![1], vec![0]));
    }

    proptest! {
        #[test]
        fn the_table_holds_the_maximum_of_each_key(
            incoming in prop::collection::vec((0..8i64, 0..20i64), 0..40),
            table in prop::collection::btree_map(0..8i64, 0..20i64, 0..8),
            deleted in prop::collection::btree_map(0..8i64, 0..20i64, 0..8),
        ) {
            let table: Vec<_> = table.into_iter().collect();
            let deleted: Vec<_> = deleted.into_iter().collect();
            let found = resolved(&incoming, &table, &deleted);
            let mut seen: Vec<u32> = found.winners.iter().chain(&found.superseded).copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..incoming.len() as u32).collect::<Vec<_>>());

            // What is known of each key afterwards is the newest of all that was ever said of it.
            let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
            for (key, version) in incoming.iter().chain(&table).chain(&deleted) {
                let slot = expected.entry(*key).or_insert(*version);
                *slot = (*slot).max(*version);
            }
            let mut known: BTreeMap<i64, i64> = BTreeMap::new();
            let mut know = |key: i64, version: i64| {
                let slot = known.entry(key).or_insert(version);
                *slot = (*slot).max(version);
            };
            found.winners.iter().for_each(|n| know(incoming[*n as usize].0, incoming[*n as usize].1));
            for (n, row) in table.iter().enumerate() {
                if !found.outdated.contains(&(n as u32)) { know(row.0, row.1); }
            }
            for row in &deleted {
                know(row.0, row.1);
            }
            prop_assert_eq!(known, expected);

            // And a key that won is nowhere else.
            for winner in &found.winners {
                let key = incoming[*winner as usize].0;
                prop_assert_eq!(found.winners.iter().filter(|n| incoming[**n as usize].0 == key).count(), 1);
                prop_assert!(table.iter().enumerate().all(|(n, row)| row.0 != key || found.outdated.contains(&(n as u32))));
            }
        }
    }
}
