//! Plug-ins as files, and the shipped one, compiled anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use firn_shared::config::domain::{PluginLimits, PluginSpec, StoreUrl};
use firn_shared::error::ErrorKind;
use firn_shared::functions::{Functions, Nulls};
use firn_shared::ids::PluginName;

use super::super::load::load;
use crate::transform::{References, cases};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/plugins/bank")
}

/// The shipped plug-in as `firn.yaml` would name it, with this hash.
fn bank(file: PathBuf, sha256: Option<&str>) -> PluginSpec {
    let name = PluginName::new("bank").unwrap();
    let sha256 = sha256.map(str::to_owned);
    PluginSpec { name, file: StoreUrl::File(file), sha256, limits: PluginLimits::default() }
}

/// The hash that the refusal of a file without one tells.
fn hash_of(spec: &PluginSpec) -> String {
    let message = load(spec, None).unwrap_err().to_string();
    message.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_file_must_be_the_one_that_was_meant() {
    let file = shipped().join("bank.wasm");
    let missing = load(&bank(file.clone(), None), None).unwrap_err().to_string();
    assert!(missing.contains("plug-in `bank`: `sha256` is missing; that of file:///"), "{missing}");
    let other = load(&bank(file.clone(), Some(&"0".repeat(64))), None).unwrap_err().to_string();
    assert!(other.contains("not the one given here"), "{other}");
    let gone = load(&bank("/nowhere.wasm".into(), None), None).unwrap_err();
    assert!(gone.to_string().contains("plug-in `bank`: /nowhere.wasm cannot be read"), "{gone}");
    assert_eq!(gone.kind(), ErrorKind::Config);
    // A store whose options are broken is not asked.
    let url = StoreUrl::parse("s3://bucket/bank.wasm", Path::new("/")).unwrap();
    assert!(load(&PluginSpec { file: url, ..bank(file, None) }, None).unwrap().is_none());
}

/// Compiles a source as it says itself, to a file of this name in `out`.
fn compiled(source: &Path, out: &Path) -> PathBuf {
    let text = std::fs::read_to_string(source).unwrap();
    let command = text.lines().find_map(|line| line.strip_prefix("//   clang ")).unwrap();
    let name = source.with_extension("wasm").file_name().unwrap().to_owned();
    let file = out.join(&name);
    let words = command.split(' ').map(|word| if name == *word { file.as_os_str() } else { word.as_ref() });
    let status = Command::new("clang").args(words).current_dir(source.parent().unwrap()).status();
    assert!(status.expect("clang, which localstack/setup installs").success());
    file
}

/// Looks whether the file beside a source is of it, where the compiler is the one that it was made with: another release
/// writes other instructions.
fn is_of_its_source(source: &Path, compiled: &Path) {
    let version = Command::new("clang").arg("--version").output().unwrap().stdout;
    if String::from_utf8(version).unwrap().contains("version 14.") {
        let shipped = std::fs::read(source.with_extension("wasm")).unwrap();
        assert_eq!(std::fs::read(compiled).unwrap(), shipped, "compile {} again", source.display());
    }
}

#[test]
fn the_shipped_plugin_is_what_its_source_compiles_to_and_does_what_its_cases_say() {
    let (folder, out) = (shipped(), tempfile::tempdir().unwrap());
    let compiled = compiled(&folder.join("bank.c"), out.path());
    for file in [&compiled, &folder.join("bank.wasm")] {
        let sha256 = hash_of(&bank(file.clone(), None));
        let loaded = load(&bank(file.clone(), Some(&sha256)), None).unwrap().unwrap();
        let again = load(&bank(file.clone(), Some(&sha256.to_lowercase())), None).unwrap().unwrap();
        assert!(std::ptr::eq(loaded[0], again[0]), "loaded twice");
        let names: Vec<_> = loaded.iter().map(|function| (function.name, function.nulls == Nulls::Stay)).collect();
        assert_eq!(names, [("bank.iban", true), ("bank.share", true), ("bank.total", true)]);
        let functions = Functions::built_in().with(loaded).unwrap();
        let text = std::fs::read_to_string(folder.join("cases.yaml")).unwrap();
        let report = cases::run(&text, &functions, &References::default()).unwrap();
        assert_eq!(report.failures, [""; 0], "{}", file.display());
    }
    is_of_its_source(&folder.join("bank.c"), &compiled);
}

#[test]
fn a_plugin_that_was_compiled_with_the_first_version_does_what_its_cases_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/bank-1.0.0.wasm");
    let sha256 = hash_of(&bank(file.clone(), None));
    let functions = Functions::built_in().with(load(&bank(file, Some(&sha256)), None).unwrap().unwrap()).unwrap();
    // It has no other functions than these two.
    let text = std::fs::read_to_string(shipped().join("cases.yaml")).unwrap();
    let (text, _) = text.split_once("bank.total:").unwrap();
    let report = cases::run(text, &functions, &References::default()).unwrap();
    assert_eq!(report.failures, [""; 0]);
    assert!(functions.get("bank.share").is_some() && functions.get("bank.total").is_none());
}

#[test]
fn the_plugin_of_the_bench_is_what_its_source_compiles_to() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/steps.c");
    let out = tempfile::tempdir().unwrap();
    is_of_its_source(&source, &compiled(&source, out.path()));
}
