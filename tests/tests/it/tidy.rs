//! The source tree keeps its own rules (ARCHITECTURE.md, "Rules of the tree").

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firn_e2e::rig::procs::source_dir;

/// A file longer than this hides something.
const LINES_MAX: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "manager", "process", "util", "utils"];

/// Every file of the tree that is under version control or about to be.
fn files() -> Vec<PathBuf> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(source_dir())
        .output()
        .expect("git is there");
    assert!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
    let names = String::from_utf8(listing.stdout).expect("file names are UTF-8");
    names.split('\0').filter(|n| !n.is_empty()).map(PathBuf::from).filter(|p| source_dir().join(p).exists()).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = source_dir().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let long: Vec<String> = files()
        .iter()
        .filter(|path| has_extension(path, &["rs", "py", "sh"]))
        .map(|path| (path.display().to_string(), read(path).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines}"))
        .collect();
    assert_none(&long, "split these files");
}

#[test]
fn no_module_has_an_empty_name() {
    let empty: Vec<String> = files()
        .iter()
        .filter(|path| has_extension(path, &["rs"]))
        .filter(|path| {
            path.iter().filter_map(|part| Path::new(part).file_stem()?.to_str()).any(|n| EMPTY_NAMES.contains(&n))
        })
        .map(|path| path.display().to_string())
        .collect();
    assert_none(&empty, "name these after what they hold");
}

#[test]
fn architecture_names_every_source_folder_and_nothing_else() {
    let text = read("ARCHITECTURE.md");
    // `path/with/slash` or `folder/` in backticks is a path of the tree; a path ends before a space, `<` or `{`.
    let named: BTreeSet<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|t| t.contains('/') && !t.contains(['<', '{', ' ', ':', '$', '*']))
        .map(|t| t.trim_end_matches('/'))
        .collect();
    let gone: Vec<String> =
        named.iter().filter(|path| !source_dir().join(path).exists()).map(ToString::to_string).collect();
    assert_none(&gone, "ARCHITECTURE.md names what does not exist");

    let folders: BTreeSet<String> = files()
        .iter()
        .filter(|path| has_extension(path, &["rs"]) && path.iter().any(|part| part == "src"))
        .filter_map(|path| Some(path.parent()?.display().to_string()))
        .collect();
    let unnamed: Vec<String> = folders.into_iter().filter(|folder| !named.contains(folder.as_str())).collect();
    assert_none(&unnamed, "ARCHITECTURE.md does not name these source folders");
}

/// Names of the packages that `package` links, itself included.
fn linked_by(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--package", package])
        .current_dir(source_dir())
        .output()
        .expect("cargo is there");
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("package names are UTF-8");
    text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

#[test]
fn landing_and_compactor_meet_only_in_the_raw_zone() {
    for (package, strangers) in [
        ("firn-landing", &["polars", "iceberg", "arrow", "parquet", "firn-compactor"][..]),
        ("firn-shared", &["polars", "iceberg", "arrow", "parquet", "rdkafka"][..]),
        ("firn-compactor", &["rdkafka", "firn-landing"][..]),
        ("firn-athena-udf", &["polars", "iceberg", "parquet", "rdkafka", "firn-landing", "firn-compactor"][..]),
    ] {
        let linked = linked_by(package);
        let found: Vec<String> = linked
            .iter()
            .filter(|name| strangers.iter().any(|s| *name == s || name.starts_with(&format!("{s}-"))))
            .cloned()
            .collect();
        assert_none(&found, &format!("{package} links what it must not"));
    }
}

#[test]
fn scripts_named_in_the_readme_exist() {
    let readme = read("README.md");
    let scripts: BTreeSet<&str> = readme
        .split(|c: char| c.is_whitespace() || c == '`')
        .filter(|word| word.starts_with("./") || word.starts_with("localstack/"))
        .collect();
    assert!(scripts.contains("./quickstart") && scripts.contains("./test"), "the two commands are in the README");
    let gone: Vec<String> = scripts
        .into_iter()
        .filter(|s| !source_dir().join(s.trim_end_matches(['.', ',', ';', ':'])).exists())
        .map(str::to_owned)
        .collect();
    assert_none(&gone, "README.md names what does not exist");
}

#[test]
fn promises_name_tests_that_exist() {
    let text = read("docs/promises.md");
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let mut named = 0;
    let mut gone = Vec::new();
    // A file, then a test in it.
    for pair in quoted.windows(2).filter(|pair| has_extension(Path::new(pair[0]), &["rs"])) {
        let (file, test) = (pair[0], pair[1]);
        let source = if source_dir().join(file).exists() { read(file) } else { String::new() };
        let is_test = source.split("test").skip(1).any(|after| {
            // What follows `#[test` or `#[tokio::test(…)`, up to the first function.
            after.split_once("fn ").is_some_and(|(between, name)| {
                between.contains(']') && name.strip_prefix(test).is_some_and(|rest| rest.starts_with('('))
            })
        });
        if !is_test {
            gone.push(format!("{file} {test}"));
        }
        named += 1;
    }
    assert!(named > 20, "only {named} tests are named");
    assert_eq!(named * 2, quoted.len(), "what is quoted is a file and a test");
    assert_none(&gone, "docs/promises.md names tests that do not exist");
}
