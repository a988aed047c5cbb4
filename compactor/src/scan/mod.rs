//! `compactor pii scan`: personal data in the raw zone that no pipeline declares. Counts and paths, never values.
//!
//! ```text
//! sample (objects and records by chance, bounded) ─→ evidence (by JSON path) ←─ detect ←─ names, checksums
//!                                                        └─→ report: kind, confidence, declared or not
//! ```

mod checksums;
mod detect;
mod evidence;
mod names;
mod report;
mod sample;

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_shared::config::domain::Pipeline;
use firn_shared::error::Result;
use firn_shared::raw::envelope::{Envelope, QuarantineLine};
use firn_shared::store::Store;

use crate::plan::read::topics;
use evidence::Evidence;
pub use report::{Confidence, Finding, Scanned, render};
pub use sample::Bounds;
use sample::{Sampler, lines};

/// Looks into the raw data of a pipeline.
///
/// # Errors
/// Those of the store.
pub async fn scan(store: &Arc<dyn Store>, pipeline: &Pipeline, bounds: Bounds) -> Result<Scanned> {
    let mut evidence = Evidence::default();
    let mut scanned = Scanned::of(pipeline);
    let cluster = &pipeline.ingestion.cluster;
    let names: BTreeSet<_> = topics(&**store, &pipeline.ingestion).await?.into_iter().map(|of| of.topic).collect();
    let mut sampler = Sampler::new(&**store, bounds.seed);
    for topic in names {
        for (refused, keys) in [
            (false, sampler.objects(cluster, &topic, bounds.objects).await?),
            (true, sampler.refused(cluster, &topic, bounds.objects).await?),
        ] {
            for key in keys {
                scanned.objects += 1;
                for line in lines(&**store, &key, bounds.records).await? {
                    scanned.records += 1;
                    let look = if refused { look_refused } else { look };
                    look(&line, &mut evidence, &mut scanned);
                }
            }
        }
    }
    scanned.conclude(pipeline, evidence);
    Ok(scanned)
}

/// A record that landing refused may hold anything; what is no JSON counts as unreadable.
fn look_refused(line: &[u8], evidence: &mut Evidence, scanned: &mut Scanned) {
    let Ok(line) = serde_json::from_slice::<QuarantineLine>(line) else {
        scanned.unreadable += 1;
        return;
    };
    if let Some(key) = &line.key {
        evidence.key(&key.0);
    }
    if line.payload.is_some_and(|payload| !evidence.payload(&payload.0)) {
        scanned.unreadable += 1;
    }
}

fn look(line: &[u8], evidence: &mut Evidence, scanned: &mut Scanned) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let Ok(envelope) = Envelope::parse(line) else {
        scanned.unreadable += 1;
        return;
    };
    if let Ok(Some(key)) = envelope.key() {
        evidence.key(&key);
    }
    match envelope.payload() {
        Ok(Some(payload)) if !evidence.payload(&payload) => scanned.unreadable += 1,
        Err(_) => scanned.unreadable += 1,
        Ok(_) => {}
    }
}
