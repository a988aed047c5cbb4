//! `compactor test` as a program: exit codes, output, JUnit, and that it needs no deployment.

use std::path::Path;
use std::process::Command;

use firn_e2e::rig::programs::{program, run, run_command};
use serde_json::Value;

const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: nowhere, topic: t}
  incomingData: {format: json, eventTime: kafkaTimestamp}
outsourcingUnit:
  - table: {database: d, tableName: t, columns: [{name: id, type: long, required: true}]}
";

const CASES: &str = "
cases:
  - name: one is one
    events: [{value: {id: 1}}]
    expect: {table: {rows: [{id: 1}]}}
";

fn test(folder: &Path, arguments: &[&str], code: i32) -> String {
    let mut all = vec!["test".to_owned(), folder.display().to_string()];
    all.extend(arguments.iter().map(ToString::to_string));
    run("compactor", &all).unwrap().expect(&[code]).unwrap().stdout
}

#[test]
fn the_exit_code_says_what_came_out() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("p.yaml", PIPELINE);
    test(folder.path(), &[], 2);
    write("p.test.yaml", CASES);
    assert!(test(folder.path(), &[], 0).contains("1 passed"));
    test(folder.path(), &["--filter", "two"], 2);
    write("p.test.yaml", &CASES.replace("rows: [{id: 1}]", "rows: [{id: 2}]"));
    let junit = folder.path().join("report.xml");
    let text = test(folder.path(), &["--junit", &junit.display().to_string()], 7);
    assert!(text.contains("p.test.yaml:5:29: d.t rows") && !text.contains('\x1b'), "no colours in a pipe: {text}");
    assert!(std::fs::read_to_string(&junit).unwrap().contains("<failure"));
    let json: Value = serde_json::from_str(&test(folder.path(), &["--output", "json"], 7)).unwrap();
    let difference = &json["files"][0]["cases"][0]["differences"][0];
    assert_eq!((difference["subject"].as_str(), difference["table"].as_str()), (Some("rows"), Some("d.t")));
    write("p.test.yaml", &CASES.replace("events", "evnts"));
    assert!(test(folder.path(), &[], 2).contains("unknown key; did you mean `events`?"));
    write("p.test.yaml", "cases:\n  - name: one is one\n    events: [{value: {id: 1}}]\n");
    assert!(test(folder.path(), &["--update"], 0).contains("updated one is one"));
    assert!(test(folder.path(), &[], 0).contains("1 passed"));
}

#[test]
fn a_deployment_that_is_named_counts_wherever_the_pipeline_is() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("p.yaml"), PIPELINE).unwrap();
    std::fs::write(folder.path().join("p.test.yaml"), CASES).unwrap();
    std::fs::write(elsewhere.path().join("firn.yaml"), "plugins: {bank: {path: gone.wasm}}\n").unwrap();
    let test = |arguments: &[&str]| {
        let mut command = Command::new(program("compactor"));
        command.arg("test").arg(folder.path()).args(arguments).current_dir(elsewhere.path());
        run_command("compactor", command).unwrap()
    };
    assert!(test(&[]).expect(&[0]).unwrap().stdout.contains("1 passed"));
    // The name is that of the default, which only counts beside a pipeline or its folder.
    let told = test(&["--config", "firn.yaml"]).expect(&[2]).unwrap().stdout;
    assert!(told.contains("plugins.bank") && told.contains("gone.wasm cannot be read"), "{told}");
}

#[test]
fn a_hundred_cases_pass_in_an_empty_environment() {
    let folder = tempfile::tempdir().unwrap();
    let case = |i: usize| {
        format!(
            "  - name: case {i}\n    events: [{{value: {{id: {i}}}}}]\n    expect: {{table: {{rows: [{{id: {i}}}]}}}}\n"
        )
    };
    std::fs::write(folder.path().join("p.yaml"), PIPELINE).unwrap();
    std::fs::write(folder.path().join("p.test.yaml"), format!("cases:\n{}", (0..100).map(case).collect::<String>()))
        .unwrap();
    // No search path, no home, no credentials, no proxy: nothing by which another program or a service could be found.
    let mut command = Command::new(program("compactor"));
    command.env_clear().arg("test").arg(folder.path()).current_dir(folder.path());
    let tested = run_command("compactor", command).unwrap().expect(&[0]).unwrap();
    assert!(tested.stdout.contains("100 passed"), "{}", tested.stdout);
}
