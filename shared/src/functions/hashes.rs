//! Hashes. They hide nothing: short or guessable values are found by trying; `piiColumns` is for what must be protected.

use super::{Arg, Family, Function, Gives, Kind, Nulls, Shape, Takes};

/// This family.
pub const ALL: &[Function] = &[SHA256, BLAKE3, XXH64, HASH_BUCKET, FINGERPRINT];

const fn hash(name: &'static str, about: &'static str, gives: Gives) -> Function {
    Function::map(name, about, Takes::Bytes, gives).of(Family::Hashes)
}

/// `sha256`
pub const SHA256: Function = hash("sha256", "SHA-256 of the bytes, as 64 hexadecimal digits.", Gives::Text)
    .example("sha256: {column: body, as: body_hash}");

/// `blake3`
pub const BLAKE3: Function = hash("blake3", "BLAKE3 of the bytes, as 64 hexadecimal digits.", Gives::Text)
    .example("blake3: {column: body, as: body_hash}");

/// `xxh64`
pub const XXH64: Function = hash("xxh64", "XXH64 of the bytes, as a long.", Gives::Long)
    .args(&[Arg::default("seed", Kind::Int(0, i64::MAX), "0", "The seed.")])
    .example("xxh64: {column: session, as: session_hash}");

/// `hashBucket`
pub const HASH_BUCKET: Function =
    hash("hashBucket", "A number from 0 to one below `count`, the same for the same bytes (XXH64 modulo).", Gives::Int)
        .args(&[Arg::required("count", Kind::Int(1, 2_147_483_647), "How many buckets.")])
        .example("hashBucket: {column: session, count: 64, as: bucket}");

/// `fingerprint`
pub const FINGERPRINT: Function = Function::new(
    "fingerprint",
    "One hash over several columns, as 32 hexadecimal digits (BLAKE3): equal exactly where all values are equal. JSON is compared \
     as text, maps in the order that they have; 0.0 and -0.0 differ.",
    Shape::Combine(Takes::Any, Gives::Text),
)
.of(Family::Hashes)
.nulls(Nulls::Own("a null counts as a value of its own, and a null in `json` as another; the result is never null"))
.example("fingerprint: {columns: [name, street, city], as: address_key}");
