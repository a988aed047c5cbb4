//! A bucket, through the AWS SDK.
//!
//! The SDK signs, sends and checks checksums; its own retries are off. [`retry`] repeats instead, because it also covers
//! reading the body of an answer, and because a conditional put must know that an earlier attempt may have got through:
//! such an attempt is recognised by an id that every create carries in its object's metadata (see [`S3Store::put`]).
//!
//! [`client`] makes the connection, [`failure`] says what an error of the SDK means, [`writer`] uploads in parts,
//! [`versions`] deletes what a bucket keeps of deleted objects.

mod client;
mod failure;
mod retry;
mod versions;
mod writer;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::ServerSideEncryption;
use bytes::Bytes;

pub use self::client::{S3Client, S3Limits};
use self::failure::{Class, Failure};
use self::retry::retry;
use self::writer::S3Writer;
use super::{Depth, ObjectMeta, ObjectWriter, Page, PutMode, PutOutcome, Store};
use crate::error::{Error, Result};

/// Metadata (`x-amz-meta-…`) that tells which call wrote an object.
const WRITTEN_BY: &str = "firn-put";

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// A bucket.
#[derive(Debug, Clone)]
pub struct S3Store(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    client: S3Client,
    name: String,
    url: String,
    /// Some request has found the bucket. Until then a missing object may be a missing bucket.
    seen: AtomicBool,
}

impl S3Store {
    /// A bucket, reached by `client`. Whether it exists shows at the first request.
    #[must_use]
    pub fn new(client: S3Client, bucket: &str) -> Self {
        let (name, url) = (bucket.to_owned(), format!("s3://{bucket}"));
        Self(Arc::new(Bucket { client, name, url, seen: AtomicBool::new(false) }))
    }

    /// The id of the KMS key an object is encrypted with, if it is.
    ///
    /// # Errors
    /// As [`Store::head`]; `Data` when there is no such object.
    pub async fn kms_key_of(&self, key: &str) -> Result<Option<String>> {
        let head = self.0.head(key).await?;
        let head = head.ok_or_else(|| Error::data(format!("cannot look at {}/{key}: no such object", self.0.url)))?;
        Ok(head.ssekms_key_id)
    }

    /// How many uploads in parts are unfinished below a prefix (1,000 at most are counted).
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn unfinished_uploads(&self, prefix: &str) -> Result<usize> {
        let bucket = &self.0;
        let answer = bucket
            .call("list uploads", prefix, |_| async {
                let request = bucket.client.sdk.list_multipart_uploads().bucket(&bucket.name).prefix(prefix);
                request.send().await.map_err(Failure::from_sdk)
            })
            .await?;
        Ok(answer.uploads().len())
    }
}

impl Bucket {
    /// Runs `attempt` until it succeeds or repeating it is useless.
    async fn call<T, Fut>(&self, operation: &str, key: &str, attempt: impl FnMut(u32) -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T, Failure>>,
    {
        self.try_call(attempt).await.map_err(|failure| self.error(operation, key, failure))
    }

    async fn try_call<T, Fut>(&self, attempt: impl FnMut(u32) -> Fut) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<T, Failure>>,
    {
        let done = retry(&self.client.limits, attempt).await;
        if done.is_ok() {
            self.seen.store(true, Ordering::Relaxed);
        }
        done
    }

    fn error(&self, operation: &str, key: &str, failure: Failure) -> Error {
        failure.into_error(operation, &self.name, key)
    }

    /// What the bucket says of an object, or `None` when it has none.
    async fn head(&self, key: &str) -> Result<Option<aws_sdk_s3::operation::head_object::HeadObjectOutput>> {
        let answer = self
            .try_call(|_| async {
                let request = self.client.sdk.head_object().bucket(&self.name).key(key);
                request.send().await.map_err(Failure::from_sdk)
            })
            .await;
        match answer {
            Ok(head) => Ok(Some(head)),
            Err(failure) if failure.class == Class::Missing => {
                self.must_exist().await?;
                Ok(None)
            }
            Err(failure) => Err(self.error("look at", key, failure)),
        }
    }

    /// The answer to HEAD has no body, so that "no such object" and "no such bucket" look alike: this tells them apart.
    async fn must_exist(&self) -> Result<()> {
        if self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let answer = self
            .try_call(|_| async {
                let request = self.client.sdk.head_bucket().bucket(&self.name);
                request.send().await.map_err(Failure::from_sdk)
            })
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(mut failure) => {
                if failure.class == Class::Missing {
                    failure.class = Class::MissingBucket;
                }
                Err(self.error("look at", "", failure))
            }
        }
    }

    /// Bytes of an object, checked against the length the answer announces.
    async fn read(&self, key: &str, range: Option<&Range<u64>>) -> Result<Bytes, Failure> {
        self.try_call(|_| async {
            let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
            let request = self.client.sdk.get_object().bucket(&self.name).key(key).set_range(header);
            let answer = request.send().await.map_err(Failure::from_sdk)?;
            let announced = answer.content_length().unwrap_or_default();
            let whole = answer.content_range().is_none();
            let body = answer.body.collect().await.map_err(Failure::cut)?.into_bytes();
            if body.len() as i64 != announced {
                return Err(Failure::cut(format!("{} bytes came of {announced}", body.len())));
            }
            Ok(match range {
                // A server may answer a range request with all of the object.
                Some(range) if whole => {
                    let end = range.end.min(body.len() as u64);
                    body.slice(range.start.min(end) as usize..end as usize)
                }
                _ => body,
            })
        })
        .await
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        let key = self.client.sse_kms_key_id.clone();
        (key.as_ref().map(|_| ServerSideEncryption::AwsKms), key)
    }

    /// Whether the object under `key` was written by the call with this id.
    async fn written_by(&self, key: &str, id: &str) -> Result<bool> {
        let head = self.head(key).await?;
        Ok(head.is_some_and(|head| head.metadata().and_then(|meta| meta.get(WRITTEN_BY)).is_some_and(|by| by == id)))
    }

    /// Uploads in one request.
    async fn put_whole(&self, key: &str, body: &Bytes, mode: PutMode) -> Result<PutOutcome> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let answer = self
            .try_call(|_| {
                let (sse, kms_key) = self.encryption();
                let request = self
                    .client
                    .sdk
                    .put_object()
                    .bucket(&self.name)
                    .key(key)
                    .set_if_none_match((mode == PutMode::Create).then(|| "*".to_owned()))
                    .metadata(WRITTEN_BY, &id)
                    .set_server_side_encryption(sse)
                    .set_ssekms_key_id(kms_key)
                    .body(ByteStream::from(body.clone()));
                async { request.send().await.map_err(Failure::from_sdk) }
            })
            .await;
        match answer {
            Ok(_) => Ok(PutOutcome::Written),
            Err(failure) if failure.class == Class::Precondition && mode == PutMode::Create => {
                if failure.attempts > 1 && self.written_by(key, &id).await? {
                    tracing::warn!(url = %self.url, key, "an earlier attempt of this create had succeeded");
                    return Ok(PutOutcome::Written);
                }
                Ok(PutOutcome::AlreadyExists)
            }
            Err(failure) => Err(self.error("write", key, failure)),
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> &str {
        &self.0.url
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        check_key("read", &self.0, key)?;
        self.0.read(key, None).await.map_err(|failure| self.0.error("read", key, failure))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_key("read", &self.0, key)?;
        if range.is_empty() {
            // HTTP cannot ask for nothing; the object must exist all the same.
            let missing = || Error::data(format!("cannot read {}/{key}: no such object", self.0.url));
            return self.0.head(key).await?.map(|_| Bytes::new()).ok_or_else(missing);
        }
        match self.0.read(key, Some(&range)).await {
            Err(failure) if failure.class == Class::RangePastEnd => Ok(Bytes::new()),
            other => other.map_err(|failure| self.0.error("read", key, failure)),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        check_key("look at", &self.0, key)?;
        let head = self.0.head(key).await?;
        Ok(head.map(|head| ObjectMeta {
            key: key.to_owned(),
            size: head.content_length().unwrap_or_default() as u64,
            modified: time(head.last_modified()),
        }))
    }

    /// A create goes up in one request with `If-None-Match: *` (5 GB at most): one winner, decided by the server.
    ///
    /// When its reply was lost and the repetition is told that the key is taken, the taker may be the first attempt.
    /// Each call marks its object with an id of its own, so looking at the mark decides it, whatever the content: with
    /// our mark the object is ours and whole; with another it is somebody else's, and no attempt of ours can still
    /// replace it, because each carries the condition.
    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        check_key("write", &self.0, key)?;
        if mode == PutMode::Create || body.len() <= self.0.client.limits.part_bytes {
            return self.0.put_whole(key, &body, mode).await;
        }
        let mut writer = Box::new(S3Writer::new(Arc::clone(&self.0), key));
        writer.write(body).await?;
        writer.close().await.map(|_| PutOutcome::Written)
    }

    async fn writer(&self, key: &str) -> Result<Box<dyn ObjectWriter>> {
        check_key("write", &self.0, key)?;
        Ok(Box::new(S3Writer::new(Arc::clone(&self.0), key)))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, depth: Depth) -> Result<Page> {
        let bucket = &self.0;
        let from = start_after.map(|after| skip_group(prefix, after, depth));
        let answer = bucket
            .call("list", prefix, |_| async {
                let request = bucket
                    .client
                    .sdk
                    .list_objects_v2()
                    .bucket(&bucket.name)
                    .prefix(prefix)
                    .set_start_after(from.clone())
                    .set_delimiter((depth == Depth::One).then(|| "/".to_owned()));
                request.send().await.map_err(Failure::from_sdk)
            })
            .await?;
        let objects: Vec<ObjectMeta> = answer
            .contents()
            .iter()
            .map(|object| ObjectMeta {
                key: object.key().unwrap_or_default().to_owned(),
                size: object.size().unwrap_or_default() as u64,
                modified: time(object.last_modified()),
            })
            .collect();
        let groups = answer.common_prefixes().iter().filter_map(|group| group.prefix());
        let mut prefixes: Vec<String> = groups.map(str::to_owned).collect();
        let next = if answer.is_truncated() == Some(true) {
            objects.last().map(|object| &object.key).max(prefixes.last()).cloned()
        } else {
            None
        };
        // A group that `start_after` lies in was listed by an earlier page.
        prefixes.retain(|group| start_after.is_none_or(|after| group.as_str() > after));
        Ok(Page { objects, prefixes, next })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_key("delete", &self.0, key)?;
        let bucket = &self.0;
        let request = |_| async {
            let request = bucket.client.sdk.delete_object().bucket(&bucket.name).key(key);
            request.send().await.map_err(Failure::from_sdk)
        };
        match bucket.try_call(request).await {
            Err(failure) if failure.class != Class::Missing => Err(bucket.error("delete", key, failure)),
            _ => Ok(()),
        }
    }

    async fn keeps_versions(&self) -> Result<bool> {
        self.has_versions().await
    }

    async fn purge(&self, key: &str) -> Result<u64> {
        check_key("delete", &self.0, key)?;
        self.delete_all(key).await
    }
}

/// Where a listing has to start so that it does not come to the group that `after` lies in again: behind the last
/// character there is. Only an optimisation; what comes all the same is left out.
fn skip_group(prefix: &str, after: &str, depth: Depth) -> String {
    let rest = after.strip_prefix(prefix).filter(|_| depth == Depth::One);
    match rest.and_then(|rest| rest.find('/')) {
        Some(slash) => format!("{}\u{10FFFD}", &after[..=prefix.len() + slash]),
        None => after.to_owned(),
    }
}

/// The rules of keys; control characters cannot be listed (XML has no place for them).
fn check_key(operation: &str, bucket: &Bucket, key: &str) -> Result<()> {
    let rule = if key.is_empty() || key.len() > KEY_BYTES_MAX {
        "a key has 1 to 1024 bytes"
    } else if key.contains(char::is_control) {
        "a key must not hold control characters"
    } else {
        return Ok(());
    };
    Err(Error::data(format!("cannot {operation} {}/{}: {rule}", bucket.url, key.escape_debug())))
}

fn time(at: Option<&DateTime>) -> chrono::DateTime<chrono::Utc> {
    at.and_then(|at| chrono::DateTime::from_timestamp(at.secs(), at.subsec_nanos())).unwrap_or_default()
}
