//! What an error of the SDK means.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::aws::{Silence, chain, silence, without_credentials};
use crate::error::{Error, ErrorKind};

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Try again: overload, an error inside the service, a connection that broke or timed out, a body that was cut. The
    /// request may have had its effect.
    Transient,
    /// There is no such object.
    Missing,
    /// There is no such bucket.
    MissingBucket,
    /// There is no such upload: it was completed or given up.
    MissingUpload,
    /// The condition of a conditional put does not hold.
    Precondition,
    /// The range lies past the object's end.
    RangePastEnd,
    /// The key is too long or the object too large.
    BadObject,
    /// The credentials do not permit it.
    Denied,
    /// The credential chain gave none. Repeated, because the service behind it may have failed for a moment; when it
    /// goes on, nobody has set any up.
    NoCredentials,
    /// Any other refusal: the request will not get better by itself.
    Refused,
}

impl Class {
    pub(super) fn is_transient(self) -> bool {
        matches!(self, Self::Transient | Self::NoCredentials)
    }

    fn kind(self) -> ErrorKind {
        match self {
            Self::Transient => ErrorKind::Unavailable,
            Self::Missing | Self::MissingUpload | Self::RangePastEnd | Self::BadObject => ErrorKind::Data,
            Self::Precondition => ErrorKind::Conflict,
            Self::MissingBucket | Self::Denied | Self::NoCredentials | Self::Refused => ErrorKind::Config,
        }
    }
}

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// Status, code and message, or what the connection said.
    pub(super) text: String,
    /// Attempts made.
    pub(super) attempts: u32,
}

impl Failure {
    /// What the SDK said.
    #[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
    pub(super) fn from_sdk<E>(error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (class, text) = match &error {
            SdkError::ServiceError(answer) => {
                let (status, code) = (answer.raw().status().as_u16(), answer.err().code().unwrap_or_default());
                let message = answer.err().message().unwrap_or_default();
                let text = [&status.to_string(), code, message].join(" ");
                (classify(status, code), text.trim_end().to_owned())
            }
            _ => {
                let class = match silence(&error) {
                    Some(Silence::Malformed) => Class::Refused,
                    Some(Silence::NoCredentials) => Class::NoCredentials,
                    _ => Class::Transient,
                };
                (class, chain(&error))
            }
        };
        Self { class, text, attempts: 1 }
    }

    /// The body of an answer broke off.
    pub(super) fn cut(error: impl std::fmt::Display) -> Self {
        Self { class: Class::Transient, text: format!("the answer was cut short: {error}"), attempts: 1 }
    }

    #[cfg(test)]
    pub(super) fn of(class: Class) -> Self {
        Self { class, text: String::new(), attempts: 1 }
    }

    /// The error to report, with its kind and next step.
    pub(super) fn into_error(self, operation: &str, bucket: &str, key: &str) -> Error {
        let Self { class, text, attempts } = self;
        let what = match class {
            Class::Transient if attempts > 1 => format!("{attempts} attempts failed, the last with: {text}"),
            Class::Missing => "no such object".to_owned(),
            Class::MissingBucket => format!("there is no bucket `{bucket}` ({text})"),
            Class::Denied => format!(
                "access denied ({text}); check the credentials and what the policy of bucket `{bucket}` lets them do"
            ),
            Class::NoCredentials => without_credentials(&text, "s3.accessKeyId and s3.secretAccessKey"),
            _ => text,
        };
        Error::new(class.kind(), format!("cannot {operation} s3://{bucket}/{key}: {what}"))
    }
}

/// The meaning of an error answer.
fn classify(status: u16, code: &str) -> Class {
    match (status, code) {
        (_, "NoSuchBucket") => Class::MissingBucket,
        (_, "NoSuchUpload") => Class::MissingUpload,
        (_, "KeyTooLongError" | "EntityTooLarge") => Class::BadObject,
        // Another conditional write to the key was under way; and bodies damaged on their way.
        (409, "ConditionalRequestConflict" | "OperationAborted")
        | (
            400,
            "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch"
            | "RequestTimeout"
            | "IncompleteBody",
        )
        | (_, "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "InternalError")
        | (408 | 429 | 500 | 502..=504, _) => Class::Transient,
        (404, _) => Class::Missing,
        (412, _) => Class::Precondition,
        (416, _) => Class::RangePastEnd,
        (401 | 403, _) => Class::Denied,
        _ => Class::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_meaning_that_decides_what_to_do() {
        let cases = [
            (404, "NoSuchKey", Class::Missing, ErrorKind::Data),
            (404, "", Class::Missing, ErrorKind::Data),
            (404, "NoSuchBucket", Class::MissingBucket, ErrorKind::Config),
            (403, "AccessDenied", Class::Denied, ErrorKind::Config),
            (403, "InvalidAccessKeyId", Class::Denied, ErrorKind::Config),
            (412, "PreconditionFailed", Class::Precondition, ErrorKind::Conflict),
            (409, "ConditionalRequestConflict", Class::Transient, ErrorKind::Unavailable),
            (503, "SlowDown", Class::Transient, ErrorKind::Unavailable),
            (500, "", Class::Transient, ErrorKind::Unavailable),
            (400, "RequestTimeout", Class::Transient, ErrorKind::Unavailable),
            (400, "KMS.NotFoundException", Class::Refused, ErrorKind::Config),
            (501, "NotImplemented", Class::Refused, ErrorKind::Config),
            (301, "PermanentRedirect", Class::Refused, ErrorKind::Config),
        ];
        for (status, code, class, kind) in cases {
            assert_eq!((classify(status, code), class.kind()), (class, kind), "{status} {code}");
        }
    }

    #[test]
    fn messages_name_operation_object_and_next_step() {
        let failure = Failure { class: Class::Denied, text: "403 AccessDenied no".into(), attempts: 1 };
        assert_eq!(
            failure.into_error("write", "lake", "a/b").to_string(),
            "cannot write s3://lake/a/b: access denied (403 AccessDenied no); check the credentials and what the policy \
             of bucket `lake` lets them do"
        );
        let failure = Failure { class: Class::Transient, text: "503 SlowDown".into(), attempts: 9 };
        assert_eq!(
            failure.into_error("list", "lake", "a/").to_string(),
            "cannot list s3://lake/a/: 9 attempts failed, the last with: 503 SlowDown"
        );
    }
}
