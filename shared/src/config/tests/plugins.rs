//! Plug-ins, and steps that call their functions.

use super::*;
use crate::config::domain::{PluginSpec, S3Options};
use crate::error::{Error, Result as Loaded};
use crate::functions::{Function, Gives, Shape, Takes};

static IBAN: Function = Function::new("bank.iban", "Checks.", Shape::Map(Takes::Text, Gives::Same));

/// Stands for a program that can run plug-ins: it knows one file.
#[allow(clippy::unnecessary_wraps, reason = "the signature of loaders")]
fn loader(spec: &PluginSpec, _: Option<&S3Options>) -> Loaded<Option<Vec<&'static Function>>> {
    match spec.file.to_string() {
        file if file.ends_with("/bank.wasm") && spec.name.as_str() == "bank" => Ok(Some(vec![&IBAN])),
        file if file.starts_with("s3://") => Ok(None),
        file => Err(Error::config(format!("{file} cannot be read"))),
    }
}

fn with_plugins(plugins: &str, step: &str, functions: &Functions) -> Result<Config, Problems> {
    let firn = FIRN.replace("catalog:", &format!("plugins: {plugins}\ncatalog:"));
    let pipeline = PIPELINE.replace("lower: {column: mail}", step);
    let files = [("a.yaml".into(), pipeline)];
    check_texts(Some(&("firn.yaml".into(), firn)), &files, (&variables, functions), Problems::default())
}

#[test]
fn steps_call_functions_of_plugins() {
    let functions = Functions::built_in().loading(loader);
    let good = "{bank: {path: /p/bank.wasm}}";
    let cases = [
        (good, "bank.iban: {column: mail}"),
        (good, "bank.iban: {column: id}"),
        (good, "bank.ibna: {column: mail}"),
        (good, "shop.iban: {column: mail}"),
        // What is wrong with a plug-in is said once, not again at each of its steps.
        ("{bank: {path: /p/gone.wasm}}", "bank.what: {colum: mail}"),
        ("{bank: {path: gs://x, memory: 1GiB}}", "bank.what: {column: mail}"),
        ("{bank: {path: s3://bucket/other.wasm}}", "bank.what: {column: mail}"),
        ("{bank: {path: /p/bank.wasm, sha256: x, memory: 1KB, fuelPerRow: 0}}", "bank.iban: {column: mail}"),
        ("{bank: {sha: x}}", "bank.iban: {column: mail}"),
        ("{Bank: {path: /p/bank.wasm}, bank: ~}", "bank.iban: {column: mail}"),
    ];
    let told = cases.map(|(plugins, step)| {
        let answer = with_plugins(plugins, step, &functions);
        format!("# {plugins} {step}\n{}", answer.map_or_else(|problems| problems.to_string(), |_| "passes".to_owned()))
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    # {bank: {path: /p/bank.wasm}} bank.iban: {column: mail}
    passes
    # {bank: {path: /p/bank.wasm}} bank.iban: {column: id}
    a.yaml:23:29: outsourcingUnit[0].transformations[1]['bank.iban'].column: column `id` is long; bank.iban takes string; the columns here are id long, at timestamptz, mail string, body json, size int
    # {bank: {path: /p/bank.wasm}} bank.ibna: {column: mail}
    a.yaml:23:20: outsourcingUnit[0].transformations[1]['bank.ibna']: no function `bank.ibna` in this program; is its crate or plug-in missing?; did you mean `bank.iban`?
    # {bank: {path: /p/bank.wasm}} shop.iban: {column: mail}
    a.yaml:23:20: outsourcingUnit[0].transformations[1]['shop.iban']: no function `shop.iban` in this program; is its crate or plug-in missing?
    # {bank: {path: /p/gone.wasm}} bank.what: {colum: mail}
    firn.yaml:5:17: plugins.bank: file:///p/gone.wasm cannot be read
    # {bank: {path: gs://x, memory: 1GiB}} bank.what: {column: mail}
    firn.yaml:5:24: plugins.bank.path: location `gs://x` has the unknown scheme `gs`: use `s3://`, `file://` or a directory
    # {bank: {path: s3://bucket/other.wasm}} bank.what: {column: mail}
    passes
    # {bank: {path: /p/bank.wasm, sha256: x, memory: 1KB, fuelPerRow: 0}} bank.iban: {column: mail}
    firn.yaml:5:46: plugins.bank.sha256: is not 64 hexadecimal digits
    firn.yaml:5:57: plugins.bank.memory: must be between 1MiB and 4GiB
    firn.yaml:5:74: plugins.bank.fuelPerRow: must be between 1 and 1000000000000, found 0
    # {bank: {sha: x}} bank.iban: {column: mail}
    firn.yaml:5:17: plugins.bank.path: missing
    firn.yaml:5:18: plugins.bank.sha: unknown key; did you mean `sha256`?
    # {Bank: {path: /p/bank.wasm}, bank: ~} bank.iban: {column: mail}
    firn.yaml:5:17: plugins.Bank: plug-in `Bank` may hold only lower-case ASCII letters, digits and `_`
    firn.yaml:5:39: plugins.bank: expected a mapping with `path` and `sha256`, found nothing
    "#);
}

#[test]
fn a_program_that_runs_no_plugins_lets_their_functions_pass() {
    let passes =
        |functions: &Functions| with_plugins("{bank: {path: /p/bank.wasm}}", "bank.iban: {column: id}", functions);
    assert!(passes(&Functions::built_in().open()).is_ok());
    let told = passes(&Functions::built_in()).unwrap_err().to_string();
    assert_eq!(told, "firn.yaml:5:17: plugins.bank: this program is built without plug-ins");
}

#[test]
fn the_effective_configuration_names_plugins() {
    let functions = Functions::built_in().loading(loader);
    let config = with_plugins("{bank: {path: /p/bank.wasm}}", "bank.iban: {column: mail}", &functions).unwrap();
    let shown = crate::config::show(&config);
    for part in ["path: file:///p/bank.wasm", "memory: 64MB", "fuelPerRow: 100000"] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}
