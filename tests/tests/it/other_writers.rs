//! Spark maintains the table between our runs; offsets follow what it did, rows are neither lost nor doubled.

use firn_e2e::rig::kafka::Kafka;

use crate::ticks::{TABLE, Ticks, check_numbers, seeded};

#[test]
fn expiry_and_rewrite_by_spark_lose_and_double_nothing() {
    let mut rng = seeded("expiry_and_rewrite");
    let (mut ticks, workspace) = Ticks::local("expiry", Kafka::shared(), 2).unwrap();
    for _ in 0..2 {
        ticks.produce(500, &mut rng).unwrap();
        ticks.settle(&workspace).unwrap();
    }
    // Afterwards no snapshot of ours is left: the one that stays is Spark's own rewrite.
    let rewrite =
        format!("CALL {{c}}.system.rewrite_data_files(table => '{TABLE}', options => map('rewrite-all', 'true'))");
    let expire = format!(
        "CALL {{c}}.system.expire_snapshots(table => '{TABLE}', older_than => TIMESTAMP '2099-01-01 00:00:00', retain_last => 1)"
    );
    workspace.access().spark(&[&rewrite, &expire]).unwrap();
    assert_eq!(workspace.access().snapshots(TABLE).unwrap().len(), 1);
    check_numbers(workspace.access(), ticks.produced).unwrap();

    ticks.settle(&workspace).unwrap();
    ticks.produce(500, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
}

#[test]
fn a_rollback_brings_the_rows_again() {
    let mut rng = seeded("a_rollback");
    let (mut ticks, workspace) = Ticks::local("rollback", Kafka::shared(), 2).unwrap();
    for _ in 0..3 {
        ticks.produce(500, &mut rng).unwrap();
        ticks.settle(&workspace).unwrap();
    }
    let first = workspace.access().snapshots(TABLE).unwrap()[0].id;
    let rollback = format!("CALL {{c}}.system.rollback_to_snapshot('{TABLE}', {first})");
    workspace.access().spark(&[&rollback]).unwrap();
    check_numbers(workspace.access(), 500).unwrap();
    ticks.settle(&workspace).unwrap();

    // A rollback to before the first run of ours, by way of an expired middle.
    workspace.access().spark(&[&rollback]).unwrap();
    ticks.produce(100, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
}

#[test]
fn spark_reads_what_duckdb_reads() {
    let mut rng = seeded("spark_reads");
    let (mut ticks, workspace) = Ticks::local("two-readers", Kafka::shared(), 2).unwrap();
    ticks.produce(1000, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
    let sql = |from: &str| format!("SELECT count(*), count(DISTINCT n), sum(n), sum(length(pad)) FROM {from}");
    let duckdb = workspace.access().duckdb(TABLE, &sql("t")).unwrap();
    let spark = workspace.access().spark(&[&sql(&format!("{{c}}.{TABLE}"))]).unwrap();
    assert_eq!(duckdb, spark);
}
