use proptest::prelude::*;

use super::*;
use crate::ids::{Partition, Topic};
use crate::raw::manifest::RejectReason;

fn writer() -> LineWriter {
    LineWriter::new(&Topic::new("github.events").unwrap(), Partition(3))
}

fn borrow(headers: &Headers) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
}

fn line(key: Option<&[u8]>, headers: &Headers, event: Option<&str>, payload: Option<&[u8]>) -> String {
    let mut line = Vec::new();
    let record = Record { offset: 7, timestamp: Some(1_626_847_200_000), key, headers: borrow(headers) };
    writer().record(&mut line, record, event, payload);
    String::from_utf8(line).unwrap()
}

#[test]
fn the_line_format_is_the_contract() {
    let headers = vec![("a".into(), Some(b"1".to_vec())), ("a".into(), None), ("b".into(), Some(vec![255]))];
    let start = r#"{"topic":"github.events","partition":3,"offset":7,"timestamp":1626847200000"#;
    let cases = [
        (
            line(Some(b"k\"1"), &headers, Some("Push"), Some(b"{\"x\": 1}")),
            r#","key":"k\"1","headers":[["a","1"],["a",null],["b",{"b64":"/w=="}]],"event":"Push","value":{"x": 1}}"#,
        ),
        (line(None, &vec![], None, Some(b"null")), r#","key":null,"headers":[],"event":null,"value":null}"#),
        (
            line(Some(&[0xff, 0]), &vec![], None, None),
            r#","key":{"b64":"/wA="},"headers":[],"event":null,"tombstone":true,"value":null}"#,
        ),
        (
            line(None, &vec![], None, Some(b"{\n\"a\":\n1}")),
            r#","key":null,"headers":[],"event":null,"lf":[1,6],"value":{ "a": 1}}"#,
        ),
    ];
    for (line, rest) in cases {
        assert_eq!(line, format!("{start}{rest}\n"));
    }
}

#[test]
fn a_tombstone_is_not_the_payload_null() {
    let null = line(None, &vec![], None, Some(b"null"));
    let tombstone = line(None, &vec![], None, None);
    assert_eq!(Envelope::parse(null.trim_end().as_bytes()).unwrap().payload().unwrap().as_deref(), Some(&b"null"[..]));
    assert_eq!(Envelope::parse(tombstone.trim_end().as_bytes()).unwrap().payload().unwrap(), None);
}

#[test]
fn a_line_in_another_order_is_read_all_the_same() {
    let text = r#" {"value": [1], "offset":9, "headers":[], "key":"k", "event":"E\u0041", "partition":0, "topic":"t", "timestamp":null}"#;
    let envelope = Envelope::parse(text.as_bytes()).unwrap();
    assert_eq!((envelope.offset, envelope.event.as_deref(), envelope.value), (9, Some("EA"), &b"[1]"[..]));
    assert_eq!(envelope.key().unwrap(), Some(b"k".to_vec()));
}

#[test]
fn a_malformed_line_says_where_and_why() {
    let good = line(None, &vec![], None, Some(b"{}"));
    let good = good.trim_end();
    let cases = [
        ("", "byte 0 of the line: expected an envelope: EOF while parsing a value"),
        ("{}", "byte 1 of the line: expected an envelope: missing field `topic`"),
        (&good[..60], "byte 59 of the line: expected an envelope: EOF while parsing a string"),
        (
            &good.replace("\"value\":{}", "\"tombstone\":true,\"value\":{}"),
            "byte 0 of the line: expected the value null, because it is a tombstone",
        ),
        (
            &good.replace("\"offset\":7", "\"offset\":-7"),
            "expected an envelope: invalid value: integer `-7`, expected u64",
        ),
        (&good.replace("\"event\"", "\"evnt\""), "expected an envelope: unknown field `evnt`"),
    ];
    for (text, expected) in cases {
        let error = Envelope::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}\n{expected}");
    }
}

fn json_with_white_space() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        (proptest::collection::vec(inner, 0..4), "[ \n\r\t]{0,3}")
            .prop_map(|(items, space)| format!("{space}[{space}{}{space}]{space}", items.join(&format!("{space},\n"))))
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(
        offset: u64,
        timestamp: Option<i64>,
        key: Option<Vec<u8>>,
        headers: Vec<(String, Option<Vec<u8>>)>,
        event: Option<String>,
        payload in proptest::option::of(json_with_white_space()),
    ) {
        let mut line = Vec::new();
        let record = Record { offset, timestamp, key: key.as_deref(), headers: borrow(&headers) };
        writer().record(&mut line, record, event.as_deref(), payload.as_deref().map(str::as_bytes));
        prop_assert_eq!(memchr::memchr(b'\n', &line), Some(line.len() - 1), "one line feed, at the end");
        let line = &line[..line.len() - 1];
        let _: serde_json::Value = serde_json::from_slice(line).expect("a line is JSON");

        let read = Envelope::parse(line).unwrap();
        prop_assert_eq!(read.offset, offset);
        prop_assert_eq!(read.timestamp, timestamp);
        prop_assert_eq!(read.event.as_deref(), event.as_deref());
        prop_assert_eq!(read.key().unwrap(), key);
        prop_assert_eq!(read.headers().unwrap(), headers);
        prop_assert_eq!(read.tombstone, payload.is_none());
        let restored = read.payload().unwrap();
        prop_assert_eq!(restored.as_deref(), payload.as_deref().map(str::as_bytes));
    }

    #[test]
    fn both_paths_agree(key: Option<Vec<u8>>, headers: Vec<(String, Option<Vec<u8>>)>, event: Option<String>) {
        let fast = line(key.as_deref(), &headers, event.as_deref(), Some(b"{\"a\":\n1}"));
        // A blank after the brace sends the same line the general way.
        let slow = fast.replacen('{', "{ ", 1);
        prop_assert_eq!(Envelope::parse(fast.trim_end().as_bytes()), Envelope::parse(slow.trim_end().as_bytes()));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut text: Vec<u8>, keep in 0usize..140) {
        let good = line(Some(b"k"), &vec![], Some("E"), Some(b"{}"));
        let mut line = good.as_bytes()[..keep.min(good.len())].to_vec();
        line.append(&mut text);
        if let Ok(envelope) = Envelope::parse(&line) {
            let _ = (envelope.key(), envelope.headers(), envelope.payload());
        }
    }

    #[test]
    fn a_refused_record_keeps_every_byte(
        key: Option<Vec<u8>>,
        headers: Vec<(String, Option<Vec<u8>>)>,
        payload: Option<Vec<u8>>,
        detail: String,
    ) {
        let mut line = Vec::new();
        let record = Record { offset: 1, timestamp: None, key: key.as_deref(), headers: borrow(&headers) };
        writer().refused(&mut line, record, (RejectReason::NotUtf8, &detail), payload.as_deref());
        let read: QuarantineLine = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(read.reason, RejectReason::NotUtf8);
        prop_assert_eq!(read.detail, detail);
        prop_assert_eq!(read.key.map(|b| b.0), key);
        prop_assert_eq!(read.payload.map(|b| b.0), payload);
        let read: Headers = read.headers.into_iter().map(|(name, value)| (name, value.map(|b| b.0))).collect();
        prop_assert_eq!(read, headers);
    }
}
