//! The quickstart's directory: `firn.yaml`, one pipeline, and what the two programs make of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The example pipeline, as it is in `deploy/examples`.
const PIPELINE: &str = include_str!("../../deploy/examples/github/pipelines/github-events.yaml");
/// Says that a directory is ours and may be emptied.
const MARKER: &str = ".firn-quickstart";

/// Empties what an earlier quickstart left in `dir` and writes the configuration anew.
///
/// The broker's records are gone with its process, so an earlier raw zone speaks of a topic that no longer exists.
///
/// # Errors
/// When `dir` holds anything that no quickstart put there, or cannot be written.
pub fn prepare(dir: &Path, brokers: &str) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let marker = dir.join(MARKER);
    if marker.exists() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path != marker {
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    } else if fs::read_dir(&dir)?.next().is_some() {
        bail!("{} is not empty and no quickstart made it; name another directory with --dir", dir.display());
    }
    fs::write(&marker, "made by ./quickstart, which empties this directory when it runs again\n")?;
    let yaml = format!(
        "# Written by ./quickstart. The broker lives inside it; everything else here stays.\n\
         clusters: {{events: {{brokers: '{brokers}'}}}}\n\
         raw: ./raw\n\
         catalog: {{sqlite: {{path: ./catalog.db}}}}\n\
         warehouse: ./warehouse\n"
    );
    fs::write(dir.join("firn.yaml"), yaml)?;
    fs::create_dir_all(dir.join("pipelines"))?;
    fs::write(dir.join("pipelines/github-events.yaml"), PIPELINE)?;
    Ok(dir)
}
