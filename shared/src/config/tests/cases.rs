use proptest::prelude::*;

use super::super::read_tests;
use super::*;

const TESTS: &str = "\
pipeline: p.yaml
cases:
  - name: a
    events:
      - value: {id: 1}
    expect:
      table:
        rows: [{id: 1, x: {y: [1]}}]
";

fn check_tests(text: &str) -> String {
    read_tests(Path::new("a.test.yaml"), text).map_or_else(|problems| problems.to_string(), |_| "passes".to_owned())
}

#[test]
fn mistakes_in_tests_have_their_places() {
    let cases = [
        ("pipeline: p.yaml", "pipelin: p.yaml"),
        ("pipeline: p.yaml", "timestamp: noon"),
        ("cases:", "case:"),
        ("name: a", "nam: a"),
        ("value: {id: 1}", "value: {id: 1}\n        text: x"),
        ("value: {id: 1}", "key: x"),
        ("value: {id: 1}", "base64: '*'"),
        ("value: {id: 1}", "{tombstone: true, topic: 'a b', timestamp: x}"),
        ("    events:\n      - value: {id: 1}\n", ""),
        ("    events:", "    runs: []\n    events:"),
        ("{id: 1, x", "{id: $anny, x"),
        ("{id: 1, x", "{id: {$regex: '('}, x"),
        ("{id: 1, x", "{id: {$approx: 1, within: -1}, x"),
        ("{y: [1]}", "{y: [1, {$regexp: a}]}"),
        ("{y: [1]}", "{$value: 1, b: 2}"),
        ("      table:\n", "      tables: {}\n      table:\n"),
        ("rows: [{id", "quarantine: [{reasn: x}]\n        rows: [{id"),
        ("rows: [{id", "rowCount: -1\n        rows: [{id"),
        ("  - name: a\n", "  - {name: a, events: []}\n  - name: a\n"),
        ("name: a", "name: ' '"),
        ("pipeline: p.yaml\n", ""),
        ("pipeline: p.yaml\n", "\u{feff}pipeline: p.yaml\n"),
        ("{id: 1, x", "{id: '${HOME}', x"),
    ];
    let mut out = String::new();
    for (old, new) in cases {
        assert!(TESTS.contains(old), "{old}");
        out.push_str(
            &[
                "# ",
                &new.replace('\n', "⏎").replace('\u{feff}', "BOM "),
                "\n",
                &check_tests(&TESTS.replacen(old, new, 1)),
                "\n",
            ]
            .concat(),
        );
    }
    insta::assert_snapshot!(out, @r#"
    # pipelin: p.yaml
    a.test.yaml:1:1: pipelin: unknown key; did you mean `pipeline`?
    # timestamp: noon
    a.test.yaml:1:12: timestamp: `noon` is no time such as `2026-01-01T00:00:00Z`
    # case:
    a.test.yaml:2:1: case: unknown key; did you mean `cases`?
    # nam: a
    a.test.yaml:3:5: cases[0].nam: unknown key; did you mean `name`?
    # value: {id: 1}⏎        text: x
    a.test.yaml:5:9: cases[0].events[0]: needs exactly one of `value`, `text`, `base64` and `tombstone: true`; a JSON null is `text: "null"`
    # key: x
    a.test.yaml:5:9: cases[0].events[0]: needs exactly one of `value`, `text`, `base64` and `tombstone: true`; a JSON null is `text: "null"`
    # base64: '*'
    a.test.yaml:5:17: cases[0].events[0].base64: is no base64: Invalid symbol 42, offset 0
    # {tombstone: true, topic: 'a b', timestamp: x}
    a.test.yaml:5:34: cases[0].events[0].topic: topic `a b` may hold only ASCII letters, digits, `.`, `_` and `-`
    # 
    a.test.yaml:3:5: cases[0]: has neither `events` nor a `file` of them; an empty list is written `events: []`
    #     runs: []⏎    events:
    a.test.yaml:4:11: cases[0].runs: stands in place of `events` and `file`; keep one
    # {id: $anny, x
    a.test.yaml:8:21: cases[0].expect.table.rows[0].id: no matcher `$anny`, there are `$any`, `$present` and `$absent`; for the text itself write {$value: …}; did you mean `$any`?
    # {id: {$regex: '('}, x
    a.test.yaml:8:21: cases[0].expect.table.rows[0].id: `(` is not a regular expression: unclosed group
    # {id: {$approx: 1, within: -1}, x
    a.test.yaml:8:21: cases[0].expect.table.rows[0].id: `$approx` takes a number, and `within` another one that is not negative
    # {y: [1, {$regexp: a}]}
    a.test.yaml:8:35: cases[0].expect.table.rows[0].x.y[1]: `$regexp` is no matcher, or does not stand alone; there are `$regex`, `$approx`, `$unordered` and `$value`; did you mean `$regex`?
    # {$value: 1, b: 2}
    a.test.yaml:8:27: cases[0].expect.table.rows[0].x: `$value` is no matcher, or does not stand alone; there are `$regex`, `$approx`, `$unordered` and `$value`
    #       tables: {}⏎      table:⏎
    a.test.yaml:7:15: cases[0].expect.tables: stands in place of `table`; keep one
    # quarantine: [{reasn: x}]⏎        rows: [{id
    a.test.yaml:8:23: cases[0].expect.table.quarantine[0].reasn: unknown key; did you mean `reason`?
    # rowCount: -1⏎        rows: [{id
    a.test.yaml:8:19: cases[0].expect.table.rowCount: must be between 0 and 4294967295, found -1
    #   - {name: a, events: []}⏎  - name: a⏎
    a.test.yaml:4:11: cases[1].name: case `a` is there already, at line 3
    # name: ' '
    a.test.yaml:3:11: cases[0].name: must not be empty
    # 
    passes
    # BOM pipeline: p.yaml⏎
    passes
    # {id: '${HOME}', x
    passes
    "#);
}

#[test]
fn a_file_without_its_ending_names_its_pipeline() {
    let text = TESTS.replace("pipeline: p.yaml\n", "");
    let tests = read_tests(Path::new("x/a.test.yml"), &text).unwrap();
    assert_eq!(tests.pipeline, Path::new("x/a.yml"));
    let problems = read_tests(Path::new("x/cases.yaml"), &text).unwrap_err();
    assert!(problems.to_string().contains("only a file that ends in `.test.yaml`"), "{problems}");
}

#[test]
fn tests_beside_a_pipeline_are_no_pipelines() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("firn.yaml"), FIRN).unwrap();
    std::fs::create_dir(folder.path().join("pipelines")).unwrap();
    std::fs::write(folder.path().join("pipelines/a.yaml"), PIPELINE).unwrap();
    std::fs::write(folder.path().join("pipelines/a.test.yaml"), TESTS).unwrap();
    let files = find(folder.path()).unwrap();
    assert_eq!(files.pipelines, [folder.path().join("pipelines/a.yaml")]);
}

proptest! {
    #[test]
    fn any_text_of_a_test_gets_an_answer(text in "[a-c:\\-\\[\\]{},'\"|>$#\n ]{0,60}") {
        let _ = check_tests(&text);
        let _ = check_tests(&TESTS.replace("{y: [1]}", &text));
    }
}
