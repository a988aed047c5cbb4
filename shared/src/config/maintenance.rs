//! How tables are maintained: what the files say, and what holds for a table.

use std::time::Duration;

/// What one place says (`maintenance` of a table, or of `compactor` in firn.yaml); `None` leaves it to the next.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MaintenanceOptions {
    /// See [`Maintenance::small_file_bytes`].
    pub small_file_bytes: Option<u64>,
    /// See [`Maintenance::min_files`].
    pub min_files: Option<usize>,
    /// See [`Maintenance::delete_share`].
    pub delete_share: Option<f64>,
    /// See [`Maintenance::min_manifests`].
    pub min_manifests: Option<usize>,
    /// See [`Maintenance::expire_after`].
    pub expire_after: Option<Duration>,
    /// See [`Maintenance::keep_last`].
    pub keep_last: Option<usize>,
    /// See [`Maintenance::orphans_after`].
    pub orphans_after: Option<Duration>,
    /// See [`Maintenance::delete_orphans`].
    pub delete_orphans: Option<bool>,
}

/// How a table is maintained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Maintenance {
    /// Data files become this large, bytes.
    pub target_file_bytes: u64,
    /// Data files below this many bytes are small; at most three quarters of the target.
    pub small_file_bytes: u64,
    /// So many small files of a partition are worth a rewrite; at least 2.
    pub min_files: usize,
    /// A data file that lost at least this share of its rows is rewritten, as is one with equality deletes; 0 to 1.
    pub delete_share: f64,
    /// So many small manifests of one kind are worth a merge; at least 2.
    pub min_manifests: usize,
    /// Snapshots older than this expire.
    pub expire_after: Duration,
    /// But not the newest ones of a branch, this many; at least 1.
    pub keep_last: usize,
    /// Files that nothing names are orphans at this age: younger ones may belong to a commit in flight.
    pub orphans_after: Duration,
    /// Whether orphans are deleted without being asked for on the command line.
    pub delete_orphans: bool,
}

impl MaintenanceOptions {
    /// What is not said here is taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            small_file_bytes: self.small_file_bytes.or(other.small_file_bytes),
            min_files: self.min_files.or(other.min_files),
            delete_share: self.delete_share.or(other.delete_share),
            min_manifests: self.min_manifests.or(other.min_manifests),
            expire_after: self.expire_after.or(other.expire_after),
            keep_last: self.keep_last.or(other.keep_last),
            orphans_after: self.orphans_after.or(other.orphans_after),
            delete_orphans: self.delete_orphans.or(other.delete_orphans),
        }
    }

    /// What holds for a table whose data files shall have `target_file_bytes`. The one home of the defaults.
    #[must_use]
    pub fn resolve(self, target_file_bytes: u64) -> Maintenance {
        let most = target_file_bytes / 4 * 3;
        Maintenance {
            target_file_bytes,
            small_file_bytes: self.small_file_bytes.unwrap_or(most).min(most),
            min_files: self.min_files.unwrap_or(5),
            delete_share: self.delete_share.unwrap_or(0.1),
            min_manifests: self.min_manifests.unwrap_or(10),
            expire_after: self.expire_after.unwrap_or(Duration::from_hours(5 * 24)),
            keep_last: self.keep_last.unwrap_or(10),
            orphans_after: self.orphans_after.unwrap_or(Duration::from_hours(3 * 24)),
            delete_orphans: self.delete_orphans.unwrap_or_default(),
        }
    }
}
