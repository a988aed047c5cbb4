//! The connection to S3.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;

use crate::aws::Connection;
use crate::config::domain::S3Options;
use crate::error::Result;

/// Bounds of what the client does.
#[derive(Debug, Clone, Copy)]
pub struct S3Limits {
    /// Attempts of one request, the first included.
    pub attempts: u32,
    /// Upper bound of the pause before the second attempt; it doubles with every further one. The pause is drawn
    /// evenly from nothing to the bound, so that clients which failed together do not come back together.
    pub backoff: Duration,
    /// Where the bound of the pause stops growing.
    pub backoff_max: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long an answer may take to begin, sending included. A body that stalls for 20 s is given up, too.
    pub answer: Duration,
    /// Size of the parts that large objects go up in, bytes; at least 5 MiB.
    pub part_bytes: usize,
    /// Parts of one object on their way at a time. A writer holds up to `part_bytes * (parts + 1)`,
    /// and many objects go up side by side.
    pub parts: usize,
}

impl Default for S3Limits {
    fn default() -> Self {
        Self {
            attempts: 9,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            answer: Duration::from_mins(1),
            part_bytes: 8 << 20,
            parts: 1,
        }
    }
}

/// A client of S3, cheap to clone: all buckets share its connections and credentials.
#[derive(Debug, Clone)]
pub struct S3Client {
    pub(super) sdk: Client,
    pub(super) limits: S3Limits,
    pub(super) sse_kms_key_id: Option<String>,
}

impl S3Client {
    /// A client with the default limits. No request is made yet, except what the credential chain needs.
    ///
    /// # Errors
    /// `Config` when there is no region.
    pub async fn connect(options: &S3Options) -> Result<Self> {
        Self::with_limits(options, S3Limits::default()).await
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// `Config` when there is no region.
    pub async fn with_limits(options: &S3Options, limits: S3Limits) -> Result<Self> {
        let timeouts = TimeoutConfig::builder().connect_timeout(limits.connect).read_timeout(limits.answer).build();
        let connection = Connection {
            service: "S3",
            section: "s3",
            endpoint: options.endpoint.as_deref(),
            region: options.region.as_deref(),
            credentials: options.credentials.as_ref(),
        };
        let config = aws_sdk_s3::config::Builder::from(&connection.load().await?)
            .force_path_style(options.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        Ok(Self { sdk: Client::from_conf(config), limits, sse_kms_key_id: options.sse_kms_key_id.clone() })
    }
}
