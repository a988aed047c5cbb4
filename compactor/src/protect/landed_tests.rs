//! Whoever protects a value first, landing or conversion, and however it is written: its token is the same.

use std::path::Path;

use arrow_array::cast::AsArray;
use firn_shared::clock::SystemClock;
use firn_shared::config::{self, Config};
use firn_shared::store::Stores;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::decode::Decoder;

const FIRN: &str = "
clusters: {c: {brokers: 'localhost:9092'}}
raw: DIR/raw
warehouse: DIR/lake
catalog: {sqlite: {path: DIR/catalog.db}}
keys: {people: {file: DIR/keys.yaml}}
";

const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData: {format: json, eventTime: {path: $.at, format: rfc3339}}
  protectAt: landing
outsourcingUnit:
  - table:
      database: d
      tableName: t
      piiColumns:
        - {name: s, protect: encrypt, token: true}
        - {name: i, protect: token}
        - {name: l, protect: encrypt, token: true}
        - {name: u, protect: token}
        - {name: b, protect: encrypt, token: true}
        - {name: h, protect: hash}
        - {name: 'list[]', protect: token}
        - {name: of.n, protect: encrypt, token: true}
      columns:
        - {name: s, type: string}
        - {name: i, type: int}
        - {name: l, type: long}
        - {name: u, type: uuid}
        - {name: b, type: boolean}
        - {name: h, type: long}
        - {name: list, type: 'list<long>'}
        - {name: of, type: 'struct<n: uuid>'}
";

fn config(dir: &Path) -> Config {
    let at = dir.to_str().unwrap();
    std::fs::create_dir_all(dir.join("pipelines")).unwrap();
    std::fs::write(dir.join("firn.yaml"), FIRN.replace("DIR", at)).unwrap();
    std::fs::write(dir.join("pipelines/p.yaml"), PIPELINE).unwrap();
    fixed::keys(dir, ["people".parse().unwrap()]).unwrap();
    config::load(&dir.join("firn.yaml"), &[dir.join("pipelines")]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What tables hold of a payload, where landing may have protected it or not.
async fn rows(output: &Output, keys: &Keys, payload: &[u8], landed: bool) -> RecordBatch {
    let protector = Protector::new(output, std::slice::from_ref(output), landed, keys).await.unwrap().unwrap();
    let mut decoder = Decoder::new(&decoded_columns(output, landed)).unwrap();
    decoder.push(payload).unwrap();
    let batch = decoder.finish().unwrap();
    tokio::task::block_in_place(|| protector.apply(batch, &mut Buffers::default())).unwrap()
}

/// Everything in a row by which equal values are found.
fn tokens(batch: &RecordBatch) -> Vec<String> {
    let text = |array: &ArrayRef| array.as_string::<i32>().value(0).to_owned();
    let list = batch.column_by_name("list").unwrap().as_list::<i32>().value(0);
    let nested = batch.column_by_name("of").unwrap().as_struct();
    ["s_token", "i", "l_token", "u", "b_token", "h"]
        .iter()
        .map(|name| text(batch.column_by_name(name).unwrap()))
        .chain([text(&list), text(nested.column_by_name("n_token").unwrap())])
        .collect()
}

/// A whole number of at most 17 digits in one of the ways that JSON has for it.
fn number() -> impl Strategy<Value = String> {
    let digits = prop_oneof![Just(0), -999_i64..999, -99_999_999_999_999_999_i64..99_999_999_999_999_999];
    (digits, 0_usize..4, 0..6, any::<bool>()).prop_map(|(n, zeros, how, quoted)| {
        let more = "0".repeat(zeros);
        let text = match how {
            0 | 1 => n.to_string(),
            2 => format!("{n}.0{more}"),
            3 => format!("{n}e0{more}"),
            4 if n != 0 => format!("{n}{more}E-{zeros}"),
            _ => format!("{n}.{more}0e-0"),
        };
        if quoted { format!("\"{text}\"") } else { text }
    })
}

fn small(text: &str) -> String {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if digits.len() > 9 { "-7.0".to_owned() } else { text.to_owned() }
}

fn uuid() -> impl Strategy<Value = String> {
    (any::<u128>(), any::<bool>()).prop_map(|(bits, upper)| {
        let text = Uuid::from_u128(bits).to_string();
        format!("\"{}\"", if upper { text.to_uppercase() } else { text })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_token_made_by_landing_is_the_token_made_by_conversion(
        text in any::<String>(),
        (n, m, of_list, hashed) in (number(), number(), number(), number()),
        (u, nested) in (uuid(), uuid()),
        truth: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let _inside = runtime.enter();
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let stores = Stores::new(config.deployment.s3.clone());
        let keys = Keys::new(&config.deployment, stores, Arc::new(SystemClock));
        let output = &config.pipelines.values().next().unwrap().outputs[0];
        let text = serde_json::to_string(&text).unwrap();
        let payload = format!(
            r#"{{"s":{text},"i":{},"l":{m},"u":{u},"b":{truth},"h":{hashed},"list":[{of_list}],"of":{{"n":{nested}}}}}"#,
            small(&n)
        );
        let (by_conversion, by_landing, before_the_switch) = runtime.block_on(async {
            let guard = Guard::new(&protected(output), &keys).await.unwrap().unwrap();
            let landed = tokio::task::block_in_place(|| {
                guard.protect(payload.as_bytes(), &mut Scratch::default()).unwrap().into_owned()
            });
            prop_assert!(!landed.windows(u.len()).any(|at| at == u.as_bytes()), "{payload}");
            Ok((
                tokens(&rows(output, &keys, payload.as_bytes(), false).await),
                tokens(&rows(output, &keys, &landed, true).await),
                tokens(&rows(output, &keys, payload.as_bytes(), true).await),
            ))
        })?;
        prop_assert_eq!(&by_conversion, &by_landing, "{}", payload);
        prop_assert_eq!(&by_conversion, &before_the_switch, "{}", payload);
        prop_assert!(by_conversion.iter().all(|token| token.len() == 64), "{:?}", by_conversion);
    }
}
