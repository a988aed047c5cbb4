//! Logs: `tracing` events to standard error, for people on a terminal, as JSON lines when asked.
//!
//! The filter comes from `FIRN_LOG` when set, else from `telemetry.log` in `firn.yaml`; its grammar is that of
//! `tracing_subscriber::EnvFilter` (`info,firn_landing=debug`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::domain::{LogFormat, TelemetryOptions};
use crate::config::env;
use crate::error::{Error, Result};

/// Installs the process-wide subscriber. Call once, at the start of a program.
///
/// # Errors
/// `Config` when the filter cannot be read, `Bug` when a subscriber is already there.
pub fn start(options: &TelemetryOptions) -> Result<()> {
    let (text, source) = match env::variable("FIRN_LOG") {
        Some(text) => (text, "FIRN_LOG"),
        None => (options.log.clone(), "telemetry.log"),
    };
    let filter = parse_filter(&text).map_err(|error| Error::config(format!("{source}: {error}")))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(terminal);
    let installed = match options.format {
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
        LogFormat::Text => builder.with_target(!terminal).try_init(),
    };
    installed.map_err(|error| Error::bug("the log subscriber was installed twice").with_source(error))
}

/// Reads a filter such as `info,firn_landing=debug`.
///
/// # Errors
/// `Config`, naming the part that cannot be read.
pub fn parse_filter(text: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(text).map_err(|error| Error::config(format!("log filter `{text}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_is_read_or_refused() {
        assert_eq!(parse_filter("info,firn_landing=debug").unwrap().to_string(), "firn_landing=debug,info");
        assert!(
            parse_filter("info,firn=loudest").unwrap_err().to_string().starts_with("log filter `info,firn=loudest`: ")
        );
    }
}
