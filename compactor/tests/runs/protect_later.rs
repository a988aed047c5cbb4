//! Protections that come to a table that has rows: `docs/protection.md`, "Protecting a table that exists", step by step.

use std::sync::Arc;

use firn_compactor::maintain::{self, Subject};
use firn_compactor::run::{Outcome, protections};
use firn_compactor::table::CommitOutcome;
use firn_shared::error::ErrorKind;
use firn_shared::store::Faults;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use iceberg::{TableRequirement, TableUpdate};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::bed::Bed;
use crate::protect::{batches, files, sweep, text, token};

const COLUMNS: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData:
    format: json
    eventTime: {path: $.at, format: rfc3339}
outsourcingUnit:
  - table:
      database: d
      tableName: t
      columns:
        - {name: id, type: long, required: true}
        - {name: at, type: timestamptz, required: true}
        - {name: email, type: string}
        - {name: contacts, type: 'list<struct<phone: string, kind: string>>'}
        - {name: note, type: string}
        - {name: card, type: string}
        - {name: ssn, type: string}
        - {name: ip, type: string}
        - {name: n, type: int}
";

const SECRETS: [&str; 6] =
    ["alice@secret.example", "inner@secret.example", "555-0001", "4111 1111 1111 1234", "999-12-3456", "203.0.113.77"];

/// The pipeline with these entries of `piiColumns`.
fn with(entries: &[&str]) -> String {
    let entries: Vec<String> = entries.iter().map(|entry| format!("        - {{{entry}}}\n")).collect();
    let entries = entries.concat();
    COLUMNS.replace("      columns:\n", &format!("      piiColumns:\n{entries}      columns:\n"))
}

/// Those that need no column of their own.
const IN_PLACE: [&str; 5] = [
    "name: 'contacts[].phone', protect: token, key: people",
    "name: note, protect: redact, patterns: [email, card]",
    "name: card, protect: mask, mask: last(4)",
    "name: ssn, protect: drop",
    "name: ip, protect: hash, key: people",
];

fn event(id: u64, hour: u32, n: &str) -> (u32, Option<String>) {
    let payload = format!(
        r#"{{"id":{id},"at":"2021-07-21T{hour:02}:00:00Z","email":"alice@secret.example",
        "contacts":[{{"phone":"555-0001","kind":"home"}}],"note":"ask inner@secret.example about 4111 1111 1111 1234",
        "card":"4111 1111 1111 1234","ssn":"999-12-3456","ip":"203.0.113.77","n":{n}}}"#
    );
    (hour, Some(payload))
}

impl Bed {
    /// What a run and `check` warn of.
    async fn left_plain(&self) -> Vec<String> {
        let (env, table) = (self.env(&Faults::none()).await, self.table().await.unwrap());
        protections::left_plain(&env, self.target(), &table).await.unwrap()
    }

    /// What `compactor maintain` does before its parts.
    async fn settle(&self, accept: bool) -> bool {
        let (env, table) = (self.env(&Faults::none()).await, self.table().await.unwrap());
        protections::settle(&env, self.target(), &table, accept).await.unwrap().is_some()
    }

    async fn maintain_both(&self) {
        let quarantine = Subject::of(&self.target()).unwrap().swap_remove(1);
        let table = self.subject();
        let quarantine = Subject { settings: table.settings, ..quarantine };
        for subject in [table, quarantine] {
            let env = self.env(&Faults::none()).await;
            maintain::maintain(&env, &subject, &maintain::Options::default()).await.unwrap();
        }
    }

    /// `ALTER TABLE d.t ADD COLUMNS`, as another engine would.
    async fn add_columns(&self, names: &[&str]) {
        let (env, table) = (self.env(&Faults::none()).await, self.table().await.unwrap());
        let metadata = table.metadata();
        let live = metadata.current_schema();
        let ids = metadata.last_column_id() + 1..;
        let added = ids
            .zip(names)
            .map(|(id, name)| Arc::new(NestedField::optional(id, *name, Type::Primitive(PrimitiveType::String))));
        let fields = live.as_struct().fields().iter().cloned().chain(added);
        let schema = Schema::builder().with_schema_id(live.schema_id() + 1).with_fields(fields).build().unwrap();
        let updates = vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
        let requirements = vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }];
        let done = env.catalog.commit(&table, updates, requirements).await.unwrap();
        assert!(matches!(done, CommitOutcome::Committed(_)));
    }

    /// Which columns of the newest data file have statistics, and which bloom filters.
    fn of_newest_file(&self) -> (Vec<String>, Vec<String>) {
        let mut found = Vec::new();
        files(&self.dir.path().join("lake/d/t/data"), &mut found);
        let newest = found.into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap()).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(newest).unwrap()).unwrap();
        let columns: Vec<_> = reader.metadata().row_group(0).columns().to_vec();
        let names = |has: &dyn Fn(&parquet::file::metadata::ColumnChunkMetaData) -> bool| {
            columns.iter().filter(|c| has(c)).map(|c| c.column_path().string()).collect()
        };
        (names(&|c| c.statistics().is_some()), names(&|c| c.bloom_filter_offset().is_some()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_exists_is_protected_step_by_step_and_then_holds_no_plaintext() {
    let mut bed = Bed::protected(COLUMNS);
    let mut events: Vec<_> = (0..30).map(|id| event(id, 6 + (id % 3) as u32, "1")).collect();
    // Only the quarantine has something of this hour.
    events.push(event(30, 9, "\"many\""));
    bed.land_and_run(&events).await;
    assert_eq!(bed.left_plain().await, [""; 0], "nobody has asked for anything");

    // 1. The entries, and the columns that the run asks for.
    let entries = [&IN_PLACE[..], &["name: email, protect: encrypt, token: true"]].concat();
    bed.reconfigure(&with(&entries));
    bed.land(0, &[event(40, 7, "1"), event(41, 11, "1")]).await;
    let error = bed.run(&Faults::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let statement = "ALTER TABLE d.t ADD COLUMNS (`email_token` string, `_key_people` string) in Athena or Spark";
    assert!(error.to_string().contains(statement), "{error}");
    bed.add_columns(&["email_token", "_key_people"]).await;

    let lake = bed.dir.path().join("lake");
    let seen = std::panic::catch_unwind(|| sweep(&lake, &SECRETS));
    assert!(seen.is_err(), "what is plain is found where it is");

    // 2. New rows are protected, and the files that have them are written as protected values want it.
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!((report.outcome, report.fate.rows), (Outcome::Committed, 2));
    let (statistics, blooms) = bed.of_newest_file();
    assert!(statistics.contains(&"n".to_owned()) && !statistics.contains(&"email".to_owned()), "{statistics:?}");
    assert_eq!(blooms, ["contacts.list.element.phone", "email_token"], "in the order of the columns");
    let command =
        |from: &str, to: &str| format!("compactor reprocess --table d.t --from 2021-07-21T{from} --to 2021-07-21T{to}");
    let warned = bed.left_plain().await;
    let [one] = &warned[..] else { panic!("all of it is told at once: {warned:?}") };
    assert!(one.contains(&command("06", "10")), "{one}");
    for part in ["`card` (mask last(4)), `ssn` (drop),", "`email` (encrypt) in plain, from before 20"] {
        assert!(one.contains(part), "{part}: {one}");
    }

    // 3. Rewriting files makes no row of them newer.
    bed.maintain_both().await;
    assert_eq!(bed.left_plain().await, warned);
    bed.reprocess(&Faults::none(), "2021-07-21T07", "2021-07-21T08").await.unwrap();
    let [one] = &bed.left_plain().await[..] else { panic!("two ranges are left") };
    assert!(one.contains(&command("06", "07")) && one.contains(&command("08", "10")), "{one}");
    bed.land_and_run(&[event(42, 8, "1")]).await;
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    bed.reprocess(&Faults::none(), "2021-07-21T08", "2021-07-21T10").await.unwrap();

    // 4. Older snapshots hold the values until they expire.
    let [one] = &bed.left_plain().await[..] else { panic!("snapshots are left") };
    assert!(one.starts_with("older snapshots of d.t hold `contacts[].phone`, `note`, `card`,"), "{one}");
    assert!(one.contains("compactor maintain --table d.t --only expire,orphans"), "{one}");
    bed.maintain_both().await;
    assert_eq!(bed.left_plain().await, [""; 0], "and then nobody is warned any more");
    let swept = sweep(&lake, &SECRETS);
    assert!(swept > 8, "{swept} files");
    let mut rows = 0;
    for batch in batches(&bed, &["email_token", "card", "_key_people"]).await {
        for row in 0..batch.num_rows() {
            assert_eq!(text(&batch, "email_token").value(row), token("alice@secret.example"));
            assert_eq!(text(&batch, "card").value(row), "**** **** **** 1234");
            assert_eq!(text(&batch, "_key_people").value(row), "people/1");
            rows += 1;
        }
    }
    assert_eq!(rows, 33);
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_rows_may_be_accepted_and_a_protection_that_was_taken_off_begins_anew() {
    let mut bed = Bed::protected(COLUMNS);
    bed.land_and_run(&[event(0, 6, "1")]).await;
    bed.reconfigure(&with(&IN_PLACE));
    assert_eq!(bed.left_plain().await.len(), 1, "check says it before anything is written");
    assert!(bed.settle(false).await, "maintain writes it down where no run has anything to do");
    assert!(!bed.settle(false).await);
    assert_eq!(bed.left_plain().await.len(), 1);
    assert!(bed.settle(true).await);
    assert_eq!(bed.left_plain().await, [""; 0]);
    bed.land_and_run(&[event(1, 7, "1")]).await;
    assert_eq!(bed.left_plain().await, [""; 0]);

    bed.reconfigure(&with(&IN_PLACE[1..]));
    bed.land_and_run(&[event(2, 8, "1")]).await;
    bed.reconfigure(&with(&IN_PLACE));
    let [one] = &bed.left_plain().await[..] else { panic!("one protection is new") };
    assert!(one.contains("`contacts[].phone` (token) in plain") && !one.contains("`card`"), "{one}");
    let stronger = [&IN_PLACE[..2], &["name: card, protect: mask"], &IN_PLACE[3..]].concat();
    bed.reconfigure(&with(&stronger));
    let warned = bed.left_plain().await.concat();
    assert!(warned.contains("`card` (mask all) as `mask last(4)` left it"), "{warned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_is_published_takes_older_rows_away_or_brings_them_back() {
    let mut bed = Bed::protected(COLUMNS);
    bed.land_and_run(&[event(0, 6, "1"), event(1, 7, "1")]).await;
    bed.diff(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    bed.reconfigure(&with(&IN_PLACE));
    bed.settle(true).await;
    assert_eq!(bed.left_plain().await, [""; 0]);
    bed.publish(&Faults::none()).await.unwrap();
    let [one] = &bed.left_plain().await[..] else { panic!("what was published is plain") };
    assert!(one.contains("--from 2021-07-21T06 --to 2021-07-21T07;"), "{one}");

    bed.diff(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    assert_eq!(bed.left_plain().await[..], *std::slice::from_ref(one), "not yet");
    bed.publish(&Faults::none()).await.unwrap();
    let [one] = &bed.left_plain().await[..] else { panic!("snapshots are left") };
    assert!(one.starts_with("older snapshots"), "{one}");
    bed.maintain_both().await;
    assert_eq!(bed.left_plain().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_made_protected_has_nothing_from_before_and_what_somebody_has_set_stays() {
    let bed = Bed::protected(&with(&IN_PLACE));
    bed.land_and_run(&[event(0, 6, "1")]).await;
    assert_eq!(bed.left_plain().await, [""; 0]);
    assert!(!bed.settle(false).await, "a new table lacks nothing");

    let mut bed = Bed::protected(COLUMNS);
    bed.land_and_run(&[event(0, 6, "1")]).await;
    let key = "write.parquet.bloom-filter-enabled.column.contacts.element.phone";
    let (env, table) = (bed.env(&Faults::none()).await, bed.table().await.unwrap());
    let updates = vec![TableUpdate::SetProperties { updates: [(key.to_owned(), "false".to_owned())].into() }];
    env.catalog.commit(&table, updates, Vec::new()).await.unwrap();
    bed.reconfigure(&with(&IN_PLACE));
    bed.settle(false).await;
    let table = bed.table().await.unwrap();
    assert_eq!(table.metadata().properties()[key], "false");
    let [said] = &bed.target().definition().differences(table.metadata())[..] else { panic!("it is said") };
    assert!(said.contains(key) && said.contains("the table keeps what it has"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_protected_later_would_meet_no_older_row_so_the_run_refuses() {
    let upsert = |pipeline: &str, key: &str| {
        let mode = format!("tableName: t\n      mode: upsert\n      idColumns: [{key}]\n      timestampColumns: [at]");
        pipeline.replace("tableName: t", &mode)
    };
    for (entry, key) in [
        ("name: email, protect: token", "email"),
        ("name: email, protect: mask, token: true, key: people", "email_token"),
    ] {
        let mut bed = Bed::protected(&upsert(COLUMNS, "email"));
        bed.land_and_run(&[event(0, 6, "1")]).await;
        bed.reconfigure(&upsert(&with(&[entry]), key));
        if key == "email_token" {
            bed.add_columns(&["email_token"]).await;
        }
        bed.land(0, &[event(1, 7, "1")]).await;
        for settled in [false, true] {
            let error = bed.run(&Faults::none()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            let begin = format!("`{key}` of d.t is one of its idColumns, and");
            assert!(error.to_string().starts_with(&begin), "{settled}: {error}");
            bed.settle(false).await;
        }
        bed.settle(true).await;
        bed.run(&Faults::none()).await.unwrap();
        assert_eq!(bed.rows(false).await.len(), 2, "as was said");
    }
}
