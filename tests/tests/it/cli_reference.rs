//! `docs/cli.md` is what the programs themselves say; `FIRN_UPDATE=1 cargo test -p firn-e2e cli_reference` rewrites it.

use std::fmt::Write;

use firn_e2e::rig::procs::source_dir;
use firn_e2e::rig::programs::run;

/// Commands that measure Firn itself.
const LEFT_OUT: &str = "bench";

fn help(program: &str, command: &[&str]) -> String {
    let arguments: Vec<String> = command.iter().chain(&["--help"]).map(ToString::to_string).collect();
    let text = run(program, &arguments).unwrap().expect(&[0]).unwrap().stdout;
    // The number of processors and paths of this machine have no place in a reference; clap pads line ends.
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Names under `Commands:` in a help text.
fn commands(help: &str) -> Vec<&str> {
    let section = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names =
        section.filter(|l| l.starts_with("  ") && !l.starts_with("   ")).filter_map(|l| l.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// A help text without the options in `global`: they are every command's, and told once.
fn without(help: &str, global: &[String]) -> String {
    let shown = options(help).into_iter().filter(|entry| !global.contains(&name(entry)));
    let shown: Vec<String> = shown.collect();
    let Some((before, _)) = help.split_once("\nOptions:\n") else { return help.to_owned() };
    let options = if shown.is_empty() { String::new() } else { format!("\nOptions:\n{}\n", shown.join("\n")) };
    format!("{}\n{options}", before.trim_end()).trim_end().to_owned()
}

/// Entries under `Options:`, the last section of a help text, each with its lines.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Options:").skip(1);
    let mut entries: Vec<String> = Vec::new();
    for line in lines {
        if line.trim_start().starts_with('-') && !line.trim_start().starts_with("- ") {
            entries.push(line.to_owned());
        } else if let Some(entry) = entries.last_mut() {
            entry.push('\n');
            entry.push_str(line);
        }
    }
    entries
}

/// The long name of an option: `--config` of `      --config <CONFIG>`.
fn name(entry: &str) -> String {
    let words = entry.split_whitespace().map(|word| word.trim_end_matches(','));
    words.clone().find(|word| word.starts_with("--")).unwrap_or_default().to_owned()
}

fn describe(page: &mut String, program: &str, command: &[&str], global: &[String]) {
    let text = help(program, command);
    let shown = if command.is_empty() { text.clone() } else { without(&text, global) };
    let title = [&[program], command].concat().join(" ");
    let level = "#".repeat(command.len() + 2);
    write!(page, "\n{level} `{title}`\n\n```\n{}\n```\n", shown.trim()).unwrap();
    for name in commands(&text).into_iter().filter(|name| *name != LEFT_OUT) {
        describe(page, program, &[command, &[name]].concat(), global);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn cli_reference_is_current() {
    let mut page = "# Commands\n\nGenerated from the programs' own help; a test keeps it so. The options of a program itself go with \
        each of its commands\nand are not repeated there. `compactor bench`, which measures Firn, is left out.\n"
        .to_owned();
    for program in ["landing", "compactor"] {
        let global: Vec<String> = options(&help(program, &[])).iter().map(|entry| name(entry)).collect();
        describe(&mut page, program, &[], &global);
    }
    let path = source_dir().join("docs/cli.md");
    if std::env::var("FIRN_UPDATE").is_ok() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/cli.md is out of date: FIRN_UPDATE=1 cargo test -p firn-e2e cli_reference");
}
