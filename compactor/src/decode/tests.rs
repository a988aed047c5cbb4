//! Claims about whole records: what is refused, where, and that it leaves no trace.

use firn_shared::config::domain::{Column, Format, TimeFormat};
use firn_shared::types::LogicalType as T;
use serde_json::{Value, json};

use super::reference::{column, field, rows};
use super::{Decoder, RejectKind};

fn decode(columns: &[Column], payload: &str) -> Result<Vec<Value>, (String, RejectKind)> {
    let mut decoder = Decoder::new(columns).unwrap();
    decoder.push(payload.as_bytes()).map_err(|r| (r.path, r.reason))?;
    Ok(rows(&decoder.finish().unwrap()).remove(0))
}

/// One column `a` of this type.
fn one(logical: T, payload: &str) -> Result<Value, RejectKind> {
    decode(&[column("a", "a", logical, false)], payload).map(|mut r| r.remove(0)).map_err(|(_, reason)| reason)
}

fn formatted(logical: T, format: TimeFormat, payload: &str) -> Result<Value, RejectKind> {
    let columns = [Column { format: Some(Format::Time(format)), ..column("a", "a", logical, false) }];
    decode(&columns, payload).map(|mut r| r.remove(0)).map_err(|(_, reason)| reason)
}

#[test]
fn a_value_of_another_kind_is_refused_never_null() {
    use RejectKind::{BadFormat, Inexact, OutOfRange, WrongType};
    for (logical, value, reason) in [
        (T::Boolean, "1", WrongType),
        (T::Boolean, "\"true\"", WrongType),
        (T::String, "1", WrongType),
        (T::String, "{}", WrongType),
        (T::Long, "true", WrongType),
        (T::Long, "[]", WrongType),
        (T::Long, "1.5", Inexact),
        (T::Long, "\"x\"", BadFormat),
        (T::Long, "\"\"", BadFormat),
        (T::Long, "9223372036854775808", OutOfRange),
        (T::Int, "2147483648", OutOfRange),
        (T::Float, "1e39", OutOfRange),
        (T::Double, "1e999", OutOfRange),
        (T::Double, "\"NaN\"", BadFormat),
        (T::Decimal { precision: 4, scale: 2 }, "1.005", Inexact),
        (T::Decimal { precision: 4, scale: 2 }, "100.00", OutOfRange),
        (T::Date, "\"2021-02-30\"", BadFormat),
        (T::Date, "18829", WrongType),
        (T::Time, "\"25:00\"", BadFormat),
        (T::TimestampTz, "1626847200", WrongType),
        (T::TimestampTz, "\"yesterday\"", BadFormat),
        (T::Uuid, "\"d9428888122b11e1b85c61cd3cbb3210\"", BadFormat),
        (T::Binary, "\"a\"", BadFormat),
        (T::List(Box::new(T::Long)), "{}", WrongType),
        (T::List(Box::new(T::Long)), "1", WrongType),
        (T::Map(Box::new(T::Long)), "[]", WrongType),
        (T::Struct(vec![field("b", T::Long, false)]), "\"{}\"", WrongType),
    ] {
        assert_eq!(one(logical.clone(), &format!("{{\"a\":{value}}}")), Err(reason), "{value} as {logical}");
    }
}

#[test]
fn values_that_fit_are_exact() {
    for (logical, value, expected) in [
        (T::Long, "\"17244207336\"", json!(17_244_207_336_i64)),
        (T::Long, "1e3", json!(1000)),
        (T::Long, "-9223372036854775808", json!(i64::MIN)),
        (
            T::Decimal { precision: 38, scale: 10 },
            "1234567890123456789012345678.0123456789",
            json!("12345678901234567890123456780123456789"),
        ),
        (T::Decimal { precision: 4, scale: 2 }, "\"-10.5\"", json!("-1050")),
        (T::Double, "17", json!(17.0)),
        (T::Timestamp, "\"2021-07-21T08:00:00+02:00\"", json!(1_626_847_200_000_000_i64)),
        (T::Uuid, "\"D9428888-122B-11E1-B85C-61CD3CBB3210\"", json!("d9428888-122b-11e1-b85c-61cd3cbb3210")),
        (T::Binary, "\"AP8=\"", json!([0, 255])),
        (T::Json, " { \"b\" :\t[1.50, \"\\u00e9\"] } ", json!("{ \"b\" :\t[1.50, \"\\u00e9\"] }")),
        (T::Json, "\"text\"", json!("\"text\"")),
        (T::Map(Box::new(T::Long)), "{\"k\":1,\"l\":null,\"k\":2}", json!({"k": 2, "l": null})),
        (T::List(Box::new(T::List(Box::new(T::Long)))), "[[1],null,[],[null,2]]", json!([[1], null, [], [null, 2]])),
        (
            T::Struct(vec![field("b", T::Long, false), field("c", T::String, false)]),
            "{\"c\":\"x\"}",
            json!({"b": null, "c": "x"}),
        ),
    ] {
        assert_eq!(one(logical.clone(), &format!("{{\"a\":{value}}}")), Ok(expected), "{value} as {logical}");
    }
}

#[test]
fn numbers_are_times_only_where_the_format_says_so() {
    use TimeFormat::{EpochDays, EpochMicros, EpochMillis, EpochNanos, EpochSeconds, Strftime};
    let instant = json!(1_626_847_200_123_456_i64);
    for (format, value) in [
        (EpochSeconds, "1626847200.1234569"),
        (EpochSeconds, "\"1626847200.123456\""),
        (EpochMillis, "1626847200123.456"),
        (EpochMicros, "1626847200123456"),
        (EpochNanos, "1626847200123456999"),
    ] {
        assert_eq!(formatted(T::TimestampTz, format, &format!("{{\"a\":{value}}}")), Ok(instant.clone()), "{value}");
    }
    assert_eq!(formatted(T::Date, EpochDays, "{\"a\":-3653}"), Ok(json!(-3653)));
    assert_eq!(formatted(T::TimestampTz, EpochDays, "{\"a\":2}"), Ok(json!(172_800_000_000_i64)));
    assert_eq!(formatted(T::TimestampTz, EpochNanos, "{\"a\":-1}"), Ok(json!(-1)));
    assert_eq!(formatted(T::TimestampTz, EpochMicros, "{\"a\":1e30}"), Err(RejectKind::OutOfRange));
    assert_eq!(formatted(T::TimestampTz, EpochMillis, "{\"a\":\"2021-07-21\"}"), Err(RejectKind::BadFormat));
    let pattern = Strftime("%d/%m/%Y %H:%M".into());
    assert_eq!(
        formatted(T::TimestampTz, pattern, "{\"a\":\"21/07/2021 06:00\"}"),
        Ok(json!(1_626_847_200_000_000_i64))
    );
}

#[test]
fn numbers_beyond_the_years_1_to_9999_are_no_times() {
    use TimeFormat::{EpochDays, EpochMicros, EpochMillis, EpochSeconds};
    for (format, last, beyond) in [
        (EpochMicros, "253402300799999999", "253402300800000000"),
        // What Debezium makes of PostgreSQL's `infinity` and `-infinity`.
        (EpochMicros, "-62135596800000000", "9223372036825200000"),
        (EpochMicros, "0", "-9223372036832400000"),
        // The last instant of a Date of JavaScript.
        (EpochMillis, "253402300799999", "8640000000000000"),
        (EpochSeconds, "-62135596800", "-62135596801"),
        (EpochDays, "2932896", "2932897"),
        (EpochDays, "-719162", "-719163"),
    ] {
        for logical in [T::TimestampTz, T::Timestamp, T::Date] {
            let value = |number: &str| formatted(logical.clone(), format.clone(), &format!("{{\"a\":{number}}}"));
            assert!(value(last).is_ok(), "{last} as {logical}: {:?}", value(last));
            assert_eq!(value(beyond), Err(RejectKind::OutOfRange), "{beyond} as {logical}");
        }
    }
    assert_eq!(one(T::Date, "{\"a\":\"0000-12-31\"}"), Err(RejectKind::BadFormat));
    assert_eq!(one(T::TimestampTz, "{\"a\":\"9999-12-31T23:59:59-01:00\"}"), Err(RejectKind::BadFormat));
}

#[test]
fn a_fault_is_located_to_the_list_index() {
    let commit = T::Struct(vec![field("sha", T::String, true), field("n", T::Map(Box::new(T::Long)), false)]);
    let columns = [
        column("commits", "payload.commits", T::List(Box::new(commit)), false),
        column("id.h", "id", T::Struct(vec![field("id.orig", T::Int, false)]), false),
        column("must", "x.y", T::String, true),
    ];
    for (payload, path, reason) in [
        (r#"{"payload":{"commits":[{"sha":"a"},{"sha":1}]}}"#, "$.payload.commits[1].sha", RejectKind::WrongType),
        (r#"{"payload":{"commits":[{"sha":"a"},{}]}}"#, "$.payload.commits[1].sha", RejectKind::Missing),
        (r#"{"payload":{"commits":[{"sha":"a","n":{"k":"v"}}]}}"#, "$.payload.commits[0].n[*]", RejectKind::BadFormat),
        (r#"{"payload":7}"#, "$.payload", RejectKind::WrongType),
        (r#"{"id":{"id.orig":1.5}}"#, "$.id['id.orig']", RejectKind::Inexact),
        (r"{}", "$.x.y", RejectKind::Missing),
        (r#"{"x":{"y":null}}"#, "$.x.y", RejectKind::Missing),
        ("[]", "$", RejectKind::NotObject),
        ("null", "$", RejectKind::NotObject),
        ("1", "$", RejectKind::NotObject),
        ("", "$", RejectKind::NotJson),
        (r#"{"x":{"y":"z"}} {}"#, "$", RejectKind::NotJson),
        (r#"{"x":{"y":"z"}"#, "$", RejectKind::NotJson),
        (r#"{"x":{"y":"\ud800"}}"#, "$", RejectKind::BadEscape),
        (r#"{"unknown":"\ud800","x":{"y":""}}"#, "$", RejectKind::BadEscape),
        (r#"{"unknown":[1,],"x":{"y":""}}"#, "$", RejectKind::NotJson),
    ] {
        assert_eq!(decode(&columns, payload), Err((path.to_owned(), reason)), "{payload}");
    }
}

#[test]
fn a_refusal_never_quotes_the_payload() {
    let columns = [column("a", "a", T::Long, false), column("m", "m", T::Map(Box::new(T::Long)), false)];
    for payload in [
        r#"{"a":"secret"}"#,
        r#"{"a":"secret""#,
        r#"{"a":1,"b":secret}"#,
        r#"{"a":"secret\ud800"}"#,
        r#"{"m":{"secret":"x"}}"#,
        r#"{"m":{"secret":"x","secret":{}}}"#,
    ] {
        let rejected = Decoder::new(&columns).unwrap().push(payload.as_bytes()).unwrap_err();
        assert!(!format!("{rejected:?}").contains("secret"), "{rejected:?}");
    }
}

#[test]
fn the_last_of_several_values_counts_also_when_an_earlier_one_would_not_fit() {
    let columns = [
        column("a", "a", T::Long, false),
        column("o", "o", T::Struct(vec![field("x", T::Long, false), field("y", T::Long, false)]), false),
        column("p", "p.q", T::Long, false),
    ];
    let payload = r#"{"a":"bad","o":{"x":1},"p":{"q":1},"p":{},"o":{"y":2,"y":3},"a":1,"\u0061":2}"#;
    assert_eq!(decode(&columns, payload), Ok(vec![json!(2), json!({"x": null, "y": 3}), json!(null)]));
    assert_eq!(decode(&columns, r#"{"a":1,"a":null}"#), Ok(vec![json!(null), json!(null), json!(null)]));
    assert_eq!(decode(&columns, r#"{"a":1,"a":"bad"}"#), Err(("$.a".to_owned(), RejectKind::BadFormat)));
}

#[test]
fn one_value_can_be_wanted_several_times() {
    let columns = [
        column("payload", "payload", T::Json, false),
        column("size", "payload.size", T::Long, false),
        column("text", "payload.size", T::Json, false),
        column("whole", "payload", T::Struct(vec![field("size", T::Long, false)]), false),
    ];
    let payload = r#"{"payload":{"size": 3,"note":"\n"}}"#;
    let text = r#"{"size": 3,"note":"\n"}"#;
    assert_eq!(decode(&columns, payload), Ok(vec![json!(text), json!(3), json!("3"), json!({"size": 3})]));
}

#[test]
fn refused_records_leave_no_trace_and_the_decoder_goes_on() {
    let inner = T::Struct(vec![field("s", T::String, false), field("l", T::List(Box::new(T::Long)), false)]);
    let columns = [
        column("t", "t", T::String, false),
        column("d", "d", T::Boolean, false),
        column("l", "l", T::List(Box::new(inner)), false),
        column("m", "m", T::Map(Box::new(T::String)), false),
        column("n", "n", T::Long, true),
    ];
    let good = r#"{"t":"one","d":true,"l":[{"s":"a","l":[1,2]},null],"m":{"k":"v"},"n":1}"#;
    let bad = r#"{"t":"two","d":false,"l":[{"s":"b","l":[3]},{"s":"c","l":[4,true]}],"m":{"k":"w"},"n":2}"#;
    let late = r#"{"t":"two","d":false,"l":[{"s":"b","l":[3]}],"m":{"k":"w","k2":"x"}}"#;
    let mut decoder = Decoder::new(&columns).unwrap();
    for _ in 0..3 {
        decoder.push(good.as_bytes()).unwrap();
        let bytes = decoder.bytes();
        assert!(decoder.push(bad.as_bytes()).is_err());
        assert!(decoder.push(late.as_bytes()).is_err());
        assert_eq!((decoder.bytes(), bytes > 0), (bytes, true));
        decoder.push(br#"{"n":9}"#).unwrap();
    }
    assert_eq!(decoder.rows(), 6);
    let batch = rows(&decoder.finish().unwrap());
    let first = vec![json!("one"), json!(true), json!([{"s": "a", "l": [1, 2]}, null]), json!({"k": "v"}), json!(1)];
    let second = vec![json!(null), json!(null), json!(null), json!(null), json!(9)];
    assert_eq!(batch, [first.clone(), second.clone(), first.clone(), second.clone(), first.clone(), second]);
    decoder.push(good.as_bytes()).unwrap();
    assert_eq!(rows(&decoder.finish().unwrap()), [first]);
    assert_eq!(decoder.finish().unwrap().num_rows(), 0);
}

#[test]
fn columns_that_make_no_schema_are_refused() {
    for columns in [
        vec![column("a", "a", T::Long, false), column("a", "b", T::Long, false)],
        vec![column("a", "a", T::Struct(vec![]), false)],
        vec![column("a", "a", T::Struct(vec![field("x", T::Long, false), field("x", T::Long, false)]), false)],
    ] {
        assert!(Decoder::new(&columns).is_err(), "{columns:?}");
    }
}
