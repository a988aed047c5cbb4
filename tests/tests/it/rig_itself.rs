//! The rig keeps its promises: without them a green test would mean nothing.

use firn_e2e::rig::kafka::{Kafka, Outcome, Record};
use firn_e2e::rig::procs::run_dir;

#[test]
fn a_killed_broker_comes_back_with_its_records() {
    let kafka = Kafka::start(&run_dir().join("kafka-killed")).unwrap();
    kafka.create_topic("t", 2, &[]).unwrap();
    kafka.produce("t", (0..100).map(|i| Record::of(format!("{i}")).on(i % 2))).unwrap();
    kafka.restart().unwrap();
    assert_eq!(kafka.offsets("t").unwrap(), [(0, (0, 50)), (1, (0, 50))].into());
}

#[test]
fn transactions_take_offsets_for_their_markers() {
    let kafka = Kafka::shared();
    kafka.create_topic("rig.transactions", 1, &[]).unwrap();
    let ten = || (0..10).map(|i| Record::of(format!("{i}"))).collect::<Vec<_>>();
    kafka.produce_transactions("rig.transactions", [(ten(), Outcome::Commit), (ten(), Outcome::Abort)]).unwrap();
    assert_eq!(kafka.offsets("rig.transactions").unwrap(), [(0, (0, 22))].into());
    kafka.delete_records("rig.transactions", 0, 5).unwrap();
    assert_eq!(kafka.offsets("rig.transactions").unwrap(), [(0, (5, 22))].into());
}

#[test]
fn topics_can_be_deleted_made_again_and_widened() {
    let kafka = Kafka::shared();
    kafka.create_topic("rig.again", 1, &[]).unwrap();
    kafka.produce("rig.again", [Record::of("1")]).unwrap();
    kafka.delete_topic("rig.again").unwrap();
    kafka.create_topic("rig.again", 1, &[]).unwrap();
    kafka.add_partitions("rig.again", 3).unwrap();
    assert_eq!(kafka.offsets("rig.again").unwrap(), [(0, (0, 0)), (1, (0, 0)), (2, (0, 0))].into());
}
