//! Each program stays under its configured bound when input, partitions and hours grow tenfold and more, and the input is
//! several times the bound.
//!
//! What counts is `RssAnon`, the memory that a process has for itself: without the pages of the program's file, which in a
//! debug build are half a gigabyte, and which the system takes back as it likes. There is no allowance on top: the bound
//! contains what the program takes by itself.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::procs::Process;
use firn_e2e::rig::workspace::Workspace;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::ticks::{TABLE, Ticks, check_numbers, seeded};

const MIB: u64 = 1 << 20;
/// `landing.memory` and `compactor.memory` of this test; the larger input is three times as much.
const LANDING: u64 = 96 * MIB;
const COMPACTOR: u64 = 96 * MIB;
/// Keys of the first run of an upsert; the second has twice as many.
const UPSERTED: u64 = 20_000;
/// Only a program that hangs takes as long.
const LONG: Duration = Duration::from_mins(30);

/// Waits for the end of a process and returns the most resident memory that it had, in bytes.
fn peak(mut process: Process) -> u64 {
    let (begun, mut peak) = (Instant::now(), 0);
    let status = loop {
        peak = process.memory().unwrap_or(0).max(peak);
        if let Some(status) = process.ended().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < LONG, "it does not end; log {}", process.log().display());
        // The system keeps no peak of this number: it is looked at often.
        thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success(), "{status}; log {}", process.log().display());
    assert!(peak > 0, "the program ended before its memory was looked at");
    peak
}

/// An event of about 2 KB that does not compress away, in one of these hours.
fn event(n: u64, hours: &Range<i64>, rng: &mut SmallRng) -> String {
    let second = rng.random_range(hours.start * 3600..hours.end * 3600);
    let time = chrono::DateTime::from_timestamp(1_714_521_600 + second, 0).unwrap();
    let pad: String = (0..1952).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    format!(r#"{{"n":{n},"at":"{}","pad":"{pad}"}}"#, time.format("%Y-%m-%dT%H:%M:%SZ"))
}

/// A deployment with these bounds.
fn bounded(name: &str, partitions: i32) -> (Ticks<'static>, Workspace) {
    let (ticks, workspace) = Ticks::local(name, Kafka::shared(), partitions).unwrap();
    workspace.reconfigure("{memory: 64MiB}", &format!("{{memory: {}MiB}}", LANDING / MIB)).unwrap();
    workspace.reconfigure("memory: 256MiB", &format!("memory: {}MiB", COMPACTOR / MIB)).unwrap();
    crave(&workspace);
    (ticks, workspace)
}

/// Produces an event of each of these numbers, and gives the peaks of landing and compactor.
fn peaks(ticks: &Ticks<'_>, workspace: &Workspace, numbers: Range<u64>, hours: &Range<i64>) -> (u64, u64) {
    let mut rng = seeded(&ticks.topic);
    let partitions = ticks.partitions as u64;
    let events = numbers.clone().map(|n| Record::of(event(n, hours, &mut rng)).on((n % partitions) as i32));
    ticks.kafka.produce(&ticks.topic, events).unwrap();
    let landing = peak(workspace.start("landing", &["run", "--until-caught-up"]).unwrap());
    let compactor = peak(workspace.start("compactor", &["run"]).unwrap());
    check_numbers(workspace.access(), numbers.end).unwrap();
    let (topic, input) = (&ticks.topic, (numbers.end - numbers.start) * 2 / 1000);
    println!("{topic}: {input} MB, landing {} MiB, compactor {} MiB", landing / MIB, compactor / MIB);
    (landing, compactor)
}

/// With few rotations every partition and hour wants a buffer at the same time; sorted tables hold rows besides.
fn crave(workspace: &Workspace) {
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let text = text.replace("size: 256KiB, age: 1s", "size: 64MiB, age: 5m");
    std::fs::write(&pipeline, text.replace("hour(at)]\n", "hour(at)]\n      sortBy: [n]\n")).unwrap();
}

#[test]
fn ten_times_the_input_partitions_and_hours_stay_under_the_bound() {
    for (name, partitions, hours, records) in [("memory-small", 3, 0..3, 5_000), ("memory-large", 30, 0..30, 150_000)] {
        let (ticks, workspace) = bounded(name, partitions);
        let (landing, compactor) = peaks(&ticks, &workspace, 0..records, &hours);
        assert!(landing < LANDING, "{name}: landing took {landing} of {LANDING}");
        assert!(compactor < COMPACTOR, "{name}: compactor took {compactor} of {COMPACTOR}");
    }
}

/// New keys, then a newer version of each of them in another hour, and as many new keys again: the second run sorts its own
/// rows by key, looks for them in the whole table, and replaces or deletes what it finds.
fn upserts_stay_under_the_bound(strategy: &str) {
    let (ticks, workspace) = bounded(&format!("memory-{strategy}"), 6);
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let upsert = format!(
        "tableName: ticks\n      mode: upsert\n      writeStrategy: {strategy}\n      idColumns: [n]\n      timestampColumns: [at]\n"
    );
    std::fs::write(&pipeline, text.replace("tableName: ticks\n", &upsert)).unwrap();
    for (numbers, hours) in [(0..UPSERTED, 0..6), (0..2 * UPSERTED, 6..12)] {
        let (_, compactor) = peaks(&ticks, &workspace, numbers, &hours);
        assert!(compactor < COMPACTOR, "{strategy}: compactor took {compactor} of {COMPACTOR}");
    }
    let old = "SELECT count(*) FROM t WHERE \"at\" < TIMESTAMPTZ '2024-05-01 06:00:00Z'";
    assert_eq!(workspace.access().number(TABLE, old).unwrap(), 0, "every version that was replaced is gone");
}

#[test]
fn an_upsert_by_copy_on_write_stays_under_the_bound() {
    upserts_stay_under_the_bound("copyOnWrite");
}

#[test]
fn an_upsert_by_merge_on_read_stays_under_the_bound() {
    upserts_stay_under_the_bound("mergeOnRead");
}

/// Each of these steps makes kilobytes of an event of a few bytes, which is hundreds of megabytes of a batch.
const GROWING: &str = r#"    transformations:
        - pad: {column: pad, width: 10000, as: a}
        - replace: {column: a, find: ' ', with: '12', as: b}
        - regexReplace: {column: pad, pattern: '(.*)', with: 'REPEATED', as: c}
        - expr: {sql: "LPAD(pad, CASE WHEN n = 77 THEN 1000000000000 ELSE 10000 END)", as: d, type: string}
        - expr: {sql: "REPLACE(d, ' ', '123')", as: e, type: string}
        - constant: {as: f, value: 'REPEATED'}
        - concat: {columns: [a, b, c, d, e, f], as: g}
        - length: {column: g, as: length}
        - drop: {columns: [a, b, c, d, e, f, g, pad]}
"#;

#[test]
fn steps_that_make_much_of_little_stay_under_the_bound() {
    const EVENTS: u64 = 20_000;
    let (ticks, workspace) = bounded("memory-growing", 1);
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let growing = GROWING.replace("REPEATED", &"$1".repeat(2000));
    std::fs::write(&pipeline, text + &growing).unwrap();
    let event = |n: u64| format!(r#"{{"n":{n},"at":"2024-05-01T00:00:00Z","pad":"x"}}"#);
    ticks.kafka.produce(&ticks.topic, (0..EVENTS).map(|n| Record::of(event(n)))).unwrap();
    workspace.land().unwrap();
    let compactor = peak(workspace.start("compactor", &["run"]).unwrap());
    println!("memory-growing: compactor {} MiB", compactor / MIB);
    assert!(compactor < COMPACTOR, "compactor took {compactor} of {COMPACTOR}");
    let sql = "SELECT count(*), min(length), max(length), max(CASE WHEN n = 77 THEN 1 ELSE 0 END) FROM t";
    let rows = workspace.access().duckdb(TABLE, sql).unwrap();
    let length = 10_000 + 20_000 - 1 + 2000 + 10_000 + 3 * 9_999 + 1 + 4000;
    assert_eq!(rows, [[EVENTS as i64 - 1, length, length, 0].map(serde_json::Value::from).to_vec()]);
    workspace.reconcile().unwrap();
}
