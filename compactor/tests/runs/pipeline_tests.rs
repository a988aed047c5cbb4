//! `compactor test`: what passes, what is told of what does not, what an update writes.

use std::path::{Path, PathBuf};

use firn_compactor::testing::{self, Options, Paint, Report, Verdict, Watch};
use firn_shared::functions::Functions;
use regex::Regex;

const PIPELINE: &str = "
name: orders
ingestionUnit:
  kafka: {cluster: c, topic: [orders, returns]}
  incomingData:
    format: json
    eventName: $.type
    eventTime: {path: $.at, format: rfc3339}
    whitelist: {placed: {}, other: {}}
    late: {allowed: 1h, then: quarantine}
outsourcingUnit:
  - events: [placed]
    table:
      database: shop
      tableName: orders
      provenance: false
      partitionBy: [hour(at)]
      columns:
        - {name: id, type: long, required: true}
        - {name: at, type: timestamptz}
        - {name: price, type: 'decimal(10,2)'}
        - {name: body, type: json}
        - {name: tags, type: list<string>}
    transformations:
      - extract: {from: body, path: $.size, as: size, type: int}
      - filter: {where: 'size IS NULL OR size > 0', name: empty}
";

const CASES: &str = r#"# head
cases:
  - name: rows  # behind
    events:
      - value: {type: placed, id: 1, at: "2026-03-01T10:00:00Z", price: "9.50", body: {size: 2, a: [1]}, tags: [x, y]}
      - value: {type: placed, id: 2, at: "2026-03-01T10:00:00Z", body: {size: 0}}
      - value: {type: placed, id: many, at: "2026-03-01T10:00:00Z"}
      - value: {type: placed, id: 4, at: "2026-03-01T10:00:00Z", body: {size: x}}
      - {value: {type: other, at: "2026-03-01T10:00:00Z"}, topic: returns}
      - value: {type: unknown, at: "2026-03-01T10:00:00Z"}
      - base64: /w==
      - {tombstone: true, key: k, timestamp: "2026-03-01T10:00:00Z"}
    # between
    expect:
      table:
        schema: ["id: long required", "at: timestamptz", "price: decimal(10,2)", "body: json", "tags: list<string>", "size: int"]
        rows:
          - {id: 1, at: "2026-03-01T11:00:00+01:00", price: 9.5, body: {a: [1], size: 2}, tags: {$unordered: [y, x]}}
        quarantine:
          - {event: 4, path: "body: $.size", reason: badFormat, step: 1}
          - {event: 3, path: $.id, step: 0, detail: {$regex: other}, payload: $present}
        filtered: {empty: 1, event: 1}
        tombstones: 1
      rejected:
        - {event: 7, reason: notUtf8}
        - {event: 6, reason: notWhitelisted}

  # before the second
  - name: late
    events:
      - value: {type: placed, id: 1, at: "2026-03-01T10:00:00Z"}
      - value: {type: placed, id: 2, at: "2026-03-01T05:00:00Z"}
      - {value: {type: placed, id: 3, at: "2026-03-01T05:00:00Z"}, partition: 1}
    expect:
      tables:
        orders: {rowCount: 2, rows: [{id: 1}, {id: 3}], ordered: true}
      rejected: [{event: 2, reason: tooLate}]
# tail
"#;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(pipeline: &str, cases: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("orders.yaml"), pipeline).unwrap();
        let place = Self { folder };
        place.write(cases);
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("orders.test.yaml")
    }

    fn write(&self, cases: &str) {
        std::fs::write(self.file(), cases).unwrap();
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    async fn run(&self, options: Options) -> Report {
        testing::run(&Options { paths: vec![self.folder.path().to_owned()], ..options }).await.unwrap()
    }

    /// The report as text, without what changes from run to run.
    fn text(&self, report: &Report) -> String {
        let text = testing::render(report, Paint(false)).replace(&format!("{}/", self.folder.path().display()), "");
        Regex::new(r" \(\d+ ms\)| \(\d+\.\d+ s\)").unwrap().replace_all(&text, "").into_owned()
    }

    async fn told(&self) -> String {
        self.text(&self.run(Options::default()).await)
    }
}

fn spoilt(old: &str, new: &str) -> Place {
    assert!(CASES.contains(old), "{old}");
    Place::new(PIPELINE, &CASES.replacen(old, new, 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_examples_have_tests_and_pass_them() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut tested = Vec::new();
    for example in std::fs::read_dir(&examples).unwrap() {
        let pipelines = example.unwrap().path().join("pipelines");
        // `everything` shows every key there is, also those that nothing carries out yet.
        if pipelines.ends_with("everything/pipelines") || !pipelines.is_dir() {
            continue;
        }
        for pipeline in std::fs::read_dir(&pipelines).unwrap() {
            let path = pipeline.unwrap().path().to_string_lossy().into_owned();
            let tests = path.replace(".yaml", ".test.yaml");
            assert!(path.ends_with(".test.yaml") || Path::new(&tests).is_file(), "{path} has no tests");
        }
        // The program of `custom-functions`, which has the functions, runs these tests among its own.
        if !pipelines.ends_with("custom-functions/pipelines") {
            tested.push(pipelines);
        }
    }
    let functions = Functions::built_in().loading(firn_compactor::plugin::load);
    let report = testing::run(&Options { paths: tested, functions, ..Options::default() }).await.unwrap();
    assert!(!report.has_failed() && !report.is_broken(), "{}", testing::render(&report, Paint(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_passes_when_everything_is_as_expected_and_nothing_else_happened() {
    let place = Place::new(PIPELINE, CASES);
    assert_eq!(place.told().await, "orders.test.yaml\n  ok rows\n  ok late\n2 passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_is_told_with_its_place() {
    for (old, new, expected) in [
        (
            "price: 9.5, body",
            "price: 9.6, body",
            &["orders.test.yaml:18:13: shop.orders rows: row of event 1 differs", "price  - 9.6", "       + \"9.50\""]
                [..],
        ),
        (
            "body: {a: [1], size: 2}, tags",
            "body: {a: [3], b: x}, tags",
            &[
                "body.a[0]  - 3\n                 + 1",
                "body.b     - \"x\"\n                 + nothing",
                "body.size  - nothing",
            ],
        ),
        (
            "- {id: 1, at: \"2026-03-01T11",
            "- {id: 9, prize: 1, at: \"2026-03-01T11",
            &["no column `prize`; did you mean `price`?"],
        ),
        (
            "        rows:\n          - {id: 1, at",
            "        rows:\n          - {id: 77, size: 5}\n          - {id: 1, at",
            &["18:13: shop.orders rows: no such row: {\"id\":77,\"size\":5}"],
        ),
        (
            "          - {id: 1, at: \"2026-03-01T11:00:00+01:00\", price: 9.5, body: {a: [1], size: 2}, tags: {$unordered: [y, x]}}\n",
            "          []\n",
            &["unexpected row of event 1: {\"id\":1,\"at\":\"2026-03-01T10:00:00Z\",\"price\":\"9.50\""],
        ),
        ("step: 1}", "step: 2}", &["record in quarantine of event 4 differs", "step  - 2"]),
        ("        tombstones: 1\n", "        tombstones: 2\n", &["shop.orders tombstones: expected 2, found 1"]),
        ("{empty: 1, event: 1}", "{empty: 2}", &["shop.orders filtered: expected empty: 2, found empty: 1, event: 1"]),
        ("\"price: decimal(10,2)\"", "\"price: double\"", &["schema: other columns", "column 3  - price: double"]),
        (
            "reason: notUtf8",
            "reason: notJson",
            &["record that landing refuses of event 7 differs", "reason  - \"notJson\""],
        ),
        ("        - {event: 6, reason: notWhitelisted}\n", "", &["unexpected record that landing refuses of event 6"]),
        ("rejected: [{event: 2, reason: tooLate}]", "error: boom", &["expected to fail, and did not", "of event 2"]),
        ("rows: [{id: 1}, {id: 3}]", "rows: [{id: 3}, {id: 1}]", &["row of event 1 differs", "row of event 3 differs"]),
        ("orders: {rowCount", "orderz: {rowCount", &["no table `orderz`; there are: shop.orders"]),
        ("rowCount: 2", "rowCount: 3", &["rowCount: expected 3, found 2"]),
    ] {
        let text = spoilt(old, new).told().await;
        for part in expected {
            assert!(text.contains(part), "{new}: {part}\n{text}");
        }
        assert!(text.ends_with("1 passed, 1 failed"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_told_and_is_no_failure_of_the_others() {
    let topic = spoilt("topic: returns", "topic: refunds").told().await;
    assert!(topic.contains("event 5: the pipeline does not read topic `refunds`"), "{topic}");
    assert!(topic.ends_with("1 passed, 1 could not run"), "{topic}");
    let place = Place::new(PIPELINE, "cases:\n  - name: x\n    file: {path: none.ndjson}\n");
    let file = place.told().await;
    assert!(file.contains("orders.test.yaml:3:18: cannot open") && file.contains("none.ndjson"), "{file}");
    let place = Place::new(&PIPELINE.replace("from: body", "from: boddy"), CASES);
    let pipeline = place.told().await;
    assert!(
        pipeline.contains("problem") && pipeline.contains("orders.yaml:") && pipeline.contains("boddy"),
        "{pipeline}"
    );
    assert!(place.run(Options::default()).await.is_broken());
    std::fs::remove_file(place.folder.path().join("orders.yaml")).unwrap();
    let alone = place.told().await;
    assert!(alone.contains("problem orders.test.yaml: there is no pipeline orders.yaml; name"), "{alone}");
    assert!(alone.ends_with("0 passed, 1 file with problems"), "{alone}");
    let none = Options { filter: Some(Regex::new("nothing").unwrap()), ..Options::default() };
    let place = Place::new(PIPELINE, CASES);
    let error = testing::run(&Options { paths: vec![place.file()], ..none }).await.unwrap_err();
    assert!(error.to_string().contains("no case that `nothing` is found in"), "{error}");
    let error = testing::run(&Options { paths: vec!["/nowhere".into()], ..Options::default() }).await.unwrap_err();
    assert!(error.to_string().contains("no file or directory /nowhere"), "{error}");
    let late = Options { filter: Some(Regex::new("^late$").unwrap()), ..Options::default() };
    assert_eq!(place.run(late).await.cases(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_writes_what_came_out_and_keeps_everything_around_it() {
    let update = || Options { update: true, ..Options::default() };
    // What passes is not touched.
    let place = Place::new(PIPELINE, CASES);
    place.run(update()).await;
    assert_eq!(place.read(), CASES);
    // Values that fit stay as they are written, the others are replaced.
    let place = spoilt("price: 9.5, body", "price: 1, body");
    let report = place.run(update()).await;
    assert_eq!(report.count(|verdict| *verdict == Verdict::Updated), 1, "{}", place.text(&report));
    let text = place.read();
    for kept in [
        "# head",
        "# behind",
        "    # between\n    expect:\n",
        "{$unordered: [y, x]}",
        "2026-03-01T11:00:00+01:00",
        "{$regex: other}",
        "$present",
        "\n\n  # before the second\n",
        "\n# tail\n",
    ] {
        assert!(text.contains(kept), "{kept}\n{text}");
    }
    assert!(text.contains("\"9.50\"") && !text.contains("price: 1,"), "{text}");
    assert_eq!(place.told().await, "orders.test.yaml\n  ok rows\n  ok late\n2 passed");
    // Where nothing was expected, all of it is written.
    let cut = |text: &str| {
        let (from, to) = (text.find("    expect:").unwrap(), text.find("\n  # before").unwrap());
        format!("{}{}", &text[..from], &text[to..])
    };
    let place = Place::new(PIPELINE, &cut(CASES));
    assert!(place.told().await.contains("nothing is expected yet"));
    place.run(update()).await;
    assert_eq!(place.told().await, "orders.test.yaml\n  ok rows\n  ok late\n2 passed", "{}", place.read());
    let once = place.read();
    place.run(update()).await;
    assert_eq!(place.read(), once);
    // What cannot be written in place is said, and nothing is lost.
    let place = Place::new(PIPELINE, "cases: [{name: x, events: []}]\n");
    let report = place.run(update()).await;
    assert!(report.is_broken() && place.text(&report).contains("written in braces"), "{}", place.text(&report));
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["files"][0]["notUpdated"][0].as_str().is_some_and(|why| why.contains("written in braces")), "{json}");
    assert_eq!(place.read(), "cases: [{name: x, events: []}]\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_no_reason_to_run_again() {
    let place = spoilt("price: 9.5, body", "price: 1, body");
    let mut watch = Watch::default();
    watch.look_at(&[place.folder.path().to_owned()]);
    let report = place.run(Options { update: true, ..Options::default() }).await;
    assert_eq!(report.count(|verdict| *verdict == Verdict::Updated), 1, "{}", place.text(&report));
    watch.hang_on(&report);
    // A value that is another one each time would be written, and run, for ever.
    assert!(!watch.has_changed());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_values_are_cut_where_people_read_them_and_whole_in_json() {
    let long = |end: &str| format!("{}{end}", "long ".repeat(100));
    let old = "body: {size: 2, a: [1]}, tags: [x, y]";
    let place = spoilt(old, &old.replace("[x, y]", &format!("[x, \"{}\"]", long("a"))));
    place.write(&place.read().replace("{$unordered: [y, x]}", &format!("[x, \"{}\"]", long("b"))));
    let report = place.run(Options::default()).await;
    let text = place.text(&report);
    assert!(text.contains("tags[1]  - …(471)…") && text.contains("long a\""), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 250), "{text}");
    assert!(serde_json::to_string(&report).unwrap().contains(&long("b")));
    place.write(&place.read().replace("price: 9.5,", "price: 1,").replace("- {id: 1, at", "- {id: 2, at"));
    let text = place.told().await;
    assert!(text.contains("unexpected row of event 1") && text.contains("… (501 characters)"), "{text}");
}

const UPSERT: &str = "
name: orders
ingestionUnit:
  kafka: {cluster: c, topic: orders}
  incomingData: {format: json, eventTime: kafkaTimestamp}
outsourcingUnit:
  - table:
      database: shop
      tableName: orders
      mode: upsert
      idColumns: [id]
      timestampColumns: [v]
      columns: [{name: id, type: long, required: true}, {name: v, type: int}, {name: s, type: string}]
  - table:
      database: shop
      tableName: last_load
      mode: truncateLoad
      columns: [{name: id, type: long, required: true}]
";

const RUNS: &str = r#"
cases:
  - name: keys meet over runs
    runs:
      - events: [{value: {id: 1, v: 5, s: new}}, {value: {id: 2, v: 1, s: a}}]
      - events: [{value: {id: 1, v: 4, s: late}}, {value: {id: 2, v: 2, s: b}}, {value: {id: x, v: 2}}]
    expect:
      tables:
        orders:
          rows: [{id: 1, v: 5, s: new}, {id: 2, v: 2, s: b, _firn: {offset: 3}}]
          superseded: 2
          quarantine: [{event: 5, reason: badFormat}]
        shop.last_load: {rows: [{id: 1}, {id: 2}], quarantineCount: 1, superseded: 2}
  - name: a load must not be empty
    runs: [{events: [{value: {id: x}}]}]
    expect:
      error: it would empty the table
      tables:
        orders: {rows: [], quarantine: [{path: $.id}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn upserts_and_loads_are_carried_out_run_by_run() {
    let place = Place::new(UPSERT, RUNS);
    assert_eq!(
        place.told().await,
        "orders.test.yaml\n  ok keys meet over runs\n  ok a load must not be empty\n2 passed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_from_plain_and_compressed_files() {
    use std::io::Write;
    let cases = |file: &str| {
        format!(
            "cases:\n  - name: x\n    file: {{{file}}}\n    expect: {{tables: {{orders: {{rows: [{{id: 2}}, {{id: 3}}]}}}}}}\n"
        )
    };
    let payloads = "{\"id\":1,\"v\":1}\n\n{\"id\":2,\"v\":1}\n{\"id\":3,\"v\":1}\n{\"id\":4,\"v\":1}\n";
    let place = Place::new(UPSERT, &cases("path: p.ndjson, skip: 2, take: 2"));
    let at = |name: &str| place.folder.path().join(name);
    std::fs::write(at("p.ndjson"), payloads).unwrap();
    std::fs::write(at("p.ndjson.zst"), zstd::encode_all(payloads.as_bytes(), 1).unwrap()).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(payloads.as_bytes()).unwrap();
    std::fs::write(at("p.ndjson.gz"), gz.finish().unwrap()).unwrap();
    let records = "{\"key\":{\"a\": 1},\"value\":{\"id\":2,\"v\":1}}\n{\"key\":\"k\",\"value\":{\"id\":3,\"v\":1},\"partition\":2}\n";
    std::fs::write(at("r.ndjson"), records).unwrap();
    for file in [
        "path: p.ndjson, skip: 2, take: 2",
        "path: p.ndjson.zst, skip: 2, take: 2",
        "path: p.ndjson.gz, skip: 2, take: 2",
        "path: r.ndjson, lines: records",
    ] {
        place.write(&cases(file));
        assert_eq!(place.told().await, "orders.test.yaml\n  ok x\n1 passed", "{file}");
    }
    std::fs::write(at("r.ndjson"), "{\"key\":1}\nnothing\n").unwrap();
    assert!(place.told().await.contains("r.ndjson:2: expected {\"key\": …, \"value\": …}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn junit_is_well_formed_whatever_the_names() {
    let place = spoilt("name: rows", "name: \"<a&'b'>\\u0007]]>\"");
    place.write(&place.read().replace("reason: notUtf8", "reason: \"<&>\""));
    let report = place.run(Options::default()).await;
    let xml = testing::junit(&report);
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for part in xml.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        assert!(!text.contains('>') && text.split('&').skip(1).all(|rest| rest.contains(';')), "{text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap().to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !tag.starts_with('?') {
            open.push(name.clone());
            seen.push(name);
        }
    }
    assert!(open.is_empty() && seen.contains(&"failure".to_owned()), "{xml}");
    assert!(
        xml.contains("tests=\"2\" failures=\"1\" errors=\"0\"") && xml.chars().all(|c| c >= ' ' || c == '\n'),
        "{xml}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_any_file_that_counts_is_noticed() {
    let place = Place::new(PIPELINE, CASES);
    let mut watch = Watch::default();
    watch.hang_on(&place.run(Options::default()).await);
    assert!(!watch.has_changed());
    std::fs::write(place.folder.path().join("orders.yaml"), PIPELINE.replace("name: empty", "name: none")).unwrap();
    assert!(watch.has_changed());
    watch.changed().await;
    let report = place.run(Options::default()).await;
    assert!(place.text(&report).contains("found event: 1, none: 1"), "{}", place.text(&report));
    // A look-up reads a file too.
    let steps = "      - extract: {from: body, path: $.kind, as: kind, type: string}
      - lookup: {column: kind, file: kinds.csv, key: kind, take: {label: string}}
      - filter:";
    let place = Place::new(&PIPELINE.replace("      - filter:", steps), CASES);
    let kinds = place.folder.path().join("kinds.csv");
    std::fs::write(&kinds, "kind,label\na,A\n").unwrap();
    let mut watch = Watch::default();
    watch.hang_on(&place.run(Options::default()).await);
    assert!(!watch.has_changed());
    std::fs::write(&kinds, "kind,label\na,B\nb,C\n").unwrap();
    assert!(watch.has_changed());
    // So does a plug-in, which counts while it is not right yet, too.
    let place = Place::new(PIPELINE, CASES);
    let plugin = place.folder.path().join("bank.wasm");
    std::fs::write(place.folder.path().join("firn.yaml"), "plugins: {bank: {path: bank.wasm}}\n").unwrap();
    std::fs::write(&plugin, "none").unwrap();
    let mut watch = Watch::default();
    let report = place.run(Options::default()).await;
    watch.hang_on(&report);
    assert!(report.is_broken() && !watch.has_changed());
    std::fs::write(&plugin, "another").unwrap();
    assert!(watch.has_changed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_reads_the_file_that_the_tests_give() {
    let steps = "      - extract: {from: body, path: $.kind, as: kind, type: string}
      - lookup: {column: kind, file: 's3://reference-data/kinds.csv', key: kind, take: {label: string}}
      - filter:";
    let pipeline = PIPELINE.replace("      - filter:", steps);
    let cases = |lookups: &str| {
        format!(
            "lookups: {lookups}
cases:
  - name: a kind has its label
    events: [{{value: {{type: placed, id: 1, at: '2026-03-01T10:00:00Z', body: {{kind: a}}}}}}]
    expect: {{table: {{rows: [{{id: 1, label: A}}]}}}}
"
        )
    };
    let place = Place::new(&pipeline, &cases("{'s3://reference-data/kinds.csv': data/kinds.csv}"));
    let kinds = place.folder.path().join("data/kinds.csv");
    let told = place.told().await;
    assert!(
        told.contains("orders.test.yaml:1:44: lookups['s3://reference-data/kinds.csv']: there is no file"),
        "{told}"
    );
    let mut watch = Watch::default();
    watch.hang_on(&place.run(Options::default()).await);
    std::fs::create_dir(place.folder.path().join("data")).unwrap();
    std::fs::write(&kinds, "kind,label\na,A\n").unwrap();
    assert!(watch.has_changed());
    let report = place.run(Options::default()).await;
    assert!(place.text(&report).contains("\n1 passed"), "{}", place.text(&report));
    watch.hang_on(&report);
    std::fs::write(&kinds, "kind,label\na,Another\n").unwrap();
    assert!(watch.has_changed());
    let told = place.told().await;
    assert!(told.contains("Another"), "{told}");
    place.write(&cases("{kinds.csv: data/kinds.csv}"));
    let told = place.told().await;
    let expected =
        "lookups['kinds.csv']: no step looks that up; those of the pipeline read s3://reference-data/kinds.csv";
    assert!(told.contains(expected), "{told}");
    std::fs::write(place.folder.path().join("orders.yaml"), PIPELINE).unwrap();
    assert!(place.told().await.contains("no step of the pipeline is a `lookup`"));
}
