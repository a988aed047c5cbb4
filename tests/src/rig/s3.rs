//! S3 servers: SeaweedFS (real storage, checks signatures, serves an Iceberg REST catalog), ministack (S3, KMS, Glue)
//! and LocalStack (S3, KMS).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use firn_shared::config::domain::{S3Options, Secret};
use firn_shared::store::{S3Client, S3Store, Store};
use serde_json::{Value, json};

use super::http;
use super::procs::{PATIENCE, Process, free_port, run_dir};
use super::readers::{S3Access, localstack_python, venv};

/// Access key id that all servers accept.
pub const KEY: &str = "firn-test";
/// Its secret.
pub const SECRET: &str = "firn-test-secret";

/// Region that requests are signed for.
pub const REGION: &str = "us-east-1";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SeaweedFS.
    SeaweedFs,
    /// ministack.
    Ministack,
    /// LocalStack.
    LocalStack,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SeaweedFs => "seaweedfs",
            Self::Ministack => "ministack",
            Self::LocalStack => "localstack",
        }
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct S3Server {
    kind: Kind,
    port: u16,
    iceberg_port: u16,
    process: Mutex<Process>,
}

impl S3Server {
    /// The server of this kind that tests share; for those that do not kill it.
    ///
    /// # Panics
    /// When it does not come up, with its log.
    pub fn shared(kind: Kind) -> &'static Self {
        static SHARED: [OnceLock<S3Server>; 3] = [const { OnceLock::new() }; 3];
        SHARED[kind as usize].get_or_init(|| match Self::start(kind, &run_dir().join(kind.name())) {
            Ok(server) => server,
            Err(error) => panic!("the shared S3 server does not start: {error:#}"),
        })
    }

    /// Starts a server with its data and log in `dir`.
    ///
    /// # Errors
    /// When it is not installed or does not come up; with its log.
    pub fn start(kind: Kind, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (port, iceberg_port) = (free_port(), free_port());
        let command = match kind {
            Kind::SeaweedFs => seaweedfs(dir, port, iceberg_port)?,
            Kind::Ministack => ministack(dir, port),
            Kind::LocalStack => localstack(dir, port)?,
        };
        let mut process = Process::start(kind.name(), command, &dir.join("log"))
            .with_context(|| format!("{} cannot run: run localstack/setup, or ./test", kind.name()))?;
        let (path, ready) = match kind {
            // It refuses whoever does not sign, as soon as it serves.
            Kind::SeaweedFs => ("/", 403),
            Kind::Ministack => ("/", 200),
            Kind::LocalStack => ("/_localstack/health", 200),
        };
        let address = format!("127.0.0.1:{port}");
        let serves = || http::get(&address, path).is_ok_and(|(status, _)| status == ready);
        // SeaweedFS makes its warehouse a little after it serves objects and catalog.
        let catalog = || kind != Kind::SeaweedFs || has_warehouse(iceberg_port).unwrap_or(false);
        process.ready(|| (serves() && catalog()).then_some(()))?;
        Ok(Self { kind, port, iceberg_port, process: Mutex::new(process) })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://host:port`; also of KMS and, on ministack, of Glue.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The Iceberg REST catalog, without `/v1`; SeaweedFS only. Its warehouse is `s3://lake`, its OAuth2 credential
    /// [`S3Server::rest_credential`].
    pub fn rest_catalog(&self) -> String {
        format!("http://127.0.0.1:{}", self.iceberg_port)
    }

    /// `client:secret` of the REST catalog.
    pub fn rest_credential(&self) -> String {
        format!("{KEY}:{SECRET}")
    }

    /// How Firn reaches it.
    pub fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint()),
            region: Some(REGION.into()),
            path_style: true,
            credentials: Some((KEY.into(), Secret::new(SECRET))),
            sse_kms_key_id: None,
        }
    }

    /// The same as the `s3:` section of `firn.yaml`.
    pub fn options_yaml(&self) -> String {
        format!(
            "s3: {{endpoint: '{}', region: {REGION}, pathStyle: true, accessKeyId: {KEY}, secretAccessKey: {SECRET}}}\n",
            self.endpoint()
        )
    }

    /// How readers reach it.
    pub fn access(&self) -> S3Access {
        S3Access { endpoint: self.endpoint(), key: KEY.into(), secret: SECRET.into() }
    }

    /// Makes a bucket, unless it is there, and opens it.
    ///
    /// # Errors
    /// When the server never does.
    pub async fn bucket(&self, name: &str) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.s3_bucket(name).await?))
    }

    /// The same, as the type itself.
    ///
    /// # Errors
    /// When the server never does.
    pub async fn s3_bucket(&self, name: &str) -> Result<S3Store> {
        let client = self.client();
        let started = Instant::now();
        loop {
            match client.create_bucket().bucket(name).send().await.map_err(aws_sdk_s3::Error::from) {
                Ok(_) | Err(aws_sdk_s3::Error::BucketAlreadyOwnedByYou(_)) => break,
                Err(error) if started.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("{} makes no bucket {name}", self.kind.name()));
                }
                // It serves before all of its parts are up.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Ok(S3Store::new(S3Client::connect(&self.options()).await?, name))
    }

    fn client(&self) -> aws_sdk_s3::Client {
        use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new(KEY, SECRET, None, None, "test"))
            .region(Region::new(REGION))
            .endpoint_url(self.endpoint())
            .force_path_style(true)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// Makes a bucket keep versions from now on.
    ///
    /// # Errors
    /// When the server does not.
    pub async fn keep_versions(&self, bucket: &str) -> Result<()> {
        use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        self.client().put_bucket_versioning().bucket(bucket).versioning_configuration(enabled).send().await?;
        Ok(())
    }

    /// All versions below a prefix: key and bytes, and delete markers without bytes.
    ///
    /// # Errors
    /// When the server does not list them.
    pub async fn versions(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        let client = self.client();
        let (mut found, mut from) = (Vec::new(), (None::<String>, None::<String>));
        loop {
            let list = client.list_object_versions().bucket(bucket).prefix(prefix);
            let page = list.set_key_marker(from.0).set_version_id_marker(from.1).send().await?;
            let key = |key: Option<&str>| key.unwrap_or_default().to_owned();
            found.extend(page.delete_markers().iter().map(|marker| (key(marker.key()), None)));
            for version in page.versions() {
                let get = client.get_object().bucket(bucket).key(key(version.key()));
                let body = get.set_version_id(version.version_id().map(str::to_owned)).send().await?.body;
                found.push((key(version.key()), Some(body.collect().await?.to_vec())));
            }
            if page.is_truncated() != Some(true) {
                return Ok(found);
            }
            from = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    /// Makes a KMS key and gives its ARN; not on SeaweedFS.
    ///
    /// # Errors
    /// When the server does not answer with one.
    pub async fn kms_key(&self) -> Result<String> {
        let credential = format!("{KEY}/20260101/{REGION}/kms/aws4_request");
        let answer: Value = reqwest::Client::new()
            .post(self.endpoint())
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "TrentService.CreateKey")
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"),
            )
            .body("{}")
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let arn = answer["KeyMetadata"]["Arn"].as_str();
        Ok(arn.with_context(|| format!("no key in {answer}"))?.to_owned())
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

fn seaweedfs(dir: &Path, port: u16, iceberg_port: u16) -> Result<Command> {
    let identities = json!({"identities": [{
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    let (config, data) = (dir.join("s3.json"), dir.join("data"));
    fs::write(&config, identities.to_string())?;
    fs::create_dir_all(&data)?;
    let mut command = Command::new(venv("weed"));
    command
        .current_dir(dir)
        .arg("mini")
        .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"])
        .args(["-tableBucket=lake", "-master.volumeSizeLimitMB=256", "-s3.port.lance=0", "-s3.autoCreateBucket=false"])
        .arg(format!("-dir={}", data.display()))
        .arg(format!("-s3.config={}", config.display()))
        .arg(format!("-s3.port={port}"))
        .arg(format!("-s3.port.iceberg={iceberg_port}"));
    for part in ["s3.port.grpc", "master.port", "master.port.grpc", "filer.port", "filer.port.grpc", "volume.port"] {
        command.arg(format!("-{part}={}", free_port()));
    }
    for part in ["volume.port.grpc", "admin.port", "admin.port.grpc"] {
        command.arg(format!("-{part}={}", free_port()));
    }
    Ok(command)
}

fn ministack(dir: &Path, port: u16) -> Command {
    let mut command = Command::new(venv("ministack"));
    command
        .current_dir(dir)
        .env("BIND_HOST", "127.0.0.1")
        .env("GATEWAY_PORT", port.to_string())
        .env("PERSIST_STATE", "1")
        .env("S3_PERSIST", "1")
        .env("STATE_DIR", dir.join("state"))
        .env("S3_DATA_DIR", dir.join("data"));
    command
}

fn localstack(dir: &Path, port: u16) -> Result<Command> {
    let python = localstack_python();
    ensure!(python.exists(), "{} is missing: run localstack/setup, or ./test; it needs Python 3.13", python.display());
    let mut command = Command::new(python);
    command
        .current_dir(dir)
        .args(["-m", "localstack.runtime.main"])
        .env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
        .env("SKIP_SSL_CERT_DOWNLOAD", "1")
        .env("DISABLE_EVENTS", "1")
        .env("DNS_ADDRESS", "0")
        .env("TMPDIR", dir);
    Ok(command)
}

/// Whether the REST catalog knows the warehouse `s3://lake`.
fn has_warehouse(port: u16) -> Result<bool> {
    let address = format!("127.0.0.1:{port}");
    let form = format!("grant_type=client_credentials&client_id={KEY}&client_secret={SECRET}&scope=catalog");
    let form_type = "Content-Type: application/x-www-form-urlencoded";
    let (_, answer) = http::ask(&address, "POST /v1/oauth/tokens", &[form_type], &form)?;
    let token = serde_json::from_str::<Value>(&answer)?;
    let bearer = format!("Authorization: Bearer {}", token["access_token"].as_str().context("a token is given")?);
    let (status, _) = http::ask(&address, "GET /v1/lake/namespaces", &[&bearer], "")?;
    Ok(status == 200)
}
