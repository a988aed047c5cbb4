//! Payloads before and after: what is protected is gone, and everything else is byte for byte as it was.

use std::path::Path;

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::config::domain::{ColumnPath, Mask, Protect};
use crate::config::protected::steps;
use crate::crypto::Landed;
use crate::crypto::keys::tests::{keys, write_ring};
use crate::ids::{ColumnName, KeyName};

fn protected(path: &str, how: Protect, change: impl FnOnce(&mut Protection)) -> Protected {
    let key = matches!(how, Protect::Encrypt | Protect::Token | Protect::Hash).then(|| KeyName::new("people").unwrap());
    let path: ColumnPath = path.parse().unwrap();
    let mut protection = Protection { path: path.clone(), how, token: false, key, subject: None, aad: None };
    change(&mut protection);
    let subject = protection.subject.as_ref().map(|s| vec![PathStep::Field(s.to_string())]);
    Protected { column: format!("d.t.{path}"), places: vec![(steps(&path), subject)], traced: true, protection }
}

fn ring(folder: &Path) -> Arc<Keys> {
    write_ring(&folder.join("keys.yaml"), &[(3, 1)]);
    keys(folder, &ManualClock::new(DateTime::UNIX_EPOCH))
}

fn string(payload: &[u8], pointer: &str) -> String {
    let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
    json.pointer(pointer).unwrap().as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_values_are_replaced_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ring(folder.path());
    let list = [
        protected("email", Protect::Encrypt, |p| p.token = true),
        protected("contacts[].phone", Protect::Mask(Mask::Last(2)), |_| ()),
        protected("ssn", Protect::Drop, |_| ()),
        protected("age", Protect::Encrypt, |_| ()),
        protected("gone", Protect::Encrypt, |_| ()),
        protected("ip", Protect::Keep, |_| ()),
    ];
    let guard = Guard::new(&list, &keys).await.unwrap().unwrap();
    let payload = br#"{ "id" : 7,"email":"al\u0069ce@x.org","contacts":[{"phone":"123456","n":1},{}],"ssn":[1],"age": 37.0 , "gone":null,"ip":"10.0.0.1"}"#;
    let out = tokio::task::block_in_place(|| guard.protect(payload, &mut Scratch::default()).unwrap().into_owned());

    let text = String::from_utf8(out.clone()).unwrap();
    assert!(text.starts_with(r#"{ "id" : 7,"email":"firn:1:e:people/3:"#), "{text}");
    assert!(text.contains(r#""contacts":[{"phone":"firn:1:v:::****56","n":1},{}],"ssn":null,"age": "firn:"#), "{text}");
    assert!(text.ends_with(r#"" , "gone":null,"ip":"10.0.0.1"}"#), "{text}");
    let key = keys.key(&KeyName::new("people").unwrap()).await.unwrap();
    for (pointer, expected) in [("/email", "alice@x.org"), ("/age", "37.0")] {
        let landed = string(&out, pointer);
        let landed = Landed::parse(&landed).unwrap();
        let opened = key.open(landed.key.unwrap()).await.unwrap().unwrap().open(landed.value.as_bytes(), b"").unwrap();
        assert_eq!(opened.expose(), expected.as_bytes());
    }
    let mut token = Vec::new();
    key.token_key().await.unwrap().token(b"alice@x.org", &mut token);
    assert_eq!(Landed::parse(&string(&out, "/email")).unwrap().token.unwrap().as_bytes(), token);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_sealed_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ring(folder.path());
    let guard = Guard::new(&[protected("email", Protect::Encrypt, |_| ())], &keys).await.unwrap().unwrap();
    for payload in [&b"{\"email\":\"alice@x.org\""[..], b"\xffalice@x.org", b"alice@x.org", b"{\"email\":\"\\ualic\"}"]
    {
        let out = tokio::task::block_in_place(|| {
            guard.protect_unknown(payload, &mut Scratch::default()).unwrap().into_owned()
        });
        let sealed = string(&out, "/_firn_sealed");
        let landed = Landed::parse(&sealed).unwrap();
        let key =
            keys.key(&KeyName::new("people").unwrap()).await.unwrap().open(landed.key.unwrap()).await.unwrap().unwrap();
        assert_eq!(key.open(landed.value.as_bytes(), b"").unwrap().expose(), payload);
    }
    let key = b"alice@x.org";
    let same = tokio::task::block_in_place(|| guard.protect_key(key, &mut Scratch::default()).unwrap().into_owned());
    assert_eq!(same, key, "a key that is no object has no places");
    let mut lost = protected("email", Protect::Encrypt, |_| ());
    lost.traced = false;
    let guard = Guard::new(&[lost], &keys).await.unwrap().unwrap();
    let out = tokio::task::block_in_place(|| guard.protect(b"{}", &mut Scratch::default()).unwrap().into_owned());
    assert!(out.starts_with(b"{\"_firn_sealed\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_subject_are_sealed_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ring(folder.path());
    let list = [protected("email", Protect::Encrypt, |p| p.subject = Some(ColumnName::new("user").unwrap()))];
    let guard = Guard::new(&list, &keys).await.unwrap().unwrap();
    let protect = |payload: &str| {
        let payload = payload.as_bytes();
        let out = tokio::task::block_in_place(|| {
            guard.warm([payload].into_iter()).unwrap();
            guard.protect(payload, &mut Scratch::default()).unwrap().into_owned()
        });
        Landed::parse(&string(&out, "/email")).unwrap().key.unwrap().to_owned()
    };
    let key = keys.key(&KeyName::new("people").unwrap()).await.unwrap();
    let subject = key.token_key().await.unwrap().subject(b"42");
    assert_eq!(protect(r#"{"user":42,"email":"a"}"#), format!("people/s/{subject}"));
    assert_eq!(protect(r#"{"email":"a","user":"42"}"#), format!("people/s/{subject}"), "wherever it stands");
    assert_eq!(protect(r#"{"email":"a","user":null}"#), "people/3", "data of nobody");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_payload_keeps_its_secret(
        secret in "[a-z]{12}",
        other in "[A-Z0-9 \\\\\"\n]{0,12}",
        duplicate: bool,
        cut in proptest::option::of(0usize..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let _inside = runtime.enter();
        let keys = ring(folder.path());
        let guard = runtime.block_on(Guard::new(&[protected("a[].s", Protect::Encrypt, |_| ())], &keys)).unwrap().unwrap();
        let other = serde_json::to_string(&other).unwrap();
        let twice = if duplicate { format!("\"s\":\"{secret}\",") } else { String::new() };
        let payload = format!("{{\"x\":{other},\"a\":[{{{twice}\"s\":\"{secret}\",\"y\":{other}}}]}}");
        let payload = &payload.as_bytes()[..cut.map_or(payload.len(), |cut| cut.min(payload.len()))];
        let out = guard.protect_unknown(payload, &mut Scratch::default()).unwrap();
        let out = String::from_utf8(out.into_owned()).unwrap();
        prop_assert!(!out.contains(&secret), "{}", out);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
    }
}
