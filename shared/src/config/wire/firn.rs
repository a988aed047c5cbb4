//! `firn.yaml`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{AccessYaml, MaintenanceYaml, wire, words};

wire! {
    /// A deployment: where Kafka, the raw zone, the catalog and the tables are.
    struct FirnYaml {
        /// Kafka clusters by name.
        #[schemars(required)]
        clusters: Option<BTreeMap<String, Option<ClusterYaml>>>,
        /// Where raw objects, manifests and quarantine go: `s3://bucket/prefix`, `file:///dir`, or a directory relative to this file.
        #[schemars(required)]
        raw: Option<String>,
        /// Access to S3.
        s3: Option<S3Yaml>,
        /// The Iceberg catalog.
        #[schemars(required)]
        catalog: Option<CatalogYaml>,
        /// Where tables without `s3Location` go, as `{warehouse}/{database}/{table}`.
        #[schemars(required)]
        warehouse: Option<String>,
        /// Settings of the landing daemon.
        landing: Option<LandingYaml>,
        /// Settings of the compactor.
        compactor: Option<CompactorYaml>,
        /// Schema registry. Not supported yet.
        registry: Option<RegistryYaml>,
        /// Access to AWS KMS.
        kms: Option<KmsYaml>,
        /// Keys that protect personal data, by name: lower-case letters, digits and `_`.
        keys: Option<BTreeMap<String, Option<KeyYaml>>>,
        /// Who reads what: roles that become grants of AWS Lake Formation.
        access: Option<AccessYaml>,
        /// WebAssembly plug-ins by name: lower-case letters, digits and `_`. Steps call their functions as `name.function`.
        plugins: Option<BTreeMap<String, Option<PluginYaml>>>,
        /// Logs.
        telemetry: Option<TelemetryYaml>,
    }
    /// A Kafka cluster: `brokers` or `r53`.
    struct ClusterYaml {
        /// Bootstrap brokers as `host:port`, a list or one text with commas.
        brokers: Option<OneOrMany>,
        /// A DNS name (Route 53) that resolves to the brokers.
        r53: Option<R53Yaml>,
        /// Encryption and login.
        security: Option<SecurityYaml>,
        /// Further librdkafka properties, passed on as they are.
        properties: Option<BTreeMap<String, String>>,
    }
    /// A DNS name and the port that every broker behind it listens on.
    struct R53Yaml {
        /// The name.
        #[schemars(required)]
        name: Option<String>,
        /// The port.
        #[schemars(required, range(min = 1))]
        port: Option<u16>,
    }
    /// Encryption and login of a cluster.
    struct SecurityYaml {
        /// How connections are made.
        #[schemars(required)]
        protocol: Option<Protocol>,
        /// How the client proves who it is. `awsMskIam` and `oauthBearer` are not supported yet.
        mechanism: Option<Mechanism>,
        /// User name for SASL.
        username: Option<String>,
        /// Password for SASL.
        password: Option<String>,
        /// File of certificate authorities, PEM.
        ca_file: Option<String>,
        /// The client's certificate, PEM.
        cert_file: Option<String>,
        /// The client's private key, PEM.
        key_file: Option<String>,
        /// Password of the private key.
        key_password: Option<String>,
    }
    /// Access to S3; without keys, the default credential chain of AWS.
    struct S3Yaml {
        /// Another endpoint than AWS's, for emulators.
        endpoint: Option<String>,
        /// Region; else from the environment.
        region: Option<String>,
        /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.
        path_style: Option<bool>,
        /// Static access key; needs `secretAccessKey`.
        access_key_id: Option<String>,
        /// Secret of the static access key.
        secret_access_key: Option<String>,
        /// Server-side encryption with this KMS key.
        sse_kms_key_id: Option<String>,
    }
    /// A SQLite file, for one machine.
    struct SqliteYaml {
        /// The file, relative to this one.
        #[schemars(required)]
        path: Option<String>,
        /// The catalog's name inside it (default `firn`).
        name: Option<String>,
    }
    /// AWS Glue.
    struct GlueYaml {
        /// Another endpoint than AWS's, for emulators.
        endpoint: Option<String>,
        /// Region; else from the environment.
        region: Option<String>,
        /// Another account's catalog.
        catalog_id: Option<String>,
        /// Static access key; needs `secretAccessKey`.
        access_key_id: Option<String>,
        /// Secret of the static access key.
        secret_access_key: Option<String>,
    }
    /// An Iceberg REST catalog.
    struct RestYaml {
        /// Base URI, without `/v1`.
        #[schemars(required)]
        uri: Option<String>,
        /// The warehouse to ask for.
        warehouse: Option<String>,
        /// OAuth2 `client:secret`.
        credential: Option<String>,
        /// A bearer token.
        token: Option<String>,
        /// OAuth2 scope.
        scope: Option<String>,
    }
    /// Settings of the landing daemon.
    struct LandingYaml {
        /// Bound of the whole process (default 512MB), records on their way included.
        memory: Option<String>,
        /// Kafka consumer groups are `{groupPrefix}{pipeline}` (default `firn-`).
        group_prefix: Option<String>,
        /// Address of /metrics, /healthz and /readyz, such as `0.0.0.0:9464`; absent is off.
        listen: Option<String>,
        /// How long after SIGTERM what has been read may still be written (default 30s).
        drain: Option<String>,
    }
    /// Settings of the compactor.
    struct CompactorYaml {
        /// Bound of the whole process (default 512MB).
        memory: Option<String>,
        /// Worker threads; 0 is the number of processors (default).
        threads: Option<u32>,
        /// Local directory for spilled data, relative to this file (default: the system's).
        temp_dir: Option<String>,
        /// A run over more raw records than this, uncompressed, is cut into several commits (default 64GB).
        commit_size: Option<String>,
        /// Where upserts keep the deletes that they remember, as `{deleteMemoryLocation}/{database}.{table}-{table uuid}/`, for
        /// tables in buckets that take nothing beside a table (default `{table location}_deletes/`).
        delete_memory_location: Option<String>,
        /// How tables are maintained that do not say otherwise.
        maintenance: Option<MaintenanceYaml>,
    }
    /// A Confluent-compatible schema registry.
    struct RegistryYaml {
        /// Its URL.
        #[schemars(required)]
        url: Option<String>,
        /// User name.
        username: Option<String>,
        /// Password.
        password: Option<String>,
    }
    /// Access to AWS KMS; without keys, the default credential chain of AWS.
    struct KmsYaml {
        /// Another endpoint than AWS's, for emulators.
        endpoint: Option<String>,
        /// Region; else from the environment.
        region: Option<String>,
        /// Static access key; needs `secretAccessKey`.
        access_key_id: Option<String>,
        /// Secret of the static access key.
        secret_access_key: Option<String>,
    }
    /// A key that protects personal data: `kms` or `file`. One key is one domain: tokens under it are equal everywhere.
    struct KeyYaml {
        /// A KMS key id, ARN or alias, which wraps the data keys.
        kms: Option<String>,
        /// A key ring: a file that nobody else may read, with the versions of this key under its name.
        file: Option<String>,
        /// Where wrapped keys are kept (default `{warehouse}/_keys`).
        store: Option<String>,
        /// Encryption context for KMS, besides ours.
        context: Option<BTreeMap<String, String>>,
        /// When a data key from KMS is followed by a new one.
        reuse: Option<ReuseYaml>,
    }
    /// When a data key from KMS is followed by a new one.
    struct ReuseYaml {
        /// At this age (default 1d).
        age: Option<String>,
        /// When one process has sealed so many values with it (default 16777216).
        #[schemars(range(min = 1, max = 4_294_967_296_u64))]
        values: Option<u64>,
        /// When one process has sealed so many bytes with it (default 64GiB).
        bytes: Option<String>,
    }
    /// A WebAssembly plug-in.
    struct PluginYaml {
        /// The file: `s3://bucket/key`, `file:///file`, or a file relative to this one.
        #[schemars(required)]
        path: Option<String>,
        /// SHA-256 of the file, hexadecimal. Needed; where it is missing, `compactor check` says what it is.
        sha256: Option<String>,
        /// Upper bound of the memory of a call (default 64MB).
        memory: Option<String>,
        /// Fuel for each row of a call; an instruction takes about one (default 100000).
        #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
        fuel_per_row: Option<u64>,
    }
    /// Logs.
    struct TelemetryYaml {
        /// Filter such as `info,firn_landing=debug` (default `info`); the environment variable `FIRN_LOG` wins.
        log: Option<String>,
        /// How events are written (default `text`).
        format: Option<LogFormatYaml>,
    }
}

words! {
    /// How connections are made.
    enum Protocol {
        Plaintext,
        Ssl,
        SaslPlaintext,
        SaslSsl,
    }
    /// SASL mechanism.
    enum Mechanism {
        Plain,
        ScramSha256,
        ScramSha512,
        AwsMskIam,
        OauthBearer,
    }
    /// How log events are written.
    enum LogFormatYaml {
        Text,
        Json,
    }
}

/// Which catalog holds the tables.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::config) enum CatalogYaml {
    /// A SQLite file with the tables of Iceberg's JDBC catalog.
    Sqlite(SqliteYaml),
    /// AWS Glue.
    Glue(GlueYaml),
    /// The Iceberg REST protocol.
    Rest(RestYaml),
}

/// One text or a list of them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Key material as text: not printable, wiped when dropped.
#[derive(Clone)]
pub(in crate::config) struct Material(Zeroizing<String>);

impl Material {
    /// The text, for the one call that needs it.
    pub(in crate::config) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Material {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl Serialize for Material {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

wire! {
    /// A key ring.
    struct RingYaml {
        /// Keys by the names they have in firn.yaml.
        #[schemars(required)]
        keys: Option<BTreeMap<String, Option<RingKeyYaml>>>,
        /// Seed of the Ed25519 key that signs certificates of erasure: base64 of 32 bytes.
        #[schemars(with = "Option<String>")]
        signing: Option<Material>,
    }
    /// A key of a ring.
    struct RingKeyYaml {
        /// Versions by number, each base64 of 32 bytes; the largest number seals, the others open what they sealed.
        #[schemars(required)]
        #[schemars(with = "Option<BTreeMap<String, String>>")]
        versions: Option<BTreeMap<String, Material>>,
        /// The secret behind tokens and hashes: base64 of 32 bytes. It never changes.
        #[schemars(with = "Option<String>")]
        token: Option<Material>,
    }
}
