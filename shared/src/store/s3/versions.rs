//! Buckets that keep versions: what is replaced or deleted there stays until its version is deleted by its id.

use aws_sdk_s3::types::BucketVersioningStatus;

use super::S3Store;
use super::failure::{Class, Failure};
use crate::error::Result;

/// A version of an object, or a delete marker.
struct Version {
    id: String,
    latest: bool,
    marker: bool,
}

impl S3Store {
    /// Whether versions are kept now, or have been: where that was suspended, older ones are still there.
    pub(super) async fn has_versions(&self) -> Result<bool> {
        let bucket = &self.0;
        let answer = bucket
            .try_call(|_| async {
                let request = bucket.client.sdk.get_bucket_versioning().bucket(&bucket.name);
                request.send().await.map_err(Failure::from_sdk)
            })
            .await;
        match answer {
            Ok(answer) => {
                Ok(matches!(answer.status(), Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)))
            }
            // Servers that know no versions keep none.
            Err(failure) if failure.class == Class::Refused && failure.text.contains("NotImplemented") => Ok(false),
            Err(failure) => Err(bucket.error("ask for the versioning of", "", failure)),
        }
    }

    /// Deletes all versions of an object by their ids, the newest last: whoever looks after a crash still finds it. Says how
    /// many were there besides the object itself.
    pub(super) async fn delete_all(&self, key: &str) -> Result<u64> {
        let mut versions = self.versions(key).await?;
        versions.sort_by_key(|version| version.latest);
        for version in &versions {
            self.delete_version(key, &version.id).await?;
        }
        Ok(versions.iter().filter(|version| !version.latest || version.marker).count() as u64)
    }

    async fn versions(&self, key: &str) -> Result<Vec<Version>> {
        let bucket = &self.0;
        let (mut found, mut from) = (Vec::new(), (None::<String>, None::<String>));
        loop {
            let answer = bucket
                .call("list the versions of", key, |_| async {
                    let request = bucket.client.sdk.list_object_versions().bucket(&bucket.name).prefix(key);
                    let request = request.set_key_marker(from.0.clone()).set_version_id_marker(from.1.clone());
                    request.send().await.map_err(Failure::from_sdk)
                })
                .await?;
            let versions = answer.versions().iter().map(|v| (v.key(), v.version_id(), v.is_latest(), false));
            let markers = answer.delete_markers().iter().map(|m| (m.key(), m.version_id(), m.is_latest(), true));
            for (_, id, latest, marker) in versions.chain(markers).filter(|(of, ..)| *of == Some(key)) {
                let (id, latest) = (id.unwrap_or("null").to_owned(), latest.unwrap_or_default());
                found.push(Version { id, latest, marker });
            }
            // Keys come in their order: those that only begin with ours come after it.
            let next = answer.next_key_marker().map(str::to_owned);
            if answer.is_truncated() != Some(true) || next.as_deref() != Some(key) {
                return Ok(found);
            }
            from = (next, answer.next_version_id_marker().map(str::to_owned));
        }
    }

    async fn delete_version(&self, key: &str, id: &str) -> Result<()> {
        let bucket = &self.0;
        let deleted = bucket
            .try_call(|_| async {
                let request = bucket.client.sdk.delete_object().bucket(&bucket.name).key(key).version_id(id);
                request.send().await.map_err(Failure::from_sdk)
            })
            .await;
        match deleted {
            Err(failure) if failure.class != Class::Missing => Err(bucket.error("delete a version of", key, failure)),
            _ => Ok(()),
        }
    }
}
