//! What every client of AWS is made of: endpoint, region and keys from `firn.yaml`, and what is not there from where AWS's
//! own tools take it (environment, profile, metadata service).

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

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

/// What a failure means that is no answer of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Nobody answered, or the answer broke off; it may pass.
    Unreachable,
    /// The credential chain gave none. It may pass when the service behind it has failed for a moment; when it goes on, nobody
    /// has set any up.
    NoCredentials,
    /// The request cannot be sent as it is.
    Malformed,
}

/// Why there is no answer; `None` when there is one.
pub(crate) fn silence<E>(error: &SdkError<E>) -> Option<Silence>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(_) => None,
        SdkError::ConstructionFailure(_) => Some(Silence::Malformed),
        SdkError::DispatchFailure(broken) if broken.is_user() => Some(Silence::Malformed),
        // The SDK reports a credential chain that found nothing as a failed dispatch.
        SdkError::DispatchFailure(broken) if broken.is_other() && chain(error).contains("credential") => {
            Some(Silence::NoCredentials)
        }
        _ => Some(Silence::Unreachable),
    }
}

/// What to do where there are no credentials; `keys` are those of `firn.yaml`.
pub(crate) fn without_credentials(said: &str, keys: &str) -> String {
    format!("no credentials ({said}); set {keys} in firn.yaml, or AWS_PROFILE, or give the machine a role")
}

/// The causes of an error, joined.
pub(crate) fn chain(error: &(impl std::error::Error + 'static)) -> String {
    let text = DisplayErrorContext(error).to_string();
    // After the causes it repeats all of them as Debug, in parentheses.
    text.rfind(" (").filter(|_| text.ends_with(')')).map_or(text.clone(), |_| causes(error))
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        parts.push(error.to_string());
        cause = error.source();
    }
    parts.join(": ")
}

/// What a failure of a client means: `Unavailable` when nobody answered or the service is in trouble, `Conflict` when
/// somebody else was faster, else `Config` (refused, or not asked for want of credentials).
pub fn failed<E>(what: &str, error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let (kind, detail) = match (&error, silence(&error)) {
        (_, Some(silence)) => silence.of(chain(&error)),
        (SdkError::ServiceError(service), None) => {
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
        (other, None) => (ErrorKind::Unavailable, other.to_string()),
    };
    Error::new(kind, format!("{what}: {detail}")).with_source(error)
}

impl Silence {
    /// Its kind, and what to say of it.
    pub(crate) fn of(self, said: String) -> (ErrorKind, String) {
        match self {
            Self::Unreachable => (ErrorKind::Unavailable, said),
            Self::NoCredentials => {
                (ErrorKind::Config, without_credentials(&said, "accessKeyId and secretAccessKey of the service"))
            }
            Self::Malformed => (ErrorKind::Config, said),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ConnectorError;
    use aws_sdk_s3::operation::head_bucket::HeadBucketError;

    use super::*;

    #[test]
    fn nobody_who_answers_is_told_from_nobody_who_asks() {
        let dispatch = |why: ConnectorError| SdkError::<HeadBucketError>::dispatch_failure(why);
        let none = || "the credential provider was not enabled".into();
        let cases = [
            (
                dispatch(ConnectorError::other(none(), None)),
                ErrorKind::Config,
                "or AWS_PROFILE, or give the machine a role",
            ),
            (dispatch(ConnectorError::user("no host".into())), ErrorKind::Config, "no host"),
            (dispatch(ConnectorError::io("reset".into())), ErrorKind::Unavailable, "reset"),
            (dispatch(ConnectorError::timeout("slow".into())), ErrorKind::Unavailable, "slow"),
        ];
        for (error, kind, says) in cases {
            let error = failed("cannot look up d.t in Glue", error);
            let text = error.to_string();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(text.starts_with("cannot look up d.t in Glue: ") && text.contains(says), "{text}");
        }
    }
}
