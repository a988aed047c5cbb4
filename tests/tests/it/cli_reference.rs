//! `docs/cli.md` is what the programs themselves say; `FIRN_UPDATE=1 cargo test -p firn-e2e cli_reference` rewrites it.

use std::fmt::Write;

use firn_e2e::rig::procs::source_dir;
use firn_e2e::rig::programs::run;

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

fn describe(page: &mut String, program: &str, command: &[&str]) {
    let text = help(program, command);
    let title = [&[program], command].concat().join(" ");
    let level = "#".repeat(command.len() + 2);
    write!(page, "\n{level} `{title}`\n\n```\n{}\n```\n", text.trim()).unwrap();
    for name in commands(&text) {
        describe(page, program, &[command, &[name]].concat());
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn cli_reference_is_current() {
    let mut page = "# Commands\n\nGenerated from the programs' own help; a test keeps it so.\n".to_owned();
    for program in ["landing", "compactor"] {
        describe(&mut page, program, &[]);
    }
    let path = source_dir().join("docs/cli.md");
    if std::env::var("FIRN_UPDATE").is_ok() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/cli.md is out of date: FIRN_UPDATE=1 cargo test -p firn-e2e cli_reference");
}
