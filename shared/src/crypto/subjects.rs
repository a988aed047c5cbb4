//! One key for each data subject. What was sealed with it goes with it: deleting the object is erasure.
//!
//! ```text
//! {store}/{key}/subjects/{first 2 digits}/{subject}.json   {"format":1,"key","subject","wrappedBy","createdAt","wrapped"}
//! ```
//! The subject is the first 32 digits of an HMAC, so the store does not say who is in it. `wrapped` is sealed by version
//! `wrappedBy` of the key, in the layout of [`super::seal`], with the id of the subject's key as additional data.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::provider::KeyBytes;
use super::seal::{DataKey, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::KeyName;
use crate::store::{PutMode, PutOutcome, Store};

const FORMAT: u32 = 1;

/// A subject's key as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Stored {
    format: u32,
    key: KeyName,
    subject: String,
    /// The key that sealed it, `{key}/{version}`.
    pub wrapped_by: String,
    created_at: DateTime<Utc>,
    wrapped: String,
}

/// The id of a subject's key.
pub(super) fn id(key: &KeyName, subject: &str) -> String {
    format!("{key}/s/{subject}")
}

/// The object that holds it.
pub(super) fn object(key: &KeyName, subject: &str) -> String {
    format!("{key}/subjects/{}/{subject}.json", subject.get(..2).unwrap_or("xx"))
}

/// What the store has of a subject; `None` when it has no key (yet, or any more).
pub(super) async fn find(store: &dyn Store, key: &KeyName, subject: &str) -> Result<Option<Stored>> {
    let name = object(key, subject);
    let body = match store.get(&name).await {
        Ok(body) => body,
        // Missing and cut short are one kind: a look tells them apart.
        Err(e) if e.kind() == ErrorKind::Data => match store.head(&name).await? {
            None => return Ok(None),
            // Somebody may have made it between the two.
            Some(_) => store.get(&name).await?,
        },
        Err(e) => return Err(e),
    };
    let stored: Stored = serde_json::from_slice(&body)
        .map_err(|e| Error::data(format!("{}/{name} is no key of a subject: {e}", store.url())).with_source(e))?;
    if (stored.format, &stored.key, stored.subject.as_str()) != (FORMAT, key, subject) {
        return Err(Error::data(format!("{}/{name} is the key of somebody else", store.url())));
    }
    Ok(Some(stored))
}

/// Opens a stored key.
pub(super) fn open(stored: &Stored, by: &DataKey) -> Result<DataKey> {
    let id = id(&stored.key, &stored.subject);
    let opened = by.open(stored.wrapped.as_bytes(), id.as_bytes())?;
    let key =
        KeyBytes::from_slice(opened.expose()).ok_or_else(|| Error::data(format!("key {id} has another length")))?;
    DataKey::new(id, &key)
}

/// Makes a key for a subject who has none; `None` when somebody else was faster.
pub(super) async fn make(
    store: &dyn Store,
    key: &KeyName,
    subject: &str,
    by: &Arc<DataKey>,
    now: DateTime<Utc>,
) -> Result<Option<DataKey>> {
    let (id, material) = (id(key, subject), KeyBytes::random()?);
    let mut wrapped = Vec::new();
    Sealer::default().seal(by, id.as_bytes(), material.expose(), &mut wrapped)?;
    by.count(1, 32);
    let stored = Stored {
        format: FORMAT,
        key: key.clone(),
        subject: subject.to_owned(),
        wrapped_by: by.id().to_owned(),
        created_at: now,
        wrapped: String::from_utf8(wrapped).unwrap_or_default(),
    };
    let body = serde_json::to_vec(&stored).map_err(|e| Error::bug("a subject's key is JSON").with_source(e))?;
    match store.put(&object(key, subject), body.into(), PutMode::Create).await? {
        PutOutcome::Written => DataKey::new(id, &material).map(Some),
        PutOutcome::AlreadyExists => Ok(None),
    }
}
