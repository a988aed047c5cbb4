//! A raw zone, a catalog and a pipeline in a temporary directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use firn_compactor::maintain::{self, Report, Subject, maintain};
use firn_compactor::run::{Env, Options, Outcome, RunReport, Target, branch, prove, run};
use firn_compactor::seam::Cpu;
use firn_compactor::table::catalog::{Created, open};
use firn_compactor::table::read::{self, Origins, Rows};
use firn_compactor::table::{Catalog, CommitOutcome};
use firn_shared::clock::SystemClock;
use firn_shared::config::{self, Config};
use firn_shared::crypto::Keys;
use firn_shared::error::Result;
use firn_shared::ids::{EventHour, OffsetRange, Partition, PartitionRef, Topic};
use firn_shared::raw::chain::{AppendOutcome, Chain};
use firn_shared::raw::envelope::{LineWriter, Record};
use firn_shared::raw::key::{QuarantineKey, RawKey};
use firn_shared::raw::manifest::{BatchManifest, MANIFEST_VERSION, RawObject, RejectReason};
use firn_shared::raw::progress::{self, Progress};
use firn_shared::store::{Faults, PutMode, Store, Stores};
use futures::TryStreamExt;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};

pub const FIRN: &str = "
clusters: {c: {brokers: 'localhost:9092'}}
raw: DIR/raw
warehouse: DIR/lake
catalog: {sqlite: {path: DIR/catalog.db}}
compactor: {memory: 128MB, threads: 2}
";

/// Events `a` and `b` go into the table, others do not; `n` must be a number, `note` must hold one, and 13 is left out.
pub const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData:
    format: json
    eventName: $.type
    eventTime: {path: $.at, format: rfc3339}
    late: {allowed: 1h, then: accept}
outsourcingUnit:
  - events: [a, b]
    table:
      database: d
      tableName: t
      partitionBy: [hour(at)]
      sortBy: [id]
      columns:
        - {name: id, type: long, required: true}
        - {name: at, type: timestamptz, required: true}
        - {name: n, type: int}
        - {name: note, type: json}
    transformations:
      - extract: {from: note, path: $.k, as: k, type: int}
      - filter: {where: 'n IS NULL OR n <> 13', name: thirteen}
";

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Row,
    Quarantined,
    Filtered,
    OtherEvent,
    Tombstone,
}

pub struct Bed {
    pub dir: tempfile::TempDir,
    pub config: Arc<Config>,
}

/// Partition and offset.
pub type Place = (u32, u64);

impl Bed {
    pub fn new() -> Self {
        Self::with(PIPELINE)
    }

    pub fn with(pipeline: &str) -> Self {
        Self::on(FIRN, pipeline)
    }

    /// A deployment of its own; `DIR` stands for its temporary directory.
    pub fn on(firn: &str, pipeline: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("firn.yaml"), firn.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let config = load(dir.path(), pipeline);
        Self { dir, config }
    }

    /// A deployment with the key `people`, from a key ring; spilled rows go to `tmp`.
    pub fn protected(pipeline: &str) -> Self {
        let keys = "keys: {people: {file: DIR/keys.yaml}}\n";
        let bed = Self::on(&format!("{}{keys}", FIRN.replace("threads: 2", "threads: 2, tempDir: DIR/tmp")), pipeline);
        write_ring(bed.dir.path(), &[1]);
        bed
    }

    /// The same place under another pipeline.
    pub fn reconfigure(&mut self, pipeline: &str) {
        self.config = load(self.dir.path(), pipeline);
    }

    pub async fn env(&self, faults: &Arc<Faults>) -> Env {
        let behind = Arc::clone(faults);
        let stores = Stores::wrapped(self.config.deployment.s3.clone(), move |store| behind.around(store));
        let inner = open(&self.config.deployment.catalog, &stores).await.unwrap();
        let catalog: Arc<dyn Catalog> = Arc::new(FaultyCatalog { inner, faults: Arc::clone(faults) });
        let options = &self.config.deployment.compactor;
        Env {
            config: Arc::clone(&self.config),
            keys: Keys::new(&self.config.deployment, stores.clone(), Arc::new(SystemClock)),
            stores,
            catalog,
            clock: Arc::new(SystemClock),
            cpu: Cpu::new(options.threads, options.memory).unwrap(),
            bars: false,
        }
    }

    pub fn target(&self) -> Target<'_> {
        Target::select(&self.config, None, None).unwrap()[0]
    }

    pub async fn run(&self, faults: &Arc<Faults>) -> Result<RunReport> {
        run(&self.env(faults).await, self.target(), &Options::default()).await
    }

    /// Runs until there is nothing to do; a crash never makes that impossible.
    pub async fn run_to_the_end(&self) {
        for _ in 0..3 {
            if self.run(&Faults::none()).await.unwrap().outcome == Outcome::NothingToDo {
                return;
            }
        }
        panic!("it never ends");
    }

    pub async fn reprocess(&self, faults: &Arc<Faults>, from: &str, to: &str) -> Result<RunReport> {
        let hours = Some((from.parse().unwrap(), to.parse().unwrap()));
        run(&self.env(faults).await, self.target(), &Options { hours, ..Options::default() }).await
    }

    /// The table as maintenance sees it: everything is worth doing, and nothing is too young.
    pub fn subject(&self) -> Subject {
        let mut subject = Subject::of(&self.target()).unwrap().swap_remove(0);
        let settings = &mut subject.settings;
        (settings.min_files, settings.min_manifests, settings.delete_share) = (2, 2, 0.0);
        (settings.expire_after, settings.keep_last) = (Duration::ZERO, 1);
        (settings.orphans_after, settings.delete_orphans) = (Duration::ZERO, true);
        subject
    }

    pub async fn maintain(&self, faults: &Arc<Faults>, subject: &Subject) -> Result<Report> {
        let report = maintain(&self.env(faults).await, subject, &maintain::Options::default()).await?;
        Ok(report.expect("there is a table"))
    }

    /// Hours again on the usual branch, compared with the table.
    pub async fn diff(&self, faults: &Arc<Faults>, from: &str, to: &str) -> Result<RunReport> {
        let (hours, branch) = (Some((from.parse().unwrap(), to.parse().unwrap())), Some(branch::BRANCH.to_owned()));
        run(&self.env(faults).await, self.target(), &Options { hours, branch, ..Options::default() }).await
    }

    pub async fn publish(&self, faults: &Arc<Faults>) -> Result<branch::BranchReport> {
        branch::publish(&self.env(faults).await, self.target(), branch::BRANCH).await
    }

    pub async fn discard(&self, faults: &Arc<Faults>) -> Result<branch::BranchReport> {
        branch::discard(&self.env(faults).await, self.target(), branch::BRANCH).await
    }

    pub async fn table(&self) -> Option<Table> {
        self.env(&Faults::none()).await.catalog.load(&self.target().ident()).await.unwrap()
    }

    async fn raw(&self) -> Arc<dyn Store> {
        Stores::new(self.config.deployment.s3.clone()).open(&self.config.deployment.raw).await.unwrap()
    }

    /// Lands `(event hour of 2021-07-21, payload)` as the next batch of a partition; `None` is a tombstone.
    pub async fn land(&self, partition: u32, records: &[(u32, Option<String>)]) {
        self.land_in("c/t/1", partition, records).await;
    }

    /// Lands records in partition 0, runs until there is nothing to do, and proves where each of them is.
    pub async fn land_and_run(&self, records: &[(u32, Option<String>)]) {
        self.land(0, records).await;
        self.run_to_the_end().await;
        self.prove().await;
    }

    /// As [`Self::land`], in a topic, `cluster/topic/generation`.
    pub async fn land_in(&self, topic: &str, partition: u32, records: &[(u32, Option<String>)]) {
        let raw = self.raw().await;
        let of = PartitionRef { topic: topic.parse().unwrap(), partition: Partition(partition) };
        let mut chain = Chain::new(Arc::clone(&raw), of.clone());
        let start = chain.end_after(None).await.unwrap().map_or(0, |end| end.end);
        let range = OffsetRange::new(start, start + records.len() as u64).unwrap();
        let writer = LineWriter::new(&of.topic.topic, of.partition);
        let mut hours: BTreeMap<u32, (Vec<u8>, Vec<u64>, u64)> = BTreeMap::new();
        for (offset, (hour, payload)) in (start..).zip(records) {
            let (lines, offsets, tombstones) = hours.entry(*hour).or_default();
            let headers: Vec<(&str, Option<&[u8]>)> = Vec::new();
            let event = payload.as_deref().and_then(event_of);
            let record = Record { offset, timestamp: Some(1_626_847_200_000), key: Some(b"k"), headers };
            writer.record(lines, record, event.as_deref(), payload.as_deref().map(str::as_bytes));
            offsets.push(offset);
            *tombstones += u64::from(payload.is_none());
        }
        let mut objects = Vec::new();
        for (hour, (lines, offsets, tombstones)) in hours {
            let hour = event_hour(hour);
            let key = RawKey { partition: of.clone(), hour, range, id: "test".to_owned() }.to_string();
            let bytes = zstd::encode_all(lines.as_slice(), 1).unwrap();
            objects.push(RawObject {
                key: key.clone(),
                event_hour: Some(hour),
                records: offsets.len() as u64,
                tombstones,
                bytes: bytes.len() as u64,
                raw_bytes: lines.len() as u64,
                blake3: blake3::hash(&bytes).to_hex().to_string(),
                min_offset: offsets[0],
                max_offset: *offsets.last().unwrap(),
                min_event_time: None,
                max_event_time: None,
                erased: 0,
            });
            let _ = raw.put(&key, Bytes::from(bytes), PutMode::Create).await.unwrap();
        }
        let manifest = BatchManifest {
            version: MANIFEST_VERSION,
            topic: of.topic.clone(),
            topic_id: None,
            partition: of.partition,
            range,
            writer: "test".to_owned(),
            written_at: DateTime::<Utc>::UNIX_EPOCH,
            objects,
            quarantine: Vec::new(),
            rejects: BTreeMap::new(),
            absent: 0,
            gap: None,
            watermark: Some(event_hour(23).start() + TimeDelta::hours(10)),
            caught_up_at: None,
        };
        assert!(matches!(chain.append(&manifest).await.unwrap(), AppendOutcome::Appended));
    }

    /// Says that everything of an empty partition had been read at this time.
    pub async fn caught_up(&self, topic: &str, partition: u32, at: &str) {
        let of = PartitionRef { topic: topic.parse().unwrap(), partition: Partition(partition) };
        let progress = Progress { caught_up_at: Some(at.parse().unwrap()), ..Progress::default() };
        progress::write(&*self.raw().await, &of, &progress).await.unwrap();
    }

    /// Writes an object of records that landing refused, one that is no JSON behind these. No manifest names it.
    pub async fn refuse(&self, payloads: &[String]) {
        let of = PartitionRef { topic: "c/t/1".parse().unwrap(), partition: Partition(0) };
        let (writer, mut lines) = (LineWriter::new(&Topic::new("t").unwrap(), of.partition), Vec::new());
        for (offset, payload) in (0..).zip(payloads.iter().map(String::as_str).chain(["no JSON"])) {
            let headers: Vec<(&str, Option<&[u8]>)> = Vec::new();
            let record = Record { offset, timestamp: None, key: None, headers };
            writer.refused(&mut lines, record, (RejectReason::NoEventTime, "x"), Some(payload.as_bytes()));
        }
        let range = OffsetRange::new(0, payloads.len() as u64 + 1).unwrap();
        let key = QuarantineKey { partition: of, range, id: "test".to_owned() }.to_string();
        let bytes = Bytes::from(zstd::encode_all(lines.as_slice(), 1).unwrap());
        let _ = self.raw().await.put(&key, bytes, PutMode::Create).await.unwrap();
    }

    /// Rows of the table, or of its quarantine: where each came from and its `id` (none in quarantine), sorted.
    pub async fn rows(&self, quarantine: bool) -> Vec<(Place, Option<i64>)> {
        let env = self.env(&Faults::none()).await;
        let ident = if quarantine { self.target().quarantine().unwrap().ident } else { self.target().ident() };
        match env.catalog.load(&ident).await.unwrap() {
            Some(table) => rows_of(&table, !quarantine).await,
            None => Vec::new(),
        }
    }

    /// Rows of the table: where each came from, its `id`, and whether it is marked as deleted; sorted.
    pub async fn marked_rows(&self) -> Vec<(Place, Option<i64>, bool)> {
        let Some(table) = self.table().await else { return Vec::new() };
        let soft = table.metadata().current_schema().field_by_name(config::DELETED).is_some();
        let columns: &[&str] = if soft { &["id", "_firn", config::DELETED] } else { &["id", "_firn"] };
        let mut batches = read::rows(&table, columns, &Rows::All).await.unwrap();
        let mut rows = Vec::new();
        while let Some(batch) = batches.try_next().await.unwrap() {
            let origins = Origins::of(batch.column_by_name("_firn").unwrap().as_struct()).unwrap();
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let deleted = batch.column_by_name(config::DELETED).map(|c| c.as_boolean().clone());
            for row in 0..batch.num_rows() {
                let place = (origins.partitions.value(row) as u32, origins.offsets.value(row) as u64);
                let deleted = deleted.as_ref().is_some_and(|deleted| deleted.value(row));
                rows.push((place, ids.is_valid(row).then(|| ids.value(row)), deleted));
            }
        }
        rows.sort_unstable();
        rows
    }

    /// The ledger, the snapshots and the rows agree.
    pub async fn prove(&self) {
        let env = self.env(&Faults::none()).await;
        let proof = prove::reconcile(&env, self.target(), true).await.unwrap();
        assert!(proof.is_clean(), "{proof}");
    }
}

pub async fn rows_of(table: &Table, ids: bool) -> Vec<(Place, Option<i64>)> {
    let columns: &[&str] = if ids { &["id", "_firn"] } else { &["_firn"] };
    let mut batches = read::rows(table, columns, &Rows::All).await.unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.unwrap() {
        let origins = Origins::of(batch.column_by_name("_firn").unwrap().as_struct()).unwrap();
        for row in 0..batch.num_rows() {
            let place = (origins.partitions.value(row) as u32, origins.offsets.value(row) as u64);
            let id = batch.column_by_name("id").map(|c| c.as_primitive::<Int64Type>().value(row));
            assert!(!origins.topics.is_null(row));
            rows.push((place, id));
        }
    }
    rows.sort_unstable();
    rows
}

/// A key ring with these versions of `people`: version `n` is 32 times the byte `n`, the secret of tokens 32 times 7.
pub fn write_ring(dir: &Path, versions: &[u8]) {
    use base64::Engine as _;
    use std::os::unix::fs::PermissionsExt;
    let of = |byte: u8| base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    let list: Vec<String> = versions.iter().map(|n| format!("{n}: '{}'", of(*n))).collect();
    let text =
        format!("keys: {{people: {{versions: {{{}}}, token: '{}'}}}}\nsigning: '{}'\n", list.join(", "), of(7), of(9));
    std::fs::write(dir.join("keys.yaml"), text).unwrap();
    std::fs::set_permissions(dir.join("keys.yaml"), std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn load(dir: &Path, pipeline: &str) -> Arc<Config> {
    std::fs::create_dir_all(dir.join("pipelines")).unwrap();
    std::fs::write(dir.join("pipelines/p.yaml"), pipeline).unwrap();
    match config::load(&dir.join("firn.yaml"), &[dir.join("pipelines")]) {
        Ok(config) => Arc::new(config),
        Err(problems) => panic!("{problems}"),
    }
}

fn event_of(payload: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(payload).ok()?;
    Some(value.get("type")?.as_str()?.to_owned())
}

pub fn event_hour(hour: u32) -> EventHour {
    format!("2021-07-21T{hour:02}").parse().unwrap()
}

/// The `id`-th event: its hour, its payload, and what is to become of it.
pub fn event(id: u64) -> ((u32, Option<String>), Fate) {
    let hour = 6 + (id / 7 % 3) as u32;
    let json = |kind: &str, n: &str, k: &str| {
        format!(r#"{{"type":"{kind}","id":{id},"at":"2021-07-21T{hour:02}:00:00Z","n":{n},"note":{{"k":{k}}}}}"#)
    };
    let (payload, fate) = match id % 11 {
        3 => (Some(json("a", "\"many\"", "1")), Fate::Quarantined),
        5 => (Some(json("a", "1", "\"x\"")), Fate::Quarantined),
        6 => (Some(json("b", "13", "1")), Fate::Filtered),
        7 => (Some(json("z", "1", "1")), Fate::OtherEvent),
        9 => (None, Fate::Tombstone),
        _ => (Some(json("b", "1", "1")), Fate::Row),
    };
    ((hour, payload), fate)
}

/// Everything that was landed, and where its parts should be.
#[derive(Debug, Clone, Default)]
pub struct Landed {
    next: u64,
    ends: BTreeMap<u32, u64>,
    pub rows: Vec<(Place, Option<i64>)>,
    pub quarantined: Vec<(Place, Option<i64>)>,
}

impl Landed {
    /// Lands the next `count` events as a batch.
    pub async fn land(&mut self, bed: &Bed, partition: u32, count: u64) {
        let mut records = Vec::new();
        let offset = self.ends.entry(partition).or_default();
        for id in self.next..self.next + count {
            let (record, fate) = event(id);
            records.push(record);
            match fate {
                Fate::Row => self.rows.push(((partition, *offset), Some(id as i64))),
                Fate::Quarantined => self.quarantined.push(((partition, *offset), None)),
                _ => {}
            }
            *offset += 1;
        }
        self.next += count;
        self.rows.sort_unstable();
        self.quarantined.sort_unstable();
        bed.land(partition, &records).await;
    }

    /// The tables hold this, all of it and nothing twice.
    pub async fn check(&self, bed: &Bed) {
        assert_eq!(bed.rows(false).await, self.rows, "rows");
        assert_eq!(bed.rows(true).await, self.quarantined, "quarantine");
        bed.prove().await;
    }
}

/// A catalog whose calls fail like a store's.
#[derive(Debug)]
struct FaultyCatalog {
    inner: Arc<dyn Catalog>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Catalog for FaultyCatalog {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        if self.faults.is_dead() {
            // No kind that is tried again: nobody is there to try.
            return Err(firn_shared::error::Error::bug("injected fault: the process is dead"));
        }
        self.inner.load(ident).await
    }

    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        self.inner.databases().await
    }

    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.tables(database).await
    }

    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let effect = self.inner.ensure_namespace(namespace);
        self.faults.run("catalog.namespace", &namespace.to_url_string(), effect).await
    }

    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        let name = creation.name.clone();
        self.faults.run("catalog.create", &name, self.inner.create(namespace, creation)).await
    }

    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome> {
        let name = base.identifier().name().to_owned();
        match self.faults.run("catalog.commit", &name, self.inner.commit(base, updates, requirements)).await {
            // Whoever is told of an injected fault does not know whether the commit had its effect.
            Err(e) if e.to_string().starts_with("injected fault") => Ok(CommitOutcome::Unknown(e)),
            outcome => outcome,
        }
    }
}
