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
    evidence.headers(line.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref().map(|value| &*value.0))));
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
    if let Ok(headers) = envelope.headers() {
        evidence.headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
    }
    match envelope.payload() {
        Ok(Some(payload)) if !evidence.payload(&payload) => scanned.unreadable += 1,
        Err(_) => scanned.unreadable += 1,
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use firn_shared::ids::{Partition, Topic};
    use firn_shared::raw::envelope::{LineWriter, Record};
    use firn_shared::raw::manifest::RejectReason;

    use super::*;

    const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData: {format: json, eventTime: kafkaTimestamp}
outsourcingUnit:
  - table:
      database: d
      tableName: t
      columns: [{name: n, type: long}]
";

    fn pipeline() -> Pipeline {
        let dir = tempfile::tempdir().unwrap();
        let firn = "clusters: {c: {brokers: 'x:1'}}\nraw: raw\nwarehouse: lake\ncatalog: {sqlite: {path: c.db}}\n";
        std::fs::write(dir.path().join("firn.yaml"), firn).unwrap();
        std::fs::write(dir.path().join("p.yaml"), PIPELINE).unwrap();
        let config = firn_shared::config::load(&dir.path().join("firn.yaml"), &[dir.path().join("p.yaml")]).unwrap();
        config.pipelines.into_values().next().unwrap()
    }

    /// Each header in accepted and in refused records; none of them in any table, and none of their values shown.
    #[test]
    fn headers_are_looked_at_by_name() {
        let (mut evidence, pipeline) = (Evidence::default(), pipeline());
        let mut scanned = Scanned::of(&pipeline);
        let writer = LineWriter::new(&Topic::new("t").unwrap(), Partition(0));
        for i in 0..5_u64 {
            let (to, by) = (format!("ann{i}@example.com"), format!(r#"{{"mail":"ben{i}@example.com"}}"#));
            let headers = [
                ("sent to", Some(to.as_bytes())),
                ("sent to", None),
                ("trace-id", Some(&b"0af7651916cd43dd"[..])),
                ("by", Some(by.as_bytes())),
                ("raw", Some(&[0xff, 0xfe][..])),
                (to.as_str(), Some(&b"x"[..])),
            ];
            let record = || Record { offset: i, timestamp: Some(0), key: None, headers: headers.iter().copied() };
            let (mut line, mut refused) = (Vec::new(), Vec::new());
            writer.record(&mut line, record(), None, Some(b"{}"));
            writer.refused(&mut refused, record(), (RejectReason::NoEventTime, "x"), Some(b"{}"));
            look(&line, &mut evidence, &mut scanned);
            look_refused(&refused, &mut evidence, &mut scanned);
        }
        scanned.conclude(&pipeline, evidence);
        assert_eq!(scanned.unreadable, 0);
        let told = |f: &Finding| (f.path.clone(), f.kind.as_str(), f.confidence, f.whole, f.is_declared());
        let mut found: Vec<_> = scanned.findings.iter().map(told).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let email = |path: &str| (path.to_owned(), "e-mail", Confidence::High, 10, false);
        assert_eq!(found, [email("header *"), email("header by.mail"), email("header sent to")]);
        let shown = render(&scanned, Confidence::Low);
        assert!(shown.contains("header sent to  10 of 10  in no table, kept in the raw zone"), "{shown}");
        assert!(!shown.contains("ann") && !shown.contains("ben"), "{shown}");
    }
}
