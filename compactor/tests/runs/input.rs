//! Raw objects that are not what their manifest says, and real events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use firn_compactor::run::{Options, Outcome, dates, run};
use firn_shared::error::ErrorKind;
use firn_shared::store::Faults;

use crate::bed::{Bed, Landed, PIPELINE};

fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(objects(&path));
        } else if path.extension().is_some_and(|e| e == "zst") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_named_and_nothing_is_committed() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 40).await;
    let path = objects(&bed.dir.path().join("raw")).pop().unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let other = zstd::encode_all(&b"{}\n"[..], 1).unwrap();
    let damages: [Option<&[u8]>; 5] = [None, Some(&good[..good.len() - 1]), Some(&flipped), Some(&other), Some(&[])];
    for damage in damages {
        std::fs::remove_file(&path).unwrap();
        if let Some(bytes) = damage {
            std::fs::write(&path, bytes).unwrap();
        }
        let error = bed.run(&Faults::none()).await.unwrap_err();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!((bed.rows(false).await.len(), bed.rows(true).await.len()), (0, 0));
        std::fs::write(&path, &good).unwrap();
    }
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::Committed);
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_landed_under_a_larger_bound_stay_readable_and_one_beyond_the_memory_is_named() {
    let bed = Bed::with(&PIPELINE.replace("    format: json\n", "    format: json\n    maxRecordSize: 1KB\n"));
    let record = |id: u64, bytes: usize| {
        let note = "x".repeat(bytes);
        (6, Some(format!(r#"{{"type":"a","id":{id},"at":"2021-07-21T06:00:00Z","n":1,"note":{{"t":"{note}"}}}}"#)))
    };
    bed.land(0, &[record(1, 3 << 20), record(2, 10)]).await;
    bed.run(&Faults::none()).await.unwrap();
    assert_eq!(bed.rows(false).await, [((0, 0), Some(1)), ((0, 1), Some(2))]);
    bed.land(0, &[record(3, 10), record(4, 40 << 20)]).await;
    let error = bed.run(&Faults::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let name = objects(&bed.dir.path().join("raw")).into_iter().map(|path| path.display().to_string());
    assert!(name.into_iter().any(|path| error.to_string().contains(path.as_str())), "{error}");
    for part in ["(offset 3)", "maxRecordSize", "compactor.memory"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_is_converted_when_it_is_sealed_and_marked() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 20).await;
    let env = bed.env(&Faults::none()).await;
    let on = |date: &str| Options { event_date: Some(date.parse().unwrap()), ..Options::default() };
    // The watermark of the batches is ten hours into the next day.
    let open = run(&env, bed.target(), &on("2021-07-22")).await.unwrap_err();
    assert_eq!(open.kind(), ErrorKind::Unavailable);
    assert!(open.to_string().contains("c/t/1[0]"), "{open}");
    let done = run(&env, bed.target(), &on("2021-07-21")).await.unwrap();
    assert_eq!(done.outcome, Outcome::Committed);
    let properties = bed.table().await.unwrap().metadata().properties().clone();
    assert!(properties.contains_key(&format!("{}2021-07-21", dates::COMPLETE)), "{properties:?}");
    assert_eq!(run(&env, bed.target(), &on("2021-07-21")).await.unwrap().outcome, Outcome::NothingToDo);
    landed.check(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_changes_nothing() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    landed.land(&bed, 0, 20).await;
    let faults = Faults::at_write(1, firn_shared::store::Fault::CrashBefore);
    let options = Options { dry_run: true, ..Options::default() };
    let report = run(&bed.env(&faults).await, bed.target(), &options).await.unwrap();
    assert_eq!((report.outcome, report.records), (Outcome::Planned, 20));
    assert!(!faults.fired() && bed.table().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hundred_github_events_are_two_hundred_rows_an_hour() {
    const TYPES: [(&str, u64); 15] = [
        ("PushEvent", 425),
        ("CreateEvent", 103),
        ("PullRequestEvent", 64),
        ("WatchEvent", 58),
        ("IssueCommentEvent", 36),
        ("PullRequestReviewEvent", 28),
        ("DeleteEvent", 23),
        ("IssuesEvent", 21),
        ("ForkEvent", 19),
        ("PullRequestReviewCommentEvent", 10),
        ("MemberEvent", 4),
        ("ReleaseEvent", 3),
        ("PublicEvent", 2),
        ("CommitCommentEvent", 2),
        ("GollumEvent", 2),
    ];
    let pipeline = PIPELINE
        .replace("$.at", "$.created_at")
        .replace("events: [a, b]\n    table", "table")
        .replace("hour(at)", "hour(created_at)")
        .replace("{name: at, type", "{name: created_at, type")
        .replace("{name: n, type: int}", "{name: type, type: string, required: true}")
        .replace("{name: note, type: json}", "{name: payload, type: json}")
        .replace("from: note, path: $.k, as: k, type: int", "from: payload, path: $.push_id, as: push_id, type: long")
        .replace("\n      - filter: {where: 'n IS NULL OR n <> 13', name: thirteen}", "");
    let bed = Bed::with(&pipeline);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/github-events.ndjson.zst");
    let text = String::from_utf8(zstd::decode_all(std::fs::File::open(fixture).unwrap()).unwrap()).unwrap();
    let mut records = Vec::new();
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let hour = event["created_at"].as_str().unwrap()[11..13].parse().unwrap();
        records.push((hour, Some(line.to_owned())));
    }
    for (i, batch) in records.chunks(130).enumerate() {
        bed.land(i as u32 % 3, batch).await;
    }
    let report = bed.run(&Faults::none()).await.unwrap();
    assert_eq!(report.hours.values().copied().collect::<Vec<_>>(), [200; 4]);
    assert_eq!((report.fate.rows, report.fate.quarantined), (800, 0));
    let mut types: BTreeMap<String, u64> = BTreeMap::new();
    let table = bed.table().await.unwrap();
    let mut batches =
        firn_compactor::table::read::rows(&table, &["type"], &firn_compactor::table::read::Rows::All).await.unwrap();
    while let Some(batch) = futures::TryStreamExt::try_next(&mut batches).await.unwrap() {
        let column = arrow_array::cast::AsArray::as_string::<i32>(batch.column(0));
        for name in column.iter().flatten() {
            *types.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(types, TYPES.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect());
    bed.prove().await;
}
