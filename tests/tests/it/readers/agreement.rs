//! Whether all readers see the same in a table.

use anyhow::{Context, Result, ensure};
use firn_e2e::rig::readers::{Access, Engine};
use serde_json::Value;

/// Questions of a scan each, because engines answer a bare count from metadata and read few columns where few are asked for.
const COUNT: &str = "SELECT count(*) AS counted FROM {t}";
const ROWS: &str = "SELECT * FROM {t}";

/// Checks that all engines give the same count, the same sums and the same rows with all their columns, and returns the
/// rows without the columns that Firn adds. `sums` is what to select for the sums.
pub fn read_by_all(access: &Access, table: &str, sums: &str) -> Result<Vec<String>> {
    let questions = [COUNT.to_owned(), format!("SELECT {sums} FROM {{t}}"), ROWS.to_owned()];
    let expected = ask(access, Engine::DuckDb, table, &questions)?;
    for engine in Engine::ALL.into_iter().filter(|engine| *engine != Engine::DuckDb) {
        match ask(access, engine, table, &questions) {
            // PyIceberg reads no equality deletes and says so.
            Err(error) if engine == Engine::PyIceberg && deletes(access, table, "equality")? > 0 => {
                ensure!(format!("{error:#}").contains("does not yet support equality deletes"), "{error:#}");
            }
            found => {
                for (expected, found) in expected.iter().zip(found?) {
                    same(&format!("{engine:?} and DuckDB read {table}"), &found, expected)?;
                }
            }
        }
    }
    let [count, _, rows] = expected;
    ensure!(
        count == [format!("{{\"counted\":{}}}", rows.len())],
        "{table} has {} rows, and counts {count:?}",
        rows.len()
    );
    rows.iter().map(|row| without_own_columns(row)).collect()
}

fn ask(access: &Access, engine: Engine, table: &str, questions: &[String; 3]) -> Result<[Vec<String>; 3]> {
    let [count, sums, rows] = questions;
    let ask = |sql: &String| access.read(engine, table, sql).with_context(|| format!("{engine:?}: {sql} of {table}"));
    Ok([ask(count)?, ask(sums)?, ask(rows)?])
}

fn without_own_columns(row: &str) -> Result<String> {
    let mut row: serde_json::Map<String, Value> = serde_json::from_str(row)?;
    row.retain(|name, _| !name.starts_with('_'));
    Ok(Value::Object(row).to_string())
}

/// Checks that two sorted lists of rows are the same, and says which rows are not.
pub fn same(what: &str, found: &[String], expected: &[String]) -> Result<()> {
    let missing: Vec<_> = expected.iter().filter(|row| found.binary_search(row).is_err()).take(3).collect();
    let extra: Vec<_> = found.iter().filter(|row| expected.binary_search(row).is_err()).take(3).collect();
    ensure!(
        found == expected,
        "{what}: {} rows, expected {};\nmissing {missing:#?}\nunexpected {extra:#?}",
        found.len(),
        expected.len()
    );
    Ok(())
}

/// How many deletes of a kind the table's current snapshot has.
pub fn deletes(access: &Access, table: &str, kind: &str) -> Result<u64> {
    let snapshots = access.snapshots(table)?;
    let newest = snapshots.last().with_context(|| format!("{table} has no snapshot"))?;
    Ok(newest.summary.get(&format!("total-{kind}-deletes")).map_or(Ok(0), |count| count.parse())?)
}
