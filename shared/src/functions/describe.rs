//! What a function is, in words: `docs/functions.md` out of the table, and the same for `compactor functions`.

use std::fmt::Write;

use serde::Serialize;

use super::{Arg, BUILT_IN, Family, Function, Need, Nulls, Shape};

const PREAMBLE: &str = "# Functions

Generated from the table of functions; a test keeps it so. How steps fit together, and what holds for all of them, is in
[transformations.md](transformations.md). Required arguments are bold. The cases that show what each function does to
values are in `compactor/tests/functions`, one file a family, and run with the tests.
";

/// The reference of all functions that come with the programs, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut functions: Vec<&Function> = BUILT_IN.iter().copied().flatten().collect();
    functions.sort_by_key(|function| function.family);
    let mut page = PREAMBLE.to_owned();
    let _ = writeln!(page, "\n{} functions:\n", functions.len());
    for family in functions.chunk_by(|a, b| a.family == b.family) {
        let names: Vec<String> =
            family.iter().map(|f| format!("[`{0}`](#{1})", f.name, f.name.to_lowercase())).collect();
        let _ = writeln!(page, "- {}: {}", family[0].family, names.join(", "));
    }
    for family in functions.chunk_by(|a, b| a.family == b.family) {
        heading(&mut page, family[0].family);
        for function in family {
            describe(&mut page, function);
        }
    }
    page
}

fn heading(page: &mut String, family: Family) {
    let _ = writeln!(page, "\n## {family}");
}

/// A function in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The key of a step.
    pub name: &'static str,
    /// What it is listed under.
    pub family: String,
    /// What it does.
    pub about: &'static str,
    /// A step as one writes it, if somebody has shown it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub example: &'static str,
    /// Its arguments, in order.
    pub arguments: Vec<Argument>,
    /// The type of its result, where that is one thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gives: Option<String>,
    /// What becomes of nulls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nulls: Option<String>,
    /// Which values reject their record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejects: Option<&'static str>,
}

/// An argument in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Its key.
    pub name: &'static str,
    /// What it may be.
    pub kind: String,
    /// Whether it must be given.
    pub required: bool,
    /// What it means.
    pub about: &'static str,
    /// What it is when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<&'static str>,
}

impl From<Arg> for Argument {
    fn from(arg: Arg) -> Self {
        let (required, default) = (matches!(arg.need, Need::Required), arg.default_text());
        Self { name: arg.name, kind: arg.kind.words(), required, about: arg.about, default }
    }
}

impl From<&Function> for Description {
    fn from(function: &Function) -> Self {
        let gives = match function.shape {
            Shape::Map(_, gives) | Shape::Combine(_, gives) | Shape::Named(gives) => Some(gives.to_string()),
            _ => None,
        };
        Self {
            name: function.name,
            family: function.family.to_string(),
            about: function.about,
            example: function.example,
            arguments: function.all_args().map(Argument::from).collect(),
            gives,
            nulls: nulls(function),
            rejects: (!function.rejects.is_empty()).then_some(function.rejects),
        }
    }
}

fn nulls(function: &Function) -> Option<String> {
    let computes = !matches!(function.shape, Shape::Layout(_) | Shape::Keep(_));
    match function.nulls {
        Nulls::Stay => computes.then(|| "Null stays null; nothing else becomes null.".to_owned()),
        Nulls::Made(which) => Some(format!("Null stays null. Becomes null: {which}.")),
        Nulls::Own(rule) => Some(format!("Nulls: {rule}.")),
    }
}

impl Description {
    /// What else there is to say, a sentence each.
    #[must_use]
    pub fn rules(&self) -> Vec<String> {
        let gives = self.gives.iter().map(|gives| format!("Gives {gives}."));
        let rejects = self.rejects.iter().map(|which| format!("Rejects the record of: {which}."));
        gives.chain(self.nulls.clone()).chain(rejects).collect()
    }
}

fn describe(page: &mut String, function: &Function) {
    let described = Description::from(function);
    let Description { name, about, example, .. } = &described;
    let _ = writeln!(page, "\n### `{name}`\n\n{about}\n\n```yaml\n- {example}\n```\n");
    let _ = writeln!(page, "| argument | what it is | meaning |\n| --- | --- | --- |");
    for Argument { name, kind, required, about, default } in &described.arguments {
        let must = if *required { "**" } else { "" };
        let default = default.map_or_else(String::new, |default| format!(" Default `{default}`."));
        let (kind, about) = (kind.replace('|', "\\|"), about.replace('|', "\\|"));
        let _ = writeln!(page, "| {must}`{name}`{must} | {kind} | {about}{default} |");
    }
    page.push('\n');
    for rule in described.rules() {
        let _ = writeln!(page, "- {rule}");
    }
}
