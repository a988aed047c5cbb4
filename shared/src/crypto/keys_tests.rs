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
    let first = key.current(1).await.unwrap();
    assert_eq!(first.id(), "people/1");
    let old = seal(&first, "alice");

    write_ring(&folder.path().join("keys.yaml"), &[(1, 1), (2, 2)]);
    assert_eq!(key.current(1).await.unwrap().id(), "people/1", "asked a moment ago");
    clock.set(DateTime::UNIX_EPOCH + TimeDelta::minutes(1));
    assert_eq!(key.current(1).await.unwrap().id(), "people/2");
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
    assert!(key.current(1).await.unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&path, format!("keys: {{other: {{versions: {{1: '{}'}}}}}}", STANDARD.encode([1; 32]))).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(key.current(1).await.unwrap_err().to_string().contains("has no key `people`"));
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

/// Blocks that were taken of version 1, from their objects.
fn blocks(folder: &Path) -> Vec<(u64, u64)> {
    let Ok(found) = std::fs::read_dir(folder.join("store/people/used/0000000001")) else { return Vec::new() };
    let mut blocks: Vec<(u64, u64)> = found
        .map(|entry| {
            let block: serde_json::Value =
                serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
            (block["from"].as_u64().unwrap(), block["values"].as_u64().unwrap())
        })
        .collect();
    blocks.sort_unstable();
    blocks
}

/// Everything but `left` values of version 1 was taken by others.
fn wear(folder: &Path, left: u64) {
    let used = folder.join("store/people/used/0000000001");
    std::fs::create_dir_all(&used).unwrap();
    let values = VALUES_MAX - left;
    let block =
        format!(r#"{{"format":1,"key":"people","version":1,"from":0,"values":{values},"at":"2026-01-01T00:00:00Z"}}"#);
    std::fs::write(used.join("0000000000.json"), block).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_count_what_a_version_seals_together_and_never_too_little() {
    let folder = tempfile::tempdir().unwrap();
    write_ring(&folder.path().join("keys.yaml"), &[(1, 1)]);
    let clock = ManualClock::new(DateTime::UNIX_EPOCH);
    let open = async || {
        let keys = keys(folder.path(), &clock);
        (keys.key(&name()).await.unwrap(), keys)
    };
    let ((one, _), (other, others)) = (open().await, open().await);
    one.current(0).await.unwrap();
    assert!(blocks(folder.path()).is_empty(), "whoever seals nothing takes nothing");
    let block = 1 << 16;
    let (mine, theirs) = tokio::join!(one.current(1), other.current(1));
    assert_eq!((mine.unwrap().id(), theirs.unwrap().id()), ("people/1", "people/1"));
    assert_eq!(blocks(folder.path()), [(0, block), (block, block)]);
    for _ in 1..block / 256 {
        one.current(256).await.unwrap();
    }
    assert_eq!(blocks(folder.path()).len(), 2, "values are taken out of the block without asking anybody");
    one.current(256).await.unwrap();
    assert_eq!(blocks(folder.path())[2], (2 * block, block), "and then the next block");

    // The other dies. What it took and did not seal is not given to anybody else.
    drop((other, others));
    let (third, keys) = open().await;
    third.current(1).await.unwrap();
    assert_eq!(blocks(folder.path())[3], (3 * block, block));
    let used = Used { key: name(), version: 1, values: 4 * block, by_hand: true };
    assert_eq!(keys.used(), std::slice::from_ref(&used));
    assert_eq!(used.warning(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_full_is_refused_until_the_ring_has_another() {
    let folder = tempfile::tempdir().unwrap();
    let ring = folder.path().join("keys.yaml");
    write_ring(&ring, &[(1, 1)]);
    let clock = ManualClock::new(DateTime::UNIX_EPOCH);
    wear(folder.path(), 10);
    let all = keys(folder.path(), &clock);
    let key = all.key(&name()).await.unwrap();
    assert_eq!(key.current(7).await.unwrap().id(), "people/1");
    let warning = all.used()[0].warning().unwrap();
    assert_eq!(
        warning,
        "version 1 of key people has used 100 % of the 2^32 values that it may seal; add a version to its ring"
    );
    let refused = key.current(4).await.unwrap_err();
    assert_eq!(refused.kind(), crate::error::ErrorKind::Config);
    assert_eq!(refused.to_string(), "version 1 of key people has sealed its 2^32 values; add a version to its ring");
    // A later process is told before it has anything to seal, and still opens.
    let later = keys(folder.path(), &clock).key(&name()).await.unwrap();
    assert!(later.current(0).await.is_err() && later.open("people/1").await.is_ok());
    assert!(later.seal_on("people/1", 1).await.unwrap_err().to_string().contains("people/1 has sealed its 2^32"));

    write_ring(&ring, &[(1, 1), (2, 2)]);
    for key in [&key, &later] {
        assert_eq!(key.current(4).await.unwrap().id(), "people/2");
    }
    assert_eq!(blocks(folder.path()).len(), 2, "the old version has given out no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_counted_is_not_sealed() {
    let folder = tempfile::tempdir().unwrap();
    write_ring(&folder.path().join("keys.yaml"), &[(1, 1)]);
    std::fs::create_dir_all(folder.path().join("store/people")).unwrap();
    std::fs::write(folder.path().join("store/people/used"), "in the way").unwrap();
    let key = keys(folder.path(), &ManualClock::new(DateTime::UNIX_EPOCH)).key(&name()).await.unwrap();
    let error = key.current(1).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot count what version 1 of key people seals, so it seals nothing: "), "{error}");
    assert!(key.open("people/1").await.is_ok(), "readers count nothing");
}
