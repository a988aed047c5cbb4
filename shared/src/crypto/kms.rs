//! Data keys from AWS KMS, wrapped. KMS makes a data key, and its wrapped form is kept in the store, so that every
//! process and every reader that KMS lets in finds the same key:
//! ```text
//! {store}/{key}/versions/0000000003.json   {"format":1,"key","version","createdAt","kmsKeyId","encryptionContext","wrapped"}
//! {store}/{key}/token.json                 the same without a version: the secret behind tokens, made once
//! ```
//! Objects are put only where there is none: of two processes that make a version at once, one wins and both use it. A
//! crash after KMS has answered leaves a data key that nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::provider::{KeyBytes, KeyProvider, KeyVersion};
use crate::aws::Connection;
use crate::config::domain::{KmsOptions, Reuse};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::KeyName;
use crate::store::{Depth, PutMode, PutOutcome, Store};

/// Format of the objects.
const FORMAT: u32 = 1;
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
    Ok(Client::new(&connection.load().await?))
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

    fn version_object(&self, number: u32) -> String {
        format!("{}/versions/{number:010}.json", self.name)
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
    fn context_of(&self, version: Option<u32>) -> BTreeMap<String, String> {
        let purpose = version.map_or_else(|| "token".to_owned(), |number| number.to_string());
        let ours = [("firn:key".to_owned(), self.name.to_string()), ("firn:version".to_owned(), purpose)];
        self.context.clone().into_iter().chain(ours).collect()
    }

    /// A new data key, and what is stored of it.
    async fn make(&self, version: Option<u32>, now: DateTime<Utc>) -> Result<(KeyBytes, StoredKey)> {
        let context = self.context_of(version);
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
            version,
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

    /// Unwraps a key of the store.
    async fn open(&self, object: &str) -> Result<(KeyBytes, DateTime<Utc>)> {
        let place = || format!("{}/{object}", self.store.url());
        let body = self.store.get(object).await?;
        let wrapped: StoredKey = serde_json::from_slice(&body)
            .map_err(|e| Error::data(format!("{} is no wrapped key of Firn: {e}", place())).with_source(e))?;
        if wrapped.format != FORMAT {
            return Err(Error::data(format!("{} has format {}; a newer Firn wrote it", place(), wrapped.format)));
        }
        let blob = STANDARD.decode(&wrapped.wrapped).map_err(|e| Error::data(place()).with_source(e))?;
        let mut request = self.client.decrypt().key_id(&wrapped.kms_key_id).ciphertext_blob(Blob::new(blob));
        for (name, value) in &wrapped.encryption_context {
            request = request.encryption_context(name, value);
        }
        let opened = request.send().await.map_err(|e| self.failed(&format!("unwrap {}", place()), &e))?;
        let plaintext = Zeroizing::new(opened.plaintext.map(Blob::into_inner).unwrap_or_default());
        let key = KeyBytes::from_slice(&plaintext)
            .ok_or_else(|| Error::data(format!("{} holds a key of another length", place())))?;
        Ok((key, wrapped.created_at))
    }

    async fn create(&self, number: u32, now: DateTime<Utc>) -> Result<Option<KeyVersion>> {
        let (key, wrapped) = self.make(Some(number), now).await?;
        match self.put(&self.version_object(number), &wrapped).await? {
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
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default();
        let kind = match code {
            "InvalidCiphertextException" | "IncorrectKeyException" => ErrorKind::Data,
            "AccessDeniedException"
            | "NotFoundException"
            | "DisabledException"
            | "InvalidKeyUsageException"
            | "KMSInvalidStateException"
            | "InvalidArnException"
            | "UnrecognizedClientException" => ErrorKind::Config,
            _ => ErrorKind::Unavailable,
        };
        let (name, key_id) = (&self.name, &self.key_id);
        Error::new(kind, format!("cannot {what} for key {name} with KMS key {key_id}: {}", DisplayErrorContext(error)))
    }
}

#[async_trait]
impl KeyProvider for KmsProvider {
    async fn newest(&self, now: DateTime<Utc>) -> Result<KeyVersion> {
        for _ in 0..RACES_MAX {
            let next = match self.last().await? {
                None => 1,
                Some(number) => {
                    let (key, created) = self.open(&self.version_object(number)).await?;
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
        let (key, created) = self.open(&self.version_object(number)).await?;
        Ok(KeyVersion { number, key, created: Some(created) })
    }

    async fn token(&self, now: DateTime<Utc>) -> Result<KeyBytes> {
        let object = format!("{}/token.json", self.name);
        if self.store.head(&object).await?.is_none() {
            let (key, wrapped) = self.make(None, now).await?;
            if self.put(&object, &wrapped).await? == PutOutcome::Written {
                return Ok(key);
            }
        }
        self.open(&object).await.map(|(key, _)| key)
    }
}
