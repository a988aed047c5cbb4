//! Each program stays under its configured bound when input, partitions and hours grow tenfold and more, and the input is
//! several times the bound.
//!
//! What counts is `RssAnon`, the memory that a process has for itself: without the pages of the program's file, which in a
//! debug build are half a gigabyte, and which the system takes back as it likes. There is no allowance on top: the bound
//! contains what the program takes by itself.

use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::procs::{Process, until};
use firn_e2e::rig::workspace::Workspace;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::ticks::{Ticks, check_numbers, seeded};

const MIB: u64 = 1 << 20;
/// `landing.memory` and `compactor.memory` of this test; the larger input is three times as much.
const LANDING: u64 = 96 * MIB;
const COMPACTOR: u64 = 96 * MIB;

/// Waits for the end of a process and returns the most resident memory that it had, in bytes.
fn peak(mut process: Process) -> u64 {
    let mut peak = 0;
    let ended = until("the program ends", || {
        peak = process.memory().unwrap_or(0).max(peak);
        process.ended().unwrap()
    });
    let status = ended.unwrap();
    assert!(status.success(), "{status}; log {}", process.log().display());
    peak
}

/// An event of about 2 KB that does not compress away.
fn event(n: u64, hours: i64, rng: &mut SmallRng) -> String {
    let time = chrono::DateTime::from_timestamp(1_714_521_600 + rng.random_range(0..hours * 3600), 0).unwrap();
    let pad: String = (0..1952).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    format!(r#"{{"n":{n},"at":"{}","pad":"{pad}"}}"#, time.format("%Y-%m-%dT%H:%M:%SZ"))
}

/// Peaks of landing and compactor for this much input.
fn peaks(name: &str, partitions: i32, hours: i64, records: u64) -> (u64, u64) {
    let mut rng = seeded(name);
    let (mut ticks, workspace) = Ticks::local(name, Kafka::shared(), partitions).unwrap();
    workspace.reconfigure("{memory: 64MiB}", &format!("{{memory: {}MiB}}", LANDING / MIB)).unwrap();
    workspace.reconfigure("memory: 256MiB", &format!("memory: {}MiB", COMPACTOR / MIB)).unwrap();
    crave(&workspace);
    let events = (0..records).map(|n| Record::of(event(n, hours, &mut rng)).on((n % partitions as u64) as i32));
    ticks.kafka.produce(&ticks.topic, events).unwrap();
    ticks.produced = records;
    let landing = peak(workspace.start("landing", &["run", "--until-caught-up"]).unwrap());
    let compactor = peak(workspace.start("compactor", &["run"]).unwrap());
    check_numbers(workspace.access(), records).unwrap();
    println!("{name}: {} MB, landing {} MiB, compactor {} MiB", records * 2 / 1000, landing / MIB, compactor / MIB);
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
    let small = peaks("memory-small", 3, 3, 5_000);
    let large = peaks("memory-large", 30, 30, 150_000);
    for (program, bound, small, large) in
        [("landing", LANDING, small.0, large.0), ("compactor", COMPACTOR, small.1, large.1)]
    {
        assert!(small < bound && large < bound, "{program}: {small} then {large}, bound {bound}");
    }
}
