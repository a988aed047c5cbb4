//! Protected columns read by others: the recipes of `docs/protection-reading.md` as they stand there.

use std::fs;

use anyhow::{Result, ensure};
use firn_e2e::rig::kafka::{Kafka, Record, block_on};
use firn_e2e::rig::procs::run_dir;
use firn_e2e::rig::readers::Access;
use firn_e2e::rig::recipes::{Recipes, python, spark_with};
use firn_e2e::rig::s3::{KEY, Kind, REGION, S3Server, SECRET};
use firn_e2e::rig::workspace::Workspace;
use serde_json::{Value, json};

const DOCUMENT: &str = "docs/protection-reading.md";

/// Who is in the tables: id, e-mail, phone.
const PEOPLE: [(i64, &str, &str); 3] = [
    (1, "ann@example.com", "+1 555 0100"),
    (2, "ben@example.org", "+1 555 0101"),
    (3, "çleo@example.net", "+1 555 0102"),
];

/// A deployment on Glue, KMS and S3, with people in the table `people` and, each under a key of their own, in `patients`.
fn protected(name: &str) -> Result<Workspace> {
    let workspace = Workspace::glue(name, Kafka::shared())?;
    let server = S3Server::shared(Kind::Ministack);
    let key = block_on(server.kms_key())?;
    let keys = format!(
        "kms: {{endpoint: '{}', region: {REGION}, accessKeyId: {KEY}, secretAccessKey: {SECRET}}}\nkeys: {{people: {{kms: '{key}'}}}}\nlanding:",
        server.endpoint()
    );
    workspace.reconfigure("landing:", &keys)?;
    let topic = format!("people.{name}");
    Kafka::shared().create_topic(&topic, 1, &[])?;
    let columns =
        "columns: [{name: id, type: long, required: true}, {name: email, type: string}, {name: phone, type: string}]";
    let database = name.replace('-', "_");
    let yaml = format!(
        "name: people
ingestionUnit:
  kafka: {{cluster: events, topic: {topic}}}
  incomingData: {{format: json, eventTime: kafkaTimestamp}}
  raw: {{rotate: {{size: 256KiB, age: 1s}}}}
outsourcingUnit:
  - table:
      database: {database}
      tableName: people
      piiColumns: [{{name: email, protect: encrypt, token: true}}, {{name: phone, protect: encrypt, aad: phone}}]
      {columns}
  - table:
      database: {database}
      tableName: patients
      piiColumns: [{{name: email, protect: encrypt, subject: id}}, {{name: phone, protect: encrypt, aad: phone, subject: id}}]
      {columns}
"
    );
    workspace.pipeline("people", &yaml)?;
    let records =
        PEOPLE.map(|(id, email, phone)| Record::of(json!({"id": id, "email": email, "phone": phone}).to_string()));
    Kafka::shared().produce(&topic, records)?;
    workspace.land()?;
    workspace.compact()?;
    Ok(workspace)
}

/// The values and keys of a table's column, in the order of the people.
fn sealed(access: &Access, table: &str, column: &str) -> Vec<Vec<Value>> {
    access.duckdb(table, &format!("SELECT {column}, _key_people FROM t ORDER BY id")).unwrap()
}

/// Destroys the key of the first patient.
fn erase_first_patient(workspace: &Workspace) -> Result<()> {
    let name = workspace.dir().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let key = sealed(workspace.access(), &format!("{}.patients", name.replace('-', "_")), "email")[0][1].clone();
    let subject = key.as_str().and_then(|key| key.strip_prefix("people/s/")).unwrap_or_default();
    ensure!(subject.len() > 2, "{key} names no subject");
    let object = format!("{name}/tables/_keys/people/subjects/{}/{subject}.json", &subject[..2]);
    block_on(async {
        let store = S3Server::shared(Kind::Ministack).bucket("firn").await?;
        ensure!(store.head(&object).await?.is_some(), "there is no {object}");
        Ok(store.delete(&object).await?)
    })
}

/// Checks that a text has the values of exactly these people.
fn has(what: &str, text: &str, people: &[(i64, &str, &str)], phones: bool) {
    for (id, email, phone) in PEOPLE {
        let expected = people.iter().any(|(other, ..)| *other == id);
        assert!(text.contains(&id.to_string()), "{what}: no row {id} in\n{text}");
        assert_eq!(text.contains(email), expected, "{what}: {email} in\n{text}");
        assert_eq!(text.contains(phone), expected && phones, "{what}: {phone} in\n{text}");
    }
}

#[test]
fn recipes_decrypt_as_they_stand() {
    let workspace = protected("decrypting").unwrap();
    erase_first_patient(&workspace).unwrap();
    let access = workspace.access();
    let recipes = Recipes::of(DOCUMENT);
    let place = ("\"lake\", \"tables/_keys\"", "\"firn\", \"decrypting/tables/_keys\"");
    fs::write(run_dir().join("firn_keys.py"), recipes.adapted("keys", &[place])).unwrap();

    let pyiceberg = access.pyiceberg.to_string();
    let glue = ("{\"type\": \"glue\", \"client.region\": \"eu-central-1\"}", pyiceberg.as_str());
    let endpoint = S3Server::shared(Kind::Ministack).endpoint();
    let environment = [("AWS_ENDPOINT_URL", endpoint.as_str())];
    let mut in_spark = spark_with(access).unwrap();
    for (table, whose) in [("decrypting.people", &PEOPLE[..]), ("decrypting.patients", &PEOPLE[1..])] {
        let table = ("shop.people", table);
        for (name, phones) in [("python", true), ("duckdb", false)] {
            let script = recipes.adapted(name, &[glue, table]);
            let printed = python(&format!("decrypt-{name}"), &script, &environment).unwrap();
            has(&format!("{name}, {}", table.1), &printed, whose, phones);
        }
        in_spark.push_str(&recipes.adapted("spark", &[table]));
        in_spark.push_str("print('next table')\n");
    }
    let printed = python("decrypt-spark", &in_spark, &environment).unwrap();
    let (people, patients) = printed.split_once("next table").unwrap();
    has("Spark, people", people, &PEOPLE, true);
    has("Spark, patients", patients, &PEOPLE[1..], true);
}
