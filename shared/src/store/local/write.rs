//! Making files appear whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{TEMP_PREFIX, TEMP_SUFFIX, failure};
use crate::error::Result;
use crate::store::{ObjectWriter, PutMode, PutOutcome};

/// A file being written beside its place; removed when dropped.
#[derive(Debug)]
struct Temp {
    path: PathBuf,
    file: File,
}

impl Temp {
    /// A new locked file in the directory of `target`, which is made if need be.
    fn beside(target: &Path) -> io::Result<Self> {
        let dir = parent(target)?;
        make_dirs(dir)?;
        let path = dir.join(format!("{TEMP_PREFIX}{}{TEMP_SUFFIX}", uuid::Uuid::new_v4().simple()));
        let file = File::options().write(true).create_new(true).open(&path)?;
        let temp = Self { path, file };
        temp.file.lock()?;
        Ok(temp)
    }

    /// Gives the flushed file its name.
    fn publish(self, target: &Path, mode: PutMode) -> io::Result<PutOutcome> {
        self.file.sync_all()?;
        let outcome = match mode {
            PutMode::Overwrite => fs::rename(&self.path, target).map(|()| PutOutcome::Written)?,
            PutMode::Create => match fs::hard_link(&self.path, target) {
                Ok(()) => PutOutcome::Written,
                Err(e) if e.kind() == IoKind::AlreadyExists && !target.is_dir() => PutOutcome::AlreadyExists,
                Err(e) if e.kind() == IoKind::AlreadyExists => return Err(IoKind::IsADirectory.into()),
                Err(e) => return Err(e),
            },
        };
        if outcome == PutOutcome::Written {
            sync_dir(parent(target)?)?;
        }
        Ok(outcome)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Gone already after a rename. Whatever else fails, the next listing of the directory tries again.
        let _ = fs::remove_file(&self.path);
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| IoKind::InvalidInput.into())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory and its parents, each flushed into its own parent.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        make_dirs(above)?;
        match fs::create_dir(dir) {
            Ok(()) => sync_dir(above)?,
            Err(e) if e.kind() == IoKind::AlreadyExists && dir.is_dir() => {}
            Err(e) if e.kind() == IoKind::AlreadyExists => return Err(IoKind::NotADirectory.into()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes a whole object.
pub(super) fn put(target: &Path, body: &[u8], mode: PutMode) -> io::Result<PutOutcome> {
    if mode == PutMode::Create && target.is_file() {
        return Ok(PutOutcome::AlreadyExists);
    }
    let mut temp = Temp::beside(target)?;
    temp.file.write_all(body)?;
    temp.publish(target, mode)
}

/// Removes an object.
pub(super) fn delete(target: &Path) -> io::Result<()> {
    match fs::remove_file(target) {
        Ok(()) => sync_dir(parent(target)?),
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(()),
        // A directory is not an object: Linux says EISDIR, others EPERM.
        Err(_) if target.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// An object written piece by piece.
#[derive(Debug)]
pub(super) struct LocalWriter {
    temp: Arc<Temp>,
    target: PathBuf,
    url: String,
    size: u64,
}

impl LocalWriter {
    pub(super) fn create(target: PathBuf, url: String) -> io::Result<Self> {
        Ok(Self { temp: Arc::new(Temp::beside(&target)?), target, url, size: 0 })
    }
}

#[async_trait]
impl ObjectWriter for LocalWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        let temp = Arc::clone(&self.temp);
        let done = spawn_blocking(move || (&temp.file).write_all(&bytes)).await;
        done.map_err(io::Error::other).flatten().map_err(|e| failure("write", &self.url, &e))
    }

    async fn close(self: Box<Self>) -> Result<u64> {
        let Self { temp, target, url, size } = *self;
        let done = spawn_blocking(move || {
            // A write whose future was dropped half way still holds the file: what it wrote is not known.
            let temp = Arc::into_inner(temp).ok_or_else(|| io::Error::other("a write was interrupted"))?;
            if temp.file.metadata()?.len() != size {
                return Err(io::Error::other("a write was interrupted"));
            }
            temp.publish(&target, PutMode::Overwrite)
        })
        .await;
        let _written = done.map_err(io::Error::other).flatten().map_err(|e| failure("write", &url, &e))?;
        Ok(size)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
