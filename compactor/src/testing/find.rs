//! Which files hold tests.

use std::path::{Path, PathBuf};

use firn_shared::config::TEST_SUFFIXES;
use firn_shared::error::{Error, Result};

use super::watch::{Stamp, stamp};

/// Directories are searched so deep.
const DEPTH_MAX: usize = 16;

/// What a search has found.
#[derive(Debug, Default)]
pub struct Found {
    /// Files of tests, sorted, each once.
    pub files: Vec<PathBuf>,
    /// The directories that were looked through, as they were before.
    pub folders: Vec<(PathBuf, Stamp)>,
}

/// The files that are named, and `*.test.yaml` anywhere below directories that are named.
///
/// # Errors
/// `Config` when a path is not there, cannot be read, or nothing is found.
pub fn find(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for path in paths {
        if path.is_dir() {
            search(path, DEPTH_MAX, &mut found)?;
        } else if path.exists() {
            found.files.push(path.clone());
        } else {
            return Err(Error::config(format!("no file or directory {}", path.display())));
        }
    }
    found.files.sort();
    found.files.dedup();
    if found.files.is_empty() {
        let paths = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(Error::config(format!("no *.test.yaml in {paths}; tests stand beside their pipeline")));
    }
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Found) -> Result<()> {
    let unreadable =
        |error: std::io::Error| Error::config(format!("cannot read directory {}", folder.display())).with_source(error);
    found.folders.push((folder.to_owned(), stamp(folder)));
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        // Links are not followed: they may lead round in a circle.
        let kind = entry.file_type().map_err(unreadable)?;
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            search(&path, depth - 1, found)?;
        } else if !kind.is_dir() && TEST_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            found.files.push(path);
        }
    }
    Ok(())
}
