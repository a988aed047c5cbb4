//! The offsets of a raw object, line by line.

use std::io::{BufRead, BufReader};

use firn_shared::error::{Error, Result};
use firn_shared::raw::envelope::Envelope;
use firn_shared::raw::manifest::RawObject;
use roaring::RoaringTreemap;

const LINES_BUFFER: usize = 1 << 20;

/// What a raw object holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectOffsets {
    /// Offsets of records that the table is to hold.
    pub wanted: RoaringTreemap,
    /// Records of events that belong to other tables.
    pub other_events: u64,
    /// Tombstones.
    pub tombstones: u64,
}

/// Reads an object, checks it against its manifest entry, and sorts its offsets; `wanted` says which event names are
/// the table's. `name` is the object's URL, for errors. Memory: the object as it is stored, and its longest line.
///
/// # Errors
/// `Data` when the bytes, the lines or the counts are not those of the manifest; the message names object and line.
pub fn offsets(
    object: &RawObject,
    bytes: &[u8],
    name: &str,
    wanted: &(dyn Fn(Option<&str>) -> bool + Send + Sync),
) -> Result<ObjectOffsets> {
    let corrupt = |what: String| corrupt(name, what);
    let mut lines = lines(object, bytes, name)?;
    let (mut found, mut line) = (ObjectOffsets::default(), Vec::new());
    let mut all = RoaringTreemap::new();
    let mut number = 0u64;
    loop {
        line.clear();
        let at = |what: &dyn std::fmt::Display| corrupt(format!("line {}: {what}", number + 1));
        if lines.read_until(b'\n', &mut line).map_err(|e| at(&e))? == 0 {
            break;
        }
        let envelope = Envelope::parse(line.strip_suffix(b"\n").unwrap_or(&line)).map_err(|e| at(&e))?;
        if !(object.min_offset..=object.max_offset).contains(&envelope.offset) || !all.insert(envelope.offset) {
            return Err(at(&format!("offset {} is outside the object's range, or there twice", envelope.offset)));
        }
        if envelope.tombstone {
            found.tombstones += 1;
        } else if wanted(envelope.event.as_deref()) {
            found.wanted.insert(envelope.offset);
        } else {
            found.other_events += 1;
        }
        number += 1;
    }
    if (number, found.tombstones) != (object.records, object.tombstones) {
        return Err(corrupt(format!(
            "{number} records and {} tombstones, the manifest says {} and {}",
            found.tombstones, object.records, object.tombstones
        )));
    }
    Ok(found)
}

/// Reads an object of records that landing refused, and checks it against its manifest entry. Memory: as [`offsets`].
///
/// # Errors
/// As [`offsets`].
pub fn refused(object: &RawObject, bytes: &[u8], name: &str) -> Result<()> {
    let mut lines = lines(object, bytes, name)?;
    let (mut number, mut line) = (0, Vec::new());
    while lines.read_until(b'\n', &mut line).map_err(|e| corrupt(name, format!("line {}: {e}", number + 1)))? > 0 {
        number += 1;
        line.clear();
    }
    if number != object.records {
        return Err(corrupt(name, format!("{number} records, the manifest says {}", object.records)));
    }
    Ok(())
}

/// The lines of an object that has the bytes of its manifest entry.
fn lines<'a>(object: &RawObject, bytes: &'a [u8], name: &str) -> Result<impl BufRead + use<'a>> {
    let hash = blake3::hash(bytes).to_hex();
    if hash.as_str() != object.blake3 {
        return Err(corrupt(name, format!("its hash is {hash}, the manifest says {}", object.blake3)));
    }
    let decoder = zstd::stream::read::Decoder::with_buffer(bytes)
        .map_err(|e| corrupt(name, "it is not zstd".to_owned()).with_source(e))?;
    Ok(BufReader::with_capacity(LINES_BUFFER, decoder))
}

fn corrupt(name: &str, what: String) -> Error {
    Error::data(format!("raw object {name} is corrupt: {what}"))
}
