//! Batches on local disk, so that the size of a run is not bounded by memory.
//!
//! A file is a sequence of frames, each a length and a zstd frame of an Arrow IPC stream with one batch: nothing is
//! held open between frames, so that thousands of files cost no memory. Spilled data is never read by another run, nor by
//! another user; the directory is removed with the [`SpillDir`]. A process that is killed leaves it behind: it held a lock
//! there (`flock`), so whoever spills next can tell that nobody needs the directory, and removes it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use firn_shared::clock::{Clock, SystemClock};
use firn_shared::error::{Error, Result};

/// Fast, and JSON-like columns still shrink by half and more.
const LEVEL: i32 = 1;
/// What the names of all directories begin with.
const PREFIX: &str = "firn-";
/// The file in a directory whose lock the process holds.
const LOCK: &str = "lock";
/// A directory is looked at when its lock is so old: right after it was made, nobody has the lock yet.
const YOUNG: Duration = Duration::from_mins(1);

/// A directory of spilled files that goes when it is dropped.
#[derive(Debug)]
pub struct SpillDir {
    path: PathBuf,
    lock: File,
}

impl SpillDir {
    /// A new directory `firn-{name}` below `parent`, which is made when it is missing; those of dead processes go.
    ///
    /// # Errors
    /// `Config`, naming the directory that cannot be made.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("{PREFIX}{name}"));
        let make = || {
            std::fs::create_dir_all(parent)?;
            DirBuilder::new().mode(0o700).create(&path)?;
            let lock = private().create_new(true).write(true).open(path.join(LOCK))?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = make().map_err(|e: std::io::Error| {
            Error::config(format!("cannot spill to {} (compactor.tempDir): {e}", path.display())).with_source(e)
        })?;
        remove_abandoned(parent, YOUNG);
        Ok(Self { path, lock })
    }

    /// The file of this name, empty at first.
    pub fn file(&self, name: &str) -> SpillFile {
        SpillFile { path: self.path.join(name), bytes: 0, rows: 0 }
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        // What stays behind is removed by whoever spills next.
        let _ = std::fs::remove_dir_all(&self.path);
        let _ = self.lock.unlock();
    }
}

/// Removes what processes of this machine have left behind that were killed, and says how many directories went.
pub fn sweep(parent: &Path) -> u64 {
    remove_abandoned(parent, YOUNG)
}

fn remove_abandoned(parent: &Path, young: Duration) -> u64 {
    let mut removed = 0;
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if is_ours && is_abandoned(&entry.path(), young) {
            match std::fs::remove_dir_all(entry.path()) {
                Ok(()) => removed += 1,
                // Of another user, say, or somebody else was faster.
                Err(e) => {
                    tracing::warn!(directory = %entry.path().display(), error = %e, "spilled rows cannot be removed");
                }
            }
        }
    }
    removed
}

/// Whether nobody holds the lock, of a directory whose lock is no longer young.
fn is_abandoned(dir: &Path, young: Duration) -> bool {
    let old = |file: &File| {
        let at = file.metadata().and_then(|of| of.modified()).map(chrono::DateTime::from);
        at.is_ok_and(|at| (SystemClock.now() - at).to_std().is_ok_and(|age| age >= young))
    };
    File::open(dir.join(LOCK)).is_ok_and(|lock| old(&lock) && lock.try_lock().is_ok())
}

/// Files for nobody else's eyes.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// A file of batches; removed when it is dropped.
#[derive(Debug)]
pub struct SpillFile {
    path: PathBuf,
    bytes: u64,
    rows: u64,
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if self.rows > 0 {
            // What stays behind goes with the directory.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SpillFile {
    /// Rows in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes that its rows take in memory, about.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// `Unavailable`, naming the file: the disk is full, say.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let encode = || -> Result<Vec<u8>, arrow_schema::ArrowError> {
            let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
            writer.write(batch)?;
            writer.into_inner()
        };
        let plain = encode().map_err(|e| Error::bug("cannot spill a batch").with_source(e))?;
        let write = || -> std::io::Result<()> {
            let packed = zstd::bulk::compress(&plain, LEVEL)?;
            let mut file = private().create(true).append(true).open(&self.path)?;
            file.write_all(&(packed.len() as u64).to_le_bytes())?;
            file.write_all(&(plain.len() as u64).to_le_bytes())?;
            file.write_all(&packed)
        };
        write().map_err(|e| self.failed("write", e))?;
        self.bytes += batch.columns().iter().map(held).sum::<u64>();
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The batches, in the order they were appended.
    ///
    /// # Errors
    /// `Unavailable`, naming the file.
    pub fn read(&self) -> Result<Batches<'_>> {
        let file = match File::open(&self.path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.rows == 0 => None,
            Err(e) => return Err(self.failed("open", e)),
        };
        Ok(Batches { of: self, file })
    }

    fn failed(&self, what: &str, e: std::io::Error) -> Error {
        Error::unavailable(format!("cannot {what} {}: {e}", self.path.display())).with_source(e)
    }
}

/// What the values of an array take.
fn held(array: &ArrayRef) -> u64 {
    let data = array.to_data();
    data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size()) as u64
}

/// Reads a spilled file, a batch at a time.
#[derive(Debug)]
pub struct Batches<'a> {
    of: &'a SpillFile,
    file: Option<BufReader<File>>,
}

impl Iterator for Batches<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let file = self.file.as_mut()?;
        match frame(file) {
            Ok(None) => None,
            Ok(Some(plain)) => {
                let batch = StreamReader::try_new(plain.as_slice(), None).and_then(|mut reader| {
                    reader.next().unwrap_or_else(|| Err(arrow_schema::ArrowError::IpcError("no batch".to_owned())))
                });
                Some(batch.map_err(|e| Error::data(format!("{}: {e}", self.of.path.display())).with_source(e)))
            }
            Err(e) => Some(Err(self.of.failed("read", e))),
        }
    }
}

fn frame(file: &mut BufReader<File>) -> std::io::Result<Option<Vec<u8>>> {
    let (mut packed, mut plain) = ([0; 8], [0; 8]);
    match file.read_exact(&mut packed) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    file.read_exact(&mut plain)?;
    let mut bytes = vec![0; u64::from_le_bytes(packed) as usize];
    file.read_exact(&mut bytes)?;
    zstd::bulk::decompress(&bytes, u64::from_le_bytes(plain) as usize).map(Some)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;

    use super::*;

    #[test]
    fn batches_come_back_in_order_and_the_directory_goes() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::new(parent.path(), "run").unwrap();
        let mut file = dir.file("a");
        assert_eq!(file.read().unwrap().count(), 0);
        let batch = |from: i64| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 3));
            RecordBatch::try_from_iter([("n", column)]).unwrap()
        };
        for from in [0, 10, 20] {
            file.append(&batch(from)).unwrap();
        }
        let back: Vec<_> = file.read().unwrap().map(Result::unwrap).collect();
        assert_eq!((back, file.rows()), (vec![batch(0), batch(10), batch(20)], 9));
        drop(file);
        drop(dir);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_spilled_is_for_nobody_else_and_goes_with_the_next() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let [alive, killed] = ["alive", "killed"].map(|name| SpillDir::new(parent.path(), name).unwrap());
        let mut file = killed.file("a");
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
        file.append(&RecordBatch::try_from_iter([("n", column)]).unwrap()).unwrap();
        for (path, mode) in [(&killed.path, 0o700), (&file.path, 0o600)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
        std::fs::create_dir(parent.path().join("others")).unwrap();
        assert_eq!(remove_abandoned(parent.path(), Duration::ZERO), 0, "both are at work");
        // A killed process drops nothing, but the kernel takes its locks.
        killed.lock.unlock().unwrap();
        std::mem::forget((file, killed));
        assert_eq!(sweep(parent.path()), 0, "it may be about to take the lock");
        assert_eq!(remove_abandoned(parent.path(), Duration::ZERO), 1);
        let mut left: Vec<_> =
            std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["firn-alive", "others"]);
        drop(alive);
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_and_no_end() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::new(parent.path(), "run").unwrap();
        let mut file = dir.file("a");
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        file.append(&RecordBatch::try_from_iter([("n", column)]).unwrap()).unwrap();
        let bytes = std::fs::read(&file.path).unwrap();
        std::fs::write(&file.path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(file.read().unwrap().next().unwrap().is_err());
    }
}
