//! The quarantine is committed before its table. Whatever comes between the two, and whatever others do to either table, a
//! reprocess goes through, and the account is right afterwards. No pipeline here leaves a record out, so that nothing has room
//! for a mistake.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use firn_compactor::run::branch::End;
use firn_compactor::run::{Env, Options, Outcome, Target, prove, run};
use firn_compactor::table::catalog::Created;
use firn_compactor::table::scan::{All, live};
use firn_compactor::table::{Catalog, Change, CommitOutcome, Committer};
use firn_shared::clock::SystemClock;
use firn_shared::error::{ErrorKind, Result};
use firn_shared::store::{Fault, Faults};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};
use tokio::runtime::Handle;

use crate::bed::{Bed, Fate, PIPELINE, event};

const FROM: &str = "2021-07-21T06";
const TO: &str = "2021-07-21T09";

fn pipeline() -> String {
    let filter = "      - filter: {where: 'n IS NULL OR n <> 13', name: thirteen}\n";
    assert!(PIPELINE.contains(filter));
    PIPELINE.replace(filter, "")
}

/// Takes the records that [`pipeline`] refuses.
fn corrected() -> String {
    pipeline().replace("path: $.k", "path: $.none")
}

/// `count` records from the event `first` on: rows, and those with a text at `$.k`.
fn records(first: u64, count: usize) -> Vec<(u32, Option<String>)> {
    let fits = |id: &u64| event(*id).1 == Fate::Row || id % 11 == 5;
    (first..).filter(fits).take(count).map(|id| event(id).0).collect()
}

/// 40 records are converted, some of them refused; then the pipeline is corrected.
async fn corrected_late() -> (Bed, usize) {
    let mut bed = Bed::with(&pipeline());
    bed.land_and_run(&records(0, 40)).await;
    let quarantined = bed.rows(true).await.len();
    assert!(quarantined > 2);
    assert_eq!(bed.rows(false).await.len() + quarantined, 40);
    bed.reconfigure(&corrected());
    (bed, quarantined)
}

/// The number of the write that commits the table, after the quarantine, in the same work on a bed like it.
async fn commit_of_table(work: impl AsyncFn(&Bed, &Arc<Faults>)) -> u64 {
    let (bed, _) = corrected_late().await;
    let log = Faults::at_write(u64::MAX, Fault::CrashAfter);
    work(&bed, &log).await;
    let log = log.log();
    let commit = |name: &str| log.iter().find(|o| o.operation == "catalog.commit" && o.key == name).unwrap().number;
    assert!(commit("t_quarantine") < commit("t"));
    commit("t")
}

async fn has_all(bed: &Bed, records: usize) {
    assert_eq!((bed.rows(false).await.len(), bed.rows(true).await.len()), (records, 0));
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_goes_on_after_a_crash_between_quarantine_and_table() {
    let at = commit_of_table(async |bed, faults| drop(bed.reprocess(faults, FROM, TO).await.unwrap())).await;
    let (bed, _) = corrected_late().await;
    let old = bed.rows(false).await;
    bed.reprocess(&Faults::at_write(at, Fault::CrashBefore), FROM, TO).await.unwrap_err();
    assert_eq!((bed.rows(false).await, bed.rows(true).await.len()), (old, 0), "the quarantine is ahead");
    let proof = prove::reconcile(&bed.env(&Faults::none()).await, bed.target(), false).await.unwrap();
    assert!(!proof.is_clean() && proof.to_string().contains("(reprocess 2021-07-21T06..2021-07-21T09)"), "{proof}");
    for _ in 0..2 {
        bed.reprocess(&Faults::none(), FROM, TO).await.unwrap();
        has_all(&bed, 40).await;
    }
}

/// Another hour first: the account counts rejects of both, and the quarantine has those of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hour_may_be_converted_again_between_the_crash_and_the_next_attempt() {
    let at = commit_of_table(async |bed, faults| drop(bed.reprocess(faults, FROM, "2021-07-21T07").await.unwrap()));
    let at = at.await;
    let (bed, _) = corrected_late().await;
    let crash = Faults::at_write(at, Fault::CrashBefore);
    bed.reprocess(&crash, FROM, "2021-07-21T07").await.unwrap_err();
    bed.reprocess(&Faults::none(), "2021-07-21T07", TO).await.unwrap();
    bed.reprocess(&Faults::none(), FROM, "2021-07-21T07").await.unwrap();
    has_all(&bed, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_goes_on_after_it_lost_a_race_for_the_table() {
    let (bed, quarantined) = corrected_late().await;
    bed.land(0, &records(1000, 10)).await;
    let (config, other) = (Arc::clone(&bed.config), bed.env(&Faults::none()).await);
    let hourly = move || {
        let target = Target::select(&config, None, None).unwrap()[0];
        let report = Handle::current().block_on(run(&other, target, &Options::default())).unwrap();
        assert_eq!(report.outcome, Outcome::Committed);
    };
    let Env { catalog: inner, .. } = bed.env(&Faults::none()).await;
    let catalog = Arc::new(Interrupted { inner, by: Mutex::new(Some(Box::new(hourly))) });
    let env = Env { catalog: Arc::clone(&catalog) as _, ..bed.env(&Faults::none()).await };
    let hours = Some((FROM.parse().unwrap(), TO.parse().unwrap()));
    let report = run(&env, bed.target(), &Options { hours, ..Options::default() }).await.unwrap();
    assert!(catalog.by.lock().unwrap().is_none(), "the other run came first");
    assert_eq!((report.fate.rows, report.replaced), (50, 50 - quarantined as u64));
    has_all(&bed, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_of_which_only_the_quarantine_was_published_is_compared_anew() {
    let at = commit_of_table(async |bed, faults| {
        bed.diff(&Faults::none(), FROM, TO).await.unwrap();
        bed.publish(faults).await.unwrap();
    });
    let at = at.await;
    let (bed, quarantined) = corrected_late().await;
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    bed.publish(&Faults::at_write(at, Fault::CrashBefore)).await.unwrap_err();
    assert_eq!((bed.rows(false).await.len(), bed.rows(true).await.len()), (40 - quarantined, 0));
    bed.land(0, &records(1000, 10)).await;
    bed.run_to_the_end().await;
    let error = bed.publish(&Faults::none()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("reprocess --diff"), "{error}");
    bed.diff(&Faults::none(), FROM, TO).await.unwrap();
    assert_eq!(bed.publish(&Faults::none()).await.unwrap().outcome, End::Published);
    has_all(&bed, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_somebody_else_removed_come_back() {
    for quarantine in [false, true] {
        let (bed, _) = corrected_late().await;
        let removed = remove_a_file(&bed, quarantine).await;
        assert!(removed > 0);
        let proof = prove::reconcile(&bed.env(&Faults::none()).await, bed.target(), false).await.unwrap();
        assert!(!proof.is_clean() && proof.to_string().contains("somebody else has changed it"), "{proof}");
        for _ in 0..2 {
            bed.reprocess(&Faults::none(), FROM, TO).await.unwrap();
            has_all(&bed, 40).await;
        }
    }
}

/// As another program would: without a word of offsets.
async fn remove_a_file(bed: &Bed, quarantine: bool) -> u64 {
    let env = bed.env(&Faults::none()).await;
    let ident = if quarantine { bed.target().quarantine().unwrap().ident } else { bed.target().ident() };
    let table = env.catalog.load(&ident).await.unwrap().unwrap();
    let file = live(&table, None, &All).await.unwrap().swap_remove(0);
    let remove = vec![file.data.clone()];
    let change = Change { commit_id: "somebody".to_owned(), remove, ..Change::default() };
    Committer::new(env.catalog, Arc::new(SystemClock)).commit(&ident, &change).await.unwrap();
    file.file().record_count()
}

/// A catalog that lets somebody else go first when the table is about to be committed.
struct Interrupted {
    inner: Arc<dyn Catalog>,
    by: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

#[async_trait]
impl Catalog for Interrupted {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        self.inner.load(ident).await
    }

    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        self.inner.databases().await
    }

    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
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
        if base.identifier().name() == "t" {
            let first = self.by.lock().unwrap().take();
            if let Some(first) = first {
                tokio::task::block_in_place(first);
            }
        }
        self.inner.commit(base, updates, requirements).await
    }
}
