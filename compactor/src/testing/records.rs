//! Records of a case out of files: NDJSON, as it is or compressed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use firn_shared::config::cases::{Batch, Event, Sample, TestFile};
use firn_shared::error::{Error, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Files of tests are small; more than this is a mistake, or a bomb.
const BYTES_MAX: u64 = 256 << 20;

/// A line of a file of records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    partition: u32,
}

/// The records of a batch: those of its file, then the others.
///
/// # Errors
/// `Config`, naming the file and line, for a file that cannot be read.
pub fn records(tests: &TestFile, batch: &Batch) -> Result<Vec<Event>> {
    let mut events = match &batch.file {
        Some(sample) => from_file(tests, sample)?,
        None => Vec::new(),
    };
    events.extend(batch.events.iter().cloned());
    Ok(events)
}

fn from_file(tests: &TestFile, sample: &Sample) -> Result<Vec<Event>> {
    let named = format!("{}:{}:{}", tests.path.display(), sample.at.line, sample.at.column);
    let failed = |what: &str, error: std::io::Error| {
        Error::config(format!("{named}: {what} {}", sample.path.display())).with_source(error)
    };
    let file = File::open(&sample.path).map_err(|e| failed("cannot open", e))?;
    let plain: Box<dyn Read> = match sample.path.extension().and_then(|e| e.to_str()) {
        Some("zst") => Box::new(zstd::Decoder::new(file).map_err(|e| failed("cannot inflate", e))?),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let (mut events, mut bytes) = (Vec::new(), 0u64);
    let mut lines = BufReader::new(plain.take(BYTES_MAX + 1));
    for number in 1.. {
        let mut line = Vec::new();
        let read = lines.read_until(b'\n', &mut line).map_err(|e| failed("cannot read", e))?;
        bytes += read as u64;
        if read == 0 || events.len() >= sample.take {
            break;
        }
        if bytes > BYTES_MAX {
            let path = sample.path.display();
            return Err(Error::config(format!("{named}: {path} has more than {BYTES_MAX} bytes; use `take`")));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if number <= sample.skip || line.is_empty() {
            continue;
        }
        events.push(event(tests, sample, number, line)?);
    }
    Ok(events)
}

fn event(tests: &TestFile, sample: &Sample, number: usize, line: Vec<u8>) -> Result<Event> {
    let mut event =
        Event { topic: None, partition: 0, key: None, headers: Vec::new(), timestamp: tests.timestamp, payload: None };
    if !sample.records {
        event.payload = Some(line);
        return Ok(event);
    }
    let read: Line<'_> = serde_json::from_slice(&line).map_err(|error| {
        let place = format!("{}:{number}", sample.path.display());
        Error::config(format!("{place}: expected {{\"key\": …, \"value\": …}}: {error}"))
    })?;
    event.key = match read.key.map(RawValue::get) {
        // A text is the key's bytes; anything else is a key of JSON.
        Some(raw) if raw.starts_with('"') => serde_json::from_str::<String>(raw).ok().map(String::into_bytes),
        raw => raw.map(|raw| raw.as_bytes().to_vec()),
    };
    event.payload = read.value.map(|raw| raw.get().as_bytes().to_vec());
    event.timestamp = read.timestamp.unwrap_or(tests.timestamp);
    event.partition = read.partition;
    Ok(event)
}
