//! `compactor pii scan`.

use clap::{Args, Subcommand};
use firn_shared::error::Result;

use super::findings::print;
use super::{DONE, Format, NOTHING_TO_DO, PERSONAL_DATA};
use crate::run::{Env, Target};
use crate::scan::{Bounds, Confidence, render, scan};

#[derive(Debug, Subcommand)]
pub enum PiiCommand {
    /// Look into samples of the raw zone for personal data that no pipeline declares; shows counts, never values.
    ///
    /// Ends with 6 when there is some.
    Scan(ScanArgs),
}

/// How much is looked at, and what counts.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Only this pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    /// Raw objects of each topic.
    #[arg(long, default_value_t = 20)]
    objects: usize,
    /// Records of each object.
    #[arg(long, default_value_t = 2000)]
    records: usize,
    /// Where chance starts: the same seed looks at the same records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Findings less sure than this are neither shown nor counted.
    #[arg(long, value_enum, default_value_t = Confidence::Medium)]
    confidence: Confidence,
}

pub async fn command(env: &Env, command: PiiCommand, format: Format) -> Result<u8> {
    let PiiCommand::Scan(args) = command;
    // Asked for its sake: a pipeline that is not there has no findings, which must not look like good news.
    Target::select(&env.config, args.pipeline.as_deref(), None)?;
    let bounds = Bounds { objects: args.objects, records: args.records, seed: args.seed };
    let wanted = |name: &str| args.pipeline.as_deref().is_none_or(|wanted| wanted == name);
    let raw = env.raw().await?;
    let mut scanned = Vec::new();
    for pipeline in env.config.pipelines.values().filter(|pipeline| wanted(pipeline.name.as_str())) {
        let mut found = scan(&raw, pipeline, bounds).await?;
        found.findings.retain(|finding| finding.confidence >= args.confidence);
        scanned.push(found);
    }
    print(format, &scanned, |one| render(one, args.confidence))?;
    if scanned.iter().any(|one| one.undeclared(args.confidence).next().is_some()) {
        return Ok(PERSONAL_DATA);
    }
    Ok(if scanned.iter().all(|one| one.records == 0) { NOTHING_TO_DO } else { DONE })
}
