//! `functions` and `schema`: what pipelines of this program may say. They need no deployment: of `firn.yaml`, if there is one,
//! only the plug-ins matter.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;
use firn_shared::cli::{say, say_json};
use firn_shared::config::{schema, with_plugins};
use firn_shared::error::Result;
use firn_shared::functions::{Argument, Description, Functions};

use super::{DONE, FIRN_YAML, Format};

/// Files that people write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// `pipelines/*.yaml`, with all functions as steps.
    Pipeline,
    /// `firn.yaml`.
    Firn,
    /// `*.test.yaml`.
    Test,
    /// A key ring.
    KeyRing,
}

/// Lists the functions, or describes the one of this name.
pub fn functions(config: Option<&Path>, name: Option<&str>, functions: &Functions, format: Format) -> Result<u8> {
    let known = known(config, functions)?;
    match (name, format) {
        (Some(name), Format::Text) => say(&described(&known.named(name)?.into()))?,
        (Some(name), Format::Json) => say_json(&Description::from(known.named(name)?))?,
        (None, Format::Text) => say(&listed(&all(&known)))?,
        (None, Format::Json) => say_json(&all(&known))?,
    }
    Ok(DONE)
}

/// Prints a JSON Schema.
pub fn schema(config: Option<&Path>, what: What, functions: &Functions) -> Result<u8> {
    say_json(&match what {
        What::Pipeline => schema::pipeline_of_program(&known(config, functions)?),
        What::Firn => schema::firn(),
        What::Test => schema::test(),
        What::KeyRing => schema::ring(),
    })?;
    Ok(DONE)
}

/// The functions of the program and of the plug-ins; where no `firn.yaml` is named, one need not be there.
fn known(config: Option<&Path>, functions: &Functions) -> Result<Functions> {
    match config {
        None if !Path::new(FIRN_YAML).exists() => Ok(functions.clone()),
        given => Ok(with_plugins(given.unwrap_or(Path::new(FIRN_YAML)), functions)?),
    }
}

/// All of them, by family.
fn all(functions: &Functions) -> Vec<Description> {
    let mut all: Vec<_> = functions.iter().collect();
    all.sort_by_key(|function| function.family);
    all.into_iter().map(Description::from).collect()
}

/// A line for each function, under its family.
fn listed(functions: &[Description]) -> String {
    let width = functions.iter().map(|function| function.name.len()).max().unwrap_or_default();
    let families = functions.chunk_by(|one, other| one.family == other.family).map(|family| {
        let lines = family.iter().map(|function| format!("  {:width$}  {}", function.name, function.about));
        [family[0].family.clone()].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
    });
    families.collect::<Vec<_>>().join("\n\n")
}

fn described(function: &Description) -> String {
    let Description { name, family, about, example, arguments, .. } = function;
    let example = if example.is_empty() { String::new() } else { format!("\n  - {example}\n") };
    let mut out = format!("{name} ({family})\n{about}\n{example}");
    let width = |text: fn(&Argument) -> usize| arguments.iter().map(text).max().unwrap_or_default();
    let (names, kinds) = (width(|arg| arg.name.len()), width(|arg| arg.kind.len()));
    for Argument { name, kind, required, about, default } in arguments {
        let need = match default {
            _ if *required => " Required.".to_owned(),
            Some(default) => format!(" Default `{default}`."),
            None => String::new(),
        };
        // Writing into text cannot fail.
        let _ = write!(out, "\n  {name:names$}  {kind:kinds$}  {about}{need}");
    }
    for rule in function.rules() {
        let _ = write!(out, "{}{rule}", if rule.starts_with("Gives") { "\n\n" } else { "\n" });
    }
    out
}

#[cfg(test)]
mod tests {
    use firn_shared::functions::{Function, Gives, Shape, Takes};

    use super::*;

    static OWN: [Function; 1] = [Function::new("acme.iban", "Checks.", Shape::Map(Takes::Text, Gives::Same))];

    fn with_own() -> Functions {
        Functions::built_in().with(&OWN).unwrap()
    }

    #[test]
    fn a_function_is_described_with_its_arguments_and_rules() {
        let text = described(&Description::from(with_own().named("concat").unwrap()));
        insta::assert_snapshot!(text, @r#"
        concat (Strings)
        The texts of several columns, one after the other.

          - concat: {columns: [first_name, last_name], separator: ' ', as: name}

          columns    list of columns of string  The columns, in order. Required.
          separator  text                       What stands between them. Default `""`.
          skipNulls  true or false              Whether columns without a value are left out. Default `false`.
          as         name                       The result; may be the name of one that is read. Required.

        Gives string.
        Nulls: null where a column is null, or, with `skipNulls`, where all are.
        Rejects the record of: a result that is longer than memory allows.
        "#);
        let json = serde_json::to_string_pretty(&Description::from(with_own().named("acme.iban").unwrap())).unwrap();
        insta::assert_snapshot!(json, @r#"
        {
          "name": "acme.iban",
          "family": "Your own",
          "about": "Checks.",
          "arguments": [
            {
              "name": "column",
              "kind": "column of string",
              "required": true,
              "about": "The column."
            },
            {
              "name": "as",
              "kind": "name",
              "required": false,
              "about": "The result, a new column; else it replaces `column`."
            }
          ],
          "gives": "the same type",
          "nulls": "Null stays null; nothing else becomes null."
        }
        "#);
        let unknown = with_own().named("acme.ibna").unwrap_err().to_string();
        insta::assert_snapshot!(unknown, @"no function `acme.ibna`; did you mean `acme.iban`?");
    }

    #[test]
    fn all_functions_are_listed_by_family_those_of_others_last() {
        let text = listed(&all(&with_own()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[lines.len() - 2]), ("Columns", "Your own"), "{text}");
        assert!(lines[1].starts_with("  rename ") && lines[lines.len() - 1].starts_with("  acme.iban "), "{text}");
        let functions = lines.iter().filter(|line| line.starts_with("  ")).count();
        assert_eq!(functions, Functions::built_in().iter().count() + 1);
    }

    #[test]
    fn the_schema_of_a_program_has_its_functions_and_no_door_for_others() {
        let steps = |schema: serde_json::Value| schema["$defs"]["StepYaml"]["oneOf"].as_array().unwrap().clone();
        let fits = |steps: &[serde_json::Value], name: &str| {
            steps.iter().filter(|step| step["properties"].get(name).is_some()).count()
        };
        let doors = |steps: &[serde_json::Value]| steps.iter().filter(|s| s["patternProperties"].is_object()).count();
        let exact = steps(schema::pipeline_of_program(&with_own()));
        assert_eq!((fits(&exact, "acme.iban"), fits(&exact, "lower"), doors(&exact)), (1, 1, 0));
        let open = steps(schema::pipeline(&with_own()));
        assert_eq!((fits(&open, "acme.iban"), doors(&open)), (1, 1));
    }
}
