//! Erasure where the configuration has moved on: tables that no pipeline names any more, and columns that must not become null.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use async_trait::async_trait;
use firn_compactor::erase;
use firn_compactor::run::Env;
use firn_compactor::table::catalog::Created;
use firn_compactor::table::{Catalog, Change, CommitOutcome, Committer, scan};
use firn_compactor::write::WriteSpec;
use firn_compactor::write::deletes::write_equality_deletes;
use firn_shared::crypto::KeyBytes;
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::RunId;
use firn_shared::store::Faults;
use iceberg::spec::{Schema, TableMetadata, Transform, UnboundPartitionSpec};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};

use crate::bed::Bed;
use crate::erase::{erase, events, is_nowhere, mails};
use crate::protect::{batches, of_subject, token, with_subjects};

/// A deployment whose table `d.t` no pipeline names any more, nor its topic; `d.u` has come after it.
async fn moved_on() -> Bed {
    let mut bed = Bed::protected(&with_subjects(false));
    bed.land(0, &[events(0..6), vec![of_subject(7, "\"many\"")]].concat()).await;
    bed.run(&Faults::none()).await.unwrap();
    bed.reconfigure(&with_subjects(false).replace("tableName: t", "tableName: u").replace("topic: t}", "topic: v}"));
    bed.land_in("c/v/1", 0, &events(8..14)).await;
    bed.run(&Faults::none()).await.unwrap();
    bed
}

fn ident(database: &str, name: &str) -> TableIdent {
    TableIdent::new(NamespaceIdent::new(database.to_owned()), name.to_owned())
}

async fn load(bed: &Bed, ident: &TableIdent) -> Table {
    bed.env(&Faults::none()).await.catalog.load(ident).await.unwrap().unwrap()
}

/// A table with the columns and properties of another one.
async fn copy(bed: &Bed, of: &Table, ident: &TableIdent, location: &str) {
    let env = bed.env(&Faults::none()).await;
    let metadata: &TableMetadata = of.metadata();
    let creation = TableCreation::builder()
        .name(ident.name().to_owned())
        .location(location.to_owned())
        .schema(metadata.current_schema().as_ref().clone())
        .properties(metadata.properties().clone())
        .format_version(metadata.format_version())
        .build();
    env.catalog.ensure_namespace(ident.namespace()).await.unwrap();
    env.catalog.create(ident.namespace(), creation).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_topics_that_no_pipeline_names_any_more_are_erased_from() {
    let bed = moved_on().await;
    let old = load(&bed, &ident("d", "t")).await;
    let dir = bed.dir.path().display();
    // Of another deployment; and one whose files are gone, in a database of others.
    let theirs = format!("file://{dir}/theirs");
    copy(&bed, &old, &ident("d", "theirs"), &theirs).await;
    let broken = format!("file://{dir}/broken");
    copy(&bed, &old, &ident("others", "broken"), &broken).await;
    std::fs::remove_dir_all(bed.dir.path().join("broken")).unwrap();

    let planned = erase::look(&bed.env(&Faults::none()).await, "1", &[]).await.unwrap();
    let counts = |of: &erase::Report| {
        let rows = |table: &str| of.tables[table].rows;
        (rows("d.t"), rows("d.t_quarantine"), rows("d.u"), of.raw_of_forgotten["d.t"].records)
    };
    assert_eq!(counts(&planned), (2, 1, 2, 3), "{planned}");
    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!(counts(&done), (2, 1, 2, 3), "{done}");
    assert!(done.tables["d.t"].snapshots + done.tables["d.t"].deleted > 0, "{done}");
    assert_eq!(done.forgotten.iter().collect::<Vec<_>>(), ["d.t", "d.t_quarantine"]);
    assert_eq!(done.databases.iter().collect::<Vec<_>>(), ["d", "others"]);
    assert_eq!(done.tables["d.t"].foreign, ["id", "at", "n"]);
    assert!(done.unread.is_empty() && done.unlisted.is_empty(), "{done}");
    let passed: Vec<_> = done.passed.iter().map(|(table, why)| (table.as_str(), why.as_str())).collect();
    assert!(passed[0].0 == "d.theirs" && passed[0].1.contains("of another deployment"), "{passed:?}");
    assert!(passed[1].0 == "others.broken" && passed[1].1.contains("cannot be read"), "{passed:?}");
    assert_eq!(mails(&bed).await, [2, 0, 2]);
    is_nowhere(&bed, &[]);
    bed.prove().await;
    let again = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!(counts(&again), (0, 0, 0, 0), "{again}");
}

/// The table of a pipeline that protects less than one before it did: the records are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_forgotten_table_protected_is_erased_from_the_records_of_its_topic() {
    let mut bed = Bed::protected(&with_subjects(false));
    bed.land(0, &events(0..6)).await;
    bed.run(&Faults::none()).await.unwrap();
    let mut less = with_subjects(false).replace("tableName: t", "tableName: u");
    for line in [
        "        - {name: 'phones[]', protect: encrypt, subject: who, encoding: binary}\n",
        "        - {name: phones, type: 'list<string>'}\n",
    ] {
        assert!(less.contains(line), "{line}");
        less = less.replace(line, "");
    }
    bed.reconfigure(&less);
    bed.run(&Faults::none()).await.unwrap();
    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!((done.raw[&"p".parse().unwrap()].records, done.raw_of_forgotten.len()), (2, 0), "{done}");
    is_nowhere(&bed, &[]);
}

/// A key that `firn.yaml` does not have any more is named, with the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_gone_is_named_with_the_table_that_it_sealed() {
    let bed = moved_on().await;
    let old = load(&bed, &ident("d", "t")).await;
    let known = &old.metadata().properties()["firn.erasable"];
    let updates = [("firn.erasable".to_owned(), known.replace("\"people\"", "\"gone\""))].into();
    let env = bed.env(&Faults::none()).await;
    env.catalog.commit(&old, vec![TableUpdate::SetProperties { updates }], Vec::new()).await.unwrap();
    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    let gone: Vec<_> = done.tables["d.t"].unknown_keys.iter().map(ToString::to_string).collect();
    assert_eq!((gone, done.tables["d.t"].rows), (vec!["gone".to_owned()], 2), "the column says whose they are: {done}");
    assert!(done.to_string().contains("only key gone tells"), "{done}");
}

/// A catalog that does not list everything.
#[derive(Debug)]
struct Reticent {
    inner: Arc<dyn Catalog>,
    /// Not even which databases there are.
    databases: bool,
    /// And of which not the tables.
    tables: &'static str,
}

#[async_trait]
impl Catalog for Reticent {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        self.inner.load(ident).await
    }

    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        if self.databases { self.inner.databases().await } else { Err(Error::config("AccessDenied: databases")) }
    }

    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        if database.to_url_string() == self.tables {
            return Err(Error::config("AccessDenied: tables"));
        }
        self.inner.tables(database).await
    }

    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.ensure_namespace(namespace).await
    }

    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        self.inner.create(namespace, creation).await
    }

    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome> {
        self.inner.commit(base, updates, requirements).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_does_not_list_everything_is_not_passed_over_in_silence() {
    let bed = moved_on().await;
    let old = load(&bed, &ident("d", "t")).await;
    copy(&bed, &old, &ident("others", "x"), &format!("file://{}/lake/x", bed.dir.path().display())).await;
    let reticent = async |databases, tables| {
        let env = bed.env(&Faults::none()).await;
        Env { catalog: Arc::new(Reticent { inner: Arc::clone(&env.catalog), databases, tables }), ..env }
    };
    let refused = erase::erase(&reticent(true, "d").await, "1", &[], &KeyBytes::new([9; 32])).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        refused.kind() == ErrorKind::Config && text.contains("tables of d ") && text.contains("AccessDenied"),
        "{text}"
    );
    assert_eq!(mails(&bed).await, [2, 2, 2], "nothing was changed");

    let planned = erase::look(&reticent(true, "others").await, "1", &[]).await.unwrap();
    assert_eq!(planned.unlisted["others"], "AccessDenied: tables");
    assert!(planned.to_string().contains("(others): AccessDenied: tables"), "{planned}");
    let planned = erase::look(&reticent(false, "").await, "1", &[]).await.unwrap();
    assert_eq!((planned.unlisted["*"].as_str(), planned.tables["d.t"].rows), ("AccessDenied: databases", 2));
    let planned = erase::look(&reticent(true, "").await, "1", &[]).await.unwrap();
    assert!(planned.unlisted.is_empty() && planned.forgotten.contains("others.x"), "{planned}");
}

/// The table without personal data in `card`, which says today which row is which.
fn identified() -> String {
    with_subjects(false).replace("        - {name: card, protect: mask, mask: last(4), subject: who}\n", "").replace(
        "tableName: t",
        "tableName: t\n      mode: upsert\n      idColumns: [card]\n      timestampColumns: [at]",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_must_not_become_null_is_named_and_left_only_on_purpose() {
    let mut bed = Bed::protected(&with_subjects(false));
    bed.land(0, &events(0..6)).await;
    bed.run(&Faults::none()).await.unwrap();
    bed.reconfigure(&identified());
    let env = bed.env(&Faults::none()).await;
    let leave = |text: &str| [text.to_owned()];
    let refused = async |leave: &[String]| {
        let planned = erase::look(&env, "1", leave).await.unwrap_err();
        let refused = erase::erase(&env, "1", leave, &KeyBytes::new([9; 32])).await.unwrap_err();
        assert_eq!((refused.kind(), refused.to_string()), (ErrorKind::Config, planned.to_string()));
        assert_eq!(mails(&bed).await, [2, 2, 2], "nothing was changed");
        refused.to_string()
    };
    let why = refused(&[]).await;
    assert!(why.contains("`card`") && why.contains("one of idColumns") && why.contains("--leave d.t.card"), "{why}");
    let why = refused(&leave("d.t.nope")).await;
    assert!(why.contains("no column `nope`") && why.contains("email_token"), "{why}");
    let why = refused(&leave("d.x.card")).await;
    assert!(why.contains("no such table"), "{why}");

    let (done, certificate) = erase::erase(&env, "1", &leave("d.t.card"), &KeyBytes::new([9; 32])).await.unwrap();
    assert_eq!(
        (done.tables["d.t"].spared.as_slice(), done.tables["d.t"].rows),
        (&["card".to_owned()][..], 2),
        "{done}"
    );
    assert!(certificate.report.contains("\"spared\":[\"card\"]"), "{}", certificate.report);
    assert_eq!(mails(&bed).await, [2, 0, 2]);
    let cards: usize = batches(&bed, &["card"]).await.iter().map(|b| b.num_rows() - b.column(0).null_count()).sum();
    assert_eq!(cards, 6, "the column stays in the table");
    is_nowhere(&bed, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_required_columns_are_named_all_together() {
    let bed = Bed::protected(&with_subjects(false));
    bed.land(0, &events(0..6)).await;
    bed.run(&Faults::none()).await.unwrap();
    let env = bed.env(&Faults::none()).await;
    let table = bed.table().await.unwrap();
    let schema = table.metadata().current_schema();
    let id = schema.field_id_by_name("card").unwrap();
    let spec = UnboundPartitionSpec::builder().add_partition_field(id, "by_card", Transform::Identity).unwrap().build();
    let mut fields = schema.as_struct().fields().to_vec();
    for field in fields.iter_mut().filter(|field| field.name == "email_token") {
        let mut stricter = field.as_ref().clone();
        stricter.required = true;
        *field = Arc::new(stricter);
    }
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let updates = vec![
        TableUpdate::AddSchema { schema },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::AddSpec { spec },
        TableUpdate::SetDefaultSpec { spec_id: -1 },
    ];
    env.catalog.commit(&table, updates, Vec::new()).await.unwrap();
    let refused = erase::erase(&env, "1", &[], &KeyBytes::new([9; 32])).await.unwrap_err().to_string();
    assert!(refused.contains("`card`") && refused.contains("partitioned by it"), "{refused}");
    assert!(refused.contains("`email_token`") && refused.contains("DROP NOT NULL"), "{refused}");
}

/// Somebody else deletes by a value that goes with its subject: it stands in the delete file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_file_that_keeps_values_is_named_before_anything_changes() {
    let bed = Bed::protected(&with_subjects(false));
    bed.land(0, &events(0..6)).await;
    bed.run(&Faults::none()).await.unwrap();
    let (env, table) = (bed.env(&Faults::none()).await, bed.table().await.unwrap());
    let spec = WriteSpec {
        metadata: table.metadata_ref(),
        stores: env.stores.clone(),
        runtime: tokio::runtime::Handle::current(),
        run: RunId::new(),
        slice: "0".to_owned(),
        target_file_bytes: 1 << 20,
        memory: 32 << 20,
        open_files_max: 8,
        zstd_level: 1,
    };
    let id = table.metadata().current_schema().field_id_by_name("email_token").unwrap();
    let data = scan::live(&table, None, &scan::All).await.unwrap().remove(0).data;
    let place = (data.spec_id, data.file().partition().clone());
    let tokens: ArrayRef = Arc::new(StringArray::from(vec![token("user-1@secret.example")]));
    let keys = RecordBatch::try_from_iter([("email_token", tokens)]).unwrap();
    let write = move || write_equality_deletes(&spec, &keys, &[id], place).unwrap();
    let add = tokio::task::spawn_blocking(write).await.unwrap();
    let committer = Committer::new(Arc::clone(&env.catalog), Arc::clone(&env.clock));
    let change = Change { commit_id: "theirs".to_owned(), add, ..Change::default() };
    committer.commit(table.identifier(), &change).await.unwrap();

    let refused = erase::erase(&env, "1", &[], &KeyBytes::new([9; 32])).await.unwrap_err();
    let text = refused.to_string();
    assert!(refused.kind() == ErrorKind::Config && text.contains("the delete file file:///"), "{text}");
    assert_eq!(mails(&bed).await, [2, 0, 2], "deleted, and not erased");
    bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    erase(&bed, &Faults::none(), "1").await.unwrap();
    is_nowhere(&bed, &[]);
}
