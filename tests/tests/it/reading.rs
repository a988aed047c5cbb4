//! The recipes of `docs/reading.md` are run as they stand there; only addresses and secrets become those of the test.

use anyhow::{Context, Result};
use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::procs::source_dir;
use firn_e2e::rig::readers::Access;
use firn_e2e::rig::recipes::{Recipes, python, spark};
use firn_e2e::rig::s3::{KEY, REGION, SECRET};
use firn_e2e::rig::workspace::Workspace;
use serde_json::json;

const DOCUMENT: &str = "docs/reading.md";
const TABLE: &str = "shop.orders";

/// Customers, how many orders they have and for how much, after every order was updated once.
const ANSWER: [(&str, i64, &str); 3] = [("ann", 2, "21.75"), ("ben", 1, "100.00"), ("cleo", 3, "7.50")];

/// Lands orders, and a later version of each of them; upserted by position deletes.
fn fill(workspace: &Workspace, topic: &str) -> Result<()> {
    Kafka::shared().create_topic(topic, 1, &[])?;
    let yaml = format!(
        "name: orders
ingestionUnit:
  kafka: {{cluster: events, topic: {topic}}}
  incomingData:
    format: json
    eventTime: {{path: $.created_at, format: rfc3339}}
  raw: {{rotate: {{size: 256KiB, age: 1s}}}}
outsourcingUnit:
  - table:
      database: shop
      tableName: orders
      mode: upsert
      writeStrategy: mergeOnRead
      idColumns: [id]
      timestampColumns: [created_at]
      partitionBy: [day(created_at)]
      columns:
        - {{name: id, type: long, required: true}}
        - {{name: created_at, type: timestamptz, required: true}}
        - {{name: customer, type: string}}
        - {{name: price, type: 'decimal(12,2)'}}
"
    );
    workspace.pipeline("orders", &yaml)?;
    let orders =
        [("ann", "1.00"), ("ann", "20.75"), ("ben", "100.00"), ("cleo", "2.50"), ("cleo", "2.50"), ("cleo", "2.50")];
    for raised in [true, false] {
        let records = orders.iter().enumerate().map(|(id, (customer, price))| {
            let price = if raised { format!("9{price}") } else { (*price).to_owned() };
            let at = format!("2024-05-0{}T10:00:00Z", id + 1);
            Record::of(json!({"id": id, "created_at": at, "customer": customer, "price": price}).to_string())
        });
        Kafka::shared().produce(topic, records.collect::<Vec<_>>())?;
        workspace.land()?;
        workspace.compact()?;
    }
    Ok(())
}

/// Checks that a text names every customer with count and total, in order.
fn answers(what: &str, text: &str) {
    let mut rest = text;
    for (customer, count, total) in ANSWER {
        for part in [customer, &count.to_string(), total] {
            let at = rest.find(part).unwrap_or_else(|| panic!("{what}: no {part} for {customer} in\n{text}"));
            rest = &rest[at + part.len()..];
        }
    }
}

/// The same catalog in Trino as a recipe's properties file describes it, with what only the emulator needs.
fn trino_of(access: &Access, recipe: &str, name: &str) -> Access {
    let mut properties: Vec<(String, String)> = recipe
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| *key != "connector.name")
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let emulated = access.trino.iter().filter(|(key, _)| {
        ["endpoint", "access-key", "secret-key", "path-style"].iter().any(|part| key.contains(part))
    });
    properties.extend(emulated.cloned());
    Access { name: name.to_owned(), trino: properties, ..access.clone() }
}

/// DuckDB's statements; its extensions come from elsewhere here, and so do keys.
fn duckdb(name: &str, access: &Access, changes: &[(&str, &str)]) -> Result<String> {
    let s3 = access.s3.as_ref().context("the recipe reads S3")?;
    let secret = format!(
        "KEY_ID '{}', SECRET '{}', REGION '{REGION}', ENDPOINT '{}', URL_STYLE 'path', USE_SSL false",
        s3.key,
        s3.secret,
        s3.endpoint.trim_start_matches("http://")
    );
    let here = [("INSTALL iceberg; LOAD iceberg;\n", ""), ("PROVIDER credential_chain", secret.as_str())];
    let all: Vec<_> = here.iter().chain(changes).copied().collect();
    let readers = source_dir().join("tests/readers");
    let sql = json!(adapted(name, &all));
    // In a process of its own, which does not share its secrets.
    let script = format!(
        "import sys\nsys.path.insert(0, '{}')\nfrom duckdb_reader import connect\nprint(connect().execute({sql}).fetchall())\n",
        readers.display()
    );
    python(name, &script, &[])
}

fn adapted(name: &str, changes: &[(&str, &str)]) -> String {
    Recipes::of(DOCUMENT).adapted(name, changes)
}

fn in_lake(sql: &str) -> String {
    sql.replace("lake.shop", "{c}.shop")
}

#[test]
fn recipes_for_glue_work_as_they_stand() {
    let workspace = Workspace::glue("reading-glue", Kafka::shared()).unwrap();
    fill(&workspace, "orders.glue").unwrap();
    let access = workspace.access();
    // Athena names no catalog: it has Glue's.
    let athena = |name: &str| adapted(name, &[("FROM shop.", "FROM {c}.shop.")]);
    answers("Athena's", &format!("{:?}", access.trino(&[&athena("athena")]).unwrap()));
    let snapshots = access.trino(&[&athena("athena-snapshots")]).unwrap();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    let newest = snapshots[0][0].to_string();
    let history = athena("athena-history").replace("1234567890", &newest);
    answers("Athena's as of", &format!("{:?}", access.trino(&[&history]).unwrap()));
    let oldest = athena("athena-history").replace("1234567890", &snapshots[1][0].to_string());
    let before = format!("{:?}", access.trino(&[&oldest]).unwrap());
    assert!(
        before.contains("9100.00") && !before.contains("\"100.00\""),
        "the first snapshot has the first prices: {before}"
    );

    let region = ("eu-central-1", REGION);
    let trino = trino_of(access, &adapted("trino-glue", &[region]), "recipe_glue");
    answers("Trino's", &format!("{:?}", trino.trino(&[&in_lake(&adapted("trino", &[]))]).unwrap()));
    answers("Spark's", &python("spark-glue", &spark("spark-glue", access, &[]).unwrap(), &[]).unwrap());

    let pyiceberg = access.pyiceberg.to_string();
    let glue = ("{\"type\": \"glue\", \"client.region\": \"eu-central-1\"}", pyiceberg.as_str());
    answers("PyIceberg's", &python("pyiceberg", &adapted("pyiceberg", &[glue]), &[]).unwrap());
    let s3 = access.s3.as_ref().unwrap();
    let storage = format!(
        "\"shop.orders\"), storage_options={{'aws_endpoint_url': '{}', 'aws_access_key_id': '{}', 'aws_secret_access_key': '{}', \
         'aws_region': '{REGION}'}})",
        s3.endpoint, s3.key, s3.secret
    );
    let polars = adapted("polars", &[glue, ("\"shop.orders\"))", &storage)]);
    answers("Polars'", &python("polars", &polars, &[]).unwrap());

    let metadata = access.metadata(TABLE).unwrap().unwrap();
    let file = [("s3://lake/shop/orders/metadata/00012-5b2e.metadata.json", metadata.as_str())];
    answers("DuckDB's", &duckdb("duckdb-file", access, &file).unwrap());
}

#[test]
fn recipes_for_a_rest_catalog_work_as_they_stand() {
    let workspace = Workspace::seaweedfs("reading-rest", Kafka::shared()).unwrap();
    fill(&workspace, "orders.rest").unwrap();
    let access = workspace.access();
    let uri = access.pyiceberg["uri"].as_str().unwrap();
    let credential = format!("{KEY}:{SECRET}");
    let (uri, region) = (("https://catalog.example.com", uri), ("eu-central-1", REGION));

    let properties = adapted("trino-rest", &[uri, region, ("client:secret", &credential)]);
    let trino = trino_of(access, &properties, "recipe_rest");
    answers("Trino's", &format!("{:?}", trino.trino(&[&in_lake(&adapted("trino", &[]))]).unwrap()));
    answers(
        "Spark's",
        &python("spark-rest", &spark("spark-rest", access, &[uri, ("client:secret", &credential)]).unwrap(), &[])
            .unwrap(),
    );
    let client = format!("CLIENT_ID '{KEY}', CLIENT_SECRET '{SECRET}'");
    let duck = [uri, ("CLIENT_ID 'client', CLIENT_SECRET 'secret'", client.as_str())];
    answers("DuckDB's", &duckdb("duckdb-rest", access, &duck).unwrap());
}
