//! Streaming reads of large objects.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream};
use tokio::task::JoinSet;

use super::Store;
use crate::error::{Error, Result};

/// The object in pieces of `chunk` bytes (the last may be shorter), in order, by ranged reads.
///
/// While the caller works on a piece the next is on its way, so that two are held at most, whatever the object's size.
/// An empty object gives an empty stream; after an error the stream ends.
///
/// # Errors
/// `Data` when there is no such object, or when the pieces do not add up to the size it had at the start.
pub async fn read_chunks(
    store: Arc<dyn Store>,
    key: &str,
    chunk: u64,
) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
    let Some(meta) = store.head(key).await? else {
        return Err(Error::data(format!("cannot read {}/{key}: no such object", store.url())));
    };
    let chunk = chunk.max(1);
    let mut reader = Reader { store, key: key.to_owned(), size: meta.size, chunk, position: 0, ahead: JoinSet::new() };
    reader.read_ahead();
    Ok(stream::try_unfold(reader, async |mut reader: Reader| {
        let Some(read) = reader.ahead.join_next().await else { return Ok(None) };
        let piece = read.map_err(|e| Error::bug(format!("reading {} panicked: {e}", reader.key)))??;
        reader.read_ahead();
        Ok(Some((piece, reader)))
    }))
}

struct Reader {
    store: Arc<dyn Store>,
    key: String,
    size: u64,
    chunk: u64,
    /// Where the piece after the one on its way begins.
    position: u64,
    /// The piece on its way; stopped when the reader is dropped.
    ahead: JoinSet<Result<Bytes>>,
}

impl Reader {
    fn read_ahead(&mut self) {
        let (start, end) = (self.position, self.size.min(self.position.saturating_add(self.chunk)));
        if start < end {
            self.position = end;
            self.ahead.spawn(read_piece(Arc::clone(&self.store), self.key.clone(), start, end));
        }
    }
}

async fn read_piece(store: Arc<dyn Store>, key: String, start: u64, end: u64) -> Result<Bytes> {
    let piece = store.get_range(&key, start..end).await?;
    if piece.len() as u64 == end - start {
        return Ok(piece);
    }
    Err(Error::data(format!(
        "cannot read {}/{key}: bytes {start}..{end} came back as {} bytes; the object changed while it was read or is \
         damaged",
        store.url(),
        piece.len()
    )))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::error::ErrorKind;
    use crate::store::{LocalStore, PutMode};

    #[tokio::test]
    async fn an_object_that_shrinks_while_it_is_read_is_bad_data() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(dir.path()).unwrap());
        let _ = store.put("o", vec![1; 100].into(), PutMode::Create).await.unwrap();
        let mut chunks = Box::pin(read_chunks(Arc::clone(&store), "o", 40).await.unwrap());
        assert_eq!(chunks.next().await.unwrap().unwrap().len(), 40);
        let _ = store.put("o", vec![1; 10].into(), PutMode::Overwrite).await.unwrap();
        let mut error = None;
        while let Some(piece) = chunks.next().await {
            error = piece.err();
        }
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("the object changed while it was read"), "{error}");
    }
}
