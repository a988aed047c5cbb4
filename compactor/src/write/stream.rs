//! Rows that are read on the runtime, written by a thread of their own.

use arrow_array::RecordBatch;
use firn_shared::error::{Error, Result};
use futures::{Stream, TryStreamExt};
use tokio::sync::mpsc;

use super::{DataWriter, WriteSpec};
use crate::table::NewFile;

/// Batches that may wait between reading and encoding.
const BATCHES: usize = 2;

/// Writes all rows of a stream. Encoding is synchronous and waits for uploads, so it has a thread of its own.
///
/// # Errors
/// Those of the stream and of [`DataWriter`]; files that were written before are orphans.
pub async fn write_stream(spec: WriteSpec, rows: impl Stream<Item = Result<RecordBatch>>) -> Result<Vec<NewFile>> {
    let (sender, mut receiver) = mpsc::channel::<RecordBatch>(BATCHES);
    let writing = tokio::task::spawn_blocking(move || -> Result<Vec<NewFile>> {
        let mut writer = DataWriter::new(spec)?;
        while let Some(batch) = receiver.blocking_recv() {
            writer.write(&batch)?;
        }
        writer.finish()
    });
    let read: Result<()> = async {
        futures::pin_mut!(rows);
        while let Some(batch) = rows.try_next().await? {
            // A writer that ended early says why itself.
            if batch.num_rows() > 0 && sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    }
    .await;
    drop(sender);
    let written = writing.await.map_err(|e| Error::bug("the writing thread died").with_source(e))?;
    read.and(written)
}
