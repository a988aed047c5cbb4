//! Claims about whole change events, and agreement with the plainest reading of them.

use std::fmt::Write;

use firn_shared::config::domain::{Column, Format, PayloadFormat, TimeFormat};
use firn_shared::types::LogicalType as T;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::reference::{column, field, rows};
use super::super::{Decoder, RejectKind, agreement, reference};
use super::{Changes, MESSAGE, Op, Places, Taken};

mod images;

#[derive(serde::Deserialize)]
struct Line {
    key: Box<RawValue>,
    value: Box<RawValue>,
}

fn lines(file: &str) -> Vec<Line> {
    let path = format!("{}/../tests/fixtures/changes/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What became of every record, and the rows: operation, version, time, values.
type Decoded = (Vec<Result<Taken, (String, RejectKind)>>, Vec<(Op, Option<String>, Option<i64>, Vec<Value>)>);

fn decode(format: PayloadFormat, columns: &[Column], needed: &[&str], lines: &[Line]) -> Decoded {
    decode_by_key(format, columns, (needed, &[]), lines)
}

/// The same for a table with keys.
fn decode_by_key(
    format: PayloadFormat,
    columns: &[Column],
    (needed, keyed): (&[&str], &[&str]),
    lines: &[Line],
) -> Decoded {
    let mut decoder = Decoder::new(columns).unwrap();
    decoder.allow_nulls();
    let named = |names: &[&str]| columns.iter().map(|c| names.contains(&c.name.as_str())).collect::<Vec<_>>();
    let mut changes = Changes::new(format, columns, named(needed)).with_keys(named(keyed));
    let mut outcomes = Vec::new();
    for line in lines {
        let key = || (line.key.get() != "null").then(|| line.key.get().as_bytes().to_vec());
        outcomes.push(if line.value.get() == "null" {
            let taken = changes.tombstone(&mut decoder, &key().unwrap(), Some(5));
            if taken { Ok(Taken::Row) } else { Ok(Taken::Skipped("tombstone")) }
        } else {
            let pushed = changes.push(&mut decoder, line.value.get().as_bytes(), key);
            pushed.map_err(|why| (why.path, why.reason))
        });
    }
    let (marks, Places { versions, .. }) = changes.finish().unwrap();
    let rows = rows(&decoder.finish().unwrap()).into_iter().enumerate();
    let versions: Vec<_> = versions.iter().map(|version| version.map(str::to_owned)).collect();
    (outcomes, rows.map(|(at, row)| (marks.ops[at], versions[at].clone(), marks.times[at], row)).collect())
}

/// A column named as its key, in this form.
fn formed(name: &str, logical: &str, form: &str) -> Column {
    let format = (!form.is_empty()).then(|| form.parse::<Format>().unwrap());
    Column { format, ..column(name, name, logical.parse().unwrap(), name == "id") }
}

/// Name, type, and the form that a schema would say.
const MYSQL: [(&str, &str, &str); 16] = [
    ("id", "long", ""),
    ("name", "string", ""),
    ("amount", "decimal(10,2)", "base64(2)"),
    ("total", "decimal(20,0)", "base64(0)"),
    ("born", "date", "epochDays"),
    ("created", "timestamp", "epochMicros"),
    ("modified", "timestamptz", ""),
    ("opens", "time", "epochMicros"),
    ("status", "string", ""),
    ("tags", "string", ""),
    ("flags", "int", "bits"),
    ("active", "boolean", "zeroOne"),
    ("meta", "json", "jsonText"),
    ("photo", "binary", ""),
    ("since", "int", ""),
    ("place", "struct<x: double, y: double>", ""),
];

#[test]
fn mysql_events_are_rows_with_a_schema_and_without() {
    let sally = json!([
        1001,
        "Sally Thomas",
        "12345",
        "18446744073709551615",
        -3653,
        1_700_000_000_123_456_i64,
        1_700_000_000_000_000_i64,
        37_800_000_000_i64,
        "new",
        "a,c",
        2049,
        true,
        "{\"tier\": \"gold\", \"n\": [1, 2]}",
        [0, 255, 254],
        1997,
        {"x": 1.5, "y": -2.0}
    ]);
    let mut later = sally.clone();
    for (at, value) in [
        (1, json!("Sally \"S\" Thomas\n🙂")),
        (2, json!("-1")),
        (8, json!("active")),
        (9, json!("")),
        (11, json!(false)),
        (12, json!(null)),
    ] {
        later[at] = value;
    }
    let mut other = vec![Value::Null; 16];
    other[0] = json!(1002);
    let expected = [
        (Op::Read, "00000000030000000000000000015700000000000001700000100000", 1_700_000_100_000_000, sally),
        (Op::Create, "00000000030000000000000000120010000000000001700000101000", 1_700_000_101_000_000, json!(other)),
        (Op::Update, "00000000030000000000000000240010000000001001700000101000", 1_700_000_101_000_000, later),
        (Op::Delete, "00000000030000000000000000360010000000000001700000102000", 1_700_000_102_000_000, json!(other)),
    ];
    let declared: Vec<Column> = MYSQL.iter().map(|(name, logical, form)| formed(name, logical, form)).collect();
    let plain: Vec<Column> = MYSQL.iter().map(|(name, logical, _)| formed(name, logical, "")).collect();
    for (file, columns) in [("mysql-schema.ndjson", plain), ("mysql.ndjson", declared)] {
        let (outcomes, rows) = decode(PayloadFormat::Debezium, &columns, &["id"], &lines(file));
        assert_eq!(outcomes, vec![Ok(Taken::Row); 4], "{file}");
        for (row, (op, version, micros, values)) in rows.iter().zip(&expected) {
            assert_eq!((row.0, row.1.as_deref(), row.2), (*op, Some(*version), Some(*micros)), "{file}");
            assert_eq!(json!(row.3), *values, "{file}");
        }
        assert!(rows.is_sorted_by(|a, b| a.1 < b.1));
    }
}

#[test]
fn postgres_deletes_bring_their_key_and_lost_values_are_refused() {
    let columns = [
        formed("id", "uuid", ""),
        formed("qty", "int", ""),
        formed("price", "decimal(9,2)", "base64(2)"),
        formed("weight", "string", "variableScale"),
        formed("tags", "list<string>", ""),
        formed("attrs", "json", "jsonText"),
        formed("paid_at", "timestamptz", ""),
        formed("note", "string", ""),
        formed("live", "boolean", ""),
    ];
    let (outcomes, rows) = decode(PayloadFormat::Debezium, &columns, &["id"], &lines("postgres.ndjson"));
    assert_eq!(
        outcomes,
        [
            Ok(Taken::Row),
            Err(("$.after.note".to_owned(), RejectKind::Missing)),
            Ok(Taken::Row),
            Ok(Taken::Row),
            Ok(Taken::Row),
            Err(("$.op".to_owned(), RejectKind::Unsupported)),
            Ok(Taken::Skipped(MESSAGE)),
        ]
    );
    let id = "7d44c8cd-77f8-4ba9-8a3f-2b4e0b8a1c11";
    let row =
        json!([id, 3, "12345", "-1.500", ["x", null, "z"], "{\"a\":1}", 1_704_067_200_123_456_i64, "short", true]);
    assert_eq!((rows[0].0, json!(rows[0].3)), (Op::Read, row));
    for deleted in &rows[2..] {
        let only_key = json!([id, null, null, null, null, null, null, null, null]);
        assert_eq!((deleted.0, json!(deleted.3)), (Op::Delete, only_key));
    }
    assert!(rows.is_sorted_by(|a, b| a.1 < b.1));
    // A column that nobody wants may be missing as it likes.
    let (outcomes, _) = decode(PayloadFormat::Debezium, &columns[..7], &["id"], &lines("postgres.ndjson"));
    assert_eq!(outcomes[1], Ok(Taken::Row));
    // A delete that must have more than its key says what it lacks.
    let (outcomes, _) = decode(PayloadFormat::Debezium, &columns, &["id", "qty"], &lines("postgres.ndjson"));
    assert_eq!(outcomes[3], Err(("$.before.qty".to_owned(), RejectKind::Missing)));
    assert_eq!(outcomes[4], Err(("$.before".to_owned(), RejectKind::Missing)));
}

#[test]
fn flattened_records_and_tombstones() {
    let columns = [formed("id", "long", ""), formed("name", "string", "")];
    let (outcomes, rows) = decode(PayloadFormat::Debezium, &columns, &["id"], &lines("flattened.ndjson"));
    assert_eq!(outcomes, vec![Ok(Taken::Row); 5]);
    let ops: Vec<Op> = rows.iter().map(|row| row.0).collect();
    assert_eq!(ops, [Op::Create, Op::Update, Op::Delete, Op::Tombstone, Op::Tombstone]);
    assert!(rows[..3].is_sorted_by(|a, b| a.1 < b.1) && rows[..3].iter().all(|row| row.1.is_some()));
    assert_eq!(json!(rows[2].3), json!([1, "Anna"]));
    // Older than whatever has a position.
    assert_eq!((rows[3].1.as_ref(), json!(rows[3].3)), (None, json!([1, null])));
    assert_eq!((rows[4].1.as_ref(), json!(rows[4].3)), (None, json!([2, null])));
    // A tombstone whose key does not suffice is one all the same.
    let (outcomes, rows) = decode(PayloadFormat::Debezium, &columns, &["id", "name"], &lines("flattened.ndjson"));
    assert_eq!((rows.len(), outcomes[4].clone()), (3, Ok(Taken::Skipped("tombstone"))));
}

#[test]
fn events_of_the_wrong_shape_are_refused_with_their_place() {
    let columns = [formed("id", "long", ""), formed("name", "string", "")];
    let refused = |format, value: &str| {
        let line = Line {
            key: RawValue::from_string("null".into()).unwrap(),
            value: RawValue::from_string(value.into()).unwrap(),
        };
        let (mut outcomes, rows) = decode(format, &columns, &["id"], &[line]);
        assert!(rows.is_empty(), "{value}");
        outcomes.remove(0).unwrap_err()
    };
    for (value, path, reason) in [
        (r#"{"before":null,"after":{"id":1},"source":{}}"#, "$.op", RejectKind::Missing),
        (r#"{"before":null,"after":{"id":1},"source":{},"op":"x"}"#, "$.op", RejectKind::BadFormat),
        (r#"{"before":null,"after":{"id":1},"source":{},"op":7}"#, "$.op", RejectKind::BadFormat),
        (r#"{"after":{"id":"x"},"source":{},"op":"c"}"#, "$.after.id", RejectKind::BadFormat),
        (r#"{"after":null,"source":{},"op":"c"}"#, "$.after", RejectKind::Missing),
        (r#"{"after":5,"source":{},"op":"c"}"#, "$.after", RejectKind::NotObject),
        (r#"{"after":{},"source":{},"op":"u"}"#, "$.after.id", RejectKind::Missing),
        (r#"{"before":null,"source":{},"op":"d"}"#, "$.before", RejectKind::Missing),
        (
            r#"{"schema":{"type":"struct"},"payload":{"after":{"id":[]},"op":"c"}}"#,
            "$.payload.after.id",
            RejectKind::WrongType,
        ),
        (r#"{"schema":null,"payload":{"id":"x"}}"#, "$.payload.id", RejectKind::BadFormat),
        (r#"{"schema":null,"payload":{"id":1,"__deleted":"maybe"}}"#, "$.payload.__deleted", RejectKind::BadFormat),
        (r#"{"id":true}"#, "$.id", RejectKind::WrongType),
        ("[]", "$", RejectKind::NotObject),
        ("7", "$", RejectKind::NotObject),
    ] {
        assert_eq!(refused(PayloadFormat::Debezium, value), (path.to_owned(), reason), "{value}");
    }
    for (value, path, reason) in [
        (r#"{"dynamodb":{"NewImage":{"id":{"N":"1"}}}}"#, "$.eventName", RejectKind::Missing),
        (r#"{"eventName":"UPSERT","dynamodb":{}}"#, "$.eventName", RejectKind::BadFormat),
        (r#"{"eventName":"INSERT","dynamodb":{"Keys":{"id":{"N":"1"}}}}"#, "$.dynamodb.NewImage", RejectKind::Missing),
        (r#"{"eventName":"INSERT"}"#, "$.dynamodb.NewImage", RejectKind::Missing),
        (r#"{"eventName":"INSERT","dynamodb":[]}"#, "$.dynamodb", RejectKind::WrongType),
        (
            r#"{"eventName":"INSERT","dynamodb":{"NewImage":{"id":{"S":"x"}}}}"#,
            "$.dynamodb.NewImage.id",
            RejectKind::BadFormat,
        ),
        (
            r#"{"eventName":"INSERT","dynamodb":{"NewImage":{"id":{"N":"x"}}}}"#,
            "$.dynamodb.NewImage.id",
            RejectKind::BadFormat,
        ),
        (
            r#"{"eventName":"INSERT","dynamodb":{"NewImage":{"id":{"N":1}}}}"#,
            "$.dynamodb.NewImage.id",
            RejectKind::WrongType,
        ),
        (
            r#"{"eventName":"INSERT","dynamodb":{"NewImage":{"id":{"BOOL":true}}}}"#,
            "$.dynamodb.NewImage.id",
            RejectKind::WrongType,
        ),
        (r#"{"eventName":"INSERT","dynamodb":{"NewImage":{"id":1}}}"#, "$.dynamodb.NewImage.id", RejectKind::WrongType),
        (
            r#"{"eventName":"INSERT","dynamodb":{"NewImage":{"id":{"N":"1","S":"1"}}}}"#,
            "$.dynamodb.NewImage.id",
            RejectKind::BadFormat,
        ),
        (
            r#"{"eventName":"INSERT","dynamodb":{"NewImage":{"id":{"X":"1"}}}}"#,
            "$.dynamodb.NewImage.id",
            RejectKind::BadFormat,
        ),
        (r#"{"eventName":"REMOVE","dynamodb":{"Keys":{"k":{"N":"1"}}}}"#, "$.dynamodb.Keys.id", RejectKind::Missing),
        (
            r#"{"eventName":"INSERT","dynamodb":{"SequenceNumber":"1x","NewImage":{"id":{"N":"1"}}}}"#,
            "$.dynamodb.SequenceNumber",
            RejectKind::BadFormat,
        ),
        ("[]", "$", RejectKind::NotObject),
    ] {
        assert_eq!(refused(PayloadFormat::Dynamodb, value), (path.to_owned(), reason), "{value}");
    }
}

#[test]
fn the_place_of_a_refused_value_of_a_map_is_said_without_its_key() {
    let columns = [formed("id", "long", ""), formed("m", "map<string, long>", "")];
    let item = r#"{"id":{"N":"1"},"m":{"M":{"alice@example.com":{"N":"x"}}}}"#;
    for (format, value, path) in [
        (PayloadFormat::Debezium, r#"{"id":1,"m":{"alice@example.com":"x"}}"#.to_owned(), "$.m[*]"),
        (
            PayloadFormat::Dynamodb,
            format!(r#"{{"eventName":"INSERT","dynamodb":{{"NewImage":{item}}}}}"#),
            "$.dynamodb.NewImage.m[*]",
        ),
    ] {
        let key = RawValue::from_string("null".into()).unwrap();
        let line = Line { key, value: RawValue::from_string(value).unwrap() };
        let (mut outcomes, _) = decode(format, &columns, &["id"], &[line]);
        assert_eq!(outcomes.remove(0), Err((path.to_owned(), RejectKind::BadFormat)));
    }
}

#[test]
fn a_row_may_look_like_an_envelope_and_a_column_may_be_called_payload() {
    let columns =
        [formed("id", "long", ""), column("p", "payload", T::Json, false), column("op", "op", T::Json, false)];
    let line = |value: &str| Line {
        key: RawValue::from_string("null".into()).unwrap(),
        value: RawValue::from_string(value.into()).unwrap(),
    };
    let records = [
        r#"{"id":1,"op":"x","source":"web"}"#,
        r#"{"id":2,"payload":{"id":3}}"#,
        r#"{"id":4,"schema":7,"payload":{"id":5}}"#,
    ];
    let (_, rows) = decode(PayloadFormat::Debezium, &columns, &[], &records.map(line));
    let values: Vec<Value> = rows.iter().map(|row| json!(row.3)).collect();
    assert_eq!(values, [json!([1, null, "\"x\""]), json!([2, "{\"id\":3}", null]), json!([4, "{\"id\":5}", null])]);
}

#[test]
fn a_schema_counts_for_its_own_records_only() {
    let columns = [formed("at", "timestamptz", "epochSeconds")];
    let with = |name: &str, value: &str| {
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"type":"int64","name":"{name}","field":"at"}}]}},"payload":{{"at":{value}}}}}"#
        )
    };
    let micros = "io.debezium.time.MicroTimestamp";
    let records = [
        with(micros, "1000001"),
        with(micros, "1000002"),
        r#"{"at":1}"#.to_owned(),
        with(micros, "1000003"),
        with("io.debezium.time.Timestamp", "1004"),
        with(micros, "1000005"),
        with("of.my.own", "6"),
    ];
    let (_, rows) = decode(PayloadFormat::Debezium, &columns, &[], &keyless(records));
    let values: Vec<Value> = rows.iter().map(|row| row.3[0].clone()).collect();
    assert_eq!(json!(values), json!([1_000_001, 1_000_002, 1_000_000, 1_000_003, 1_004_000, 1_000_005, 6_000_000]));
}

fn keyless(records: impl IntoIterator<Item = String>) -> Vec<Line> {
    let raw = |text: String| RawValue::from_string(text).unwrap();
    records.into_iter().map(|text| Line { key: raw("null".to_owned()), value: raw(text) }).collect()
}

#[test]
fn a_decimal_of_any_scale_is_its_digits_or_refused_and_never_base64() {
    let columns = [formed("amount", "string", "")];
    let with = |parameters: &str, value: &str| {
        let amount = format!(
            r#"{{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal"{parameters},"field":"amount"}}"#
        );
        format!(r#"{{"schema":{{"type":"struct","fields":[{amount}]}},"payload":{{"amount":{value}}}}}"#)
    };
    let scale = |scale: &str| format!(r#","parameters":{{"scale":"{scale}"}}"#);
    let records = [
        with(&scale("2"), "\"ew==\""),
        with(&scale("-2"), "\"ew==\""),
        with(&scale("40"), "\"AQ==\""),
        with(&scale("2"), "1.23"),
        with(&scale("99999"), "\"ew==\""),
        with("", "\"ew==\""),
    ];
    let (outcomes, rows) = decode(PayloadFormat::Debezium, &columns, &[], &keyless(records));
    let values: Vec<Value> = rows.iter().map(|row| row.3[0].clone()).collect();
    assert_eq!(json!(values), json!(["1.23", "12300", format!("0.{}1", "0".repeat(39)), "1.23"]));
    let refused = |reason| Err(("$.payload.amount".to_owned(), reason));
    assert_eq!(outcomes[4..], [refused(RejectKind::OutOfRange), refused(RejectKind::BadFormat)]);
}

#[test]
fn a_flattened_row_without_position_and_time_is_ordered_by_kafka_alone() {
    let columns = [formed("id", "long", "")];
    let row = |op: &str| format!(r#"{{"id":1,"__op":"{op}","__deleted":"false"}}"#);
    let (_, rows) = decode(PayloadFormat::Debezium, &columns, &["id"], &keyless([row("u"), row("r")]));
    assert!(rows[0].1.is_some() && rows[0].1 == rows[1].1, "a snapshot made again is not older: {rows:?}");
}

#[test]
fn dynamodb_items_keep_every_digit() {
    let columns = [
        formed("pk", "string", ""),
        formed("sk", "long", ""),
        formed("balance", "decimal(38,12)", ""),
        formed("digits", "string", ""),
        formed("active", "boolean", ""),
        formed("gone", "string", ""),
        formed("raw", "binary", ""),
        formed("names", "list<string>", ""),
        formed("counts", "list<decimal(3,1)>", ""),
        formed("blobs", "list<binary>", ""),
        column("city", "address.city", T::String, false),
        formed("address", "struct<zip: int, geo: map<string, double>>", ""),
        formed("lines", "list<struct<sku: string not null, qty: long>>", ""),
        formed("any", "json", ""),
        Column {
            format: Some(Format::Time(TimeFormat::EpochSeconds)),
            ..column("seen", "seen", T::TimestampTz, false)
        },
    ];
    let (outcomes, rows) = decode(PayloadFormat::Dynamodb, &columns, &["pk", "sk"], &lines("dynamodb.ndjson"));
    assert_eq!(outcomes, vec![Ok(Taken::Row); 4]);
    let item = json!([
        "c#1",
        7,
        "12345678901234567890123456789012345678",
        "7",
        true,
        null,
        [0, 255, 254],
        ["b", "a"],
        ["10", "25"],
        [[0], [255]],
        "Köln",
        {"zip": 50667, "geo": {"lat": 50.94}},
        [{"sku": "x", "qty": 2}, {"sku": "y", "qty": null}],
        "[\"a\\\"b\",1E+2,false,null,\"AA==\",[1],{\"k\":[]}]",
        1_700_000_000_000_000_i64
    ]);
    assert_eq!(json!(rows[0].3), item);
    assert_eq!(rows[1].3[4], json!(false));
    assert_eq!(json!(rows[3].3[..3]), json!(["c#1", 7, null]));
    let ops: Vec<Op> = rows.iter().map(|row| row.0).collect();
    assert_eq!(ops, [Op::Create, Op::Update, Op::Delete, Op::Delete]);
    assert_eq!(rows[0].1.as_deref(), Some("0000000000004421584500000000017450439091"));
    assert!(rows.is_sorted_by(|a, b| a.1 < b.1));
    assert_eq!(rows[0].2, Some(1_700_000_000_000_000));
}

#[test]
fn any_image_is_read_as_the_payload_it_would_be() {
    let (mut accepted, mut all) = (0, 0);
    for seed in 0..500 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let columns = agreement::columns(&mut rng);
        let mut plain = Decoder::new(&columns).unwrap();
        let mut inside = Decoder::new(&columns).unwrap();
        let mut changes = Changes::new(PayloadFormat::Debezium, &columns, vec![false; columns.len()]);
        for _ in 0..20 {
            let mut image = String::new();
            agreement::object(&mut rng, 4, &mut image);
            let event = match rng.random_range(0..3) {
                0 => format!(r#"{{"before":null,"after":{image},"source":{{"lsn":1}},"op":"c"}}"#),
                1 => format!(r#"{{"schema":{{"type":"struct","fields":[]}},"payload":{{"op":"u","after":{image}}}}}"#),
                _ => format!(r#"{{"schema":{{"type":"struct"}}, "payload": {image}}}"#),
            };
            let wanted = plain.push(image.as_bytes());
            let found = changes.push(&mut inside, event.as_bytes(), || None);
            assert_eq!(found.is_ok(), wanted.is_ok(), "{event}\n{found:?}\n{wanted:?}");
            if let (Err(found), Err(wanted)) = (found, wanted) {
                assert!(found.reason == wanted.reason && found.path.ends_with(&wanted.path[1..]), "{found} {wanted}");
            }
            all += 1;
        }
        accepted += plain.rows();
        assert_eq!(rows(&inside.finish().unwrap()), rows(&plain.finish().unwrap()));
    }
    assert!(accepted > all / 10 && accepted < all, "{accepted} of {all}: the inputs say nothing");
}

/// A random typed value.
fn typed(rng: &mut SmallRng, depth: usize) -> Value {
    const NUMBERS: [&str; 6] = ["0", "-7", "42", "1.0", "9223372036854775807", "2147483648"];
    const TEXTS: [&str; 5] = ["", "x", "12", "a\"\\\n", "2021-07-21T06:00:00Z"];
    let number = |rng: &mut SmallRng| json!(NUMBERS.choose(rng).unwrap());
    let text = |rng: &mut SmallRng| json!(TEXTS.choose(rng).unwrap());
    match rng.random_range(0..if depth == 0 { 5 } else { 9 }) {
        0 | 1 => json!({"N": number(rng)}),
        2 => json!({"S": text(rng)}),
        3 => json!({"BOOL": rng.random::<bool>()}),
        4 => json!({"NULL": true}),
        5 => json!({"SS": (0..rng.random_range(0..3)).map(|_| text(rng)).collect::<Vec<_>>()}),
        6 => json!({"NS": (0..rng.random_range(0..3)).map(|_| number(rng)).collect::<Vec<_>>()}),
        7 => json!({"L": (0..rng.random_range(0..3)).map(|_| typed(rng, depth - 1)).collect::<Vec<_>>()}),
        _ => json!({"M": item(rng, depth - 1)}),
    }
}

fn item(rng: &mut SmallRng, depth: usize) -> Value {
    let keys = ["a", "b", "c", "long_key_of_an_object"];
    let taken: Vec<&str> = keys.into_iter().filter(|_| rng.random_ratio(1, 2)).collect();
    Value::Object(taken.into_iter().map(|key| (key.to_owned(), typed(rng, depth))).collect::<Map<_, _>>())
}

/// The value a column of this type must hold for a typed value; `None` when it must be refused.
fn fit(value: &Value, logical: &T) -> Option<Value> {
    let (tag, inner) = value.as_object()?.iter().next()?;
    let text = inner.as_str().unwrap_or_default();
    let elements = |tag: &str| -> Vec<Value> { inner.as_array().unwrap().iter().map(|v| json!({tag: v})).collect() };
    match (tag.as_str(), logical) {
        ("NULL", _) => Some(Value::Null),
        (_, T::Json) => Some(plain(value)),
        ("N" | "S", T::String) | ("BOOL", T::Boolean) => Some(inner.clone()),
        ("N", T::Long | T::Int | T::Double) => {
            reference::row(&json!({"v": inner}), &[column("v", "v", logical.clone(), false)])
                .map(|mut row| row.remove(0))
        }
        ("S", T::Long | T::Int | T::Double | T::TimestampTz) => {
            reference::row(&json!({"v": text}), &[column("v", "v", logical.clone(), false)])
                .map(|mut row| row.remove(0))
        }
        ("L", T::List(element)) => inner.as_array()?.iter().map(|v| fit(v, element)).collect(),
        ("SS", T::List(element)) => elements("S").iter().map(|v| fit(v, element)).collect(),
        ("NS", T::List(element)) => elements("N").iter().map(|v| fit(v, element)).collect(),
        ("M", T::Map(element)) => {
            let fields = inner.as_object()?.iter().map(|(k, v)| Some((k.clone(), fit(v, element)?)));
            fields.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        ("M", T::Struct(fields)) => {
            let fields = fields.iter().map(|f| {
                let value = inner.get(&f.name).map_or(Some(Value::Null), |v| fit(v, &f.r#type))?;
                (!f.required || !value.is_null()).then(|| (f.name.clone(), value))
            });
            fields.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        _ => None,
    }
}

fn plain(value: &Value) -> Value {
    let (tag, inner) = value.as_object().unwrap().iter().next().unwrap();
    let number = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
    match tag.as_str() {
        "NULL" => Value::Null,
        "N" => number(inner),
        "NS" => inner.as_array().unwrap().iter().map(number).collect(),
        "L" => inner.as_array().unwrap().iter().map(plain).collect(),
        "M" => Value::Object(inner.as_object().unwrap().iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
        _ => inner.clone(),
    }
}

fn typed_row(item: &Value, columns: &[Column]) -> Option<Vec<Value>> {
    columns
        .iter()
        .map(|column| {
            let (last, first) = column.path.0.split_last()?;
            let mut fields = Some(item);
            for key in first {
                let Some(value) = fields.and_then(|fields| fields.get(key)) else {
                    fields = None;
                    continue;
                };
                fields = if value.get("NULL").is_some() { None } else { Some(value.get("M")?) };
            }
            let value = fields.and_then(|fields| fields.get(last));
            let value = value.map_or(Some(Value::Null), |value| fit(value, &column.r#type))?;
            (!column.required || !value.is_null()).then_some(value)
        })
        .collect()
}

#[test]
fn random_items_under_random_columns_are_what_the_reference_says() {
    let (mut accepted, mut all) = (0, 0);
    for seed in 0..2000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut columns = agreement::columns(&mut rng);
        columns.push(column("f", "a", T::Struct(vec![field("b", T::Json, false)]), false));
        let mut decoder = Decoder::new(&columns).unwrap();
        let mut changes = Changes::new(PayloadFormat::Dynamodb, &columns, vec![false; columns.len()]);
        let mut expected = Vec::new();
        for _ in 0..10 {
            let item = item(&mut rng, 3);
            let mut event = String::new();
            write!(event, r#"{{"eventName":"INSERT","dynamodb":{{"NewImage":{item}}}}}"#).unwrap();
            let wanted = typed_row(&item, &columns);
            let found = changes.push(&mut decoder, event.as_bytes(), || None);
            assert_eq!(found.is_ok(), wanted.is_some(), "{event}\n{found:?}\n{columns:?}");
            expected.extend(wanted);
            all += 1;
        }
        accepted += expected.len();
        assert_eq!(agreement::normal(rows(&decoder.finish().unwrap()), &columns), expected, "{columns:?}");
    }
    assert!(accepted > all / 20 && accepted < all, "{accepted} of {all}: the inputs say nothing");
}
