//! Objects on their way up.

use bytes::{Bytes, BytesMut};
use firn_shared::error::{Error, Result};
use firn_shared::store::{PutMode, PutOutcome, Store};

use crate::batch::SealedObject;

/// Objects up to this many bytes go up in one request.
const ONE_REQUEST: u64 = 4 << 20;

/// Uploads one object under its unique name.
///
/// A crash before the end leaves nothing, one after it an orphan that no manifest names.
///
/// # Errors
/// Those of the store; `Bug` when the unique name was taken.
pub async fn upload(store: &dyn Store, sealed: SealedObject) -> Result<()> {
    let key = &sealed.object.key;
    if sealed.object.bytes > ONE_REQUEST {
        // The frames as they are: joining them would need their size again.
        let mut writer = store.writer(key).await?;
        for frame in &sealed.frames {
            writer.write(frame.clone()).await?;
        }
        let written = writer.close().await?;
        if written != sealed.object.bytes {
            return Err(Error::bug(format!("{key}: {written} bytes uploaded of {}", sealed.object.bytes)));
        }
        return Ok(());
    }
    let body = match sealed.frames.as_slice() {
        [frame] => frame.clone(),
        frames => {
            let mut body = BytesMut::with_capacity(sealed.object.bytes as usize);
            for frame in frames {
                body.extend_from_slice(frame);
            }
            Bytes::from(body)
        }
    };
    match store.put(key, body, PutMode::Create).await? {
        PutOutcome::Written => Ok(()),
        PutOutcome::AlreadyExists => Err(Error::bug(format!("{key} exists already; names are never used twice"))),
    }
}
