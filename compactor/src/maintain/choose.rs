//! Which data files are rewritten, and together with which: values in, groups and reasons out.

use std::collections::HashMap;
use std::hash::Hash;

use firn_shared::config::domain::Maintenance;
use serde::Serialize;

/// So many delete files of one data file are too many to read for it, however few rows they delete.
const DELETE_FILES_MAX: usize = 16;

/// A live data file.
#[derive(Debug, Clone)]
pub struct Candidate<P> {
    /// Partition and spec.
    pub partition: P,
    /// Its size.
    pub bytes: u64,
    /// Its rows, deleted ones included.
    pub rows: u64,
    /// Delete files that apply to it.
    pub delete_files: usize,
    /// Rows that they delete, at most.
    pub deleted_rows: u64,
    /// Whether this maintenance has just written it.
    pub fresh: bool,
}

/// What becomes of a file, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Rewritten: it is small, and so are others of its partition.
    Small,
    /// Rewritten: it has lost many rows, or has many delete files.
    Deletes,
    /// Kept: neither small nor short of rows.
    Large,
    /// Kept: it is small, and too few others of its partition are.
    Few,
    /// Kept: this maintenance wrote it.
    Fresh,
}

impl Verdict {
    /// Whether the file is rewritten.
    #[must_use]
    pub fn rewrites(self) -> bool {
        matches!(self, Self::Small | Self::Deletes)
    }

    /// In a few words.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Deletes => "with deleted rows",
            Self::Large => "large enough",
            Self::Few => "small, but few in their partition",
            Self::Fresh => "just written",
        }
    }
}

/// Files that become one, by their numbers, and a verdict for each file.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// In the order of their first files.
    pub groups: Vec<Vec<usize>>,
    /// One a file.
    pub verdicts: Vec<Verdict>,
}

/// Packs files of a partition, in the order given, so that a group makes one file of about the target size.
#[must_use]
pub fn choose<P: Eq + Hash>(files: &[Candidate<P>], settings: &Maintenance) -> Choice {
    let mut verdicts: Vec<Verdict> = files.iter().map(|file| first_look(file, settings)).collect();
    let mut open: HashMap<&P, Bin> = HashMap::new();
    let mut bins = Vec::new();
    for (number, file) in files.iter().enumerate().filter(|(number, _)| verdicts[*number].rewrites()) {
        let bin = open.entry(&file.partition).or_default();
        if !bin.files.is_empty() && bin.bytes + live_bytes(file) > settings.target_file_bytes {
            bins.push(std::mem::take(bin));
        }
        bin.files.push(number);
        bin.bytes += live_bytes(file);
        bin.must |= verdicts[number] == Verdict::Deletes;
    }
    bins.extend(open.into_values());
    bins.sort_by_key(|bin| bin.files[0]);
    let (worth, not): (Vec<_>, Vec<_>) = bins.into_iter().partition(|bin| bin.is_worth_it(settings));
    for number in not.into_iter().flat_map(|bin| bin.files) {
        verdicts[number] = Verdict::Few;
    }
    Choice { groups: worth.into_iter().map(|bin| bin.files).collect(), verdicts }
}

fn first_look<P>(file: &Candidate<P>, settings: &Maintenance) -> Verdict {
    let lost = file.deleted_rows as f64 >= settings.delete_share * file.rows as f64;
    if file.fresh {
        Verdict::Fresh
    } else if file.delete_files > 0 && (lost || file.delete_files > DELETE_FILES_MAX) {
        Verdict::Deletes
    } else if file.bytes < settings.small_file_bytes {
        Verdict::Small
    } else {
        Verdict::Large
    }
}

/// What is left of a file without its deleted rows, about.
fn live_bytes<P>(file: &Candidate<P>) -> u64 {
    let left = file.rows.saturating_sub(file.deleted_rows);
    (file.bytes as f64 * left as f64 / file.rows.max(1) as f64) as u64
}

#[derive(Debug, Default)]
struct Bin {
    files: Vec<usize>,
    bytes: u64,
    must: bool,
}

impl Bin {
    fn is_worth_it(&self, settings: &Maintenance) -> bool {
        let full = self.files.len() > 1 && self.bytes >= settings.small_file_bytes;
        self.must || full || self.files.len() >= settings.min_files
    }
}

#[cfg(test)]
mod tests {
    use firn_shared::config::domain::MaintenanceOptions;
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Maintenance {
        MaintenanceOptions::default().resolve(100)
    }

    fn file(partition: u32, bytes: u64, deleted_rows: u64) -> Candidate<u32> {
        let delete_files = usize::from(deleted_rows > 0);
        Candidate { partition, bytes, rows: 100, delete_files, deleted_rows, fresh: false }
    }

    fn check(files: &[Candidate<u32>], groups: &[&[usize]], verdicts: &[Verdict]) {
        let choice = choose(files, &settings());
        assert_eq!(choice, Choice { groups: groups.iter().map(|g| g.to_vec()).collect(), verdicts: verdicts.to_vec() });
    }

    #[test]
    fn files_are_rewritten_for_a_reason() {
        use Verdict as V;
        let five: Vec<_> = (0..5).map(|_| file(1, 10, 0)).collect();
        check(&five, &[&[0, 1, 2, 3, 4]], &[V::Small; 5]);
        check(&five[..4], &[], &[V::Few; 4]);
        // Two partitions do not meet.
        let two: Vec<_> = (0..8).map(|n| file(n % 2, 10, 0)).collect();
        check(&two, &[], &[V::Few; 8]);
        // Two that fill a file are enough.
        check(&[file(1, 50, 0), file(1, 45, 0)], &[&[0, 1]], &[V::Small; 2]);
        check(&[file(1, 74, 0), file(1, 75, 0), file(1, 500, 0)], &[], &[V::Few, V::Large, V::Large]);
        // A file with deleted rows goes alone, or takes small ones along.
        check(&[file(1, 500, 10), file(1, 500, 9)], &[&[0]], &[V::Deletes, V::Large]);
        check(&[file(1, 90, 50), file(1, 20, 0)], &[&[0, 1]], &[V::Deletes, V::Small]);
        let fresh = Candidate { fresh: true, ..file(1, 1, 50) };
        check(&[fresh], &[], &[V::Fresh]);
        let many = Candidate { delete_files: 17, ..file(1, 500, 1) };
        check(&[many], &[&[0]], &[V::Deletes]);
        check(&[], &[], &[]);
    }

    proptest! {
        /// Every file is in one group at most, and groups stay in their partition and below the target.
        #[test]
        fn groups_are_sound_and_come_to_an_end(files in prop::collection::vec((0u32..3, 1u64..200, 0u64..100), 0..60)) {
            let files: Vec<_> = files.into_iter().map(|(p, bytes, deleted)| file(p, bytes, deleted)).collect();
            let choice = choose(&files, &settings());
            let mut seen = vec![0; files.len()];
            for group in &choice.groups {
                let bytes: u64 = group.iter().map(|n| live_bytes(&files[*n])).sum();
                prop_assert!(group.len() == 1 || bytes <= 100, "{group:?}");
                prop_assert!(group.iter().all(|n| files[*n].partition == files[group[0]].partition));
                for n in group {
                    seen[*n] += 1;
                }
            }
            for (count, verdict) in seen.iter().zip(&choice.verdicts) {
                prop_assert_eq!(*count, usize::from(verdict.rewrites()));
            }
            let mut after: Vec<_> = files.iter().zip(&choice.verdicts).filter(|(_, v)| !v.rewrites()).map(|(f, _)| f.clone()).collect();
            after.extend(choice.groups.iter().map(|group| {
                let bytes = group.iter().map(|n| live_bytes(&files[*n])).sum();
                file(files[group[0]].partition, bytes, 0)
            }));
            // Each group makes files fewer, or those with deletes: doing it again and again comes to an end.
            let left = |files: &[Candidate<u32>]| files.len() + files.iter().filter(|f| f.delete_files > 0).count();
            prop_assert!(left(&after) + choice.groups.len() <= left(&files));
        }
    }
}
