//! KMS that refuses, is slow or is away: what each program says and does, because schedulers act on the exit code.

use std::fs;
use std::sync::Arc;

use firn_e2e::rig::daemon::Daemon;
use firn_e2e::rig::kafka::{Kafka, Record, block_on};
use firn_e2e::rig::kms::{Kms, Mood, sections};
use firn_e2e::rig::lambda::{AthenaPeer, Lambda};
use firn_e2e::rig::procs::{free_port, run_dir, until};
use firn_e2e::rig::workspace::Workspace;
use firn_shared::clock::SystemClock;
use firn_shared::config;
use firn_shared::crypto::{Key, Keys};
use firn_shared::error::{Error, ErrorKind};
use firn_shared::store::Stores;
use serde_json::json;

use super::protection::{person, pipeline};

const DENIED: Mood = Mood::Refuses(400, "AccessDeniedException", "User: arn:aws:iam::1:role/x is not authorized");
const THROTTLED: Mood = Mood::Refuses(400, "ThrottlingException", "Rate exceeded");
const DISABLED: Mood = Mood::Refuses(400, "DisabledException", "the key is disabled");
const INCORRECT: Mood = Mood::Refuses(400, "IncorrectKeyException", "The key ID in the request does not identify it");

/// Every way of KMS not to do its part, what it means, and what is said.
const WAYS: [(Mood, ErrorKind, &str); 9] = [
    (DENIED, ErrorKind::Config, "AccessDeniedException: User: arn:aws:iam::1:role/x is not authorized; allow it in"),
    (DISABLED, ErrorKind::Config, "DisabledException: the key is disabled; enable the key"),
    (
        Mood::Refuses(400, "KMSInvalidStateException", "arn is pending deletion."),
        ErrorKind::Config,
        "is pending deletion.; enable the key, or cancel its deletion",
    ),
    (
        Mood::Refuses(400, "NotFoundException", "Alias alias/people is not found."),
        ErrorKind::Config,
        "is not found.; is it in this account and region?",
    ),
    (
        Mood::Refuses(400, "InvalidSignatureException", "The request signature does not match"),
        ErrorKind::Config,
        "InvalidSignatureException: The request signature",
    ),
    (INCORRECT, ErrorKind::Data, "another KMS key has wrapped it"),
    (THROTTLED, ErrorKind::Unavailable, "ThrottlingException: Rate exceeded"),
    (
        Mood::Refuses(500, "KMSInternalException", "try again"),
        ErrorKind::Unavailable,
        "KMSInternalException: try again",
    ),
    (Mood::Silent, ErrorKind::Unavailable, "timeout"),
];

/// The key `people` of a deployment in `dir`, as a process finds it.
async fn people(dir: &std::path::Path) -> Arc<Key> {
    let config = config::load(&dir.join("firn.yaml"), &[]).unwrap();
    let keys = Keys::new(&config.deployment, Stores::new(config.deployment.s3.clone()), Arc::new(SystemClock));
    keys.key(&"people".parse().unwrap()).await.unwrap()
}

fn says(error: &Error, kind: ErrorKind, what: &str, message: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.starts_with(what) && text.contains(message), "{text}");
    assert!(text.contains("for key people with KMS key arn:aws:kms:us-east-1") && text.len() < 600, "{text}");
}

#[test]
fn what_kms_says_decides_whether_it_is_asked_again() {
    let kms = Kms::start().unwrap();
    let dir = run_dir().join("kms-refuses");
    fs::create_dir_all(&dir).unwrap();
    let yaml = |sections: &str| {
        format!(
            "clusters: {{c: {{brokers: 'localhost:1'}}}}\nraw: {0}/raw\nwarehouse: {0}/lake\ncatalog: {{sqlite: {{path: {0}/c.db}}}}\n{sections}\n",
            dir.display()
        )
    };
    fs::write(dir.join("firn.yaml"), yaml(&kms.sections())).unwrap();
    block_on(async {
        for (mood, kind, message) in WAYS.into_iter().filter(|(mood, ..)| *mood != INCORRECT) {
            kms.is(mood);
            let error = people(&dir).await.current(1).await.unwrap_err();
            says(&error, kind, "cannot make a data key for key people", message);
        }
        assert!(!dir.join("lake/_keys/people").exists(), "nothing is stored of what was not made");
        kms.is(Mood::Works);
        people(&dir).await.current(1).await.unwrap();
        for (mood, kind, message) in WAYS {
            kms.is(mood);
            let before = kms.asked();
            let error = people(&dir).await.open("people/1").await.unwrap_err();
            says(&error, kind, "cannot unwrap file://", message);
            let asked = kms.asked() - before;
            assert_eq!(asked > 1, kind == ErrorKind::Unavailable, "{mood:?} was asked {asked} times");
        }
        kms.is(Mood::Works);
        assert!(people(&dir).await.open("people/1").await.unwrap().is_some());
        fs::write(dir.join("firn.yaml"), yaml(&sections(&format!("http://127.0.0.1:{}", free_port())))).unwrap();
        let error = people(&dir).await.open("people/1").await.unwrap_err();
        says(&error, ErrorKind::Unavailable, "cannot unwrap file://", "Connection refused");
    });
}

/// A workspace whose key is wrapped by this KMS, and its topic.
fn workspace(name: &str, place: &str, kms: &Kms) -> (Workspace, String) {
    let workspace = Workspace::local(name, Kafka::shared()).unwrap();
    workspace.reconfigure("landing:", &format!("{}\nlanding:", kms.sections())).unwrap();
    let topic = pipeline(&workspace, name, |yaml| yaml.replace("WHERE", place));
    Kafka::shared().produce(&topic, (0..5).map(|id| Record::of(person(id)))).unwrap();
    (workspace, topic)
}

/// The exit codes of a command while KMS is like that.
const CODES: [(Mood, i32); 4] = [(DENIED, 2), (DISABLED, 2), (THROTTLED, 1), (INCORRECT, 3)];

#[test]
fn a_run_ends_with_the_code_that_says_whether_to_try_again() {
    let kms = Kms::start().unwrap();
    let (workspace, topic) = workspace("kms-refuses-run", "conversion", &kms);
    workspace.land().unwrap();
    workspace.compact().unwrap();
    Kafka::shared().produce(&topic, (5..8).map(|id| Record::of(person(id)))).unwrap();
    workspace.land().unwrap();
    for (mood, code) in CODES {
        kms.is(mood);
        for command in ["run", "check"] {
            let ended = workspace.compactor(&[command]).unwrap().expect(&[code]).unwrap();
            assert!(ended.stderr.contains("for key people with KMS key"), "{}", ended.stderr);
            assert!(!ended.stderr.contains("secret.example"), "{}", ended.stderr);
        }
    }
    let access = workspace.access();
    assert_eq!(access.number("t.people", "SELECT COUNT(*) FROM t").unwrap(), 5, "nothing is committed");
    kms.is(Mood::Works);
    workspace.compact().unwrap();
    assert_eq!(access.number("t.people", "SELECT COUNT(DISTINCT email) FROM t").unwrap(), 8);
    workspace.reconcile().unwrap();
}

#[test]
fn landing_waits_for_a_kms_that_may_come_back_and_ends_where_a_person_must_act() {
    let kms = Kms::start().unwrap();
    let (workspace, topic) = workspace("kms-refuses-landing", "landing", &kms);
    for (mood, code) in CODES.into_iter().filter(|(mood, _)| *mood != INCORRECT) {
        kms.is(mood);
        let ended = workspace.landing(&["run", "--until-caught-up"]).unwrap().expect(&[code]).unwrap();
        assert!(ended.stderr.contains("for key people with KMS key"), "{}", ended.stderr);
    }
    assert!(workspace.landed(&topic).unwrap().is_empty(), "nothing lands unprotected");
    kms.is(THROTTLED);
    let daemon = Daemon::start(&workspace).unwrap();
    until("landing has tried twice", || (daemon.sum("landing_failures_total").ok()? >= 2).then_some(())).unwrap();
    let why = daemon.await_status("/readyz", 503).unwrap();
    assert!(why.contains("ThrottlingException: Rate exceeded"), "{why}");
    kms.is(Mood::Works);
    let landed = || (workspace.landed(&topic).ok()?.values().sum::<u64>() >= 5).then_some(());
    until("5 records have landed", landed).unwrap();
    daemon.await_status("/readyz", 200).unwrap();
    assert_eq!(daemon.metric("landing_key_values").unwrap(), [("key=\"people\"".to_owned(), 1 << 16)]);
}

#[test]
fn athenas_function_says_that_it_is_denied_and_works_again() {
    let kms = Kms::start().unwrap();
    let (workspace, _) = workspace("kms-refuses-athena", "conversion", &kms);
    workspace.land().unwrap();
    workspace.compact().unwrap();
    let sealed = "SELECT email, _key_people FROM t ORDER BY id LIMIT 1";
    let rows = workspace.access().duckdb("t.people", sealed).unwrap();
    let mut lambda = Lambda::start("firn-athena-udf", &workspace.dir().join("firn.yaml")).unwrap();
    let mut athena = AthenaPeer::start().unwrap();
    let call = athena.call(5, "firn_decrypt", 2, &rows).unwrap();
    for (mood, kind, message) in [
        (DENIED, "Firn.Config", "AccessDeniedException"),
        (DISABLED, "Firn.Config", "DisabledException"),
        (THROTTLED, "Firn.Unavailable", "ThrottlingException"),
    ] {
        kms.is(mood);
        let answer = lambda.invoke(&call).unwrap();
        assert_eq!(answer["failure"]["errorType"], json!(kind), "{answer}");
        assert!(answer["failure"]["errorMessage"].as_str().unwrap().contains(message), "{answer}");
    }
    kms.is(Mood::Works);
    let answer = athena.read(5, &lambda.invoke(&call).unwrap()["response"]).unwrap();
    assert_eq!(answer["values"], json!(["user-0@secret.example"]));
}
