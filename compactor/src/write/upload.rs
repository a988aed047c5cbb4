//! Bytes from a worker thread to the object store, through a small buffer.

use std::io;

use bytes::Bytes;
use firn_shared::error::{Error, Result};
use firn_shared::store::Stores;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Bytes go over in pieces of at most this size.
const PIECE: usize = 256 * 1024;
/// Pieces that may wait for the store.
const PIECES: usize = 4;

/// Bytes that wait for the store at most, besides what the store's own writer holds.
pub(super) const BUFFERED: u64 = (PIECE * (PIECES + 1)) as u64;

enum Message {
    Piece(Bytes),
    Close,
}

/// An object being uploaded; a [`io::Write`] that waits when the store is slow. Dropped without `close`, the upload is
/// given up and nothing becomes visible.
pub(super) struct Upload {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Message>,
    done: oneshot::Receiver<Result<u64>>,
}

/// The end of an upload, still to come.
pub(super) struct Pending(oneshot::Receiver<Result<u64>>);

impl Upload {
    /// Starts the upload of `url` on `runtime`.
    pub fn start(runtime: &Handle, stores: Stores, url: String) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (answer, done) = oneshot::channel();
        runtime.spawn(async move {
            // Nobody waits for the answer when the writer was dropped.
            let _ = answer.send(send(&stores, &url, receiver).await);
        });
        Self { buffer: Vec::new(), sender, done }
    }

    fn push(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended");
        self.sender.blocking_send(Message::Piece(piece.into())).map_err(gone)
    }

    /// Sends what is left and asks for the object to be made visible.
    pub fn close(&mut self) -> Pending {
        // When the upload has ended, its answer says why.
        if self.buffer.is_empty() || self.push().is_ok() {
            let _ = self.sender.blocking_send(Message::Close);
        }
        // Whoever asks for a failure from now on is told of none.
        Pending(std::mem::replace(&mut self.done, oneshot::channel().1))
    }

    /// Why the upload ended early.
    pub fn failure(&mut self) -> Option<Error> {
        self.done.try_recv().ok()?.err()
    }
}

impl io::Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A page may be larger than a piece; whoever writes comes again with the rest.
        let taken = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE {
            self.push()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pending {
    /// Whether `wait` would not wait.
    pub fn is_done(&self) -> bool {
        !self.0.is_empty() || self.0.is_terminated()
    }

    /// Waits for the end of the upload; its size in bytes. Not on a tokio worker.
    pub fn wait(self) -> Result<u64> {
        self.0.blocking_recv().map_err(|e| Error::unavailable("an upload was dropped").with_source(e))?
    }
}

async fn send(stores: &Stores, url: &str, mut pieces: mpsc::Receiver<Message>) -> Result<u64> {
    let (store, key) = stores.resolve(url).await?;
    let mut writer = store.writer(&key).await?;
    while let Some(message) = pieces.recv().await {
        match message {
            Message::Piece(bytes) => {
                if let Err(e) = writer.write(bytes).await {
                    // The first failure is the one to report; parts that stay behind are the bucket's to expire.
                    let _ = writer.abort().await;
                    return Err(e);
                }
            }
            Message::Close => return writer.close().await,
        }
    }
    writer.abort().await?;
    Err(Error::unavailable(format!("the upload of {url} was given up")))
}
