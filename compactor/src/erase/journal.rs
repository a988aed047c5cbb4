//! What an erasure has done so far, so that the next one goes on where a crash ended it.
//!
//! ```text
//! {raw}/_erasures/{who}/journal.json                   of an erasure that has not ended
//! {raw}/_erasures/{who}/{when}.certificate.json        of one that has
//! ```
//! `who` is the subject's name in the key store, an HMAC: it does not say who it is. The journal holds the report and the
//! files that nothing names any more, written down before that becomes true; no value of the subject is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use firn_shared::crypto::erase::Subject;
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::store::{PutMode, Store};
use serde::{Deserialize, Serialize};

use super::{Certificate, Report};

/// Everything of erasures in the raw zone. No cluster has such a name.
pub const FOLDER: &str = "_erasures";

/// What is written down.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    report: Report,
    /// By table, files to be deleted.
    doomed: BTreeMap<String, BTreeSet<String>>,
}

/// The journal of one subject's erasure. Of a dry run nothing is written down.
#[derive(Debug)]
pub struct Journal {
    /// `None` for a dry run.
    store: Option<Arc<dyn Store>>,
    who: String,
    state: State,
}

impl Journal {
    /// For somebody who only looks.
    pub fn of_dry_run(report: Report) -> Self {
        Self { store: None, who: String::new(), state: State { report, ..State::default() } }
    }

    /// Begins one, or goes on with that of an erasure that was interrupted.
    ///
    /// # Errors
    /// Those of the store; `Data` for a journal that cannot be read.
    pub async fn open(store: Arc<dyn Store>, subject: &Subject, report: Report) -> Result<Self> {
        let who = who(subject);
        let mut journal = Self { store: Some(Arc::clone(&store)), who, state: State { report, ..State::default() } };
        let key = journal.key();
        let body = match store.get(&key).await {
            Ok(body) => body,
            // Missing and cut short are one kind: a look tells them apart.
            Err(e) if e.kind() == ErrorKind::Data && store.head(&key).await?.is_none() => return Ok(journal),
            Err(e) => return Err(e),
        };
        let odd = |e| Error::data(format!("{}/{key} is no journal of an erasure", store.url())).with_source(e);
        journal.state = serde_json::from_slice(&body).map_err(odd)?;
        journal.state.report.resumed += 1;
        let Report { raw, raw_of_forgotten, tables, .. } = &mut journal.state.report;
        for raw in raw.values_mut().chain(raw_of_forgotten.values_mut()) {
            (raw.objects, raw.unopened) = (0, 0);
        }
        for table in tables.values_mut() {
            (table.looked, table.excluded) = (0, 0);
        }
        tracing::info!("going on with an erasure that was interrupted");
        Ok(journal)
    }

    fn key(&self) -> String {
        format!("{FOLDER}/{}/journal.json", self.who)
    }

    /// Under which name the store knows the subject.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// What was done so far.
    pub fn report(&mut self) -> &mut Report {
        &mut self.state.report
    }

    /// Files of a table that are to be deleted.
    pub fn doomed(&self, table: &str) -> Vec<String> {
        self.state.doomed.get(table).into_iter().flatten().cloned().collect()
    }

    /// Writes down that these files are to be deleted, too.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn doom(&mut self, table: &str, files: impl Iterator<Item = String>) -> Result<()> {
        self.state.doomed.entry(table.to_owned()).or_default().extend(files);
        self.save().await
    }

    /// They are gone.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn gone(&mut self, table: &str) -> Result<()> {
        self.state.doomed.remove(table);
        self.save().await
    }

    /// Writes down how far the erasure is.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn save(&self) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let body = json(&self.state)?;
        store.put(&self.key(), body, PutMode::Overwrite).await.map(drop)
    }

    /// Ends it. A crash before the journal is gone makes the next erasure say the same again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close(self, certificate: Option<&Certificate>) -> Result<Report> {
        if let Some(store) = &self.store {
            if let Some(certificate) = certificate {
                let when = self.state.report.ended.format("%Y%m%dT%H%M%S%3fZ");
                let key = format!("{FOLDER}/{}/{when}.certificate.json", self.who);
                let _ = store.put(&key, json(certificate)?, PutMode::Overwrite).await?;
            }
            store.delete(&self.key()).await?;
        }
        Ok(self.state.report)
    }
}

/// The subject's name in the key store, under the first key; without a key nobody has a name.
fn who(subject: &Subject) -> String {
    subject.names().first().map_or_else(|| "nameless".to_owned(), |(key, short)| format!("{key}-{short}"))
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| Error::bug("a journal is JSON").with_source(e))
}
