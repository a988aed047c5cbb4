//! Recipes of the documents, to be run as they stand there: blocks of code that have a name after their language.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::procs::{run_dir, source_dir};
use super::programs::run_command;
use super::readers::{Access, fetched, venv};
use super::s3;

/// The recipes of one document.
#[derive(Debug)]
pub struct Recipes {
    document: String,
    by_name: BTreeMap<String, String>,
}

impl Recipes {
    /// Those of a document of the source tree.
    ///
    /// # Panics
    /// When it cannot be read, or two recipes have one name.
    pub fn of(document: &str) -> Self {
        let text = fs::read_to_string(source_dir().join(document)).expect("the document is there");
        let mut by_name = BTreeMap::new();
        for block in text.split("```").skip(1).step_by(2) {
            let (head, body) = block.split_once('\n').unwrap_or((block, ""));
            if let Some((_, name)) = head.split_once(' ') {
                let earlier = by_name.insert(name.to_owned(), body.to_owned());
                assert!(earlier.is_none(), "two recipes of {document} are called {name}");
            }
        }
        Self { document: document.to_owned(), by_name }
    }

    /// A recipe with each of these texts replaced.
    ///
    /// # Panics
    /// When there is no such recipe, or it lacks one of the texts.
    pub fn adapted(&self, name: &str, changes: &[(&str, &str)]) -> String {
        let document = &self.document;
        let recipe = self.by_name.get(name).unwrap_or_else(|| panic!("{document} has no recipe {name}"));
        changes.iter().fold(recipe.clone(), |recipe, (from, to)| {
            assert!(recipe.contains(from), "{name} of {document} has no `{from}`:\n{recipe}");
            recipe.replace(from, to)
        })
    }
}

/// Runs a script of Python and gives what it prints.
///
/// # Errors
/// When it fails; with what it says.
pub fn python(name: &str, script: &str, environment: &[(&str, &str)]) -> Result<String> {
    let path = run_dir().join(format!("recipe-{name}.py"));
    fs::write(&path, script)?;
    let mut command = Command::new(venv("python"));
    command
        .arg(&path)
        .current_dir(run_dir())
        .envs([("AWS_REGION", s3::REGION), ("AWS_DEFAULT_REGION", s3::REGION)])
        .envs([("AWS_ACCESS_KEY_ID", s3::KEY), ("AWS_SECRET_ACCESS_KEY", s3::SECRET)])
        .envs(environment.iter().copied());
    let ended = run_command(name, command).context("no Python environment: run localstack/setup, or ./test")?;
    Ok(ended.expect(&[0]).context(name.to_owned())?.stdout)
}

/// A recipe of `docs/reading.md` for Spark, with the jars that are here and the emulator's endpoints.
///
/// # Errors
/// When there are no jars.
pub fn spark(name: &str, access: &Access, changes: &[(&str, &str)]) -> Result<String> {
    let emulated = access.spark.iter().filter(|(key, _)| key.starts_with("s3.") || key.contains("endpoint"));
    let emulated: Vec<String> =
        emulated.map(|(key, value)| format!(".config(\"spark.sql.catalog.lake.{key}\", \"{value}\")\n    ")).collect();
    let emulated = emulated.concat();
    let jars = fs::read_dir(fetched("spark")?)?.map(|jar| Ok(jar?.path().display().to_string()));
    let jars = jars.collect::<Result<Vec<_>>>()?.join(",");
    let bound = ".config(\"spark.ui.enabled\", \"false\").config(\"spark.driver.memory\", \"1g\").getOrCreate()";
    let here = [
        (".config(\"spark.jars.packages\", iceberg)", format!(".config(\"spark.jars\", \"{jars}\")")),
        (".getOrCreate()", format!("{emulated}{bound}")),
        ("eu-central-1", s3::REGION.to_owned()),
    ];
    let all: Vec<_> = here.iter().map(|(from, to)| (*from, to.as_str())).chain(changes.iter().copied()).collect();
    Ok(Recipes::of("docs/reading.md").adapted(name, &all))
}

/// The beginning of that recipe, which makes `spark` on Glue.
///
/// # Errors
/// When there are no jars.
pub fn spark_with(access: &Access) -> Result<String> {
    let recipe = spark("spark-glue", access, &[])?;
    let end = recipe.find("\n)\n").context("the recipe makes a session")?;
    Ok(recipe[..end + 3].to_owned())
}
