//! Keys that are no secret, for pipeline tests and the bench: everybody may know what they protect.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_shared::config::domain::{KeySource, KeySpec, Reuse, StoreUrl};
use firn_shared::error::{Error, Result};
use firn_shared::ids::KeyName;

/// Makes a key ring in `folder` with version 1 (32 times the byte 1) and the secret of tokens (32 times 7) for each name;
/// without a name there is none.
///
/// # Errors
/// `Unavailable` when it cannot be written.
pub fn keys(folder: &Path, names: impl IntoIterator<Item = KeyName>) -> Result<BTreeMap<KeyName, KeySpec>> {
    let ring = folder.join("keys.yaml");
    let of = |byte: u8| STANDARD.encode([byte; 32]);
    let (mut text, mut specs) = ("keys:\n".to_owned(), BTreeMap::new());
    for name in names {
        let spec = KeySpec {
            source: KeySource::File(ring.clone()),
            store: StoreUrl::File(folder.join("_keys")),
            reuse: Reuse::default(),
        };
        if specs.insert(name.clone(), spec).is_none() {
            text.extend(["  ", name.as_str(), ": {versions: {1: '", &of(1), "'}, token: '", &of(7), "'}\n"]);
        }
    }
    if specs.is_empty() {
        return Ok(specs);
    }
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&ring))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| Error::unavailable(format!("cannot write {}", ring.display())).with_source(e))?;
    Ok(specs)
}
