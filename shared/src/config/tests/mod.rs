//! Whole files in, a configuration or every mistake out.

use std::path::{Path, PathBuf};

use super::load::{Lookup, check_texts};
use super::{Config, Problems, columns_after, find, load};
use crate::functions::Functions;

mod cases;
mod deployments;
mod maintenance;
mod meanings;
mod plugins;
mod protection;
mod shapes;

mod examples {
    use super::*;

    fn example(name: &str) -> Result<Config, Problems> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").join(name);
        let files = find(&folder).unwrap();
        let read = |path: &PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
        let pipelines: Vec<_> = files.pipelines.iter().map(read).collect();
        let known = (&variables as Lookup<'_>, &Functions::built_in());
        check_texts(Some(&read(&files.firn)), &pipelines, known, Problems::default())
    }

    #[test]
    fn examples_pass() {
        let config = example("github").unwrap_or_else(|problems| panic!("{problems}"));
        let pipeline = config.pipelines.values().next().unwrap();
        assert_eq!(columns_after(&pipeline.outputs[0]).len(), 12);
        assert!(super::super::event_hour_partition(&pipeline.ingestion, &pipeline.outputs[0]).is_some());
        let config = example("zeek").unwrap_or_else(|problems| panic!("{problems}"));
        let columns = columns_after(&config.pipelines.values().next().unwrap().outputs[0]);
        assert_eq!((columns[2].name.as_str(), columns[2].path.to_string().as_str()), ("orig_h", "$['id.orig_h']"));
        let config = example("protected").unwrap_or_else(|problems| panic!("{problems}"));
        let protected = columns_after(&config.pipelines.values().next().unwrap().outputs[0]);
        assert!(protected.iter().any(|column| column.name == "_key_people"));
        let config = example("customers").unwrap_or_else(|problems| panic!("{problems}"));
        let customers = &config.pipelines.values().next().unwrap().outputs[0].table;
        assert_eq!(customers.mode.upsert().map(|upsert| upsert.keys.len()), Some(1));
    }

    #[test]
    fn every_key_is_known_and_what_is_not_supported_says_so() {
        let problems = example("everything").unwrap_err();
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}:{}: {}: {}", problem.line, problem.column, problem.path, problem.message))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        43:11: registry: not supported yet: a schema registry
        53:3: access: needs `catalog: {glue: ...}`: Lake Formation governs tables of Glue's catalog only
        61:9: plugins.bank: this program is built without plug-ins
        17:30: ingestionUnit.incomingData.whitelist.OrderPlaced.subject: not supported yet: checking against a schema registry
        19:31: ingestionUnit.incomingData.late.then: not supported yet: `sideTable`; use `accept` or `quarantine`
        50:77: outsourcingUnit[0].table.columns[2].was: not supported yet: renaming columns of a table that exists
        57:29: outsourcingUnit[0].table.contract.newColumn: not supported yet: anything but `ignore`
        57:52: outsourcingUnit[0].table.contract.removedColumn: not supported yet: anything but `keep`
        57:70: outsourcingUnit[0].table.contract.typeChange: not supported yet: anything but `fail`
        57:91: outsourcingUnit[0].table.contract.incompatible: not supported yet: anything but `quarantine`
        74:5: streams[0]: not supported yet: streams
        "#);
    }
}

/// A deployment and a pipeline that pass, to be spoilt.
const FIRN: &str = "\
clusters:
  events: {brokers: 'localhost:9092'}
raw: /data/raw
warehouse: /data/tables
catalog:
  sqlite: {path: catalog.db}
";
const PIPELINE: &str = "\
name: orders
ingestionUnit:
  kafka: {cluster: events, topic: shop.orders}
  incomingData:
    format: json
    eventName: $.type
    eventTime: {path: $.at, format: rfc3339}
outsourcingUnit:
  - events: [Placed]
    table:
      database: shop
      tableName: orders
      jsonColumns: [body]
      partitionBy: [hour(at)]
      sortBy: [id]
      columns:
        - {name: id, type: long}
        - {name: at, type: timestamptz, format: rfc3339}
        - {name: mail, type: string}
        - {name: body}
    transformations:
      - extract: {from: body, path: $.size, as: size, type: int}
      - lower: {column: mail}
";

fn variables(name: &str) -> Option<String> {
    match name {
        "PASSWORD" | "KAFKA_PASSWORD" => Some("hunter2".to_owned()),
        "PORT" => Some("9092".to_owned()),
        "MEMORY" => Some("1GB".to_owned()),
        _ => None,
    }
}

/// Checks a deployment and pipelines `a.yaml`, `b.yaml`, …
fn check(firn: &str, pipelines: &[&str]) -> Result<Config, Problems> {
    let files: Vec<(PathBuf, String)> = pipelines
        .iter()
        .zip('a'..)
        .map(|(text, letter)| (PathBuf::from(format!("{letter}.yaml")), (*text).to_owned()))
        .collect();
    check_texts(
        Some(&("firn.yaml".into(), firn.to_owned())),
        &files,
        (&variables, &Functions::built_in()),
        Problems::default(),
    )
}

/// Each case replaces one text in the good file; the answer lists the case and its problems.
fn spoil(good: &str, cases: &[(&str, &str)], run: impl Fn(&str) -> Result<Config, Problems>) -> String {
    let mut out = String::new();
    for (old, new) in cases {
        assert!(good.contains(old), "`{old}` is not in the file");
        let answer =
            run(&good.replacen(old, new, 1)).map_or_else(|problems| problems.to_string(), |_| "passes".to_owned());
        out.push_str(&["# ", &new.replace('\n', "⏎"), "\n", &answer, "\n"].concat());
    }
    out
}

#[test]
fn problems_of_all_files_come_at_once_and_sorted() {
    let firn = FIRN.replace("/data/raw", "gs://x").replace("catalog:", "catalogue:");
    let a = PIPELINE.replace("type: long", "type: lnog").replace("database", "databse").replace("lower", "lowr");
    let b = "name: [";
    let problems = check(&firn, &[&a, b]).unwrap_err();
    insta::assert_snapshot!(problems.to_string(), @r#"
    a.yaml:11:7: outsourcingUnit[0].table.databse: unknown key; did you mean `database`?
    a.yaml:17:28: outsourcingUnit[0].table.columns[0].type: type `lnog`: no type `lnog` at character 1; did you mean `long`?
    a.yaml:23:9: outsourcingUnit[0].transformations[1].lowr: unknown key, expected one of 115 functions (docs/functions.md); did you mean `lower`?
    b.yaml:2:1: not YAML: while parsing a node, did not find expected node content
    firn.yaml:3:6: raw: location `gs://x` has the unknown scheme `gs`: use `s3://`, `file://` or a directory
    firn.yaml:5:1: catalogue: unknown key; did you mean `catalog`?
    "#);
    let json = serde_json::to_value(&problems).unwrap();
    assert_eq!((json[0]["line"].as_u64(), json[0]["file"].as_str()), (Some(11), Some("a.yaml")));
    assert_eq!(crate::error::Error::from(problems).kind(), crate::error::ErrorKind::Config);
}

#[test]
fn secrets_are_never_shown_and_what_is_shown_reads_back() {
    let firn = FIRN
        .replace(
            "'localhost:9092'",
            "'a:1', security: {protocol: saslSsl, mechanism: plain, username: u, password: '${PASSWORD}'}",
        )
        .replace("sqlite: {path: catalog.db}", "rest: {uri: 'http://x', token: '${PASSWORD}'}")
        .replace("catalog:", "s3: {accessKeyId: id, secretAccessKey: '${PASSWORD}'}\ncatalog:");
    let config = check(&firn, &[PIPELINE]).unwrap();
    let shown = super::show(&config);
    assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    insta::assert_snapshot!(shown, @r#"
    # firn.yaml
    clusters:
      events:
        brokers:
        - a:1
        security:
          protocol: saslSsl
          mechanism: plain
          username: u
          password: '***'
    raw: file:///data/raw
    s3:
      pathStyle: false
      accessKeyId: id
      secretAccessKey: '***'
    catalog:
      rest:
        uri: http://x
        token: '***'
    warehouse: file:///data/tables
    landing:
      memory: 512MB
      groupPrefix: firn-
      drain: 30s
    compactor:
      memory: 512MB
      threads: 0
      tempDir: /tmp
      commitSize: 64GB
    telemetry:
      log: info
      format: text
    ---
    # a.yaml
    name: orders
    ingestionUnit:
      kafka:
        cluster: events
        topic:
        - shop.orders
        numberOfConsumers: 1
        generation: 1
      incomingData:
        format: json
        eventName: $.type
        eventTime:
          path: $.at
          format: rfc3339
        late:
          allowed: 1h
          then: accept
        maxRecordSize: 16MiB
      raw:
        rotate:
          size: 128MB
          age: 5m
    outsourcingUnit:
    - events:
      - Placed
      table:
        database: shop
        tableName: orders
        mode: append
        partitionBy:
        - hour(at)
        sortBy:
        - id
        columns:
        - name: id
          type: long
        - name: at
          type: timestamptz
          format: rfc3339
        - name: mail
          type: string
        - name: body
          type: json
        provenance: true
        targetFileSize: 128MB
        zstdLevel: 3
      transformations:
      - extract:
          as: size
          from: body
          path: $.size
          type: int
      - lower:
          column: mail
    "#);
    let documents: Vec<&str> = shown.split("---\n").collect();
    let again = check(documents[0], &documents[1..]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(super::show(&again).replace("a.yaml", ""), shown.replace("a.yaml", ""));
}

#[test]
fn files_that_are_not_there_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    assert!(find(folder.path()).unwrap_err().to_string().starts_with("no "));
    std::fs::write(folder.path().join("firn.yaml"), [0xff]).unwrap();
    let problems = load(&folder.path().join("firn.yaml"), &[folder.path().join("x.yaml")]).unwrap_err();
    let text = problems.to_string().replace(&folder.path().display().to_string(), "");
    insta::assert_snapshot!(text, @r#"
    /firn.yaml: is not UTF-8 text
    /x.yaml: cannot be read: No such file or directory (os error 2)
    "#);
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Cuts, doubles and swaps pieces of good files: an answer always comes, and every problem has a place.
        #[test]
        fn spoilt_files_never_panic(
            edits in prop::collection::vec((0usize..2000, 0usize..40, prop_oneof![
                "[ -~\n]{0,12}", Just(": ".to_owned()), Just("\n  - ".to_owned()), Just("null".to_owned()), Just("[".to_owned()),
                Just("{a: }".to_owned()), Just("*a".to_owned()), Just("&a".to_owned()), Just("${".to_owned()), Just("\t".to_owned()),
                Just("é\u{0}".to_owned()), Just("? ".to_owned()), Just("|\n".to_owned()), Just("---\n".to_owned()),
            ]), 1..5),
            all in any::<bool>(),
        ) {
            let everything = include_str!("../../../../deploy/examples/everything/pipelines/everything.yaml");
            let mut text: Vec<char> = if all { everything } else { PIPELINE }.chars().collect();
            for (at, cut, insert) in edits {
                let at = at % (text.len() + 1);
                let end = (at + cut).min(text.len());
                text.splice(at..end, insert.chars());
            }
            let text: String = text.into_iter().collect();
            for answer in [check(FIRN, &[&text]), check(&text, &[PIPELINE])] {
                if let Err(problems) = answer {
                    prop_assert!(problems.iter().all(|problem| problem.line > 0 && problem.column > 0), "{}", problems);
                }
            }
        }

        #[test]
        fn any_text_gets_an_answer(text in any::<String>(), yaml in "[a-c:\\-\\[\\]{},'\"|>?&*!#\n ]{0,60}") {
            let _ = (check(&text, &[&text]), check(&yaml, &[&yaml]));
        }
    }

    #[test]
    fn depth_is_bounded() {
        for piece in ["[", "{a: ", "- ", "? ", "a:\n "] {
            assert!(check(FIRN, &[&piece.repeat(20_000)]).is_err());
        }
    }
}
