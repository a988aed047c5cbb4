use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use firn_shared::error::ErrorKind;
use firn_shared::ids::{EventHour, Offset, OffsetRange, Partition, PartitionRef, TopicRef};
use firn_shared::raw::chain::{AppendOutcome, Chain};
use firn_shared::raw::envelope::{LineWriter, Record};
use firn_shared::raw::key::RawKey;
use firn_shared::raw::manifest::{BatchManifest, GapReason, MANIFEST_VERSION, RawObject, RejectReason};
use firn_shared::store::{LocalStore, PutMode, Store};
use proptest::prelude::*;

use super::account::{Account, Fate, OTHER_EVENT, Totals};
use super::deep::{DeepCheck, DeepReport, Wanted};
use super::ledger;
use super::report::{Held, Report, compare};
use crate::plan::position::Position;
use crate::seam::Cpu;

fn topic() -> TopicRef {
    "events/t/1".parse().unwrap()
}

fn partition() -> PartitionRef {
    PartitionRef { topic: topic(), partition: Partition(0) }
}

/// What an offset of a test partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Row,
    Quarantined,
    Filtered,
    Other,
    Tombstone,
    Reject,
    Absent,
}

const KINDS: [Kind; 7] =
    [Kind::Row, Kind::Quarantined, Kind::Filtered, Kind::Other, Kind::Tombstone, Kind::Reject, Kind::Absent];

/// A raw zone with one partition, whose offsets are of these kinds.
struct Zone {
    store: Arc<dyn Store>,
    kinds: Vec<Kind>,
    keys: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Zone {
    /// Lands the offsets in batches of `batch`, each with one object.
    async fn of(kinds: &[Kind], batch: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut zone = Self {
            store: Arc::new(LocalStore::new(dir.path()).unwrap()),
            kinds: kinds.to_vec(),
            keys: Vec::new(),
            _dir: dir,
        };
        let mut chain = Chain::new(Arc::clone(&zone.store), partition());
        chain.end_after(None).await.unwrap();
        for (number, kinds) in kinds.chunks(batch).enumerate() {
            let manifest = zone.batch((number * batch) as Offset, kinds).await;
            assert_eq!(chain.append(&manifest).await.unwrap(), AppendOutcome::Appended);
        }
        zone
    }

    async fn batch(&mut self, start: Offset, kinds: &[Kind]) -> BatchManifest {
        let writer = LineWriter::new(&topic().topic, Partition(0));
        let hour = EventHour::from_epoch_hours(0);
        let range = OffsetRange::new(start, start + kinds.len() as u64).unwrap();
        let (mut lines, mut inside) = (Vec::new(), Vec::new());
        for (offset, kind) in (start..).zip(kinds) {
            let (event, payload) = match kind {
                Kind::Reject | Kind::Absent => continue,
                Kind::Tombstone => ("mine", None),
                Kind::Other => ("other", Some(&b"{}"[..])),
                _ => ("mine", Some(&b"{}"[..])),
            };
            inside.push(offset);
            let record = Record { offset, timestamp: None, key: None, headers: [] };
            writer.record(&mut lines, record, Some(event), payload);
        }
        let count = |wanted: Kind| kinds.iter().filter(|kind| **kind == wanted).count() as u64;
        let mut objects = Vec::new();
        if let (Some(&min_offset), Some(&max_offset)) = (inside.first(), inside.last()) {
            let key = RawKey { partition: partition(), hour, range, id: "w".into() }.to_string();
            let body = zstd::encode_all(&lines[..], 1).unwrap();
            objects.push(RawObject {
                key: key.clone(),
                event_hour: Some(hour),
                records: inside.len() as u64,
                tombstones: count(Kind::Tombstone),
                bytes: body.len() as u64,
                raw_bytes: lines.len() as u64,
                blake3: blake3::hash(&body).to_hex().to_string(),
                min_offset,
                max_offset,
                min_event_time: None,
                max_event_time: None,
                erased: 0,
            });
            assert!(self.store.put(&key, Bytes::from(body), PutMode::Create).await.is_ok());
            self.keys.push(key);
        }
        let rejects = count(Kind::Reject);
        let mut lines = Vec::new();
        for (offset, _) in (start..).zip(kinds).filter(|(_, kind)| **kind == Kind::Reject) {
            let record = Record { offset, timestamp: None, key: None, headers: [] };
            writer.refused(&mut lines, record, (RejectReason::NotJson, "x"), Some(b"no JSON"));
        }
        let (key, body) = (format!("q{start}"), zstd::encode_all(&lines[..], 1).unwrap());
        let refused = RawObject {
            key: key.clone(),
            event_hour: None,
            records: rejects,
            tombstones: 0,
            bytes: body.len() as u64,
            raw_bytes: lines.len() as u64,
            blake3: blake3::hash(&body).to_hex().to_string(),
            min_offset: start,
            max_offset: start,
            min_event_time: None,
            max_event_time: None,
            erased: 0,
        };
        if rejects > 0 {
            assert!(self.store.put(&key, Bytes::from(body), PutMode::Create).await.is_ok());
        }
        BatchManifest {
            version: MANIFEST_VERSION,
            topic: topic(),
            topic_id: None,
            partition: Partition(0),
            range,
            writer: "w".into(),
            written_at: DateTime::UNIX_EPOCH,
            objects,
            quarantine: (rejects > 0).then_some(refused).into_iter().collect(),
            rejects: (rejects > 0).then_some((RejectReason::NotJson, rejects)).into_iter().collect(),
            absent: count(Kind::Absent),
            gap: None,
            watermark: None,
            caught_up_at: None,
        }
    }

    fn count(&self, kind: Kind) -> u64 {
        self.kinds.iter().filter(|k| **k == kind).count() as u64
    }

    fn offsets(&self, kind: Kind) -> Vec<Offset> {
        (0..).zip(&self.kinds).filter(|(_, k)| **k == kind).map(|(offset, _)| offset).collect()
    }

    /// Where a table stands that has taken everything, and its account.
    async fn consumed(&self) -> (Position, Account) {
        let end = self.kinds.len() as Offset;
        let mut position = Position::start();
        let mut account = Account::default();
        if end > 0 {
            position.advance(&partition(), end).unwrap();
        }
        for manifest in Chain::new(Arc::clone(&self.store), partition()).read(0).await.unwrap() {
            account.totals_mut(&partition()).add_batch(&manifest);
        }
        let filtered =
            [("small".to_owned(), self.count(Kind::Filtered)), (OTHER_EVENT.into(), self.count(Kind::Other))];
        account.add_fate(
            &partition(),
            &Fate {
                rows: self.count(Kind::Row),
                quarantined: self.count(Kind::Quarantined),
                filtered: filtered.into_iter().filter(|(_, count)| *count > 0).collect(),
                tombstones: self.count(Kind::Tombstone),
                ..Fate::default()
            },
        );
        (position, account)
    }

    /// With so many rows in the table, and a quarantine as in the account.
    async fn report(&self, position: &Position, account: &Account, rows: u64) -> Report {
        let quarantined = account.iter().map(|(_, totals)| totals.quarantined).sum();
        self.report_of(position, account, Some(Held { rows, quarantined, ahead: None })).await
    }

    async fn report_of(&self, position: &Position, account: &Account, held: Option<Held>) -> Report {
        let ledger = ledger::totals(&self.store, &[topic()], position).await.unwrap();
        compare("db.t", &ledger, (position, account), held.as_ref())
    }

    async fn deep(&self, rows: Vec<Offset>, quarantined: Vec<Offset>) -> firn_shared::error::Result<DeepReport> {
        self.deep_of_several(rows.into_iter().map(|offset| (offset, 0)).collect(), quarantined, 0).await
    }

    /// Rows with their numbers among those of their record, and how many further ones the account has.
    async fn deep_of_several(
        &self,
        rows: Vec<(Offset, u32)>,
        quarantined: Vec<Offset>,
        exploded: u64,
    ) -> firn_shared::error::Result<DeepReport> {
        let (position, mut account) = self.consumed().await;
        account.totals_mut(&partition()).exploded = exploded;
        let wanted: Wanted = Arc::new(|event| event == Some("mine"));
        let cpu = Cpu::new(1, 1 << 20).unwrap();
        let mut check = DeepCheck::new(3);
        check.rows(&partition(), rows);
        check.quarantined(&partition(), quarantined.into_iter().map(|offset| (offset, 0)));
        check.against_ledger(&self.store, &cpu, (&position, &account), &wanted).await
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    prop::collection::vec(prop::sample::select(&KINDS[..]), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_table_that_has_everything_once_is_balanced_and_clean(kinds in kinds(), batch in 1usize..9) {
        run(async {
            let zone = Zone::of(&kinds, batch).await;
            let (position, account) = zone.consumed().await;
            let report = zone.report(&position, &account, zone.count(Kind::Row)).await;
            assert!(report.is_balanced(), "{report}");
            let deep = zone.deep(zone.offsets(Kind::Row), zone.offsets(Kind::Quarantined)).await.unwrap();
            assert!(deep.is_clean(), "{deep}");
        });
    }

    #[test]
    fn one_row_more_or_less_is_always_seen(kinds in kinds(), batch in 1usize..9, at: prop::sample::Index, change in 0..3u8) {
        let rows: Vec<_> = (0..).zip(&kinds).filter(|(_, k)| **k == Kind::Row).map(|(offset, _)| offset).collect();
        prop_assume!(!rows.is_empty());
        run(async {
            let zone = Zone::of(&kinds, batch).await;
            let (position, mut account) = zone.consumed().await;
            let (mut rows, victim) = (rows.clone(), at.get(&rows));
            match change {
                0 => rows.retain(|offset| offset != victim),
                1 => rows.push(*victim),
                _ => rows.push(1000),
            }
            let deep = zone.deep(rows.clone(), zone.offsets(Kind::Quarantined)).await.unwrap();
            assert!(!deep.is_clean(), "{deep}");
            account.totals_mut(&partition()).rows = rows.len() as u64;
            let report = zone.report(&position, &account, rows.len() as u64).await;
            assert!(!report.is_balanced() && report.difference() == 1, "{report}");
        });
    }
}

#[test]
fn the_report_is_a_table_for_people_and_json_for_programs() {
    run(async {
        let zone = Zone::of(&KINDS, 7).await;
        let (position, account) = zone.consumed().await;
        let report = zone.report(&position, &account, 1).await;
        assert_eq!(
            report.to_string(),
            "db.t
  partition      offsets  rows  quarantined  rejected  filtered  tombstones  superseded  deleted  absent  gaps  difference  behind
  events/t/1[0]     0..7     1            1         1         2           1           0        0       1     0           0       0
  total                7     1            1         1         2           1           0        0       1     0           0       0
  filtered, event: 1
  filtered, small: 1
  rejected at landing, notJson: 1
  balanced: every offset is accounted for"
        );
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["partitions"][0]["rejected"]["notJson"], 1);
        assert_eq!(json["partitions"][0]["difference"], 0);
    });
}

#[test]
fn every_disagreement_is_named() {
    run(async {
        let zone = Zone::of(&KINDS, 7).await;
        let (position, account) = zone.consumed().await;
        let with = |change: &dyn Fn(&mut Totals)| {
            let mut account = account.clone();
            change(account.totals_mut(&partition()));
            account
        };
        // Two errors that cancel out in the sum are still two errors.
        let shifted = with(&|totals| {
            totals.absent += 1;
            totals.tombstones -= 1;
        });
        let report = zone.report(&position, &shifted, 1).await;
        assert_eq!(report.partitions[0].difference, 0);
        assert!(!report.is_balanced());
        let text = report.to_string();
        assert!(text.contains("problem: events/t/1[0]: tombstones: 1 in the ledger, 0 in the account"), "{text}");
        assert!(text.contains("problem: events/t/1[0]: absent: 1 in the ledger, 2 in the account"), "{text}");
        let report = zone.report(&position, &account, 0).await;
        assert!(report.to_string().contains("the table holds 0 rows and accounts for 1"), "{report}");
        for (ahead, why) in
            [(None, "somebody else has changed it"), (Some("reprocess a..b"), "not to the table (reprocess a..b)")]
        {
            let held = Held { rows: 1, quarantined: 0, ahead: ahead.map(str::to_owned) };
            let report = zone.report_of(&position, &account, Some(held)).await;
            let text = report.to_string();
            assert!(
                !report.is_balanced() && text.contains("the quarantine holds 0 rows of consumed offsets"),
                "{text}"
            );
            assert!(text.contains("accounts for 1") && text.contains(why), "{text}");
        }
        // A position that no batch ends at is not compared with anything.
        for wrong in [3, 9] {
            let mut elsewhere = Position::start();
            elsewhere.advance(&partition(), wrong).unwrap();
            let error = ledger::totals(&zone.store, &[topic()], &elsewhere).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains("nearest end of a batch in the ledger is 7"), "{error}");
        }
    });
}

#[test]
fn what_is_landed_and_not_consumed_is_behind_and_no_difference() {
    run(async {
        let zone = Zone::of(&[Kind::Row; 6], 3).await;
        let report = zone.report(&Position::start(), &Account::default(), 0).await;
        assert!(report.is_balanced(), "{report}");
        assert_eq!(report.partitions[0].behind, 6);
        let report = zone.report_of(&Position::start(), &Account::default(), None).await;
        assert!(
            report.is_balanced() && report.to_string().ends_with("no table yet: the first run makes it"),
            "{report}"
        );
    });
}

#[test]
fn declared_gaps_are_accounted_for() {
    run(async {
        let zone = Zone::of(&[Kind::Row; 3], 3).await;
        let mut chain = Chain::new(Arc::clone(&zone.store), partition());
        chain.end_after(None).await.unwrap();
        let gap = BatchManifest {
            range: OffsetRange::new(3, 10).unwrap(),
            objects: vec![],
            absent: 0,
            gap: Some(GapReason::Expired),
            ..Chain::new(Arc::clone(&zone.store), partition()).read(0).await.unwrap().remove(0)
        };
        assert_eq!(chain.append(&gap).await.unwrap(), AppendOutcome::Appended);
        let mut position = Position::start();
        position.advance(&partition(), 10).unwrap();
        let mut account = Account::default();
        for manifest in chain.read(0).await.unwrap() {
            account.totals_mut(&partition()).add_batch(&manifest);
        }
        account.totals_mut(&partition()).rows = 3;
        let report = zone.report(&position, &account, 3).await;
        assert!(report.is_balanced(), "{report}");
        assert_eq!(report.partitions[0].gaps, 7);
    });
}

#[test]
fn the_deep_check_names_missing_duplicate_and_unexpected_offsets() {
    run(async {
        let zone = Zone::of(&[Kind::Row; 10], 4).await;
        let deep = zone.deep(vec![0, 1, 1, 2, 8, 9, 70], vec![3, 2]).await.unwrap();
        assert_eq!(
            deep.to_string(),
            "events/t/1[0]: 10 offsets in raw objects, 6 in rows, 2 in quarantine
  missing: 4 (4, 5, 6, …)
  duplicate: 2 (1, 2)
  unexpected: 1 (70)
NOT CLEAN"
        );
    });
}

#[test]
fn further_rows_of_a_record_are_there_once_and_without_gaps() {
    run(async {
        let zone = Zone::of(&[Kind::Row; 3], 3).await;
        let deep = async |rows: &[(Offset, u32)], exploded| {
            zone.deep_of_several(rows.to_vec(), vec![], exploded).await.unwrap()
        };
        let good = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)];
        let report = deep(&good, 3).await;
        assert!(report.is_clean() && report.to_string().contains("3 further rows of the same records"), "{report}");
        let cases = [
            (vec![(0, 0), (0, 1), (0, 1), (1, 0), (2, 0)], 1, "duplicate: 1 (0)"),
            (vec![(0, 0), (0, 2), (1, 0), (2, 0)], 1, "lacks an earlier row: 1 (0)"),
            (vec![(0, 0), (1, 0), (2, 0)], 1, "further rows of records: 0 in the table, 1 in the account"),
        ];
        for (rows, exploded, expected) in cases {
            let report = deep(&rows, exploded).await;
            assert!(!report.is_clean() && report.to_string().contains(expected), "{report}");
        }
    });
}

#[test]
fn a_corrupt_raw_object_stops_the_deep_check_with_its_name() {
    run(async {
        let body = |text: &str| Bytes::from(zstd::encode_all(text.as_bytes(), 1).unwrap());
        for (body, expected) in [(Bytes::from_static(b"junk"), "its hash is"), (body("{}\n"), "its hash is")] {
            let zone = Zone::of(&[Kind::Row, Kind::Row, Kind::Row, Kind::Reject], 4).await;
            // Of what landing took, and of what it refused.
            for key in [zone.keys[0].as_str(), "q0"] {
                let before = zone.store.get(key).await.unwrap();
                let _ = zone.store.put(key, body.clone(), PutMode::Overwrite).await.unwrap();
                let error = zone.deep(vec![0, 1, 2], vec![]).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Data);
                assert!(error.to_string().contains(key) && error.to_string().contains(expected), "{error}");
                let _ = zone.store.put(key, before, PutMode::Overwrite).await.unwrap();
            }
        }
    });
}

#[test]
fn an_object_that_is_not_what_its_manifest_says_is_corrupt() {
    let line = |offset| {
        let mut line = Vec::new();
        let record = Record { offset, timestamp: None, key: None, headers: [] };
        LineWriter::new(&topic().topic, Partition(0)).record(&mut line, record, None, Some(b"{}"));
        line
    };
    let cases = [
        (b"junk".to_vec(), "line 1: Unknown frame descriptor"),
        (zstd::encode_all(&[line(5), b"{\n".to_vec()].concat()[..], 1).unwrap(), "line 2: byte"),
        (zstd::encode_all(&[line(5), line(5)].concat()[..], 1).unwrap(), "line 2: offset 5 is outside"),
        (zstd::encode_all(&line(7)[..], 1).unwrap(), "line 1: offset 7 is outside"),
        (zstd::encode_all(&line(5)[..], 1).unwrap(), "1 records and 0 tombstones, the manifest says 2 and 0"),
    ];
    for (bytes, expected) in cases {
        let object = RawObject {
            key: "k".into(),
            event_hour: None,
            records: 2,
            tombstones: 0,
            bytes: bytes.len() as u64,
            raw_bytes: 0,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            min_offset: 5,
            max_offset: 6,
            min_event_time: None,
            max_event_time: None,
            erased: 0,
        };
        let error = super::objects::offsets(&object, &bytes, "file:///k", &|_| true).unwrap_err();
        let text = format!("{error}");
        assert!(text.starts_with("raw object file:///k is corrupt: ") && text.contains(expected), "{text}");
    }
}
