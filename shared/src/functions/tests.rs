//! The table against its own rules; what the functions do to values is tested by the compactor's cases.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::*;
use crate::config::domain::{Column, JsonPath};
use crate::types::LogicalType;

fn columns() -> Vec<Column> {
    let column = |(name, text): (&str, &str)| Column {
        name: name.to_owned(),
        path: JsonPath(vec![name.to_owned()]),
        r#type: text.parse().unwrap(),
        required: name == "id",
        format: None,
        doc: None,
    };
    [("id", "long"), ("mail", "string"), ("at", "timestamptz"), ("body", "json")].map(column).to_vec()
}

fn plan(list: &[(&str, Json)]) -> String {
    match steps(&Functions::built_in(), &columns(), list) {
        Ok(steps) => {
            let after = &steps.last().unwrap().plan.after;
            after.iter().map(|(c, from)| format!("{} {} {from:?}", c.name, c.r#type)).collect::<Vec<_>>().join(", ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_function_is_described_and_its_example_reads() {
    let mut names = BTreeSet::new();
    for function in Functions::built_in().iter() {
        let name = function.name;
        assert!(names.insert(name), "{name} comes twice");
        assert!(!Function::is_own(name) && function.family != Family::Own, "{name}");
        assert!(function.about.ends_with('.'), "{name}: {}", function.about);
        let step = crate::config::yaml_as_json(&format!("- {}", function.example)).unwrap();
        let given = step[0][name].as_object().unwrap_or_else(|| panic!("{name}: the example is a step of it"));
        let mut wrong = Vec::new();
        let args = Args::read(function, given, &mut |arg, message| wrong.push(format!("{arg}: {message}")));
        assert!(args.is_some() && wrong.is_empty(), "{name}: {wrong:?}");
        let mut seen = BTreeSet::new();
        for arg in function.all_args() {
            assert!(seen.insert(arg.name), "{name}: argument {} comes twice", arg.name);
            assert!(arg.about.ends_with('.'), "{name}.{}: {}", arg.name, arg.about);
        }
    }
}

#[test]
fn columns_are_known_step_by_step() {
    let list = [
        ("rename", json!({"from": "mail", "to": "email"})),
        ("lower", json!({"column": "email", "as": "folded"})),
        ("extract", json!({"from": "body", "path": "$.n", "as": "n", "type": "list<int>"})),
        ("drop", json!({"columns": ["body", "at"]})),
    ];
    insta::assert_snapshot!(plan(&list[..2]), @"id long Kept(0), email string Kept(1), at timestamptz Kept(2), body json Kept(3), folded string Made(0)");
    insta::assert_snapshot!(plan(&list), @"id long Kept(0), email string Kept(1), folded string Kept(4), n list<int> Kept(5)");
    let steps = steps(&Functions::built_in(), &columns(), &list).unwrap();
    assert_eq!(origins(&steps, 2), BTreeSet::from([1]), "folded comes from mail");
    assert_eq!(origins(&steps, 3), BTreeSet::from([3]), "n comes from body");
    let after = &steps[3].plan.after;
    assert!(after[0].0.required && after[0].0.path.0 == ["id"] && after[2].0.path.0.is_empty());
}

#[test]
fn all_mistakes_come_at_once_with_the_columns_there() {
    let list = [
        ("lowr", json!({})),
        ("lower", json!({"column": "id"})),
        ("cast", json!({"column": "at", "to": "boolean"})),
        ("extract", json!({"from": "body", "path": "n", "as": "id", "type": "int", "typ": "x"})),
    ];
    insta::assert_snapshot!(plan(&list), @r"
    step 1: no function `lowr`; did you mean `lower`?
    step 2: lower.column: column `id` is long; lower takes string; the columns here are id long, mail string, at timestamptz, body json
    step 3: cast.to: there is no way from timestamptz to boolean; the columns here are id, mail string, at timestamptz, body json
    step 4: extract.path: JSON path `n`: expected `$`, found `n` at character 1
    step 4: extract.typ: unknown key; did you mean `type`?
    ");
    insta::assert_snapshot!(plan(&list[1..2]), @"step 1: lower.column: column `id` is long; lower takes string; the columns here are id long, mail string, at timestamptz, body json");
    insta::assert_snapshot!(plan(&[("lower", json!({"column": "mial"}))]), @"step 1: lower.column: no column `mial` here; did you mean `mail`?; the columns here are id long, mail string, at timestamptz, body json");
}

#[test]
fn of_many_columns_a_message_shows_the_first() {
    let column = |i: usize| Column {
        name: format!("c{i}"),
        r#type: if i == 1 { format!("struct<{}: int>", "f".repeat(90)) } else { "int".to_owned() }.parse().unwrap(),
        ..columns()[0].clone()
    };
    let told = |count: usize| {
        let columns: Vec<Column> = (0..count).map(column).collect();
        steps(&Functions::built_in(), &columns, &[("lower", json!({"column": "c0"}))]).unwrap_err().to_string()
    };
    let start = format!(
        "step 1: lower.column: column `c0` is int; lower takes string; the columns here are c0 int, c1 struct<{}…, c2 int",
        "f".repeat(53)
    );
    for (count, end) in [(20, "c18 int, c19 int"), (21, "c19 int and 1 more"), (500, "c19 int and 480 more")] {
        let told = told(count);
        assert!(told.starts_with(&start) && told.ends_with(end), "{told}");
    }
}

#[test]
fn own_functions_have_names_of_their_own() {
    const GOOD: Function = Function::new("acme.iban", "Checks.", Shape::Map(Takes::Text, Gives::Same));
    const BAD: Function = Function::new("iban", "Checks.", Shape::Map(Takes::Text, Gives::Same));
    static BOTH: [Function; 2] = [GOOD, BAD];
    let functions = Functions::built_in().with([&BOTH[0]]).unwrap();
    assert_eq!(functions.get("acme.iban").unwrap().family, Family::Own);
    assert!(functions.clone().with([&BOTH[0]]).unwrap_err().to_string().contains("twice"));
    assert!(functions.with([&BOTH[1]]).unwrap_err().to_string().contains("a dot between"));
    assert_eq!(LogicalType::String.to_string(), "string");
}

#[test]
fn columns_are_taken_where_every_value_of_them_fits() {
    const LISTS: Takes = Takes::ListOf(&Takes::Decimal { precision: 12, scale: 0 });
    let decimal = Takes::Decimal { precision: 18, scale: 2 };
    let accepted = |takes: Takes, types: &[&'static str]| {
        let all = types.iter().filter(|text| takes.accepts(&text.parse().unwrap()));
        all.copied().collect::<Vec<_>>()
    };
    let types = [
        "int",
        "long",
        "float",
        "double",
        "decimal(18,2)",
        "decimal(10,2)",
        "decimal(16,0)",
        "decimal(17,0)",
        "decimal(18,3)",
        "decimal(19,2)",
        "decimal(3,3)",
        "string",
        "list<int>",
    ];
    assert_eq!(accepted(decimal, &types), ["int", "decimal(18,2)", "decimal(10,2)", "decimal(16,0)"]);
    assert_eq!(accepted(Takes::Decimal { precision: 19, scale: 0 }, &types)[..2], ["int", "long"]);
    let lists = ["list<int>", "list<long>", "list<decimal(12,0)>", "list<decimal(12,1)>", "list<list<int>>", "int"];
    assert_eq!(accepted(LISTS, &lists), ["list<int>", "list<decimal(12,0)>"]);
    assert_eq!(LISTS.to_string(), "list<int, long or decimal within decimal(12,0)>");
    assert_eq!(Takes::ListOf(&Takes::Text).to_string(), "list<string>");
}

#[test]
fn the_reference_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/functions.md");
    let page = reference();
    if crate::config::env::variable("FIRN_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/functions.md is out of date: FIRN_UPDATE=1 cargo test -p firn-shared functions");
}
