//! Checked configuration. A value of these types has passed every check that needs no server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::access::Access;
pub use super::maintenance::{Maintenance, MaintenanceOptions};
pub use super::payload::{Format, PayloadFormat, TimeFormat};
pub use super::plugin::{PluginLimits, PluginSpec};
pub use super::protection::{
    ColumnPath, Encoding, KeySource, KeySpec, KmsOptions, Mask, PathStep, Protect, Protection, Reuse,
};
use crate::functions::{Args, Function, Planned, Shape};
use crate::ids::{ClusterName, ColumnName, DatabaseName, Generations, KeyName, PipelineName, TableName, Topic};
use crate::types::LogicalType;

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps secret text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A deployment (`firn.yaml`) and its pipelines.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where things are.
    pub deployment: Deployment,
    /// What is done, by name.
    pub pipelines: BTreeMap<PipelineName, Pipeline>,
}

/// `firn.yaml`.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Kafka clusters by name.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// Where raw objects, manifests and landing's quarantine go.
    pub raw: StoreUrl,
    /// Access to S3, for the raw zone and the tables.
    pub s3: S3Options,
    /// The Iceberg catalog.
    pub catalog: Catalog,
    /// Where tables go that give no `s3Location`: `{warehouse}/{database}/{table}`.
    pub warehouse: StoreUrl,
    /// Access to AWS KMS.
    pub kms: KmsOptions,
    /// Keys that protect personal data.
    pub keys: BTreeMap<KeyName, KeySpec>,
    /// WebAssembly plug-ins.
    pub plugins: Vec<PluginSpec>,
    /// Settings of the landing daemon.
    pub landing: LandingOptions,
    /// Settings of the compactor.
    pub compactor: CompactorOptions,
    /// Who reads what.
    pub access: Option<Access>,
    /// Logs.
    pub telemetry: TelemetryOptions,
}

impl Deployment {
    /// Everything in one local directory, which must be absolute; no cluster.
    #[must_use]
    pub fn local(folder: &Path) -> Self {
        Self {
            clusters: BTreeMap::new(),
            raw: StoreUrl::File(folder.join("raw")),
            s3: S3Options::default(),
            catalog: Catalog::Sqlite { path: folder.join("catalog.db"), name: "firn".to_owned() },
            warehouse: StoreUrl::File(folder.join("tables")),
            kms: KmsOptions::default(),
            keys: BTreeMap::new(),
            plugins: Vec::new(),
            landing: LandingOptions::default(),
            compactor: CompactorOptions { temp_dir: folder.join("tmp"), ..CompactorOptions::default() },
            access: None,
            telemetry: TelemetryOptions::default(),
        }
    }
}

/// `s3://bucket/prefix` or `file:///absolute/dir`; no trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A bucket and a prefix in it (may be empty).
    S3 {
        /// Bucket name.
        bucket: String,
        /// Prefix without leading or trailing slash.
        prefix: String,
    },
    /// A local directory.
    File(PathBuf),
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// A Kafka cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Bootstrap brokers, `host:port`; from `brokers`, or resolved from the `r53` name at start.
    pub brokers: Brokers,
    /// librdkafka properties of the security settings (`security.protocol`, `sasl.*`, `ssl.*`), secrets included.
    pub security: BTreeMap<String, Secret>,
    /// Further librdkafka properties, passed on as they are.
    pub properties: BTreeMap<String, String>,
}

/// How a cluster is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brokers {
    /// A list of `host:port`.
    List(Vec<String>),
    /// A DNS name (Route 53) that resolves to the brokers' addresses, and their port.
    Dns {
        /// The name.
        name: String,
        /// The port all brokers listen on.
        port: u16,
    },
}

/// Access to S3.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// Another endpoint than AWS's, for emulators.
    pub endpoint: Option<String>,
    /// Region; else from the environment.
    pub region: Option<String>,
    /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.
    pub path_style: bool,
    /// Static credentials; else the default credential chain.
    pub credentials: Option<(String, Secret)>,
    /// Server-side encryption with this KMS key.
    pub sse_kms_key_id: Option<String>,
}

/// Which catalog holds the tables.
#[derive(Debug, Clone)]
pub enum Catalog {
    /// A SQLite file with the tables of Iceberg's JDBC catalog.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The catalog's name inside it.
        name: String,
    },
    /// AWS Glue.
    Glue {
        /// Another endpoint than AWS's.
        endpoint: Option<String>,
        /// Region; else from the environment.
        region: Option<String>,
        /// Another account's catalog.
        catalog_id: Option<String>,
        /// Static credentials; else the default credential chain.
        credentials: Option<(String, Secret)>,
    },
    /// The Iceberg REST protocol.
    Rest {
        /// Base URI, without `/v1`.
        uri: String,
        /// The warehouse to ask for.
        warehouse: Option<String>,
        /// OAuth2 `client:secret`.
        credential: Option<Secret>,
        /// A bearer token.
        token: Option<Secret>,
        /// OAuth2 scope.
        scope: Option<String>,
    },
}

/// Settings of the landing daemon.
#[derive(Debug, Clone)]
pub struct LandingOptions {
    /// Upper bound for everything landing buffers, bytes.
    pub memory: u64,
    /// Kafka consumer group prefix; the group is `{prefix}{pipeline}`.
    pub group_prefix: String,
    /// Address of `/metrics`, `/healthz`, `/readyz`, such as `0.0.0.0:9464`; `None` is off.
    pub listen: Option<String>,
    /// How long SIGTERM may take before unfinished batches are dropped (they are read again).
    pub drain: Duration,
}

impl Default for LandingOptions {
    fn default() -> Self {
        Self { memory: 512_000_000, group_prefix: "firn-".to_owned(), listen: None, drain: Duration::from_secs(30) }
    }
}

/// Settings of the compactor.
#[derive(Debug, Clone)]
pub struct CompactorOptions {
    /// Upper bound for everything a run holds, bytes.
    pub memory: u64,
    /// Worker threads; 0 is the number of processors.
    pub threads: usize,
    /// Local directory for spilled data.
    pub temp_dir: PathBuf,
    /// A run of more uncompressed bytes than about this is cut into several commits.
    pub commit_size: u64,
    /// Where upserts keep the deletes that they remember; `None` is beside each table.
    pub delete_memory_location: Option<StoreUrl>,
    /// How tables are maintained.
    pub maintenance: MaintenanceOptions,
}

impl Default for CompactorOptions {
    fn default() -> Self {
        Self {
            memory: 512_000_000,
            threads: 0,
            temp_dir: std::env::temp_dir(),
            commit_size: 64_000_000_000,
            delete_memory_location: None,
            maintenance: MaintenanceOptions::default(),
        }
    }
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryOptions {
    /// Filter such as `info,firn_landing=debug`; the environment variable `FIRN_LOG` wins over it.
    pub log: String,
    /// How events are written.
    pub format: LogFormat,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// One pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name, unique in the deployment.
    pub name: PipelineName,
    /// The file it came from, for messages.
    pub file: PathBuf,
    /// Kafka to the raw zone.
    pub ingestion: Ingestion,
    /// The raw zone to tables.
    pub outputs: Vec<Output>,
}

/// Kafka to the raw zone.
#[derive(Debug, Clone)]
pub struct Ingestion {
    /// The cluster, by name.
    pub cluster: ClusterName,
    /// Which topics.
    pub topics: TopicSelector,
    /// The topic's retention as the operator believes it to be; checked against the broker.
    pub retention: Option<Duration>,
    /// Consumers in this daemon.
    pub consumers: usize,
    /// Which incarnation of each topic.
    pub generation: Generations,
    /// What the payloads are.
    pub format: PayloadFormat,
    /// JSON path of the event's name; `None` when the topic has one kind of event.
    pub event_name: Option<JsonPath>,
    /// Where the event time is.
    pub event_time: EventTime,
    /// Events that pass; `None` lets all pass.
    pub whitelist: Option<BTreeMap<String, WhitelistEntry>>,
    /// Lateness that keeps an hour open before it is sealed.
    pub late_allowed: Duration,
    /// What becomes of later records.
    pub late_then: LateThen,
    /// Records whose key, headers and payload have more than this many bytes are quarantined.
    pub max_record_bytes: u64,
    /// An object is closed at this many compressed bytes.
    pub rotate_size: u64,
    /// A batch is closed at this age.
    pub rotate_age: Duration,
    /// Whether personal data is protected before it is uploaded, not first on its way into tables.
    pub protect_at_landing: bool,
}

/// Which topics a pipeline reads.
#[derive(Debug, Clone)]
pub enum TopicSelector {
    /// These.
    List(Vec<Topic>),
    /// Every topic the pattern matches in full (text of a regular expression, anchored by us).
    Pattern(String),
}

/// A whitelisted event.
#[derive(Debug, Clone, Default)]
pub struct WhitelistEntry {
    /// Its subject in the schema registry.
    pub subject: Option<String>,
}

/// What becomes of records later than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LateThen {
    /// They go to their own hour all the same.
    #[default]
    Accept,
    /// They are quarantined with reason `tooLate`.
    Quarantine,
}

/// A path of object keys, such as `$.payload.size` or `$['id.orig_h']`; never empty as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(pub Vec<String>);

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for key in &self.0 {
            let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if plain {
                write!(f, ".{key}")?;
            } else {
                write!(f, "['{}']", key.replace('\\', "\\\\").replace('\'', "\\'"))?;
            }
        }
        Ok(())
    }
}

/// Where the event time comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTime {
    /// A field of the payload.
    Field {
        /// Where.
        path: JsonPath,
        /// In which form.
        format: TimeFormat,
    },
    /// Kafka's record timestamp.
    KafkaTimestamp,
}

/// One table fed by a pipeline.
#[derive(Debug, Clone)]
pub struct Output {
    /// What the payloads are; the same for all outputs of a pipeline.
    pub format: PayloadFormat,
    /// Events that go into it; `None` is all.
    pub events: Option<Vec<String>>,
    /// The table.
    pub table: Table,
    /// Steps from decoded columns to table columns, in order.
    pub transformations: Vec<Step>,
}

impl Output {
    /// Whether a step makes several rows of one record.
    #[must_use]
    pub fn explodes(&self) -> bool {
        self.transformations.iter().any(|step| matches!(step.function.shape, Shape::Explode(_)))
    }
}

/// A destination table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Database (namespace).
    pub database: DatabaseName,
    /// Table.
    pub name: TableName,
    /// Where it lives; else under the deployment's warehouse.
    pub location: Option<StoreUrl>,
    /// How runs change it.
    pub mode: Mode,
    /// Columns as decoded from JSON, before the transformations.
    pub columns: Vec<Column>,
    /// What becomes of personal data, after the transformations.
    pub protections: Vec<Protection>,
    /// Hidden partitioning of the table.
    pub partition_by: Vec<PartitionField>,
    /// Sort order inside files.
    pub sort_by: Vec<SortField>,
    /// Whether rows carry `_firn`.
    pub provenance: bool,
    /// Aim for data files of this many bytes.
    pub target_file_size: u64,
    /// zstd level of the Parquet pages.
    pub zstd_level: i32,
    /// Guards for Athena that are off.
    pub athena_allow: BTreeSet<AthenaGuard>,
    /// Iceberg table properties to set.
    pub properties: BTreeMap<String, String>,
    /// Share of a run's records (0 to 1) above which `run` ends with exit code 5.
    pub quarantine_threshold: Option<f64>,
    /// How it is maintained, where it differs from the deployment's tables.
    pub maintenance: MaintenanceOptions,
}

impl Table {
    /// URL of its directory, in a deployment with this warehouse.
    #[must_use]
    pub fn location_in(&self, warehouse: &StoreUrl) -> String {
        let under = || format!("{warehouse}/{}/{}", self.database, self.name);
        self.location.as_ref().map_or_else(under, ToString::to_string)
    }
}

/// What a table may not have, because Athena does not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AthenaGuard {
    /// Another format version than 2.
    FormatVersion,
    /// Columns of types that Athena does not read.
    Types,
}

/// How runs change a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Rows are added.
    Append,
    /// A row replaces an older one of the same key.
    Upsert(Upsert),
    /// A run replaces the whole table.
    TruncateLoad {
        /// Whether a run without rows may empty the table.
        allow_empty: bool,
    },
}

impl Mode {
    /// The upsert, if it is one.
    #[must_use]
    pub fn upsert(&self) -> Option<&Upsert> {
        match self {
            Self::Upsert(upsert) => Some(upsert),
            Self::Append | Self::TruncateLoad { .. } => None,
        }
    }
}

/// How rows replace older ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upsert {
    /// The key: table columns without floats or nested types; never empty. A row that lacks one of them is quarantined.
    pub keys: Vec<ColumnName>,
    /// What makes a version newer, most significant first; null is oldest. Ties go to the source position of change
    /// events, then to the Kafka offset. Empty only for formats that carry a source position.
    pub versions: Vec<ColumnName>,
    /// How files change.
    pub strategy: WriteStrategy,
    /// How long a delete is remembered, so that a late older version does not bring the row back.
    pub delete_memory: Duration,
    /// Deletes set `_deleted` and `_deleted_at` instead of removing the row.
    pub soft_delete: bool,
}

/// How an upsert takes the old row out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStrategy {
    /// The file that holds it is written again without it.
    CopyOnWrite,
    /// A delete file names it.
    MergeOnRead(DeleteFiles),
}

/// How delete files name rows (Iceberg specification, "Row-level Deletes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteFiles {
    /// By data file and position.
    Position,
    /// By the key, in the partition where the old row is.
    Equality,
}

/// A column as it is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name; before transformations it may be any text (`actor.login`), in the table it must be a [`ColumnName`].
    pub name: String,
    /// Where it is in the payload; `$.name` unless given. Empty for a column that a step made.
    pub path: JsonPath,
    /// Its type.
    pub r#type: LogicalType,
    /// A record without it is quarantined.
    pub required: bool,
    /// The form of its values, where the type leaves it open; dates and times without one try every common form.
    pub format: Option<Format>,
    /// Comment in the table.
    pub doc: Option<String>,
}

/// `hour(created_at)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionField {
    /// The table column.
    pub column: ColumnName,
    /// What is done to it.
    pub transform: Transform,
}

/// Iceberg partition transforms (specification, "Partition Transforms").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// The value itself.
    Identity,
    /// Calendar year.
    Year,
    /// Calendar month.
    Month,
    /// Calendar day.
    Day,
    /// Hour.
    Hour,
    /// Hash modulo this.
    Bucket(u32),
    /// Width of the truncation.
    Truncate(u32),
}

/// One column of the sort order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortField {
    /// The table column.
    pub column: ColumnName,
    /// Descending instead of ascending.
    pub descending: bool,
}

/// A step: a function with its arguments, planned over the columns before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `file:line:column` of the step.
    pub at: String,
    /// The same of its arguments, by their path inside the step (`columns[1]`).
    pub places: BTreeMap<String, String>,
    /// What is done.
    pub function: &'static Function,
    /// The arguments.
    pub args: Args,
    /// What becomes of the columns.
    pub plan: Planned,
}

impl Step {
    /// `file:line:column` of an argument, or of the step.
    #[must_use]
    pub fn place(&self, argument: &str) -> &str {
        self.places.get(argument).unwrap_or(&self.at)
    }
}
