//! Upserts against a model: whatever is landed in whatever order, cut into whatever runs, and whatever fails on the way,
//! the table holds the newest version of every key.

use firn_compactor::table::scan::{All, live};
use firn_shared::error::ErrorKind;
use firn_shared::store::Faults;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::bed::{Bed, FIRN};
use crate::versions::{Model, STRATEGIES, pipeline};

const PARTITIONS: [&str; 4] = ["[]", "[hour(at)]", "['bucket(4, id)']", "[hour(at), 'bucket(2, id)']"];

fn bed(strategy: &str, partitions: &str) -> Bed {
    Bed::with(&pipeline(strategy, partitions))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_version_of_every_key_is_in_the_table() {
    for (n, (strategy, partitions)) in STRATEGIES.iter().flat_map(|s| PARTITIONS.map(|p| (*s, p))).enumerate() {
        let mut rng = SmallRng::seed_from_u64(n as u64);
        let (bed, mut model) = (bed(strategy, partitions), Model::default());
        for round in 0..4 {
            for _ in 0..rng.random_range(1..3) {
                let (partition, count) = (rng.random_range(0..3), rng.random_range(1..40));
                model.land(&bed, &mut rng, partition, count).await;
            }
            bed.run_to_the_end().await;
            model.check(&bed, &format!("{strategy} {partitions} round {round}")).await;
        }
    }
}

/// The smallest memory, and records so large that a run has several buckets, which threads merge side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_many_buckets_is_the_same_as_one_of_one() {
    let firn = FIRN.replace("128MB", "64MiB");
    for (n, strategy) in STRATEGIES.into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(50 + n as u64);
        let (bed, mut model) = (Bed::on(&firn, &pipeline(strategy, "[hour(at)]")), Model::default());
        model.pad = 500_000;
        for partition in [0, 1] {
            model.land(&bed, &mut rng, partition, 30).await;
            bed.run_to_the_end().await;
            model.check(&bed, strategy).await;
        }
        bed.reprocess(&Faults::none(), "2021-07-21T07", "2021-07-21T08").await.unwrap();
        model.check(&bed, &format!("{strategy}, converted again")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_of_an_upsert_equals_replaying_everything() {
    for (n, strategy) in STRATEGIES.into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(70 + n as u64);
        let (bed, mut model) = (bed(strategy, "[hour(at)]"), Model::default());
        for partition in [0, 1, 0] {
            model.land(&bed, &mut rng, partition, 40).await;
            bed.run_to_the_end().await;
        }
        for (from, to) in [("06", "07"), ("07", "09"), ("06", "09"), ("06", "09")] {
            let hours = (format!("2021-07-21T{from}"), format!("2021-07-21T{to}"));
            bed.reprocess(&Faults::none(), &hours.0, &hours.1).await.unwrap();
            model.check(&bed, &format!("{strategy} {hours:?}")).await;
        }
    }
}

/// Records that today's configuration leaves out give way to older versions of their keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_under_a_new_filter_brings_older_versions_back() {
    for (n, strategy) in STRATEGIES.into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(90 + n as u64);
        let pipeline = pipeline(strategy, "[hour(at)]");
        let (mut bed, mut model) = (Bed::with(&pipeline), Model::default());
        for partition in [0, 1, 2] {
            model.land(&bed, &mut rng, partition, 40).await;
            bed.run_to_the_end().await;
        }
        let before = bed.rows(false).await;
        bed.reconfigure(&format!("{pipeline}    transformations:\n      - filter: {{where: 'n < 50', name: large}}\n"));
        // Only the last hour: what was newest there and is large now gives way to older versions that are not; keys whose
        // newest version lies in another hour stay as they were converted.
        bed.reprocess(&Faults::none(), "2021-07-21T08", "2021-07-21T09").await.unwrap();
        let mut expected = model.newest.clone();
        expected.retain(|_, (minute, _, _)| *minute < 8 * 60);
        let standing = expected.clone();
        for (id, version, n) in &model.records {
            if !standing.contains_key(id) && *n < 50 {
                let slot = expected.entry(*id).or_insert(*version);
                *slot = (*slot).max(*version);
            }
        }
        model.newest = expected;
        assert_ne!(model.rows(), before, "the filter changes something");
        model.check(&bed, strategy).await;
    }
}

/// A table that took its rows without looking at keys has several of one key; a row that goes because its record is converted
/// again takes none of the others along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprocess_takes_the_same_rows_of_a_key_out_in_every_strategy() {
    for strategy in STRATEGIES {
        let upsert = pipeline(strategy, "[]");
        let append = upsert.replace(&format!("mode: upsert\n      {strategy}"), "mode: append");
        let append = append.replace("      idColumns: [id]\n      timestampColumns: [at]\n", "");
        let mut bed = Bed::with(&append);
        let record = |hour: u32, id: i64| {
            (hour, Some(format!(r#"{{"type":"a","id":{id},"at":"2021-07-21T{hour:02}:00:00Z","n":1}}"#)))
        };
        bed.land(0, &[record(6, 1), record(7, 1), record(8, 1), record(6, 2)]).await;
        bed.run_to_the_end().await;
        bed.reconfigure(&upsert);
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        // The first version of 1 is beaten by the others, which stand.
        let expected = [((0, 1), Some(1)), ((0, 2), Some(1)), ((0, 3), Some(2))];
        assert_eq!(bed.rows(false).await, expected, "{strategy}");
        bed.prove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_mixed_kinds_leave_what_the_model_says() {
    for (n, strategy) in STRATEGIES.into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(110 + n as u64);
        let (bed, mut model) = (bed(strategy, "[hour(at)]"), Model::default());
        model.land(&bed, &mut rng, 0, 30).await;
        bed.run_to_the_end().await;
        for round in 0..4 {
            model.land(&bed, &mut rng, round % 2, 20).await;
            let [one, two, three, four] = [(); 4].map(|()| Faults::none());
            let outcomes = tokio::join!(
                bed.run(&one),
                bed.run(&two),
                bed.reprocess(&three, "2021-07-21T06", "2021-07-21T08"),
                bed.reprocess(&four, "2021-07-21T07", "2021-07-21T09"),
            );
            for outcome in [outcomes.0, outcomes.1, outcomes.2, outcomes.3] {
                if let Err(error) = outcome {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                }
            }
            bed.run_to_the_end().await;
            model.check(&bed, &format!("{strategy} round {round}")).await;
        }
    }
}

/// Makes everything but the footer and the bloom filters of a file unreadable.
fn destroy_columns(path: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes.clone())).unwrap();
    for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
        let (start, length) = column.byte_range();
        bytes[start as usize..(start + length) as usize].fill(0xff);
    }
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_bloom_filter_lacks_the_keys_is_not_read() {
    for (option, read) in [("true", false), ("false", true)] {
        let properties = format!("properties: {{write.parquet.bloom-filter-enabled.column.id: '{option}'}}");
        let bed = bed(&format!("{}\n      {properties}", STRATEGIES[1]), "[]");
        let versions = |ids: std::ops::Range<i64>, minute: u32| {
            let payload =
                |id| (6, Some(format!(r#"{{"type":"a","id":{id},"at":"2021-07-21T06:{minute:02}:00Z","n":1}}"#)));
            ids.step_by(2).map(payload).collect::<Vec<_>>()
        };
        bed.land(0, &versions(0..100, 0)).await;
        bed.run(&Faults::none()).await.unwrap();
        let [file] = &live(&bed.table().await.unwrap(), None, &All).await.unwrap()[..] else { panic!("one file") };
        destroy_columns(file.path().trim_start_matches("file://"));
        // Keys between those of the file.
        bed.land(0, &versions(1..100, 1)).await;
        assert_eq!(bed.run(&Faults::none()).await.is_err(), read, "{option}");
        if !read {
            bed.land(0, &versions(40..41, 2)).await;
            assert_eq!(
                bed.run(&Faults::none()).await.unwrap_err().kind(),
                ErrorKind::Data,
                "its own key is looked for"
            );
        }
    }
}
