//! One answer to "what now?" for every shared error: its [`ErrorKind`].
//!
//! Retries and exit codes hang on the kind alone, never on a message.

use std::fmt;

/// What sort of failure this is; decides retry and exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The configuration or the command line is wrong; a person must change it. Exit code 2.
    Config,
    /// The data is not what the contract says (a corrupt object, an incompatible schema); a person must look. Exit code 3.
    Data,
    /// Somebody else was faster; running again is safe and usually works. Exit code 1.
    Conflict,
    /// A service did not answer, or refused for now; running again is safe. Exit code 1.
    Unavailable,
    /// An invariant of ours does not hold; please report. Exit code 70.
    Bug,
}

impl ErrorKind {
    /// Whether the same call may succeed when repeated.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "configuration",
            Self::Data => "data",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Bug => "bug",
        })
    }
}

/// A failure with its kind: what failed, the identifiers, the next step, in lower case and without a full stop.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of shared operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The configuration is wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// The data breaks the contract.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Another writer was faster.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// A service is out of reach.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// One of our own invariants is broken.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The kind of the first shared [`Error`] in an `anyhow` chain; [`ErrorKind::Bug`] when there is none.
#[must_use]
pub fn kind_of(error: &anyhow::Error) -> ErrorKind {
    error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map_or(ErrorKind::Bug, Error::kind)
}
