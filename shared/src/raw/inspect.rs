//! What landing needs to know of a payload: that it is one JSON value in UTF-8, its event's name and its event time.
//!
//! One validating pass finds all wanted values: the JSON deserialiser of sonic-rs is driven along the wanted paths, what
//! lies beside them is skipped, validated, at SIMD speed, and the record is never rebuilt. What the skipping leaves open
//! is closed before it: nesting (sonic-rs recurses without bound on values that it skips) and the digits of `\u`
//! escapes (it does not look at them). As in `serde_json`, the last of duplicate keys wins.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;

use crate::config::domain::{EventTime, JsonPath};
use crate::error::Result;
use crate::raw::manifest::RejectReason;
use crate::time::{TimeReader, is_plausible};

/// Arrays and objects may be nested this deep, as in `serde_json`.
pub const DEPTH_MAX: usize = 127;

/// Nesting that every thread's stack bears. Without optimisation a level costs sonic-rs tens of kilobytes of stack; such
/// builds, which only tests run, send deeper payloads to a thread of their own.
const SHALLOW: usize = if cfg!(debug_assertions) { 16 } else { DEPTH_MAX };

/// Reads payloads of one pipeline; made once, used for every record.
#[derive(Debug, Clone)]
pub struct Inspector {
    root: Node,
    named: bool,
    time: Option<TimeReader>,
}

/// What a payload said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected<'a> {
    /// The event's name: a text as it is, a number or a boolean as JSON writes it; `None` when the payload has none.
    pub event: Option<Cow<'a, str>>,
    /// The event time, microseconds since the epoch; `None` when it is to come from Kafka's timestamp.
    pub time: Option<i64>,
}

/// Why a payload is refused, and a detail for people, free of payload values.
pub type Refusal = (RejectReason, String);

/// Wanted keys of an object.
#[derive(Debug, Clone, Default)]
struct Node(Vec<Child>);

#[derive(Debug, Clone)]
struct Child {
    key: String,
    /// Where the value itself goes.
    slots: Vec<usize>,
    /// What is wanted inside it.
    node: Node,
}

const EVENT: usize = 0;
const TIME: usize = 1;
type Found<'a> = [Option<LazyValue<'a>>; 2];

impl Inspector {
    /// Reads names and times from these places.
    ///
    /// # Errors
    /// `Config` when the time format is a broken pattern.
    pub fn new(event_name: Option<&JsonPath>, event_time: &EventTime) -> Result<Self> {
        let mut root = Node::default();
        if let Some(path) = event_name {
            root.want(&path.0, EVENT);
        }
        let time = match event_time {
            EventTime::KafkaTimestamp => None,
            EventTime::Field { path, format } => {
                root.want(&path.0, TIME);
                Some(TimeReader::new(format)?)
            }
        };
        Ok(Self { root, named: event_name.is_some(), time })
    }

    /// Looks into one payload.
    ///
    /// # Errors
    /// The reason to quarantine the record.
    pub fn inspect<'a>(&self, payload: &'a [u8]) -> std::result::Result<Inspected<'a>, Refusal> {
        let text = simdutf8::basic::from_utf8(payload).map_err(|_| not_utf8(payload))?;
        check_escapes(payload)?;
        let found = if check_depth(payload)? <= SHALLOW { self.find(text) } else { self.find_on_a_large_stack(text) };
        let [event, time] =
            found.map_err(|e| (RejectReason::NotJson, format!("not one JSON value: broken at byte {}", e.offset())))?;
        Ok(Inspected {
            event: event.as_ref().filter(|_| self.named).map(name).transpose()?.flatten(),
            time: self.time.as_ref().map(|reader| event_time(reader, time)).transpose()?,
        })
    }
}

impl Inspector {
    /// The wanted values of a text that is one JSON value.
    fn find<'a>(&self, text: &'a str) -> sonic_rs::Result<Found<'a>> {
        let mut found: Found<'a> = [None, None];
        let mut parser = sonic_rs::Deserializer::from_str(text);
        Walk { node: &self.root, found: &mut found }.deserialize(&mut parser)?;
        parser.end()?;
        Ok(found)
    }

    #[cold]
    fn find_on_a_large_stack<'a>(&self, text: &'a str) -> sonic_rs::Result<Found<'a>> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, || self.find(text));
            thread.ok().and_then(|thread| thread.join().ok())
        })
        .unwrap_or_else(|| self.find(text))
    }
}

impl Node {
    fn want(&mut self, path: &[String], slot: usize) {
        let Some((key, rest)) = path.split_first() else { return };
        let at = self.0.iter().position(|child| child.key == *key).unwrap_or_else(|| {
            self.0.push(Child { key: key.clone(), slots: Vec::new(), node: Self::default() });
            self.0.len() - 1
        });
        if rest.is_empty() {
            self.0[at].slots.push(slot);
        } else {
            self.0[at].node.want(rest, slot);
        }
    }

    /// Forgets what an earlier duplicate of the key held.
    fn forget(&self, found: &mut Found<'_>) {
        for child in &self.0 {
            child.slots.iter().for_each(|&slot| found[slot] = None);
            child.node.forget(found);
        }
    }
}

/// Follows the wanted paths through one value.
struct Walk<'n, 'f, 'a> {
    node: &'n Node,
    found: &'f mut Found<'a>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        if self.node.0.is_empty() {
            return serde::Deserialize::deserialize(deserializer).map(|IgnoredAny| ());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<(), M::Error> {
        while let Some(at) = map.next_key_seed(KeyOf(self.node))? {
            let Some(child) = at.map(|at| &self.node.0[at]) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            child.node.forget(self.found);
            if child.slots.is_empty() {
                map.next_value_seed(Walk { node: &child.node, found: self.found })?;
                continue;
            }
            let value: LazyValue<'de> = map.next_value()?;
            if !child.node.0.is_empty() {
                // One path ends where another goes on: a second look at this value alone. It was valid a moment ago.
                // Only strings with escapes are owned, and nothing lies inside a string.
                if let Cow::Borrowed(raw) = value.as_raw_cow() {
                    let mut parser = sonic_rs::Deserializer::from_str(raw);
                    let walk = Walk { node: &child.node, found: self.found };
                    walk.deserialize(&mut parser).map_err(serde::de::Error::custom)?;
                }
            }
            for &slot in &child.slots {
                self.found[slot] = Some(value.clone());
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> std::result::Result<(), S::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_none<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
}

/// Which wanted key a key is.
struct KeyOf<'n>(&'n Node);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Option<usize>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    #[inline]
    fn visit_str<E>(self, key: &str) -> std::result::Result<Option<usize>, E> {
        Ok(self.0.0.iter().position(|child| child.key == key))
    }
}

/// The text of a captured string, without copying when nothing in it is escaped; `None` when it is no string.
fn text<'a>(value: &LazyValue<'a>) -> Option<std::result::Result<Cow<'a, str>, ()>> {
    let Cow::Borrowed(raw) = value.as_raw_cow() else {
        return Some(sonic_rs::from_str(value.as_raw_str()).map(Cow::Owned).map_err(drop));
    };
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    Some(if inner.contains('\\') {
        sonic_rs::from_str(raw).map(Cow::Owned).map_err(drop)
    } else {
        Ok(Cow::Borrowed(inner))
    })
}

fn name<'a>(value: &LazyValue<'a>) -> std::result::Result<Option<Cow<'a, str>>, Refusal> {
    let raw = value.as_raw_cow();
    match raw.as_bytes().first() {
        Some(b'n' | b'{' | b'[') => Ok(None),
        Some(b'"') => match text(value) {
            Some(Ok(name)) => Ok(Some(name)),
            _ => Err((RejectReason::NotJson, "the event's name has an escape that is no character".into())),
        },
        _ => Ok(Some(raw)),
    }
}

fn event_time(reader: &TimeReader, value: Option<LazyValue<'_>>) -> std::result::Result<i64, Refusal> {
    let missing = |detail: &str| (RejectReason::NoEventTime, detail.to_owned());
    let bad = |detail: &str| (RejectReason::BadEventTime, detail.to_owned());
    let value = value.ok_or_else(|| missing("the event time path leads nowhere"))?;
    let raw = value.as_raw_cow();
    let time = match raw.as_bytes().first() {
        Some(b'n') => return Err(missing("the event time is null")),
        Some(b'"') => text(&value).and_then(std::result::Result::ok).and_then(|text| reader.text(&text)),
        Some(b'-' | b'0'..=b'9') => reader.number(&raw),
        _ => return Err(bad("the event time is neither text nor number")),
    };
    match time {
        None => Err(bad("the event time is not of the configured format")),
        Some(time) if !is_plausible(time) => Err(bad("the event time lies outside the years 1970 to 9999")),
        Some(time) => Ok(time),
    }
}

#[cold]
fn not_utf8(payload: &[u8]) -> Refusal {
    let at = simdutf8::compat::from_utf8(payload).err().map_or(0, |e| e.valid_up_to());
    (RejectReason::NotUtf8, format!("not UTF-8 from byte {at} on"))
}

/// Every `\u` is followed by four hexadecimal digits.
fn check_escapes(payload: &[u8]) -> std::result::Result<(), Refusal> {
    let mut at = 0;
    while let Some(found) = payload.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        if payload.get(at + 1) == Some(&b'u') {
            let digits = payload.get(at + 2..at + 6);
            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                return Err((RejectReason::NotJson, format!("not one JSON value: broken escape at byte {at}")));
            }
        }
        at += 2;
    }
    Ok(())
}

/// No more than [`DEPTH_MAX`] arrays and objects inside each other; gives a bound of how many there are.
fn check_depth(payload: &[u8]) -> std::result::Result<usize, Refusal> {
    // Counting brackets is a fraction of the cost of following them, and nearly always says enough.
    let opening: usize = payload
        .chunks(255)
        .map(|chunk| usize::from(chunk.iter().map(|&b| u8::from(b | 0x20 == b'{')).sum::<u8>()))
        .sum();
    if opening <= SHALLOW {
        return Ok(opening);
    }
    let depth = depth(payload);
    if depth > DEPTH_MAX {
        return Err((RejectReason::NotJson, format!("nested deeper than {DEPTH_MAX} arrays and objects")));
    }
    Ok(depth)
}

/// The deepest nesting, brackets in strings not counted.
fn depth(payload: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0usize, 0, 0);
    while let Some(&byte) = payload.get(at) {
        match byte {
            b'"' => loop {
                at += 1;
                match payload.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                    None => return deepest,
                    Some(found) => at += found,
                }
                if payload[at] == b'"' {
                    break;
                }
                at += 1;
            },
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::config::domain::TimeFormat;

    fn path(text: &str) -> JsonPath {
        JsonPath(text.split('.').map(str::to_owned).collect())
    }

    fn inspector(name: &str, time: &str) -> Inspector {
        let time = EventTime::Field { path: path(time), format: TimeFormat::EpochMillis };
        Inspector::new(Some(&path(name)), &time).unwrap()
    }

    fn check(payload: &[u8], expected: std::result::Result<(Option<&str>, i64), RejectReason>) {
        let found = inspector("type", "at.ms").inspect(payload);
        let found = found.as_ref().map(|i| (i.event.as_deref(), i.time.unwrap())).map_err(|(reason, _)| *reason);
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(payload));
    }

    #[test]
    fn name_and_time_are_found_wherever_they_stand() {
        check(br#"{"type":"Push","at":{"ms":5}}"#, Ok((Some("Push"), 5000)));
        check(b" {\n\"at\" : {\"x\":[{}], \"ms\" : \"5\" } , \"z\":{}}\n", Ok((None, 5000)));
        check(br#"{"at":{"ms":5},"type":"P\u0075sh\n"}"#, Ok((Some("Push\n"), 5000)));
        check(br#"{"\u0061t":{"ms":5},"type":7}"#, Ok((Some("7"), 5000)));
        check(br#"{"at":{"ms":5},"type":null}"#, Ok((None, 5000)));
        check(br#"{"at":{"ms":5},"type":["a"]}"#, Ok((None, 5000)));
    }

    #[test]
    fn of_duplicate_keys_the_last_wins() {
        check(br#"{"type":"a","at":{"ms":1,"ms":2},"type":"b"}"#, Ok((Some("b"), 2000)));
        check(br#"{"at":{"ms":1},"at":{}}"#, Err(RejectReason::NoEventTime));
        check(br#"{"at":{"ms":1},"at":3}"#, Err(RejectReason::NoEventTime));
        check(br#"{"at":3,"at":{"ms":1},"type":"a","type":null}"#, Ok((None, 1000)));
    }

    #[test]
    fn every_refusal_has_its_reason() {
        use RejectReason::{BadEventTime, NoEventTime, NotJson, NotUtf8};
        for (payload, reason) in [
            (&b"\xff{}"[..], NotUtf8),
            (b"{\"a\":\"\xc3\"}", NotUtf8),
            (b"", NotJson),
            (b"  ", NotJson),
            (br#"{"at":{"ms":5}"#, NotJson),
            (br#"{"at":{"ms":5}}}"#, NotJson),
            (br#"{"at":{"ms":5}} {}"#, NotJson),
            (br#"{"at":{"ms":5},}"#, NotJson),
            (br#"{"at":{"ms":5},"x":NaN}"#, NotJson),
            (br#"{"at":{"ms":5},"x":01}"#, NotJson),
            (br#"{"at":{"ms":5},"x":"\u12"}"#, NotJson),
            (br#"{"at":{"ms":5},"x":"\u12"34"}"#, NotJson),
            (br#"{"at":{"ms":5},"x":"\q"}"#, NotJson),
            (b"{\"at\":{\"ms\":5},\"x\":\"\x01\"}", NotJson),
            (br#"{"at":{"ms":5},"type":"\ud800"}"#, NotJson),
            (b"\xef\xbb\xbf{}", NotJson),
            (b"{}", NoEventTime),
            (b"[1]", NoEventTime),
            (b"null", NoEventTime),
            (br#"{"at":5}"#, NoEventTime),
            (br#"{"at":{"ms":null}}"#, NoEventTime),
            (br#"{"at":{"ms":true}}"#, BadEventTime),
            (br#"{"at":{"ms":{}}}"#, BadEventTime),
            (br#"{"at":{"ms":"soon"}}"#, BadEventTime),
            (br#"{"at":{"ms":-1}}"#, BadEventTime),
            (br#"{"at":{"ms":253402300800000}}"#, BadEventTime),
        ] {
            check(payload, Err(reason));
        }
    }

    #[test]
    fn nesting_is_bounded_before_anything_recurses() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let any = Inspector::new(None, &EventTime::KafkaTimestamp).unwrap();
        assert!(any.inspect(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(any.inspect(nested(DEPTH_MAX + 1).as_bytes()).unwrap_err().0, RejectReason::NotJson);
        assert_eq!(any.inspect("[".repeat(3_000_000).as_bytes()).unwrap_err().0, RejectReason::NotJson);
        // Many brackets that are not deep, and brackets in strings.
        assert!(any.inspect(format!("[{}[]]", "[],".repeat(1000)).as_bytes()).is_ok());
        assert!(any.inspect(format!("[\"\\\"{}\"]", "[".repeat(1000)).as_bytes()).is_ok());
    }

    #[test]
    fn one_path_may_end_where_the_other_goes_on() {
        let time = EventTime::Field { path: path("a.b"), format: TimeFormat::EpochMillis };
        let both = Inspector::new(Some(&path("a.b")), &time).unwrap();
        let found = both.inspect(br#"{"a":{"b":7}}"#).unwrap();
        assert_eq!((found.event.as_deref(), found.time), (Some("7"), Some(7000)));
        let nested = Inspector::new(Some(&path("a")), &time).unwrap();
        let found = nested.inspect(br#"{"a":{"c":{},"b":7}}"#).unwrap();
        assert_eq!((found.event, found.time), (None, Some(7000)));
    }

    fn json() -> impl Strategy<Value = String> {
        let key = prop_oneof![Just("type"), Just("at"), Just("ms"), Just("\\u0061t"), Just("x"), Just("")];
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            (0..10_000u32).prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|n| n.to_string()),
            "[a-z0-9\u{1}é\\\\\"\n]{0,8}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        ];
        leaf.prop_recursive(4, 24, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
                proptest::collection::vec((key.clone(), inner), 0..5).prop_map(|fields| {
                    let fields: Vec<_> = fields.into_iter().map(|(k, v)| format!("\"{k}\" :{v}")).collect();
                    format!("{{{}}}", fields.join(", "))
                }),
            ]
        })
    }

    /// What `serde_json` says to the same question.
    fn model(payload: &[u8]) -> std::result::Result<(Option<String>, i64), RejectReason> {
        std::str::from_utf8(payload).map_err(|_| RejectReason::NotUtf8)?;
        let value: Value = serde_json::from_slice(payload).map_err(|_| RejectReason::NotJson)?;
        let time = match value.get("at").and_then(|at| at.get("ms")) {
            None | Some(Value::Null) => return Err(RejectReason::NoEventTime),
            Some(Value::Number(number)) => {
                number.to_string().parse::<f64>().ok().map(|ms| (ms * 1000.0).floor() as i64)
            }
            Some(Value::String(text)) => TimeReader::new(&TimeFormat::EpochMillis).unwrap().text(text),
            Some(_) => None,
        };
        let time = time.filter(|&micros| is_plausible(micros)).ok_or(RejectReason::BadEventTime)?;
        let name = match value.get("type") {
            None | Some(Value::Null | Value::Object(_) | Value::Array(_)) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        Ok((name, time))
    }

    proptest! {
        #[test]
        fn serde_json_sees_the_same(json in json(), cut in 0usize..200, junk: u8, change: bool) {
            let mut payload = json.into_bytes();
            if change && cut < payload.len() {
                payload[cut] = junk;
            }
            let found = inspector("type", "at.ms").inspect(&payload).map_err(|(reason, _)| reason);
            let text = String::from_utf8_lossy(&payload).into_owned();
            // A number of any size is JSON; serde_json wants one that a double holds.
            let beyond = |e: serde_json::Error| e.to_string().starts_with("number out of range");
            prop_assume!(!serde_json::from_slice::<Value>(&payload).is_err_and(beyond));
            match (found, model(&payload)) {
                (Ok(found), Ok((name, time))) => {
                    // Through a float, the model is exact to a microsecond only.
                    prop_assert!((found.time.unwrap() - time).abs() <= 1 + time / 1_000_000_000, "{}", text);
                    // Numbers keep their spelling as names; the model's is another.
                    let is_number = |name: &str| name.parse::<f64>().is_ok();
                    let same = found.event.as_deref() == name.as_deref()
                        || found.event.as_deref().is_some_and(is_number) && name.as_deref().is_some_and(is_number);
                    prop_assert!(same, "{} {:?} {:?}", text, found.event, name);
                }
                (found, model) => prop_assert_eq!(found.map(drop), model.map(drop), "{}", text),
            }
        }
    }
}
