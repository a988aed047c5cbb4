//! Hashes. Their values are in tables: none of them may ever change.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, Int32Array, Int64Array};
use aws_lc_rs::digest;
use firn_shared::error::Result;
use firn_shared::functions::{Function, hashes as spec};
use twox_hash::XxHash64;

use super::encodings::{bytes, digits, each};
use crate::transform::json_text::Writer;
use crate::transform::kernel::{Batch, Build, Call, Made, Misfit, Work, broken};
use crate::transform::values::{batch, column};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&spec::SHA256, sha256),
    (&spec::BLAKE3, blake3),
    (&spec::XXH64, xxh64),
    (&spec::HASH_BUCKET, hash_bucket),
    (&spec::FINGERPRINT, fingerprint),
];

fn sha256(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(each(|bytes, out| out.extend(digits(digest::digest(&digest::SHA256, bytes).as_ref()))))
}

fn blake3(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(each(|bytes, out| out.extend(digits(blake3::hash(bytes).as_bytes()))))
}

fn xxh64(call: &Call<'_>) -> Result<Work, Misfit> {
    let seed = call.args.int("seed").map_err(broken)? as u64;
    Ok(column(move |column| {
        let hashes = bytes(column)?.map(|bytes| bytes.map(|bytes| XxHash64::oneshot(seed, bytes) as i64));
        Ok(Arc::new(hashes.collect::<Int64Array>()) as ArrayRef)
    }))
}

fn hash_bucket(call: &Call<'_>) -> Result<Work, Misfit> {
    let count = call.args.int("count").map_err(broken)? as u64;
    Ok(column(move |column| {
        let buckets = bytes(column)?.map(|bytes| bytes.map(|bytes| (XxHash64::oneshot(0, bytes) % count) as i32));
        Ok(Arc::new(buckets.collect::<Int32Array>()) as ArrayRef)
    }))
}

/// One text for the values of each row of a batch, the same for the same values in every release.
pub fn rows(batch: &Batch<'_>, mut each: impl FnMut(usize, &str)) -> Result<()> {
    let writers = batch.columns.iter().map(|column| Writer::exact(column.r#type, column.array));
    let writers: Vec<Writer<'_>> = writers.collect::<Result<_>>()?;
    let mut text = String::new();
    for row in 0..batch.rows {
        text.clear();
        for writer in &writers {
            // Writing into text cannot fail.
            let _ = writer.write(row, &mut text);
            text.push(',');
        }
        each(row, &text);
    }
    Ok(())
}

fn fingerprint(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let mut out = StringBuilder::with_capacity(batch.rows, batch.rows * 32);
        let mut text = String::new();
        rows(batch, |_, row| {
            text.clear();
            text.extend(digits(&blake3::hash(row.as_bytes()).as_bytes()[..16]));
            out.append_value(&text);
        })?;
        Ok(Made::one(Arc::new(out.finish())))
    }))
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, Float64Array, StringArray};

    use super::*;
    use crate::transform::kernel::Column;

    fn texts(r#type: &str, array: ArrayRef) -> Vec<String> {
        let r#type = r#type.parse().unwrap();
        let (rows, columns) = (array.len(), [Column { name: "v", r#type: &r#type, array: &array }]);
        let mut texts = Vec::new();
        super::rows(&Batch::new(&columns, rows), |_, text| texts.push(text.to_owned())).unwrap();
        texts
    }

    #[test]
    fn values_that_json_writes_alike_have_texts_of_their_own() {
        let doubles = [Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), None, Some(1.5)];
        let doubles = texts("double", Arc::new(Float64Array::from(doubles.to_vec())));
        assert_eq!(doubles, ["NaN,", "inf,", "-inf,", "null,", "1.5,"]);
        let json =
            texts("json", Arc::new(StringArray::from(vec![Some("null"), None, Some("[null]"), Some("\"null\"")])));
        assert_eq!(json, ["json null,", "null,", "[null],", "\"null\","]);
    }
}
