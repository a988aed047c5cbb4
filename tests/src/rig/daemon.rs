//! A running landing daemon and what it says of itself over HTTP.

use std::fs;

use anyhow::Result;

use super::http;
use super::procs::{Process, until};
use super::workspace::Workspace;

/// A daemon that listens on a port of its own.
pub struct Daemon {
    /// Its process.
    pub process: Process,
    address: String,
}

impl Daemon {
    /// Starts `landing run` in the workspace; returns once its server listens, which says nothing of its clusters.
    ///
    /// # Errors
    /// When it does not come up; with its log.
    pub fn start(workspace: &Workspace) -> Result<Self> {
        if !fs::read_to_string(workspace.dir().join("firn.yaml"))?.contains("listen:") {
            workspace.reconfigure("landing: {", "landing: {listen: '127.0.0.1:0', ")?;
        }
        // Daemons of one workspace share a log.
        let before = fs::metadata(workspace.dir().join("landing.log")).map_or(0, |log| log.len());
        let mut process = workspace.start("landing", &["run"])?;
        let log = process.log().to_path_buf();
        let address = process.ready(|| {
            let text = fs::read_to_string(&log).ok()?;
            let line = text.get(before as usize..)?.lines().find(|line| line.contains("serving /metrics"))?;
            let (_, address) = line.split_once("address=")?;
            Some(address.split_whitespace().next()?.trim_matches('"').to_owned())
        })?;
        Ok(Self { process, address })
    }

    /// Status and body of a page.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(&self.address, path)
    }

    /// Waits until a page answers with this status.
    ///
    /// # Errors
    /// When it never does.
    pub fn await_status(&self, path: &str, status: u16) -> Result<String> {
        until(&format!("{path} answers {status}"), || {
            let (found, body) = self.get(path).ok()?;
            (found == status).then_some(body)
        })
    }

    /// The values of a metric by its labels, as Prometheus would scrape them.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn metric(&self, name: &str) -> Result<Vec<(String, i64)>> {
        let (_, text) = self.get("/metrics")?;
        let of_name = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let labels = if labels.is_empty() { "" } else { labels.strip_prefix('{')?.strip_suffix('}')? };
            // All of landing's metrics are whole numbers.
            Some((labels.to_owned(), value.parse().ok()?))
        });
        Ok(of_name.collect())
    }

    /// The sum of a metric over its labels.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn sum(&self, name: &str) -> Result<i64> {
        Ok(self.metric(name)?.iter().map(|(_, value)| value).sum())
    }
}
