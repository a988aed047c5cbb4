//! Writers of mixed kinds on one table, all at once, again and again: whatever meets, the table is what the model says.
//!
//! Two compactors, one that reprocesses, one that maintains (compacts, merges manifests, expires), and records that keep
//! landing. Nobody waits for anybody. Runs that lose say so with a conflict, and leave nothing behind that counts. On SQLite,
//! on Glue (ministack, which enforces the table version) and on REST (SeaweedFS).

#[allow(dead_code, reason = "the tests of the compactor use the rest")]
#[path = "../../../compactor/tests/runs/bed.rs"]
mod bed;
#[allow(dead_code, reason = "the tests of the compactor use the rest")]
#[path = "../../../compactor/tests/runs/versions.rs"]
mod versions;

use std::time::Duration;

use bed::{Bed, FIRN, Landed, PIPELINE};
use firn_compactor::maintain::Report;
use firn_compactor::run::{Outcome, RunReport};
use firn_e2e::rig::s3::{Kind, REGION, S3Server};
use firn_shared::error::{ErrorKind, Result};
use firn_shared::store::Faults;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use versions::{Model, STRATEGIES, pipeline};

/// Steps of each writer in a round.
const STEPS: usize = 3;
/// Rounds after which a table must have its commits, and of every kind: how many a round brings is up to the machine.
const ROUNDS_MAX: usize = 100;

/// What lands in a table, and what it holds then.
enum Expected {
    Append(Landed),
    Upsert(Model),
}

impl Expected {
    async fn land(&mut self, bed: &Bed, rng: &mut SmallRng) {
        let (partition, count) = (rng.random_range(0..2), rng.random_range(5..25));
        match self {
            Self::Append(landed) => landed.land(bed, partition, count).await,
            Self::Upsert(model) => model.land(bed, rng, partition, count as usize).await,
        }
    }

    async fn check(&self, bed: &Bed, what: &str) {
        match self {
            Self::Append(landed) => landed.check(bed).await,
            Self::Upsert(model) => model.check(bed, what).await,
        }
    }
}

/// Whoever loses says that somebody was faster, and nothing else; counts those that were not in vain.
fn tally<T>(who: &str, outcome: Result<T>, made_it: impl Fn(&T) -> bool) -> usize {
    match outcome {
        Ok(done) => usize::from(made_it(&done)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{who}: {error}");
            0
        }
    }
}

fn committed(report: &RunReport) -> bool {
    report.outcome == Outcome::Committed
}

async fn compactor(bed: &Bed, who: &str) -> usize {
    let mut commits = 0;
    for _ in 0..STEPS {
        commits += tally(who, bed.run(&Faults::none()).await, committed);
    }
    commits
}

async fn reprocessor(bed: &Bed, mut rng: SmallRng) -> usize {
    let mut commits = 0;
    for _ in 0..STEPS {
        let from = rng.random_range(6..9);
        let to = rng.random_range(from + 1..10);
        let (from, to) = (format!("2021-07-21T{from:02}"), format!("2021-07-21T{to:02}"));
        commits += tally("reprocess", bed.reprocess(&Faults::none(), &from, &to).await, committed);
    }
    commits
}

async fn maintainer(bed: &Bed) -> usize {
    let mut subject = bed.subject();
    // Files of commits in flight are young, and plans in flight may be this many snapshots behind.
    (subject.settings.orphans_after, subject.settings.keep_last) = (Duration::from_hours(1), 12);
    let mut commits = 0;
    for _ in 0..STEPS {
        let changed = |report: &Report| !report.is_idle();
        commits += tally("maintain", bed.maintain(&Faults::none(), &subject).await, changed);
    }
    commits
}

/// Lets the writers loose on a table of the deployment `firn` until it has seen so many commits.
async fn writers_agree(firn: &str, seed: u64, enough: i64, upsert: Option<&str>) {
    println!("seed {seed}, {upsert:?}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let (yaml, mut expected) = match upsert {
        None => (PIPELINE.to_owned(), Expected::Append(Landed::default())),
        Some(strategy) => (pipeline(strategy, "[hour(at)]"), Expected::Upsert(Model::default())),
    };
    // Catalogs and buckets are shared with other tests.
    let own = format!("mixed_{}", uuid::Uuid::new_v4().simple());
    let bed = Bed::on(&firn.replace("OWN", &own), &yaml.replace("database: d\n", &format!("database: {own}\n")));
    expected.land(&bed, &mut rng).await;
    bed.run_to_the_end().await;
    let (mut commits, mut round) = ([0; 3], 0);
    while commits.contains(&0) || seen(&bed).await < enough {
        assert!(round < ROUNDS_MAX, "runs, reprocesses and maintenance committed {commits:?} times in {round} rounds");
        let mut lands = SmallRng::seed_from_u64(rng.random());
        let land = async {
            for _ in 0..STEPS {
                expected.land(&bed, &mut lands).await;
            }
        };
        let reprocess = reprocessor(&bed, SmallRng::seed_from_u64(rng.random()));
        let ((), one, two, again, maintained) =
            tokio::join!(land, compactor(&bed, "one"), compactor(&bed, "two"), reprocess, maintainer(&bed));
        for (sum, more) in commits.iter_mut().zip([one + two, again, maintained]) {
            *sum += more;
        }
        while bed.run(&Faults::none()).await.unwrap().outcome != Outcome::NothingToDo {}
        expected.check(&bed, &format!("seed {seed} round {round}")).await;
        round += 1;
    }
    println!("{} commits in {round} rounds, runs, reprocesses and maintenance {commits:?}", seen(&bed).await);
    // Nobody is at work now: everything that nothing names may go, and the table is still all there.
    let report = bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    println!("{report}");
    expected.check(&bed, &format!("seed {seed} in the end")).await;
}

/// How many commits the table has seen.
async fn seen(bed: &Bed) -> i64 {
    bed.table().await.unwrap().metadata().last_sequence_number()
}

/// The claims, on every mode and strategy, until the table of appends and each of upserts have seen so many commits.
async fn mixed_writers(firn: &str, seed: u64, appends: i64, upserts: i64) {
    // Boxed: the futures of whole runs are large.
    Box::pin(writers_agree(firn, seed, appends, None)).await;
    for (n, strategy) in STRATEGIES.into_iter().enumerate() {
        Box::pin(writers_agree(firn, seed + 1 + n as u64, upserts, Some(strategy))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_writers_of_mixed_kinds_on_sqlite_leave_what_the_model_says() {
    mixed_writers(FIRN, 10, 200, 100).await;
}

/// A deployment on a server's S3.
fn on_server(server: &S3Server, warehouse: &str, catalog: &str) -> String {
    format!(
        "clusters: {{c: {{brokers: 'localhost:9092'}}}}\n{}raw: s3://raw/OWN\nwarehouse: {warehouse}\n\
         catalog: {catalog}\ncompactor: {{memory: 128MB, threads: 2}}\n",
        server.options_yaml()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_writers_of_mixed_kinds_on_glue_leave_what_the_model_says() {
    let server = S3Server::shared(Kind::Ministack);
    server.bucket("mixed").await.unwrap();
    server.bucket("raw").await.unwrap();
    let (endpoint, s3) = (server.endpoint(), server.access());
    let catalog = format!(
        "{{glue: {{endpoint: '{endpoint}', region: {REGION}, accessKeyId: {}, secretAccessKey: {}}}}}",
        s3.key, s3.secret
    );
    mixed_writers(&on_server(server, "s3://mixed/lake", &catalog), 20, 30, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_writers_of_mixed_kinds_on_a_rest_catalog_leave_what_the_model_says() {
    let server = S3Server::shared(Kind::SeaweedFs);
    server.bucket("raw").await.unwrap();
    let (uri, credential) = (server.rest_catalog(), server.rest_credential());
    let catalog = format!("{{rest: {{uri: '{uri}', warehouse: 's3://lake', credential: '{credential}'}}}}");
    mixed_writers(&on_server(server, "s3://lake", &catalog), 30, 30, 30).await;
}
