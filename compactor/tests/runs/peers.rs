//! What happened to users of other sinks, each as a test of ours; `docs/promises.md` says where it was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use firn_compactor::run::Outcome;
use firn_compactor::table::read::{self, Rows};
use firn_compactor::table::scan::{All, live};
use firn_shared::store::{Fault, Faults};
use futures::TryStreamExt;
use iceberg::spec::{PrimitiveType, Type};

use crate::bed::{Bed, Landed, PIPELINE};

/// Data files of the table, visible or not, and their content.
fn data_files(bed: &Bed) -> BTreeMap<PathBuf, blake3::Hash> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, blake3::Hash>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "parquet") {
                let hash = blake3::hash(&std::fs::read(&path).unwrap());
                found.insert(path, hash);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&bed.dir.path().join("lake"), &mut found);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_never_reuses_the_name_of_a_data_file() {
    let mut left_behind = 0;
    for number in (1..).step_by(3) {
        let (bed, mut landed) = (Bed::new(), Landed::default());
        landed.land(&bed, 0, 40).await;
        let faults = Faults::at_write(number, Fault::CrashAfter);
        let _ = bed.run(&faults).await;
        let before = data_files(&bed);
        bed.run_to_the_end().await;
        let after = data_files(&bed);
        // What the crashed run wrote is there as it was; what the next one wrote is beside it.
        assert!(before.iter().all(|(path, hash)| after.get(path) == Some(hash)), "crash at {number}");
        landed.check(&bed).await;
        left_behind += usize::from(!before.is_empty() && after.len() > before.len());
        if !faults.fired() {
            break;
        }
    }
    assert!(left_behind > 1, "only {left_behind} crashes left data files behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_never_registered_twice_however_often_a_commit_is_sent() {
    for number in 1.. {
        let (bed, mut landed) = (Bed::new(), Landed::default());
        landed.land(&bed, 0, 40).await;
        let faults = Faults::at_write(number, Fault::ErrorAfter);
        let _ = bed.run(&faults).await;
        bed.run_to_the_end().await;
        let files = live(&bed.table().await.unwrap(), None, &All).await.unwrap();
        let paths: BTreeSet<&str> = files.iter().map(|file| file.path()).collect();
        let rows: u64 = files.iter().map(|file| file.file().record_count()).sum();
        assert_eq!((paths.len(), rows), (files.len(), landed.rows.len() as u64), "reply {number} was lost");
        if !faults.fired() {
            break;
        }
    }
}

/// One row of one event `payload`, under a pipeline with a further column.
async fn one_row(column: &str, payloads: &[&str]) -> Bed {
    let column = format!("        - {{name: id, type: long, required: true}}\n        - {column}\n");
    let bed = Bed::with(&PIPELINE.replace("        - {name: id, type: long, required: true}\n", &column));
    let event = |(id, field): (usize, &&str)| {
        let comma = if field.is_empty() { "" } else { "," };
        (6, Some(format!(r#"{{"type":"a","id":{id},"at":"2021-07-21T06:00:00Z","note":{{"k":1}}{comma}{field}}}"#)))
    };
    bed.land(0, &payloads.iter().enumerate().map(event).collect::<Vec<_>>()).await;
    assert_eq!(bed.run(&Faults::none()).await.unwrap().outcome, Outcome::Committed);
    bed.prove().await;
    bed
}

async fn column(bed: &Bed, name: &str) -> arrow_array::ArrayRef {
    let table = bed.table().await.unwrap();
    let batches: Vec<_> = read::rows(&table, &[name], &Rows::All).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.len(), 1, "a handful of rows");
    batches[0].column(0).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_struct_kills_no_run() {
    let payloads = [r#""s":{}"#, r#""s":{"a":1,"m":{}}"#, r#""s":null"#, "", r#""s":{"other":{}}"#];
    let bed =
        one_row("{name: s, type: 'struct<a: long, m: map<string, long>, l: list<struct<x: int>>>'}", &payloads).await;
    let rows = column(&bed, "s").await;
    let valid: Vec<bool> = (0..rows.len()).map(|row| rows.is_valid(row)).collect();
    assert_eq!(valid, [true, true, false, false, true], "an empty struct is one, and not null");
    let fields = rows.as_struct();
    assert_eq!(fields.column(0).null_count(), 4);
    assert!(bed.rows(true).await.is_empty(), "nothing of it is broken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamp_is_not_made_a_timestamptz() {
    let payloads = [r#""local":"2021-07-21T23:59:59.999999""#, r#""local":"2021-01-01 00:00:00""#];
    let bed = one_row("{name: local, type: timestamp}", &payloads).await;
    let table = bed.table().await.unwrap();
    let schema = table.metadata().current_schema();
    let of = |name: &str| schema.field_by_name(name).unwrap().field_type.as_ref().clone();
    assert_eq!(of("local"), Type::Primitive(PrimitiveType::Timestamp));
    assert_eq!(of("at"), Type::Primitive(PrimitiveType::Timestamptz));
    let rows = column(&bed, "local").await;
    let micros: Vec<i64> = rows.as_primitive::<TimestampMicrosecondType>().values().to_vec();
    assert_eq!(micros, [1_626_911_999_999_999, 1_609_459_200_000_000]);
    assert_eq!(rows.data_type().to_string(), "Timestamp(µs)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_cannot_be_converted_never_becomes_zero_or_false() {
    for (kind, bad) in [
        ("int", r#""v":"x""#),
        ("int", r#""v":2147483648"#),
        ("long", r#""v":1.5"#),
        ("boolean", r#""v":"yes""#),
        ("double", r#""v":"""#),
        ("decimal(4,2)", r#""v":1000"#),
        ("date", r#""v":"2021-02-30""#),
        ("timestamptz", r#""v":true"#),
    ] {
        let bed = one_row(&format!("{{name: v, type: '{kind}'}}"), &[bad, r#""v":null"#]).await;
        assert_eq!((bed.rows(false).await.len(), bed.rows(true).await.len()), (1, 1), "{kind} {bad}");
        assert_eq!(column(&bed, "v").await.null_count(), 1, "the row that is there is the null");
    }
}
