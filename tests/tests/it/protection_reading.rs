//! Protected columns read by others: the recipes of `docs/protection-reading.md` as they stand there, Athena's function
//! against Athena's own SDK, and roles as permissions of Lake Formation.

use std::fs;

use anyhow::{Result, ensure};
use firn_e2e::rig::kafka::{Kafka, Record, block_on};
use firn_e2e::rig::lambda::{AthenaPeer, Lambda};
use firn_e2e::rig::moto::MotoServer;
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
    let columns = |place: &str| {
        let [email, phone] =
            ["email", "phone"].map(|name| format!("{{name: {name}, type: string, path: {place}.{name}}}"));
        format!("columns: [{{name: id, type: long, required: true}}, {email}, {phone}]")
    };
    let (of_people, of_patients) = (columns("$"), columns("$.patient"));
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
      piiColumns: [{{name: email, protect: encrypt, token: true}}, {{name: phone, protect: encrypt, aad: phone, encoding: binary}}]
      {of_people}
  - table:
      database: {database}
      tableName: patients
      piiColumns: [{{name: email, protect: encrypt, subject: id}}, {{name: phone, protect: encrypt, aad: phone, encoding: binary, subject: id}}]
      {of_patients}
"
    );
    workspace.pipeline("people", &yaml)?;
    let records = PEOPLE.map(|(id, email, phone)| {
        let patient = json!({"email": email, "phone": phone});
        Record::of(json!({"id": id, "email": email, "phone": phone, "patient": patient}).to_string())
    });
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

/// The first column of rows.
fn first(rows: &[Vec<Value>]) -> Vec<Value> {
    rows.iter().map(|row| row[0].clone()).collect()
}

#[test]
fn athenas_sdk_and_our_function_understand_each_other() {
    let workspace = protected("athena-udf").unwrap();
    let access = workspace.access();
    let mut lambda = Lambda::start("firn-athena-udf", &workspace.dir().join("firn.yaml")).unwrap();
    let mut athena = AthenaPeer::start().unwrap();
    let mut rows = sealed(access, "athena_udf.people", "email");
    let mut emails: Vec<Value> = PEOPLE.iter().map(|(_, email, _)| json!(email)).collect();
    assert!(first(&rows).iter().zip(&emails).all(|(sealed, email)| sealed != email));
    rows.push(vec![Value::Null, Value::Null]);
    emails.push(Value::Null);

    for version in 2..=6 {
        let ping = athena.ping(version).unwrap();
        let pong = athena.read(version, &lambda.invoke(&ping).unwrap()["response"]).unwrap();
        assert_eq!((&pong["queryId"], &pong["catalogName"]), (&json!("query-1"), &json!("lambda")), "{pong}");
        let call = athena.call(version, "firn_decrypt", 2, &rows).unwrap();
        let answer = athena.read(version, &lambda.invoke(&call).unwrap()["response"]).unwrap();
        assert_eq!(answer["values"], json!(emails), "version {version}: {answer}");
        assert_eq!(answer["methodName"], "firn_decrypt");
    }
    let mut decrypt = |rows: &[Vec<Value>]| {
        let call = athena.call(5, "firn_decrypt", rows.first().map_or(2, Vec::len), rows).unwrap();
        athena.read(5, &lambda.invoke(&call).unwrap()["response"]).unwrap()["values"].clone()
    };
    assert_eq!(decrypt(&[]), json!([]));
    let mut phones = sealed(access, "athena_udf.people", "base64(phone)");
    for row in &mut phones {
        row[0] = json!({"base64": row[0]});
        row.push(json!("phone"));
    }
    assert_eq!(decrypt(&phones), json!(PEOPLE.map(|(_, _, phone)| phone)));
    let patients = sealed(access, "athena_udf.patients", "email");
    assert_eq!(decrypt(&patients), json!(PEOPLE.map(|(_, email, _)| email)));
    erase_first_patient(&workspace).unwrap();
    assert_eq!(decrypt(&patients), json!([null, PEOPLE[1].1, PEOPLE[2].1]), "erased is null");
}

#[test]
fn our_function_refuses_without_repeating_what_it_was_given() {
    let workspace = protected("athena-refused").unwrap();
    let mut lambda = Lambda::start("firn-athena-udf", &workspace.dir().join("firn.yaml")).unwrap();
    let mut athena = AthenaPeer::start().unwrap();
    let rows = sealed(workspace.access(), "athena_refused.people", "email");
    let (email, key) = (rows[0][0].clone(), rows[0][1].clone());
    let plain = PEOPLE[0].1;
    for (row, method, expected) in [
        (
            vec![sealed(workspace.access(), "athena_refused.people", "base64(phone)")[0][0].clone(), key.clone()],
            "firn_decrypt",
            "other additional data",
        ),
        (vec![json!("AAAA"), key.clone()], "firn_decrypt", "too short"),
        (vec![json!({"base64": "AAAA"}), key.clone()], "firn_decrypt", "too short"),
        (vec![email.clone(), json!({"base64": "AAAA"})], "firn_decrypt", "with value VARBINARY"),
        (vec![json!(plain), key.clone()], "firn_decrypt", "not base64"),
        (vec![email.clone(), json!("people/99")], "firn_decrypt", "0000000099"),
        (vec![email.clone(), json!(plain)], "firn_decrypt", "is not the `_key_` column"),
        (vec![email.clone(), json!("zebedee/1")], "firn_decrypt", "it has: people"),
        (vec![email.clone(), Value::Null], "firn_decrypt", "was never encrypted"),
        (vec![email.clone()], "firn_decrypt", "declare firn_decrypt with the arguments"),
        (vec![email.clone(), key.clone()], "firn_encrypt", "there is no function firn_encrypt"),
    ] {
        let call = athena.call(5, method, row.len(), std::slice::from_ref(&row)).unwrap();
        let failure = lambda.invoke(&call).unwrap()["failure"].to_string();
        assert!(failure.contains(expected), "expected {expected}: {failure}");
        assert!(!failure.contains(plain) && !failure.contains("zebedee"), "{failure}");
    }
    let call = athena.call(5, "firn_decrypt", 2, &rows).unwrap();
    let answer = athena.read(5, &lambda.invoke(&call).unwrap()["response"]).unwrap();
    assert_eq!(answer["values"], json!(PEOPLE.map(|(_, email, _)| email)), "it goes on after failures");
    let log = fs::read_to_string(lambda.log()).unwrap();
    assert!(log.contains("decrypted"), "{log}");
    assert!(PEOPLE.iter().all(|(_, email, phone)| !log.contains(email) && !log.contains(phone)), "{log}");
}

#[test]
fn a_function_that_cannot_begin_says_why() {
    let missing = run_dir().join("no-such-firn.yaml");
    let error = Lambda::start("firn-athena-udf", &missing).unwrap_err().to_string();
    assert!(error.contains("no-such-firn.yaml"), "{error}");
}

#[test]
fn roles_become_permissions_of_lake_formation_once() {
    let moto = MotoServer::start(&run_dir().join("moto")).unwrap();
    let workspace = protected("granting").unwrap();
    let (role, other) = ("arn:aws:iam::123456789012:role/analyst", "arn:aws:iam::123456789012:role/other");
    let access = |roles: &str| format!("access:\n  endpoint: '{}'\n  roles: {roles}\nlanding:", moto.endpoint());
    let of = |reads: &str| access(&format!("{{analysts: {{principals: '{role}', reads: [{reads}]}}}}"));
    let grants = |arguments: &[&str], code: i32| {
        let ended = workspace.compactor(&[&["grants"][..], arguments].concat()).unwrap().expect(&[code]).unwrap();
        ended.stdout.lines().map(|line| line.replace(role, "R")).collect::<Vec<_>>()
    };

    let plain = of("{database: granting}");
    workspace.reconfigure("landing:", &plain).unwrap();
    let expected = [
        "+ R: DESCRIBE on database granting",
        "+ R: DESCRIBE on granting.patients",
        "+ R: DESCRIBE on granting.people",
        "+ R: SELECT on granting.patients (_firn, _key_people, id)",
        "+ R: SELECT on granting.people (_firn, _key_people, email_token, id)",
    ];
    assert_eq!(grants(&["--dry-run"], 0), expected);
    assert_eq!(moto.permissions(role).unwrap().len(), 0, "a dry run changes nothing");
    assert_eq!(grants(&[], 0), expected);
    assert_eq!(grants(&[], 99), [""; 0], "there is nothing left to do");
    let held = moto.permissions(role).unwrap();
    let columns: Vec<&Value> = held.iter().map(|one| &one["Resource"]["TableWithColumns"]["ColumnNames"]).collect();
    assert!(columns.contains(&&json!(["_firn", "_key_people", "email_token", "id"])), "{held:?}");

    // Others' permissions stay, what the role has more is taken.
    let all = json!({"Table": {"DatabaseName": "granting", "TableWildcard": {}}});
    moto.grant(role, &all, "SELECT").unwrap();
    moto.grant(other, &all, "SELECT").unwrap();
    moto.grant(role, &json!({"Table": {"DatabaseName": "elsewhere", "Name": "t"}}), "SELECT").unwrap();
    let personal = of("{database: granting, tables: [people], personal: true}");
    workspace.reconfigure(&plain, &personal).unwrap();
    let expected = [
        "- R: SELECT on all tables of granting",
        "- R: DESCRIBE on granting.patients",
        "- R: SELECT on granting.patients (_firn, _key_people, id)",
        "- R: SELECT on granting.people (_firn, _key_people, email_token, id)",
        "+ R: SELECT on granting.people",
    ];
    assert_eq!(grants(&[], 0), expected);
    assert_eq!(grants(&["--output", "json"], 99), ["[]"]);
    assert_eq!(moto.permissions(other).unwrap().len(), 1);
    assert_eq!(moto.permissions(role).unwrap().len(), 3, "on the database, on the table, and elsewhere");

    // A role that is no longer written loses what it had; what was never ours stays.
    workspace.reconfigure(&personal, &access("{}")).unwrap();
    assert_eq!(
        grants(&[], 0),
        ["- R: DESCRIBE on database granting", "- R: DESCRIBE on granting.people", "- R: SELECT on granting.people"]
    );
    assert_eq!(grants(&[], 99), [""; 0]);
    assert_eq!(moto.permissions(role).unwrap().len(), 1, "elsewhere");

    // Nonsense is refused with its place, by `check` too.
    workspace.reconfigure(&access("{}"), &of("{database: granting, tables: [people], columns: [email]}")).unwrap();
    for command in [&["check", "--offline"][..], &["grants"]] {
        let ended = workspace.compactor(command).unwrap().expect(&[2]).unwrap();
        let place = "access.roles.analysts.reads[0].tables[0]: column `email` of people is personal data";
        assert!(ended.stderr.contains("firn.yaml:") && ended.stderr.contains(place), "{}", ended.stderr);
    }
}
