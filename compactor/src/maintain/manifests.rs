//! Merges small manifests, neighbours in partition order together, so that scans can leave whole manifests out.
//!
//! Manifests of one spec, content and schema make a kind. Commits merge a hundred small ones of a kind by themselves; this
//! does it earlier, and in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_shared::error::{ErrorKind, Result};
use firn_shared::ids::RunId;
use futures::TryStreamExt;
use iceberg::spec::{FormatVersion, ManifestContentType};
use iceberg::table::Table;
use serde::Serialize;

use super::{ATTEMPTS, Subject};
use crate::run::Env;
use crate::table::offsets::SCOPE;
use crate::table::scan::{PartitionOrder, load_all, manifests, partition_order};
use crate::table::{Change, Committer, MERGE_BYTES};

/// Merged manifests of one commit, at most.
const BINS_MAX: usize = 16;

/// What was merged.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Merged {
    /// Snapshots made.
    pub commits: usize,
    /// Manifests of the table when it was looked at.
    pub all: usize,
    /// Manifests that went, or would.
    pub before: usize,
    /// Manifests that came, or would.
    pub after: usize,
    /// Whether other writers kept the rest from being merged.
    pub gave_up: bool,
}

/// A manifest as it is planned with.
#[derive(Debug, Clone)]
struct Small {
    path: String,
    bytes: i64,
    order: PartitionOrder,
}

/// Spec, whether it names data files, and schema.
type KindOf = (i32, bool, i32);

/// Merges manifests of a table.
///
/// # Errors
/// As catalog and stores say.
pub async fn merge(env: &Env, subject: &Subject, dry_run: bool) -> Result<Merged> {
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let (mut report, run, mut conflicts) = (Merged::default(), RunId::new(), 0);
    for number in 0.. {
        let table = super::load(env, subject).await?;
        // In format version 3 manifests carry row ids, which a merge would have to keep.
        if table.metadata().format_version() > FormatVersion::V2 {
            break;
        }
        let (all, kinds) = small(&table).await?;
        if number == 0 {
            report.all = all;
        }
        let bins = bins(kinds, subject.settings.min_manifests);
        if dry_run || bins.is_empty() {
            report.count(&bins);
            break;
        }
        let bins: Vec<Vec<String>> = bins.into_iter().take(BINS_MAX).collect();
        let change = Change {
            commit_id: format!("{run}-m{number}"),
            merge: bins.clone(),
            changes_no_row: true,
            summary: BTreeMap::from([
                (SCOPE.to_owned(), "manifests".to_owned()),
                ("manifests-replaced".to_owned(), bins.iter().map(Vec::len).sum::<usize>().to_string()),
                ("manifests-created".to_owned(), bins.len().to_string()),
            ]),
            ..Change::default()
        };
        match committer.commit(&subject.ident, &change).await {
            Ok(_) => {
                report.commits += 1;
                report.count(&bins);
            }
            Err(error) if error.kind() == ErrorKind::Conflict && conflicts < ATTEMPTS => {
                tracing::warn!(table = %subject.ident, %error, "planning the merge again");
                conflicts += 1;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                report.gave_up = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// The number of all manifests, and the small ones by kind.
async fn small(table: &Table) -> Result<(usize, BTreeMap<KindOf, Vec<Small>>)> {
    let metadata = table.metadata();
    let Some(snapshot) = metadata.current_snapshot() else { return Ok((0, BTreeMap::new())) };
    let list = manifests::list(table, snapshot).await?;
    let (all, mut kinds) = (list.len(), BTreeMap::<KindOf, Vec<Small>>::new());
    let small = list.into_iter().filter(|m| manifests::has_live(m) && m.manifest_length < MERGE_BYTES / 2).collect();
    let mut loaded = load_all(table, small);
    while let Some((manifest, loaded)) = loaded.try_next().await? {
        let data = manifest.content == ManifestContentType::Data;
        let kind = (manifest.partition_spec_id, data, loaded.metadata().schema_id());
        let order = partition_order(metadata, &manifest);
        kinds.entry(kind).or_default().push(Small {
            path: manifest.manifest_path,
            bytes: manifest.manifest_length,
            order,
        });
    }
    Ok((all, kinds))
}

/// What becomes one manifest each. A kind is left alone until it has `least` small ones.
fn bins(kinds: BTreeMap<KindOf, Vec<Small>>, least: usize) -> Vec<Vec<String>> {
    let mut bins = Vec::new();
    for mut small in kinds.into_values().filter(|small| small.len() >= least) {
        small.sort_by(|a, b| (&a.order, &a.path).cmp(&(&b.order, &b.path)));
        let (mut bin, mut bytes) = (Vec::new(), 0);
        for manifest in small {
            if bytes + manifest.bytes > MERGE_BYTES {
                bins.push(std::mem::take(&mut bin));
                bytes = 0;
            }
            bytes += manifest.bytes;
            bin.push(manifest.path);
        }
        bins.push(bin);
    }
    // One manifest alone has nothing to be merged with.
    bins.retain(|bin| bin.len() > 1);
    bins
}

impl Merged {
    fn count(&mut self, bins: &[Vec<String>]) {
        self.before += bins.iter().map(Vec::len).sum::<usize>();
        self.after += bins.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(path: &str, bytes: i64, lower: i64) -> Small {
        Small { path: path.to_owned(), bytes, order: PartitionOrder::of_numbers(&[lower]) }
    }

    fn check(kinds: &[(KindOf, Vec<Small>)], least: usize, expected: &[&[&str]]) {
        let bins = bins(kinds.iter().cloned().collect(), least);
        assert_eq!(bins, expected.iter().map(|bin| bin.to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn neighbours_of_a_kind_are_merged_up_to_the_target() {
        let (kind, other) = ((0, true, 0), (0, false, 0));
        let three = vec![small("a", 10, 3), small("b", 10, 1), small("c", 10, 2)];
        check(&[(kind, three.clone())], 3, &[&["b", "c", "a"]]);
        check(&[(kind, three.clone())], 4, &[]);
        check(&[(kind, three.clone()), (other, three.clone())], 3, &[&["b", "c", "a"], &["b", "c", "a"]]);
        let half = MERGE_BYTES / 2;
        let large = vec![small("a", half, 1), small("b", half, 2), small("c", half, 3), small("d", half, 4)];
        check(&[(kind, large)], 2, &[&["a", "b"], &["c", "d"]]);
        check(&[(kind, vec![small("a", MERGE_BYTES, 1), small("b", 1, 2)])], 2, &[]);
    }
}
