//! Personal data: what tables hold of it, and that plaintext is nowhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use firn_compactor::run::Outcome;
use firn_compactor::table::read::{self, Rows};
use firn_shared::config::columns_after;
use firn_shared::crypto::{DataKey, KeyBytes, Landed, TokenKey};
use firn_shared::store::Faults;
use futures::TryStreamExt;
use iceberg::spec::Manifest;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;

use crate::bed::{Bed, write_ring};

pub const PROTECTED: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData:
    format: json
    eventTime: {path: $.at, format: rfc3339}
outsourcingUnit:
  - table:
      database: d
      tableName: t
      piiColumns:
        - {name: email, protect: encrypt, token: true}
        - {name: age, protect: encrypt, aad: d.t.age, encoding: binary}
        - {name: person.email, protect: encrypt, token: true}
        - {name: 'contacts[].phone', protect: token}
        - {name: 'labels[]', protect: encrypt, encoding: binary}
        - {name: note, protect: redact, patterns: [email, card]}
        - {name: card, protect: mask, mask: last(4)}
        - {name: ssn, protect: drop}
        - {name: ip, protect: hash}
      columns:
        - {name: id, type: long, required: true}
        - {name: at, type: timestamptz, required: true}
        - {name: email, type: string}
        - {name: age, type: int}
        - {name: person, type: 'struct<name: string, email: string>'}
        - {name: contacts, type: 'list<struct<phone: string, kind: string>>'}
        - {name: labels, type: 'map<string, string>'}
        - {name: note, type: string}
        - {name: card, type: string}
        - {name: ssn, type: string}
        - {name: ip, type: string}
        - {name: n, type: int}
";

/// Everything in an event that must not be found anywhere.
const SECRETS: [&str; 8] = [
    "alice-0@secret.example",
    "alice-1@secret.example",
    "inner@secret.example",
    "555-0001",
    "hush-label",
    "4111 1111 1111 1234",
    "999-12-3456",
    "203.0.113.77",
];

/// A person's name as the key of a map.
const KEY: &str = "key-of-a-map@secret.example";

fn event(id: u64, n: &str) -> (u32, Option<String>) {
    let hour = 6 + (id % 3) as u32;
    let payload = format!(
        r#"{{"id":{id},"at":"2021-07-21T{hour:02}:00:00Z","email":"alice-{}@secret.example","age":4{},
        "person":{{"name":"x","email":"inner@secret.example"}},"contacts":[{{"phone":"555-0001","kind":"home"}},{{"phone":null}}],
        "labels":{{"a":"hush-label","b":null}},"note":"ask alice-1@secret.example about 4111 1111 1111 1234 today",
        "card":"4111 1111 1111 1234","ssn":"999-12-3456","ip":"203.0.113.77","n":{n}}}"#,
        id % 2,
        id % 10
    );
    (hour, Some(payload))
}

pub async fn batches(bed: &Bed, columns: &[&str]) -> Vec<RecordBatch> {
    let table = bed.table().await.unwrap();
    read::rows(&table, columns, &Rows::All).await.unwrap().try_collect().await.unwrap()
}

pub fn text<'a>(batch: &'a RecordBatch, column: &str) -> &'a StringArray {
    batch.column_by_name(column).unwrap_or_else(|| panic!("{column}")).as_string::<i32>()
}

fn people(version: u8) -> DataKey {
    DataKey::new(format!("people/{version}"), &KeyBytes::new([version; 32])).unwrap()
}

pub fn token(value: &str) -> String {
    let mut out = Vec::new();
    TokenKey::new(&KeyBytes::new([7; 32])).token(value.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

fn opened(key: &DataKey, text: &str, aad: &str) -> String {
    String::from_utf8(key.open(text.as_bytes(), aad.as_bytes()).unwrap().expose().to_vec()).unwrap()
}

/// The same for a row of a column of bytes.
fn opened_bytes(key: &DataKey, column: &dyn Array, row: usize, aad: &str) -> String {
    let sealed = column.as_binary::<i64>().value(row).to_vec();
    String::from_utf8(key.open_bytes(sealed, aad.as_bytes()).unwrap().expose().to_vec()).unwrap()
}

/// All files below `dir`.
pub fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Every text and every byte string in an array.
fn texts(array: &ArrayRef, out: &mut Vec<u8>) {
    use arrow_schema::DataType as D;
    match array.data_type() {
        D::Utf8 => array.as_string::<i32>().iter().flatten().for_each(|v| out.extend(v.bytes().chain([0]))),
        D::Binary => array.as_binary::<i32>().iter().flatten().for_each(|v| out.extend(v.iter().chain(&[0]))),
        D::LargeBinary => array.as_binary::<i64>().iter().flatten().for_each(|v| out.extend(v.iter().chain(&[0]))),
        D::Struct(_) => array.as_struct().columns().iter().for_each(|a| texts(a, out)),
        D::List(_) => texts(array.as_list::<i32>().values(), out),
        D::Map(..) => array.as_map().entries().columns().iter().for_each(|a| texts(a, out)),
        _ => {}
    }
}

/// What a file says, unpacked as far as anybody would.
fn contents(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    if bytes.starts_with(b"PAR1") {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes.clone())).unwrap().build().unwrap();
        for batch in reader {
            batch.unwrap().columns().iter().for_each(|array| texts(array, &mut bytes));
        }
    } else if bytes.starts_with(b"Obj\x01")
        && let Ok(manifest) = Manifest::parse_avro(&bytes)
    {
        // Bounds and partitions; a manifest list has none of texts.
        bytes.extend(format!("{manifest:?}").into_bytes());
    } else {
        bytes.extend(unpacked(&bytes));
    }
    bytes
}

/// What zstd frames hold, wherever one begins: spilled rows are frames with lengths between them, and a copy may end in one.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut out = Vec::new();
    for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&MAGIC)) {
        if let Ok(decoder) = zstd::stream::read::Decoder::new(&bytes[at..]) {
            let _ = std::io::Read::read_to_end(&mut decoder.single_frame(), &mut out);
        }
    }
    out
}

/// No file below `dir` holds a secret.
pub fn sweep(dir: &Path, secrets: &[&str]) -> usize {
    let mut found = Vec::new();
    files(dir, &mut found);
    for path in &found {
        let bytes = contents(path);
        for secret in secrets {
            let at = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
            assert_eq!(at, None, "{secret} in {}", path.display());
        }
    }
    found.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protection_does_what_it_says_at_any_depth() {
    let bed = Bed::protected(PROTECTED);
    let events: Vec<_> = (0..30).map(|id| event(id, "1")).collect();
    bed.land(0, &events).await;
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.outcome, report.fate.rows), (Outcome::Committed, 30));
    let names: Vec<String> = columns_after(bed.target().output).into_iter().map(|c| c.name).collect();
    let expected = [
        "id",
        "at",
        "email",
        "email_token",
        "age",
        "person",
        "contacts",
        "labels",
        "note",
        "card",
        "ip",
        "n",
        "_key_people",
    ];
    assert_eq!(names, expected);

    let columns =
        ["id", "email", "email_token", "age", "person", "contacts", "labels", "note", "card", "ip", "_key_people"];
    let mut rows = 0;
    for batch in batches(&bed, &columns).await {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<arrow_array::types::Int64Type>();
        for row in 0..batch.num_rows() {
            let id = ids.value(row);
            let email = format!("alice-{}@secret.example", id % 2);
            assert_eq!(text(&batch, "_key_people").value(row), "people/1");
            assert_eq!(opened(&people(1), text(&batch, "email").value(row), ""), email);
            assert_eq!(text(&batch, "email_token").value(row), token(&email));
            let age = batch.column_by_name("age").unwrap();
            assert_eq!(opened_bytes(&people(1), age, row, "d.t.age"), format!("4{}", id % 10));
            let person = batch.column_by_name("person").unwrap().as_struct();
            assert_eq!(person.column_names(), ["name", "email", "email_token"]);
            assert_eq!(opened(&people(1), person.column(1).as_string::<i32>().value(row), ""), "inner@secret.example");
            assert_eq!(person.column(2).as_string::<i32>().value(row), token("inner@secret.example"));
            let contacts = batch.column_by_name("contacts").unwrap().as_list::<i32>().value(row);
            let phones = contacts.as_struct().column_by_name("phone").unwrap().as_string::<i32>();
            assert_eq!((phones.value(0), phones.is_null(1)), (token("555-0001").as_str(), true), "null stays null");
            let labels = batch.column_by_name("labels").unwrap().as_map().value(row);
            assert_eq!(opened_bytes(&people(1), labels.column(1), 0, ""), "hush-label");
            assert!(labels.column(1).is_null(1));
            assert_eq!(text(&batch, "note").value(row), "ask [redacted] about [redacted] today");
            assert_eq!(text(&batch, "card").value(row), "**** **** **** 1234");
            let hash = text(&batch, "ip").value(row);
            assert!(hash.len() == 64 && hash != token("203.0.113.77"), "a hash meets no other column");
            rows += 1;
        }
    }
    assert_eq!(rows, 30);
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_and_reprocessing_leave_rows_that_can_be_opened() {
    let bed = Bed::protected(PROTECTED);
    bed.land(0, &[event(0, "1"), event(3, "1")]).await;
    bed.run(&Faults::none()).await.unwrap();
    write_ring(bed.dir.path(), &[1, 2]);
    bed.land(0, &[event(1, "1")]).await;
    bed.run(&Faults::none()).await.unwrap();
    let keys = async || {
        let mut found = Vec::new();
        for batch in batches(&bed, &["id", "email", "_key_people"]).await {
            for row in 0..batch.num_rows() {
                let key = text(&batch, "_key_people").value(row).to_owned();
                let version = key.strip_prefix("people/").unwrap().parse().unwrap();
                assert!(opened(&people(version), text(&batch, "email").value(row), "").starts_with("alice-"));
                found.push(version);
            }
        }
        found.sort_unstable();
        found
    };
    assert_eq!(keys().await, [1, 1, 2], "old rows stay as they are");
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    assert_eq!(keys().await, [2, 2, 2], "rows that are made again are made with the new version");
}

/// A thread that copies files as they come, until it is dropped or has enough.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Watch {
    const ENOUGH: usize = 50;

    fn over(dir: PathBuf, copies: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let watch = move || {
            let mut seen = BTreeSet::new();
            while seen.len() < Self::ENOUGH && !until.load(Ordering::Acquire) {
                let mut found = Vec::new();
                files(&dir, &mut found);
                for path in found {
                    let to = copies.join(seen.len().to_string());
                    let bytes = std::fs::metadata(&path).map_or(0, |of| of.len());
                    if bytes > 0 && !seen.contains(&(path.clone(), bytes)) && std::fs::copy(&path, to).is_ok() {
                        seen.insert((path, bytes));
                    }
                }
            }
            seen.len()
        };
        Self { over, thread: Some(std::thread::spawn(watch)) }
    }

    fn copied(mut self) -> usize {
        self.over.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_plaintext_is_left_in_tables_quarantine_statistics_or_spilled_rows() {
    let upsert = PROTECTED
        .replace(
            "tableName: t",
            "tableName: t\n      mode: upsert\n      idColumns: [email_token]\n      timestampColumns: [at]",
        )
        .replace("piiColumns:", "piiColumns:\n        - {name: ages, protect: encrypt}")
        .replace(
            "- {name: n, type: int}",
            "- {name: n, type: int}\n        - {name: extra, type: json}\n        - {name: ages, type: 'map<string, int>'}",
        );
    let upsert =
        format!("{upsert}    transformations:\n      - extract: {{from: extra, path: $.k, as: k, type: int}}\n");
    let bed = Bed::protected(&upsert);
    let mut events: Vec<_> = (0..200).map(|id| event(id, "1")).collect();
    // Rejected by the decoder, and by a step.
    events.push(event(200, "\"many\""));
    let (hour, payload) = event(201, "1");
    events.push((hour, payload.map(|p| p.replace("\"n\":1", "\"n\":1,\"extra\":{\"k\":\"x\"}"))));
    // And for a value whose key says whose it is.
    let (hour, payload) = event(202, "1");
    events.push((hour, payload.map(|p| p.replace("\"n\":1", &format!("\"n\":1,\"ages\":{{\"{KEY}\":\"x\"}}")))));
    bed.land(0, &events).await;

    // Spilled rows are gone after the run: somebody copies some of them while it lasts.
    let (temp, copies) = (bed.dir.path().join("tmp"), bed.dir.path().join("copies"));
    std::fs::create_dir_all(&temp).unwrap();
    std::fs::create_dir_all(&copies).unwrap();
    let watch = Watch::over(temp, copies.clone());
    let report = bed.run(&Faults::none()).await.unwrap();
    let copied = watch.copied();
    assert!(copied > 0, "rows were spilled, and seen");
    assert_eq!((report.fate.rows, report.fate.quarantined), (2, 3), "two people, each once");
    for file in ["keys.yaml", "pipelines/p.yaml"] {
        assert!(bed.dir.path().join(file).exists());
    }
    let secrets = [&SECRETS[..], &[KEY]].concat();
    let swept = sweep(&bed.dir.path().join("lake"), &secrets) + sweep(&copies, &secrets);
    assert!(swept > 4, "{swept} files");
    let mut spilled = Vec::new();
    files(&copies, &mut spilled);
    let shown = |path: &PathBuf| String::from_utf8_lossy(&contents(path)).contains("ask [redacted] about");
    assert!(spilled.iter().any(shown), "what was spilled can be read here");

    // What was quarantined can be opened by those who hold the key, and is otherwise as it was.
    let env = bed.env(&Faults::none()).await;
    let quarantine = env.catalog.load(&bed.target().quarantine().unwrap().ident).await.unwrap().unwrap();
    let rejects: Vec<RecordBatch> =
        read::rows(&quarantine, &["payload", "detail"], &Rows::All).await.unwrap().try_collect().await.unwrap();
    let mut seen = 0;
    for batch in &rejects {
        for payload in batch.column(0).as_binary::<i64>().iter().flatten() {
            let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
            let landed = Landed::parse(json["email"].as_str().unwrap()).unwrap();
            assert!(opened(&people(1), landed.value, "").starts_with("alice-"));
            assert_eq!((json["person"]["name"].as_str(), &json["ssn"]), (Some("x"), &serde_json::Value::Null));
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ciphertext_has_no_statistics_and_tokens_have_a_bloom_filter() {
    let bed = Bed::protected(PROTECTED);
    bed.land(0, &(0..300).map(|id| event(id, "1")).collect::<Vec<_>>()).await;
    bed.run(&Faults::none()).await.unwrap();
    let mut found = Vec::new();
    files(&bed.dir.path().join("lake/d/t/data"), &mut found);
    let mut seen = 0;
    for path in found {
        let file = bytes::Bytes::from(std::fs::read(path).unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let name = column.column_path().string();
            let sealed = ["email", "age", "person.email", "labels.key_value.value"].contains(&name.as_str());
            let token = ["email_token", "person.email_token", "contacts.list.element.phone"].contains(&name.as_str());
            assert_eq!(column.statistics().is_some(), !sealed, "{name}");
            assert_eq!(column.bloom_filter_offset().is_some(), token, "{name}");
            if sealed {
                // A hundred values each, enough to be compressed where that is wanted.
                let bytes = ["age", "labels.key_value.value"].contains(&name.as_str());
                assert_eq!(column.compression() == Compression::UNCOMPRESSED, bytes, "{name}");
            }
            seen += usize::from(sealed) + usize::from(token);
        }
    }
    assert!(seen >= 7, "{seen}");
}

/// The same pipeline with a key for each subject; `id % 3` says whose an event is.
pub fn with_subjects(landing: bool) -> String {
    let pipeline = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData:
    format: json
    eventTime: {path: $.at, format: rfc3339}
outsourcingUnit:
  - table:
      database: d
      tableName: t
      piiColumns:
        - {name: email, protect: encrypt, token: true, subject: who}
        - {name: 'phones[]', protect: encrypt, subject: who, encoding: binary}
        - {name: card, protect: mask, mask: last(4), subject: who}
      columns:
        - {name: id, type: long, required: true}
        - {name: at, type: timestamptz, required: true}
        - {name: who, type: long}
        - {name: email, type: string}
        - {name: phones, type: 'list<string>'}
        - {name: card, type: string}
        - {name: n, type: int}
";
    if landing {
        pipeline.replace("outsourcingUnit:", "  protectAt: landing\noutsourcingUnit:")
    } else {
        pipeline.to_owned()
    }
}

pub fn of_subject(id: u64, n: &str) -> (u32, Option<String>) {
    let who = id % 3;
    let payload = format!(
        r#"{{"id":{id},"at":"2021-07-21T06:00:00Z","who":{who},"email":"user-{who}@secret.example","phones":["555-{who}{who}{who}"],"card":"4111 1111 {who}{who}{who}{who} 1234","n":{n}}}"#
    );
    (6, Some(payload))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_landing_protected_is_taken_apart_and_not_protected_twice() {
    let bed = Bed::protected(&with_subjects(true));
    let env = bed.env(&Faults::none()).await;
    let protected: Vec<_> = firn_shared::config::protected::protected(bed.target().output);
    let guard = firn_shared::crypto::Guard::new(&protected, &env.keys).await.unwrap().unwrap();
    let land = |id: u64| {
        let (hour, payload) = of_subject(id, "1");
        let payload = payload.unwrap();
        let out = tokio::task::block_in_place(|| {
            let mut scratch = firn_shared::crypto::Scratch::default();
            guard.protect(payload.as_bytes(), &mut scratch).unwrap().into_owned()
        });
        (hour, Some(String::from_utf8(out).unwrap()))
    };
    // Landed before and after protection moved to landing.
    let mut events: Vec<_> = (0..6).map(land).chain((6..12).map(|id| of_subject(id, "1"))).collect();
    // Somebody sends what only looks like ciphertext.
    let fake = r#"{"id":99,"at":"2021-07-21T06:00:00Z","phones":["firn:1:e:people/1:QQ=Q:"]}"#;
    events.push((6, Some(fake.to_owned())));
    bed.land(0, &events).await;
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.fate.rows, report.fate.quarantined), (13, 0));
    let people = env.keys.key(&"people".parse().unwrap()).await.unwrap();
    let mut rows = 0;
    for batch in batches(&bed, &["who", "email", "email_token", "phones", "card", "_key_people"]).await {
        let who = batch.column(0).as_primitive::<arrow_array::types::Int64Type>();
        for row in 0..batch.num_rows() {
            if who.is_null(row) {
                let phones = batch.column_by_name("phones").unwrap().as_list::<i32>().value(row);
                assert_eq!(phones.as_binary::<i64>().value(0), b"QQ=Q", "nobody opens it in either form");
                continue;
            }
            let who = who.value(row);
            let key = people.open(text(&batch, "_key_people").value(row)).await.unwrap().unwrap();
            assert_eq!(opened(&key, text(&batch, "email").value(row), ""), format!("user-{who}@secret.example"));
            assert_eq!(text(&batch, "email_token").value(row), token(&format!("user-{who}@secret.example")));
            let phones = batch.column_by_name("phones").unwrap().as_list::<i32>().value(row);
            assert_eq!(opened_bytes(&key, &phones, 0, ""), format!("555-{who}{who}{who}"));
            assert_eq!(text(&batch, "card").value(row), "**** **** **** 1234");
            rows += 1;
        }
    }
    assert_eq!(rows, 12);
    sweep(&bed.dir.path().join("lake"), &["user-1@secret.example", "555-111", "4111 1111 1111"]);
}

/// Landed while one column was protected; then another is, too, and the key is rotated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sealed_later_in_a_landed_row_is_sealed_by_the_rows_own_key() {
    let pipeline = |entries: &[&str]| {
        let entry = |name: &&str| format!("\n        - {{name: {name}, protect: encrypt}}");
        let entries = entries.iter().map(entry).collect::<Vec<_>>().concat();
        format!(
            "
name: p
ingestionUnit:
  kafka: {{cluster: c, topic: t}}
  incomingData:
    format: json
    eventTime: {{path: $.at, format: rfc3339}}
  protectAt: landing
outsourcingUnit:
  - table:
      database: d
      tableName: t
      piiColumns:{entries}
      columns:
        - {{name: id, type: long, required: true}}
        - {{name: email, type: string}}
        - {{name: phone, type: string}}
"
        )
    };
    for entries in [["email", "phone"], ["phone", "email"]] {
        let mut bed = Bed::protected(&pipeline(&["email"]));
        let env = bed.env(&Faults::none()).await;
        let protected: Vec<_> = firn_shared::config::protected::protected(bed.target().output);
        let guard = firn_shared::crypto::Guard::new(&protected, &env.keys).await.unwrap().unwrap();
        let land = |id: u64| {
            let payload = format!(r#"{{"id":{id},"at":"2021-07-21T06:00:00Z","email":"a@{id}","phone":"555-{id}"}}"#);
            let out = tokio::task::block_in_place(|| {
                guard.protect(payload.as_bytes(), &mut firn_shared::crypto::Scratch::default()).unwrap().into_owned()
            });
            (6, Some(String::from_utf8(out).unwrap()))
        };
        let plain = |id: u64| (6, Some(format!(r#"{{"id":{id},"at":"2021-07-21T06:00:00Z","phone":"555-{id}"}}"#)));
        bed.land(0, &[land(0), land(1), plain(2)]).await;
        write_ring(bed.dir.path(), &[1, 2]);
        bed.reconfigure(&pipeline(&entries));
        let report = bed.run(&Faults::none()).await.unwrap();
        assert_eq!((report.fate.rows, report.fate.quarantined), (3, 0));
        for batch in batches(&bed, &["id", "email", "phone", "_key_people"]).await {
            let ids = batch.column(0).as_primitive::<arrow_array::types::Int64Type>();
            for row in 0..batch.num_rows() {
                let id = ids.value(row);
                let key = text(&batch, "_key_people").value(row);
                assert_eq!(key, if id < 2 { "people/1" } else { "people/2" }, "{entries:?} {id}");
                let version = key.strip_prefix("people/").unwrap().parse().unwrap();
                assert_eq!(opened(&people(version), text(&batch, "phone").value(row), ""), format!("555-{id}"));
                if id < 2 {
                    assert_eq!(opened(&people(version), text(&batch, "email").value(row), ""), format!("a@{id}"));
                }
            }
        }
    }
}
