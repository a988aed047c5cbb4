//! Which records pass, and to which hour: the whitelist, the event time, lateness. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::config::domain::{Ingestion, LateThen};
use crate::error::Result;
use crate::ids::EventHour;
use crate::raw::envelope::{line_bytes, line_bytes_max};
use crate::raw::inspect::Inspector;
use crate::raw::manifest::RejectReason;
use crate::time::is_plausible;
use chrono::{DateTime, TimeDelta, Utc};

/// The most that a record may grow as a line, for those that are not small.
const SWELL: u64 = 16;

/// What a pipeline asks of a record.
#[derive(Debug)]
pub struct Admission {
    inspector: Inspector,
    whitelist: Option<BTreeSet<String>>,
    refuse_later_than: Option<TimeDelta>,
    bytes_max: u64,
}

/// What the rules look at in a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Its payload; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Kafka's timestamp in milliseconds.
    pub timestamp: Option<i64>,
    /// Bytes of its key, and of names and values of its headers.
    pub beside: u64,
    /// What is wrong with its headers.
    pub flaw: Option<&'a str>,
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It goes to the object of its hour.
    Admitted {
        /// Its event's name.
        event: Option<Cow<'a, str>>,
        /// Its event time.
        time: DateTime<Utc>,
        /// The hour that holds it.
        hour: EventHour,
    },
    /// It goes to quarantine.
    Refused {
        /// Why.
        reason: RejectReason,
        /// What exactly, without bytes of the payload.
        detail: String,
        /// Its event time, when it has one.
        time: Option<DateTime<Utc>>,
    },
}

impl Admission {
    /// The rules of a pipeline.
    ///
    /// # Errors
    /// `Config` when the event time's format is a broken pattern.
    pub fn of(ingestion: &Ingestion) -> Result<Self> {
        Ok(Self {
            inspector: Inspector::new(ingestion.event_name.as_ref(), &ingestion.event_time)?,
            whitelist: ingestion.whitelist.as_ref().map(|list| list.keys().cloned().collect()),
            refuse_later_than: (ingestion.late_then == LateThen::Quarantine)
                .then(|| TimeDelta::from_std(ingestion.late_allowed).unwrap_or(TimeDelta::MAX)),
            bytes_max: ingestion.max_record_bytes,
        })
    }

    /// Judges one record without key and headers: its payload (`None` is a tombstone), Kafka's timestamp in milliseconds,
    /// and the largest event time its partition has seen before it.
    pub fn judge<'a>(
        &self,
        payload: Option<&'a [u8]>,
        timestamp: Option<i64>,
        watermark: Option<DateTime<Utc>>,
    ) -> Verdict<'a> {
        self.judge_whole(Facts { payload, timestamp, ..Facts::default() }, watermark)
    }

    /// Judges one record, given the largest event time its partition has seen before it.
    pub fn judge_whole<'a>(&self, facts: Facts<'a>, watermark: Option<DateTime<Utc>>) -> Verdict<'a> {
        let Facts { payload, timestamp, beside, flaw } = facts;
        let refused = |reason, detail: String, time| Verdict::Refused { reason, detail, time };
        // A line holds key and headers too, so they count: readers of lines have a bound as well.
        let bytes = payload.map_or(0, <[u8]>::len) as u64 + beside;
        if bytes > self.bytes_max {
            let detail = format!("{bytes} bytes with key and headers, {} are allowed", self.bytes_max);
            return refused(RejectReason::TooLarge, detail, None);
        }
        // Written out, a few bytes may become many. Most records are far from where that matters.
        let line_max = line_bytes_max(self.bytes_max);
        if bytes > line_max / SWELL {
            let line = line_bytes(payload.unwrap_or_default(), beside);
            if line > line_max {
                let detail = format!("written as a line it may take {line} bytes, {line_max} are allowed");
                return refused(RejectReason::TooLarge, detail, None);
            }
        }
        if let Some(flaw) = flaw {
            return refused(RejectReason::BadHeader, flaw.to_owned(), None);
        }
        let Some(payload) = payload else {
            // A tombstone has no payload to look into; it belongs to the hour it was written in.
            return match kafka_time(timestamp) {
                Ok(time) => Verdict::Admitted { event: None, time, hour: EventHour::of(time) },
                Err((reason, detail)) => refused(reason, format!("a tombstone: {detail}"), None),
            };
        };
        let seen = match self.inspector.inspect(payload) {
            Ok(seen) => seen,
            Err((reason, detail)) => return refused(reason, detail, None),
        };
        let time = match seen.time.and_then(DateTime::from_timestamp_micros).map_or_else(|| kafka_time(timestamp), Ok) {
            Ok(time) => time,
            Err((reason, detail)) => return refused(reason, detail, None),
        };
        let event = seen.event;
        if let Some(whitelist) = &self.whitelist {
            let listed = event.as_deref().is_some_and(|name| whitelist.contains(name));
            if !listed {
                let detail = event.map_or_else(|| "no event name".to_owned(), |name| format!("event `{name}`"));
                return refused(RejectReason::NotWhitelisted, detail, Some(time));
            }
        }
        let hour = EventHour::of(time);
        if let (Some(allowed), Some(watermark)) = (self.refuse_later_than, watermark)
            && hour.end().checked_add_signed(allowed).is_some_and(|sealed| sealed <= watermark)
        {
            let detail = format!("hour {hour} was complete at watermark {watermark}");
            return refused(RejectReason::TooLate, detail, Some(time));
        }
        Verdict::Admitted { event, time, hour }
    }
}

/// Kafka's timestamp as an event time: a producer may write any number, and one that is not in milliseconds has no hour
/// here either.
fn kafka_time(timestamp: Option<i64>) -> std::result::Result<DateTime<Utc>, (RejectReason, String)> {
    let Some(millis) = timestamp else {
        return Err((RejectReason::NoEventTime, "the record has no Kafka timestamp".to_owned()));
    };
    let micros = millis.checked_mul(1000).filter(|&micros| is_plausible(micros));
    micros.and_then(DateTime::from_timestamp_micros).ok_or_else(|| {
        (RejectReason::BadEventTime, format!("the Kafka timestamp, {millis} ms, lies outside the years 1970 to 9999"))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::domain::{EventTime, JsonPath, TimeFormat, TopicSelector, WhitelistEntry};
    use crate::ids::{ClusterName, Generations, Partition, Topic};
    use crate::raw::envelope::{LineWriter, Record};

    use super::*;

    fn rules(change: impl FnOnce(&mut Ingestion)) -> Admission {
        let path = |key: &str| JsonPath(vec![key.to_owned()]);
        let mut ingestion = Ingestion {
            cluster: ClusterName::new("c").unwrap(),
            topics: TopicSelector::List(Vec::new()),
            retention: None,
            consumers: 1,
            generation: Generations::default(),
            format: crate::config::domain::PayloadFormat::Json,
            event_name: Some(path("type")),
            event_time: EventTime::Field { path: path("at"), format: TimeFormat::EpochSeconds },
            whitelist: None,
            late_allowed: Duration::from_hours(1),
            late_then: LateThen::Accept,
            max_record_bytes: 40,
            rotate_size: 1,
            rotate_age: Duration::from_secs(1),
            protect_at_landing: false,
        };
        change(&mut ingestion);
        Admission::of(&ingestion).unwrap()
    }

    /// The hour of an admitted record, or why it was refused.
    fn verdict(
        rules: &Admission,
        payload: Option<&str>,
        timestamp: Option<i64>,
        watermark: Option<i64>,
    ) -> Result<i64, RejectReason> {
        let watermark = watermark.and_then(|at| DateTime::from_timestamp(at, 0));
        match rules.judge(payload.map(str::as_bytes), timestamp, watermark) {
            Verdict::Admitted { hour, .. } => Ok(hour.epoch_hours()),
            Verdict::Refused { reason, .. } => Err(reason),
        }
    }

    #[test]
    fn each_rule_refuses_with_its_reason() {
        let open = rules(|_| ());
        assert_eq!(verdict(&open, Some(r#"{"at":7200}"#), None, None), Ok(2));
        assert_eq!(verdict(&open, Some(r#"{"at":7200"#), None, None), Err(RejectReason::NotJson));
        assert_eq!(verdict(&open, Some("{}"), Some(5), None), Err(RejectReason::NoEventTime));
        let large = format!(r#"{{"at":1,"x":"{}"}}"#, "y".repeat(40));
        assert_eq!(verdict(&open, Some(&large), None, None), Err(RejectReason::TooLarge));

        let listed = rules(|i| i.whitelist = Some([("A".to_owned(), WhitelistEntry::default())].into()));
        assert_eq!(verdict(&listed, Some(r#"{"at":0,"type":"A"}"#), None, None), Ok(0));
        assert_eq!(verdict(&listed, Some(r#"{"at":0,"type":"B"}"#), None, None), Err(RejectReason::NotWhitelisted));
        assert_eq!(verdict(&listed, Some(r#"{"at":0}"#), None, None), Err(RejectReason::NotWhitelisted));
    }

    #[test]
    fn key_and_headers_count_and_must_be_writable() {
        let open = rules(|_| ());
        let reason = |payload: Option<&'static str>, beside, flaw| {
            let facts = Facts { payload: payload.map(str::as_bytes), timestamp: Some(0), beside, flaw };
            match open.judge_whole(facts, None) {
                Verdict::Admitted { .. } => None,
                Verdict::Refused { reason, .. } => Some(reason),
            }
        };
        let payload = Some(r#"{"at":1}"#);
        assert_eq!(reason(payload, 32, None), None);
        assert_eq!(reason(payload, 33, None), Some(RejectReason::TooLarge));
        assert_eq!(reason(None, 40, None), None);
        assert_eq!(reason(None, 41, None), Some(RejectReason::TooLarge));
        assert_eq!(reason(payload, 0, Some("a name")), Some(RejectReason::BadHeader));
        assert_eq!(reason(None, 0, Some("a name")), Some(RejectReason::BadHeader));
    }

    #[test]
    fn the_line_of_an_admitted_record_is_no_longer_than_readers_take() {
        let open = rules(|i| {
            i.max_record_bytes = 1 << 20;
            i.event_time = EventTime::KafkaTimestamp;
            i.event_name = None;
        });
        let writer = LineWriter::new(&Topic::new("t".repeat(249)).unwrap(), Partition(u32::MAX));
        let mut admitted = Vec::new();
        for bytes in [1_000, 250_000, 500_000, 1_000_000] {
            let (blanks, feeds) = (" ".repeat(bytes), "\n".repeat(bytes));
            for (payload, key) in [(Some(blanks), ""), (Some(feeds), ""), (None, "\u{1}"), (None, "k")] {
                let payload = payload.map(|text| text + "1");
                let payload = payload.as_deref().map(str::as_bytes);
                let key = key.repeat(bytes).into_bytes();
                let timestamp = Some(0);
                let facts = Facts { payload, timestamp, beside: key.len() as u64, flaw: None };
                let fits = matches!(open.judge_whole(facts, None), Verdict::Admitted { .. });
                admitted.push(fits);
                let mut line = Vec::new();
                let headers: [(&str, Option<&[u8]>); 0] = [];
                writer.record(
                    &mut line,
                    Record { offset: u64::MAX, timestamp, key: Some(&key), headers },
                    None,
                    payload,
                );
                assert!(!fits || line.len() as u64 <= line_bytes_max(1 << 20), "{} of {bytes}", line.len());
            }
        }
        let all = [true; 4];
        let but_line_feeds = [true, false, true, true];
        assert_eq!(admitted, [all, all, but_line_feeds, but_line_feeds].concat());
    }

    #[test]
    fn change_events_are_sorted_by_their_envelope() {
        let keys = |keys: &[&str]| JsonPath(keys.iter().map(ToString::to_string).collect());
        let changes = rules(|i| {
            i.event_name = Some(keys(&["payload", "source", "table"]));
            i.event_time = EventTime::Field { path: keys(&["payload", "ts_ms"]), format: TimeFormat::EpochMillis };
            i.whitelist = Some([("customers".to_owned(), WhitelistEntry::default())].into());
            i.max_record_bytes = 1 << 20;
        });
        let event = |table: &str| {
            let payload = format!(r#"{{"source":{{"table":"{table}"}},"op":"d","ts_ms":7200001}}"#);
            format!(r#"{{"schema":{{"type":"struct"}},"payload":{payload}}}"#)
        };
        assert_eq!(verdict(&changes, Some(&event("customers")), None, None), Ok(2));
        assert_eq!(verdict(&changes, Some(&event("orders")), None, None), Err(RejectReason::NotWhitelisted));
        // The tombstone behind a delete has no name and passes all the same.
        assert_eq!(verdict(&changes, None, Some(7_200_001), None), Ok(2));
    }

    #[test]
    fn tombstones_and_kafka_times_go_by_the_record_timestamp() {
        let open = rules(|i| i.event_time = EventTime::KafkaTimestamp);
        assert_eq!(verdict(&open, Some("1"), Some(7_200_000), None), Ok(2));
        assert_eq!(verdict(&open, Some("1"), None, None), Err(RejectReason::NoEventTime));
        assert_eq!(verdict(&open, None, Some(7_200_000), None), Ok(2));
        assert_eq!(verdict(&open, None, None, None), Err(RejectReason::NoEventTime));
    }

    #[test]
    fn a_kafka_timestamp_outside_the_years_of_hours_is_refused() {
        let open = rules(|i| i.event_time = EventTime::KafkaTimestamp);
        let (first, last) = (0, 253_402_300_799_999);
        // The others are microseconds, nanoseconds and a year before there were hours.
        for (millis, expected) in [
            (first, Ok(0)),
            (last, Ok(70_389_527)),
            (last + 1, Err(RejectReason::BadEventTime)),
            (1_700_000_000_000_000, Err(RejectReason::BadEventTime)),
            (i64::MAX, Err(RejectReason::BadEventTime)),
            (-1, Err(RejectReason::BadEventTime)),
        ] {
            assert_eq!(verdict(&open, None, Some(millis), None), expected, "a tombstone at {millis}");
            assert_eq!(verdict(&open, Some("1"), Some(millis), None), expected, "a record at {millis}");
        }
        // Where the payload has the time, Kafka's is nobody's concern.
        let open = rules(|_| ());
        assert_eq!(verdict(&open, Some(r#"{"at":7200}"#), Some(i64::MAX), None), Ok(2));
    }

    #[test]
    fn a_record_is_late_once_its_hour_is_complete_and_only_where_that_matters() {
        let strict = rules(|i| i.late_then = LateThen::Quarantine);
        let event = Some(r#"{"at":10}"#);
        // Hour 0 ends at 3600 and waits an hour.
        assert_eq!(verdict(&strict, event, None, None), Ok(0));
        assert_eq!(verdict(&strict, event, None, Some(7199)), Ok(0));
        assert_eq!(verdict(&strict, event, None, Some(7200)), Err(RejectReason::TooLate));
        assert_eq!(verdict(&rules(|_| ()), event, None, Some(1_000_000)), Ok(0));
    }
}
