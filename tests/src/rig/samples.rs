//! Real events: `tests/fixtures/`, line by line, and volume made from them.

use std::path::PathBuf;

use super::procs::source_dir;

/// The 800 GitHub events, 200 in each of the hours 06 to 09 of 2021-07-21.
pub fn github() -> Vec<String> {
    lines("github-events.ndjson.zst")
}

/// How many GitHub events there are of each type, most frequent first, ties by name.
pub const GITHUB_TYPES: [(&str, i64); 15] = [
    ("PushEvent", 425),
    ("CreateEvent", 103),
    ("PullRequestEvent", 64),
    ("WatchEvent", 58),
    ("IssueCommentEvent", 36),
    ("PullRequestReviewEvent", 28),
    ("DeleteEvent", 23),
    ("IssuesEvent", 21),
    ("ForkEvent", 19),
    ("PullRequestReviewCommentEvent", 10),
    ("MemberEvent", 4),
    ("ReleaseEvent", 3),
    ("CommitCommentEvent", 2),
    ("GollumEvent", 2),
    ("PublicEvent", 2),
];

/// The 53,615 Zeek DNS events.
pub fn zeek_dns() -> Vec<String> {
    lines("zeek-dns.ndjson.zst")
}

/// Where a fixture is.
pub fn fixture(name: &str) -> PathBuf {
    source_dir().join("tests/fixtures").join(name)
}

fn lines(name: &str) -> Vec<String> {
    let packed = std::fs::read(fixture(name)).expect("the fixture is in the source tree");
    let text = zstd::decode_all(packed.as_slice()).expect("the fixture is zstd");
    String::from_utf8(text).expect("the fixture is UTF-8").lines().map(str::to_owned).collect()
}

/// A small event of our own form, for tests that count: number `n` at an event time `second`s after 2024-05-01T00Z.
pub fn tick(n: u64, second: i64) -> String {
    let start = chrono::DateTime::from_timestamp(1_714_521_600 + second, 0).expect("a time in range");
    format!(r#"{{"n":{n},"at":"{}","pad":"{}"}}"#, start.format("%Y-%m-%dT%H:%M:%SZ"), "x".repeat((n % 50) as usize))
}
