//! `docs/functions.md`, out of the table.

use std::fmt::Write;

use super::{BUILT_IN, Family, Function, Need, Nulls, Shape};

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

fn describe(page: &mut String, function: &Function) {
    let _ = writeln!(page, "\n### `{}`\n\n{}\n\n```yaml\n- {}\n```\n", function.name, function.about, function.example);
    let _ = writeln!(page, "| argument | what it is | meaning |\n| --- | --- | --- |");
    for arg in function.all_args() {
        let (must, default) = match arg.need {
            Need::Required => ("**", String::new()),
            Need::Optional => ("", String::new()),
            Need::Default(default) => ("", format!(" Default {}.", default.trim_matches('"'))),
        };
        let kind = arg.kind.words().replace('|', "\\|");
        let _ = writeln!(page, "| {must}`{}`{must} | {kind} | {}{default} |", arg.name, arg.about.replace('|', "\\|"));
    }
    page.push('\n');
    match function.shape {
        Shape::Map(_, gives) | Shape::Combine(_, gives) | Shape::Named(gives) => {
            let _ = writeln!(page, "- Gives {gives}.");
        }
        _ => {}
    }
    let computes = !matches!(function.shape, Shape::Layout(_) | Shape::Keep(_));
    match function.nulls {
        Nulls::Stay if computes => page.push_str("- Null stays null; nothing else becomes null.\n"),
        Nulls::Stay => {}
        Nulls::Made(which) => {
            let _ = writeln!(page, "- Null stays null. Becomes null: {which}.");
        }
        Nulls::Own(rule) => {
            let _ = writeln!(page, "- Nulls: {rule}.");
        }
    }
    if !function.rejects.is_empty() {
        let _ = writeln!(page, "- Rejects the record of: {}.", function.rejects);
    }
}
