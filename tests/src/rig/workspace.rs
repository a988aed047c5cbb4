//! One test's deployment: its own directory, raw zone, catalog and tables, configured through the files an operator writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use firn_shared::config;
use firn_shared::store::{Depth, Store, Stores};
use serde_json::{Map, Value, json};

use super::kafka::{Kafka, block_on};
use super::procs::{Process, run_dir};
use super::programs::{self, Ended};
use super::readers::Access;
use super::s3::{Kind, REGION, S3Server};

/// Spark's way to a server's objects.
fn spark_s3(server: &S3Server) -> Vec<(String, String)> {
    let s3 = server.access();
    vec![
        ("io-impl".into(), "org.apache.iceberg.aws.s3.S3FileIO".into()),
        ("s3.endpoint".into(), s3.endpoint),
        ("s3.path-style-access".into(), "true".into()),
        ("s3.access-key-id".into(), s3.key),
        ("s3.secret-access-key".into(), s3.secret),
    ]
}

/// Trino's way to a server's objects.
fn trino_s3(server: &S3Server) -> Vec<(String, String)> {
    let s3 = server.access();
    vec![
        ("fs.native-s3.enabled".into(), "true".into()),
        ("s3.endpoint".into(), s3.endpoint),
        ("s3.region".into(), REGION.into()),
        ("s3.path-style-access".into(), "true".into()),
        ("s3.aws-access-key".into(), s3.key),
        ("s3.aws-secret-key".into(), s3.secret),
    ]
}

/// PyIceberg's way to a server's objects.
fn pyiceberg_s3(server: &S3Server) -> Map<String, Value> {
    let s3 = server.access();
    [
        ("s3.endpoint", s3.endpoint),
        ("s3.access-key-id", s3.key),
        ("s3.secret-access-key", s3.secret),
        ("s3.region", REGION.into()),
    ]
    .map(|(key, value)| (key.to_owned(), Value::from(value)))
    .into_iter()
    .collect()
}

/// A deployment on disk.
pub struct Workspace {
    dir: PathBuf,
    catalog: String,
    access: Access,
}

/// A pipeline for [`crate::rig::samples::tick`] events into `t.{table}`.
pub fn tick_pipeline(name: &str, topic: &str, table: &str) -> String {
    format!(
        r"name: {name}
ingestionUnit:
  kafka: {{cluster: events, topic: {topic}}}
  incomingData:
    format: json
    eventTime: {{path: $.at, format: rfc3339}}
  raw: {{rotate: {{size: 256KiB, age: 1s}}}}
outsourcingUnit:
  - table:
      database: t
      tableName: {table}
      partitionBy: [hour(at)]
      columns:
        - {{name: n, type: long, required: true}}
        - {{name: at, type: timestamptz, required: true}}
        - {{name: pad, type: string}}
"
    )
}

impl Workspace {
    /// Local files and a SQLite catalog in a directory named after the test.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn local(name: &str, kafka: &Kafka) -> Result<Self> {
        let dir = run_dir().join(name);
        let catalog = format!("firn_{}", name.replace('-', "_"));
        let database = dir.join("catalog.db");
        let warehouse = dir.join("warehouse");
        let access = Access {
            name: catalog.clone(),
            pyiceberg: json!({
                "type": "sql",
                "uri": format!("sqlite:///{}", database.display()),
                "init_catalog_tables": "false",
            }),
            spark: vec![
                ("catalog-impl".into(), "org.apache.iceberg.jdbc.JdbcCatalog".into()),
                ("uri".into(), format!("jdbc:sqlite:{}", database.display())),
                ("jdbc.schema-version".into(), "V1".into()),
                ("warehouse".into(), format!("file://{}", warehouse.display())),
            ],
            trino: vec![
                ("iceberg.catalog.type".into(), "jdbc".into()),
                ("iceberg.jdbc-catalog.driver-class".into(), "org.sqlite.JDBC".into()),
                ("iceberg.jdbc-catalog.connection-url".into(), format!("jdbc:sqlite:{}", database.display())),
                ("iceberg.jdbc-catalog.catalog-name".into(), catalog.clone()),
                ("iceberg.jdbc-catalog.schema-version".into(), "V1".into()),
                ("iceberg.jdbc-catalog.default-warehouse-dir".into(), format!("file://{}", warehouse.display())),
                ("fs.native-local.enabled".into(), "true".into()),
                ("local.location".into(), "/".into()),
            ],
            s3: None,
        };
        let yaml = format!(
            "raw: file://{0}/raw\nwarehouse: file://{0}/warehouse\ncatalog: {{sqlite: {{path: {0}/catalog.db, name: {catalog}}}}}\n",
            dir.display()
        );
        Self::with(dir, catalog, access, &yaml, kafka)
    }

    /// S3 and the Iceberg REST catalog of SeaweedFS.
    ///
    /// # Errors
    /// When the server does not do its part.
    pub fn seaweedfs(name: &str, kafka: &Kafka) -> Result<Self> {
        let server = S3Server::shared(Kind::SeaweedFs);
        block_on(server.bucket("raw"))?;
        let catalog = format!("firn_{}", name.replace('-', "_"));
        let (uri, credential) = (server.rest_catalog(), server.rest_credential());
        let mut spark = spark_s3(server);
        spark.extend([
            ("type".into(), "rest".into()),
            ("uri".into(), uri.clone()),
            ("warehouse".into(), "s3://lake".into()),
            ("credential".into(), credential.clone()),
            ("scope".into(), "catalog".into()),
        ]);
        let mut trino = trino_s3(server);
        trino.extend([
            ("iceberg.catalog.type".into(), "rest".into()),
            ("iceberg.rest-catalog.uri".into(), uri.clone()),
            ("iceberg.rest-catalog.warehouse".into(), "s3://lake".into()),
            ("iceberg.rest-catalog.security".into(), "OAUTH2".into()),
            ("iceberg.rest-catalog.oauth2.credential".into(), credential.clone()),
            ("iceberg.rest-catalog.oauth2.scope".into(), "catalog".into()),
            ("iceberg.rest-catalog.oauth2.server-uri".into(), format!("{uri}/v1/oauth/tokens")),
        ]);
        let mut pyiceberg = pyiceberg_s3(server);
        pyiceberg.extend([
            ("type".into(), json!("rest")),
            ("uri".into(), json!(uri)),
            ("warehouse".into(), json!("s3://lake")),
            ("credential".into(), json!(credential)),
        ]);
        let access =
            Access { name: catalog.clone(), pyiceberg: pyiceberg.into(), spark, trino, s3: Some(server.access()) };
        let yaml = format!(
            "{}raw: s3://raw/{name}\nwarehouse: s3://lake\n\
             catalog: {{rest: {{uri: '{uri}', warehouse: 's3://lake', credential: '{credential}'}}}}\n",
            server.options_yaml()
        );
        let workspace = Self::with(run_dir().join(name), catalog, access, &yaml, kafka)?;
        // The bucket of the tables takes nothing beside a table.
        let elsewhere = format!("threads: 2, deleteMemoryLocation: 's3://raw/{name}-deletes'");
        workspace.reconfigure("threads: 2", &elsewhere)?;
        Ok(workspace)
    }

    /// S3 and Glue of ministack.
    ///
    /// # Errors
    /// When the server does not do its part.
    pub fn glue(name: &str, kafka: &Kafka) -> Result<Self> {
        let server = S3Server::shared(Kind::Ministack);
        block_on(server.bucket("firn"))?;
        let catalog = format!("firn_{}", name.replace('-', "_"));
        let (endpoint, s3) = (server.endpoint(), server.access());
        let mut spark = spark_s3(server);
        spark.extend([
            ("catalog-impl".into(), "org.apache.iceberg.aws.glue.GlueCatalog".into()),
            ("glue.endpoint".into(), endpoint.clone()),
            ("client.region".into(), REGION.into()),
            ("warehouse".into(), format!("s3://firn/{name}/tables")),
        ]);
        let mut trino = trino_s3(server);
        trino.extend([
            ("iceberg.catalog.type".into(), "glue".into()),
            ("hive.metastore.glue.region".into(), REGION.into()),
            ("hive.metastore.glue.endpoint-url".into(), endpoint.clone()),
            ("hive.metastore.glue.aws-access-key".into(), s3.key.clone()),
            ("hive.metastore.glue.aws-secret-key".into(), s3.secret.clone()),
        ]);
        let mut pyiceberg = pyiceberg_s3(server);
        pyiceberg.extend([
            ("type".into(), json!("glue")),
            ("glue.endpoint".into(), json!(endpoint)),
            ("glue.region".into(), json!(REGION)),
            ("glue.access-key-id".into(), json!(s3.key)),
            ("glue.secret-access-key".into(), json!(s3.secret)),
        ]);
        let access = Access { name: catalog.clone(), pyiceberg: pyiceberg.into(), spark, trino, s3: Some(s3.clone()) };
        let yaml = format!(
            "{}raw: s3://firn/{name}/raw\nwarehouse: s3://firn/{name}/tables\n\
             catalog: {{glue: {{endpoint: '{endpoint}', region: {REGION}, accessKeyId: {}, secretAccessKey: {}}}}}\n",
            server.options_yaml(),
            s3.key,
            s3.secret
        );
        Self::with(run_dir().join(name), catalog, access, &yaml, kafka)
    }

    /// A deployment whose raw zone, warehouse and catalog (and `s3:` access) are given as YAML.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn with(dir: PathBuf, catalog: String, access: Access, yaml: &str, kafka: &Kafka) -> Result<Self> {
        fs::create_dir_all(dir.join("pipelines"))?;
        let workspace = Self { dir, catalog, access };
        // A short session: a killed member must not hold up the group for the usual 45 s.
        let clusters = format!(
            "clusters:\n  events:\n    brokers: '{}'\n    properties: {{session.timeout.ms: '3000', heartbeat.interval.ms: '500'}}\n",
            kafka.brokers()
        );
        let options = "landing: {memory: 64MiB}\ncompactor: {memory: 256MiB, threads: 2}\n";
        fs::write(workspace.dir.join("firn.yaml"), format!("{clusters}{yaml}{options}"))?;
        Ok(workspace)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its catalog's name.
    pub fn catalog(&self) -> &str {
        &self.catalog
    }

    /// How readers reach it.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Writes a pipeline file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pipeline(&self, name: &str, yaml: &str) -> Result<()> {
        Ok(fs::write(self.dir.join(format!("pipelines/{name}.yaml")), yaml)?)
    }

    /// Replaces text in `firn.yaml`.
    ///
    /// # Errors
    /// When it is not in it.
    pub fn reconfigure(&self, from: &str, to: &str) -> Result<()> {
        let path = self.dir.join("firn.yaml");
        let text = fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(from), "{from} is not in {text}");
        Ok(fs::write(path, text.replace(from, to))?)
    }

    /// A command's arguments followed by those that name this deployment.
    pub fn arguments(&self, command: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = command.iter().map(ToString::to_string).collect();
        for (flag, file) in [("--config", "firn.yaml"), ("--pipelines", "pipelines")] {
            all.extend([flag.to_owned(), self.dir.join(file).display().to_string()]);
        }
        all
    }

    /// The raw zone, wherever it is.
    async fn raw(&self) -> Result<Arc<dyn Store>> {
        let config = config::load(&self.dir.join("firn.yaml"), &[self.dir.join("pipelines")])
            .map_err(|problems| anyhow::anyhow!("{problems}"))?;
        Ok(Stores::new(config.deployment.s3).open(&config.deployment.raw).await?)
    }

    /// Shows every object of the raw zone whose key starts with `prefix`.
    async fn each(store: &dyn Store, prefix: &str, mut see: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut keys, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = store.list(prefix, after.as_deref(), Depth::All).await?;
            keys.extend(page.objects.into_iter().map(|object| object.key));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        for key in keys {
            see(&store.get(&key).await?)?;
        }
        Ok(())
    }

    /// Shows every manifest of a topic's generation.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub fn manifests(&self, topic: &str, generation: u32, mut see: impl FnMut(&Value)) -> Result<()> {
        block_on(async {
            let prefix = format!("events/{topic}/_batches/{generation}/");
            Self::each(&*self.raw().await?, &prefix, |body| {
                see(&serde_json::from_slice(body)?);
                Ok(())
            })
            .await
        })
    }

    /// What a partition of a topic's first generation says of its progress; null when it says nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn progress(&self, topic: &str, partition: u32) -> Result<Value> {
        block_on(async {
            let (mut said, prefix) = (Value::Null, format!("events/{topic}/_progress/1/{partition}.json"));
            Self::each(&*self.raw().await?, &prefix, |body| {
                said = serde_json::from_slice(body)?;
                Ok(())
            })
            .await?;
            Ok(said)
        })
    }

    /// Shows every line of these raw objects.
    ///
    /// # Errors
    /// When an object cannot be read.
    pub fn raw_lines(&self, keys: &[String], mut see: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        block_on(async {
            let store = self.raw().await?;
            for key in keys {
                let lines = zstd::decode_all(&store.get(key).await?[..])?;
                lines.split(|&b| b == b'\n').filter(|line| !line.is_empty()).try_for_each(&mut see)?;
            }
            Ok(())
        })
    }

    /// How far each partition of a topic's first generation has landed: one past the last offset.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub fn landed(&self, topic: &str) -> Result<BTreeMap<u64, u64>> {
        let mut ends = BTreeMap::new();
        self.manifests(topic, 1, |manifest| {
            let (partition, end) = (manifest["partition"].as_u64(), manifest["range"][1].as_u64());
            let known = ends.entry(partition.unwrap_or_default()).or_default();
            *known = end.unwrap_or_default().max(*known);
        })?;
        Ok(ends)
    }

    /// Runs `landing COMMAND` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn landing(&self, command: &[&str]) -> Result<Ended> {
        programs::run("landing", &self.arguments(command))
    }

    /// Runs `compactor COMMAND` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn compactor(&self, command: &[&str]) -> Result<Ended> {
        programs::run("compactor", &self.arguments(command))
    }

    /// Starts `landing COMMAND` or `compactor COMMAND` and lets it run; its log is in the directory.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, program: &str, command: &[&str]) -> Result<Process> {
        programs::start(program, &self.arguments(command), &self.dir.join(format!("{program}.log")))
    }

    /// Lands everything that Kafka holds.
    ///
    /// # Errors
    /// When landing fails; with what it printed.
    pub fn land(&self) -> Result<Ended> {
        self.landing(&["run", "--until-caught-up"])?.expect(&[0, 99])
    }

    /// Puts everything that has landed into the tables.
    ///
    /// # Errors
    /// When the compactor fails; with what it printed.
    pub fn compact(&self) -> Result<Ended> {
        self.compactor(&["run"])?.expect(&[0, 99])
    }

    /// Checks that Kafka, raw zone and tables agree to the last offset.
    ///
    /// # Errors
    /// When they do not; with the report.
    pub fn reconcile(&self) -> Result<Ended> {
        self.compactor(&["reconcile"])?.expect(&[0])?;
        self.compactor(&["reconcile", "--deep"])?.expect(&[0])
    }
}
