//! Look-ups in files that other programs wrote, in a bucket; and the same pipeline tested without it.

use std::path::Path;
use std::process::Command;

use firn_e2e::rig::kafka::{Kafka, Record, block_on};
use firn_e2e::rig::programs::{program, run_command};
use firn_e2e::rig::readers::venv;
use firn_e2e::rig::s3::{Kind, S3Server};
use firn_e2e::rig::workspace::Workspace;
use firn_shared::store::{PutMode, PutOutcome};
use serde_json::json;

/// Writes `arrow.parquet` (zstd) and `duckdb.parquet` (snappy): the same stores, as each program has them.
const WRITE: &str = r"
import decimal, duckdb, pyarrow as pa, pyarrow.parquet as pq
rows = {
    'code': ['B1', 'M2'],
    'name': pa.array(['Berlin', 'München'], pa.large_string()),
    'area': pa.array([decimal.Decimal('12345678901234567890.123456789'), None], pa.decimal128(38, 9)),
    'visits': pa.array([9007199254740993, -1], pa.int64()),
    'opened': pa.array([1626847200000001, -1], pa.timestamp('us', 'Europe/Berlin')),
    'closes': pa.array([18829, None], pa.date32()),
    'kind': pa.array(['shop', 'shop']).dictionary_encode(),
    'tags': [['a', None], []],
}
stores = pa.table(rows)
pq.write_table(stores, 'arrow.parquet', compression='zstd')
duckdb.sql('set timezone = \'UTC\'')
duckdb.sql('copy (select * from stores) to \'duckdb.parquet\' (format parquet, codec snappy)')
";

const PIPELINE: &str = "
name: sales
ingestionUnit:
  kafka: {cluster: events, topic: sales}
  incomingData: {format: json, eventTime: {path: $.at, format: rfc3339}}
outsourcingUnit:
  - table:
      database: shops
      tableName: sales
      partitionBy: [day(at)]
      columns:
        - {name: id, type: long, required: true}
        - {name: at, type: timestamptz, required: true}
        - {name: store, type: string}
    transformations:
      - lookup: &STEP
";

fn pipeline() -> String {
    let types = "name: string, area: 'decimal(38,9)', visits: long, opened: timestamptz, closes: date, kind: string, \
                 tags: 'list<string>'";
    let arrow = format!("{{column: store, file: 's3://raw/reference/arrow.parquet', key: code, take: {{{types}}}}}");
    let duckdb = format!(
        "{{column: store, file: 's3://raw/reference/duckdb.parquet', key: code, take: {{{types}}}, prefix: again_}}"
    );
    let csv =
        "{column: store, file: 's3://raw/reference/regions.csv', key: store, take: {region: string}, missing: reject}";
    PIPELINE
        .replace("      - lookup: &STEP\n", &[&arrow, &duckdb, csv].map(|s| format!("      - lookup: {s}\n")).concat())
}

fn write_stores(folder: &Path) {
    let mut python = Command::new(venv("python"));
    python.args(["-c", WRITE]).current_dir(folder);
    run_command("python", python).unwrap().expect(&[0]).unwrap();
    std::fs::write(folder.join("regions.csv"), "store,region\nB1,\"north, east\"\nM2,south\n").unwrap();
}

#[test]
fn files_of_other_programs_in_a_bucket_are_looked_up() {
    let kafka = Kafka::shared();
    kafka.create_topic("sales", 1, &[]).unwrap();
    let workspace = Workspace::seaweedfs("lookups", kafka).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_stores(folder.path());
    workspace.pipeline("sales", &pipeline()).unwrap();
    let stores = ["B1", "M2", "X3"];
    let sale = |id: usize| json!({"id": id, "at": "2026-11-22T07:00:00Z", "store": stores[id]});
    kafka.produce("sales", (0..3).map(|id| Record::of(sale(id).to_string()))).unwrap();
    workspace.land().unwrap();

    let told = workspace.compactor(&["run"]).unwrap().expect(&[2]).unwrap().stderr;
    assert!(
        told.contains("sales.yaml:16:") && told.contains("there is no file s3://raw/reference/arrow.parquet"),
        "{told}"
    );
    let bucket = block_on(S3Server::shared(Kind::SeaweedFs).bucket("raw")).unwrap();
    for name in ["arrow.parquet", "duckdb.parquet", "regions.csv"] {
        let file = std::fs::read(folder.path().join(name)).unwrap();
        let key = format!("reference/{name}");
        let outcome = block_on(bucket.put(&key, file.into(), PutMode::Overwrite)).unwrap();
        assert_eq!(outcome, PutOutcome::Written);
    }
    workspace.compact().unwrap();
    let ask = |table: &str, sql: &str| workspace.access().duckdb(table, sql).unwrap();
    let same = "name = again_name and area is not distinct from again_area and visits = again_visits \
                and opened = again_opened and closes is not distinct from again_closes and kind = again_kind \
                and tags = again_tags";
    let sql = format!(
        "SELECT id, name, area::VARCHAR, visits, epoch_us(opened), closes::VARCHAR, kind, tags::VARCHAR, region, {same} \
         FROM t ORDER BY id"
    );
    let rows = json!([
        [
            0,
            "Berlin",
            "12345678901234567890.123456789",
            9_007_199_254_740_993_i64,
            1_626_847_200_000_001_i64,
            "2021-07-21",
            "shop",
            "[a, NULL]",
            "north, east",
            true
        ],
        [1, "München", null, -1, -1, null, "shop", "[]", "south", true],
    ]);
    assert_eq!(json!(ask("shops.sales", &sql)), rows);
    let refused = ask("shops.sales_quarantine", "SELECT json_path, reason FROM t");
    assert_eq!(json!(refused), json!([["store", "missing"]]));
    workspace.reconcile().unwrap();
}

#[test]
fn a_pipeline_that_looks_up_in_a_bucket_is_tested_without_it() {
    let folder = tempfile::tempdir().unwrap();
    write_stores(folder.path());
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("sales.yaml", &pipeline());
    write(
        "sales.test.yaml",
        "lookups:
  s3://raw/reference/arrow.parquet: arrow.parquet
  s3://raw/reference/duckdb.parquet: duckdb.parquet
  s3://raw/reference/regions.csv: regions.csv
cases:
  - name: a store has its name
    events:
      - value: {id: 1, at: '2026-11-22T07:00:00Z', store: B1}
      - value: {id: 2, at: '2026-11-22T07:00:00Z', store: X3}
    expect:
      table:
        rows: [{id: 1, name: Berlin, again_area: '12345678901234567890.123456789', tags: [a, null], region: 'north, east'}]
        quarantine: [{event: 2, reason: missing, step: 3}]
",
    );
    // No search path, no home, no credentials, no region: no bucket could be asked.
    let mut command = Command::new(program("compactor"));
    command.env_clear().arg("test").arg(folder.path());
    let tested = run_command("compactor", command).unwrap().expect(&[0]).unwrap();
    assert!(tested.stdout.contains("1 passed"), "{}", tested.stdout);
}
