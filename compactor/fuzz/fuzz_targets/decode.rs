//! `cargo +nightly fuzz run decode` in `compactor/`: no payload makes the decoder panic, what it accepts is JSON to
//! `serde_json` too, and what it refuses leaves the rows as they were.
#![no_main]

use std::cell::RefCell;

use firn_compactor::decode::Decoder;
use firn_shared::config::domain::{Column, JsonPath};
use libfuzzer_sys::fuzz_target;

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
    ("commits", "payload.commits", "list<struct<sha: string not null, author: struct<name: string>, tags: list<long>>>"),
    ("labels", "labels", "map<string, list<string>>"),
];

fn decoder() -> Decoder {
    let column = |(name, path, logical): &(&str, &str, &str)| Column {
        name: (*name).to_owned(),
        path: JsonPath(path.split('.').map(str::to_owned).collect()),
        r#type: logical.parse().expect("a type of the table above"),
        required: false,
        format: None,
        doc: None,
    };
    Decoder::new(&COLUMNS.iter().map(column).collect::<Vec<_>>()).expect("the columns above make a schema")
}

thread_local!(static DECODER: RefCell<Decoder> = RefCell::new(decoder()));

fuzz_target!(|payload: &[u8]| {
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
});
