//! Debezium's change events as JSON: what happened, the image of the row, and where in the source.
//!
//! ```text
//! {"before":…,"after":…,"source":{…},"op":"u","ts_ms":…}      an envelope; the image is `after`, of a delete `before`
//! {"schema":{…},"payload":{"before":…,…}}                     the same with its schema
//! {"id":1,…,"__deleted":"false","__source_ts_ms":…}           flattened (`ExtractNewRecordState`); the image is all of it
//! ```
//! Values are found, not read: the image goes to the decoder as it is. `MongoDB`'s images are objects as JSON text in a string.

use super::super::cursor::{Cursor, Raw};
use super::super::reject::{Fault, RejectKind, Rejected, kind_of};
use super::position::{Source, bare};
use super::{MESSAGE, Op};

/// The schema beside a payload.
#[derive(Debug, Default, Clone, Copy)]
pub(super) enum Schema<'a> {
    /// None.
    #[default]
    Absent,
    /// The one of the record before.
    Same,
    /// Another.
    Text(&'a str),
}

/// A record, found.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub schema: Schema<'a>,
    pub what: What<'a>,
}

/// What a record is.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the usual one, and a box for each record is dearer")]
pub(super) enum What<'a> {
    /// A change of a row.
    Change(Change<'a>),
    /// The source table was emptied.
    Truncation {
        /// Which, and where in the source.
        source: Source<'a>,
        /// Milliseconds since the epoch.
        time: Option<Raw<'a>>,
        /// Where the operation stands in the payload.
        at: &'static str,
    },
    /// Nothing for a table; counted under this reason.
    Skipped(&'static str),
}

/// A change of a row.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub op: Op,
    /// The row, and its path in the payload; `None` when the event has none.
    pub image: Option<Raw<'a>>,
    pub path: &'static str,
    /// Of an update the row before it, and its path, if the event has it.
    pub former: Option<(Raw<'a>, &'static str)>,
    /// Milliseconds since the epoch, from the source or else from the connector.
    pub time: Option<Raw<'a>>,
    /// `None` for a flattened record that says nothing of deletes: there they come as tombstones, which have no position,
    /// so that only Kafka's order can tell what came last.
    pub source: Option<Source<'a>>,
}

/// The fields of an object that an envelope or a flattened row may have.
#[derive(Debug, Default, Clone, Copy)]
struct Fields<'a> {
    before: Option<Raw<'a>>,
    after: Option<Raw<'a>>,
    source: Option<Raw<'a>>,
    op: Option<Raw<'a>>,
    ts_ms: Option<Raw<'a>>,
    flat_op: Option<Raw<'a>>,
    flat_deleted: Option<Raw<'a>>,
    /// `ts_ms` of a flattened record is a column of its row.
    flat_ts_ms: Option<Raw<'a>>,
    flat_source: Source<'a>,
}

/// Finds the parts of a payload; `last` is the text of the schema that the record before had.
pub(super) fn read<'a>(text: &'a str, last: Option<&str>) -> Result<Event<'a>, Rejected> {
    let whole = |fault: Fault| {
        let (reason, detail) = fault.into_parts();
        let reason = if reason == RejectKind::WrongType { RejectKind::NotObject } else { reason };
        Rejected::whole(reason, detail)
    };
    let (object, schema, fields, wrapped) = unwrap(text, last).map_err(whole)?;
    let what = if fields.is_envelope() { fields.envelope(wrapped) } else { fields.flat(object, wrapped) };
    Ok(Event { schema, what: what? })
}

/// The row image of a record's key, and its schema.
pub(super) fn read_key<'a>(text: &'a str, last: Option<&str>) -> Option<(Schema<'a>, Raw<'a>)> {
    let (object, schema, _, _) = unwrap(text, last).ok()?;
    Some((schema, object))
}

type Unwrapped<'a> = (Raw<'a>, Schema<'a>, Fields<'a>, bool);

/// The object inside `{"schema":…,"payload":…}`, or the whole; its fields; and whether it was wrapped.
fn unwrap<'a>(text: &'a str, last: Option<&str>) -> Result<Unwrapped<'a>, Fault> {
    let mut cursor = Cursor::new(text);
    let start = cursor.open()?;
    let (mut own, mut schema, mut payload) = (Fields::default(), Schema::Absent, None);
    if !cursor.eat(b'}')? {
        loop {
            let key = cursor.any_key()?;
            match key.text {
                "\"schema\"" => {
                    schema = Schema::Absent;
                    if last.is_some_and(|last| cursor.eat_text(last)) {
                        schema = Schema::Same;
                    } else {
                        let value = cursor.raw()?;
                        if value.text.starts_with('{') {
                            schema = Schema::Text(value.text);
                        } else if !value.is_null() {
                            // A column that happens to have this name.
                            payload = None;
                        }
                    }
                }
                "\"payload\"" if cursor.peek()? == b'{' => {
                    let mut fields = Fields::default();
                    let from = cursor.open()?;
                    object(&mut cursor, &mut fields)?;
                    payload = Some((cursor.since(from), fields));
                }
                _ => own.take(key, cursor.raw()?),
            }
            if !cursor.more(b'}')? {
                break;
            }
        }
    }
    let whole = cursor.since(start);
    cursor.end()?;
    Ok(match payload {
        Some((object, fields)) if !own.is_envelope() && is_wrapper(schema, &fields, text) => {
            (object, schema, fields, true)
        }
        _ => (whole, Schema::Absent, own, false),
    })
}

/// Whether an object with a field `payload` is Kafka Connect's wrapper, not a row with such a column.
fn is_wrapper(schema: Schema<'_>, fields: &Fields<'_>, text: &str) -> bool {
    match schema {
        Schema::Same => true,
        Schema::Text(schema) => schema.contains("\"type\""),
        Schema::Absent => fields.is_envelope() || text.contains("\"schema\":null"),
    }
}

/// The fields of an object whose brace was taken.
fn object<'a>(cursor: &mut Cursor<'a>, fields: &mut Fields<'a>) -> Result<(), Fault> {
    if cursor.eat(b'}')? {
        return Ok(());
    }
    loop {
        let key = cursor.any_key()?;
        fields.take(key, cursor.raw()?);
        if !cursor.more(b'}')? {
            return Ok(());
        }
    }
}

impl<'a> Fields<'a> {
    #[inline]
    fn take(&mut self, key: Raw<'_>, value: Raw<'a>) {
        match key.text {
            "\"before\"" => self.before = Some(value),
            "\"after\"" => self.after = Some(value),
            "\"source\"" => self.source = Some(value),
            "\"op\"" => self.op = Some(value),
            "\"ts_ms\"" => self.ts_ms = Some(value),
            text if text.starts_with("\"__") => self.take_flat(bare(key), value),
            _ => {}
        }
    }

    /// `__op`, `__deleted`, and `__source_lsn` or `__lsn`, as `add.fields` may name it.
    fn take_flat(&mut self, name: &str, value: Raw<'a>) {
        match name {
            "__op" => self.flat_op = Some(value),
            "__deleted" => self.flat_deleted = Some(value),
            "__ts_ms" => self.flat_ts_ms = Some(value),
            _ => {
                let name = name.strip_prefix("__source_").or_else(|| name.strip_prefix("__"));
                self.flat_source.set(name.unwrap_or_default(), value);
            }
        }
    }

    /// Two of operation, image and source, each of its kind: a row that looks like this is none.
    fn is_envelope(&self) -> bool {
        let starts = |value: Option<Raw<'_>>, with: &[u8]| value.is_some_and(|v| with.contains(&v.text.as_bytes()[0]));
        let image = starts(self.before, b"{n") || starts(self.after, b"{n");
        let source = starts(self.source, b"{");
        (source && (image || self.op.is_some())) || (starts(self.op, b"\"") && image)
    }

    fn envelope(&self, wrapped: bool) -> Result<What<'a>, Rejected> {
        let at = |key: &str| format!("{}.{key}", if wrapped { "$.payload" } else { "$" });
        let op = match self.op.map(|op| op.text) {
            Some("\"c\"") => Op::Create,
            Some("\"r\"") => Op::Read,
            Some("\"u\"") => Op::Update,
            Some("\"d\"") => Op::Delete,
            Some("\"t\"") => Op::Truncate,
            Some("\"m\"") => return Ok(What::Skipped(MESSAGE)),
            None | Some("null") => {
                let detail = "the operation is missing".to_owned();
                return Err(Rejected { path: at("op"), reason: RejectKind::Missing, detail });
            }
            Some(other) => {
                let detail = format!("expected c, r, u, d, t or m, found other {}", kind_of(other));
                return Err(Rejected { path: at("op"), reason: RejectKind::BadFormat, detail });
            }
        };
        let mut source = Source::default();
        if let Some(raw) = self.source.filter(|raw| !raw.is_null()) {
            fill(&mut source, raw).map_err(|fault| {
                let (reason, detail) = fault.into_parts();
                Rejected { path: at("source"), reason, detail }
            })?;
        }
        let time = source.ts_ms.or(self.ts_ms);
        let (image, path) = match (op, wrapped) {
            (Op::Truncate, _) => {
                return Ok(What::Truncation { source, time, at: if wrapped { "$.payload.op" } else { "$.op" } });
            }
            (Op::Delete, true) => (self.before, "$.payload.before"),
            (Op::Delete, false) => (self.before, "$.before"),
            (_, true) => (self.after, "$.payload.after"),
            (_, false) => (self.after, "$.after"),
        };
        let image = image.filter(|image| !image.is_null());
        let former = self.before.filter(|before| op == Op::Update && before.text.starts_with('{'));
        let former = former.map(|before| (before, if wrapped { "$.payload.before" } else { "$.before" }));
        Ok(What::Change(Change { op, image, path, former, time, source: Some(source) }))
    }

    fn flat(&self, object: Raw<'a>, wrapped: bool) -> Result<What<'a>, Rejected> {
        let path = if wrapped { "$.payload" } else { "$" };
        let deleted = match self.flat_deleted.map(|raw| raw.text) {
            Some("\"true\"" | "true") => true,
            Some("\"false\"" | "false" | "null") | None => false,
            Some(other) => {
                let detail = format!("expected true or false, found other {}", kind_of(other));
                return Err(Rejected { path: format!("{path}.__deleted"), reason: RejectKind::BadFormat, detail });
            }
        };
        let op = match self.flat_op.map(|raw| raw.text) {
            _ if deleted => Op::Delete,
            Some("\"d\"") => Op::Delete,
            Some("\"c\"") => Op::Create,
            Some("\"r\"") => Op::Read,
            Some("\"t\"") => {
                let (source, time) = (self.flat_source, self.flat_source.ts_ms.or(self.flat_ts_ms));
                return Ok(What::Truncation { source, time, at: if wrapped { "$.payload.__op" } else { "$.__op" } });
            }
            // Without the field nobody knows; the row is what it is now.
            _ => Op::Update,
        };
        let source = (self.flat_deleted.is_some() || op == Op::Delete).then_some(self.flat_source);
        let time = self.flat_source.ts_ms.or(self.flat_ts_ms);
        Ok(What::Change(Change { op, image: Some(object), path, former: None, time, source }))
    }
}

fn fill<'a>(source: &mut Source<'a>, raw: Raw<'a>) -> Result<(), Fault> {
    let mut cursor = Cursor::new(raw.text);
    cursor.open()?;
    if cursor.eat(b'}')? {
        return Ok(());
    }
    loop {
        let key = cursor.any_key()?;
        source.set(bare(key), cursor.raw()?);
        if !cursor.more(b'}')? {
            return Ok(());
        }
    }
}

/// The text of a member of an object, the first of this name.
pub(super) fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut cursor = Cursor::new(object);
    cursor.open().ok()?;
    if cursor.eat(b'}').ok()? {
        return None;
    }
    loop {
        let (key, value) = (cursor.any_key().ok()?, cursor.raw().ok()?);
        if bare(key) == name {
            return Some(value.text);
        }
        if !cursor.more(b'}').ok()? {
            return None;
        }
    }
}
