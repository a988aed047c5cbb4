//! What a step of a bench takes: wall clock, CPU time and memory of this process.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// When a step began.
#[derive(Debug)]
pub(super) struct Begun {
    at: Instant,
    cpu: f64,
}

impl Begun {
    /// Now.
    pub fn now() -> Result<Self> {
        Ok(Self { at: Instant::now(), cpu: cpu_seconds()? })
    }

    /// Wall clock since then, seconds.
    pub fn seconds(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }

    /// CPU time of all threads since then, seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        Ok(cpu_seconds()? - self.cpu)
    }

    /// What has begun then ends now.
    pub fn ends(&self, what: &'static str, count: usize) -> Result<Step> {
        let (seconds, cpu_seconds) = (self.seconds(), self.cpu_seconds()?);
        Ok(Step { what, count, seconds, cpu_seconds, peak_bytes: peak_bytes()? })
    }
}

/// A step that has ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    pub what: &'static str,
    /// Of what it was about: files found, manifests of a new snapshot, objects planned.
    pub count: usize,
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// The most memory that this process ever held, up to its end.
    pub peak_bytes: u64,
}

fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("the system does not tell VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// CPU time of this process, all threads, in the hundredths of a second that Linux counts for everybody.
fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("cannot read this process's CPU time")?;
    // The program's name, in brackets, may hold blanks; user and system time are the 12th and 13th fields after it.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    let ticks: Vec<u64> = fields.into_iter().flatten().filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 2, "/proc/self/stat is not as expected");
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}
