//! How tables are maintained: what a table says, else the deployment, else the default.

use std::time::Duration;

use super::*;

#[test]
fn a_table_goes_before_the_deployment_and_the_deployment_before_the_default() {
    let of = "tableName: orders\n      targetFileSize: 100MB\n      maintenance: ";
    let firn =
        FIRN.to_owned() + "compactor: {maintenance: {expire: {olderThan: 1d, keepLast: 3}, compact: {minFiles: 8}}}\n";
    let table = PIPELINE.replace(
        "tableName: orders",
        &format!("{of}{{compact: {{minFiles: 2, smallerThan: 90MB}}, orphans: {{olderThan: 2h, delete: true}}}}"),
    );
    let config = check(&firn, &[&table]).unwrap_or_else(|problems| panic!("{problems}"));
    let table = &config.pipelines.values().next().unwrap().outputs[0].table;
    let holds = table.maintenance.or(config.deployment.compactor.maintenance).resolve(table.target_file_size);
    assert_eq!((holds.min_files, holds.keep_last, holds.min_manifests), (2, 3, 10));
    assert_eq!(holds.small_file_bytes, 75_000_000, "a file near the target is not small");
    assert_eq!((holds.expire_after, holds.orphans_after), (Duration::from_hours(24), Duration::from_hours(2)));
    assert!(holds.delete_orphans && (holds.delete_share - 0.1).abs() < f64::EPSILON);
    let shown = super::super::show(&config);
    let documents: Vec<&str> = shown.split("---\n").collect();
    let again = check(documents[0], &documents[1..]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(again.deployment.compactor.maintenance, config.deployment.compactor.maintenance);
    assert_eq!(again.pipelines.values().next().unwrap().outputs[0].table.maintenance, table.maintenance);
}

#[test]
fn what_would_lose_files_or_never_end_is_refused() {
    let cases = [
        ("{orphans: {olderThan: 59m}}", "maintenance.orphans.olderThan: must be at least 1h"),
        ("{expire: {olderThan: soon}}", "maintenance.expire.olderThan: time `soon`"),
        ("{expire: {keepLast: 0}}", "maintenance.expire.keepLast: must be between 1 and 4294967295"),
        ("{compact: {minFiles: 1}}", "maintenance.compact.minFiles: must be between 2 and 4294967295"),
        ("{compact: {deleteShare: 1.5}}", "maintenance.compact.deleteShare: must be between 0 and 1"),
        ("{compact: {smallerThan: 1 lot}}", "maintenance.compact.smallerThan: size `1 lot`"),
        ("{vacuum: {}}", "maintenance.vacuum: unknown key"),
    ];
    for (yaml, expected) in cases {
        let table = PIPELINE.replace("tableName: orders", &format!("tableName: orders\n      maintenance: {yaml}"));
        let problems = check(FIRN, &[&table]).unwrap_err().to_string();
        assert!(problems.contains(&format!("outsourcingUnit[0].table.{expected}")), "{yaml}: {problems}");
        let firn = format!("{FIRN}compactor: {{maintenance: {yaml}}}\n");
        let problems = check(&firn, &[PIPELINE]).unwrap_err().to_string();
        assert!(problems.contains(&format!("compactor.{expected}")), "{yaml}: {problems}");
    }
}
