//! Several landing daemons share a group: members come, go, are killed and freeze; the chain decides who wrote what.

use std::thread;
use std::time::Duration;

use firn_e2e::rig::daemon::Daemon;
use firn_e2e::rig::kafka::Kafka;
use firn_e2e::rig::procs::{Process, until};
use firn_e2e::rig::workspace::Workspace;
use rand::Rng;

use crate::ticks::{Ticks, seeded};

fn landed_to(workspace: &Workspace, ticks: &Ticks<'_>) -> u64 {
    workspace.landed(&ticks.topic).unwrap().values().sum()
}

fn await_landed(workspace: &Workspace, ticks: &Ticks<'_>, what: &str) {
    let all = || (landed_to(workspace, ticks) >= ticks.produced).then_some(());
    until(&format!("{what}: {} offsets have landed", ticks.produced), all).unwrap();
}

fn daemon(workspace: &Workspace) -> Process {
    workspace.start("landing", &["run"]).unwrap()
}

#[test]
fn members_joining_and_leaving_under_load_lose_and_double_nothing() {
    let mut rng = seeded("members_joining_and_leaving");
    let (mut ticks, workspace) = Ticks::local("members", Kafka::shared(), 6).unwrap();
    let mut members = vec![daemon(&workspace), daemon(&workspace)];
    for _ in 0..6 {
        ticks.produce(2000, &mut rng).unwrap();
        match rng.random_range(0..3) {
            0 if members.len() > 1 => members.remove(0).kill(),
            1 if members.len() > 1 => members.remove(0).signal(libc::SIGTERM),
            _ if members.len() < 3 => members.push(daemon(&workspace)),
            _ => {}
        }
        // Load goes on while the group is between two states.
        ticks.produce(500, &mut rng).unwrap();
        thread::sleep(Duration::from_millis(rng.random_range(0..1500)));
    }
    await_landed(&workspace, &ticks, "the members that are left");
    drop(members);
    ticks.settle(&workspace).unwrap();
}

#[test]
fn a_zombie_that_wakes_up_after_losing_its_partitions_writes_nothing() {
    let mut rng = seeded("a_zombie");
    let (mut ticks, workspace) = Ticks::local("zombie", Kafka::shared(), 2).unwrap();
    let zombie = daemon(&workspace);
    ticks.produce(1000, &mut rng).unwrap();
    await_landed(&workspace, &ticks, "the first daemon");

    // Half-read batches are in its memory when it freezes.
    ticks.produce(1000, &mut rng).unwrap();
    zombie.signal(libc::SIGSTOP);
    let successor = daemon(&workspace);
    ticks.produce(1000, &mut rng).unwrap();
    await_landed(&workspace, &ticks, "the successor");

    zombie.signal(libc::SIGCONT);
    ticks.produce(1000, &mut rng).unwrap();
    await_landed(&workspace, &ticks, "both");
    drop((zombie, successor));
    ticks.settle(&workspace).unwrap();
}

#[test]
fn sigterm_drains_what_was_read() {
    let mut rng = seeded("sigterm_drains");
    let (mut ticks, workspace) = Ticks::local("sigterm", Kafka::shared(), 2).unwrap();
    // Nothing rotates by itself in this test.
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, text.replace("age: 1s", "age: 1h").replace("256KiB", "1GB")).unwrap();
    ticks.produce(1000, &mut rng).unwrap();
    let mut landing = Daemon::start(&workspace).unwrap();
    let read = || (landing.sum("landing_read_end_offset").ok()? >= 1000).then_some(());
    until("1000 records have been read", read).unwrap();
    assert_eq!(landed_to(&workspace, &ticks), 0, "they are in memory only");
    landing.process.signal(libc::SIGTERM);
    let status = landing.process.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(landed_to(&workspace, &ticks), 1000);
    ticks.settle(&workspace).unwrap();
}
