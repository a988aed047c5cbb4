//! `erase`: the report for people, the certificate for the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use firn_shared::cli::{say, say_json};
use firn_shared::clock::Clock;
use firn_shared::config::Config;
use firn_shared::error::{Error, Result};

use super::{DONE, Format, NOTHING_TO_DO};
use crate::erase::{self, Certificate, Versions};

/// Whose data, and what to do about it.
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// What the `subject` column says of the person.
    #[arg(long, value_name = "TEXT", required_unless_present = "verify")]
    subject: Option<String>,
    /// Write the signed certificate to this file, too; with `--output json` it is printed as well.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    certificate: Option<PathBuf>,
    /// Say what would be erased and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Leave this column, which must not become null today, as it is; may be given several times.
    #[arg(long, value_name = "DATABASE.TABLE.COLUMN")]
    leave: Vec<String>,
    /// Where a bucket keeps versions: delete older versions and delete markers of everything that is deleted, too.
    #[arg(long, conflicts_with = "dry_run")]
    delete_versions: bool,
    /// Where a bucket keeps versions: let older ones stay; the certificate says so.
    #[arg(long, conflicts_with_all = ["delete_versions", "dry_run"])]
    accept_versions: bool,
    /// Check the signature of this certificate and print what it says.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["subject", "certificate", "dry_run", "leave", "delete_versions", "accept_versions"])]
    verify: Option<PathBuf>,
    /// The signing key's public half, base64, for --verify where the key ring is not at hand.
    #[arg(long, value_name = "KEY", requires = "verify")]
    public_key: Option<String>,
}

impl EraseArgs {
    fn versions(&self) -> Versions {
        match (self.delete_versions, self.accept_versions) {
            (true, _) => Versions::deleted(),
            (false, true) => Versions::Accepted,
            (false, false) => Versions::Unsaid,
        }
    }
}

pub async fn erase(config: &Arc<Config>, clock: &Arc<dyn Clock>, args: EraseArgs, format: Format) -> Result<u8> {
    let versions = args.versions();
    let env = &versions.env(config, clock).await?;
    if let Some(file) = args.verify {
        let key = match args.public_key {
            Some(key) => key,
            None => erase::public_key(&env.keys.signing_seed().await?)?,
        };
        return tell(&erase::verify(&read(&file)?, &key)?, format);
    }
    let subject = args.subject.unwrap_or_default();
    if args.dry_run {
        let report = Box::pin(erase::look(env, &subject, &args.leave)).await?;
        tell(&report, format)?;
        return Ok(ended(&report));
    }
    // Asked first: an erasure that cannot be certified is not begun.
    let seed = env.keys.signing_seed().await?;
    let (report, certificate) = Box::pin(erase::erase_with(env, &subject, &args.leave, &seed, &versions)).await?;
    if let Some(path) = &args.certificate {
        write(path, &certificate)?;
    }
    match format {
        Format::Json => say_json(&certificate)?,
        Format::Text => say(&report.to_string())?,
    }
    Ok(ended(&report))
}

/// Done, or nothing was there to be done: a subject that is written in another way must not look like one that is gone.
fn ended(report: &erase::Report) -> u8 {
    if report.found() { DONE } else { NOTHING_TO_DO }
}

fn tell(report: &erase::Report, format: Format) -> Result<u8> {
    match format {
        Format::Json => say_json(report)?,
        Format::Text => say(&report.to_string())?,
    }
    Ok(DONE)
}

fn read(path: &Path) -> Result<Certificate> {
    let failed = |e| Error::config(format!("cannot read {}", path.display())).with_source(e);
    let text = std::fs::read(path).map_err(|e: std::io::Error| failed(e))?;
    let odd = |e| Error::data(format!("{} is no certificate of an erasure", path.display())).with_source(e);
    serde_json::from_slice(&text).map_err(|e: serde_json::Error| odd(e))
}

fn write(path: &Path, certificate: &Certificate) -> Result<()> {
    let text = serde_json::to_string_pretty(certificate);
    let text = text.map_err(|e| Error::bug("a certificate is JSON").with_source(e))?;
    std::fs::write(path, format!("{text}\n")).map_err(|e| {
        let place = "the erasure is done, and its certificate is in the raw zone under _erasures";
        Error::unavailable(format!("cannot write {}; {place}", path.display())).with_source(e)
    })
}
