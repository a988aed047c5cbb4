//! From `firn.yaml` to functions.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use bytes::Bytes;
use firn_shared::config::domain::{PluginSpec, S3Options, StoreUrl};
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::functions::Function;
use firn_shared::store::Stores;

use super::describe::functions;
use super::host::Plugin;

/// Bytes of a file at most. Code of functions is small; a whole interpreter would not start in microseconds.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Plug-ins that were loaded, by what they were loaded from. Functions live as long as the process, so a file that is
/// looked at again and again (`compactor test --watch`) must not be made anew each time.
static LOADED: Mutex<Option<HashMap<String, Vec<&'static Function>>>> = Mutex::new(None);

/// The functions of a plug-in; a [`firn_shared::functions::Loader`].
///
/// # Errors
/// `Config` for a file that is not there, has another hash, or is no plug-in; else those of the store.
pub fn load(spec: &PluginSpec, s3: Option<&S3Options>) -> Result<Option<Vec<&'static Function>>> {
    let file = match (&spec.file, s3) {
        (StoreUrl::File(path), _) => local(path),
        (StoreUrl::S3 { .. }, Some(s3)) => fetched(&spec.file.to_string(), s3),
        (StoreUrl::S3 { .. }, None) => return Ok(None),
    };
    let told = |e: Error| Error::new(e.kind(), format!("plug-in `{}`: {e}", spec.name));
    let file = file.map_err(told)?;
    let found = hex(digest::digest(&digest::SHA256, &file).as_ref());
    match &spec.sha256 {
        None => return Err(told(Error::config(format!("`sha256` is missing; that of {} is {found}", spec.file)))),
        Some(wanted) if *wanted != found => {
            return Err(told(Error::config(format!("{} has the SHA-256 {found}, not the one given here", spec.file))));
        }
        Some(_) => {}
    }
    let key = format!("{spec:?}");
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(functions) = loaded.get(&key) {
        return Ok(Some(functions.clone()));
    }
    let made = of_bytes(spec, &file)?;
    tracing::debug!(plugin = %spec.name, sha256 = found, functions = made.len(), "plug-in loaded");
    Ok(Some(loaded.entry(key).or_insert(made).clone()))
}

/// The functions of a plug-in whose file has these bytes, without a look at their hash.
///
/// # Errors
/// `Config` for what is no plug-in.
pub fn of_bytes(spec: &PluginSpec, file: &[u8]) -> Result<Vec<&'static Function>> {
    functions(Box::leak(Box::new(Plugin::compile(spec, file)?)))
}

fn local(path: &Path) -> Result<Bytes> {
    let unreadable = |e: std::io::Error| Error::config(format!("{} cannot be read: {e}", path.display()));
    bounded(&path.display().to_string(), std::fs::metadata(path).map_err(unreadable)?.len())?;
    Ok(std::fs::read(path).map_err(unreadable)?.into())
}

/// The object at `url`, by a thread and runtime of its own: configuration is read before there is a runtime, and by
/// pipeline tests inside one.
fn fetched(url: &str, s3: &S3Options) -> Result<Bytes> {
    let fetch = async {
        let (store, key) = Stores::new(s3.clone()).resolve(url).await?;
        let found = store.head(&key).await?.ok_or_else(|| Error::config(format!("there is no object {url}")))?;
        bounded(url, found.size)?;
        store.get(&key).await
    };
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| Error::unavailable("cannot start a runtime").with_source(e))?.block_on(fetch)
    };
    let fetched = std::thread::scope(|scope| scope.spawn(work).join());
    fetched.unwrap_or_else(|_| Err(Error::new(ErrorKind::Bug, format!("fetching {url} panicked"))))
}

fn bounded(what: &str, bytes: u64) -> Result<()> {
    if bytes <= FILE_BYTES_MAX {
        return Ok(());
    }
    let most = FILE_BYTES_MAX >> 20;
    Err(Error::config(format!("{what} has {bytes} bytes; a plug-in has {most} MiB at most")))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
