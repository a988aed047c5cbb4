//! Real events through the whole house; what readers find in the tables is checked against the events themselves.

use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::procs::source_dir;
use firn_e2e::rig::readers::{Rows, duckdb_sql};
use firn_e2e::rig::samples::{GITHUB_TYPES, fixture, github, zeek_dns};
use firn_e2e::rig::workspace::Workspace;
use serde_json::json;

/// The example pipeline that also the quickstart runs.
const GITHUB: &str = "deploy/examples/github/pipelines/github-events.yaml";

/// Checks the GitHub table with both readers and all accounts.
fn check_github(workspace: &Workspace, table: &str) {
    let hours: Rows = (6..10).map(|hour| vec![json!(hour), json!(200)]).collect();
    let types: Rows = GITHUB_TYPES.iter().map(|(name, count)| vec![json!(name), json!(count)]).collect();
    let ask = |from: &str| {
        let by_hour = format!("SELECT hour(created_at), count(*) FROM {from} GROUP BY 1 ORDER BY 1");
        let by_type = format!("SELECT type, count(*) FROM {from} GROUP BY 1 ORDER BY 2 DESC, 1");
        (by_hour, by_type)
    };
    let (by_hour, by_type) = ask("t");
    assert_eq!(workspace.access().duckdb(table, &by_hour).unwrap(), hours);
    assert_eq!(workspace.access().duckdb(table, &by_type).unwrap(), types);
    let (by_hour, by_type) = ask(&format!("{{c}}.{table}"));
    assert_eq!(workspace.access().spark(&[&by_hour]).unwrap(), hours);
    assert_eq!(workspace.access().spark(&[&by_type]).unwrap(), types);
    workspace.reconcile().unwrap();
}

/// Sends the GitHub events through a workspace with the example pipeline on a topic of its own.
fn github_through(workspace: &Workspace, topic: &str) {
    let kafka = Kafka::shared();
    kafka.create_topic(topic, 3, &[]).unwrap();
    let pipeline = std::fs::read_to_string(source_dir().join(GITHUB)).unwrap();
    assert!(pipeline.contains("topic: github.events"));
    workspace.pipeline("github-events", &pipeline.replace("topic: github.events", &format!("topic: {topic}"))).unwrap();
    kafka.produce(topic, github().into_iter().map(Record::of)).unwrap();
    workspace.land().unwrap();
    workspace.compact().unwrap();
}

#[test]
fn eight_hundred_github_events_arrive_in_their_hours_and_types() {
    let workspace = Workspace::local("github", Kafka::shared()).unwrap();
    github_through(&workspace, "github.local");
    check_github(&workspace, "github.events");
    // Nothing new: nothing happens.
    let snapshots = workspace.access().snapshots("github.events").unwrap().len();
    workspace.land().unwrap();
    assert_eq!(workspace.compactor(&["run"]).unwrap().code, Some(99));
    assert_eq!(workspace.access().snapshots("github.events").unwrap().len(), snapshots);
}

#[test]
fn github_events_through_s3_and_a_rest_catalog() {
    let workspace = Workspace::seaweedfs("github-rest", Kafka::shared()).unwrap();
    github_through(&workspace, "github.rest");
    check_github(&workspace, "github.events");
}

#[test]
fn github_events_through_s3_and_glue() {
    let workspace = Workspace::glue("github-glue", Kafka::shared()).unwrap();
    github_through(&workspace, "github.glue");
    check_github(&workspace, "github.events");
}

/// Column of the JSON, column of the table, and an expression over `x` that would notice a wrong value.
fn zeek_columns() -> Vec<(&'static str, String, &'static str)> {
    const TEXT: &str = "sum(length(x)) || '/' || count(DISTINCT x)";
    const NUMBER: &str = "sum(CAST(x AS DECIMAL(38, 15)))";
    const TIME: &str = "sum(epoch_us(x))";
    const FLAG: &str = "count_if(x)";
    const TEXTS: &str = "sum(length(array_to_string(x, ',')) + len(x))";
    const NUMBERS: &str = "sum(list_sum(list_transform(x, lambda v: CAST(v AS DECIMAL(30, 9)))) + len(x))";
    let columns = [
        (
            TEXT,
            &["_path", "uid", "id.orig_h", "id.resp_h", "proto", "query", "qclass_name", "qtype_name", "rcode_name"][..],
        ),
        (NUMBER, &["id.orig_p", "id.resp_p", "trans_id", "rtt", "qclass", "qtype", "rcode", "Z"]),
        (TIME, &["_write_ts", "ts"]),
        (FLAG, &["AA", "TC", "RD", "RA", "rejected"]),
        (TEXTS, &["answers"]),
        (NUMBERS, &["TTLs"]),
    ];
    let each = |(check, names): (&'static str, &'static [&'static str])| {
        names.iter().map(move |name| (*name, name.to_lowercase().replace('.', "_"), check))
    };
    columns.into_iter().flat_map(each).collect()
}

#[test]
fn zeek_dns_events_agree_with_a_direct_read_in_every_column() {
    let kafka = Kafka::shared();
    let workspace = Workspace::local("zeek", kafka).unwrap();
    kafka.create_topic("zeek.dns", 4, &[]).unwrap();
    workspace.pipeline("zeek-dns", &std::fs::read_to_string(fixture("pipelines/zeek-dns.yaml")).unwrap()).unwrap();
    kafka.produce("zeek.dns", zeek_dns().into_iter().map(Record::of)).unwrap();
    workspace.land().unwrap();
    workspace.compact().unwrap();

    let select = |columns: Vec<(String, &str)>| {
        let checks: Vec<String> = columns
            .iter()
            .map(|(name, check)| format!("count(\"{name}\"), {}", check.replace('x', &format!("\"{name}\""))))
            .collect();
        format!("SELECT count(*), {} FROM ", checks.join(", "))
    };
    let columns = zeek_columns();
    assert_eq!(columns.len(), 26, "every column of the log");
    let direct = select(columns.iter().map(|(json, _, check)| ((*json).to_owned(), *check)).collect());
    let table = select(columns.iter().map(|(_, table, check)| (table.clone(), *check)).collect());
    let expected = duckdb_sql(&format!("{direct} read_json('{}')", fixture("zeek-dns.ndjson.zst").display())).unwrap();
    let found = workspace.access().duckdb("zeek.dns", &format!("{table} t")).unwrap();
    for (i, value) in expected[0].iter().enumerate() {
        let column = if i == 0 { "rows" } else { columns[(i - 1) / 2].0 };
        assert_eq!(&found[0][i], value, "{column}: table, then direct read");
    }
    assert_eq!(expected[0][0], json!(53_615));
    workspace.reconcile().unwrap();
}
