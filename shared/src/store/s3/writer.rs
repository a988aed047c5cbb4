//! Objects that go up in parts.
//!
//! Pieces are gathered into parts of a fixed size; full parts go up while the next is gathered, a bounded number at a
//! time. The upload begins with the first full part, so a small object is one plain put. Nothing is visible before the
//! completing request. A writer that is dropped or fails gives its upload up; a process that dies leaves it to the
//! bucket's life-cycle rule for incomplete uploads.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::failure::{Class, Failure};
use super::{Bucket, WRITTEN_BY};
use crate::error::{Error, Result};
use crate::store::{ObjectWriter, PutMode};

/// Parts of one object at most, as on AWS.
const PARTS_MAX: i32 = 10_000;

pub(super) struct S3Writer {
    bucket: Arc<Bucket>,
    key: String,
    /// Marks the object as written by this writer.
    id: String,
    /// The part being gathered.
    part: BytesMut,
    size: u64,
    upload: Option<Upload>,
    /// A part did not get up: the object cannot become whole.
    failed: bool,
}

struct Upload {
    id: String,
    running: JoinSet<Result<CompletedPart>>,
    done: BTreeMap<i32, CompletedPart>,
    last_number: i32,
}

impl S3Writer {
    pub(super) fn new(bucket: Arc<Bucket>, key: &str) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { bucket, key: key.to_owned(), id, part: BytesMut::new(), size: 0, upload: None, failed: false }
    }

    /// Begins the upload.
    async fn begin(&self) -> Result<Upload> {
        let bucket = &self.bucket;
        let answer = bucket
            .call("begin the upload of", &self.key, |_| {
                let (sse, kms_key) = bucket.encryption();
                let request = bucket
                    .client
                    .sdk
                    .create_multipart_upload()
                    .bucket(&bucket.name)
                    .key(&self.key)
                    .metadata(WRITTEN_BY, &self.id)
                    .checksum_algorithm(ChecksumAlgorithm::Crc32)
                    .set_server_side_encryption(sse)
                    .set_ssekms_key_id(kms_key);
                async { request.send().await.map_err(Failure::from_sdk) }
            })
            .await?;
        let id = answer.upload_id().unwrap_or_default().to_owned();
        if id.is_empty() {
            return Err(Error::unavailable(format!(
                "cannot begin the upload of {}/{}: the server gave it no id",
                bucket.url, self.key
            )));
        }
        Ok(Upload { id, running: JoinSet::new(), done: BTreeMap::new(), last_number: 0 })
    }

    /// Sends the gathered part on its way, once there is room.
    async fn send_part(&mut self, body: Bytes) -> Result<()> {
        let parts_max = self.bucket.client.limits.parts.max(1);
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => self.begin().await?,
        };
        let mut sent = Ok(());
        while sent.is_ok() && upload.running.len() >= parts_max {
            sent = upload.join_one().await;
        }
        if sent.is_ok() && upload.last_number == PARTS_MAX {
            sent =
                Err(Error::data(format!("cannot write {}/{}: more than {PARTS_MAX} parts", self.bucket.url, self.key)));
        }
        if sent.is_ok() {
            upload.last_number += 1;
            let part =
                put_part(Arc::clone(&self.bucket), self.key.clone(), upload.id.clone(), upload.last_number, body);
            upload.running.spawn(part);
        }
        self.failed |= sent.is_err();
        self.upload = Some(upload);
        sent
    }

    /// Completes the upload.
    async fn complete(&self, upload: &mut Upload) -> Result<()> {
        while !upload.running.is_empty() {
            upload.join_one().await?;
        }
        let bucket = &self.bucket;
        let parts: Vec<CompletedPart> = upload.done.values().cloned().collect();
        let answer = bucket
            .try_call(|_| {
                let request = bucket
                    .client
                    .sdk
                    .complete_multipart_upload()
                    .bucket(&bucket.name)
                    .key(&self.key)
                    .upload_id(&upload.id)
                    .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts.clone())).build());
                async { request.send().await.map_err(Failure::from_sdk) }
            })
            .await;
        match answer {
            Ok(_) => Ok(()),
            // Completed by an attempt whose reply was lost, as the object's mark tells.
            Err(failure)
                if failure.attempts > 1
                    && matches!(failure.class, Class::MissingUpload | Class::Missing)
                    && bucket.written_by(&self.key, &self.id).await? =>
            {
                Ok(())
            }
            Err(failure) => Err(bucket.error("complete the upload of", &self.key, failure)),
        }
    }
}

impl Upload {
    async fn join_one(&mut self) -> Result<()> {
        if let Some(joined) = self.running.join_next().await {
            let part = joined.map_err(|e| Error::bug(format!("the upload of a part panicked: {e}")))??;
            self.done.insert(part.part_number().unwrap_or_default(), part);
        }
        Ok(())
    }
}

async fn put_part(bucket: Arc<Bucket>, key: String, upload: String, number: i32, body: Bytes) -> Result<CompletedPart> {
    let answer = bucket
        .call("upload a part of", &key, |_| {
            let request = bucket
                .client
                .sdk
                .upload_part()
                .bucket(&bucket.name)
                .key(&key)
                .upload_id(&upload)
                .part_number(number)
                .checksum_algorithm(ChecksumAlgorithm::Crc32)
                .body(ByteStream::from(body.clone()));
            async { request.send().await.map_err(Failure::from_sdk) }
        })
        .await?;
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(answer.e_tag().map(str::to_owned))
        .set_checksum_crc32(answer.checksum_crc32().map(str::to_owned))
        .build())
}

/// Gives an upload up. A part that is still on its way could outlive the request, so they are stopped first.
async fn give_up(bucket: Arc<Bucket>, key: String, mut upload: Upload) -> Result<()> {
    upload.running.shutdown().await;
    let answer = bucket
        .try_call(|_| {
            let request =
                bucket.client.sdk.abort_multipart_upload().bucket(&bucket.name).key(&key).upload_id(&upload.id);
            async { request.send().await.map_err(Failure::from_sdk) }
        })
        .await;
    match answer {
        Err(failure) if !matches!(failure.class, Class::MissingUpload | Class::Missing) => {
            Err(bucket.error("give up the upload of", &key, failure))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl ObjectWriter for S3Writer {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        let part_bytes = self.bucket.client.limits.part_bytes;
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = part_bytes - self.part.len();
            let piece = bytes.split_to(room.min(bytes.len()));
            if piece.len() == part_bytes {
                // A part by itself: no need to copy it together.
                self.send_part(piece).await?;
                continue;
            }
            self.part.extend_from_slice(&piece);
            if self.part.len() == part_bytes {
                let part = self.part.split().freeze();
                self.send_part(part).await?;
            }
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<u64> {
        if self.failed {
            return Err(Error::unavailable(format!(
                "cannot write {}/{}: an earlier part failed",
                self.bucket.url, self.key
            )));
        }
        let rest = self.part.split().freeze();
        if self.upload.is_none() {
            let _written = self.bucket.put_whole(&self.key, &rest, PutMode::Overwrite).await?;
            return Ok(self.size);
        }
        if !rest.is_empty() {
            self.send_part(rest).await?;
        }
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = self.complete(&mut upload).await
        {
            // Dropping the writer gives it up.
            self.upload = Some(upload);
            return Err(error);
        }
        Ok(self.size)
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        match self.upload.take() {
            Some(upload) => give_up(Arc::clone(&self.bucket), self.key.clone(), upload).await,
            None => Ok(()),
        }
    }
}

impl Drop for S3Writer {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let (bucket, key) = (Arc::clone(&self.bucket), std::mem::take(&mut self.key));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = give_up(bucket, key, upload).await {
                    tracing::warn!(%error, "an unfinished upload stays behind");
                }
            });
        }
    }
}
