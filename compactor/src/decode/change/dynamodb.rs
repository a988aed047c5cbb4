//! Records of DynamoDB Streams as JSON, the way Lambda, Kinesis and Kafka Connect hand them on.
//!
//! ```text
//! {"eventName":"MODIFY","dynamodb":{"Keys":{…},"NewImage":{…},"OldImage":{…},"SequenceNumber":"111","ApproximateCreationDateTime":…}}
//! ```
//! Images are typed JSON (`{"id":{"N":"1"}}`), which [`super::typed`] reads.

use super::super::cursor::{Cursor, Raw};
use super::super::number;
use super::super::reject::{Fault, RejectKind, Rejected, kind_of};
use super::Op;
use super::position::{bare, pad};

/// A record, found.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub op: Op,
    /// The row and its path; of a delete the old one.
    pub image: Option<(Raw<'a>, &'static str)>,
    /// Of a modification the row before it, and its path.
    pub former: Option<(Raw<'a>, &'static str)>,
    /// The key of the row.
    pub keys: Option<(Raw<'a>, &'static str)>,
    /// Microseconds since the epoch.
    pub micros: Option<i64>,
    sequence: Option<Raw<'a>>,
}

impl Event<'_> {
    /// Appends the position: the sequence number, which has up to 40 digits; streams through Kinesis have the time only.
    pub fn write_position(&self, out: &mut Vec<u8>) {
        match self.sequence {
            Some(sequence) => pad(bare(sequence), 40, out),
            None => pad(&self.micros.unwrap_or_default().to_string(), 20, out),
        }
    }
}

#[derive(Debug, Default)]
struct Fields<'a> {
    name: Option<Raw<'a>>,
    keys: Option<Raw<'a>>,
    new: Option<Raw<'a>>,
    old: Option<Raw<'a>>,
    sequence: Option<Raw<'a>>,
    time: Option<Raw<'a>>,
}

/// Finds the parts of a payload.
pub(super) fn read(text: &str) -> Result<Event<'_>, Rejected> {
    let fields = fields(text).map_err(|fault| {
        let (reason, detail) = fault.into_parts();
        match reason {
            RejectKind::WrongType if detail.contains("`dynamodb`") => {
                Rejected { path: "$.dynamodb".to_owned(), reason, detail }
            }
            RejectKind::WrongType => Rejected::whole(RejectKind::NotObject, detail),
            _ => Rejected::whole(reason, detail),
        }
    })?;
    let at_name = |reason, detail: String| Rejected { path: "$.eventName".to_owned(), reason, detail };
    let op = match fields.name.map(|name| name.text) {
        Some("\"INSERT\"") => Op::Create,
        Some("\"MODIFY\"") => Op::Update,
        Some("\"REMOVE\"") => Op::Delete,
        None | Some("null") => return Err(at_name(RejectKind::Missing, "the operation is missing".to_owned())),
        Some(other) => {
            let detail = format!("expected INSERT, MODIFY or REMOVE, found other {}", kind_of(other));
            return Err(at_name(RejectKind::BadFormat, detail));
        }
    };
    let given = |raw: Option<Raw<'_>>| raw.is_some_and(|raw| !raw.is_null());
    let sequence = fields.sequence.filter(|_| given(fields.sequence));
    if sequence.is_some_and(|raw| bare(raw).is_empty() || !bare(raw).bytes().all(|b| b.is_ascii_digit())) {
        let (path, detail) = ("$.dynamodb.SequenceNumber".to_owned(), "expected digits, found other text".to_owned());
        return Err(Rejected { path, reason: RejectKind::BadFormat, detail });
    }
    let image = match op {
        Op::Delete => fields.old.map(|raw| (raw, "$.dynamodb.OldImage")),
        _ => fields.new.map(|raw| (raw, "$.dynamodb.NewImage")),
    };
    let former = fields.old.filter(|old| op == Op::Update && !old.is_null());
    Ok(Event {
        op,
        former: former.map(|raw| (raw, "$.dynamodb.OldImage")),
        image: image.filter(|(raw, _)| !raw.is_null()),
        keys: fields.keys.filter(|raw| !raw.is_null()).map(|raw| (raw, "$.dynamodb.Keys")),
        micros: fields.time.and_then(micros),
        sequence,
    })
}

fn fields(text: &str) -> Result<Fields<'_>, Fault> {
    let mut cursor = Cursor::new(text);
    let mut fields = Fields::default();
    cursor.open()?;
    if !cursor.eat(b'}')? {
        loop {
            match cursor.any_key()?.text {
                "\"eventName\"" => fields.name = Some(cursor.raw()?),
                "\"dynamodb\"" => {
                    if cursor.peek()? != b'{' {
                        let found = kind_of(cursor.raw()?.text);
                        return Err(Fault::wrong_type("an object in `dynamodb`", found));
                    }
                    inner(&mut cursor, &mut fields)?;
                }
                _ => drop(cursor.raw()?),
            }
            if !cursor.more(b'}')? {
                break;
            }
        }
    }
    cursor.end()?;
    Ok(fields)
}

fn inner<'a>(cursor: &mut Cursor<'a>, fields: &mut Fields<'a>) -> Result<(), Fault> {
    cursor.open()?;
    if cursor.eat(b'}')? {
        return Ok(());
    }
    loop {
        let slot = match cursor.any_key()?.text {
            "\"Keys\"" => Some(&mut fields.keys),
            "\"NewImage\"" => Some(&mut fields.new),
            "\"OldImage\"" => Some(&mut fields.old),
            "\"SequenceNumber\"" => Some(&mut fields.sequence),
            "\"ApproximateCreationDateTime\"" => Some(&mut fields.time),
            _ => None,
        };
        let value = cursor.raw()?;
        if let Some(slot) = slot {
            *slot = Some(value);
        }
        if !cursor.more(b'}')? {
            return Ok(());
        }
    }
}

/// Streams give seconds, Kinesis milliseconds or microseconds; a date after 1973 has one reading only.
fn micros(raw: Raw<'_>) -> Option<i64> {
    let micros = number::scaled_down(bare(raw).as_bytes(), 6).ok()?;
    let micros = match micros.unsigned_abs() {
        0..100_000_000_000_000_000 => micros,
        100_000_000_000_000_000..100_000_000_000_000_000_000 => micros / 1_000,
        _ => micros / 1_000_000,
    };
    i64::try_from(micros).ok()
}
