//! Change events: a payload that says what happened to a row, and the row, to a row that says what it does.
//!
//! [`debezium`] and [`dynamodb`] find the parts of a payload without reading them; the image of the row, a slice of the
//! payload, goes to the decoder as any payload does, so column paths begin at the image. [`typed`] is the decoder's way
//! through DynamoDB's typed JSON, [`schema`] what a Kafka Connect schema says of the columns, [`position`] where in its
//! source a change happened.
//!
//! - A row that deletes needs the columns named by [`Changes::new`] only; what else is required may be null in it.
//! - When the old image lacks them (Postgres sends it only with `REPLICA IDENTITY FULL`), the record's key is the image.
//! - A truncate has no row: it is a row of nulls where every change is one, else a [`Truncation`] of what came before it.
//! - A tombstone of Debezium deletes its key, which has no position and so is older than any row that has one: after the
//!   `d` of an envelope it changes nothing, and of flattened records, which have no position either, it is the delete.
//! - An update that gives the row another key is two rows: one that deletes the former key, and the row as it is now.
//! - `MongoDB` sends documents as text, which is parsed as a payload of its own; a key is `{"id": text}` there, and stands for
//!   a document with that `_id`.

mod debezium;
mod dynamodb;
mod position;
mod schema;
mod typed;

use std::borrow::Cow;

use arrow_array::StringArray;
use arrow_buffer::NullBufferBuilder;
use firn_shared::config::domain::{Column, PayloadFormat};
use memchr::memmem::Finder;

use self::debezium::{Change, Schema, What};
use self::position::Source;
use self::schema::Schemas;
use super::cursor::Raw;
use super::reject::{RejectKind, Rejected};
use super::{Decoder, check, number};

/// The reason under which logical decoding messages are counted as filtered.
pub const MESSAGE: &str = "message";

/// What Debezium sends for a value that the database did not log: unchanged, and too large to be in the row (TOAST).
const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The same in a column of bytes.
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

/// What a change did to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Made it.
    Create,
    /// Found it there (snapshot).
    Read,
    /// Gave it other values.
    Update,
    /// Removed it.
    Delete,
    /// Removed it, said by a tombstone, which is no row of its own in any account.
    Tombstone,
    /// Removed it under this key: it goes on under another, in a row that follows.
    Moved,
    /// Removed all rows of its table.
    Truncate,
}

impl Op {
    /// The letter that Debezium uses.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Read => "r",
            Self::Update => "u",
            Self::Delete | Self::Tombstone | Self::Moved => "d",
            Self::Truncate => "t",
        }
    }

    /// Whether the row is gone.
    #[must_use]
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::Tombstone | Self::Moved)
    }

    /// Whether the record has its place in an account apart from this row.
    #[must_use]
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Tombstone | Self::Moved)
    }
}

/// What a table makes of the events that say that a source table was emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncates {
    /// A row of nulls each: the table keeps every change.
    AsRows,
    /// All rows go that came before.
    CarriedOut,
    /// Nothing: its rows are not ordered by their position in the source, and a truncate has no other order.
    Refused,
}

/// A source table was emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncation {
    /// Which: `database.schema.table`, as [`Places::sources`] has it.
    pub source: String,
    /// Where in the source, as [`Places::versions`] has it.
    pub version: String,
    /// When, microseconds since the epoch.
    pub micros: Option<i64>,
}

/// What became of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The decoder has one row more.
    Row,
    /// It has two more: the first takes away the key that the second had.
    Moved,
    /// It is about all rows that came before it.
    Truncation(Truncation),
    /// It is nothing for a table; the reason.
    Skipped(&'static str),
}

/// Reads change events of one format into a decoder. Not shared: one per decoder.
#[derive(Debug)]
pub struct Changes {
    format: PayloadFormat,
    /// By column, whether a row that deletes must have it.
    needed: Vec<bool>,
    /// By column, whether a row's key is made of it; empty where rows have none.
    keyed: Vec<bool>,
    /// The members of an image that those columns are in.
    key_members: Vec<String>,
    paths: Vec<Vec<String>>,
    unavailable: [Finder<'static>; 2],
    schemas: Schemas,
    /// Whether flattened records came whose deletes can only be tombstones.
    flat: bool,
    truncates: Truncates,
    marks: Marks,
    versions: Texts,
    sources: Texts,
}

/// What the rows of a batch do, row by row.
#[derive(Debug, Default)]
pub struct Marks {
    /// The operations.
    pub ops: Vec<Op>,
    /// When they happened, microseconds since the epoch.
    pub times: Vec<Option<i64>>,
}

/// Where the rows of a batch come from, row by row.
#[derive(Debug)]
pub struct Places {
    /// Positions in the source; null for rows without one.
    pub versions: StringArray,
    /// Source tables; null for rows that do not say.
    pub sources: StringArray,
}

/// Texts under construction.
#[derive(Debug)]
struct Texts {
    data: Vec<u8>,
    ends: Vec<i32>,
    validity: NullBufferBuilder,
}

impl Default for Texts {
    fn default() -> Self {
        Self { data: Vec::new(), ends: vec![0], validity: NullBufferBuilder::new(0) }
    }
}

impl Texts {
    /// Ends a text; what was appended is one, if it is `there`. Answers how many bytes it takes.
    fn end(&mut self, there: bool) -> usize {
        // Batches are far below 2 GiB, and so are their texts.
        let (begun, ends) = (self.ends.last().copied().unwrap_or_default(), self.data.len() as i32);
        self.ends.push(ends);
        self.validity.append(there);
        (ends - begun) as usize + size_of::<i32>()
    }

    fn finish(self) -> Result<StringArray, arrow_schema::ArrowError> {
        let Self { data, ends, mut validity } = self;
        StringArray::try_new(arrow_buffer::OffsetBuffer::new(ends.into()), data.into(), validity.finish())
    }
}

impl Changes {
    /// A reader of `format` for a decoder of `columns`; `needed` says of each column whether rows that delete need it.
    #[must_use]
    pub fn new(format: PayloadFormat, columns: &[Column], needed: Vec<bool>) -> Self {
        Self {
            format,
            needed,
            keyed: Vec::new(),
            key_members: Vec::new(),
            paths: columns.iter().map(|column| column.path.0.clone()).collect(),
            unavailable: [Finder::new(UNAVAILABLE), Finder::new(UNAVAILABLE_BASE64)],
            schemas: Schemas::default(),
            flat: false,
            truncates: Truncates::Refused,
            marks: Marks::default(),
            versions: Texts::default(),
            sources: Texts::default(),
        }
    }

    /// For a table with keys, which are made of the columns of which `keyed` says so: an update that changes one of them
    /// takes the former key away.
    #[must_use]
    pub fn with_keys(self, keyed: Vec<bool>) -> Self {
        let members = self.paths.iter().zip(&keyed).filter(|(_, keyed)| **keyed);
        let mut key_members: Vec<String> = members.filter_map(|(path, _)| path.first().cloned()).collect();
        key_members.sort_unstable();
        key_members.dedup();
        Self { keyed, key_members, ..self }
    }

    /// With another way to take truncates than refusing them.
    #[must_use]
    pub fn with_truncates(self, truncates: Truncates) -> Self {
        Self { truncates, ..self }
    }

    /// Adds the row of one payload; `key` gives the record's key.
    ///
    /// # Errors
    /// The payload's fault; the decoder is then as it was before.
    pub fn push(
        &mut self,
        decoder: &mut Decoder,
        payload: &[u8],
        key: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<Taken, Rejected> {
        let text = check::check(payload)?;
        if self.format == PayloadFormat::Dynamodb {
            return self.dynamodb(decoder, text);
        }
        let event = debezium::read(text, self.schemas.last())?;
        let change = match event.what {
            What::Change(change) => change,
            What::Truncation { source, time, at } => return self.truncation(decoder, &source, time, at),
            What::Skipped(reason) => return Ok(Taken::Skipped(reason)),
        };
        self.learn(decoder, event.schema);
        let bytes = decoder.walk.meter.bytes;
        let moved = match (change.former, change.image) {
            (Some((former, path)), Some(image)) if self.changes_key(former, image) => {
                let pushed = decoder.push_row(|decoder| decoder.walk(former.text, Some(&self.keyed)));
                pushed.map_err(|why| below(path, why))?;
                true
            }
            _ => false,
        };
        self.debezium(decoder, &change, key).inspect_err(|_| {
            if moved {
                decoder.pop(bytes);
            }
        })?;
        self.flat |= change.source.is_none();
        for op in moved.then_some(Op::Moved).into_iter().chain([change.op]) {
            if let Some(source) = &change.source {
                source.write(change.op == Op::Read, change.time, &mut self.versions.data);
                source.write_table(&mut self.sources.data);
            }
            let placed = (change.source.is_some(), change.source.is_some_and(|source| source.names_table()));
            self.mark(decoder, op, micros(change.time), placed);
        }
        Ok(if moved { Taken::Moved } else { Taken::Row })
    }

    /// Whether an update may have changed the key. Texts are compared, so a value that is only written in another way counts
    /// as another: then the row that follows has the same key, and stays.
    fn changes_key(&self, former: Raw<'_>, image: Raw<'_>) -> bool {
        self.key_members.iter().any(|name| {
            let before = debezium::member(former.text, name).filter(|text| *text != "null");
            before.is_some_and(|before| debezium::member(image.text, name) != Some(before))
        })
    }

    /// Takes a truncate as the table wants it.
    fn truncation(
        &mut self,
        decoder: &mut Decoder,
        source: &Source<'_>,
        time: Option<Raw<'_>>,
        at: &str,
    ) -> Result<Taken, Rejected> {
        let refused = |detail: &str| {
            let (path, detail) = (at.to_owned(), detail.to_owned());
            Err(Rejected { path, reason: RejectKind::Unsupported, detail })
        };
        match self.truncates {
            Truncates::AsRows => {
                decoder.push_row(|decoder| decoder.walk("{}", Some(&self.needed)))?;
                source.write(false, time, &mut self.versions.data);
                source.write_table(&mut self.sources.data);
                self.mark(decoder, Op::Truncate, micros(time), (true, source.names_table()));
                Ok(Taken::Row)
            }
            Truncates::CarriedOut if !source.names_table() => {
                refused("the event does not say which source table was truncated, so no row can be known to be of it")
            }
            Truncates::CarriedOut => {
                let (mut version, mut table) = (Vec::new(), Vec::new());
                source.write(false, time, &mut version);
                source.write_table(&mut table);
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                Ok(Taken::Truncation(Truncation { source: text(table), version: text(version), micros: micros(time) }))
            }
            Truncates::Refused => refused(
                "a truncate has no value of the table's timestampColumns, so it cannot be ordered among its rows; leave \
                 them out, and the position in the source orders all",
            ),
        }
    }

    /// Adds a row that deletes the key of a tombstone; answers whether the key is one. `millis` is Kafka's timestamp.
    pub fn tombstone(&mut self, decoder: &mut Decoder, key: &[u8], millis: Option<i64>) -> bool {
        if self.format != PayloadFormat::Debezium || self.key_image(decoder, key, false).is_err() {
            return false;
        }
        self.mark(decoder, Op::Tombstone, millis.and_then(|millis| millis.checked_mul(1000)), (false, false));
        true
    }

    /// Whether tombstones were the only deletes of the records seen.
    #[must_use]
    pub fn relies_on_tombstones(&self) -> bool {
        self.flat
    }

    /// What the rows since the last time do, and where they come from.
    ///
    /// # Errors
    /// Of arrow, when the texts make no column.
    pub fn finish(&mut self) -> Result<(Marks, Places), arrow_schema::ArrowError> {
        let versions = std::mem::take(&mut self.versions).finish()?;
        let sources = std::mem::take(&mut self.sources).finish()?;
        Ok((std::mem::take(&mut self.marks), Places { versions, sources }))
    }

    /// Ends a row; `placed` says whether it has a position, and a source table.
    fn mark(&mut self, decoder: &mut Decoder, op: Op, micros: Option<i64>, placed: (bool, bool)) {
        self.marks.ops.push(op);
        self.marks.times.push(micros);
        let texts = self.versions.end(placed.0) + self.sources.end(placed.1);
        decoder.walk.meter.bytes += texts + size_of::<(Op, Option<i64>)>();
    }

    fn learn(&mut self, decoder: &mut Decoder, schema: Schema<'_>) {
        match schema {
            Schema::Absent => self.schemas.learn(None, &mut decoder.root),
            Schema::Same => self.schemas.learn_last(&mut decoder.root),
            Schema::Text(text) => self.schemas.learn(Some(text), &mut decoder.root),
        }
    }

    fn debezium(
        &mut self,
        decoder: &mut Decoder,
        change: &Change<'_>,
        key: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<(), Rejected> {
        let needed = change.op.deletes().then_some(&*self.needed);
        let image =
            change.image.ok_or_else(|| missing(change.path)).and_then(|image| Self::text_of(image, change.path));
        if needed.is_none() {
            image.as_ref().map_or(Ok(()), |image| self.check_available(image, change.path))?;
        }
        let pushed = image.and_then(|image| {
            decoder.push_row(|decoder| decoder.walk(&image, needed)).map_err(|why| below(change.path, why))
        });
        match pushed {
            Err(why) if needed.is_some() && why.reason == RejectKind::Missing => {
                // What is wrong with the event is of more use than what is wrong with its key.
                let key = key().ok_or_else(|| why.clone())?;
                let of_document = change.source.is_some_and(|source| source.has_documents());
                self.key_image(decoder, &key, of_document).map_err(|_| why)
            }
            other => other,
        }
    }

    /// The text of an image: an object as it stands, or what is in a string.
    fn text_of<'a>(image: Raw<'a>, path: &str) -> Result<Cow<'a, str>, Rejected> {
        if !image.text.starts_with('"') {
            return Ok(Cow::Borrowed(image.text));
        }
        let text = document(image.text).ok_or_else(|| {
            let detail = "expected an object as JSON text, found other text".to_owned();
            Rejected { path: path.to_owned(), reason: RejectKind::NotJson, detail }
        });
        text.map(Cow::Owned)
    }

    /// Adds the row whose image is a record's key.
    fn key_image(&mut self, decoder: &mut Decoder, key: &[u8], of_document: bool) -> Result<(), Rejected> {
        let text = check::check(key)?;
        let (schema, image) = debezium::read_key(text, self.schemas.last()).ok_or_else(|| missing("$"))?;
        let id = debezium::member(image.text, "id").filter(|_| of_document).and_then(document);
        self.learn(decoder, schema);
        let image = id.map_or(Cow::Borrowed(image.text), |id| Cow::Owned(format!("{{\"_id\":{id}}}")));
        decoder.push_row(|decoder| decoder.walk(&image, Some(&self.needed)))
    }

    fn dynamodb(&mut self, decoder: &mut Decoder, text: &str) -> Result<Taken, Rejected> {
        let event = dynamodb::read(text)?;
        let bytes = decoder.walk.meter.bytes;
        let mut push = |(image, path): (Raw<'_>, &str), needed: Option<&[bool]>| {
            decoder.push_row(|decoder| decoder.walk_item(image.text, needed)).map_err(|why| below(path, why))
        };
        let needed = event.op.deletes().then_some(&*self.needed);
        let moved = match (event.former, event.image) {
            (Some(former), Some((image, _))) if self.changes_key(former.0, image) => {
                push(former, Some(&self.keyed))?;
                true
            }
            _ => false,
        };
        let lacking = if needed.is_some() { "$.dynamodb.OldImage" } else { "$.dynamodb.NewImage" };
        let pushed = event.image.ok_or_else(|| missing(lacking)).and_then(|image| push(image, needed));
        let pushed = match (pushed, event.keys) {
            (Err(why), Some(keys)) if needed.is_some() && why.reason == RejectKind::Missing => push(keys, needed),
            (pushed, _) => pushed,
        };
        pushed.inspect_err(|_| {
            if moved {
                decoder.pop(bytes);
            }
        })?;
        for op in moved.then_some(Op::Moved).into_iter().chain([event.op]) {
            event.write_position(&mut self.versions.data);
            self.mark(decoder, op, event.micros, (true, false));
        }
        Ok(if moved { Taken::Moved } else { Taken::Row })
    }

    /// Refuses an image whose wanted values were not all sent: written as they stand, they would replace the real ones.
    fn check_available(&self, image: &str, path: &str) -> Result<(), Rejected> {
        if !self.unavailable.iter().any(|finder| finder.find(image.as_bytes()).is_some()) {
            return Ok(());
        }
        // What is no JSON is found by the decoder.
        let Ok(row) = serde_json::from_str::<serde_json::Value>(image) else { return Ok(()) };
        let lost = self.paths.iter().find(|keys| {
            let value = keys.iter().try_fold(&row, |value, key| value.get(key));
            value.is_some_and(is_unavailable)
        });
        lost.map_or(Ok(()), |keys| {
            let column = firn_shared::config::domain::JsonPath(keys.clone()).to_string();
            Err(Rejected {
                path: format!("{path}{}", &column[1..]),
                reason: RejectKind::Missing,
                detail: "the database did not log the unchanged value; set REPLICA IDENTITY FULL".to_owned(),
            })
        })
    }
}

/// JSON in a JSON string; `None` when it is no JSON, or lies too deep.
fn document(quoted: &str) -> Option<String> {
    let text: String = serde_json::from_str(quoted).ok()?;
    check::check(text.as_bytes()).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text).ok()?;
    Some(text)
}

/// Milliseconds as microseconds.
fn micros(time: Option<Raw<'_>>) -> Option<i64> {
    let millis = number::long(position::bare(time?).as_bytes()).ok()?;
    millis.checked_mul(1000)
}

fn is_unavailable(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text == UNAVAILABLE || text == UNAVAILABLE_BASE64,
        serde_json::Value::Array(values) => values.iter().any(is_unavailable),
        serde_json::Value::Object(fields) => fields.values().any(is_unavailable),
        _ => false,
    }
}

fn missing(path: &str) -> Rejected {
    let detail = "the image of the row is missing".to_owned();
    Rejected { path: path.to_owned(), reason: RejectKind::Missing, detail }
}

/// A fault in an image, with its path in the payload.
fn below(path: &str, why: Rejected) -> Rejected {
    Rejected { path: format!("{path}{}", &why.path[1..]), ..why }
}

#[cfg(test)]
mod tests;
