//! The Lambda's program: `firn.yaml` says where the keys are, the runtime interface gives it work.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use firn_athena_udf::decrypt::Decrypt;
use firn_athena_udf::runtime::Runtime;
use firn_shared::clock::SystemClock;
use firn_shared::config;
use firn_shared::error::{Error, Result};

/// Set by Lambda: where its runtime interface is.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";
/// Where `firn.yaml` is; else it is expected beside the program, where Lambda unpacks both.
const CONFIG: &str = "FIRN_CONFIG";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-athena-udf: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "what Lambda itself sets is not configuration")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[tokio::main]
async fn run() -> Result<()> {
    let address = variable(RUNTIME_API).ok_or_else(|| {
        Error::config(format!(
            "{RUNTIME_API} is not set: this program runs as a Lambda, see docs/protection-reading.md"
        ))
    })?;
    let runtime = Runtime::new(&address)?;
    let function = match function() {
        Ok(function) => function,
        Err(error) => {
            runtime.fail(&error).await?;
            return Err(error);
        }
    };
    runtime.serve(&function).await
}

fn function() -> Result<Decrypt> {
    let path = match variable(CONFIG) {
        Some(path) => PathBuf::from(path),
        None => {
            let program =
                std::env::current_exe().map_err(|e| Error::config("this program has no path").with_source(e))?;
            program.with_file_name("firn.yaml")
        }
    };
    let config = config::load(&path, &[])?;
    firn_shared::telemetry::start(&config.deployment.telemetry)?;
    Ok(Decrypt::new(config.deployment, Arc::new(SystemClock)))
}
