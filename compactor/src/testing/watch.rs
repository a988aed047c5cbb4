//! Waiting until a file changes: by looking, because a test hangs on few files and editors replace them in many ways.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::report::Report;

/// Files are looked at so often.
const LOOK: Duration = Duration::from_millis(250);

/// When a file was last changed, and how long it is; `None` while it is not there.
pub type Stamp = Option<(SystemTime, u64)>;

/// When files were last changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Watch(BTreeMap<PathBuf, Stamp>);

impl Watch {
    /// The files of the last run as they are now, and these: before another run, which may find nothing of them.
    pub fn look_at(&mut self, paths: &[PathBuf]) {
        self.0.extend(paths.iter().map(|path| (path.clone(), None)));
        self.0.iter_mut().for_each(|(path, before)| *before = stamp(path));
    }

    /// From now on the files that a report hangs on, as they were before its cases ran.
    pub fn hang_on(&mut self, report: &Report) {
        self.0 = report.files.iter().flat_map(|file| file.watched.clone()).collect();
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

/// As a file is now.
pub fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::super::report::FileReport;
    use super::*;

    #[test]
    fn what_is_saved_while_cases_run_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a.test.yaml", "a.yaml"] {
            std::fs::write(path(name), "before").unwrap();
        }
        let mut file = FileReport::of(&path("a.test.yaml"));
        file.watch([path("a.yaml"), path("missing.csv")]);
        let report = Report { files: vec![file] };
        let mut watch = Watch::default();
        watch.hang_on(&report);
        assert!(!watch.has_changed());
        std::fs::write(path("a.yaml"), "saved meanwhile").unwrap();
        watch.hang_on(&report);
        assert!(watch.has_changed(), "stamps are those from before the run");
    }

    #[test]
    fn a_file_that_is_gone_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.test.yaml");
        let mut watch = Watch::default();
        watch.look_at(std::slice::from_ref(&path));
        assert!(!watch.has_changed());
        std::fs::write(&path, "there").unwrap();
        assert!(watch.has_changed());
        watch.look_at(&[]);
        assert!(!watch.has_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(watch.has_changed());
    }
}
