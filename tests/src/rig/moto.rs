//! moto: an emulator of AWS Lake Formation.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::kafka::block_on;
use super::procs::{Process, free_port, listens, source_dir};
use super::readers::venv;
use super::s3::{KEY, REGION};

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct MotoServer {
    port: u16,
    _process: Process,
}

impl MotoServer {
    /// Starts a server with its log in `dir`.
    ///
    /// # Errors
    /// When it is not installed or does not come up; with its log.
    pub fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let port = free_port();
        let mut command = Command::new(venv("python"));
        command.arg(source_dir().join("tests/readers/moto_server.py")).arg(port.to_string()).current_dir(dir);
        let mut process =
            Process::start("moto", command, &dir.join("log")).context("run localstack/setup, or ./test")?;
        process.ready(|| listens(port).then_some(()))?;
        Ok(Self { port, _process: process })
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The permissions that a principal has.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn permissions(&self, principal: &str) -> Result<Vec<Value>> {
        let answer = self.call("ListPermissions", &json!({}))?;
        let all = answer["PrincipalResourcePermissions"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|p| p["Principal"]["DataLakePrincipalIdentifier"] == principal).collect())
    }

    /// Grants a permission, as an administrator does by hand.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn grant(&self, principal: &str, resource: &Value, permission: &str) -> Result<()> {
        let principal = json!({"DataLakePrincipalIdentifier": principal});
        let request = json!({"Principal": principal, "Resource": resource, "Permissions": [permission]});
        self.call("GrantPermissions", &request).map(drop)
    }

    fn call(&self, action: &str, body: &Value) -> Result<Value> {
        let scope = format!("{KEY}/20260101/{REGION}/lakeformation/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        let request = reqwest::Client::new()
            .post(format!("{}/{action}", self.endpoint()))
            .header("authorization", authorization)
            .json(body);
        let text = block_on(async { anyhow::Ok(request.send().await?.error_for_status()?.text().await?) })?;
        serde_json::from_str(if text.is_empty() { "{}" } else { &text }).with_context(|| format!("{action}: {text}"))
    }
}
