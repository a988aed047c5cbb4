//! `maintenance`, of a table or, as the default of all tables, of `compactor` in `firn.yaml`.

use super::wire;

wire! {
    /// How `compactor maintain` treats a table. What is left out is taken from `compactor.maintenance` of firn.yaml.
    struct MaintenanceYaml {
        /// Small data files become large ones, deleted rows go for good.
        compact: Option<CompactYaml>,
        /// Small manifests become large ones.
        manifests: Option<ManifestsYaml>,
        /// Old snapshots go, and the files that only they name.
        expire: Option<ExpireYaml>,
        /// Files that nothing names go.
        orphans: Option<OrphansYaml>,
    }
    /// When data files are rewritten.
    struct CompactYaml {
        /// Data files below this size are small (default and at most: three quarters of `targetFileSize`).
        smaller_than: Option<String>,
        /// So many small files of a partition are rewritten as one (default 5).
        #[schemars(range(min = 2))]
        min_files: Option<u32>,
        /// A data file that lost at least this share of its rows, 0 to 1, is rewritten (default 0.1).
        #[schemars(range(min = 0.0, max = 1.0))]
        delete_share: Option<f64>,
    }
    /// When manifests are merged.
    struct ManifestsYaml {
        /// So many small manifests of one kind are merged (default 10).
        #[schemars(range(min = 2))]
        min_count: Option<u32>,
    }
    /// Which snapshots expire.
    struct ExpireYaml {
        /// Those older than this (default 5d).
        older_than: Option<String>,
        /// But never the newest ones of a branch, this many (default 10).
        #[schemars(range(min = 1))]
        keep_last: Option<u32>,
    }
    /// Which files that nothing names are removed.
    struct OrphansYaml {
        /// Those older than this, at least 1h (default 3d): younger ones may belong to a commit in flight.
        older_than: Option<String>,
        /// Whether they are deleted; else they are listed, and deleted with `--delete-orphans` (default false).
        delete: Option<bool>,
    }
}
