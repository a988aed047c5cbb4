//! Which delete files apply to a data file: the specification's section "Scan Planning".

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::metadata_columns::RESERVED_FIELD_ID_DELETE_FILE_PATH;
use iceberg::spec::{DataContentType, DataFile, PrimitiveLiteral};

use super::Tracked;
use super::prune::PartitionKey;

/// Delete files by what they may apply to.
#[derive(Debug, Default)]
pub(in crate::table) struct DeleteIndex {
    /// Equality deletes of unpartitioned specs: they reach every partition of every spec.
    global: Vec<Arc<Tracked>>,
    equality: HashMap<PartitionKey, Vec<Arc<Tracked>>>,
    position: HashMap<PartitionKey, Vec<Arc<Tracked>>>,
    /// Position deletes that refer to one data file.
    by_path: HashMap<String, Vec<Arc<Tracked>>>,
}

impl DeleteIndex {
    pub fn new(files: Vec<Arc<Tracked>>) -> Self {
        let mut index = Self::default();
        for file in files {
            let list = match file.file().content_type() {
                DataContentType::EqualityDeletes if file.file().partition().fields().is_empty() => &mut index.global,
                DataContentType::EqualityDeletes => index.equality.entry(file.key()).or_default(),
                _ => match only_file(file.file()) {
                    Some(path) => index.by_path.entry(path).or_default(),
                    None => index.position.entry(file.key()).or_default(),
                },
            };
            list.push(file);
        }
        index
    }

    /// The delete files that apply to `data`.
    pub fn of(&self, data: &Tracked) -> Vec<Arc<Tracked>> {
        let key = data.key();
        let lists = [self.equality.get(&key), self.position.get(&key), self.by_path.get(data.path())];
        let near = lists.into_iter().flatten().chain([&self.global]).flatten();
        near.filter(|delete| applies(delete, data)).cloned().collect()
    }
}

/// Whether a delete file applies to a data file.
pub(in crate::table) fn applies(delete: &Tracked, data: &Tracked) -> bool {
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
