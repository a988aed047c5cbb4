//! Images that lack something, that come as text, or that say that a row has another key now.

use super::*;

fn lines_of(records: &[(&str, &str)]) -> Vec<Line> {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    records.iter().map(|(key, value)| Line { key: raw(key), value: raw(value) }).collect()
}

#[test]
fn an_update_with_another_key_is_a_delete_of_the_former_one_and_a_row() {
    let columns = [formed("id", "long", ""), formed("name", "string", "")];
    let event = |before: &str, after: &str| {
        format!(r#"{{"before":{before},"after":{after},"source":{{"lsn":5}},"op":"u","ts_ms":7}}"#)
    };
    let one = r#"{"name":"a","id":1}"#;
    for (before, after, outcome, ops) in [
        (one, r#"{"name":"b","id":2}"#, Ok(Taken::Moved), vec![Op::Moved, Op::Update]),
        (one, r#"{"name":"b","id":1}"#, Ok(Taken::Row), vec![Op::Update]),
        ("null", r#"{"name":"b","id":2}"#, Ok(Taken::Row), vec![Op::Update]),
        // What was before is not known.
        (r#"{"name":"a"}"#, r#"{"name":"b","id":2}"#, Ok(Taken::Row), vec![Op::Update]),
        (one, r#"{"name":"b","id":"x"}"#, Err(("$.after.id".to_owned(), RejectKind::BadFormat)), vec![]),
        (r#"{"id":"x"}"#, r#"{"id":2}"#, Err(("$.before.id".to_owned(), RejectKind::BadFormat)), vec![]),
    ] {
        let value = event(before, after);
        let lines = lines_of(&[("null", &value), ("null", r#"{"after":{"id":9},"source":{"lsn":6},"op":"c"}"#)]);
        let (outcomes, rows) = decode_by_key(PayloadFormat::Debezium, &columns, (&["id"], &["id"]), &lines);
        assert_eq!(outcomes[0], outcome, "{value}");
        let found: Vec<Op> = rows.iter().map(|row| row.0).collect();
        assert_eq!(found, ops.into_iter().chain([Op::Create]).collect::<Vec<_>>(), "{value}");
        if outcome == Ok(Taken::Moved) {
            assert_eq!((json!(rows[0].3), json!(rows[1].3)), (json!([1, "a"]), json!([2, "b"])));
            assert!(rows[0].1 == rows[1].1 && rows[0].1.is_some());
        }
    }
    let modified = r#"{"eventName":"MODIFY","dynamodb":{"SequenceNumber":"7","OldImage":{"id":{"N":"1"}},"NewImage":{"id":{"N":"2"}}}}"#;
    let lines = lines_of(&[("null", modified)]);
    let (_, rows) = decode_by_key(PayloadFormat::Dynamodb, &columns, (&["id"], &["id"]), &lines);
    assert_eq!(
        rows.iter().map(|row| (row.0, json!(row.3[0]))).collect::<Vec<_>>(),
        [(Op::Moved, json!(1)), (Op::Update, json!(2))]
    );
}

#[test]
fn documents_come_as_text_and_are_deleted_by_their_id() {
    let columns = [column("id", "_id", T::Json, true), formed("n", "long", ""), formed("at", "json", "")];
    let text = |op: &str, after: &str| {
        format!(
            r#"{{"before":null,"after":{after},"source":{{"db":"d","collection":"c","ord":1,"ts_ms":5}},"op":"{op}"}}"#
        )
    };
    let values = [
        text("c", r#""{\"_id\":{\"$oid\":\"59\"},\"n\":3,\"at\":{\"$date\":7}}""#),
        text("d", "null"),
        text("c", r#""{\"_id\":1,\"n\":\"x\"}""#),
        text("c", r#""no document""#),
    ];
    let key = r#"{"id":"{\"$oid\":\"59\"}"}"#;
    let lines = lines_of(&values.iter().map(|value| (key, value.as_str())).collect::<Vec<_>>());
    let (outcomes, rows) = decode(PayloadFormat::Debezium, &columns, &["id"], &lines);
    assert_eq!(
        outcomes[2..],
        [Err(("$.after.n".to_owned(), RejectKind::BadFormat)), Err(("$.after".to_owned(), RejectKind::NotJson))]
    );
    let id = r#"{"$oid":"59"}"#;
    assert_eq!((rows[0].0, json!(rows[0].3)), (Op::Create, json!([id, 3, r#"{"$date":7}"#])));
    assert_eq!((rows[1].0, json!(rows[1].3)), (Op::Delete, json!([id, null, null])));
}

#[test]
fn a_column_that_is_called_as_the_time_is_not_the_time() {
    let columns = [formed("id", "long", ""), formed("ts_ms", "long", "")];
    let lines = lines_of(&[
        ("null", r#"{"id":1,"ts_ms":99,"__deleted":"true","__ts_ms":7}"#),
        ("null", r#"{"id":1,"__deleted":"true","__ts_ms":7,"ts_ms":99}"#),
        ("null", r#"{"id":1,"ts_ms":99,"__deleted":"true"}"#),
    ]);
    let (_, rows) = decode(PayloadFormat::Debezium, &columns, &["id"], &lines);
    let found: Vec<_> = rows.iter().map(|row| (row.2, json!(row.3[1]))).collect();
    assert_eq!(found, [(Some(7000), json!(99)), (Some(7000), json!(99)), (None, json!(99))]);
}
