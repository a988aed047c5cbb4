//! `pii scan` on real events: what it finds, what it does not, and that it shows no value.

use std::path::Path;

use firn_compactor::scan::{Bounds, Confidence, Scanned, render, scan};
use firn_shared::store::Faults;

use crate::bed::Bed;

const BOUNDS: Bounds = Bounds { objects: 20, records: 2000, seed: 1 };

/// The payloads of a sample, as they came.
fn sample(name: &str, take: usize) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    String::from_utf8(bytes).unwrap().lines().take(take).map(str::to_owned).collect()
}

fn pipeline(columns: &str) -> String {
    format!(
        "
name: p
ingestionUnit:
  kafka: {{cluster: c, topic: t}}
  incomingData: {{format: json, eventTime: kafkaTimestamp}}
outsourcingUnit:
  - table:
      database: d
      tableName: t
      columns: [{columns}]
"
    )
}

async fn scanned(columns: &str, payloads: &[String], bounds: Bounds) -> Scanned {
    let bed = Bed::with(&pipeline(columns));
    for (hour, part) in (6..).zip(payloads.chunks(payloads.len().div_ceil(4).max(1))) {
        let records: Vec<_> = part.iter().map(|payload| (hour, Some(payload.clone()))).collect();
        bed.land(0, &records).await;
    }
    let env = bed.env(&Faults::none()).await;
    let pipeline = bed.config.pipelines.values().next().unwrap();
    scan(&env.raw().await.unwrap(), pipeline, bounds).await.unwrap()
}

/// Findings that are at least that sure, one a line, without counts.
fn told(scanned: &Scanned, least: Confidence) -> String {
    let shown = scanned.findings.iter().filter(|finding| finding.confidence >= least);
    let mut lines: Vec<String> = shown.map(|f| format!("{} {} {:?}", f.path, f.kind.as_str(), f.confidence)).collect();
    lines.sort();
    lines.join("\n")
}

#[tokio::test]
async fn the_people_in_github_events_are_found_and_hardly_anything_else() {
    let events = sample("github-events.ndjson.zst", 800);
    let found =
        scanned("{name: id, type: long}, {name: login, type: string, path: $.actor.login}", &events, BOUNDS).await;
    assert_eq!((found.records, found.unreadable, found.beyond), (800, 0, 0));
    insta::assert_snapshot!(told(&found, Confidence::Medium), @r"
    $.actor.display_login user name Medium
    $.actor.login user name Medium
    $.org.login user name Medium
    $.payload.comment.user.login user name Medium
    $.payload.commits[].author.email e-mail High
    $.payload.commits[].author.name name Medium
    $.payload.commits[].message e-mail Medium
    $.payload.forkee.owner.login user name Medium
    $.payload.issue.assignee.login user name Medium
    $.payload.issue.assignees[].login user name Medium
    $.payload.issue.body e-mail Medium
    $.payload.issue.user.login user name Medium
    $.payload.member.login user name Medium
    $.payload.pull_request.assignee.login user name Medium
    $.payload.pull_request.assignees[].login user name Medium
    $.payload.pull_request.base.repo.owner.login user name Medium
    $.payload.pull_request.base.user.login user name Medium
    $.payload.pull_request.head.repo.owner.login user name Medium
    $.payload.pull_request.head.user.login user name Medium
    $.payload.pull_request.merged_by.login user name Medium
    $.payload.pull_request.requested_reviewers[].login user name Medium
    $.payload.pull_request.user.login user name Medium
    $.payload.release.author.login user name Medium
    $.payload.review.user.login user name Medium
    ");
    let login = found.findings.iter().find(|finding| finding.path == "$.actor.login").unwrap();
    assert_eq!((login.undeclared.as_slice(), login.whole), (&["d.t.login".to_owned()][..], 800));
    // No value: neither an address nor a name of the sample is in what is shown.
    let shown = render(&found, Confidence::Low) + &serde_json::to_string(&found).unwrap();
    let event: serde_json::Value = serde_json::from_str(&events[0]).unwrap();
    assert!(!shown.contains('@') && !shown.contains(event["actor"]["login"].as_str().unwrap()), "{shown}");
}

#[tokio::test]
async fn addresses_in_dns_logs_are_found_and_hardly_anything_else() {
    let found = scanned("{name: uid, type: string}", &sample("zeek-dns.ndjson.zst", 4000), BOUNDS).await;
    insta::assert_snapshot!(told(&found, Confidence::Medium), @r"
    $.answers[] ip High
    $['id.orig_h'] ip Medium
    $['id.resp_h'] ip Medium
    ");
}

#[tokio::test]
async fn keys_that_are_data_are_not_shown_and_the_sample_is_bounded() {
    let payloads: Vec<String> =
        (0..40).map(|i| format!(r#"{{"by":{{"user{i}@example.com":1,"x":"4111 1111 1111 1111"}},"n":{i}}}"#)).collect();
    let found = scanned("{name: n, type: long}", &payloads, BOUNDS).await;
    assert_eq!(told(&found, Confidence::Low), "$.by.x card High\n$.by['*'] e-mail High");
    let small = Bounds { objects: 2, records: 3, seed: 7 };
    let one = scanned("{name: n, type: long}", &payloads, small).await;
    assert_eq!((one.objects, one.records), (2, 6));
    assert_eq!(one.findings, scanned("{name: n, type: long}", &payloads, small).await.findings, "the seed decides");
    let none = scanned("{name: n, type: long}", &[], BOUNDS).await;
    assert_eq!((none.records, none.findings.len()), (0, 0));
}

/// What `compactor pii scan` ends with.
fn exit_code(bed: &Bed) -> i32 {
    let dir = bed.dir.path();
    let mut compactor = std::process::Command::new(env!("CARGO_BIN_EXE_compactor"));
    compactor
        .args(["pii", "scan", "--config"])
        .arg(dir.join("firn.yaml"))
        .arg("--pipelines")
        .arg(dir.join("pipelines"));
    let ended = compactor.output().unwrap();
    let shown = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(!shown.contains("alice"), "{shown}");
    ended.status.code().unwrap()
}

#[tokio::test]
async fn exit_codes_say_whether_somebody_must_look() {
    let mut bed = Bed::with(&pipeline("{name: n, type: long}"));
    assert_eq!(exit_code(&bed), 99, "there is nothing to look into");
    let payload = |i: usize| (6, Some(format!(r#"{{"n":{i},"mail":"alice{i}@example.com"}}"#)));
    bed.land(0, &(0..10).map(payload).collect::<Vec<_>>()).await;
    assert_eq!(exit_code(&bed), 6);
    let columns = "{name: mail, type: string}]\n      piiColumns: [{name: mail, protect: keep}";
    bed.reconfigure(&pipeline(columns));
    assert_eq!(exit_code(&bed), 0, "somebody looked");
}

#[tokio::test]
async fn refused_records_are_looked_at_and_names_for_keys_are_not_shown() {
    let bed = Bed::with(&pipeline("{name: n, type: long}"));
    let names = ["alice", "bob", "carol", "dave"];
    let refused: Vec<String> =
        names.iter().map(|name| format!(r#"{{"balances":{{"{name}":{{"phone":"+1 555 010 0199"}}}}}}"#)).collect();
    bed.land(0, &[(6, Some("{\"n\":1}".to_owned()))]).await;
    bed.refuse(&refused).await;
    let env = bed.env(&Faults::none()).await;
    let pipeline = bed.config.pipelines.values().next().unwrap();
    let found = scan(&env.raw().await.unwrap(), pipeline, BOUNDS).await.unwrap();
    assert_eq!((found.objects, found.records, found.unreadable), (2, 6, 1), "one of them is no JSON");
    assert_eq!(told(&found, Confidence::Low), "$.balances['*'].phone phone High");
}

/// What an entry says of one field, it does not say of others; what a step made is followed to where it came from.
#[tokio::test]
async fn what_is_declared_is_told_by_the_place_in_the_payload() {
    let payload = |i: usize| {
        let place = format!(r#""mail":"alice{i}@example.com","phone":"+1 555 010 0199""#);
        format!(
            r#"{{"n":{i},"customer":{{{place}}},"friends":[{{{place}}}],"mail":"bob{i}@example.com","to":"eve{i}@example.com"}}"#
        )
    };
    let payloads: Vec<String> = (0..10).map(payload).collect();
    let of = "struct<mail: string, phone: string>";
    let columns = format!(
        "{{name: customer, type: '{of}'}}, {{name: friends, type: 'list<{of}>'}}, {{name: mail, type: string}}, \
         {{name: to, type: string}}"
    );
    let undeclared = async |entries: &str, steps: &str| {
        let entries = format!("{columns}]\n      piiColumns: [{entries}");
        let steps = format!("    transformations:\n      - lower: {{column: mail}}\n{steps}");
        let bed = Bed::with(&(pipeline(&entries) + &steps));
        bed.land(0, &payloads.iter().map(|payload| (6, Some(payload.clone()))).collect::<Vec<_>>()).await;
        let pipeline = bed.config.pipelines.values().next().unwrap();
        let found = scan(&bed.env(&Faults::none()).await.raw().await.unwrap(), pipeline, BOUNDS).await.unwrap();
        found.undeclared(Confidence::Low).map(|f| format!("{} {}", f.path, f.undeclared.join(","))).collect::<Vec<_>>()
    };
    let some =
        "{name: customer.mail, protect: mask}, {name: 'friends[].mail', protect: mask}, {name: to, protect: drop}";
    let left = ["$.mail d.t.mail", "$.customer.phone d.t.customer", "$.friends[].phone d.t.friends"];
    let mut found = undeclared(some, "").await;
    found.sort_unstable();
    let mut expected = left.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(found, expected);
    let all = "{name: customer, protect: mask}, {name: 'friends[]', protect: mask}, {name: to, protect: drop}, \
               {name: mail, protect: mask}";
    assert_eq!(undeclared(all, "").await, [""; 0]);
    let copied = "      - upper: {column: mail, as: loud}\n";
    assert_eq!(undeclared(&format!("{all}, {{name: loud, protect: keep}}"), copied).await, [""; 0]);
}
