//! Every parser against spoilt inputs; what the targets claim is beside them.

mod decode;
mod parsers;

use firn_e2e::mutation::fuzz;
use firn_e2e::rig::samples;

use parsers::TARGETS;

/// Inputs a test run tries on the decoder, and on each of the small parsers.
const DECODED: usize = 6_000;
const PARSED: usize = 20_000;

/// A few events of every kind: long ones would only slow the search down.
fn events() -> Vec<Vec<u8>> {
    let github = samples::github().into_iter().filter(|event| event.len() < 3_000).step_by(40);
    let zeek = samples::zeek_dns().into_iter().step_by(5_000);
    let own = [
        r#"{"id":1,"payload":{"size":2,"ratio":0.5,"amount":"1.25","commits":[{"sha":"a","author":{"name":"n"},"tags":[1]}]},"public":true,"created_at":"2021-07-21T06:00:00Z","day":"2021-07-21","time":"06:00:00","bytes":"AAE=","labels":{"k":["v"]}}"#,
        r#"b{"op":"u","before":{"id":1},"after":{"id":1,"day":18829},"source":{"ts_ms":1,"lsn":2,"snapshot":"false"},"ts_ms":3}"#,
        r#"b{"payload":{"op":"d","before":{"id":1},"after":null,"source":{"file":"b.1","pos":4,"row":0}},"schema":{}}"#,
        r#"c{"eventName":"MODIFY","dynamodb":{"Keys":{"id":{"N":"1"}},"NewImage":{"id":{"N":"1"},"labels":{"M":{"k":{"SS":["v"]}}}},"SequenceNumber":"7"}}"#,
    ];
    let changes = [("mysql", 'b'), ("mysql-schema", 'b'), ("postgres", 'b'), ("flattened", 'b'), ("dynamodb", 'c')];
    let changes = changes.into_iter().flat_map(|(name, format)| {
        let text = std::fs::read_to_string(samples::fixture(&format!("changes/{name}.ndjson"))).unwrap();
        text.lines().take(8).map(|event| format!("{format}{event}")).collect::<Vec<_>>()
    });
    let own = own.map(str::to_owned);
    github.chain(zeek).chain(changes).chain(own).map(String::into_bytes).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match target {
        "manifest" => &[
            r#"{"version":1,"topic":"events/t/1","topicId":"x","partition":0,"range":[0,10],"writer":"w","writtenAt":"2026-11-22T07:00:00Z","objects":[{"key":"k","eventHour":"2026-11-22T07","records":5,"tombstones":1,"bytes":9,"rawBytes":99,"blake3":"","minOffset":0,"maxOffset":6}],"quarantine":[{"key":"q","records":2,"tombstones":0,"bytes":9,"rawBytes":99,"blake3":"","minOffset":7,"maxOffset":8}],"rejects":{"notJson":2},"absent":3,"watermark":"2026-11-22T07:10:00Z"}"#,
            r#"{"version":1,"topic":"events/t/1","partition":3,"range":[5,9],"writer":"w","writtenAt":"2026-11-22T07:00:00Z","objects":[],"gap":"expired"}"#,
        ],
        "envelope" => &[
            r#"{"topic":"t","partition":0,"offset":17,"timestamp":1626847200000,"key":"k","headers":[["h","v"],["n",null]],"event":"a","value":{"a": 1}}"#,
            r#"{"topic":"t","partition":0,"offset":18,"timestamp":-5,"key":{"b64":"//8="},"headers":[],"event":null,"lf":[1],"value":{ "a":1}}"#,
            r#"{"value":null,"tombstone":true,"offset":19,"topic":"t","partition":0,"timestamp":null,"key":null,"headers":[],"event":"\u00e9"}"#,
        ],
        "key" => &[
            "events/t/dt=2026-11-22/hr=07/3-100-200-g1-ab-0.ndjson.zst",
            "events/t/_batches/1/3/00000000000000000100.json",
            "events/t/_checkpoints/1/3/00000000000000000100-00000000000000000200-20261122T07-20261122T08.ndjson.zst",
            "events/t/_checkpoints/1/3/00000000000000000100-00000000000000000200-none.ndjson.zst",
            "events/t/_quarantine/1/3/00000000000000000100-00000000000000000200-ab.ndjson.zst",
            "events/t/_progress/1/3.json",
            "2026-11-22T07",
        ],
        "event time" => return events(),
        "time" => &[
            "2021-07-21T06:00:01.234567Z",
            "2021-07-21 06:00:01+02:00",
            "1626847200.123",
            "-1e3",
            "%Y%m%d\n20210721",
            "%s.%f %Z%n%t%%%:z\n1626847200.5 UTC",
            "21/Jul/2021:06:00:01 +0000",
        ],
        "path" => &["$.a.b", "$['id.orig_h'].x", "$['it\\'s']", "$", "$.a[0]"],
        "type" => &[
            "long",
            "decimal(38,9)",
            "list<struct<a: string not null, b: map<string, list<date>>>>",
            "map<string, struct<x: double>>",
        ],
        "state" => &[
            r#"{"events/github.events/1":{"0":812,"1":790},"events/t/2":{"7":1}}"#,
            r#"{"end":5,"caughtUpAt":"2026-11-22T07:00:00Z","watermark":"2026-11-22T06:00:00Z"}"#,
        ],
        other => panic!("{other} has no seeds"),
    };
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn no_payload_makes_the_decoder_panic_or_lie() {
    fuzz("decode", &events(), DECODED, decode::target);
}

#[test]
fn no_text_makes_a_parser_panic_or_lie() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let executions = if name == "event time" { DECODED } else { PARSED };
        fuzz(name, &seeds, executions, target);
    }
}
