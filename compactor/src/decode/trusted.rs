//! The one place where text is not checked a second time.

use arrow_array::StringArray;
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};

/// Texts as an array. The payload they were copied from has been checked as a whole; to check them again in every column
/// takes a twentieth of all decoding.
///
/// `data` is a sequence of whole `&str`s, and every offset is a place where one of them ends: a leaf appends whole texts
/// and truncates at offsets only.
#[allow(unsafe_code, reason = "arrow has no other way to take text that is known to be UTF-8")]
pub(super) fn string_array(offsets: OffsetBuffer<i32>, data: Buffer, nulls: Option<NullBuffer>) -> StringArray {
    debug_assert!(
        StringArray::try_new(offsets.clone(), data.clone(), nulls.clone()).is_ok(),
        "a leaf holds broken text"
    );
    // SAFETY: see above; offsets are ascending and within `data` by the checks of OffsetBuffer and of Leaf::push_bytes.
    unsafe { StringArray::new_unchecked(offsets, data, nulls) }
}
