//! What is encrypted comes back as it was, whatever its type.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use firn_compactor::decode::Decoder;
use firn_compactor::protect::{Buffers, Protector, canonical};
use firn_shared::config::domain::Column;
use firn_shared::crypto::{DataKey, KeyBytes};
use firn_shared::store::Faults;
use firn_shared::types::LogicalType;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bed::Bed;

/// A type as it is written, and values of it as JSON.
type Typed = (String, Vec<String>);

fn of(r#type: &'static str, value: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Typed> {
    vec(prop_oneof![1 => Just("null".to_owned()), 8 => value], 1..4).prop_map(move |v| (r#type.to_owned(), v)).boxed()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Every type that is not nested.
fn simple() -> BoxedStrategy<Typed> {
    use base64::Engine as _;
    let base64 = |bytes: Vec<u8>| quoted(&base64::engine::general_purpose::STANDARD.encode(bytes));
    let day = || (1970..2100i32, 1..13u32, 1..29u32).prop_map(|(y, m, d)| format!("{y}-{m:02}-{d:02}"));
    let time = || {
        (0..24u32, 0..60u32, 0..60u32, 0..1_000_000u32)
            .prop_map(|(h, m, s, us)| format!("{h:02}:{m:02}:{s:02}.{us:06}"))
    };
    prop_oneof![
        of("boolean", any::<bool>().prop_map(|v| v.to_string())),
        of("int", any::<i32>().prop_map(|v| v.to_string())),
        of("long", any::<i64>().prop_map(|v| v.to_string())),
        of("float", (-1.0e6..1.0e6f32).prop_map(|v| serde_json::to_string(&v).unwrap())),
        of("double", (-1.0e300..1.0e300f64).prop_map(|v| serde_json::to_string(&v).unwrap())),
        of("decimal(12,3)", (-999_999_999i64..999_999_999, 0..1000u32).prop_map(|(v, f)| format!("{v}.{f:03}"))),
        of("date", day().prop_map(|v| quoted(&v))),
        of("time", time().prop_map(|v| quoted(&v))),
        of("timestamp", (day(), time()).prop_map(|(d, t)| quoted(&format!("{d}T{t}")))),
        of("timestamptz", (day(), time()).prop_map(|(d, t)| quoted(&format!("{d}T{t}Z")))),
        of("string", any::<String>().prop_map(|v| quoted(&v))),
        of("uuid", any::<u128>().prop_map(|v| quoted(&uuid::Uuid::from_u128(v).to_string()))),
        of("binary", vec(any::<u8>(), 0..40).prop_map(base64)),
        of("json", any::<(String, i64)>().prop_map(|(k, v)| format!("{{ {} : [{v}, null] }}", quoted(&k)))),
    ]
    .boxed()
}

/// Lists, maps and structs of them, and of each other.
fn typed() -> impl Strategy<Value = Typed> {
    simple().prop_recursive(2, 8, 3, |inner| {
        let keys = || vec("[a-zA-Z \"\\\\]{1,6}", 4);
        prop_oneof![
            inner.clone().prop_map(|(of, values)| (format!("list<{of}>"), vec![format!("[{}]", values.join(","))])),
            (inner.clone(), keys()).prop_map(|((of, values), keys)| {
                let entries = keys.iter().enumerate().zip(&values);
                let entries: Vec<String> =
                    entries.map(|((i, key), value)| format!("{}:{value}", quoted(&format!("{key}{i}")))).collect();
                (format!("map<string, {of}>"), vec![format!("{{{}}}", entries.join(","))])
            }),
            (inner.clone(), inner).prop_map(|((a, of_a), (b, of_b))| {
                let values = of_a.iter().zip(&of_b).map(|(a, b)| format!("{{\"a\":{a},\"b\":{b}}}")).collect();
                (format!("struct<a: {a}, b: {b}>"), values)
            }),
        ]
    })
}

fn decoded(columns: &[Column], values: impl Iterator<Item = String>) -> ArrayRef {
    let mut decoder = Decoder::new(columns).unwrap();
    for value in values {
        decoder.push(format!("{{\"v\":{value}}}").as_bytes()).unwrap_or_else(|why| panic!("{value}: {why}"));
    }
    Arc::clone(decoder.finish().unwrap().column(0))
}

/// The JSON of a value's text: what tables and readers have of it after decryption.
fn json_of(r#type: &LogicalType, text: &str) -> String {
    use LogicalType as T;
    match r#type {
        T::Boolean
        | T::Int
        | T::Long
        | T::Float
        | T::Double
        | T::Decimal { .. }
        | T::Json
        | T::List(_)
        | T::Map(_)
        | T::Struct(_) => text.to_owned(),
        _ => quoted(text),
    }
}

const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData: {format: json, eventTime: kafkaTimestamp}
outsourcingUnit:
  - table:
      database: d
      tableName: t
      piiColumns: [{name: v, protect: encrypt, aad: d.t.v}]
      columns: [{name: v, type: 'TYPE'}]
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn values_of_every_type_come_back_as_they_were((r#type, values) in typed()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bed = Bed::protected(&PIPELINE.replace("TYPE", &r#type));
        let output = bed.target().output;
        let env = runtime.block_on(bed.env(&Faults::none()));
        let protector = runtime.block_on(Protector::new(output, &[], false, &env.keys)).unwrap().unwrap();
        let columns = &output.table.columns;
        let before = decoded(columns, values.iter().cloned());
        let batch = arrow_array::RecordBatch::try_from_iter_with_nullable([("v", Arc::clone(&before), true)]).unwrap();
        let sealed = protector.apply(batch, &mut Buffers::default()).unwrap();

        let key = DataKey::new("people/1", &KeyBytes::new([1; 32])).unwrap();
        let (ciphertexts, texts) = (sealed.column_by_name("v").unwrap().as_string::<i32>(), canonical(&before).unwrap());
        let open = |row: usize| {
            let opened = key.open(ciphertexts.value(row).as_bytes(), b"d.t.v").unwrap();
            ciphertexts.is_valid(row).then(|| String::from_utf8(opened.expose().to_vec()).unwrap())
        };
        let opened: Vec<Option<String>> =
            (0..before.len()).map(|row| if before.is_valid(row) { open(row) } else { None }).collect();
        prop_assert_eq!(opened.iter().map(Option::as_deref).collect::<Vec<_>>(), texts.iter().collect::<Vec<_>>());
        // JSON inside of something else is text there, as the canonical text says.
        if r#type.ends_with('>') && r#type.contains("json") {
            return Ok(());
        }
        let json = |text: &Option<String>| text.as_deref().map_or("null".to_owned(), |text| json_of(&columns[0].r#type, text));
        let after = decoded(columns, opened.iter().map(json));
        prop_assert_eq!(&after, &before, "{}", r#type);
    }
}
