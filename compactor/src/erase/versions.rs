//! Buckets that keep versions: what an erasure deletes there stays as an older version, unless that is deleted, too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_shared::clock::Clock;
use firn_shared::config::Config;
use firn_shared::error::{Error, Result};
use firn_shared::store::{Purging, Store, Stores};

use super::Report;
use super::whole::Whole;
use crate::maintain::orphans::elsewhere;
use crate::run::Env;

/// What the operator says of older versions.
#[derive(Debug, Clone, Default)]
pub enum Versions {
    /// Nothing: where a bucket keeps some, an erasure does not begin.
    #[default]
    Unsaid,
    /// They may stay; the certificate says where.
    Accepted,
    /// Those of what the erasure deletes go with it, and are counted here.
    Deleted(Arc<AtomicU64>),
}

impl Versions {
    /// They go.
    #[must_use]
    pub fn deleted() -> Self {
        Self::Deleted(Arc::default())
    }

    /// The environment in which everything that is deleted goes like that.
    ///
    /// # Errors
    /// As [`Env::open`].
    pub async fn env(&self, config: &Arc<Config>, clock: &Arc<dyn Clock>) -> Result<Env> {
        let s3 = config.deployment.s3.clone();
        let stores = match self {
            Self::Unsaid | Self::Accepted => Stores::new(s3),
            Self::Deleted(count) => {
                let count = Arc::clone(count);
                Stores::wrapped(s3, move |store| Purging::over(store, Arc::clone(&count)))
            }
        };
        Env::on(stores, Arc::clone(config), Arc::clone(clock)).await
    }

    /// Whether an erasure in these buckets may begin.
    ///
    /// # Errors
    /// `Config` when nothing was said of them.
    pub(super) fn allow(&self, kept: &BTreeSet<String>) -> Result<()> {
        if kept.is_empty() || !matches!(self, Self::Unsaid) {
            return Ok(());
        }
        let buckets = kept.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(Error::config(format!(
            "{buckets} keeps versions, in which everything that is erased would stay; say --delete-versions, or \
             --accept-versions where a life-cycle rule expires them"
        )))
    }

    /// Tells the report what there is of versions, and what has become of them since it was asked last.
    pub(super) fn tell(&self, kept: &BTreeSet<String>, report: &mut Report) {
        report.versioned.extend(kept.iter().cloned());
        match self {
            Self::Deleted(count) => report.versions += count.swap(0, Ordering::Relaxed),
            Self::Unsaid | Self::Accepted => report.versions_stay |= !kept.is_empty(),
        }
    }
}

/// The buckets that keep versions, of all that an erasure deletes from.
///
/// # Errors
/// Those of catalog and stores; `Config` when one must not be asked.
pub(super) async fn kept(env: &Env, whole: &Whole<'_>) -> Result<BTreeSet<String>> {
    let mut stores = vec![env.raw().await?];
    for (name, _) in whole.subject.names() {
        if let Some(key) = env.config.deployment.keys.get(name) {
            stores.push(env.stores.open(&key.store).await?);
        }
    }
    for (ident, definition) in whole.definitions()? {
        let mut places: Vec<String> = definition.into_iter().map(|definition| definition.location).collect();
        if let Some(table) = env.catalog.load(&ident).await? {
            places.push(table.metadata().location().to_owned());
            places.extend(elsewhere(&table));
        }
        for place in places {
            stores.push(env.stores.resolve(&place).await?.0);
        }
    }
    let mut asked = BTreeSet::new();
    let mut kept = BTreeSet::new();
    for store in stores {
        let bucket = bucket(&*store);
        if asked.insert(bucket.clone()) && store.keeps_versions().await? {
            kept.insert(bucket);
        }
    }
    Ok(kept)
}

/// The bucket of a store that may be a part of it.
fn bucket(store: &dyn Store) -> String {
    let url = store.url();
    let end = url.find("://").and_then(|at| url[at + 3..].find('/').map(|slash| at + 3 + slash));
    url[..end.unwrap_or(url.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_begins_only_where_something_was_said_of_versions() {
        let kept = BTreeSet::from(["s3://lake".to_owned(), "s3://raw".to_owned()]);
        let error = Versions::Unsaid.allow(&kept).unwrap_err();
        assert_eq!(error.kind(), firn_shared::error::ErrorKind::Config);
        assert!(error.to_string().starts_with("s3://lake, s3://raw keeps versions"), "{error}");
        for said in [Versions::Accepted, Versions::deleted()] {
            said.allow(&kept).unwrap();
        }
        Versions::Unsaid.allow(&BTreeSet::new()).unwrap();
    }

    #[test]
    fn what_was_accepted_once_stays_said() {
        let kept = BTreeSet::from(["s3://lake".to_owned()]);
        let (mut report, count) = (Report::default(), Arc::new(AtomicU64::new(3)));
        let deleted = Versions::Deleted(Arc::clone(&count));
        deleted.tell(&kept, &mut report);
        deleted.tell(&kept, &mut report);
        assert_eq!((report.versions, report.versions_stay, &report.versioned), (3, false, &kept));
        Versions::Accepted.tell(&kept, &mut report);
        deleted.tell(&kept, &mut report);
        assert!(report.versions_stay, "of what was deleted before it was gone on with");
        let text = report.to_string();
        assert!(text.contains("s3://lake keeps versions; older ones of what was deleted stay there"), "{text}");
        assert!(text.contains("3 older versions of it are gone"), "{text}");
    }
}
