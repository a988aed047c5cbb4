//! A directory that behaves like a bucket.
//!
//! An object is a file of the same relative path. It is written under a temporary name beside its place, flushed to
//! disk, and then given its name: by `link(2)`, which fails when the name is taken and so has one winner, or by
//! `rename(2)`, which replaces. The directory is flushed after that, so what was reported as written survives a power cut.
//!
//! A process that dies in between leaves a temporary file, which no listing shows. Its writer holds a lock on it
//! (`flock`), so the next listing of that directory can tell it is abandoned and removes it.
//!
//! Differences from S3 that a file system forces: a key cannot be an object and the directory of other keys at once
//! (`a` and `a/b`), and no part of a key may be empty, `.`, `..` or longer than 255 bytes. Such keys are refused.

mod walk;
mod write;

use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use self::write::LocalWriter;
use super::{Depth, ObjectMeta, ObjectWriter, Page, PutMode, PutOutcome, Store};
use crate::error::{Error, ErrorKind, Result};

/// Longest key, in bytes, as on S3.
const KEY_BYTES_MAX: usize = 1024;

/// Temporary files are named `.firn-{uuid}.tmp`.
const TEMP_PREFIX: &str = ".firn-";
const TEMP_SUFFIX: &str = ".tmp";

fn is_temp_name(name: &str) -> bool {
    name.starts_with(TEMP_PREFIX) && name.ends_with(TEMP_SUFFIX)
}

/// A directory of files, as a store.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
    url: String,
}

impl LocalStore {
    /// The store below `root`, an absolute path; the directory is made by the first write.
    ///
    /// # Errors
    /// `Config` when the path is relative or not UTF-8.
    pub fn new(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let text =
            root.to_str().ok_or_else(|| Error::config(format!("directory `{}` is not UTF-8", root.display())))?;
        if !root.is_absolute() {
            return Err(Error::config(format!("directory `{text}` must be an absolute path")));
        }
        let text = text.trim_end_matches('/');
        Ok(Self { root: PathBuf::from(if text.is_empty() { "/" } else { text }), url: format!("file://{text}") })
    }

    /// The file of a key.
    fn path(&self, operation: &str, key: &str) -> Result<PathBuf> {
        check_key(key).map_err(|rule| Error::data(format!("cannot {operation} {}/{key}: {rule}", self.url)))?;
        Ok(self.root.join(key))
    }

    /// Runs blocking work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.path(operation, key)?;
        let done = spawn_blocking(move || work(&path)).await;
        done.map_err(io::Error::other).flatten().map_err(|e| failure(operation, &format!("{}/{key}", self.url), &e))
    }
}

/// The rules of keys that a file system can keep.
fn check_key(key: &str) -> std::result::Result<(), &'static str> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err("a key has 1 to 1024 bytes");
    }
    if key.contains('\0') {
        return Err("a key must not hold a NUL");
    }
    for part in key.split('/') {
        match part {
            "" => return Err("no part of a key may be empty"),
            "." | ".." => return Err("no part of a key may be `.` or `..`"),
            part if part.len() > 255 => return Err("no part of a key may be longer than 255 bytes"),
            part if is_temp_name(part) => return Err("names `.firn-….tmp` are kept for files being written"),
            _ => {}
        }
    }
    Ok(())
}

/// An IO error with its kind and the object's URL.
fn failure(operation: &str, url: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        IoKind::NotFound => return Error::data(format!("cannot {operation} {url}: no such object")),
        IoKind::PermissionDenied | IoKind::ReadOnlyFilesystem | IoKind::Unsupported => ErrorKind::Config,
        IoKind::IsADirectory | IoKind::NotADirectory => {
            return Error::data(format!(
                "cannot {operation} {url}: a file system cannot keep a key that is also the directory of other keys"
            ));
        }
        IoKind::UnexpectedEof | IoKind::InvalidData => ErrorKind::Data,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {operation} {url}: {error}"))
}

/// The metadata of the regular file at `path`; a directory is not an object.
fn file_meta(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Some(meta)),
        Ok(_) => Ok(None),
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn object_meta(key: String, meta: &fs::Metadata) -> io::Result<ObjectMeta> {
    Ok(ObjectMeta { key, size: meta.len(), modified: meta.modified()?.into() })
}

/// Opens a regular file for reading, with its size.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let file = match File::open(path) {
        Err(e) if e.kind() == IoKind::NotADirectory => return Err(IoKind::NotFound.into()),
        other => other?,
    };
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, meta.len())) } else { Err(IoKind::NotFound.into()) }
}

/// Bytes `range` of a file, cut to what it has.
fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let (file, size) = open_file(path)?;
    let end = range.end.min(size);
    let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

#[async_trait]
impl Store for LocalStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.blocking("read", key, |path| read_range(path, 0..u64::MAX)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.blocking("read", key, move |path| read_range(path, range)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let name = key.to_owned();
        self.blocking("look at", key, |path| file_meta(path)?.map(|meta| object_meta(name, &meta)).transpose()).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.blocking("write", key, move |path| write::put(path, &body, mode)).await
    }

    async fn writer(&self, key: &str) -> Result<Box<dyn ObjectWriter>> {
        let url = format!("{}/{key}", self.url);
        let writer = self.blocking("write", key, move |path| LocalWriter::create(path.to_owned(), url)).await?;
        Ok(Box::new(writer))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, depth: Depth) -> Result<Page> {
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.starts_with('/') || prefix.contains('\0')
        {
            return Err(Error::data(format!(
                "cannot list {}/{prefix}: a prefix must not leave the store's directory",
                self.url
            )));
        }
        let (root, prefix_owned) = (self.root.clone(), prefix.to_owned());
        let start_after = start_after.map(str::to_owned);
        let done = spawn_blocking(move || walk::list(&root, &prefix_owned, start_after.as_deref(), depth)).await;
        done.map_err(io::Error::other).flatten().map_err(|e| failure("list", &format!("{}/{prefix}", self.url), &e))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.blocking("delete", key, write::delete).await
    }

    async fn keeps_versions(&self) -> Result<bool> {
        Ok(false)
    }

    async fn purge(&self, key: &str) -> Result<u64> {
        self.delete(key).await.map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Faults, Prefixed, conformance};

    #[tokio::test]
    async fn local_files_keep_what_every_store_promises_also_behind_a_prefix_and_a_fault_programme() {
        // Thousands of flushes: in memory where there is such a place.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let local = Arc::new(LocalStore::new(dir.path()).unwrap());
        let faults = Faults::none();
        conformance::run(faults.around(Prefixed::over(local, "some/prefix"))).await.unwrap();
        assert!(faults.count() > 1000 && !faults.fired());
    }

    #[tokio::test]
    async fn keys_that_leave_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path().join("lake")).unwrap();
        for key in
            ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "", "a/", ".firn-1.tmp", "a\0b", &"x".repeat(256)]
        {
            let error = store.put(key, Bytes::new(), PutMode::Overwrite).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{key}: {error}");
            assert!(store.get(key).await.is_err() && store.delete(key).await.is_err(), "{key}");
        }
        assert!(store.list("../", None, Depth::All).await.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_abandoned_temporary_file_is_invisible_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        let live = store.writer("d/live").await.unwrap();
        let abandoned = dir.path().join("d/.firn-dead.tmp");
        fs::write(&abandoned, "half").unwrap();
        let old = File::options().write(true).open(&abandoned).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        drop(old);
        let page = store.list("", None, Depth::All).await.unwrap();
        assert!(page.objects.is_empty());
        assert!(!abandoned.exists());
        assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 1, "the live writer's file stays");
        assert_eq!(live.close().await.unwrap(), 0);
        assert_eq!(store.list("", None, Depth::All).await.unwrap().objects.len(), 1);
    }

    #[tokio::test]
    async fn an_object_cannot_also_be_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        let _ = store.put("a/b", Bytes::from_static(b"1"), PutMode::Create).await.unwrap();
        for (key, mode) in [("a", PutMode::Create), ("a", PutMode::Overwrite), ("a/b/c", PutMode::Create)] {
            let error = store.put(key, Bytes::new(), mode).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        }
        assert!(store.head("a").await.unwrap().is_none());
        assert!(store.head("a/b/c").await.unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
