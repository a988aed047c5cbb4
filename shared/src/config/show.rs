//! The effective configuration as YAML: `${ENV}` replaced, defaults filled in, secrets masked.
//!
//! It is written in the words of the files, one document for `firn.yaml` and one for each pipeline; a secret is `***`.

use std::num::NonZeroU32;

use super::domain::{
    AthenaGuard, Brokers, Catalog, Cluster, Column, Config, DeleteFiles, Deployment, EventTime, Ingestion, JsonPath,
    LateThen, LogFormat, MaintenanceOptions, Mode, Output, PayloadFormat, Pipeline, Secret, Step, Table, TopicSelector,
    WriteStrategy,
};
use super::plugin;
use super::show_keys;
use super::units::{ByteSize, Period};
use super::wire::{
    AthenaGuardYaml, AthenaYaml, CatalogYaml, ClusterYaml, ColumnYaml, CompactYaml, CompactorYaml, DeleteFilesYaml,
    EventTimeFieldYaml, EventTimeYaml, ExpireYaml, FirnYaml, GenerationYaml, GlueYaml, IncomingYaml, IngestionYaml,
    KafkaYaml, LandingYaml, LateThenYaml, LateYaml, LogFormatYaml, MaintenanceYaml, ManifestsYaml, Mechanism, ModeYaml,
    OneOrMany, OrphansYaml, OutputYaml, PayloadFormatYaml, PipelineYaml, ProtectAt, Protocol, R53Yaml, RawYaml,
    RestYaml, RotateYaml, S3Yaml, SecurityYaml, SqliteYaml, StepYaml, TableYaml, TelemetryYaml, TopicPatternYaml,
    TopicYaml, WhitelistYaml, WriteStrategyYaml,
};
use super::yaml;
use crate::ids::{ColumnName, Generation};

/// What stands in for a secret.
const MASK: &str = "***";

/// The effective configuration as YAML documents.
#[must_use]
pub fn show(config: &Config) -> String {
    let mut out = document("firn.yaml", &firn(&config.deployment));
    for pipeline in config.pipelines.values() {
        out.push_str("---\n");
        out.push_str(&document(&pipeline.file.display().to_string(), &self::pipeline(pipeline)));
    }
    out
}

fn document<T: serde::Serialize>(name: &str, value: &T) -> String {
    let body = yaml::write(value).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"));
    format!("# {name}\n{body}")
}

/// A value in the form of the files, where every value is optional.
#[allow(clippy::unnecessary_wraps, reason = "wire fields are optional")]
fn text<T: ToString + ?Sized>(value: &T) -> Option<String> {
    Some(value.to_string())
}

fn mask(secret: &Secret) -> String {
    if secret.expose().is_empty() { String::new() } else { MASK.to_owned() }
}

/// Key id and masked secret.
pub(super) fn keys(credentials: Option<&(String, Secret)>) -> (Option<String>, Option<String>) {
    credentials.map(|(id, secret)| (id.clone(), mask(secret))).unzip()
}

pub(super) fn firn(deployment: &Deployment) -> FirnYaml {
    let (access_key_id, secret_access_key) = keys(deployment.s3.credentials.as_ref());
    let (landing, compactor) = (&deployment.landing, &deployment.compactor);
    FirnYaml {
        clusters: Some(
            deployment.clusters.iter().map(|(name, yaml)| (name.to_string(), Some(cluster(yaml)))).collect(),
        ),
        raw: text(&deployment.raw),
        s3: Some(S3Yaml {
            endpoint: deployment.s3.endpoint.clone(),
            region: deployment.s3.region.clone(),
            path_style: Some(deployment.s3.path_style),
            access_key_id,
            secret_access_key,
            sse_kms_key_id: deployment.s3.sse_kms_key_id.clone(),
        }),
        catalog: Some(catalog(&deployment.catalog)),
        warehouse: text(&deployment.warehouse),
        landing: Some(LandingYaml {
            memory: text(&ByteSize(landing.memory)),
            group_prefix: Some(landing.group_prefix.clone()),
            listen: landing.listen.clone(),
            drain: text(&Period(landing.drain)),
        }),
        compactor: Some(CompactorYaml {
            memory: text(&ByteSize(compactor.memory)),
            threads: u32::try_from(compactor.threads).ok(),
            temp_dir: text(&compactor.temp_dir.display()),
            commit_size: text(&ByteSize(compactor.commit_size)),
            delete_memory_location: compactor.delete_memory_location.as_ref().map(ToString::to_string),
            maintenance: maintenance(&compactor.maintenance),
        }),
        registry: None,
        kms: (!deployment.keys.is_empty()).then(|| show_keys::kms(&deployment.kms)),
        keys: (!deployment.keys.is_empty()).then(|| show_keys::keys(&deployment.keys)),
        access: deployment.access.as_ref().map(super::access::show),
        plugins: (!deployment.plugins.is_empty()).then(|| plugin::show(&deployment.plugins)),
        telemetry: Some(TelemetryYaml {
            log: Some(deployment.telemetry.log.clone()),
            format: Some(match deployment.telemetry.format {
                LogFormat::Text => LogFormatYaml::Text,
                LogFormat::Json => LogFormatYaml::Json,
            }),
        }),
    }
}

fn cluster(cluster: &Cluster) -> ClusterYaml {
    let (brokers, r53) = match &cluster.brokers {
        Brokers::List(list) => (Some(OneOrMany::Many(list.clone())), None),
        Brokers::Dns { name, port } => (None, Some(R53Yaml { name: Some(name.clone()), port: Some(*port) })),
    };
    let open = |name: &str| cluster.security.get(name).map(|value| value.expose().to_owned());
    let masked = |name: &str| cluster.security.get(name).map(mask);
    let security = (!cluster.security.is_empty()).then(|| SecurityYaml {
        protocol: open("security.protocol").map(|protocol| match protocol.as_str() {
            "ssl" => Protocol::Ssl,
            "sasl_plaintext" => Protocol::SaslPlaintext,
            "sasl_ssl" => Protocol::SaslSsl,
            _ => Protocol::Plaintext,
        }),
        mechanism: open("sasl.mechanism").map(|mechanism| match mechanism.as_str() {
            "SCRAM-SHA-256" => Mechanism::ScramSha256,
            "SCRAM-SHA-512" => Mechanism::ScramSha512,
            _ => Mechanism::Plain,
        }),
        username: open("sasl.username"),
        password: masked("sasl.password"),
        ca_file: open("ssl.ca.location"),
        cert_file: open("ssl.certificate.location"),
        key_file: open("ssl.key.location"),
        key_password: masked("ssl.key.password"),
    });
    let properties = (!cluster.properties.is_empty()).then(|| {
        let secret = |name: &str| ["password", "secret", "token", "pem"].iter().any(|word| name.contains(word));
        let shown = |(name, value): (&String, &String)| {
            (name.clone(), if secret(name) { MASK.to_owned() } else { value.clone() })
        };
        cluster.properties.iter().map(shown).collect()
    });
    ClusterYaml { brokers, r53, security, properties }
}

fn catalog(catalog: &Catalog) -> CatalogYaml {
    match catalog {
        Catalog::Sqlite { path: file, name } => {
            CatalogYaml::Sqlite(SqliteYaml { path: text(&file.display()), name: Some(name.clone()) })
        }
        Catalog::Glue { endpoint, region, catalog_id, credentials } => {
            let (access_key_id, secret_access_key) = keys(credentials.as_ref());
            let (endpoint, region, catalog_id) = (endpoint.clone(), region.clone(), catalog_id.clone());
            CatalogYaml::Glue(GlueYaml { endpoint, region, catalog_id, access_key_id, secret_access_key })
        }
        Catalog::Rest { uri, warehouse, credential, token, scope } => CatalogYaml::Rest(RestYaml {
            uri: Some(uri.clone()),
            warehouse: warehouse.clone(),
            credential: credential.as_ref().map(mask),
            token: token.as_ref().map(mask),
            scope: scope.clone(),
        }),
    }
}

pub(super) fn pipeline(pipeline: &Pipeline) -> PipelineYaml {
    PipelineYaml {
        name: text(&pipeline.name),
        ingestion_unit: Some(ingestion(&pipeline.ingestion)),
        outsourcing_unit: Some(pipeline.outputs.iter().map(|out| Some(output(out))).collect()),
        streams: None,
    }
}

fn generation(ingestion: &Ingestion) -> GenerationYaml {
    let number = |generation: Generation| NonZeroU32::new(generation.0).unwrap_or(NonZeroU32::MIN);
    let mut said = ingestion.generation.said().map(|(topic, generation)| (topic.to_string(), number(generation)));
    match &ingestion.topics {
        TopicSelector::List(list) if list.len() == 1 => GenerationYaml::One(number(ingestion.generation.of(&list[0]))),
        _ => match said.next() {
            None => GenerationYaml::One(NonZeroU32::MIN),
            Some(first) => GenerationYaml::Each([first].into_iter().chain(said).collect()),
        },
    }
}

fn ingestion(ingestion: &Ingestion) -> IngestionYaml {
    let topic = match &ingestion.topics {
        TopicSelector::List(list) => TopicYaml::Many(list.iter().map(ToString::to_string).collect()),
        TopicSelector::Pattern(pattern) => TopicYaml::Pattern(TopicPatternYaml { regex: Some(pattern.clone()) }),
    };
    let event_time = match &ingestion.event_time {
        EventTime::KafkaTimestamp => EventTimeYaml::Word("kafkaTimestamp".to_owned()),
        EventTime::Field { path, format } => {
            EventTimeYaml::Field(EventTimeFieldYaml { path: text(path), format: text(format) })
        }
    };
    let whitelist = ingestion.whitelist.as_ref().map(|whitelist| {
        whitelist
            .iter()
            .map(|(event, entry)| (event.clone(), Some(WhitelistYaml { subject: entry.subject.clone() })))
            .collect()
    });
    IngestionYaml {
        kafka: Some(KafkaYaml {
            cluster: text(&ingestion.cluster),
            topic: Some(topic),
            retention: ingestion.retention.and_then(|retention| text(&Period(retention))),
            number_of_consumers: u32::try_from(ingestion.consumers).ok(),
            generation: Some(generation(ingestion)),
        }),
        incoming_data: Some(IncomingYaml {
            format: Some(match ingestion.format {
                PayloadFormat::Json => PayloadFormatYaml::Json,
                PayloadFormat::Debezium => PayloadFormatYaml::Debezium,
                PayloadFormat::Dynamodb => PayloadFormatYaml::Dynamodb,
            }),
            event_name: ingestion.event_name.as_ref().and_then(text),
            event_time: Some(event_time),
            whitelist,
            late: Some(LateYaml {
                allowed: text(&Period(ingestion.late_allowed)),
                then: Some(match ingestion.late_then {
                    LateThen::Accept => LateThenYaml::Accept,
                    LateThen::Quarantine => LateThenYaml::Quarantine,
                }),
            }),
            max_record_size: text(&ByteSize(ingestion.max_record_bytes)),
        }),
        raw: Some(RawYaml {
            rotate: Some(RotateYaml {
                size: text(&ByteSize(ingestion.rotate_size)),
                age: text(&Period(ingestion.rotate_age)),
            }),
        }),
        protect_at: ingestion.protect_at_landing.then_some(ProtectAt::Landing),
    }
}

fn output(output: &Output) -> OutputYaml {
    let steps = output.transformations.iter().map(|step| Some(self::step(step))).collect::<Vec<_>>();
    OutputYaml {
        events: output.events.clone(),
        table: Some(table(&output.table)),
        transformations: (!steps.is_empty()).then_some(steps),
    }
}

fn table(table: &Table) -> TableYaml {
    let (mode, allow_empty) = match table.mode {
        Mode::Append => (ModeYaml::Append, None),
        Mode::Upsert(_) => (ModeYaml::Upsert, None),
        Mode::TruncateLoad { allow_empty } => (ModeYaml::TruncateLoad, Some(allow_empty)),
    };
    let upsert = table.mode.upsert();
    let names = |names: &[ColumnName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    TableYaml {
        database: text(&table.database),
        table_name: text(&table.name),
        s3_location: table.location.as_ref().and_then(text),
        mode: Some(mode),
        allow_empty,
        write_strategy: upsert.map(|u| match u.strategy {
            WriteStrategy::CopyOnWrite => WriteStrategyYaml::CopyOnWrite,
            WriteStrategy::MergeOnRead(_) => WriteStrategyYaml::MergeOnRead,
        }),
        delete_files: upsert.and_then(|u| match u.strategy {
            WriteStrategy::CopyOnWrite => None,
            WriteStrategy::MergeOnRead(DeleteFiles::Position) => Some(DeleteFilesYaml::Position),
            WriteStrategy::MergeOnRead(DeleteFiles::Equality) => Some(DeleteFilesYaml::Equality),
        }),
        id_columns: upsert.map(|u| names(&u.keys)),
        timestamp_columns: upsert.filter(|u| !u.versions.is_empty()).map(|u| names(&u.versions)),
        delete_memory: upsert.and_then(|u| text(&Period(u.delete_memory))),
        soft_delete: upsert.map(|u| u.soft_delete),
        pii_columns: (!table.protections.is_empty())
            .then(|| table.protections.iter().map(|p| Some(show_keys::protection(p))).collect()),
        partition_by: Some(table.partition_by.iter().map(ToString::to_string).collect()),
        sort_by: Some(table.sort_by.iter().map(ToString::to_string).collect()),
        columns: Some(table.columns.iter().map(|column| Some(self::column(column))).collect()),
        provenance: Some(table.provenance),
        quarantine_threshold: table.quarantine_threshold,
        athena: (!table.athena_allow.is_empty())
            .then(|| AthenaYaml { allow: Some(table.athena_allow.iter().copied().map(guard).collect()) }),
        properties: (!table.properties.is_empty()).then(|| table.properties.clone()),
        target_file_size: text(&ByteSize(table.target_file_size)),
        zstd_level: Some(table.zstd_level),
        maintenance: maintenance(&table.maintenance),
        ..TableYaml::default()
    }
}

/// Only what was said: the rest follows from other places.
fn maintenance(options: &MaintenanceOptions) -> Option<MaintenanceYaml> {
    let number = |count: Option<usize>| count.and_then(|count| u32::try_from(count).ok());
    let period = |period: Option<std::time::Duration>| period.and_then(|period| text(&Period(period)));
    (*options != MaintenanceOptions::default()).then(|| MaintenanceYaml {
        compact: Some(CompactYaml {
            smaller_than: options.small_file_bytes.and_then(|size| text(&ByteSize(size))),
            min_files: number(options.min_files),
            delete_share: options.delete_share,
        }),
        manifests: Some(ManifestsYaml { min_count: number(options.min_manifests) }),
        expire: Some(ExpireYaml { older_than: period(options.expire_after), keep_last: number(options.keep_last) }),
        orphans: Some(OrphansYaml { older_than: period(options.orphans_after), delete: options.delete_orphans }),
    })
}

fn guard(guard: AthenaGuard) -> AthenaGuardYaml {
    match guard {
        AthenaGuard::FormatVersion => AthenaGuardYaml::FormatVersion,
        AthenaGuard::Types => AthenaGuardYaml::Types,
    }
}

fn column(column: &Column) -> ColumnYaml {
    let own = column.path == JsonPath(vec![column.name.clone()]);
    ColumnYaml {
        name: Some(column.name.clone()),
        r#type: text(&column.r#type),
        path: if own { None } else { text(&column.path) },
        required: column.required.then_some(true),
        format: column.format.as_ref().and_then(text),
        doc: column.doc.clone(),
        was: None,
    }
}

fn step(step: &Step) -> StepYaml {
    StepYaml([(step.function.name.to_owned(), step.args.given().clone())].into())
}
