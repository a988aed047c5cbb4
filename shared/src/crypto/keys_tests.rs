//! Keys out of a ring, and keys of subjects in a local store.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;

use super::*;
use crate::clock::ManualClock;
use crate::config::domain::{S3Options, StoreUrl};
use crate::crypto::seal::Sealer;

pub(in crate::crypto) fn write_ring(path: &Path, versions: &[(u32, u8)]) {
    let of = |byte: u8| STANDARD.encode([byte; 32]);
    let versions: Vec<String> = versions.iter().map(|(number, byte)| format!("{number}: '{}'", of(*byte))).collect();
    let text = format!("keys:\n  people:\n    versions: {{{}}}\n    token: '{}'\n", versions.join(", "), of(7));
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn name() -> KeyName {
    KeyName::new("people").unwrap()
}

/// Keys of a ring file `keys.yaml` in `folder`.
pub(in crate::crypto) fn keys(folder: &Path, clock: &ManualClock) -> Arc<Keys> {
    let spec = KeySpec {
        source: KeySource::File(folder.join("keys.yaml")),
        store: StoreUrl::File(folder.join("store")),
        reuse: Reuse::default(),
    };
    let specs = [(name(), spec)].into();
    Keys::of(specs, KmsOptions::default(), Stores::new(S3Options::default()), Arc::new(clock.clone()))
}

fn seal(key: &DataKey, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Sealer::default().seal(key, b"", text.as_bytes(), &mut out).unwrap();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_touches_new_values_only_and_needs_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    write_ring(&folder.path().join("keys.yaml"), &[(1, 1)]);
    let clock = ManualClock::new(DateTime::UNIX_EPOCH);
    let key = keys(folder.path(), &clock).key(&name()).await.unwrap();
    let first = key.current().await.unwrap();
    assert_eq!(first.id(), "people/1");
    let old = seal(&first, "alice");

    write_ring(&folder.path().join("keys.yaml"), &[(1, 1), (2, 2)]);
    assert_eq!(key.current().await.unwrap().id(), "people/1", "asked a moment ago");
    clock.set(DateTime::UNIX_EPOCH + TimeDelta::minutes(1));
    assert_eq!(key.current().await.unwrap().id(), "people/2");
    let opened = key.open("people/1").await.unwrap().unwrap().open(&old, b"").unwrap();
    assert_eq!(opened.expose(), b"alice");
    assert!(key.open("people/3").await.unwrap_err().to_string().contains("no version 3 of `people`"));
    assert!(key.open("others/1").await.is_err() && key.open("people/x").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_has_one_key_until_it_is_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    write_ring(&folder.path().join("keys.yaml"), &[(1, 1)]);
    let clock = ManualClock::new(DateTime::UNIX_EPOCH);
    let (one, other) = (keys(folder.path(), &clock), keys(folder.path(), &clock));
    let (one, other) = (one.key(&name()).await.unwrap(), other.key(&name()).await.unwrap());
    let subjects: Vec<String> =
        ["42", "43"].iter().map(|s| TokenKey::new(&KeyBytes::new([7; 32])).subject(s.as_bytes())).collect();
    // Two processes meet the same subjects at once.
    let (mine, theirs) = tokio::join!(one.subjects(&subjects), other.subjects(&subjects));
    let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
    let sealed = seal(&mine[&subjects[0]], "alice");
    assert_eq!(theirs[&subjects[0]].open(&sealed, b"").unwrap().expose(), b"alice");
    assert!(theirs[&subjects[1]].open(&sealed, b"").is_err(), "each subject has a key of its own");
    let id = mine[&subjects[0]].id().to_owned();
    assert_eq!(id, format!("people/s/{}", subjects[0]));

    // The store says neither who it is nor what the key is.
    let object = folder.path().join(format!("store/people/subjects/{}/{}.json", &subjects[0][..2], subjects[0]));
    assert!(object.exists());
    assert!(one.has_subject(&subjects[0]).await.unwrap());
    one.destroy_subject(&subjects[0]).await.unwrap();
    assert!(!object.exists() && one.open(&id).await.unwrap().is_none());
    // A new key for new data of the same subject opens nothing old.
    clock.set(DateTime::UNIX_EPOCH + TimeDelta::minutes(2));
    let again = other.subjects(&subjects).await.unwrap();
    assert!(again[&subjects[0]].open(&sealed, b"").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_without_the_key_or_its_token_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.yaml");
    let clock = ManualClock::new(DateTime::UNIX_EPOCH);
    let key = keys(folder.path(), &clock).key(&name()).await.unwrap();
    assert!(key.current().await.unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&path, format!("keys: {{other: {{versions: {{1: '{}'}}}}}}", STANDARD.encode([1; 32]))).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(key.current().await.unwrap_err().to_string().contains("has no key `people`"));
    std::fs::write(&path, format!("keys: {{people: {{versions: {{1: '{}'}}}}}}", STANDARD.encode([1; 32]))).unwrap();
    assert!(key.token_key().await.unwrap_err().to_string().contains("no `token` under `people`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn opened_keys_are_asked_for_again_after_a_quarter_of_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let ring = folder.path().join("keys.yaml");
    write_ring(&ring, &[(1, 1), (2, 2)]);
    let clock = ManualClock::new(DateTime::UNIX_EPOCH);
    let key = keys(folder.path(), &clock).key(&name()).await.unwrap();
    assert!(key.open("people/1").await.unwrap().is_some());
    let token = key.token_key().await.unwrap();
    std::fs::remove_file(&ring).unwrap();
    clock.set(DateTime::UNIX_EPOCH + KEPT - TimeDelta::seconds(1));
    assert!(key.open("people/1").await.unwrap().is_some());
    assert!(Arc::ptr_eq(&token, &key.token_key().await.unwrap()));
    clock.set(DateTime::UNIX_EPOCH + KEPT);
    assert!(key.token_key().await.is_err());
    clock.set(DateTime::UNIX_EPOCH + KEPT + TimeDelta::seconds(1));
    assert!(key.open("people/1").await.is_err());
}

#[test]
fn only_ids_of_data_keys_name_a_key() {
    let subject = format!("people/s/{}", "0f".repeat(16));
    for id in ["people/1", subject.as_str()] {
        assert_eq!(key_of(id).unwrap().as_str(), "people", "{id}");
    }
    let long = format!("{subject}0");
    for text in
        ["", "people", "people/", "people/x", "people/-1", "people/s/", "people/s/../../a", "a@b/1", "/1", &long]
    {
        assert!(key_of(text).is_none(), "{text}");
    }
    assert!(key_of(&subject.to_uppercase()).is_none());
}
