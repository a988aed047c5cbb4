//! No payload makes the decoder panic, what it accepts is JSON to `serde_json` too, and what it refuses leaves the rows as
//! they were. The same for change events.

use std::cell::RefCell;

use firn_compactor::decode::Decoder;
use firn_compactor::decode::change::{Changes, Taken};
use firn_shared::config::domain::{Column, JsonPath, PayloadFormat};

const COLUMNS: [(&str, &str, &str); 12] = [
    ("id", "id", "long"),
    ("int", "payload.size", "int"),
    ("double", "payload.ratio", "double"),
    ("amount", "payload.amount", "decimal(38,9)"),
    ("public", "public", "boolean"),
    ("created_at", "created_at", "timestamptz"),
    ("day", "day", "date"),
    ("time", "time", "time"),
    ("bytes", "bytes", "binary"),
    ("payload", "payload", "json"),
    (
        "commits",
        "payload.commits",
        "list<struct<sha: string not null, author: struct<name: string>, tags: list<long>>>",
    ),
    ("labels", "labels", "map<string, list<string>>"),
];

fn columns() -> Vec<Column> {
    let column = |(name, path, logical): &(&str, &str, &str)| Column {
        name: (*name).to_owned(),
        path: JsonPath(path.split('.').map(str::to_owned).collect()),
        r#type: logical.parse().expect("a type of the table above"),
        required: false,
        format: None,
        doc: None,
    };
    COLUMNS.iter().map(column).collect()
}

fn decoder() -> Decoder {
    Decoder::new(&columns()).expect("the columns above make a schema")
}

fn changes(format: PayloadFormat) -> (Decoder, Changes) {
    let mut decoder = decoder();
    decoder.allow_nulls();
    let needed: Vec<bool> = COLUMNS.iter().map(|(name, ..)| *name == "id").collect();
    (decoder, Changes::new(format, &columns(), needed.clone()).with_keys(needed))
}

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::new(decoder());
    static CHANGES: RefCell<[(Decoder, Changes); 2]> =
        RefCell::new([PayloadFormat::Debezium, PayloadFormat::Dynamodb].map(changes));
}

/// The payload as a change event, and as the key of a tombstone.
fn change(decoder: &mut Decoder, changes: &mut Changes, payload: &[u8]) {
    let (rows, bytes) = (decoder.rows(), decoder.bytes());
    match changes.push(decoder, payload, || Some(payload.to_vec())) {
        Ok(Taken::Row) => assert_eq!(decoder.rows(), rows + 1),
        Ok(Taken::Moved) => assert_eq!(decoder.rows(), rows + 2),
        Ok(Taken::Skipped(_) | Taken::Truncation(_)) | Err(_) => {
            assert_eq!((decoder.rows(), decoder.bytes()), (rows, bytes));
        }
    }
    let rows = decoder.rows();
    let taken = changes.tombstone(decoder, payload, Some(1));
    assert_eq!(decoder.rows(), rows + usize::from(taken));
    if decoder.rows() >= 64 {
        let rows = decoder.rows();
        let (marks, places) = changes.finish().expect("places make columns");
        assert_eq!((marks.ops.len(), marks.times.len()), (rows, rows));
        assert_eq!((places.versions.iter().count(), places.sources.iter().count()), (rows, rows));
        assert_eq!(decoder.finish().expect("decoded rows make a batch").num_rows(), rows);
    }
}

/// Takes an input as the payload of an event, and without its first byte as a change event of the format it says.
pub fn target(payload: &[u8]) {
    if let Some((first, event)) = payload.split_first() {
        CHANGES.with_borrow_mut(|formats| {
            let (decoder, changes) = &mut formats[usize::from(first & 1)];
            change(decoder, changes, event);
        });
    }
    DECODER.with_borrow_mut(|decoder| {
        let (rows, bytes) = (decoder.rows(), decoder.bytes());
        if decoder.push(payload).is_ok() {
            assert_eq!(decoder.rows(), rows + 1);
            match serde_json::from_slice::<serde_json::Value>(payload) {
                Ok(value) => assert!(value.is_object()),
                // A number beyond f64 where nobody wants it is JSON all the same.
                Err(error) => assert!(error.to_string().contains("number out of range"), "{error}"),
            }
        } else {
            assert_eq!((decoder.rows(), decoder.bytes()), (rows, bytes));
        }
        if decoder.rows() >= 64 {
            let rows = decoder.rows();
            assert_eq!(decoder.finish().expect("decoded rows make a batch").num_rows(), rows);
        }
    });
}
