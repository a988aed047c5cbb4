//! No text makes a parser of ours panic or loop, and what it accepts it writes again as a text with the same meaning.

use std::str;

use firn_compactor::plan::position::Position;
use firn_shared::config::domain::{EventTime, JsonPath, TimeFormat};
use firn_shared::ids::EventHour;
use firn_shared::raw::envelope::Envelope;
use firn_shared::raw::inspect::Inspector;
use firn_shared::raw::key::Key;
use firn_shared::raw::manifest::{BatchManifest, RejectReason};
use firn_shared::raw::progress::Progress;
use firn_shared::time::{TimeReader, is_plausible, rfc3339};
use firn_shared::types::LogicalType;

/// A parser under test.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("manifest", manifest),
    ("envelope", envelope),
    ("key", key),
    ("event time", event_time),
    ("time", time),
    ("path", path),
    ("type", logical_type),
    ("state", state),
];

fn manifest(input: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<BatchManifest>(input) else { return };
    let again = serde_json::to_vec(&manifest).expect("a manifest serialises");
    assert_eq!(serde_json::from_slice::<BatchManifest>(&again).expect("and is read back"), manifest);
    if manifest.check().is_ok() {
        let accounted = manifest.records() + manifest.rejected() + manifest.absent + manifest.gap_offsets();
        assert_eq!(accounted, manifest.range.len());
        assert!(manifest.tombstones() <= manifest.records());
    }
}

fn envelope(input: &[u8]) {
    let Ok(envelope) = Envelope::parse(input) else { return };
    let (_, _) = (envelope.key(), envelope.headers());
    if let Ok(payload) = envelope.payload() {
        assert_eq!(payload.is_none(), envelope.tombstone);
        assert_eq!(payload.map_or(envelope.value.len(), |p| p.len()), envelope.value.len());
    }
}

fn key(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(hour) = text.parse::<EventHour>() {
        assert_eq!(hour.to_string().parse::<EventHour>().expect("an hour is read back"), hour);
    }
}

fn event_time(input: &[u8]) {
    let at = |path: &str| JsonPath(path.split('.').map(str::to_owned).collect());
    for format in [TimeFormat::Rfc3339, TimeFormat::EpochMillis, TimeFormat::Strftime("%Y-%m-%d".into())] {
        let time = EventTime::Field { path: at("created_at"), format };
        let inspector = Inspector::new(Some(&at("payload.type")), &time).expect("an inspector");
        match inspector.inspect(input) {
            Ok(found) => {
                // By the grammar: a number beyond f64 or half a surrogate pair where nobody wants it is JSON all the same.
                serde_json::from_slice::<serde::de::IgnoredAny>(input).expect("what lands is JSON");
                assert_eq!(input.trim_ascii_start().first(), Some(&b'{'));
                assert!(found.time.is_some_and(is_plausible));
            }
            Err((RejectReason::NotUtf8, _)) => assert!(str::from_utf8(input).is_err()),
            Err(_) => {}
        }
    }
}

fn time(input: &[u8]) {
    if let Some(micros) = rfc3339(input) {
        let text = str::from_utf8(input).expect("what is a time is text");
        assert_eq!(text.get(..4).and_then(|year| year.parse::<i64>().ok()).is_some(), micros > i64::MIN);
    }
    let Ok(text) = str::from_utf8(input) else { return };
    let (pattern, text) = text.split_once('\n').unwrap_or(("%d/%b/%Y:%H:%M:%S %z", text));
    let formats = [
        TimeFormat::Rfc3339,
        TimeFormat::EpochSeconds,
        TimeFormat::EpochMillis,
        TimeFormat::EpochMicros,
        TimeFormat::EpochNanos,
        TimeFormat::EpochDays,
        TimeFormat::Strftime(pattern.to_owned()),
    ];
    for reader in formats.iter().filter_map(|format| TimeReader::new(format).ok()) {
        let (_, _) = (reader.text(text), reader.number(text));
    }
}

fn path(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(path) = text.parse::<JsonPath>() {
        assert_eq!(path.to_string().parse::<JsonPath>().expect("a path is read back"), path);
    }
}

fn logical_type(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(found) = text.parse::<LogicalType>() {
        assert_eq!(found.to_string().parse::<LogicalType>().expect("a type is read back"), found);
    }
}

/// What is kept in snapshots and beside chains.
fn state(input: &[u8]) {
    if let Ok(position) = serde_json::from_slice::<Position>(input) {
        let again = serde_json::to_string(&position).expect("a position serialises");
        assert_eq!(serde_json::from_str::<Position>(&again).expect("and is read back"), position);
        assert!(position.is_at_or_after(&position));
    }
    if let Ok(progress) = serde_json::from_slice::<Progress>(input) {
        let again = serde_json::to_vec(&progress).expect("progress serialises");
        assert_eq!(serde_json::from_slice::<Progress>(&again).expect("and is read back"), progress);
    }
}
