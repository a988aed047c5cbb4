//! Erasure as an operator does it: the command, its certificate, and nothing of the subject left on the servers.

use std::fs;
use std::path::Path;

use firn_e2e::rig::kafka::{Kafka, Record, block_on};
use firn_e2e::rig::readers::duckdb_sql;
use firn_e2e::rig::s3::{Kind, S3Server};
use firn_e2e::rig::workspace::Workspace;
use firn_shared::config;
use firn_shared::store::{Depth, Stores};
use iceberg::spec::Manifest;
use serde_json::{Value, json};

use super::protection::{TOKEN, kms_sections, openssl, person, pipeline, workspace};

/// One subject a person, and everything that says the e-mail or is sealed goes with it.
fn with_subject(yaml: String) -> String {
    yaml.replace("protect: encrypt, token: true", "protect: encrypt, token: true, subject: id")
        .replace("name: born, protect", "name: born, subject: id, protect")
        .replace("name: note, protect", "name: note, subject: id, protect")
        .replace("WHERE", "conversion")
}

/// Twenty people, and one whose record the columns refuse.
fn produce(topic: &str) {
    let mut records: Vec<Record> = (0..20).map(|id| Record::of(person(id))).collect();
    records.push(Record::of(person(3).replace("1990-01-04", "long ago")));
    Kafka::shared().produce(topic, records).unwrap();
}

/// Every object of the deployment says nothing of `secrets`, unpacked as far as anybody would.
fn sweep(workspace: &Workspace, secrets: &[&str]) -> usize {
    let config = config::load(&workspace.dir().join("firn.yaml"), &[workspace.dir().join("pipelines")]).unwrap();
    let stores = Stores::new(config.deployment.s3.clone());
    let mut seen = 0;
    for place in [config.deployment.raw.to_string(), config.deployment.warehouse.to_string()] {
        let objects = block_on(async {
            let (store, prefix) = stores.resolve(&format!("{place}/")).await.unwrap();
            let (mut objects, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = store.list(&prefix, after.as_deref(), Depth::All).await.unwrap();
                for object in &page.objects {
                    objects.push((object.key.clone(), store.get(&object.key).await.unwrap()));
                }
                after = page.next;
                if after.is_none() {
                    return objects;
                }
            }
        });
        for (key, bytes) in objects {
            let text = unpacked(workspace, &key, &bytes);
            for secret in secrets {
                assert!(!text.contains(secret), "{secret} in {place} {key}");
            }
            seen += 1;
        }
    }
    seen
}

fn unpacked(workspace: &Workspace, key: &str, bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let extension = Path::new(key).extension().unwrap_or_default();
    if extension == "zst" {
        text.push_str(&String::from_utf8_lossy(&zstd::decode_all(bytes).unwrap()));
    } else if extension == "parquet" {
        let file = workspace.dir().join("swept.parquet");
        fs::write(&file, bytes).unwrap();
        let rows = duckdb_sql(&format!("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM read_parquet('{}')", file.display()));
        text.push_str(&serde_json::to_string(&rows.unwrap()).unwrap());
        fs::remove_file(file).unwrap();
    } else if let Ok(manifest) = Manifest::parse_avro(bytes) {
        return format!("{text}{manifest:?}");
    }
    text
}

/// Lands and converts in two runs, erases subject 3 and looks for it everywhere.
fn erased(workspace: &Workspace, topic: &str, secret_token: Option<&str>) -> Value {
    produce(topic);
    workspace.land().unwrap();
    workspace.compact().unwrap();
    Kafka::shared().produce(topic, (20..25).map(|id| Record::of(person(id)))).unwrap();
    workspace.land().unwrap();
    workspace.compact().unwrap();
    let access = workspace.access();
    let before = access.metadata("t.people").unwrap().unwrap();
    let token = "SELECT email_token FROM t WHERE id = 3";
    let told = access.duckdb_at(&before, token).unwrap()[0][0].as_str().unwrap().to_owned();
    assert!(secret_token.is_none_or(|known| known == told));

    let planned = workspace.compactor(&["erase", "--subject", "3", "--dry-run"]).unwrap().expect(&[0]).unwrap();
    assert!(planned.stdout.contains("t.people: 1 rows in 1 files would lose values"), "{}", planned.stdout);
    assert_eq!(access.duckdb("t.people", token).unwrap(), [[json!(told)]], "only planned");
    let json = workspace.compactor(&["erase", "--subject", "3", "--dry-run", "--output", "json"]).unwrap();
    let json: Value = serde_json::from_str(&json.expect(&[0]).unwrap().stdout).unwrap();
    assert_eq!((&json["dryRun"], &json["raw"]["people"]["records"]), (&json!(true), &json!(2)), "{json}");

    let file = workspace.dir().join("certificate.json");
    let done = workspace.compactor(&["erase", "--subject", "3", "--certificate", file.to_str().unwrap()]).unwrap();
    let done = done.expect(&[0]).unwrap();
    assert!(done.stdout.contains("1 keys destroyed"), "{}", done.stdout);
    assert!(!done.stderr.contains("user-3@"), "{}", done.stderr);

    let verified = workspace.compactor(&["erase", "--verify", file.to_str().unwrap()]).unwrap().expect(&[0]).unwrap();
    assert!(verified.stdout.contains("1 keys destroyed"), "{}", verified.stdout);
    let certificate: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let forged = certificate.to_string().replacen("\\\"rows\\\":1", "\\\"rows\\\":2", 1);
    assert_ne!(forged, certificate.to_string());
    fs::write(&file, forged).unwrap();
    let refused = workspace.compactor(&["erase", "--verify", file.to_str().unwrap()]).unwrap().expect(&[3]).unwrap();
    assert!(refused.stderr.contains("it was changed after it was signed"), "{}", refused.stderr);

    let secrets = ["user-3@secret.example", told.as_str()];
    assert!(sweep(workspace, &secrets) > 10);
    for sql in ["SELECT id, email, email_token, born FROM t ORDER BY 1", "SELECT * FROM t WHERE id = 3"] {
        assert_eq!(access.duckdb("t.people", sql).unwrap().len(), access.pyiceberg("t.people", sql).unwrap().len());
    }
    let sql = "SELECT id, email IS NULL AND email_token IS NULL AND born IS NULL AND note IS NULL, ip IS NULL FROM t ORDER BY 1";
    let rows = access.duckdb("t.people", sql).unwrap();
    assert_eq!(rows.len(), 25);
    for row in rows {
        assert_eq!((&row[1], &row[2]), (&json!(row[0] == json!(3)), &json!(false)), "only what has a subject goes");
    }
    assert_eq!(access.snapshots("t.people").unwrap().len(), 1);
    // Whoever kept the name of older metadata finds no file of it.
    let old = access.duckdb_at(&before, token);
    assert!(old.is_err(), "an old snapshot still gives {old:?}");
    workspace.reconcile().unwrap();
    workspace
        .compactor(&["reprocess", "--from", "2024-05-01T00", "--to", "2024-05-01T01"])
        .unwrap()
        .expect(&[0])
        .unwrap();
    assert_eq!(access.number("t.people", "SELECT COUNT(email) FROM t").unwrap(), 24, "nothing comes back");
    assert_eq!(sweep(workspace, &secrets).min(1), 1);
    certificate
}

#[test]
fn an_erasure_on_local_files_leaves_nothing_and_is_certified() {
    let (workspace, _) = workspace("people-erase", "conversion");
    let topic = pipeline(&workspace, "people-erase-subjects", with_subject);
    let token = openssl(&[json!({"token": TOKEN, "text": "user-3@secret.example"})]).remove(0);
    let certificate = erased(&workspace, &topic, Some(&token));
    // Checked by others, too.
    let asked = |text: &str| json!({"publicKey": certificate["publicKey"], "signature": certificate["signature"], "text": text});
    let report = certificate["report"].as_str().unwrap();
    assert_eq!(openssl(&[asked(report), asked("something else")]), ["yes", "no"]);
    let report: Value = serde_json::from_str(report).unwrap();
    assert_eq!(report["tables"]["t.people"]["rows"], json!(1));
    assert_eq!(report["raw"]["people"]["through"].as_object().unwrap().values().next(), Some(&json!(26)));
}

#[test]
fn an_erasure_on_s3_glue_and_kms_leaves_nothing() {
    let server = S3Server::shared(Kind::Ministack);
    let workspace = Workspace::glue("people-erase-glue", Kafka::shared()).unwrap();
    workspace.reconfigure("landing:", &format!("{}\nlanding:", kms_sections(server))).unwrap();
    let topic = pipeline(&workspace, "people-erase-glue", with_subject);
    let certificate = erased(&workspace, &topic, None);
    let report: Value = serde_json::from_str(certificate["report"].as_str().unwrap()).unwrap();
    let key = report["keys"][0].as_str().unwrap();
    assert!(key.starts_with("s3://firn/") && key.contains("/_keys/people/subjects/"), "{key}");
}

#[test]
fn a_table_of_glue_that_no_pipeline_names_any_more_is_erased_from() {
    let server = S3Server::shared(Kind::Ministack);
    let workspace = Workspace::glue("people-erase-forgotten", Kafka::shared()).unwrap();
    workspace.reconfigure("landing:", &format!("{}\nlanding:", kms_sections(server))).unwrap();
    // Other tests have the table `t.people` in the same catalog.
    let apart = |yaml: String| with_subject(yaml).replace("database: t", "database: forgotten");
    let topic = pipeline(&workspace, "people-erase-forgotten", apart);
    produce(&topic);
    workspace.land().unwrap();
    workspace.compact().unwrap();
    let file = workspace.dir().join("pipelines/people.yaml");
    let renamed = fs::read_to_string(&file).unwrap().replace("tableName: people", "tableName: folk");
    fs::write(&file, renamed).unwrap();
    workspace.compact().unwrap();
    let access = workspace.access();
    let mails = "SELECT COUNT(email) FROM t";
    assert_eq!(
        (access.number("forgotten.people", mails).unwrap(), access.number("forgotten.folk", mails).unwrap()),
        (20, 20)
    );

    let typo = workspace.compactor(&["erase", "--subject", "3", "--leave", "forgotten.people.nope"]).unwrap();
    assert!(typo.expect(&[2]).unwrap().stderr.contains("no column `nope`"));
    let done = workspace.compactor(&["erase", "--subject", "3"]).unwrap();
    let done = done.expect(&[0]).unwrap().stdout;
    assert!(done.contains("forgotten.people: 1 rows in 1 files lost values"), "{done}");
    assert!(done.contains("no pipeline names this table any more"), "{done}");
    assert_eq!(
        (access.number("forgotten.people", mails).unwrap(), access.number("forgotten.folk", mails).unwrap()),
        (19, 19)
    );
    assert!(sweep(&workspace, &["user-3@secret.example"]) > 10);
}

/// A deployment in a bucket of its own that keeps versions, with twenty people converted.
fn versioned(name: &str) -> Workspace {
    let server = S3Server::shared(Kind::Ministack);
    block_on(async {
        server.bucket(name).await?;
        server.keep_versions(name).await
    })
    .unwrap();
    let workspace = Workspace::glue(name, Kafka::shared()).unwrap();
    workspace.reconfigure("s3://firn/", &format!("s3://{name}/")).unwrap();
    workspace.reconfigure("landing:", &format!("{}\nlanding:", kms_sections(server))).unwrap();
    let database = format!("database: {}", name.replace('-', "_"));
    let topic = pipeline(&workspace, name, |yaml| with_subject(yaml).replace("database: t", &database));
    produce(&topic);
    workspace.land().unwrap();
    workspace.compact().unwrap();
    workspace
}

/// Keys of versions that say something of subject 3, unpacked.
fn versions_that_say(workspace: &Workspace, bucket: &str, secrets: &[&str]) -> Vec<String> {
    let all = block_on(S3Server::shared(Kind::Ministack).versions(bucket, "")).unwrap();
    assert!(all.len() > 10);
    let says = |key: &str, bytes: &[u8]| {
        let text = unpacked(workspace, key, bytes);
        secrets.iter().any(|secret| text.contains(secret))
    };
    all.into_iter().filter(|(key, bytes)| bytes.as_ref().is_some_and(|b| says(key, b))).map(|(key, _)| key).collect()
}

const SECRET: &[&str] = &["user-3@secret.example"];

#[test]
fn where_a_bucket_keeps_versions_an_erasure_asks_first_and_takes_them_along() {
    let bucket = "erase-versions";
    let workspace = versioned(bucket);
    let planned = workspace.compactor(&["erase", "--subject", "3", "--dry-run"]).unwrap().expect(&[0]).unwrap();
    let needs = "s3://erase-versions keeps versions; an erasure needs --delete-versions or --accept-versions";
    assert!(planned.stdout.contains(needs), "{}", planned.stdout);
    // An erasure that cannot be certified is not begun, so the seed of certificates is made before anything is asked.
    let all = || {
        let mut all = block_on(S3Server::shared(Kind::Ministack).versions(bucket, "")).unwrap();
        all.retain(|(key, _)| !key.ends_with("/certificate.json"));
        all
    };
    let before = all();
    let refused = workspace.compactor(&["erase", "--subject", "3"]).unwrap().expect(&[2]).unwrap();
    assert!(refused.stderr.contains("s3://erase-versions keeps versions, in which everything"), "{}", refused.stderr);
    assert!(before == all(), "nothing is changed before something was said of versions");
    assert!(!versions_that_say(&workspace, bucket, SECRET).is_empty());

    let erase = ["erase", "--subject", "3", "--delete-versions", "--output", "json"];
    let done = workspace.compactor(&erase).unwrap().expect(&[0]).unwrap();
    assert_eq!(versions_that_say(&workspace, bucket, SECRET), Vec::<String>::new());
    let of_keys = all().iter().filter(|(key, _)| key.contains("/subjects/")).count();
    assert_eq!(of_keys, 19, "the key of subject 3 has no version and no marker left");
    let report: Value = serde_json::from_str(done.json().unwrap()["report"].as_str().unwrap()).unwrap();
    assert_eq!((&report["versioned"], &report["versionsStay"]), (&json!(["s3://erase-versions"]), &json!(false)));
    assert!(report["versions"].is_u64(), "{report}");
    workspace.reconcile().unwrap();
}

#[test]
fn versions_that_were_accepted_are_in_the_certificate() {
    let bucket = "erase-accepted";
    let workspace = versioned(bucket);
    let erase = ["erase", "--subject", "3", "--accept-versions"];
    let done = workspace.compactor(&erase).unwrap().expect(&[0]).unwrap();
    let says = "s3://erase-accepted keeps versions; older ones of what was deleted stay there";
    assert!(done.stdout.contains(says), "{}", done.stdout);
    assert!(!versions_that_say(&workspace, bucket, SECRET).is_empty(), "as was said");
}
