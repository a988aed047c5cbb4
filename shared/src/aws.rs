//! What every client of AWS is made of: endpoint, region and keys from `firn.yaml`, and what is not there from where AWS's
//! own tools take it (environment, profile, metadata service).

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::config::domain::Secret;
use crate::error::{Error, ErrorKind, Result};

/// How a service of AWS, or an emulator of it, is reached.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// The service, as people call it.
    pub service: &'static str,
    /// The section of `firn.yaml` that the rest is from.
    pub section: &'static str,
    /// Another endpoint than AWS's.
    pub endpoint: Option<&'a str>,
    /// Region; else from the environment.
    pub region: Option<&'a str>,
    /// Static credentials; else the default credential chain.
    pub credentials: Option<&'a (String, Secret)>,
}

impl Connection<'_> {
    /// The same as the SDK's clients take it. No request is made, except what the credential chain needs.
    ///
    /// # Errors
    /// `Config` when there is no region.
    pub async fn load(self) -> Result<SdkConfig> {
        let mut options = aws_config::defaults(BehaviorVersion::latest());
        // An emulator has no regions, and should not make a laptop ask the metadata service of EC2 for one.
        if let Some(region) = self.region.or(self.endpoint.map(|_| "us-east-1")) {
            options = options.region(Region::new(region.to_owned()));
        }
        if let Some((id, secret)) = self.credentials {
            options = options.credentials_provider(Credentials::new(id, secret.expose(), None, None, "firn.yaml"));
        }
        if let Some(endpoint) = self.endpoint {
            options = options.endpoint_url(endpoint);
        }
        let config = options.load().await;
        if config.region().is_none() {
            let Self { service, section, .. } = self;
            return Err(Error::config(format!(
                "cannot reach {service}: no region; set {section}.region in firn.yaml, or AWS_REGION"
            )));
        }
        Ok(config)
    }
}

/// What a failure of a client means: `Unavailable` when nobody answered or the service is in trouble, `Conflict` when
/// somebody else was faster, else `Config` (refused).
pub fn failed<E>(what: &str, error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let (kind, detail) = match &error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("unknown error");
            let message = service.err().message().unwrap_or_default();
            let busy =
                service.raw().status().as_u16() >= 500 || code.contains("Throttling") || code.contains("Timeout");
            let kind = match code {
                _ if busy => ErrorKind::Unavailable,
                "ConcurrentModificationException" => ErrorKind::Conflict,
                _ => ErrorKind::Config,
            };
            (kind, format!("{code}: {message}"))
        }
        other => (ErrorKind::Unavailable, other.to_string()),
    };
    Error::new(kind, format!("{what}: {detail}")).with_source(error)
}
