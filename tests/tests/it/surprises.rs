//! What Kafka does to its readers: transactions, retention, deleted topics, new partitions.

use firn_e2e::rig::kafka::{Kafka, Outcome};
use firn_e2e::rig::procs::until;
use firn_e2e::rig::workspace::Workspace;
use serde_json::Value;

use crate::ticks::{Ticks, check_numbers, seeded};

/// Sums a count over every manifest of the topic.
fn in_manifests(workspace: &Workspace, topic: &str, count: impl Fn(&Value) -> u64) -> u64 {
    let mut total = 0;
    workspace.manifests(topic, 1, |manifest| total += count(manifest)).unwrap();
    total
}

fn absent(manifest: &Value) -> u64 {
    manifest["absent"].as_u64().unwrap_or(0)
}

fn gap(manifest: &Value) -> u64 {
    let range = |i: usize| manifest["range"][i].as_u64().unwrap();
    if manifest["gap"].is_null() { 0 } else { range(1) - range(0) }
}

#[test]
fn aborted_records_and_markers_are_counted_absent() {
    let mut rng = seeded("aborted_records");
    let (mut ticks, workspace) = Ticks::local("transactions", Kafka::shared(), 1).unwrap();
    let good = ticks.next(100, &mut rng);
    let more = ticks.next(50, &mut rng);
    // Aborted records carry numbers that must never be seen.
    let bad = Ticks { produced: 1_000_000, topic: String::new(), ..ticks }.next(30, &mut rng);
    let groups = [(good, Outcome::Commit), (bad, Outcome::Abort), (more, Outcome::Commit)];
    ticks.kafka.produce_transactions(&ticks.topic, groups).unwrap();
    ticks.settle(&workspace).unwrap();
    // 30 aborted records; 3 markers, the last of which may lie behind the last record that was read.
    let counted = in_manifests(&workspace, &ticks.topic, absent);
    assert!((32..=33).contains(&counted), "{counted} absent offsets");
}

#[test]
fn what_lies_behind_an_open_transaction_keeps_hours_open() {
    let mut rng = seeded("an_open_transaction");
    let (mut ticks, workspace) = Ticks::local("open", Kafka::shared(), 1).unwrap();
    let held = ticks.next(10, &mut rng);
    let transaction = ticks.kafka.open_transaction(&ticks.topic, held).unwrap();
    // These are for everybody to see, once it is over.
    ticks.produce(100, &mut rng).unwrap();
    workspace.land().unwrap();
    assert_eq!(workspace.landed(&ticks.topic).unwrap().values().sum::<u64>(), 0);
    let progress = workspace.progress(&ticks.topic, 0).unwrap();
    assert!(progress.is_object() && progress["caughtUpAt"].is_null(), "{progress}");

    transaction.commit().unwrap();
    ticks.settle(&workspace).unwrap();
    let progress = workspace.progress(&ticks.topic, 0).unwrap();
    assert!(progress["caughtUpAt"].is_string(), "{progress}");
}

#[test]
fn a_batch_that_rotted_stops_its_partition_and_no_record_is_passed_over() {
    let mut rng = seeded("a_batch_that_rotted");
    let (mut ticks, workspace) = Ticks::local("rotten", Kafka::shared(), 2).unwrap();
    ticks.produce(100, &mut rng).unwrap();
    workspace.land().unwrap();
    ticks.produce(100, &mut rng).unwrap();
    let damage = ticks.kafka.damage(&ticks.topic, 0).unwrap();
    ticks.produce(100, &mut rng).unwrap();

    let stopped = workspace.landing(&["run", "--until-caught-up"]).unwrap().expect(&[2]).unwrap();
    let cause = format!("cannot read events/{}/1[0] from offset ", ticks.topic);
    assert!(stopped.stderr.contains(&cause) && stopped.stderr.contains("CRC32C"), "{}", stopped.stderr);
    let landed = workspace.landed(&ticks.topic).unwrap();
    assert!((50..100).contains(&landed[&0]), "{landed:?}");
    assert_eq!(landed[&1], 150, "the other partition goes on");
    assert_eq!(in_manifests(&workspace, &ticks.topic, absent), 0);
    let progress = workspace.progress(&ticks.topic, 0).unwrap();
    assert!(progress["stopped"].as_str().is_some_and(|why| why.contains(&cause)), "{progress}");

    damage.repair().unwrap();
    ticks.settle(&workspace).unwrap();
    assert!(workspace.progress(&ticks.topic, 0).unwrap()["stopped"].is_null());
}

#[test]
fn offsets_that_expired_unread_become_a_declared_gap() {
    let mut rng = seeded("offsets_that_expired");
    let (mut ticks, workspace) = Ticks::local("expired", Kafka::shared(), 1).unwrap();
    ticks.produce(100, &mut rng).unwrap();
    workspace.land().unwrap();
    let lost = Ticks { produced: 1_000_000, topic: ticks.topic.clone(), ..ticks }.next(40, &mut rng);
    ticks.kafka.produce(&ticks.topic, lost).unwrap();
    ticks.kafka.delete_records(&ticks.topic, 0, 140).unwrap();
    ticks.produce(60, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
    assert_eq!(in_manifests(&workspace, &ticks.topic, gap), 40);
}

#[test]
fn a_recreated_topic_is_refused_until_its_generation_is_raised() {
    let mut rng = seeded("a_recreated_topic");
    let (mut ticks, workspace) = Ticks::local("recreated", Kafka::shared(), 1).unwrap();
    // The broker does not always tell the id in time; once the chain has it, it is insisted on.
    let known = || {
        ticks.produce(100, &mut rng).unwrap();
        workspace.land().unwrap();
        let mut known = None;
        workspace.manifests(&ticks.topic, 1, |manifest| known = manifest["topicId"].as_str().map(drop)).unwrap();
        known
    };
    until("the chain has the topic's id", known).unwrap();
    ticks.settle(&workspace).unwrap();

    // The new offsets reach beyond the old ones: they alone give nothing away.
    let before = ticks.produced;
    ticks.kafka.delete_topic(&ticks.topic).unwrap();
    ticks.kafka.create_topic(&ticks.topic, 1, &[]).unwrap();
    ticks.produce(before + 50, &mut rng).unwrap();
    let refused = workspace.landing(&["run", "--until-caught-up"]).unwrap();
    assert!(!matches!(refused.code, Some(0 | 99)), "{refused:?}");
    assert!(refused.stderr.contains("generation"), "{}", refused.stderr);

    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let topic = format!("topic: {}", ticks.topic);
    std::fs::write(&pipeline, text.replace(&topic, &format!("{topic}, generation: 2"))).unwrap();
    ticks.settle(&workspace).unwrap();
}

#[test]
fn a_generation_raised_for_a_topic_that_was_not_made_again_lands_nothing_twice() {
    let mut rng = seeded("not_made_again");
    let (mut ticks, workspace) = Ticks::local("same", Kafka::shared(), 1).unwrap();
    ticks.produce(100, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();

    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let topic = format!("topic: {}", ticks.topic);
    std::fs::write(&pipeline, text.replace(&topic, &format!("{topic}, generation: 2"))).unwrap();
    let refused = workspace.landing(&["run", "--until-caught-up"]).unwrap().expect(&[2]).unwrap();
    assert!(refused.stderr.contains("the topic was not made again"), "{}", refused.stderr);

    std::fs::write(&pipeline, text).unwrap();
    ticks.produce(50, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
}

#[test]
fn new_partitions_begin_at_their_first_offset() {
    let mut rng = seeded("new_partitions");
    let (mut ticks, workspace) = Ticks::local("widened", Kafka::shared(), 1).unwrap();
    ticks.produce(100, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
    ticks.kafka.add_partitions(&ticks.topic, 3).unwrap();
    ticks.partitions = 3;
    ticks.produce(300, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
    assert_eq!(workspace.landed(&ticks.topic).unwrap().len(), 3);
}

#[test]
fn an_empty_topic_is_nothing_to_do() {
    let (ticks, workspace) = Ticks::local("empty", Kafka::shared(), 2).unwrap();
    workspace.land().unwrap();
    workspace.compact().unwrap();
    if workspace.access().metadata(crate::ticks::TABLE).unwrap().is_some() {
        check_numbers(workspace.access(), ticks.produced).unwrap();
    }
}
