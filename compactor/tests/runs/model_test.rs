//! Anything at random, against the model: streams, slicing into runs, crashes, reprocessing, modes, strategies, partitions.
//! The seed is printed; `FIRN_SEED` runs another one, and `FIRN_ROUNDS` more of them.

use firn_compactor::run::branch::End;
use firn_shared::ids::EventHour;
use firn_shared::store::{Fault, Faults};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::bed::{Bed, event_hour};
use crate::model::{Kind, Model, PARTITIONS, kinds};

const FAULTS: [Fault; 3] = [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorAfter];

/// Seeds tried unless the environment says otherwise: each is a table of its own for each kind.
const SEEDS: u64 = 1;

fn some_fault(rng: &mut SmallRng) -> std::sync::Arc<Faults> {
    Faults::at_write(rng.random_range(1..24), *FAULTS.choose(rng).unwrap())
}

fn some_hours(rng: &mut SmallRng) -> (EventHour, EventHour) {
    let from = rng.random_range(6..10);
    (event_hour(from), event_hour(rng.random_range(from + 1..11)))
}

/// Converts hours again: at once, or on a branch that is compared and published; with a crash on the way or without.
async fn reprocess(bed: &Bed, rng: &mut SmallRng, (from, to): (EventHour, EventHour)) {
    let (from, to) = (from.to_string(), to.to_string());
    let crash = rng.random_bool(0.4);
    if rng.random_bool(0.5) {
        if crash {
            let _ = bed.reprocess(&some_fault(rng), &from, &to).await;
        }
        bed.reprocess(&Faults::none(), &from, &to).await.unwrap();
        return;
    }
    if crash {
        let _ = bed.diff(&some_fault(rng), &from, &to).await;
    }
    bed.diff(&Faults::none(), &from, &to).await.unwrap();
    if rng.random_bool(0.2) {
        assert_eq!(bed.discard(&Faults::none()).await.unwrap().outcome, End::Discarded);
        bed.diff(&Faults::none(), &from, &to).await.unwrap();
    }
    if crash {
        let _ = bed.publish(&Faults::at_write(rng.random_range(1..6), *FAULTS.choose(rng).unwrap())).await;
    }
    bed.publish(&Faults::none()).await.unwrap();
}

/// `number` is that of the kind: each draws something else, and kinds side by side have other partitions.
async fn anything((number, kind): (usize, Kind), seed: u64) {
    println!("{kind:?} seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed * 100 + number as u64);
    let mut model = Model::new(kind, PARTITIONS[(number + seed as usize) % PARTITIONS.len()]);
    let mut bed = Bed::with(&model.pipeline());
    for round in 0..6 {
        let what = format!("seed {seed} round {round}");
        let (happens, again) = (rng.random_range(5..50), rng.random_range(0..12));
        model.happen(&mut rng, happens);
        model.land(&bed, &mut rng, again).await;
        if rng.random_bool(0.4) {
            let _ = bed.run(&some_fault(&mut rng)).await;
        }
        bed.run_to_the_end().await;
        model.check(&bed, &what).await;
        match rng.random_range(0..4) {
            // Under the same configuration nothing changes, whichever hours it is.
            0 | 1 => {
                let hours = some_hours(&mut rng);
                reprocess(&bed, &mut rng, hours).await;
            }
            // Under another one, all hours again are everything again.
            2 => {
                model.filter = !model.filter;
                bed.reconfigure(&model.pipeline());
                reprocess(&bed, &mut rng, Model::all_hours()).await;
            }
            _ => {}
        }
        model.check(&bed, &format!("{what}, converted again")).await;
    }
}

#[allow(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn environment(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_the_model_whatever_happens_to_it() {
    let first = environment("FIRN_SEED", 1);
    for seed in first..first + environment("FIRN_ROUNDS", SEEDS) {
        for kind in kinds().into_iter().enumerate() {
            anything(kind, seed).await;
        }
    }
}

/// Every write of a run of every mode and strategy: a crash before it, which is one after the write before, and its reply
/// lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_in_any_mode_leaves_the_old_table_or_the_new_one() {
    for (number, kind) in kinds().into_iter().enumerate() {
        for fault in [Fault::CrashBefore, Fault::ErrorAfter] {
            let mut at = 0;
            loop {
                at += 1;
                let what = format!("{kind:?} {fault:?} at {at}");
                let mut rng = SmallRng::seed_from_u64(number as u64);
                let mut model = Model::new(kind, PARTITIONS[number % PARTITIONS.len()]);
                let bed = Bed::with(&model.pipeline());
                model.happen(&mut rng, 40);
                model.land(&bed, &mut rng, 0).await;
                bed.run_to_the_end().await;
                let before = model.rows();
                model.happen(&mut rng, 30);
                model.land(&bed, &mut rng, 10).await;
                let faults = Faults::at_write(at, fault);
                let _ = bed.run(&faults).await;
                let seen = bed.marked_rows().await;
                assert!(seen == before || seen == model.rows(), "{what}: half a run is visible");
                bed.run_to_the_end().await;
                model.check(&bed, &what).await;
                if !faults.fired() {
                    assert!(at > 4, "{what}: only so many operations");
                    break;
                }
            }
        }
    }
}
