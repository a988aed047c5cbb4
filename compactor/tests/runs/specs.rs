//! Tables that somebody partitions anew while runs go on.

use firn_compactor::table::CommitOutcome;
use firn_compactor::table::scan::{All, live};
use firn_shared::store::Faults;
use iceberg::TableUpdate;
use iceberg::spec::{Transform, UnboundPartitionSpec};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::bed::{Bed, Landed};
use crate::versions::{Model, STRATEGIES, pipeline};

/// Partitions the table by this from now on, as `ALTER TABLE` of another engine does.
async fn repartition(bed: &Bed, by: Option<(&str, Transform)>) {
    let table = bed.table().await.unwrap();
    let mut spec = UnboundPartitionSpec::builder();
    if let Some((column, transform)) = by {
        let id = table.metadata().current_schema().field_id_by_name(column).unwrap();
        spec = spec.add_partition_field(id, format!("p_{column}"), transform).unwrap();
    }
    let updates = vec![TableUpdate::AddSpec { spec: spec.build() }, TableUpdate::SetDefaultSpec { spec_id: -1 }];
    let outcome = bed.env(&Faults::none()).await.catalog.commit(&table, updates, Vec::new()).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

async fn specs(bed: &Bed) -> Vec<i32> {
    let files = live(&bed.table().await.unwrap(), None, &All).await.unwrap();
    let mut specs: Vec<i32> = files.iter().map(|file| file.data.spec_id).collect();
    specs.sort_unstable();
    specs.dedup();
    specs
}

const SPECS: [Option<(&str, Transform)>; 3] = [Some(("id", Transform::Bucket(3))), None, Some(("at", Transform::Day))];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_reprocesses_go_on_under_a_new_spec() {
    let (bed, mut landed) = (Bed::new(), Landed::default());
    for _ in 0..2 {
        landed.land(&bed, 0, 30).await;
        bed.run_to_the_end().await;
    }
    for spec in SPECS {
        repartition(&bed, spec).await;
        for _ in 0..2 {
            landed.land(&bed, 0, 30).await;
            bed.run_to_the_end().await;
            landed.check(&bed).await;
        }
    }
    assert_eq!(specs(&bed).await, [0, 1, 2, 3]);
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T08").await.unwrap();
    landed.check(&bed).await;
    bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    landed.check(&bed).await;
    assert_eq!(specs(&bed).await, [3], "compaction brings all rows into the partitions of today");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_found_in_files_of_every_spec() {
    for (n, strategy) in STRATEGIES.into_iter().enumerate() {
        for begun in ["[]", "[hour(at)]"] {
            let mut rng = SmallRng::seed_from_u64(300 + n as u64);
            let (bed, mut model) = (Bed::with(&pipeline(strategy, begun)), Model::default());
            model.land(&bed, &mut rng, 0, 40).await;
            bed.run_to_the_end().await;
            for (round, spec) in SPECS.into_iter().enumerate() {
                repartition(&bed, spec).await;
                for partition in [0, 1] {
                    model.land(&bed, &mut rng, partition, 15).await;
                    bed.run_to_the_end().await;
                    model.check(&bed, &format!("{strategy} {begun} round {round}")).await;
                }
            }
            assert!(specs(&bed).await.len() > 1, "{strategy} {begun}");
            bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
            model.check(&bed, &format!("{strategy} {begun} reprocessed")).await;
            bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
            model.check(&bed, &format!("{strategy} {begun} maintained")).await;
            model.land(&bed, &mut rng, 0, 15).await;
            bed.run_to_the_end().await;
            model.check(&bed, &format!("{strategy} {begun} after maintenance")).await;
        }
    }
}
