//! Waiting until a file changes: by looking, because a test hangs on few files and editors replace them in many ways.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::report::Report;

/// Files are looked at so often.
const LOOK: Duration = Duration::from_millis(250);

/// When files were last changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Watch(BTreeMap<PathBuf, Option<(SystemTime, u64)>>);

impl Watch {
    /// The files that a report hangs on, as they are now. New test files are found too: their directories count.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let mut files = BTreeMap::new();
        for file in &report.files {
            let folder = file.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            for path in [file.file.as_path(), folder].into_iter().chain(file.watched.iter().map(PathBuf::as_path)) {
                files.insert(path.to_owned(), stamp(path));
            }
        }
        Self(files)
    }

    /// Whether one of them is not as it was.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.0.iter().any(|(path, before)| stamp(path) != *before)
    }

    /// Returns when one of them has changed.
    pub async fn changed(&self) {
        while !self.has_changed() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
