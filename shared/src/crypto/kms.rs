//! Data keys from AWS KMS, wrapped. KMS makes a data key, and its wrapped form is kept in the store, so that every
//! process and every reader that KMS lets in finds the same key:
//! ```text
//! {store}/{key}/versions/0000000003.json   {"format":1,"key","version","createdAt","kmsKeyId","encryptionContext","wrapped"}
//! {store}/{key}/token.json                 the same without a version: the secret behind tokens, made once
//! {store}/{key}/certificate.json           the same: the seed of the key that signs certificates, made once
//! ```
//! KMS ties each to its purpose, which is its encryption context: `firn:key` and `firn:version` (`token` for tokens); the
//! seed has `firn:purpose` and `firn:signer` alone, so whom a policy lets in by `firn:key` cannot sign. What the object says
//! of itself must be what it is asked for as, because whoever may write the store could put another's in its place.
//! Objects are put only where there is none: of two processes that make a version at once, one wins and both use it. A
//! crash after KMS has answered leaves a data key that nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::provider::{KeyBytes, KeyProvider, KeyVersion};
use crate::aws::{Connection, chain, silence};
use crate::config::domain::{KmsOptions, Reuse};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::KeyName;
use crate::store::{Depth, PutMode, PutOutcome, Store};

/// What a data key is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// Seals values.
    Version(u32),
    /// Makes tokens.
    Token,
    /// Signs certificates.
    Certificate,
}

impl Purpose {
    fn version(self) -> Option<u32> {
        if let Self::Version(number) = self { Some(number) } else { None }
    }
}

/// Format of the objects.
const FORMAT: u32 = 1;
/// KMS has so long to answer an attempt, of which there are three: without a bound one that is silent would hold everything up.
const ANSWER: Duration = Duration::from_secs(5);
/// Writers that may be faster, one after the other, before something else must be wrong.
const RACES_MAX: u32 = 10;

/// One key of `firn.yaml` that KMS wraps.
#[derive(Debug)]
pub struct KmsProvider {
    client: Client,
    store: Arc<dyn Store>,
    name: KeyName,
    key_id: String,
    context: BTreeMap<String, String>,
    reuse: Reuse,
}

/// A wrapped key, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    format: u32,
    key: KeyName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    created_at: DateTime<Utc>,
    /// The CMK that wrapped it, as KMS calls it.
    kms_key_id: String,
    encryption_context: BTreeMap<String, String>,
    /// Base64 of KMS's ciphertext blob.
    wrapped: String,
}

/// A client of KMS; no request is made yet, except what the credential chain needs.
///
/// # Errors
/// `Config` when there is no region.
pub async fn connect(options: &KmsOptions) -> Result<Client> {
    let KmsOptions { endpoint, region, credentials } = options;
    let connection = Connection {
        service: "KMS",
        section: "kms",
        endpoint: endpoint.as_deref(),
        region: region.as_deref(),
        credentials: credentials.as_ref(),
    };
    let config = aws_sdk_kms::config::Builder::from(&connection.load().await?);
    let timeouts = TimeoutConfig::builder().connect_timeout(ANSWER).operation_attempt_timeout(ANSWER).build();
    Ok(Client::from_conf(config.timeout_config(timeouts).build()))
}

impl KmsProvider {
    /// Keys called `name`, wrapped by the KMS key `key_id` and kept in `store`.
    pub fn new(
        client: Client,
        store: Arc<dyn Store>,
        name: KeyName,
        (key_id, context): (String, BTreeMap<String, String>),
        reuse: Reuse,
    ) -> Self {
        Self { client, store, name, key_id, context, reuse }
    }

    /// Where a wrapped key is kept.
    fn object(&self, of: Purpose) -> String {
        let name = &self.name;
        match of {
            Purpose::Version(number) => format!("{name}/versions/{number:010}.json"),
            Purpose::Token => format!("{name}/token.json"),
            Purpose::Certificate => format!("{name}/certificate.json"),
        }
    }

    /// The number of the newest version in the store.
    async fn last(&self) -> Result<Option<u32>> {
        let prefix = format!("{}/versions/", self.name);
        let (mut last, mut after) = (None, None);
        loop {
            let page = self.store.list(&prefix, after.as_deref(), Depth::All).await?;
            let numbers = page
                .objects
                .iter()
                .filter_map(|o| o.key.strip_prefix(&prefix)?.strip_suffix(".json")?.parse::<u32>().ok());
            last = numbers.max().max(last);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(last),
            }
        }
    }

    /// What KMS ties a data key to; it must be told the same to unwrap it, and writes it into its audit log.
    fn context_of(&self, of: Purpose) -> BTreeMap<String, String> {
        let name = self.name.to_string();
        let ours = match of {
            Purpose::Version(number) => [("firn:key", name), ("firn:version", number.to_string())],
            Purpose::Token => [("firn:key", name), ("firn:version", "token".to_owned())],
            Purpose::Certificate => [("firn:purpose", "certificate".to_owned()), ("firn:signer", name)],
        };
        let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.context.clone().into_iter().chain(ours).collect()
    }

    /// A new data key, and what is stored of it.
    async fn make(&self, of: Purpose, now: DateTime<Utc>) -> Result<(KeyBytes, StoredKey)> {
        let context = self.context_of(of);
        let mut request = self.client.generate_data_key().key_id(&self.key_id).key_spec(DataKeySpec::Aes256);
        for (name, value) in &context {
            request = request.encryption_context(name, value);
        }
        let made = request.send().await.map_err(|e| self.failed("make a data key", &e))?;
        let plaintext = Zeroizing::new(made.plaintext.map(Blob::into_inner).unwrap_or_default());
        let key =
            KeyBytes::from_slice(&plaintext).ok_or_else(|| Error::data("KMS made a data key of another length"))?;
        let wrapped = StoredKey {
            format: FORMAT,
            key: self.name.clone(),
            version: of.version(),
            created_at: now,
            kms_key_id: made.key_id.unwrap_or_else(|| self.key_id.clone()),
            encryption_context: context,
            wrapped: STANDARD.encode(made.ciphertext_blob.map(Blob::into_inner).unwrap_or_default()),
        };
        Ok((key, wrapped))
    }

    async fn put(&self, object: &str, wrapped: &StoredKey) -> Result<PutOutcome> {
        let body =
            serde_json::to_vec_pretty(wrapped).map_err(|e| Error::bug("a wrapped key is JSON").with_source(e))?;
        self.store.put(object, body.into(), PutMode::Create).await
    }

    /// Unwraps a key of the store, which must be the one it is asked for as.
    async fn open(&self, of: Purpose) -> Result<(KeyBytes, DateTime<Utc>)> {
        let object = self.object(of);
        let place = || format!("{}/{object}", self.store.url());
        let body = self.store.get(&object).await?;
        let wrapped: StoredKey = serde_json::from_slice(&body)
            .map_err(|e| Error::data(format!("{} is no wrapped key of Firn: {e}", place())).with_source(e))?;
        let context = self.context_of(of);
        expect(&wrapped, (&self.name, of.version(), &context))
            .map_err(|what| Error::data(format!("{} {what}", place())))?;
        let blob = STANDARD.decode(&wrapped.wrapped).map_err(|e| {
            Error::data(format!("{} is no wrapped key of Firn: `wrapped` is not base64", place())).with_source(e)
        })?;
        // By the configured key, not by the one that the object names: KMS refuses what any other has wrapped.
        let mut request = self.client.decrypt().key_id(&self.key_id).ciphertext_blob(Blob::new(blob));
        for (name, value) in &context {
            request = request.encryption_context(name, value);
        }
        let opened = request.send().await.map_err(|e| {
            let by = &wrapped.kms_key_id;
            self.failed(&format!("unwrap {}, which says that {by} has wrapped it,", place()), &e)
        })?;
        let plaintext = Zeroizing::new(opened.plaintext.map(Blob::into_inner).unwrap_or_default());
        let key = KeyBytes::from_slice(&plaintext)
            .ok_or_else(|| Error::data(format!("{} holds a key of another length", place())))?;
        Ok((key, wrapped.created_at))
    }

    /// A key that is made once and stays.
    async fn once(&self, of: Purpose, now: DateTime<Utc>) -> Result<KeyBytes> {
        let object = self.object(of);
        if self.store.head(&object).await?.is_none() {
            let (key, wrapped) = self.make(of, now).await?;
            if self.put(&object, &wrapped).await? == PutOutcome::Written {
                return Ok(key);
            }
        }
        self.open(of).await.map(|(key, _)| key)
    }

    async fn create(&self, number: u32, now: DateTime<Utc>) -> Result<Option<KeyVersion>> {
        let of = Purpose::Version(number);
        let (key, wrapped) = self.make(of, now).await?;
        match self.put(&self.object(of), &wrapped).await? {
            PutOutcome::Written => {
                tracing::info!(key = %self.name, version = number, "made a version of a key");
                Ok(Some(KeyVersion { number, key, created: Some(now) }))
            }
            PutOutcome::AlreadyExists => Ok(None),
        }
    }

    /// What went wrong, and whether it may pass.
    fn failed<E>(&self, what: &str, error: &SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (kind, said) = match (error, silence(error)) {
            (_, Some(silence)) => silence.of(chain(error)),
            (SdkError::ServiceError(refusal), None) => {
                let code = refusal.err().code().unwrap_or("unknown error");
                let message = refusal.err().message().unwrap_or_default();
                let (kind, remedy) = refused(code, refusal.raw().status().as_u16());
                (kind, [code, ": ", message, remedy].concat())
            }
            (other, None) => (ErrorKind::Unavailable, other.to_string()),
        };
        let (name, key_id) = (&self.name, &self.key_id);
        Error::new(kind, format!("cannot {what} for key {name} with KMS key {key_id}: {said}"))
    }
}

#[async_trait]
impl KeyProvider for KmsProvider {
    async fn newest(&self, now: DateTime<Utc>) -> Result<KeyVersion> {
        for _ in 0..RACES_MAX {
            let next = match self.last().await? {
                None => 1,
                Some(number) => {
                    let (key, created) = self.open(Purpose::Version(number)).await?;
                    if (now - created).to_std().unwrap_or_default() < self.reuse.age {
                        return Ok(KeyVersion { number, key, created: Some(created) });
                    }
                    number + 1
                }
            };
            if let Some(made) = self.create(next, now).await? {
                return Ok(made);
            }
        }
        Err(Error::conflict(format!("{RACES_MAX} others made a version of key {} first; run again", self.name)))
    }

    async fn renew(&self, than: u32, now: DateTime<Utc>) -> Result<Option<KeyVersion>> {
        for _ in 0..RACES_MAX {
            if let Some(number) = self.last().await?.filter(|number| *number > than) {
                return self.version(number).await.map(Some);
            }
            if let Some(made) = self.create(than + 1, now).await? {
                return Ok(Some(made));
            }
        }
        Err(Error::conflict(format!("{RACES_MAX} others made a version of key {} first; run again", self.name)))
    }

    async fn version(&self, number: u32) -> Result<KeyVersion> {
        let (key, created) = self.open(Purpose::Version(number)).await?;
        Ok(KeyVersion { number, key, created: Some(created) })
    }

    async fn token(&self, now: DateTime<Utc>) -> Result<KeyBytes> {
        self.once(Purpose::Token, now).await
    }

    async fn signing(&self, now: DateTime<Utc>) -> Result<KeyBytes> {
        self.once(Purpose::Certificate, now).await
    }
}

/// What a refusal of KMS means, and what to do about it.
fn refused(code: &str, status: u16) -> (ErrorKind, &'static str) {
    let passes = ["Throttling", "Timeout", "LimitExceeded", "Expired"].iter().any(|sort| code.contains(sort));
    match code {
        "InvalidCiphertextException" | "IncorrectKeyException" => {
            (ErrorKind::Data, "; another KMS key has wrapped it, or it is damaged")
        }
        _ if passes || status >= 500 => (ErrorKind::Unavailable, ""),
        "AccessDeniedException" => {
            (ErrorKind::Config, "; allow it in the role's policy and in the key's, with this encryption context")
        }
        "NotFoundException" => (ErrorKind::Config, "; is it in this account and region?"),
        "DisabledException" => (ErrorKind::Config, "; enable the key"),
        "KMSInvalidStateException" => (ErrorKind::Config, "; enable the key, or cancel its deletion"),
        _ => (ErrorKind::Config, ""),
    }
}

/// Whether a stored key is the one that was asked for; else what it is.
fn expect(
    stored: &StoredKey,
    (key, version, context): (&KeyName, Option<u32>, &BTreeMap<String, String>),
) -> std::result::Result<(), String> {
    if stored.format != FORMAT {
        return Err(format!("has format {}; a newer Firn wrote it", stored.format));
    }
    if (&stored.key, stored.version) != (key, version) {
        let number = |version: Option<u32>| version.map_or_else(String::new, |number| format!(" version {number}"));
        let (theirs, ours) = (number(stored.version), number(version));
        return Err(format!(
            "holds key {}{theirs}, where key {key}{ours} belongs; somebody has put it there",
            stored.key
        ));
    }
    if stored.encryption_context != *context {
        return Err(format!(
            "was wrapped for another purpose: its encryption context is {:?}, expected is {context:?}",
            stored.encryption_context
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key: &str, version: Option<u32>, context: &[(&str, &str)]) -> StoredKey {
        StoredKey {
            format: FORMAT,
            key: key.parse().unwrap(),
            version,
            created_at: DateTime::UNIX_EPOCH,
            kms_key_id: "arn:aws:kms:eu-central-1:1:key/1".to_owned(),
            encryption_context: context.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            wrapped: "AAAA".to_owned(),
        }
    }

    /// The key and version that were asked for, with everything that a stored one may say.
    #[test]
    fn a_key_that_belongs_elsewhere_is_refused() {
        let people = [("firn:key", "people"), ("firn:version", "3"), ("team", "shop")];
        let expected = stored("people", Some(3), &people).encryption_context;
        let check = |stored: &StoredKey| expect(stored, (&"people".parse().unwrap(), Some(3), &expected));
        assert_eq!(check(&stored("people", Some(3), &people)), Ok(()));
        let public = [("firn:key", "public"), ("firn:version", "1"), ("team", "shop")];
        for (foreign, why) in [
            (stored("public", Some(1), &public), "holds key public version 1, where key people version 3 belongs"),
            (stored("people", Some(2), &people), "holds key people version 2"),
            (stored("people", None, &people), "holds key people, where key people version 3 belongs"),
            (stored("people", Some(3), &public), "was wrapped for another purpose"),
            (stored("people", Some(3), &people[..2]), "was wrapped for another purpose"),
            (StoredKey { format: 2, ..stored("people", Some(3), &people) }, "has format 2"),
        ] {
            assert!(check(&foreign).unwrap_err().contains(why), "{foreign:?}");
        }
    }
}
