//! The real processes are killed at random moments: no row twice, none missing, no reader ever sees half a run.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use firn_e2e::rig::kafka::Kafka;
use firn_e2e::rig::procs::{Process, run_dir, tail, until};
use firn_e2e::rig::readers::Access;
use firn_e2e::rig::workspace::Workspace;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::ticks::{TABLE, Ticks, check_numbers, seeded};

/// Lets a process live for a random while below `longest`, then kills it; returns whether it was still at work.
fn kill_within(mut process: Process, longest: Duration, rng: &mut SmallRng) -> bool {
    // Not a synchroniser: the moment of the crash is what is being varied.
    thread::sleep(longest.mul_f64(rng.random()));
    let at_work = process.ended().unwrap().is_none();
    process.kill();
    at_work
}

/// Tells a reader to stop when it goes, so that a failure is told and not waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The end of what is random in a process's life. It follows the speed of this machine and this deployment: two of three
/// are killed before they got where they should get, anywhere on the way, and the third gets there.
struct Life(Duration);

impl Life {
    fn learn(&mut self, got_there: bool) {
        self.0 = self.0.mul_f64(if got_there { 0.6 } else { 1.3 });
    }
}

/// How many offsets have landed.
fn landed(workspace: &Workspace, ticks: &Ticks<'_>) -> u64 {
    workspace.landed(&ticks.topic).unwrap().values().sum()
}

/// Row counts that a reader sees until `stop`; every state it sees holds each number at most once.
fn watch(access: &Access, stop: &AtomicBool) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(metadata) = access.metadata(TABLE).unwrap() else { continue };
        let rows = access.duckdb_at(&metadata, "SELECT count(*), count(DISTINCT n) FROM t").unwrap();
        let (count, distinct) = (rows[0][0].as_i64().unwrap(), rows[0][1].as_i64().unwrap());
        assert_eq!(count, distinct, "a reader saw a number twice in {metadata}");
        seen.insert(count);
    }
    seen
}

/// Rows of the table after each of its commits.
fn committed(access: &Access) -> BTreeSet<i64> {
    let snapshots = access.snapshots(TABLE).unwrap();
    let totals = snapshots.iter().map(|s| s.summary["total-records"].parse().unwrap());
    totals.chain([0]).collect()
}

/// Kills both programs again and again while a reader watches.
fn kill_at_any_moment(workspace: &Workspace, mut ticks: Ticks<'_>, rng: &mut SmallRng) {
    let stop = AtomicBool::new(false);
    let (seen, kills) = thread::scope(|scope| {
        let reader = scope.spawn(|| watch(workspace.access(), &stop));
        let stop = Stop(&stop);
        let mut kills = [0, 0];
        // A new member waits up to 3 s for the last one's session to end.
        let (mut landing_life, mut compactor_life) = (Life(Duration::from_secs(7)), Life(Duration::from_secs(1)));
        for _ in 0..10 {
            ticks.produce(rng.random_range(500..3000), rng).unwrap();
            let before = landed(workspace, &ticks);
            let landing = workspace.start("landing", &["run"]).unwrap();
            kills[0] += u32::from(kill_within(landing, landing_life.0, rng));
            landing_life.learn(landed(workspace, &ticks) > before);
            for _ in 0..3 {
                let at_work = kill_within(workspace.start("compactor", &["run"]).unwrap(), compactor_life.0, rng);
                kills[1] += u32::from(at_work);
                compactor_life.learn(!at_work);
            }
        }
        ticks.settle(workspace).unwrap();
        drop(stop);
        (reader.join().unwrap(), kills)
    });
    println!("{kills:?} kills of landing and compactor, {} events, a reader saw the counts {seen:?}", ticks.produced);
    assert!(kills.iter().all(|k| *k >= 5), "processes must be killed at work, not after it: {kills:?}");
    let committed = committed(workspace.access());
    assert!(seen.is_subset(&committed), "seen {seen:?}, committed {committed:?}");
}

#[test]
fn killed_at_any_moment_nothing_is_lost_or_doubled() {
    let mut rng = seeded("killed_at_any_moment");
    let (ticks, workspace) = Ticks::local("crash", Kafka::shared(), 4).unwrap();
    kill_at_any_moment(&workspace, ticks, &mut rng);
}

#[test]
fn killed_at_any_moment_on_s3_and_a_rest_catalog_nothing_is_lost_or_doubled() {
    let mut rng = seeded("killed_at_any_moment_on_s3");
    let workspace = Workspace::seaweedfs("crash-s3", Kafka::shared()).unwrap();
    let ticks = Ticks::new("crash-s3", Kafka::shared(), 4, &workspace).unwrap();
    kill_at_any_moment(&workspace, ticks, &mut rng);
}

#[test]
fn a_killed_broker_changes_nothing_in_the_result() {
    let mut rng = seeded("a_killed_broker");
    let kafka = Kafka::start(&run_dir().join("kafka-crash")).unwrap();
    let (mut ticks, workspace) = Ticks::local("broker-crash", &kafka, 2).unwrap();
    let mut landing = workspace.start("landing", &["run"]).unwrap();
    for _ in 0..2 {
        let before = landed(&workspace, &ticks);
        ticks.produce(2000, &mut rng).unwrap();
        let at_work = || (landed(&workspace, &ticks) > before).then_some(());
        until("landing is at work", at_work).unwrap();
        kafka.restart().unwrap();
    }
    // It was not started again by anybody, and finds its way back by itself.
    ticks.produce(100, &mut rng).unwrap();
    let all = || (landed(&workspace, &ticks) >= ticks.produced).then_some(());
    until("everything has landed", all).unwrap();
    assert!(landing.ended().unwrap().is_none(), "{}", tail(landing.log()));
    drop(landing);
    ticks.settle(&workspace).unwrap();
}

#[test]
fn compactors_that_race_commit_every_row_once() {
    let mut rng = seeded("compactors_that_race");
    let (mut ticks, workspace) = Ticks::local("race", Kafka::shared(), 2).unwrap();
    let mut done = 0;
    for _ in 0..3 {
        ticks.produce(2000, &mut rng).unwrap();
        workspace.land().unwrap();
        let racers: Vec<Process> = (0..3).map(|_| workspace.start("compactor", &["run"]).unwrap()).collect();
        for racer in racers {
            // 1 says "another run was faster, come back"; 99 says "nothing left to do".
            done += u32::from(firn_e2e::rig::programs::finish(racer, &[0, 1, 99]).unwrap() == Some(0));
        }
        check_numbers(workspace.access(), ticks.produced).unwrap();
    }
    assert!(done >= 3, "every round has a winner: {done}");
    ticks.settle(&workspace).unwrap();
}
