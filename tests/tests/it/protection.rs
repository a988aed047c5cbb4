//! Personal data through the whole house: what others open, what KMS wraps, and that plaintext is nowhere.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use firn_e2e::rig::daemon::Daemon;
use firn_e2e::rig::kafka::{Kafka, Record, block_on};
use firn_e2e::rig::procs::{run_dir, source_dir, until};
use firn_e2e::rig::readers::venv;
use firn_e2e::rig::s3::{KEY, Kind, REGION, S3Server, SECRET};
use firn_e2e::rig::workspace::Workspace;
use firn_shared::clock::SystemClock;
use firn_shared::config;
use firn_shared::crypto::{Keys, Sealer};
use firn_shared::store::Stores;
use serde_json::{Value, json};

/// Base64 of 32 times the byte 1, and of 32 times the byte 7.
pub const VERSION_1: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
pub const TOKEN: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

const SECRETS: [&str; 4] = ["secret.example", "555-0", "4111 1111 1111", "203.0.113.7"];

const PIPELINE: &str = "
name: people
ingestionUnit:
  kafka: {cluster: events, topic: TOPIC}
  incomingData:
    format: json
    eventTime: {path: $.at, format: rfc3339}
  raw: {rotate: {age: 1s}}
  protectAt: WHERE
outsourcingUnit:
  - table:
      database: t
      tableName: people
      piiColumns:
        - {name: email, protect: encrypt, token: true}
        - {name: born, protect: encrypt, aad: t.people.born, encoding: binary}
        - {name: 'phones[]', protect: token}
        - {name: note, protect: redact, patterns: [email, card]}
        - {name: ip, protect: mask, mask: ip}
      columns:
        - {name: id, type: long, required: true}
        - {name: at, type: timestamptz, required: true}
        - {name: email, type: string}
        - {name: born, type: date}
        - {name: phones, type: 'list<string>'}
        - {name: note, type: string}
        - {name: ip, type: string}
";

pub fn person(id: u64) -> String {
    format!(
        r#"{{"id":{id},"at":"2024-05-01T00:00:00Z","email":"user-{id}@secret.example","born":"1990-01-0{}","phones":["555-0{id}"],"note":"card 4111 1111 1111 1111 of user-{id}@secret.example","ip":"203.0.113.7"}}"#,
        id % 9 + 1
    )
}

/// The topic of a workspace, and its pipeline with `edit` made to it.
pub fn pipeline(workspace: &Workspace, name: &str, edit: impl Fn(String) -> String) -> String {
    let topic = format!("people.{name}");
    Kafka::shared().create_topic(&topic, 1, &[]).unwrap();
    workspace.pipeline("people", &edit(PIPELINE.replace("TOPIC", &topic))).unwrap();
    topic
}

/// A workspace with the key ring of the constants above, and debug logs.
pub fn workspace(name: &str, place: &str) -> (Workspace, String) {
    use std::os::unix::fs::PermissionsExt;
    let workspace = Workspace::local(name, Kafka::shared()).unwrap();
    let ring = workspace.dir().join("keys.yaml");
    let keys =
        format!("keys: {{people: {{versions: {{1: '{VERSION_1}'}}, token: '{TOKEN}'}}}}\nsigning: '{VERSION_1}'\n");
    fs::write(&ring, keys).unwrap();
    fs::set_permissions(&ring, fs::Permissions::from_mode(0o600)).unwrap();
    let more = "keys: {people: {file: keys.yaml}}\ntelemetry: {log: debug}\nlanding:";
    workspace.reconfigure("landing:", more).unwrap();
    let topic = pipeline(&workspace, name, |yaml| yaml.replace("WHERE", place));
    (workspace, topic)
}

/// The sections of `firn.yaml` for a key that ministack's KMS wraps.
pub fn kms_sections(server: &S3Server) -> String {
    let (endpoint, arn) = (server.endpoint(), block_on(server.kms_key()).unwrap());
    format!(
        "kms: {{endpoint: '{endpoint}', region: {REGION}, accessKeyId: {KEY}, secretAccessKey: {SECRET}}}\n\
         keys: {{people: {{kms: '{arn}'}}}}"
    )
}

/// Asks OpenSSL.
pub fn openssl(requests: &[Value]) -> Vec<String> {
    let mut python = Command::new(venv("python"))
        .arg(source_dir().join("tests/readers/open_sealed.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("no Python environment: run localstack/setup, or ./test");
    let mut stdin = python.stdin.take().unwrap();
    for request in requests {
        writeln!(stdin, "{request}").unwrap();
    }
    drop(stdin);
    let answers = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Nothing in a directory says a secret, compressed objects unpacked. Parquet's pages are looked into through DuckDB.
fn sweep(dir: &Path) -> usize {
    let mut found = Vec::new();
    files(dir, &mut found);
    for path in &found {
        let bytes = fs::read(path).unwrap();
        let bytes =
            if path.extension().is_some_and(|e| e == "zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
        clean(&String::from_utf8_lossy(&bytes), &path.display().to_string());
    }
    found.len()
}

fn clean(text: &str, what: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {what}");
    }
}

#[test]
fn others_open_what_was_sealed_at_conversion_or_landing_and_plaintext_is_nowhere() {
    for place in ["conversion", "landing"] {
        let (workspace, topic) = workspace(&format!("people-{place}"), place);
        let mut records: Vec<Record> = (0..20).map(|id| Record::of(person(id))).collect();
        // Refused by landing, and by the columns.
        records.push(Record::of(person(20).replace('}', "")));
        records.push(Record::of(person(21).replace("\"id\":21", "\"id\":\"many\"")));
        records.push(Record::of(person(22).replace("\"at\"", "\"then\"")));
        Kafka::shared().produce(&topic, records).unwrap();
        let landed = workspace.land().unwrap();
        let compacted = workspace.compact().unwrap();
        for (what, ended) in [("landing", &landed), ("compactor", &compacted)] {
            clean(&ended.stdout, what);
            clean(&ended.stderr, what);
        }
        if place == "landing" {
            assert!(sweep(&workspace.dir().join("raw")) > 3);
        }
        sweep(&workspace.dir().join("warehouse"));
        let access = workspace.access();
        for table in ["t.people", "t.people_quarantine"] {
            let all = access.duckdb(table, "SELECT CAST(COLUMNS(*) AS VARCHAR) FROM t").unwrap();
            clean(&serde_json::to_string(&all).unwrap(), table);
            assert!(!all.is_empty(), "{table} at {place}");
        }
        workspace.reconcile().unwrap();

        let sql = "SELECT id, email, base64(born), email_token, phones[1], _key_people FROM t ORDER BY 1";
        let rows = access.duckdb("t.people", sql);
        let rows = rows.unwrap();
        assert_eq!(rows.len(), 20);
        let mut requests = Vec::new();
        for row in &rows {
            assert_eq!(row[5], "people/1");
            requests.push(json!({"key": VERSION_1, "text": row[1], "aad": ""}));
            requests.push(json!({"key": VERSION_1, "text": row[2], "aad": "t.people.born"}));
            requests.push(json!({"token": TOKEN, "text": format!("user-{}@secret.example", row[0])}));
            requests.push(json!({"token": TOKEN, "text": format!("555-0{}", row[0])}));
        }
        let answers = openssl(&requests);
        for (row, answers) in rows.iter().zip(answers.chunks(4)) {
            let id = row[0].as_u64().unwrap();
            assert_eq!(answers[0], format!("user-{id}@secret.example"));
            assert_eq!(answers[1], format!("1990-01-0{}", id % 9 + 1));
            assert_eq!((&row[3], &row[4]), (&json!(answers[2]), &json!(answers[3])));
        }
        let sql = format!(
            "SELECT id, CAST(aes_decrypt(unbase64(email), unbase64('{VERSION_1}'), 'GCM') AS STRING), \
             CAST(aes_decrypt(born, unbase64('{VERSION_1}'), 'GCM', 'DEFAULT', 't.people.born') AS STRING), note, ip \
             FROM {{c}}.t.people WHERE id = 7"
        );
        let row = [
            json!(7),
            json!("user-7@secret.example"),
            json!("1990-01-08"),
            json!("card [redacted] of [redacted]"),
            json!("203.0.113.0"),
        ];
        assert_eq!(access.spark(&[&sql]).unwrap(), [row.to_vec()]);
    }
}

#[test]
fn metrics_of_a_daemon_say_nothing_personal() {
    let (workspace, topic) = workspace("people-metrics", "landing");
    Kafka::shared().produce(&topic, (0..5).map(|id| Record::of(person(id)))).unwrap();
    let daemon = Daemon::start(&workspace).unwrap();
    let landed = || (workspace.landed(&topic).ok()?.values().sum::<u64>() >= 5).then_some(());
    until("5 records have landed", landed).unwrap();
    let (status, metrics) = daemon.get("/metrics").unwrap();
    assert!(status == 200 && metrics.contains("landing_"), "{status}: {metrics}");
    clean(&metrics, "/metrics");
    clean(&fs::read_to_string(daemon.process.log()).unwrap(), "the log");
    drop(daemon);
}

/// Says in the key store that version 1 has sealed so many values.
fn wear(workspace: &Workspace, values: u64) {
    let used = workspace.dir().join("warehouse/_keys/people/used/0000000001");
    fs::create_dir_all(&used).unwrap();
    let at = "2026-01-01T00:00:00Z";
    let block = json!({"format": 1, "key": "people", "version": 1, "from": 0, "values": values, "at": at});
    fs::write(used.join("0000000000.json"), block.to_string()).unwrap();
}

#[test]
fn a_worn_version_is_told_of_and_a_full_one_seals_nothing_until_the_ring_has_another() {
    let (workspace, topic) = workspace("people-worn", "landing");
    let produce = |ids: std::ops::Range<u64>| {
        Kafka::shared().produce(&topic, ids.map(|id| Record::of(person(id)))).unwrap();
    };
    let landed = || workspace.landed(&topic).unwrap().values().sum::<u64>();
    wear(&workspace, 1 << 31);
    produce(0..3);
    let checked = workspace.compactor(&["check"]).unwrap().expect(&[0]).unwrap();
    let told = "key people: version 1 of key people has used 50 % of the 2^32 values that it may seal";
    assert!(checked.stdout.contains(told), "{}", checked.stdout);
    let ended = workspace.landing(&["run", "--until-caught-up"]).unwrap().expect(&[0]).unwrap();
    assert!(ended.stderr.contains("a version has used half of its 2^32 values"), "{}", ended.stderr);
    assert_eq!(landed(), 3);

    fs::remove_dir_all(workspace.dir().join("warehouse/_keys/people/used/0000000001")).unwrap();
    wear(&workspace, 1 << 32);
    produce(3..5);
    let refused = "version 1 of key people has sealed its 2^32 values; add a version to its ring";
    for ended in [
        workspace.landing(&["run", "--until-caught-up"]).unwrap(),
        workspace.compactor(&["check"]).unwrap(),
        workspace.compactor(&["run"]).unwrap(),
    ] {
        let ended = ended.expect(&[2]).unwrap();
        assert!(ended.stderr.contains(refused), "{}", ended.stderr);
    }
    assert_eq!(landed(), 3, "nothing lands unprotected");

    let ring = workspace.dir().join("keys.yaml");
    let text = fs::read_to_string(&ring).unwrap().replace("versions: {1", &format!("versions: {{2: '{TOKEN}', 1"));
    fs::write(&ring, text).unwrap();
    workspace.land().unwrap();
    workspace.compact().unwrap();
    let keys = "SELECT _key_people, COUNT(*) FROM t GROUP BY 1 ORDER BY 1";
    let rows = workspace.access().duckdb("t.people", keys).unwrap();
    assert_eq!(rows, [[json!("people/1"), json!(3)], [json!("people/2"), json!(2)]]);
}

/// A deployment whose key is wrapped by ministack's KMS.
fn kms_yaml(server: &S3Server, dir: &Path, key: &str) -> String {
    let (endpoint, dir) = (server.endpoint(), dir.display());
    format!(
        "clusters: {{c: {{brokers: 'localhost:1'}}}}\nraw: {dir}/raw\nwarehouse: {dir}/lake\n\
         catalog: {{sqlite: {{path: {dir}/catalog.db}}}}\n\
         kms: {{endpoint: '{endpoint}', region: {REGION}, accessKeyId: {KEY}, secretAccessKey: {SECRET}}}\n\
         keys:\n  people: {{kms: '{key}', context: {{team: shop}}, reuse: {{values: 100}}}}\n  public: {{kms: '{key}'}}\n"
    )
}

#[test]
fn data_keys_are_wrapped_by_kms_and_shared_by_all_processes() {
    let server = S3Server::shared(Kind::Ministack);
    block_on(async {
        let arn = server.kms_key().await.unwrap();
        let dir = run_dir().join("kms-keys");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("firn.yaml"), kms_yaml(server, &dir, &arn)).unwrap();
        let config = config::load(&dir.join("firn.yaml"), &[]).unwrap();
        let keys = || Keys::new(&config.deployment, Stores::new(config.deployment.s3.clone()), Arc::new(SystemClock));
        let people = "people".parse().unwrap();
        let (a, b) = (keys().key(&people).await.unwrap(), keys().key(&people).await.unwrap());

        // Two processes begin at once: one version, one secret of tokens.
        let (one, other) = tokio::join!(a.current(1), b.current(1));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.id(), other.id()), ("people/1", "people/1"));
        let mut sealed = Vec::new();
        Sealer::default().seal(&one, b"", b"alice", &mut sealed).unwrap();
        assert_eq!(other.open(&sealed, b"").unwrap().expose(), b"alice");
        let token = async |key: &firn_shared::crypto::Key| {
            let mut out = Vec::new();
            key.token_key().await.unwrap().token(b"alice", &mut out);
            out
        };
        let (x, y) = tokio::join!(token(&a), token(&b));
        assert_eq!(x, y);

        // After so many values the next version; the old one still opens what it sealed.
        one.count(100, 0);
        assert_eq!(a.current(1).await.unwrap().id(), "people/2");
        let fresh = keys().key(&people).await.unwrap();
        assert_eq!(fresh.current(1).await.unwrap().id(), "people/2", "a later process takes the newest");
        assert_eq!(fresh.open("people/1").await.unwrap().unwrap().open(&sealed, b"").unwrap().expose(), b"alice");

        // What is stored is wrapped, and must be what it is asked for as: not another's in its place, however it is called.
        let object = |name: &str| dir.join("lake/_keys").join(name);
        let stored = |name: &str| -> Value { serde_json::from_slice(&fs::read(object(name)).unwrap()).unwrap() };
        let version_1 = stored("people/versions/0000000001.json");
        assert_eq!(version_1["encryptionContext"], json!({"firn:key": "people", "firn:version": "1", "team": "shop"}));
        assert_eq!(version_1["kmsKeyId"], json!(arn));
        let public = keys().key(&"public".parse().unwrap()).await.unwrap().current(1).await.unwrap();
        assert_eq!(public.id(), "public/1");
        let foreign = stored("public/versions/0000000001.json");
        let mut renamed = foreign.clone();
        renamed["key"] = json!("people");
        let mut relabelled = renamed.clone();
        relabelled["encryptionContext"] = version_1["encryptionContext"].clone();
        let mut others = version_1.clone();
        others["encryptionContext"]["team"] = json!("others");
        for (put, expected) in [
            (&foreign, "holds key public version 1, where key people version 1 belongs"),
            (&renamed, "was wrapped for another purpose"),
            (&others, "was wrapped for another purpose"),
            (&relabelled, "cannot unwrap"),
        ] {
            fs::write(object("people/versions/0000000001.json"), put.to_string()).unwrap();
            let error = keys().key(&people).await.unwrap().open("people/1").await.unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("versions/0000000001.json"), "{error}");
        }

        // The seed of certificates is apart from what readers of the key may open, and stays the same.
        let seed = keys().signing_seed().await.unwrap();
        assert_eq!(keys().signing_seed().await.unwrap(), seed);
        let context = json!({"firn:purpose": "certificate", "firn:signer": "people", "team": "shop"});
        assert_eq!(stored("people/certificate.json")["encryptionContext"], context);
    });
}

#[test]
fn a_table_under_kms_is_opened_through_kms() {
    let server = S3Server::shared(Kind::Ministack);
    let (workspace, topic) = workspace("people-kms", "conversion");
    workspace.reconfigure("keys: {people: {file: keys.yaml}}", &kms_sections(server)).unwrap();
    Kafka::shared().produce(&topic, (0..5).map(|id| Record::of(person(id)))).unwrap();
    workspace.land().unwrap();
    workspace.compact().unwrap();
    let rows = workspace.access().duckdb("t.people", "SELECT id, email, _key_people FROM t ORDER BY 1").unwrap();
    block_on(async {
        let config = config::load(&workspace.dir().join("firn.yaml"), &[workspace.dir().join("pipelines")]).unwrap();
        let keys = Keys::new(&config.deployment, Stores::new(config.deployment.s3.clone()), Arc::new(SystemClock));
        let people = keys.key(&"people".parse().unwrap()).await.unwrap();
        for row in &rows {
            let key = people.open(row[2].as_str().unwrap()).await.unwrap().unwrap();
            let opened = key.open(row[1].as_str().unwrap().as_bytes(), b"").unwrap();
            assert_eq!(opened.expose(), format!("user-{}@secret.example", row[0]).as_bytes());
        }
    });
    assert_eq!(rows.len(), 5);
    sweep(&workspace.dir().join("warehouse"));
}
