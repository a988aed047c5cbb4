//! Which delete files apply to a data file: the specification's section "Scan Planning".

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::metadata_columns::RESERVED_FIELD_ID_DELETE_FILE_PATH;
use iceberg::spec::{DataContentType, DataFile, PrimitiveLiteral};

use super::Tracked;
use super::prune::PartitionKey;

/// Delete files in the order of their sequence numbers.
pub(super) type List = Arc<[Arc<Tracked>]>;

/// Delete files by what they may apply to.
#[derive(Debug, Default)]
pub(in crate::table) struct DeleteIndex {
    /// Equality deletes of unpartitioned specs: they reach every partition of every spec.
    global: List,
    equality: HashMap<PartitionKey, List>,
    position: HashMap<PartitionKey, List>,
    /// Position deletes that refer to one data file.
    by_path: HashMap<String, Vec<Arc<Tracked>>>,
}

/// The delete files that apply to a data file. The data files of a partition share its lists, so that many of both cost
/// their sum and not their product.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Applying {
    /// Lists, and where in them those begin that came late enough.
    shared: Vec<(List, usize)>,
    /// Those that refer to the data file.
    own: Vec<Arc<Tracked>>,
}

impl DeleteIndex {
    pub fn new(files: Vec<Arc<Tracked>>) -> Self {
        let mut global = Vec::new();
        let (mut equality, mut position) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut by_path: HashMap<String, Vec<Arc<Tracked>>> = HashMap::new();
        for file in files {
            let list = match file.file().content_type() {
                DataContentType::EqualityDeletes if file.file().partition().fields().is_empty() => &mut global,
                DataContentType::EqualityDeletes => equality.entry(file.key()).or_default(),
                _ => match only_file(file.file()) {
                    Some(path) => by_path.entry(path).or_default(),
                    None => position.entry(file.key()).or_default(),
                },
            };
            list.push(file);
        }
        let list = |mut files: Vec<Arc<Tracked>>| -> List {
            files.sort_by_key(|file| file.sequence_number());
            files.into()
        };
        let lists =
            |map: HashMap<PartitionKey, Vec<_>>| map.into_iter().map(|(key, files)| (key, list(files))).collect();
        Self { global: list(global), equality: lists(equality), position: lists(position), by_path }
    }

    /// The delete files that may apply to `data`: all that do, and those that the paths in them rule out.
    pub(super) fn of(&self, data: &Tracked) -> Applying {
        let (key, sequence) = (data.key(), data.sequence_number());
        let equality =
            [Some(&self.global), self.equality.get(&key)].into_iter().flatten().map(|list| (list, sequence + 1));
        let position = self.position.get(&key).map(|list| (list, sequence));
        let since = |(list, least): (&List, i64)| {
            let from = list.partition_point(|delete| delete.sequence_number() < least);
            (from < list.len()).then(|| (Arc::clone(list), from))
        };
        let shared = equality.chain(position).filter_map(since).collect();
        let own = self.by_path.get(data.path()).into_iter().flatten().filter(|delete| applies(delete, data));
        Applying { shared, own: own.cloned().collect() }
    }

    /// Whether one of them applies to `data`; the first that does.
    pub fn first_of(&self, data: &Tracked) -> Option<Arc<Tracked>> {
        self.of(data).iter(data.path()).next().cloned()
    }
}

impl Applying {
    /// The lists that it shares.
    #[cfg(test)]
    pub fn lists(&self) -> Vec<&List> {
        self.shared.iter().map(|(list, _)| list).collect()
    }

    /// Those that apply to the data file at `path`.
    pub fn iter<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Arc<Tracked>> {
        let shared = self.shared.iter().flat_map(|(list, from)| &list[*from..]);
        let position = |delete: &Tracked| delete.file().content_type() == DataContentType::PositionDeletes;
        shared.filter(move |delete| !position(delete) || may_name(delete.file(), path)).chain(&self.own)
    }
}

/// Whether a delete file applies to a data file.
fn applies(delete: &Tracked, data: &Tracked) -> bool {
    let file = delete.file();
    match file.content_type() {
        DataContentType::Data => false,
        DataContentType::EqualityDeletes => {
            data.sequence_number() < delete.sequence_number()
                && (file.partition().fields().is_empty() || delete.key() == data.key())
        }
        DataContentType::PositionDeletes => {
            data.sequence_number() <= delete.sequence_number()
                && delete.key() == data.key()
                && may_name(file, data.path())
        }
    }
}

/// The one data file that a position delete file refers to, if it says so.
pub(in crate::table) fn only_file(delete: &DataFile) -> Option<String> {
    delete.referenced_data_file().or_else(|| {
        let (lower, upper) = path_bounds(delete);
        // Bounds that were cut differ from each other, unless every path is that short.
        lower.filter(|lower| upper.is_some_and(|upper| *lower == upper)).map(str::to_owned)
    })
}

fn may_name(delete: &DataFile, path: &str) -> bool {
    if let Some(only) = delete.referenced_data_file() {
        return only == path;
    }
    let (lower, upper) = path_bounds(delete);
    lower.is_none_or(|lower| lower <= path) && upper.is_none_or(|upper| upper >= path)
}

fn path_bounds(delete: &DataFile) -> (Option<&str>, Option<&str>) {
    (bound(delete.lower_bounds()), bound(delete.upper_bounds()))
}

fn bound(bounds: &HashMap<i32, iceberg::spec::Datum>) -> Option<&str> {
    match bounds.get(&RESERVED_FIELD_ID_DELETE_FILE_PATH)?.literal() {
        PrimitiveLiteral::String(path) => Some(path),
        _ => None,
    }
}
