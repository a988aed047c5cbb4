//! Every engine reads it: whatever mode, strategy and catalog, DuckDB, PyIceberg, Spark and Trino find the same rows after
//! every kind of commit, and those are the rows that the model has; also after Spark wrote between our runs.

mod agreement;
mod changes;
mod versions;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use firn_e2e::rig::kafka::Kafka;
use firn_e2e::rig::workspace::Workspace;
use serde_json::{Value, json};

use self::agreement::{deletes, read_by_all, same};
use self::changes::Source;
use self::versions::{Holds, Model, TABLES, Versions, tables};

const SUMS: &str = "sum(n) AS n, sum(small) AS small, sum(price) AS price, sum(large) AS large, min(moment) AS lo, \
                    max(local) AS hi, count(doc) AS docs, min(day) AS day, max(name) AS name";

/// Checks that all readers find in every table what the model says.
fn all_agree(versions: &Versions) -> Result<()> {
    for (table, holds, _) in TABLES {
        let name = versions.name(table);
        let mut rows = read_by_all(versions.workspace.access(), &name, SUMS)?;
        rows.sort_unstable();
        same(&format!("readers and the model of {name}"), &rows, &versions.model.rows(holds))?;
    }
    Ok(())
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
    for (table, holds, _) in TABLES {
        let proof = &proofs[&format!("{database}.{table}")];
        let deleted = if holds == Holds::Newest { model.deleted as i64 } else { 0 };
        let rows = model.count(holds) as i64;
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

/// Checks readers and accounts.
fn check(versions: &Versions, what: &str) {
    let checked = all_agree(versions);
    let checked = checked.and_then(|()| accounts_agree(&versions.workspace, &versions.database, &versions.model));
    checked.context(what.to_owned()).unwrap();
}

/// The claims.
fn readers_follow(name: &str, seed: u64, workspace: Workspace) {
    let mut versions = Versions::new(name, seed, workspace).unwrap();
    for round in 0..3 {
        let before = versions.model.newest.clone();
        versions.advance(round, 250).unwrap();
        check(&versions, &format!("{name}, round {round}"));
        let newest = &versions.model.newest;
        let moved = before.iter().filter(|(id, old)| newest[*id].minute / 60 != old.minute / 60).count();
        let stayed = before.iter().filter(|(id, old)| newest[*id] == **old).count();
        assert!(
            round == 0 || (moved > 0 && stayed > 0),
            "{moved} keys move to another hour, {stayed} stay as they are"
        );
    }
    let access = versions.workspace.access();
    let with = |kind| {
        let some = TABLES.into_iter().filter(|(table, ..)| deletes(access, &versions.name(table), kind).unwrap() > 0);
        some.map(|(table, ..)| table).collect::<Vec<_>>()
    };
    assert_eq!((with("position"), with("equality")), (vec!["positions"], vec!["equalities"]));
    maintain(&versions);
    check(&versions, "after maintenance");
    versions.advance(3, 150).unwrap();
    check(&versions, "one run after maintenance");
    versions.reprocess();
    check(&versions, "after reprocess");
}

/// Compacts files, merges manifests and expires the snapshots of all runs so far.
fn maintain(versions: &Versions) {
    let ended = versions.workspace.compactor(&["maintain", "--only", "compact,manifests,expire"]).unwrap();
    ended.expect(&[0]).unwrap();
    for (table, holds, _) in TABLES {
        let snapshots = versions.workspace.access().snapshots(&versions.name(table)).unwrap();
        let rewrites = snapshots.iter().filter(|snapshot| snapshot.operation == "replace").count();
        let left = snapshots.len() - rewrites;
        // A load leaves one file an hour: there is nothing to rewrite, and its snapshot stays.
        assert_eq!((rewrites > 0, left), if holds == Holds::Last { (false, 1) } else { (true, 0) }, "{table}");
    }
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

/// Deletes at the source reach all readers.
fn deleted_rows_are_gone(name: &str, seed: u64, workspace: Workspace) {
    let mut source = Source::new(name, seed, &workspace).unwrap();
    for round in 0..2 {
        source.produce(150).unwrap();
        workspace.land().unwrap();
        workspace.compact().unwrap();
        source.check(&workspace).context(format!("{name}, round {round}")).unwrap();
    }
    workspace.reconcile().unwrap();
}

#[test]
fn rows_deleted_at_the_source_are_gone_for_all_readers_of_the_sqlite_catalog() {
    deleted_rows_are_gone("gone-sqlite", 5, Workspace::local("gone-sqlite", Kafka::shared()).unwrap());
}

#[test]
fn rows_deleted_at_the_source_are_gone_for_all_readers_of_glue() {
    deleted_rows_are_gone("gone-glue", 6, Workspace::glue("gone-glue", Kafka::shared()).unwrap());
}

#[test]
fn rows_deleted_at_the_source_are_gone_for_all_readers_of_a_rest_catalog() {
    deleted_rows_are_gone("gone-rest", 7, Workspace::seaweedfs("gone-rest", Kafka::shared()).unwrap());
}

/// Deletes some keys with Spark and changes others, in every upsert; the model follows.
fn change_with_spark(versions: &mut Versions) {
    let mut statements =
        vec!["ALTER TABLE {d}.positions SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')".to_owned()];
    for table in tables(Holds::Newest) {
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

/// What Spark offers for the upkeep of a table, each on the table that needs it.
fn maintain_with_spark(versions: &Versions) {
    let all = "options => map('rewrite-all', 'true')";
    versions.spark(&[
        "CALL {c}.system.rewrite_manifests(table => 't.rewritten', use_caching => false)".to_owned(),
        format!("CALL {{c}}.system.rewrite_position_delete_files(table => 't.positions', {all})"),
        // Deletes that outnumber the rows, as they do when those without effect pile up, are more than DuckDB 1.5 can plan.
        "CALL {c}.system.rewrite_data_files(table => 't.equalities',
             options => map('rewrite-all', 'true', 'remove-dangling-deletes', 'true'))"
            .to_owned(),
        format!("CALL {{c}}.system.rewrite_data_files(table => 't.reloaded', {all})"),
        format!("CALL {{c}}.system.rewrite_data_files(table => 't.appended', {all})"),
    ]);
    let access = versions.workspace.access();
    for (table, ..) in TABLES {
        let snapshots = access.snapshots(&versions.name(table)).unwrap();
        assert_eq!(snapshots.last().unwrap().operation, "replace", "Spark rewrote something of {table}");
    }
    assert_eq!(deletes(access, &versions.name("equalities"), "equality").unwrap(), 0);
}

/// Spark maintains and changes tables between our runs, and all readers go on seeing the same.
fn spark_writes_between(name: &str, seed: u64, workspace: Workspace) {
    let mut versions = Versions::new(name, seed, workspace).unwrap();
    for round in 0..2 {
        versions.advance(round, 200).unwrap();
    }
    maintain_with_spark(&versions);
    check(&versions, "after maintenance");
    versions.advance(2, 200).unwrap();
    check(&versions, "one run after maintenance");

    change_with_spark(&mut versions);
    assert!(versions.model.deleted > 0);
    check(&versions, "after changes by Spark");
    // Keys that Spark deleted come back with whatever version arrives; its changes last until a newer one does.
    for round in 3..5 {
        versions.advance(round, 100).unwrap();
        check(&versions, &format!("round {round}, after changes by Spark"));
    }
    assert!(versions.model.newest.values().any(|version| version.n > 1000), "a change by Spark lasted");
    assert!(versions.model.newest.keys().any(|id| id % 7 == 0), "a key came back");
}

#[test]
fn spark_maintains_and_changes_tables_of_glue_between_our_runs() {
    spark_writes_between("spark-glue", 4, Workspace::glue("spark-glue", Kafka::shared()).unwrap());
}

#[test]
fn spark_maintains_and_changes_tables_of_a_rest_catalog_between_our_runs() {
    spark_writes_between("spark-rest", 8, Workspace::seaweedfs("spark-rest", Kafka::shared()).unwrap());
}
