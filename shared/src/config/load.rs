//! Files to a checked [`Config`], or to everything that is wrong with them.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::cases::TestFile;
use super::check::{self, File};
use super::domain::{Config, Pipeline, StoreUrl};
use super::env;
use super::problems::{Problem, Problems};
use super::schema;
use super::shape::{self, Shape, join};
use super::wire::{FirnYaml, PipelineYaml, TestFileYaml};
use super::yaml::{self, Kind, Node, Position};
use crate::error::{Error, Result};
use crate::functions::Functions;

/// Files with these endings are tests of pipelines, not pipelines.
pub const TEST_SUFFIXES: [&str; 2] = [".test.yaml", ".test.yml"];

/// The files of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `firn.yaml`.
    pub firn: PathBuf,
    /// Pipeline files, sorted.
    pub pipelines: Vec<PathBuf>,
}

/// The default layout under `folder`: `firn.yaml` and `pipelines/*.yaml`.
///
/// # Errors
/// `Config` when `firn.yaml` is not there or a folder cannot be read.
pub fn find(folder: &Path) -> Result<Files> {
    let firn = folder.join("firn.yaml");
    if !firn.is_file() {
        return Err(Error::config(format!("no {}; give its place or change the directory", firn.display())));
    }
    let pipelines = folder.join("pipelines");
    let pipelines = if pipelines.is_dir() { expand(&pipelines)? } else { Vec::new() };
    Ok(Files { firn, pipelines })
}

/// A pipeline file as it is, or the `*.yaml` and `*.yml` files of a directory, sorted, without tests.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable =
        |error: std::io::Error| Error::config(format!("cannot read directory {}", path.display())).with_source(error);
    let mut out = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let is_yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let is_test = TEST_SUFFIXES.iter().any(|suffix| file.to_string_lossy().ends_with(suffix));
        if is_yaml && !is_test && !hidden && file.is_file() {
            out.push(file);
        }
    }
    out.sort();
    Ok(out)
}

/// Reads and checks a deployment; `pipelines` are files or directories of files. `${ENV}` is taken from the process.
/// Steps may call the functions that come with the programs.
///
/// # Errors
/// Every problem of every file.
pub fn load(firn: &Path, pipelines: &[PathBuf]) -> std::result::Result<Config, Problems> {
    load_with(firn, pipelines, &Functions::built_in())
}

/// As [`load`], with steps that may call these functions.
///
/// # Errors
/// Every problem of every file.
pub fn load_with(firn: &Path, pipelines: &[PathBuf], functions: &Functions) -> std::result::Result<Config, Problems> {
    let mut problems = Problems::default();
    let mut texts = Vec::new();
    let firn = read(firn.to_owned(), &mut problems);
    for path in pipelines {
        match expand(path) {
            Ok(files) => texts.extend(files.into_iter().filter_map(|file| read(file, &mut problems))),
            Err(error) => problems.file(path, error.to_string()),
        }
    }
    check_texts(firn.as_ref(), &texts, (&env::variable, functions), problems)
}

/// Reads and checks one pipeline without a deployment: the names of clusters are taken as they are, and those of keys, too,
/// unless it is known which there are. Steps may call these functions.
///
/// # Errors
/// Every problem of the file.
pub fn load_pipeline(
    path: &Path,
    functions: &Functions,
    keys: Option<&[String]>,
) -> std::result::Result<Pipeline, Problems> {
    let mut problems = Problems::default();
    let Some((path, text)) = read(path.to_owned(), &mut problems) else { return Err(problems) };
    let (file, yaml) = read_file::<PipelineYaml>(&path, &text, &schema::pipeline(functions), &env::variable);
    let known = check::Known { clusters: None, keys, functions };
    let pipeline = check::pipeline(&file, &yaml.unwrap_or_default(), known);
    whole(file, pipeline, problems)
}

/// A deployment's file as it is written; nothing but its form has been checked.
fn firn_yaml(firn: &Path, problems: &mut Problems) -> Option<(File, Option<FirnYaml>)> {
    let (path, text) = read(firn.to_owned(), problems)?;
    Some(read_file::<FirnYaml>(&path, &text, &schema::firn(), &env::variable))
}

/// `functions` with those of the plug-ins that a deployment names; of `firn.yaml` nothing else needs to be right.
///
/// # Errors
/// Every problem of the plug-ins, or of the file as YAML.
pub fn with_plugins(firn: &Path, functions: &Functions) -> std::result::Result<Functions, Problems> {
    let mut problems = Problems::default();
    let Some((file, yaml)) = firn_yaml(firn, &mut problems) else { return Err(problems) };
    let functions = yaml.map(|yaml| check::deployment(&file, &yaml, functions.clone()).2);
    let matters = |problem: &Problem| functions.is_none() || problem.path.starts_with("plugins");
    for problem in file.into_problems().into_iter().filter(matters) {
        problems.push(problem);
    }
    match functions {
        Some(functions) if problems.is_empty() => Ok(functions),
        _ => Err(problems.finish()),
    }
}

/// The names of a deployment's keys; `None` where it has none, or is not to be read.
#[must_use]
pub fn key_names(firn: &Path) -> Option<Vec<String>> {
    let (_, yaml) = firn_yaml(firn, &mut Problems::default())?;
    let names: Vec<String> = yaml?.keys?.into_keys().collect();
    (!names.is_empty()).then_some(names)
}

/// The files on this machine that a deployment takes plug-ins from; none where what it says of them is wrong.
#[must_use]
pub fn plugin_files(firn: &Path) -> Vec<PathBuf> {
    let Some((file, yaml)) = firn_yaml(firn, &mut Problems::default()) else { return Vec::new() };
    let plugins = yaml.and_then(|yaml| check::plugins(&file, &yaml)).unwrap_or_default();
    let local = plugins.into_iter().filter_map(|plugin| match plugin.file {
        StoreUrl::File(path) => Some(path),
        StoreUrl::S3 { .. } => None,
    });
    local.collect()
}

/// Reads and checks a file of tests. `${…}` stays as it is: it may be part of a payload.
///
/// # Errors
/// Every problem of the file.
pub fn load_tests(path: &Path) -> std::result::Result<TestFile, Problems> {
    let mut problems = Problems::default();
    let Some((path, text)) = read(path.to_owned(), &mut problems) else { return Err(problems) };
    read_tests(&path, &text)
}

/// Checks the text of a file of tests that is, or will be, at `path`.
///
/// # Errors
/// Every problem of the text.
pub fn read_tests(path: &Path, text: &str) -> std::result::Result<TestFile, Problems> {
    let (file, yaml) = read_text::<TestFileYaml>(path, text, &schema::test(), &mut |_, _| {});
    let tests = yaml.and_then(|yaml| check::tests(&file, &yaml));
    whole(file, tests, Problems::default())
}

/// What was built of a file, if nothing was found.
fn whole<T>(file: File, built: Option<T>, mut problems: Problems) -> std::result::Result<T, Problems> {
    let name = file.path.clone();
    for problem in file.into_problems() {
        problems.push(problem);
    }
    match built {
        Some(built) if problems.is_empty() => Ok(built),
        _ => {
            if problems.is_empty() {
                problems.file(&name, "could not be understood, without a reason; please report this file");
            }
            Err(problems.finish())
        }
    }
}

fn read(path: PathBuf, problems: &mut Problems) -> Option<(PathBuf, String)> {
    match std::fs::read(&path).map(String::from_utf8) {
        Ok(Ok(text)) => return Some((path, text)),
        Ok(Err(_)) => problems.file(&path, "is not UTF-8 text"),
        Err(error) => problems.file(&path, format!("cannot be read: {error}")),
    }
    None
}

/// The value of an environment variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Checks texts under the names of their files. `problems` holds what is known to be wrong already.
pub(super) fn check_texts(
    firn: Option<&(PathBuf, String)>,
    pipelines: &[(PathBuf, String)],
    (lookup, functions): (Lookup<'_>, &Functions),
    mut problems: Problems,
) -> std::result::Result<Config, Problems> {
    let mut found: Vec<Problem> = Vec::new();
    let mut names = None;
    let mut deployment = None;
    let mut functions = functions.clone();
    if let Some((path, text)) = firn {
        let (file, yaml) = read_file::<FirnYaml>(path, text, &schema::firn(), lookup);
        if let Some(yaml) = yaml {
            let (clusters, built, with_plugins) = check::deployment(&file, &yaml, functions);
            (deployment, functions) = (built, with_plugins);
            let keys = yaml.keys.iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            names = Some(((!file.is_cut("clusters")).then_some(clusters), (!file.is_cut("keys")).then_some(keys)));
        }
        found.extend(file.into_problems());
    }
    let (clusters, keys) = names.unwrap_or_default();
    let known = check::Known { clusters: clusters.as_deref(), keys: keys.as_deref(), functions: &functions };
    let pipeline_schema = schema::pipeline(&functions);
    let mut files = Vec::new();
    for (path, text) in pipelines {
        let (file, yaml) = read_file::<PipelineYaml>(path, text, &pipeline_schema, lookup);
        let yaml = yaml.unwrap_or_default();
        let pipeline = check::pipeline(&file, &yaml, known);
        files.push((file, yaml, pipeline));
    }
    check::across(&files, deployment.as_ref().map(|deployment| &deployment.warehouse));
    let mut built = Vec::new();
    for (file, _, pipeline) in files {
        let name = file.path.clone();
        let wrong = file.into_problems();
        if pipeline.is_none() && wrong.is_empty() {
            problems.file(&name, "could not be understood, without a reason; please report this file");
        }
        found.extend(wrong);
        built.extend(pipeline.map(|pipeline| (pipeline.name.clone(), pipeline)));
    }
    for problem in found {
        problems.push(problem);
    }
    match deployment {
        Some(deployment) if problems.is_empty() => Ok(Config { deployment, pipelines: built.into_iter().collect() }),
        _ => {
            if let (true, Some((path, _))) = (problems.is_empty(), firn) {
                problems.file(path, "could not be understood, without a reason; please report this file");
            }
            Err(problems.finish())
        }
    }
}

/// YAML text as JSON, read as strictly as the files of a deployment are.
///
/// # Errors
/// `Config`, with line and column of the first mistake.
pub fn yaml_as_json(text: &str) -> Result<Json> {
    let mut mistakes = Vec::new();
    let tree = yaml::read(text, &mut mistakes);
    let first = mistakes.into_iter().next();
    match (tree, first) {
        (Ok(node), None) => Ok(yaml::json(&node)),
        (Err((at, message)), _) | (Ok(_), Some((at, message))) => {
            Err(Error::config(format!("line {}, column {}: {message}", at.line, at.column)))
        }
    }
}

/// Something that text could not be replaced in: place, path, message.
type Unset = (Position, String, String);

/// As [`read_text`], with `${…}` replaced.
pub(super) fn read_file<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    schema: &Json,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> (File, Option<T>) {
    read_text(path, text, schema, &mut |node, unset| fill_in(node, "", lookup, unset))
}

/// Text to a wire struct and the file's positions; what is wrong is in the file.
fn read_text<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    schema: &Json,
    expand: &mut dyn FnMut(&mut Node, &mut Vec<Unset>),
) -> (File, Option<T>) {
    let start = Position { line: 1, column: 1 };
    let mut mistakes = Vec::new();
    // Some editors put a byte order mark first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut node = match yaml::read(text, &mut mistakes) {
        Ok(node) => node,
        Err((at, message)) => {
            let file = File::new(path, Shape::default());
            for (at, message) in mistakes {
                file.report_at(at, "", message);
            }
            file.report_at(at, "", message);
            return (file, None);
        }
    };
    let mut unset = Vec::new();
    expand(&mut node, &mut unset);
    if node.kind == Kind::Null {
        node.kind = Kind::Map(Vec::new());
    }
    let (shape, value) = shape::check(schema, &node);
    node.wipe();
    let file = File::new(path, shape);
    for (at, message) in mistakes {
        file.report_at(at, "", message);
    }
    for (at, path, message) in unset {
        file.report_at(at, &path, message);
    }
    match yaml::typed(value) {
        Ok(yaml) => (file, Some(yaml)),
        Err((path, message)) => {
            file.report_at(if path == "." { start } else { file.position(&path) }, &path, message);
            (file, None)
        }
    }
}

/// Expands `${…}` in all texts; what cannot be expanded is put into `unset`.
fn fill_in(node: &mut Node, path: &str, lookup: &dyn Fn(&str) -> Option<String>, unset: &mut Vec<Unset>) {
    match &mut node.kind {
        Kind::Text { text, expanded } if text.contains("${") => match env::expand(text, lookup) {
            Ok(value) => {
                *text = value;
                *expanded = true;
            }
            Err(message) => {
                unset.push((node.at, path.to_owned(), message));
                node.kind = Kind::Unset;
            }
        },
        Kind::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                fill_in(item, &format!("{path}[{i}]"), lookup, unset);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                fill_in(&mut entry.value, &join(path, &entry.key), lookup, unset);
            }
        }
        _ => {}
    }
}
