//! The functions' own cases, and the program that has them.

use std::path::Path;
use std::process::Command;

use firn_compactor::transform::{References, cases};
use firn_shared::functions::Functions;

#[test]
fn functions_do_what_their_cases_say() {
    let functions = Functions::built_in().with(&acme_functions::FUNCTIONS).unwrap();
    let report = cases::run(include_str!("cases.yaml"), &functions, &References::default()).unwrap();
    assert_eq!(report.failures, [""; 0]);
    assert_eq!(report.cases.len(), acme_functions::FUNCTIONS.len(), "a function has no case");
}

#[test]
fn the_program_knows_the_functions_and_plans_with_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acme-compactor"));
        let outcome = command.args(arguments).current_dir(folder).output().unwrap();
        (outcome.status.code(), String::from_utf8(outcome.stdout).unwrap(), String::from_utf8(outcome.stderr).unwrap())
    };
    let (code, out, err) = run(&["--output", "json", "explain"]);
    assert_eq!(code, Some(0), "{err}");
    let explained: serde_json::Value = serde_json::from_str(&out).unwrap();
    let step = &explained[0]["steps"][1];
    assert_eq!((step["function"].as_str(), step["columns"][4]["type"].as_str()), (Some("acme.ratio"), Some("double")));
    let (code, out, err) = run(&["explain"]);
    assert!(code == Some(0) && out.contains("+rate double"), "{out}{err}");
    let (code, out, err) = run(&["functions", "acme.ratio", "--output", "json"]);
    let described: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!((code, described["arguments"][1]["name"].as_str()), (Some(0), Some("whole")), "{out}");
    let (code, out, err) = run(&["functions"]);
    assert!(code == Some(0) && out.contains("\n  acme.iban ") && out.contains("\n  lower "), "{out}{err}");
    let (code, _, err) = run(&["functions", "acme.ibna"]);
    assert!(code == Some(2) && err.contains("did you mean `acme.iban`?"), "{err}");
    let (code, out, err) = run(&["schema", "pipeline"]);
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!((code, &schema["$defs"]["acme.ratioStep"]["required"][0]), (Some(0), &serde_json::json!("part")));
    let (code, out, err) = run(&["completions", "bash"]);
    assert!(code == Some(0) && out.contains("functions") && out.contains("key-ring"), "{err}");
    let (code, out, err) = run(&["test"]);
    assert!(code == Some(0) && out.contains("\n1 passed ("), "{out}{err}");
}
