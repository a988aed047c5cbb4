//! Payloads before and after: what is protected is gone, and everything else is byte for byte as it was.

use std::path::Path;

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::config::domain::{ColumnPath, Encoding, Mask, Protect};
use crate::config::protected::steps;
use crate::crypto::Landed;
use crate::crypto::keys::tests::{keys, write_ring};
use crate::ids::{ColumnName, KeyName};

fn protected(path: &str, how: Protect, change: impl FnOnce(&mut Protection)) -> Protected {
    let key = matches!(how, Protect::Encrypt | Protect::Token | Protect::Hash).then(|| KeyName::new("people").unwrap());
    let path: ColumnPath = path.parse().unwrap();
    let mut protection =
        Protection { path: path.clone(), how, token: false, key, subject: None, aad: None, encoding: Encoding::Base64 };
    change(&mut protection);
    let subject = protection.subject.as_ref().map(|s| vec![PathStep::Field(s.to_string())]);
    Protected {
        column: format!("d.t.{path}"),
        places: vec![(steps(&path), subject)],
        many: Vec::new(),
        naming: Naming::Number,
        value: Naming::Text,
        traced: true,
        protection,
    }
}

fn unsealed(keys: &Keys, id: &str, value: &str) -> Vec<u8> {
    let open = async {
        let key = keys.key(&KeyName::new("people").unwrap()).await.unwrap().open(id).await.unwrap().unwrap();
        key.open(value.as_bytes(), b"").unwrap().expose().to_vec()
    };
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(open))
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
    assert_eq!(protect(r#"{"email":"a","user":4.2e1}"#), format!("people/s/{subject}"), "however it is written");
    assert_eq!(protect(r#"{"email":"a","user":null}"#), "people/3", "data of nobody");
    assert_eq!(protect(r#"{"email":"a","user":{"id":42}}"#), "people/3", "nobody can say whose");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_another_shape_are_sealed_as_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ring(folder.path());
    let list = [
        protected("user.email", Protect::Encrypt, |p| p.subject = Some(ColumnName::new("who").unwrap())),
        protected("contacts[].phone", Protect::Mask(Mask::Last(2)), |_| ()),
        protected("user.ssn", Protect::Drop, |_| ()),
    ];
    let guard = Guard::new(&list, &keys).await.unwrap().unwrap();
    let key = keys.key(&KeyName::new("people").unwrap()).await.unwrap();
    let hers = format!("people/s/{}", key.token_key().await.unwrap().subject(b"42"));
    for (payload, pointer, odd, sealed_by) in [
        (r#"[{"email":"alice@x"}]"#, "", r#"[{"email":"alice@x"}]"#, "people/3"),
        (r#""alice@x""#, "", r#""alice@x""#, "people/3"),
        (r#"{"user":[{"email":"alice@x"}],"n":1}"#, "/user", r#"[{"email":"alice@x"}]"#, "people/3"),
        (r#"{"user":"alice@x","n":1}"#, "/user", r#""alice@x""#, "people/3"),
        (r#"{"user":"alice@x","who":42}"#, "/user", r#""alice@x""#, hers.as_str()),
        (r#"{"contacts":{"phone":"alice@x"}}"#, "/contacts/phone", r#""alice@x""#, "people/3"),
        (r#"{"contacts":["alice@x",{"n":1}]}"#, "/contacts/0", r#""alice@x""#, "people/3"),
    ] {
        let out = tokio::task::block_in_place(|| {
            guard.warm([payload.as_bytes()].into_iter()).unwrap();
            guard.protect(payload.as_bytes(), &mut Scratch::default()).unwrap().into_owned()
        });
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(!text.contains("alice"), "{text}");
        let told = string(&out, pointer);
        let (id, value) = landed::shapeless(&told).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((id, unsealed(&keys, id, value)), (sealed_by, odd.as_bytes().to_vec()), "{payload}");
    }
    for payload in [r#"{"user":null,"contacts":null}"#, r#"{"contacts":[null,{}],"user":{}}"#, "null", "{}"] {
        let same = guard.protect(payload.as_bytes(), &mut Scratch::default()).unwrap().into_owned();
        assert_eq!(String::from_utf8(same).unwrap(), payload);
    }
    // A list that should be a map, and the reverse: names of fields are values then.
    let mut phones = protected("phones[]", Protect::Token, |_| ());
    phones.many = vec![Many::Elements];
    let guard = Guard::new(&[phones], &keys).await.unwrap().unwrap();
    let out = guard.protect(br#"{"phones":{"555-1":true}}"#, &mut Scratch::default()).unwrap().into_owned();
    assert!(!String::from_utf8(out).unwrap().contains("555-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_landing_protected_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ring(folder.path());
    let list = [
        protected("user.email", Protect::Encrypt, |p| p.subject = Some(ColumnName::new("who").unwrap())),
        protected("who", Protect::Token, |_| ()),
        protected("note", Protect::Encrypt, |p| p.subject = Some(ColumnName::new("who").unwrap())),
    ];
    let guard = async || Guard::new(&list, &keys).await.unwrap().unwrap();
    let (landing, again) = (guard().await, guard().await.of_landed(true));
    let protect = |guard: &Guard, payload: &[u8]| {
        tokio::task::block_in_place(|| guard.protect(payload, &mut Scratch::default()).unwrap().into_owned())
    };
    let subjects = || std::fs::read_dir(folder.path().join("store/people/subjects")).map_or(0, Iterator::count);
    for payload in [r#"{"who":42,"user":{"email":"a@x"},"n":1}"#, r#"{"who":42,"user":"a@x"}"#, r#"["a@x"]"#] {
        let landed = protect(&landing, payload.as_bytes());
        assert_eq!(protect(&again, &landed), landed, "{payload}");
    }
    // Landed before the note was protected: whose it is says only a token, which makes no key.
    let before = subjects();
    let landed = protect(&landing, br#"{"who":42}"#);
    let landed = String::from_utf8(landed).unwrap().replace('}', r#","note":"call"}"#);
    let out = protect(&again, landed.as_bytes());
    assert_eq!(Landed::parse(&string(&out, "/note")).unwrap().key, Some("people/3"));
    assert_eq!(subjects(), before, "nobody gets a key by the name of a token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_another_table_hides_leaves_the_record_sealed_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ring(folder.path());
    let whole = async |how: Protect, hides: Protect, token: bool| {
        let list = [
            protected("email", how, |p| p.subject = Some(ColumnName::new("who").unwrap())),
            protected("who", hides, |p| {
                p.token = token;
                p.key = Some(KeyName::new("people").unwrap());
            }),
        ];
        let guard = Guard::new(&list, &keys).await.unwrap().unwrap();
        let payload = br#"{"who":42,"email":"a@x"}"#;
        let out = tokio::task::block_in_place(|| guard.protect(payload, &mut Scratch::default()).unwrap().into_owned());
        out.starts_with(b"{\"_firn_sealed\"")
    };
    assert!(whole(Protect::Token, Protect::Mask(Mask::All), false).await);
    assert!(whole(Protect::Mask(Mask::All), Protect::Drop, false).await);
    assert!(!whole(Protect::Encrypt, Protect::Drop, false).await, "its key says whose it is");
    assert!(!whole(Protect::Token, Protect::Hash, false).await && !whole(Protect::Token, Protect::Encrypt, true).await);
}

/// Payloads, and by turns what stands at `a` in one, in the shape that `a[].s` expects and in others.
const SHAPES: [&str; 14] = [
    r#"{"a":[{TWICE"s":"SECRET","y":OTHER}]}"#,
    r#"[{TWICE"s":"SECRET","y":OTHER}]"#,
    r#"[{"a":[{"s":"SECRET"}]}]"#,
    r#"{"s":"SECRET"}"#,
    r#""SECRET""#,
    r#"{"k":{"s":"SECRET"}}"#,
    r#"{"y":OTHER,"a":[["SECRET"],OTHER]}"#,
    r#""SECRET""#,
    r#"["SECRET",OTHER,null]"#,
    r#"{"k":"SECRET","y":[OTHER]}"#,
    r#"{"a":{"s":["SECRET"]}}"#,
    r#"[[{"s":"SECRET"}]]"#,
    r#"{"a":[{"s":{"t":["SECRET"]}}],"a":"SECRET"}"#,
    r#"[{"s":"x"},{"s":[1,"SECRET"]},"SECRET"]"#,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_payload_keeps_its_secret(
        secret in "[a-z]{12}",
        other in "[A-Z0-9 \\\\\"\n]{0,12}",
        duplicate: bool,
        shape in 0..SHAPES.len(),
        cut in proptest::option::of(0usize..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let _inside = runtime.enter();
        let keys = ring(folder.path());
        let guard = runtime.block_on(Guard::new(&[protected("a[].s", Protect::Encrypt, |_| ())], &keys)).unwrap().unwrap();
        let other = serde_json::to_string(&other).unwrap();
        let twice = if duplicate { format!("\"s\":\"{secret}\",") } else { String::new() };
        let value = SHAPES[shape].replace("SECRET", &secret).replace("TWICE", &twice).replace("OTHER", &other);
        let payload = if shape % 2 == 0 { value } else { format!("{{\"x\":{other},\"a\":{value}}}") };
        let payload = &payload.as_bytes()[..cut.map_or(payload.len(), |cut| cut.min(payload.len()))];
        let out = guard.protect_unknown(payload, &mut Scratch::default()).unwrap();
        let out = String::from_utf8(out.into_owned()).unwrap();
        prop_assert!(!out.contains(&secret), "{}", out);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
    }
}
