//! Listing a directory tree in the order of S3.
//!
//! Keys are ordered by their bytes, which is not the order of a plain walk: `a-b` sorts before `a/b` because `-` is
//! below `/`. Sorting every directory under its name with the slash gives the right order: siblings compare as their
//! keys do, and everything in a directory shares the directory's place.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind as IoKind};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::{KEY_BYTES_MAX, is_temp_name, object_meta};
use crate::clock::{Clock, SystemClock};
use crate::store::{Depth, Page};

/// Entries of a page at most, as on S3.
const PAGE_ENTRIES_MAX: usize = 1000;

/// A temporary file younger than this may be one whose writer has not locked it yet.
const TEMP_AGE_MIN: Duration = Duration::from_mins(1);

/// One page of the keys below `root`.
pub(super) fn list(root: &Path, prefix: &str, start_after: Option<&str>, depth: Depth) -> io::Result<Page> {
    let mut walk = Walk { root, prefix, start_after, depth, page: Page::default(), last: String::new() };
    // Everything with the prefix lies in the directory that the prefix names up to its last slash.
    let dir = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    let _full = walk.dir(dir)?;
    Ok(walk.page)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    start_after: Option<&'a str>,
    depth: Depth,
    page: Page,
    /// The entry added last.
    last: String,
}

impl Walk<'_> {
    /// Lists a directory, named by its key with trailing slash (empty at the root).
    fn dir(&mut self, dir: &str) -> io::Result<ControlFlow<()>> {
        if dir.len() > KEY_BYTES_MAX {
            return Err(io::Error::other(format!("directory `{dir}` is deeper than a key may be: a loop of links?")));
        }
        for name in sorted_names(&self.root.join(dir), true)? {
            let key = format!("{dir}{name}");
            let flow = if name.ends_with('/') { self.directory_entry(key)? } else { self.file_entry(key)? };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn directory_entry(&mut self, key: String) -> io::Result<ControlFlow<()>> {
        let inside = key.starts_with(self.prefix);
        if !inside && !self.prefix.starts_with(&key) {
            return Ok(ControlFlow::Continue(()));
        }
        // All keys of the directory start with `key`: they lie before `start_after` unless it is below or above them.
        if self.start_after.is_some_and(|after| key.as_str() < after && !after.starts_with(&key)) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.depth == Depth::One && inside {
            if self.start_after.is_some_and(|after| key.as_str() <= after) || !holds_object(&self.root.join(&key))? {
                return Ok(ControlFlow::Continue(()));
            }
            return Ok(self.add(key, |page, key| page.prefixes.push(key)));
        }
        self.dir(&key)
    }

    fn file_entry(&mut self, key: String) -> io::Result<ControlFlow<()>> {
        if !key.starts_with(self.prefix) || self.start_after.is_some_and(|after| key.as_str() <= after) {
            return Ok(ControlFlow::Continue(()));
        }
        let meta = match fs::metadata(self.root.join(&key)) {
            Ok(meta) => object_meta(key.clone(), &meta)?,
            // Deleted since the directory was read.
            Err(e) if e.kind() == IoKind::NotFound => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(e),
        };
        Ok(self.add(key, |page, _| page.objects.push(meta)))
    }

    /// Adds an entry, or notes that there are more than a page holds.
    fn add(&mut self, key: String, push: impl FnOnce(&mut Page, String)) -> ControlFlow<()> {
        if self.page.objects.len() + self.page.prefixes.len() == PAGE_ENTRIES_MAX {
            self.page.next = Some(std::mem::take(&mut self.last));
            return ControlFlow::Break(());
        }
        self.last.clone_from(&key);
        push(&mut self.page, key);
        ControlFlow::Continue(())
    }
}

/// The names in a directory in key order, directories with a trailing slash; temporary files are left out, and
/// removed when `clean` and nobody writes them any more. A missing directory is empty.
fn sorted_names(dir: &Path, clean: bool) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(mut name) = entry.file_name().into_string() else {
            return Err(io::Error::new(IoKind::InvalidData, format!("{} is not UTF-8", entry.path().display())));
        };
        if is_temp_name(&name) {
            if clean {
                remove_if_abandoned(&entry.path());
            }
            continue;
        }
        let mut kind = entry.file_type()?;
        if kind.is_symlink() {
            match fs::metadata(entry.path()) {
                Ok(meta) => kind = meta.file_type(),
                Err(e) if e.kind() == IoKind::NotFound => continue,
                Err(e) => return Err(e),
            }
        }
        if kind.is_dir() {
            name.push('/');
        } else if !kind.is_file() {
            continue;
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether any object lies below the directory.
fn holds_object(dir: &Path) -> io::Result<bool> {
    for name in sorted_names(dir, false)? {
        if !name.ends_with('/') || holds_object(&dir.join(&name))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes a temporary file whose writer is gone. Failing to is no error of the listing; the next one tries again.
fn remove_if_abandoned(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let age = file.metadata().and_then(|meta| meta.modified()).map(chrono::DateTime::from);
    let old = age.is_ok_and(|at| (SystemClock.now() - at).to_std().is_ok_and(|age| age >= TEMP_AGE_MIN));
    if old && !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && fs::remove_file(path).is_ok() {
        tracing::info!(path = %path.display(), "removed an abandoned temporary file");
    }
}
