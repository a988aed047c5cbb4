//! Several landing daemons share a group: members come, go, are killed and freeze; the chain decides who wrote what.

use std::thread;
use std::time::Duration;

use firn_e2e::rig::daemon::Daemon;
use firn_e2e::rig::kafka::Kafka;
use firn_e2e::rig::procs::{tail, until};
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

/// Batches of the daemons that start from now on are closed at this age and size only, in place of `before`.
fn rotate(workspace: &Workspace, before: &str, after: &str) {
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    assert!(text.contains(before), "{text}");
    std::fs::write(&pipeline, text.replace(before, after)).unwrap();
}

fn await_read(daemon: &Daemon, offsets: u64) {
    let read = || (daemon.sum("landing_read_end_offset").ok()? >= offsets as i64).then_some(());
    until(&format!("{offsets} offsets have been read"), read).unwrap();
}

/// Waits for a daemon that was told to leave: it does so in order.
fn await_left(mut daemon: Daemon) {
    let status = daemon.process.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", tail(daemon.process.log()));
}

#[test]
fn members_joining_and_leaving_under_load_lose_and_double_nothing() {
    let mut rng = seeded("members_joining_and_leaving");
    let (mut ticks, workspace) = Ticks::local("members", Kafka::shared(), 6).unwrap();
    let daemon = || Daemon::start(&workspace).unwrap();
    let (mut members, mut leaving) = (vec![daemon(), daemon()], Vec::new());
    for _ in 0..6 {
        ticks.produce(2000, &mut rng).unwrap();
        match rng.random_range(0..3) {
            0 if members.len() > 1 => members.remove(0).process.kill(),
            1 if members.len() > 1 => {
                let leaver = members.remove(0);
                leaver.process.signal(libc::SIGTERM);
                leaving.push(leaver);
            }
            _ if members.len() < 3 => members.push(daemon()),
            _ => {}
        }
        // Load goes on while the group is between two states.
        ticks.produce(500, &mut rng).unwrap();
        thread::sleep(Duration::from_millis(rng.random_range(0..1500)));
    }
    await_landed(&workspace, &ticks, "the members that are left");
    leaving.into_iter().for_each(await_left);
    drop(members);
    ticks.settle(&workspace).unwrap();
}

#[test]
fn a_zombie_that_wakes_up_after_losing_its_partitions_writes_nothing() {
    let mut rng = seeded("a_zombie");
    let (mut ticks, workspace) = Ticks::local("zombie", Kafka::shared(), 2).unwrap();
    let first = Daemon::start(&workspace).unwrap();
    ticks.produce(1000, &mut rng).unwrap();
    await_landed(&workspace, &ticks, "the first daemon");
    first.process.signal(libc::SIGTERM);
    await_left(first);

    // Half-read batches are in its memory when it freezes: it closes none by itself.
    rotate(&workspace, "size: 256KiB, age: 1s", "size: 1GB, age: 1h");
    let zombie = Daemon::start(&workspace).unwrap();
    ticks.produce(1000, &mut rng).unwrap();
    await_read(&zombie, ticks.produced);
    zombie.process.signal(libc::SIGSTOP);
    assert_eq!(landed_to(&workspace, &ticks), 1000, "the rest is in memory only");
    rotate(&workspace, "size: 1GB, age: 1h", "size: 256KiB, age: 1s");
    let successor = Daemon::start(&workspace).unwrap();
    ticks.produce(1000, &mut rng).unwrap();
    await_landed(&workspace, &ticks, "the successor");

    zombie.process.signal(libc::SIGCONT);
    let lost = || std::fs::read_to_string(zombie.process.log()).ok()?.contains("lost=true").then_some(());
    until("the zombie hears that it has lost its partitions", lost).unwrap();
    // It may be a member again and hold records that are its own now: those it lands before it leaves.
    ticks.produce(1000, &mut rng).unwrap();
    zombie.process.signal(libc::SIGTERM);
    await_left(zombie);
    await_landed(&workspace, &ticks, "both");
    drop(successor);
    ticks.settle(&workspace).unwrap();
}

#[test]
fn sigterm_drains_what_was_read() {
    let mut rng = seeded("sigterm_drains");
    let (mut ticks, workspace) = Ticks::local("sigterm", Kafka::shared(), 2).unwrap();
    // Nothing rotates by itself in this test.
    rotate(&workspace, "size: 256KiB, age: 1s", "size: 1GB, age: 1h");
    ticks.produce(1000, &mut rng).unwrap();
    let landing = Daemon::start(&workspace).unwrap();
    await_read(&landing, 1000);
    assert_eq!(landed_to(&workspace, &ticks), 0, "they are in memory only");
    landing.process.signal(libc::SIGTERM);
    await_left(landing);
    assert_eq!(landed_to(&workspace, &ticks), 1000);
    ticks.settle(&workspace).unwrap();
}
