//! Waiting until a file changes: by looking, because a test hangs on few files and editors replace them in many ways.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::find::{Found, find};
use super::report::Report;

/// Files are looked at so often.
const LOOK: Duration = Duration::from_millis(250);

/// When a file was last changed, and how long it is; `None` while it is not there.
pub type Stamp = Option<(SystemTime, u64)>;

/// What a run hangs on.
#[derive(Debug, Default)]
pub struct Watch {
    /// Files as they were.
    files: BTreeMap<PathBuf, Stamp>,
    /// Where tests are looked for.
    paths: Vec<PathBuf>,
    /// What was found there; nothing before the first look.
    found: Option<Found>,
}

impl Watch {
    /// The files of the last run and the tests that there are, as they are now: before another run, which may find nothing
    /// of them.
    pub fn look_at(&mut self, paths: &[PathBuf]) {
        self.paths = paths.to_vec();
        self.found = find(paths).ok();
        self.files.extend(self.found.iter().flat_map(|found| &found.files).map(|path| (path.clone(), None)));
        self.files.iter_mut().for_each(|(path, before)| *before = stamp(path));
    }

    /// From now on the files that a report hangs on, as they were before its cases ran.
    pub fn hang_on(&mut self, report: &Report) {
        self.files = report.files.iter().flat_map(|file| file.watched.clone()).collect();
    }

    /// Whether one of them is not as it was, or other tests are there.
    #[must_use]
    pub fn has_changed(&mut self) -> bool {
        self.files.iter().any(|(path, before)| stamp(path) != *before) || self.others_are_there()
    }

    /// A directory changes with every file that comes or goes, a report or what an editor keeps in it; tests count.
    fn others_are_there(&mut self) -> bool {
        let mut folders = self.found.iter().flat_map(|found| &found.folders);
        if self.found.is_some() && folders.all(|(path, before)| stamp(path) == *before) {
            return false;
        }
        let now = if self.paths.is_empty() { None } else { find(&self.paths).ok() };
        let same = match (&self.found, &now) {
            (Some(before), Some(now)) => before.files == now.files,
            (before, now) => before.is_none() && now.is_none(),
        };
        if same {
            self.found = now;
        }
        !same
    }

    /// Returns when something has changed.
    pub async fn changed(&mut self) {
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
    fn tests_that_come_and_go_are_noticed_and_nothing_else_that_does() {
        let folder = tempfile::tempdir().unwrap();
        let (path, below) = (folder.path().join("a.test.yaml"), folder.path().join("below"));
        let mut watch = Watch::default();
        let mut check = |expected: bool, change: &dyn Fn()| {
            // Times of directories are coarse: two changes in a row may leave the same.
            for folder in [folder.path(), &below].into_iter().filter(|folder| folder.is_dir()) {
                std::fs::File::open(folder).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
            watch.look_at(&[folder.path().to_owned()]);
            assert!(!watch.has_changed());
            change();
            assert_eq!(watch.has_changed(), expected);
            assert_eq!(watch.has_changed(), expected);
        };
        check(true, &|| std::fs::write(&path, "there").unwrap());
        check(false, &|| std::fs::write(folder.path().join("report.xml"), "there").unwrap());
        check(false, &|| std::fs::create_dir(&below).unwrap());
        check(true, &|| std::fs::write(below.join("b.test.yaml"), "new").unwrap());
        check(true, &|| std::fs::remove_file(&path).unwrap());
        check(true, &|| std::fs::remove_dir_all(&below).unwrap());
    }

    #[test]
    fn a_named_file_that_is_gone_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.test.yaml");
        let mut watch = Watch::default();
        watch.look_at(std::slice::from_ref(&path));
        assert!(!watch.has_changed());
        std::fs::write(&path, "there").unwrap();
        assert!(watch.has_changed());
    }
}
