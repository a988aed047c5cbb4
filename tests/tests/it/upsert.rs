//! Tables whose rows change, seen by other readers: whatever strategy and catalog, DuckDB, Spark and PyIceberg find the
//! newest version of every key and nothing else, also after Spark wrote between our runs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::readers::{Access, Rows};
use firn_e2e::rig::workspace::Workspace;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const PARTITIONS: usize = 3;

/// Tables and how each is written; all take the same events.
const UPSERTS: [(&str, &str); 3] = [
    ("rewritten", "writeStrategy: copyOnWrite"),
    ("positions", "writeStrategy: mergeOnRead"),
    ("equalities", "writeStrategy: mergeOnRead, deleteFiles: equality"),
];
const RELOADED: &str = "reloaded";

/// 2024-05-01T00Z, seconds.
const START: i64 = 1_714_521_600;

fn pipeline(topic: &str, database: &str) -> String {
    let mut yaml = format!(
        "name: versions
ingestionUnit:
  kafka: {{cluster: events, topic: {topic}}}
  incomingData:
    format: json
    eventTime: {{path: $.moment, format: rfc3339}}
  raw: {{rotate: {{size: 256KiB, age: 1s}}}}
outsourcingUnit:
"
    );
    let columns = "columns: [{name: id, type: long}, {name: moment, type: timestamptz, required: true}, \
                   {name: n, type: long}, {name: name, type: string}]";
    let upserts = UPSERTS.map(|(table, how)| {
        (table, format!("mode: upsert, {how}, idColumns: [id], timestampColumns: [moment], sortBy: [id]"))
    });
    for (table, mode) in upserts.into_iter().chain([(RELOADED, "mode: truncateLoad".to_owned())]) {
        let table = format!("database: {database}, tableName: {table}, partitionBy: [hour(moment)], {mode}, {columns}");
        yaml.extend(["  - table: {", &table, "}\n"]);
    }
    yaml
}

/// One version of a key. Versions compare by time, then offset, then partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    minute: i64,
    offset: u64,
    partition: usize,
    n: i64,
}

impl Version {
    fn name(&self) -> String {
        format!("{}-{}", self.partition, self.offset)
    }

    /// The row as every reader is asked to write it.
    fn text(&self, id: i64) -> String {
        format!("{id}|{}|{}|{}", (START + self.minute * 60) * 1_000_000, self.n, self.name())
    }
}

/// Everything that was produced, and what tables are to make of it.
#[derive(Default)]
struct Model {
    ends: [u64; PARTITIONS],
    /// What an upsert holds.
    newest: BTreeMap<i64, Version>,
    /// Records of the last run.
    last: Vec<(i64, Version)>,
    /// Rows that somebody else deleted from the upserts.
    deleted: u64,
}

impl Model {
    /// The next `count` records: few keys and minutes, so many versions and many ties, in any order over the partitions.
    fn next(&mut self, count: usize, minutes: std::ops::Range<i64>, rng: &mut SmallRng) -> Vec<Record> {
        self.last.clear();
        let mut records = Vec::new();
        for _ in 0..count {
            let partition = rng.random_range(0..PARTITIONS);
            let offset = self.ends[partition];
            let (minute, n) = (rng.random_range(minutes.clone()), rng.random_range(-999..999));
            let (id, version) = (rng.random_range(0..120), Version { minute, offset, partition, n });
            self.ends[partition] += 1;
            self.last.push((id, version));
            let newest = self.newest.entry(id).or_insert(version);
            *newest = version.max(*newest);
            let at = DateTime::from_timestamp(START + minute * 60, 0).unwrap().format("%Y-%m-%dT%H:%M:%SZ");
            let payload = json!({"id": id, "moment": at.to_string(), "n": n, "name": version.name()}).to_string();
            records.push(Record::of(payload).on(partition as i32));
        }
        records
    }

    fn records(&self) -> u64 {
        self.ends.iter().sum()
    }

    /// What readers are to find in a table.
    fn answer(&self, table: &str) -> BTreeSet<String> {
        let rows: Vec<(i64, Version)> =
            if table == RELOADED { self.last.clone() } else { self.newest.iter().map(|(id, v)| (*id, *v)).collect() };
        let sum: i64 = rows.iter().map(|(_, version)| version.n).sum();
        let mut answer: BTreeSet<String> = rows.iter().map(|(id, version)| version.text(*id)).collect();
        answer.extend([format!("count {}", rows.len()), format!("sum {} of {}", sum, rows.len())]);
        answer
    }
}

/// Rows, count and sum of a table, each from a scan of its own: readers answer a bare count from metadata where they can.
fn question(table: &str, from: &str, micros: &str) -> String {
    format!(
        "SELECT '{table}' AS name, concat_ws('|', id, {micros}(moment), n, name) AS answer FROM {from}
         UNION ALL SELECT '{table}', concat('count ', count(*)) FROM {from}
         UNION ALL SELECT '{table}', concat('sum ', sum(n), ' of ', count(n)) FROM {from}"
    )
}

fn agree(reader: &str, table: &str, rows: &Rows, model: &Model) -> Result<()> {
    let of_table = rows.iter().filter(|row| row[0] == table);
    let found: Vec<String> = of_table.filter_map(|row| row[1].as_str().map(str::to_owned)).collect();
    let (expected, set) = (model.answer(table), found.iter().cloned().collect::<BTreeSet<_>>());
    let missing: Vec<_> = expected.difference(&set).take(5).collect();
    let extra: Vec<_> = set.difference(&expected).take(5).collect();
    ensure!(
        found.len() == expected.len() && missing.is_empty() && extra.is_empty(),
        "{reader} reads {} answers of {table}, expected {}; missing {missing:?}, unexpected {extra:?}",
        found.len(),
        expected.len()
    );
    Ok(())
}

fn tables() -> impl Iterator<Item = &'static str> {
    UPSERTS.map(|(table, _)| table).into_iter().chain([RELOADED])
}

/// Checks that all readers find in every table what the model says.
fn all_agree(access: &Access, database: &str, model: &Model) -> Result<()> {
    let ask = |table| question(table, &format!("{{c}}.{database}.{table}"), "unix_micros");
    let spark = access.spark(&[&tables().map(ask).collect::<Vec<_>>().join(" UNION ALL ")])?;
    for table in tables() {
        let (name, sql) = (format!("{database}.{table}"), question(table, "t", "epoch_us"));
        agree("Spark", table, &spark, model)?;
        agree("DuckDB", table, &access.duckdb(&name, &sql)?, model)?;
        match access.pyiceberg(&name, &sql) {
            // PyIceberg reads no equality deletes and says so.
            Err(error) if deletes(access, &name, "equality")? > 0 => {
                ensure!(error.to_string().contains("does not yet support equality deletes"), "{error:#}");
            }
            rows => agree("PyIceberg", table, &rows?, model)?,
        }
    }
    Ok(())
}

/// How many deletes of a kind the table's current snapshot has.
fn deletes(access: &Access, table: &str, kind: &str) -> Result<u64> {
    let snapshots = access.snapshots(table)?;
    let newest = snapshots.last().with_context(|| format!("{table} has no snapshot"))?;
    Ok(newest.summary.get(&format!("total-{kind}-deletes")).map_or(Ok(0), |count| count.parse())?)
}

/// What `reconcile --deep` says of each table, and its exit code.
fn accounts(workspace: &Workspace) -> Result<(BTreeMap<String, Value>, Option<i32>)> {
    let ended = workspace.compactor(&["reconcile", "--deep", "--output", "json"])?;
    let proofs: Vec<Value> = serde_json::from_value(ended.json()?)?;
    let by_table = proofs.into_iter().map(|proof| (proof["account"]["table"].as_str().unwrap().to_owned(), proof));
    Ok((by_table.collect(), ended.code))
}

fn sum(lines: &Value, field: &str) -> i64 {
    lines.as_array().into_iter().flatten().map(|line| line[field].as_i64().unwrap()).sum()
}

/// Checks the accounts: every record is a row or superseded, and rows that somebody else deleted are missed, no others.
fn accounts_agree(workspace: &Workspace, database: &str, model: &Model) -> Result<()> {
    let (proofs, code) = accounts(workspace)?;
    ensure!(code == Some(if model.deleted > 0 { 4 } else { 0 }), "exit code {code:?}: {proofs:?}");
    for table in tables() {
        let proof = &proofs[&format!("{database}.{table}")];
        let deleted = if table == RELOADED { 0 } else { model.deleted as i64 };
        let rows = if table == RELOADED { model.last.len() } else { model.newest.len() } as i64;
        let lines = &proof["account"]["partitions"];
        ensure!(lines.as_array().unwrap().iter().all(|line| line["difference"] == 0), "{proof}");
        ensure!(proof["account"]["tableRows"] == json!(rows), "{rows} rows, {proof}");
        ensure!(sum(lines, "rows") == rows + deleted, "{rows} rows and {deleted} deleted by others, {proof}");
        ensure!(sum(lines, "superseded") == model.records() as i64 - rows - deleted, "{proof}");
        let deep = &proof["deep"]["partitions"];
        let missing: i64 = deep.as_array().unwrap().iter().map(|line| line["missing"]["count"].as_i64().unwrap()).sum();
        ensure!(sum(deep, "rows") == rows && missing == model.records() as i64 - rows, "{proof}");
        let problems = proof["account"]["problems"].to_string();
        ensure!(problems.contains("somebody else has changed it") == (deleted > 0), "{proof}");
    }
    Ok(())
}

/// A topic of versions, and tables that follow it.
struct Versions {
    topic: String,
    /// Its own: tests share servers, and with them catalogs.
    database: String,
    workspace: Workspace,
    model: Model,
    rng: SmallRng,
}

impl Versions {
    fn new(name: &str, seed: u64, workspace: Workspace) -> Result<Self> {
        let topic = format!("versions.{name}");
        Kafka::shared().create_topic(&topic, PARTITIONS as i32, &[])?;
        let database = name.replace('-', "_");
        workspace.pipeline("versions", &pipeline(&topic, &database))?;
        Ok(Self { topic, database, workspace, model: Model::default(), rng: SmallRng::seed_from_u64(seed) })
    }

    /// Produces, lands and compacts; in each round most records are newer than the table and some are late.
    fn advance(&mut self, round: i64, count: usize) -> Result<()> {
        let records = self.model.next(count, round * 50..round * 50 + 150, &mut self.rng);
        Kafka::shared().produce(&self.topic, records)?;
        self.workspace.land()?;
        self.workspace.compact()?;
        Ok(())
    }

    /// The table with its database.
    fn name(&self, table: &str) -> String {
        format!("{}.{table}", self.database)
    }

    /// Runs statements with Spark; `{d}` stands for catalog and database.
    fn spark(&self, statements: &[String]) {
        let there = format!("{{c}}.{}.", self.database);
        let of = |text: &String| text.replace("{d}.", &there).replace("'t.", &format!("'{}.", self.database));
        let statements: Vec<String> = statements.iter().map(of).collect();
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        self.workspace.access().spark(&statements).unwrap();
    }

    /// Checks readers and accounts.
    fn check(&self, what: &str) {
        let checked = all_agree(self.workspace.access(), &self.database, &self.model);
        let checked = checked.and_then(|()| accounts_agree(&self.workspace, &self.database, &self.model));
        checked.context(what.to_owned()).unwrap();
    }

    /// Converts an hour range of every upsert again, twice; nothing may change.
    fn reprocess(&self) {
        for (table, _) in UPSERTS {
            for _ in 0..2 {
                let range = ["reprocess", "--table", table, "--from", "2024-05-01T01", "--to", "2024-05-01T03"];
                self.workspace.compactor(&range).unwrap().expect(&[0]).unwrap();
            }
        }
        self.check("after reprocess");
    }
}

/// The claims.
fn readers_follow(name: &str, seed: u64, workspace: Workspace) {
    let mut versions = Versions::new(name, seed, workspace).unwrap();
    for round in 0..3 {
        let before = versions.model.newest.clone();
        versions.advance(round, 250).unwrap();
        versions.check(&format!("{name}, round {round}"));
        let newest = &versions.model.newest;
        let moved = before.iter().filter(|(id, old)| newest[*id].minute / 60 != old.minute / 60).count();
        let stayed = before.iter().filter(|(id, old)| newest[*id] == **old).count();
        assert!(
            round == 0 || (moved > 0 && stayed > 0),
            "{moved} keys move to another hour, {stayed} stay as they are"
        );
    }
    let access = versions.workspace.access();
    let counts =
        |kind| tables().map(|table| deletes(access, &versions.name(table), kind).unwrap() > 0).collect::<Vec<_>>();
    assert_eq!(counts("position"), [false, true, false, false]);
    assert_eq!(counts("equality"), [false, false, true, false]);
    versions.reprocess();
}

#[test]
fn readers_follow_changed_tables_of_the_sqlite_catalog() {
    readers_follow("versions-sqlite", 1, Workspace::local("versions-sqlite", Kafka::shared()).unwrap());
}

#[test]
fn readers_follow_changed_tables_of_glue() {
    readers_follow("versions-glue", 2, Workspace::glue("versions-glue", Kafka::shared()).unwrap());
}

#[test]
fn readers_follow_changed_tables_of_a_rest_catalog() {
    readers_follow("versions-rest", 3, Workspace::seaweedfs("versions-rest", Kafka::shared()).unwrap());
}

/// Deletes some keys with Spark and changes others, in every upsert; the model follows.
fn change_with_spark(versions: &mut Versions) {
    let mut statements =
        vec!["ALTER TABLE {d}.positions SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')".to_owned()];
    for (table, _) in UPSERTS {
        statements.push(format!("DELETE FROM {{d}}.{table} WHERE id % 7 = 0"));
        statements.push(format!(
            "MERGE INTO {{d}}.{table} t USING (SELECT id FROM {{d}}.{table} WHERE id % 5 = 1) s ON t.id = s.id
             WHEN MATCHED THEN UPDATE SET n = t.n + 5000"
        ));
    }
    versions.spark(&statements);
    let newest = &mut versions.model.newest;
    let before = newest.len();
    newest.retain(|id, _| id % 7 != 0);
    versions.model.deleted += (before - newest.len()) as u64;
    newest.iter_mut().filter(|(id, _)| *id % 5 == 1).for_each(|(_, version)| version.n += 5000);
}

#[test]
fn spark_maintains_and_changes_tables_between_our_runs() {
    let workspace = Workspace::glue("versions-spark", Kafka::shared()).unwrap();
    let mut versions = Versions::new("versions-spark", 4, workspace).unwrap();
    for round in 0..2 {
        versions.advance(round, 200).unwrap();
    }
    let all = "options => map('rewrite-all', 'true')";
    versions.spark(&[
        "CALL {c}.system.rewrite_manifests(table => 't.rewritten', use_caching => false)".to_owned(),
        format!("CALL {{c}}.system.rewrite_position_delete_files(table => 't.positions', {all})"),
        // Deletes that outnumber the rows, as they do when those without effect pile up, are more than DuckDB 1.5 can plan.
        "CALL {c}.system.rewrite_data_files(table => 't.equalities',
             options => map('rewrite-all', 'true', 'remove-dangling-deletes', 'true'))"
            .to_owned(),
        format!("CALL {{c}}.system.rewrite_data_files(table => 't.reloaded', {all})"),
    ]);
    let access = versions.workspace.access();
    for table in tables() {
        let snapshots = access.snapshots(&versions.name(table)).unwrap();
        assert_eq!(snapshots.last().unwrap().operation, "replace", "Spark rewrote something of {table}");
    }
    assert_eq!(deletes(access, &versions.name("equalities"), "equality").unwrap(), 0);
    versions.check("after maintenance");
    versions.advance(2, 200).unwrap();
    versions.check("one run after maintenance");

    change_with_spark(&mut versions);
    assert!(versions.model.deleted > 0);
    versions.check("after changes by Spark");
    // Keys that Spark deleted come back with whatever version arrives; its changes last until a newer one does.
    for round in 3..5 {
        versions.advance(round, 100).unwrap();
        versions.check(&format!("round {round}, after changes by Spark"));
    }
    assert!(versions.model.newest.values().any(|version| version.n > 1000), "a change by Spark lasted");
    assert!(versions.model.newest.keys().any(|id| id % 7 == 0), "a key came back");
}
