//! `pipelines/*.yaml`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MaintenanceYaml, OneOrMany, wire, words};

wire! {
    /// A pipeline: from Kafka topics to the raw zone (`ingestionUnit`), and from there to tables (`outsourcingUnit`).
    struct PipelineYaml {
        /// Name, unique in the deployment.
        #[schemars(required)]
        name: Option<String>,
        /// Kafka to the raw zone.
        #[schemars(required)]
        ingestion_unit: Option<IngestionYaml>,
        /// The raw zone to tables; one topic may feed many.
        #[schemars(required, length(min = 1), with = "Vec<OutputYaml>")]
        outsourcing_unit: Option<Vec<Option<OutputYaml>>>,
        /// Windows over event time that are written back to Kafka. Not supported yet.
        #[schemars(with = "Option<Vec<StreamYaml>>")]
        streams: Option<Vec<Option<StreamYaml>>>,
    }
    /// Kafka to the raw zone.
    struct IngestionYaml {
        /// What is read.
        #[schemars(required)]
        kafka: Option<KafkaYaml>,
        /// What the records look like.
        #[schemars(required)]
        incoming_data: Option<IncomingYaml>,
        /// How raw objects are cut.
        raw: Option<RawYaml>,
        /// Where personal data is protected (default `conversion`).
        protect_at: Option<ProtectAt>,
    }
    /// What is read from Kafka.
    struct KafkaYaml {
        /// A cluster of firn.yaml.
        #[schemars(required)]
        cluster: Option<String>,
        /// A topic, a list of topics, or `{regex: …}`.
        #[schemars(required)]
        topic: Option<TopicYaml>,
        /// The topic's retention, such as `7d`; checked against the broker.
        retention: Option<String>,
        /// Consumers in one daemon (default 1).
        #[schemars(range(min = 1, max = 256))]
        number_of_consumers: Option<u32>,
        /// Which incarnation of the topic; raise it after the topic was deleted and made again (default 1). Of several topics
        /// each has its own: `{orders: 2}`.
        generation: Option<GenerationYaml>,
    }
    /// Topics by pattern.
    struct TopicPatternYaml {
        /// A regular expression that must match the whole topic name.
        #[schemars(required)]
        regex: Option<String>,
    }
    /// What the records look like.
    struct IncomingYaml {
        /// Format of the payload. `json`: an object is a row. `debezium` (envelope with or without schema, or flattened)
        /// and `dynamodb` (DynamoDB Streams): a record is a change of a row; column paths begin at the row. `avro` and
        /// `protobuf` are not supported yet.
        #[schemars(required)]
        format: Option<PayloadFormatYaml>,
        /// JSON path of the event's name, when a topic carries several kinds.
        event_name: Option<String>,
        /// Where the event time is: `{path, format}` or `kafkaTimestamp`.
        #[schemars(required)]
        event_time: Option<EventTimeYaml>,
        /// Events that pass, by name; others are refused at landing. Absent lets every event pass.
        whitelist: Option<BTreeMap<String, Option<WhitelistYaml>>>,
        /// Late records.
        late: Option<LateYaml>,
        /// Records above this size, key and headers included, are refused at landing (default 16MiB).
        max_record_size: Option<String>,
    }
    /// A field of the payload that holds the event time.
    struct EventTimeFieldYaml {
        /// JSON path of the field.
        path: Option<String>,
        /// `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays`, a strftime pattern, or
        /// `kafkaTimestamp` (without path).
        #[schemars(required)]
        format: Option<String>,
    }
    /// A whitelisted event.
    struct WhitelistYaml {
        /// Its subject in the schema registry. Not supported yet.
        subject: Option<String>,
    }
    /// Late records.
    struct LateYaml {
        /// How long an hour stays open after the watermark has passed it (default 1h).
        allowed: Option<String>,
        /// What becomes of later records (default `accept`). `quarantine` refuses them at landing; `sideTable` is not
        /// supported yet.
        then: Option<LateThenYaml>,
    }
    /// How raw objects are cut.
    struct RawYaml {
        /// When a batch is closed.
        rotate: Option<RotateYaml>,
    }
    /// When a batch is closed.
    struct RotateYaml {
        /// Compressed size of an object (default 128MB).
        size: Option<String>,
        /// Age of a batch (default 5m).
        age: Option<String>,
    }
    /// One table.
    struct OutputYaml {
        /// Names of the events that go into it; absent is all.
        events: Option<Vec<String>>,
        /// The table.
        #[schemars(required)]
        table: Option<TableYaml>,
        /// Steps from decoded columns to table columns, in order; `docs/functions.md` lists what they call.
        #[schemars(with = "Option<Vec<StepYaml>>")]
        transformations: Option<Vec<Option<StepYaml>>>,
    }
    /// A destination table.
    struct TableYaml {
        /// Database: lower-case letters, digits and `_`.
        #[schemars(required)]
        database: Option<String>,
        /// Table: lower-case letters, digits and `_`.
        #[schemars(required)]
        table_name: Option<String>,
        /// Where it lives; else under the warehouse.
        s3_location: Option<String>,
        /// File format (default `parquet`).
        format: Option<FileFormat>,
        /// How runs change the table (default `append`). Fed from change events, `append` keeps every change as a row and
        /// adds the column `_op` (`c`, `r`, `u`, `d` or `t`); `upsert` carries the changes out.
        mode: Option<ModeYaml>,
        /// How an upsert changes files (default `mergeOnRead`).
        write_strategy: Option<WriteStrategyYaml>,
        /// How `mergeOnRead` names the rows it takes out (default `position`).
        delete_files: Option<DeleteFilesYaml>,
        /// Key columns of an upsert.
        id_columns: Option<Vec<String>>,
        /// Columns that say which version of a row is the newest, most significant first.
        timestamp_columns: Option<Vec<String>>,
        /// How long deletes are remembered, against late older versions (default 7d).
        delete_memory: Option<String>,
        /// Whether deletes of an upsert set `_is_deleted` and `_deleted_at` instead of removing the row (default false).
        soft_delete: Option<bool>,
        /// Whether a `truncateLoad` without rows may empty the table (default false).
        allow_empty: Option<bool>,
        /// Columns with personal data and how each is protected.
        #[schemars(with = "Option<Vec<PiiYaml>>")]
        pii_columns: Option<Vec<Option<PiiYaml>>>,
        /// Columns of any JSON, kept as text; `extract` takes fields out.
        json_columns: Option<Vec<String>>,
        /// Hidden partitioning: `c`, `year(c)`, `month(c)`, `day(c)`, `hour(c)`, `bucket(16, c)`, `truncate(4, c)`.
        partition_by: Option<Vec<String>>,
        /// Sort order inside files: `c` or `c desc`.
        sort_by: Option<Vec<String>>,
        /// Columns as decoded from the payload, before the transformations. Required so far: inferring
        /// them is not supported yet.
        #[schemars(with = "Option<Vec<ColumnYaml>>")]
        columns: Option<Vec<Option<ColumnYaml>>>,
        /// What happens when data and table differ. Only the defaults are supported yet.
        contract: Option<ContractYaml>,
        /// Whether rows carry the `_firn` column (default true).
        provenance: Option<bool>,
        /// Share of quarantined records of a run, 0 to 1, above which it ends with exit code 5, after its commit.
        #[schemars(range(min = 0.0, max = 1.0))]
        quarantine_threshold: Option<f64>,
        /// What the table may have though Athena does not read it.
        athena: Option<AthenaYaml>,
        /// Iceberg table properties.
        properties: Option<BTreeMap<String, String>>,
        /// Size of data files to aim for (default 128MB).
        target_file_size: Option<String>,
        /// zstd level of the data files (default 3).
        #[schemars(range(min = 1, max = 22))]
        zstd_level: Option<i32>,
        /// How `compactor maintain` treats it.
        maintenance: Option<MaintenanceYaml>,
    }
    /// Guards for Athena, which reads format version 2 and no `time`, `uuid`, `fixed` and what came later.
    struct AthenaYaml {
        /// Guards that are off: `formatVersion` lets a table have format version 3, `types` lets columns that others
        /// made have types that Athena does not read.
        allow: Option<Vec<AthenaGuardYaml>>,
    }
    /// A column as it is decoded.
    struct ColumnYaml {
        /// Its name.
        #[schemars(required)]
        name: Option<String>,
        /// Its type: `long`, `decimal(10,2)`, `list<string>`, `struct<a: long, b: string>` …; optional for `jsonColumns`.
        r#type: Option<String>,
        /// JSON path in the payload (default `$.name`).
        path: Option<String>,
        /// A record without it is quarantined (default false).
        required: Option<bool>,
        /// Form of the values. Dates and times: `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`,
        /// `epochDays` or a strftime pattern; else every common form is tried. Numbers and text: `base64(2)` (unscaled
        /// big-endian bytes, 2 digits after the point), `variableScale`, `bits`. Booleans: `zeroOne`, `bits`. JSON:
        /// `jsonText` (a JSON value inside a string). What a Debezium schema says of the field comes first.
        format: Option<String>,
        /// Comment in the table.
        doc: Option<String>,
        /// Former names in the table. Not supported yet.
        was: Option<OneOrMany>,
    }
    /// A column with personal data.
    struct PiiYaml {
        /// The table column, or a place in it: `email`, `user.email`, `phones[]`, `contacts[].phone`.
        #[schemars(required)]
        name: Option<String>,
        /// How it is protected. `encrypt`: AES-256-GCM, can be opened again. `token`: HMAC, equal in all tables. `hash`: HMAC,
        /// equal in this column only. `mask`: partly hidden. `redact`: text without what patterns find. `drop`: not in the
        /// table. `keep`: as it is, on purpose.
        #[schemars(required)]
        protect: Option<ProtectYaml>,
        /// Add a column `NAME_token` for joins (default false).
        token: Option<bool>,
        /// The key, a name in firn.yaml (default: the only one there).
        key: Option<String>,
        /// What `mask` leaves: `all` (default, nothing), `first(n)`, `last(n)`, `email`, `ip`.
        mask: Option<String>,
        /// Pattern for `redact`: a regular expression, or `email`, `card`, `phone`, `ipv4`, `iban`.
        pattern: Option<String>,
        /// Several patterns for `redact`.
        patterns: Option<Vec<String>>,
        /// The column that says whose data it is: each subject has a key of its own in the key store.
        subject: Option<String>,
        /// Additional authenticated data of the ciphertext; readers must give the same text.
        aad: Option<String>,
        /// How the column holds ciphertext: `base64` (default, a string column) or `binary`, which is cheaper to write and takes
        /// as little space.
        encoding: Option<EncodingYaml>,
    }
    /// What happens when data and table differ.
    struct ContractYaml {
        /// A field that no column takes (default `ignore`). Only the default is supported yet.
        new_column: Option<NewColumn>,
        /// A column that the pipeline no longer has (default `keep`). Only the default is supported yet.
        removed_column: Option<RemovedColumn>,
        /// A column whose type changed (default `fail`). Only the default is supported yet.
        type_change: Option<TypeChange>,
        /// A value that does not fit its column (default `quarantine`). Only the default is supported yet.
        incompatible: Option<Incompatible>,
    }
    /// A window over event time.
    struct StreamYaml {
        /// Name.
        #[schemars(required)]
        name: Option<String>,
        /// Names of the events that go in; absent is all.
        events: Option<Vec<String>>,
        /// The window.
        #[schemars(required)]
        window: Option<WindowYaml>,
        /// JSON paths of the key.
        key_by: Option<Vec<String>>,
        /// What is computed.
        #[schemars(required, with = "Vec<AggregateYaml>")]
        aggregate: Option<Vec<Option<AggregateYaml>>>,
        /// How long a window waits for late records.
        late: Option<String>,
        /// Whether results are sent once or updated.
        emit: Option<Emit>,
        /// Where results go.
        #[schemars(required)]
        to: Option<StreamTargetYaml>,
    }
    /// Windows side by side.
    struct TumblingYaml {
        /// Length.
        #[schemars(required)]
        size: Option<String>,
    }
    /// Windows that overlap.
    struct HoppingYaml {
        /// Length.
        #[schemars(required)]
        size: Option<String>,
        /// Distance of the starts.
        #[schemars(required)]
        every: Option<String>,
    }
    /// Windows that end after a pause.
    struct SessionYaml {
        /// The pause.
        #[schemars(required)]
        gap: Option<String>,
    }
    /// An aggregation.
    struct AggregateYaml {
        /// Function.
        #[schemars(required)]
        function: Option<AggregateFunction>,
        /// JSON path of its input; none for `count`.
        path: Option<String>,
        /// Name of the result.
        #[schemars(required)]
        r#as: Option<String>,
    }
    /// Where a stream's results go.
    struct StreamTargetYaml {
        /// A cluster of firn.yaml.
        #[schemars(required)]
        cluster: Option<String>,
        /// The topic.
        #[schemars(required)]
        topic: Option<String>,
    }
}

words! {
    /// Format of the payload.
    enum PayloadFormatYaml { Json, Debezium, Dynamodb, Avro, Protobuf, }
    /// What becomes of records later than allowed.
    enum LateThenYaml { Accept, SideTable, Quarantine, }
    /// Where personal data is protected: on its way into tables, or before anything is uploaded to the raw zone.
    enum ProtectAt { Conversion, Landing, }
    /// File format of a table.
    enum FileFormat { Parquet, }
    /// A guard for Athena.
    enum AthenaGuardYaml { FormatVersion, Types, }
    /// How runs change a table.
    enum ModeYaml { Append, Upsert, TruncateLoad, }
    /// How an upsert changes files.
    enum WriteStrategyYaml { CopyOnWrite, MergeOnRead, }
    /// How delete files name rows.
    enum DeleteFilesYaml { Position, Equality, }
    /// How a column is protected.
    enum ProtectYaml { Encrypt, Token, Hash, Mask, Drop, Redact, Keep, }
    /// How a column holds ciphertext.
    enum EncodingYaml { Base64, Binary, }
    /// What happens to a field that no column takes.
    enum NewColumn { Ignore, Evolve, Capture, Fail, }
    /// What happens to a column that the pipeline no longer has.
    enum RemovedColumn { Keep, Drop, Fail, }
    /// What happens to a column whose type changed.
    enum TypeChange { Fail, Widen, NewColumn, Stringify, }
    /// What happens to a value that does not fit its column.
    enum Incompatible { Quarantine, Fail, }
    /// Whether results are sent once or updated.
    enum Emit { Final, Updates, }
    /// Aggregation function.
    enum AggregateFunction { Count, Sum, Min, Max, Avg, Distinct, First, Last, }
}

/// A topic, a list of topics, or a pattern.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum TopicYaml {
    /// A topic.
    One(String),
    /// Several topics.
    Many(Vec<String>),
    /// Topics by pattern.
    Pattern(TopicPatternYaml),
}

/// Which incarnation of a topic, or of each.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum GenerationYaml {
    /// Of the only topic.
    One(NonZeroU32),
    /// By topic; the first one of those that are not named.
    Each(BTreeMap<String, NonZeroU32>),
}

/// Where the event time is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum EventTimeYaml {
    /// `kafkaTimestamp`.
    Word(String),
    /// A field of the payload.
    Field(EventTimeFieldYaml),
}

/// A window over event time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::config) enum WindowYaml {
    /// Windows side by side.
    Tumbling(TumblingYaml),
    /// Windows that overlap.
    Hopping(HoppingYaml),
    /// Windows that end after a pause.
    Session(SessionYaml),
}

/// A step: one key, which names its function, and the arguments. What functions there are is known to
/// [`crate::functions`], which also describes them in the schema.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct StepYaml(
    pub(in crate::config) BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
);

impl JsonSchema for StepYaml {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StepYaml".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
}
