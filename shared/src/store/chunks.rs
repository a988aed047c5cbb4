//! Streaming reads of large objects.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};

use super::Store;
use crate::error::{Error, Result};

/// The object in pieces of `chunk` bytes (the last may be shorter), in order, by ranged reads.
///
/// Two pieces are in flight or waiting at most, so memory is bounded by `2 * chunk` whatever the object's size. An empty
/// object gives an empty stream.
///
/// # Errors
/// `Data` when there is no such object, or when the pieces do not add up to the size it had at the start.
pub async fn read_chunks(
    store: Arc<dyn Store>,
    key: &str,
    chunk: u64,
) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
    let url = format!("{}/{key}", store.url());
    let Some(meta) = store.head(key).await? else {
        return Err(Error::data(format!("cannot read {url}: no such object")));
    };
    let chunk = chunk.max(1);
    let starts = (0..meta.size.div_ceil(chunk)).map(move |i| i * chunk);
    let key = key.to_owned();
    Ok(stream::iter(starts)
        .map(move |start| {
            let (store, key, url) = (Arc::clone(&store), key.clone(), url.clone());
            let end = (start + chunk).min(meta.size);
            async move {
                let bytes = store.get_range(&key, start..end).await?;
                if bytes.len() as u64 != end - start {
                    return Err(Error::data(format!(
                        "cannot read {url}: bytes {start}..{end} came back as {} bytes; the object changed while it was \
                         read or is damaged",
                        bytes.len()
                    )));
                }
                Ok(bytes)
            }
        })
        .buffered(2)
        .into_stream())
}
