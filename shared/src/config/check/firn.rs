//! `firn.yaml` to a [`Deployment`].

use std::collections::BTreeMap;

use super::File;
use super::maintenance::maintenance;
use crate::config::domain::{
    Brokers, Catalog, Cluster, CompactorOptions, Deployment, LandingOptions, LogFormat, S3Options, Secret, StoreUrl,
    TelemetryOptions,
};
use crate::config::grammar::tidy;
use crate::config::shape::join;
use crate::config::units::{ByteSize, Period};
use crate::config::wire::{
    CatalogYaml, ClusterYaml, CompactorYaml, FirnYaml, LandingYaml, LogFormatYaml, Mechanism, OneOrMany, Protocol,
    S3Yaml, SecurityYaml, TelemetryYaml,
};
use crate::functions::Functions;
use crate::ids::ClusterName;
use crate::telemetry::parse_filter;

/// The least memory a program can work with, bytes.
const MEMORY_MIN: u64 = 64 << 20;

const FROM_MEMORY: &str = "landing derives it from landing.memory";

/// librdkafka properties that landing sets itself, and why nobody else may.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "write `brokers` or `r53`"),
    ("metadata.broker.list", "write `brokers` or `r53`"),
    ("group.id", "landing names its groups, see landing.groupPrefix"),
    ("enable.auto.commit", "landing commits offsets after the manifest"),
    ("enable.auto.offset.store", "landing commits offsets after the manifest"),
    ("auto.offset.reset", "positions come from the manifest chain"),
    ("isolation.level", "landing reads committed records only"),
    ("partition.assignment.strategy", "landing uses cooperative-sticky"),
    ("allow.auto.create.topics", "landing makes no topics: that there is none is an answer"),
    ("group.instance.id", "every consumer of every daemon would have the same, and each would put the others out"),
    ("queued.max.messages.kbytes", FROM_MEMORY),
    ("fetch.message.max.bytes", FROM_MEMORY),
    ("max.partition.fetch.bytes", FROM_MEMORY),
    ("fetch.max.bytes", FROM_MEMORY),
    ("message.max.bytes", FROM_MEMORY),
    ("receive.message.max.bytes", "landing takes records of any size, and refuses those above maxRecordSize"),
    ("security.protocol", "write it under `security`"),
    ("sasl.mechanism", "write it under `security`"),
    ("sasl.mechanisms", "write it under `security`"),
    ("sasl.username", "write it under `security`"),
    ("sasl.password", "write it under `security`, where it is kept secret"),
    ("ssl.key.password", "write it under `security`, where it is kept secret"),
];

/// The names of the clusters, broken ones too; the deployment if all of it could be built; `functions` with those of the
/// plug-ins.
pub(in crate::config) fn deployment(
    file: &File,
    yaml: &FirnYaml,
    functions: Functions,
) -> (Vec<String>, Option<Deployment>, Functions) {
    let names = yaml.clusters.iter().flatten().map(|(name, _)| name.clone()).collect();
    let parts = (
        clusters(file, yaml),
        store(file, "raw", yaml.raw.as_ref()),
        s3(file, yaml.s3.as_ref()),
        catalog(file, yaml.catalog.as_ref()),
        store(file, "warehouse", yaml.warehouse.as_ref()),
        landing(file, &yaml.landing.clone().unwrap_or_default()),
        compactor(file, &yaml.compactor.clone().unwrap_or_default()),
        telemetry(file, &yaml.telemetry.clone().unwrap_or_default()),
        super::keys::keys(file, yaml),
        super::plugins::plugins(file, yaml),
    );
    let functions = super::plugins::load(file, yaml, (parts.9.as_deref(), parts.2.as_ref()), functions);
    file.refuse(yaml.registry.as_ref(), "registry", "a schema registry");
    if let (Some(raw), Some(warehouse)) = (&parts.1, &parts.4)
        && raw == warehouse
    {
        file.report("warehouse", "is the same place as `raw`; tables and raw objects need places of their own");
    }
    if let (Some(raw), Some(compactor)) = (&parts.1, &parts.6)
        && compactor.delete_memory_location.as_ref() == Some(raw)
    {
        file.report("compactor.deleteMemoryLocation", "is the same place as `raw`; name one of its own");
    }
    let access = super::access::access(file, yaml.access.as_ref(), yaml.catalog.as_ref());
    let deployment = match parts {
        (
            Some(clusters),
            Some(raw),
            Some(s3),
            Some(catalog),
            Some(warehouse),
            Some(landing),
            Some(compactor),
            Some(telemetry),
            Some((kms, keys)),
            Some(plugins),
        ) => Some(Deployment {
            clusters,
            raw,
            s3,
            catalog,
            warehouse,
            kms,
            keys,
            plugins,
            landing,
            compactor,
            access,
            telemetry,
        }),
        _ => None,
    };
    (names, deployment, functions)
}

pub(super) fn store(file: &File, path: &str, text: Option<&String>) -> Option<StoreUrl> {
    file.take(path, StoreUrl::parse(text?, file.folder()))
}

fn clusters(file: &File, yaml: &FirnYaml) -> Option<BTreeMap<ClusterName, Cluster>> {
    let mut out = BTreeMap::new();
    let mut whole = true;
    for (name, yaml) in yaml.clusters.as_ref()? {
        let path = join("clusters", name);
        let name = file.take(&path, ClusterName::new(name.clone()));
        if yaml.is_none() && !file.is_cut(&path) {
            file.report(&path, "expected a mapping with `brokers` or `r53`, found nothing");
        }
        match (name, yaml.as_ref().and_then(|yaml| cluster(file, &path, yaml))) {
            (Some(name), Some(cluster)) => {
                out.insert(name, cluster);
            }
            _ => whole = false,
        }
    }
    whole.then_some(out)
}

fn cluster(file: &File, path: &str, yaml: &ClusterYaml) -> Option<Cluster> {
    let brokers = match (&yaml.brokers, &yaml.r53) {
        (Some(_), Some(_)) => {
            file.report(path, "has both `brokers` and `r53`; keep one");
            None
        }
        (Some(brokers), None) => broker_list(file, &join(path, "brokers"), brokers),
        (None, Some(r53)) => r53.name.clone().zip(r53.port).map(|(name, port)| Brokers::Dns { name, port }),
        (None, None) => {
            if !file.is_cut(&join(path, "brokers")) && !file.is_cut(&join(path, "r53")) {
                file.report(path, "needs `brokers` or `r53`");
            }
            None
        }
    };
    let properties = yaml.properties.clone().unwrap_or_default();
    for name in properties.keys() {
        if let Some((_, reason)) = OWNED.iter().find(|(owned, _)| owned == name) {
            file.report(&join(&join(path, "properties"), name), format!("cannot be set here: {reason}"));
        }
    }
    let security = match &yaml.security {
        Some(security) => self::security(file, &join(path, "security"), security),
        None => Some(BTreeMap::new()),
    };
    Some(Cluster { brokers: brokers?, security: security?, properties })
}

fn broker_list(file: &File, path: &str, yaml: &OneOrMany) -> Option<Brokers> {
    let list: Vec<(String, String)> = match yaml {
        OneOrMany::One(text) => text.split(',').map(|one| (path.to_owned(), one.trim().to_owned())).collect(),
        OneOrMany::Many(many) => {
            many.iter().enumerate().map(|(i, one)| (format!("{path}[{i}]"), one.clone())).collect()
        }
    };
    if list.is_empty() {
        file.report(path, "must not be empty");
        return None;
    }
    let mut whole = true;
    for (path, broker) in &list {
        let fits = broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !fits {
            file.report(path, format!("`{broker}` is not `host:port`"));
            whole = false;
        }
    }
    whole.then(|| Brokers::List(list.into_iter().map(|(_, broker)| broker).collect()))
}

fn security(file: &File, path: &str, yaml: &SecurityYaml) -> Option<BTreeMap<String, Secret>> {
    let protocol = yaml.protocol?;
    let sasl = matches!(protocol, Protocol::SaslPlaintext | Protocol::SaslSsl);
    let ssl = matches!(protocol, Protocol::Ssl | Protocol::SaslSsl);
    let mut out = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        out.insert(name.to_owned(), Secret::new(value));
    };
    set(
        "security.protocol",
        match protocol {
            Protocol::Plaintext => "plaintext",
            Protocol::Ssl => "ssl",
            Protocol::SaslPlaintext => "sasl_plaintext",
            Protocol::SaslSsl => "sasl_ssl",
        },
    );
    match yaml.mechanism {
        Some(Mechanism::AwsMskIam) => file.unsupported(&join(path, "mechanism"), "login with AWS IAM"),
        Some(Mechanism::OauthBearer) => file.unsupported(&join(path, "mechanism"), "login with OAuth"),
        Some(Mechanism::Plain) => set("sasl.mechanism", "PLAIN"),
        Some(Mechanism::ScramSha256) => set("sasl.mechanism", "SCRAM-SHA-256"),
        Some(Mechanism::ScramSha512) => set("sasl.mechanism", "SCRAM-SHA-512"),
        None => {}
    }
    let for_sasl = [
        ("mechanism", yaml.mechanism.is_some(), true),
        ("username", yaml.username.is_some(), true),
        ("password", yaml.password.is_some(), true),
    ];
    let for_ssl = [
        ("caFile", yaml.ca_file.is_some(), false),
        ("certFile", yaml.cert_file.is_some(), false),
        ("keyFile", yaml.key_file.is_some(), false),
        ("keyPassword", yaml.key_password.is_some(), false),
    ];
    for (on, what, keys) in [(sasl, "SASL", &for_sasl[..]), (ssl, "TLS", &for_ssl[..])] {
        for (key, given, needed) in keys {
            let path = join(path, key);
            if on && *needed && !given && !file.is_cut(&path) {
                file.report(&path, "missing: the protocol needs it");
            }
            if !on && *given {
                file.report(&path, format!("the protocol does not use {what}"));
            }
        }
    }
    if yaml.cert_file.is_some() != yaml.key_file.is_some()
        && !file.is_cut(&join(path, "certFile"))
        && !file.is_cut(&join(path, "keyFile"))
    {
        file.report(path, "needs both `certFile` and `keyFile`, or neither");
    }
    let local = |text: &String| tidy(&file.folder().join(text)).to_string_lossy().into_owned();
    for (name, value) in [
        ("sasl.username", yaml.username.clone()),
        ("sasl.password", yaml.password.clone()),
        ("ssl.ca.location", yaml.ca_file.as_ref().map(local)),
        ("ssl.certificate.location", yaml.cert_file.as_ref().map(local)),
        ("ssl.key.location", yaml.key_file.as_ref().map(local)),
        ("ssl.key.password", yaml.key_password.clone()),
    ] {
        if let Some(value) = value {
            set(name, &value);
        }
    }
    Some(out)
}

/// A static key pair: both, or neither; the outer `None` only after a report.
#[allow(clippy::option_option, reason = "`None` outside is a reported mistake, inside it is `not given`")]
pub(super) fn credentials(
    file: &File,
    path: &str,
    id: Option<&String>,
    secret: Option<&String>,
) -> Option<Option<(String, Secret)>> {
    match (id, secret) {
        (None, None) => Some(None),
        (Some(id), Some(secret)) => Some(Some((id.clone(), Secret::new(secret.clone())))),
        _ => {
            if !file.is_cut(&join(path, "accessKeyId")) && !file.is_cut(&join(path, "secretAccessKey")) {
                file.report(path, "needs both `accessKeyId` and `secretAccessKey`, or neither");
            }
            None
        }
    }
}

/// Reports an address that is not `http://…` or `https://…`.
pub(super) fn url(file: &File, path: &str, text: Option<&String>) {
    if let Some(text) = text
        && text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).is_none_or(str::is_empty)
    {
        file.report(path, format!("`{text}` is not an address such as `https://host:port`"));
    }
}

fn s3(file: &File, yaml: Option<&S3Yaml>) -> Option<S3Options> {
    let Some(yaml) = yaml else { return Some(S3Options::default()) };
    url(file, "s3.endpoint", yaml.endpoint.as_ref());
    Some(S3Options {
        endpoint: yaml.endpoint.clone(),
        region: yaml.region.clone(),
        path_style: yaml.path_style.unwrap_or_default(),
        credentials: credentials(file, "s3", yaml.access_key_id.as_ref(), yaml.secret_access_key.as_ref())?,
        sse_kms_key_id: yaml.sse_kms_key_id.clone(),
    })
}

fn catalog(file: &File, yaml: Option<&CatalogYaml>) -> Option<Catalog> {
    match yaml? {
        CatalogYaml::Sqlite(yaml) => Some(Catalog::Sqlite {
            path: tidy(&file.folder().join(yaml.path.as_ref()?)),
            name: yaml.name.clone().unwrap_or_else(|| "firn".to_owned()),
        }),
        CatalogYaml::Glue(yaml) => {
            url(file, "catalog.glue.endpoint", yaml.endpoint.as_ref());
            let credentials =
                credentials(file, "catalog.glue", yaml.access_key_id.as_ref(), yaml.secret_access_key.as_ref())?;
            let (endpoint, region, catalog_id) = (yaml.endpoint.clone(), yaml.region.clone(), yaml.catalog_id.clone());
            Some(Catalog::Glue { endpoint, region, catalog_id, credentials })
        }
        CatalogYaml::Rest(yaml) => {
            url(file, "catalog.rest.uri", yaml.uri.as_ref());
            if yaml.credential.is_some() && yaml.token.is_some() {
                file.report("catalog.rest", "has both `credential` and `token`; keep one");
            }
            Some(Catalog::Rest {
                uri: yaml.uri.as_ref()?.trim_end_matches('/').to_owned(),
                warehouse: yaml.warehouse.clone(),
                credential: yaml.credential.clone().map(Secret::new),
                token: yaml.token.clone().map(Secret::new),
                scope: yaml.scope.clone(),
            })
        }
    }
}

fn memory(file: &File, path: &str, text: Option<&String>, default: u64) -> Option<u64> {
    let size = file.parse_or(path, text, ByteSize(default))?;
    if size.0 < MEMORY_MIN {
        file.report(path, format!("must be at least {}", ByteSize(MEMORY_MIN)));
    }
    Some(size.0)
}

fn landing(file: &File, yaml: &LandingYaml) -> Option<LandingOptions> {
    let default = LandingOptions::default();
    if let Some(listen) = &yaml.listen
        && listen.parse::<std::net::SocketAddr>().is_err()
    {
        file.report("landing.listen", format!("`{listen}` is not an address such as `0.0.0.0:9464`"));
    }
    let memory = memory(file, "landing.memory", yaml.memory.as_ref(), default.memory);
    let drain = file.parse_or("landing.drain", yaml.drain.as_ref(), Period(default.drain));
    Some(LandingOptions {
        memory: memory?,
        group_prefix: yaml.group_prefix.clone().unwrap_or(default.group_prefix),
        listen: yaml.listen.clone(),
        drain: drain?.0,
    })
}

fn compactor(file: &File, yaml: &CompactorYaml) -> Option<CompactorOptions> {
    let default = CompactorOptions::default();
    let memory = memory(file, "compactor.memory", yaml.memory.as_ref(), default.memory);
    let commit_size = file.parse_or("compactor.commitSize", yaml.commit_size.as_ref(), ByteSize(default.commit_size));
    if commit_size.is_some_and(|size| size.0 == 0) {
        file.report("compactor.commitSize", "must be more than nothing");
    }
    let delete_memory_location = match &yaml.delete_memory_location {
        Some(_) => Some(store(file, "compactor.deleteMemoryLocation", yaml.delete_memory_location.as_ref())?),
        None => default.delete_memory_location,
    };
    Some(CompactorOptions {
        memory: memory?,
        commit_size: commit_size?.0,
        delete_memory_location,
        threads: yaml.threads.map_or(default.threads, |threads| threads as usize),
        temp_dir: yaml.temp_dir.as_ref().map_or(default.temp_dir, |text| tidy(&file.folder().join(text))),
        maintenance: maintenance(file, "compactor.maintenance", yaml.maintenance.as_ref())?,
    })
}

fn telemetry(file: &File, yaml: &TelemetryYaml) -> Option<TelemetryOptions> {
    let default = TelemetryOptions::default();
    let log = yaml.log.clone().unwrap_or(default.log);
    file.take("telemetry.log", parse_filter(&log))?;
    let format = match yaml.format {
        Some(LogFormatYaml::Json) => LogFormat::Json,
        Some(LogFormatYaml::Text) => LogFormat::Text,
        None => default.format,
    };
    Some(TelemetryOptions { log, format })
}
