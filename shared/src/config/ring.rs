//! The key ring file: versions of keys, the secrets of their tokens, and the key that signs certificates.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::check::File;
use super::env;
use super::load::read_file;
use super::problems::Problems;
use super::schema;
use super::shape::join;
use super::wire::{Material, RingYaml};
use crate::crypto::KeyBytes;
use crate::error::{Error, Result};
use crate::ids::KeyName;

/// A key ring.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// Its keys, by the names they have in `firn.yaml`.
    pub keys: BTreeMap<KeyName, RingKey>,
    /// Seed of the Ed25519 key that signs certificates of erasure.
    pub signing: Option<KeyBytes>,
}

/// One key of a ring.
#[derive(Debug, Clone)]
pub struct RingKey {
    /// Its versions; never empty. The largest number seals.
    pub versions: BTreeMap<u32, KeyBytes>,
    /// The secret behind its tokens.
    pub token: Option<KeyBytes>,
}

/// A state of a key ring's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingStamp {
    modified: SystemTime,
    bytes: u64,
}

/// Reads a key ring; `${ENV}` is expanded in it.
///
/// # Errors
/// `Config` when others may read the file, or with everything that is wrong in it. Key material is in no message.
pub fn read_ring(path: &Path) -> Result<Ring> {
    ring_stamp(path)?;
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|e| unreadable(path, e))?);
    let (file, yaml) = read_file::<RingYaml>(path, &text, &schema::ring(), &env::variable);
    let ring = yaml.map(|yaml| check(&file, &yaml));
    let mut problems = Problems::default();
    for problem in file.into_problems() {
        problems.push(problem);
    }
    match ring {
        Some(ring) if problems.is_empty() => Ok(ring),
        _ => Err(problems.finish().into()),
    }
}

/// When a key ring was changed last, and its size: while these are the same, so is what is in it.
///
/// # Errors
/// `Config` when it cannot be looked at, or others may read it.
pub fn ring_stamp(path: &Path) -> Result<RingStamp> {
    let metadata = std::fs::metadata(path).map_err(|e| unreadable(path, e))?;
    only_ours(path, &metadata)?;
    Ok(RingStamp { modified: metadata.modified().map_err(|e| unreadable(path, e))?, bytes: metadata.len() })
}

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    Error::config(format!("key ring {} cannot be read: {e}", path.display())).with_source(e)
}

#[cfg(unix)]
fn only_ours(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & (0o070 | 0o007) == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(Error::config(format!("key ring {path} may be read by others (mode {mode:03o}); chmod 600 {path}")))
}

#[cfg(not(unix))]
fn only_ours(_: &Path, _: &std::fs::Metadata) -> Result<()> {
    Ok(())
}

fn check(file: &File, yaml: &RingYaml) -> Ring {
    let material = |path: &str, text: &Material| {
        let key = KeyBytes::from_base64(text.expose());
        if key.is_none() {
            file.report(path, "is not base64 of 32 bytes; `openssl rand -base64 32` makes one");
        }
        key
    };
    let mut ring = Ring { keys: BTreeMap::new(), signing: yaml.signing.as_ref().and_then(|t| material("signing", t)) };
    for (name, yaml) in yaml.keys.iter().flatten() {
        let path = join("keys", name);
        let Some(name) = file.take(&path, KeyName::new(name.clone())) else { continue };
        let Some(yaml) = yaml else {
            file.report(&path, "expected a mapping with `versions`, found nothing");
            continue;
        };
        let mut versions = BTreeMap::new();
        for (number, text) in yaml.versions.iter().flatten() {
            let path = join(&join(&path, "versions"), number);
            match number.parse::<u32>() {
                Ok(number) if number > 0 => versions.extend(material(&path, text).map(|key| (number, key))),
                _ => file.report(&path, format!("version `{number}` is not a whole number above 0")),
            }
        }
        if versions.is_empty() && !file.is_cut(&join(&path, "versions")) {
            file.report(&path, "has no version that can be used");
        }
        let token = yaml.token.as_ref().and_then(|text| material(&join(&path, "token"), text));
        ring.keys.insert(name, RingKey { versions, token });
    }
    ring
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str, mode: u32) -> Result<Ring> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read_ring(&path)
    }

    const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    #[test]
    fn a_ring_has_versions_and_secrets() {
        let text =
            format!("keys:\n  people:\n    versions: {{1: {KEY}, 2: '{KEY}'}}\n    token: {KEY}\nsigning: {KEY}\n");
        let read = ring(&text, 0o600).unwrap();
        assert_eq!(read.keys[&KeyName::new("people").unwrap()].versions.len(), 2);
        assert!(read.signing.is_some());
        // JSON is YAML, too.
        let json = format!(r#"{{"keys": {{"people": {{"versions": {{"7": "{KEY}"}}}}}}}}"#);
        assert_eq!(ring(&json, 0o400).unwrap().keys.len(), 1);
    }

    #[test]
    fn a_ring_that_others_may_read_is_refused() {
        let error = ring("keys: {}", 0o640).unwrap_err().to_string();
        assert!(error.contains("may be read by others (mode 640); chmod 600 "), "{error}");
    }

    #[test]
    fn mistakes_are_named_and_material_is_not() {
        let text = "keys:\n  People: {versions: {1: hunter2}}\n  people: {versions: {0: hunter2, x: hunter2, 3: hunter2}}\n  none:\nsigning: hunter2\nother: hunter2\n";
        let error = ring(text, 0o600).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        for part in [
            "2:11: keys.People: key `People` may hold only",
            "keys.people.versions.0: version `0`",
            "versions.3: is not base64 of 32 bytes",
            "signing: is not base64",
            "other",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
