//! One slice on worker threads: lines to batches of rows, rejects and counts. Knows no store and no table.
//!
//! The caller pushes an object's bytes and takes [`Step`]s until more bytes are needed, so that at most one batch exists
//! at a time. Every record of an object ends as exactly one of: row, reject, tombstone, filtered.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, StructArray, UInt32Array};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use firn_shared::error::{Error, Result};
use firn_shared::ids::{Offset, PartitionRef};
use firn_shared::raw::envelope::Envelope;
use firn_shared::raw::manifest::RawObject;

use super::conversion::Conversion;
use super::effect::Effect;
use super::inflate::Inflate;
use crate::decode::change::{Changes, Marks, Op, Places, Taken};
use crate::decode::{Decoder, Rejected};
use crate::plan::SliceObject;
use crate::protect;
use crate::provenance::{self, Origin};
use crate::quarantine::{Reject, Rejects};
use crate::reconcile::account::{Fate, OTHER_EVENT};
use crate::transform::{Outcome, Parts};
use crate::upsert::Truncation;

/// Rows of a batch at most.
const BATCH_ROWS: usize = 32 * 1024;
/// A line may take as much as so many batches, whatever the configuration says of records: a quarter of a slice's share.
const LINE_BATCHES: usize = 8;

/// What comes out next.
#[derive(Debug)]
pub enum Step {
    /// The object's next bytes are needed, or its end.
    NeedBytes,
    /// Rows of the table.
    Rows(Rows),
    /// Rows of the quarantine table.
    Rejects(RecordBatch),
    /// Source tables that were emptied; comes last.
    Truncations(Vec<Truncation>),
}

/// Rows on their way to the table, each with what it does there.
#[derive(Debug)]
pub struct Rows {
    /// The table's columns, `_firn` last unless the table goes without.
    pub batch: RecordBatch,
    /// Per row whether it deletes its key; `None` when no row does.
    pub deletes: Option<BooleanBuffer>,
    /// Per row whether its record has its place in the account elsewhere; `None` when no row's has.
    pub silent: Option<BooleanBuffer>,
}

/// A slice in work. Moves between worker threads, one at a time.
#[derive(Debug)]
pub struct Converter {
    inflate: Inflate,
    sink: Sink,
}

/// Where records go.
#[derive(Debug)]
struct Sink {
    conversion: Arc<Conversion>,
    decoder: Decoder,
    /// For payloads that are changes.
    changes: Option<Changes>,
    /// Tombstones that should have deleted a key and could not.
    lost_deletes: u64,
    /// Updates that changed a key, whose former one a step rejected.
    lost_moves: u64,
    batch_bytes: usize,
    origins: Vec<Origin>,
    /// Origin and offset of each row in the decoder.
    rows: Vec<(u32, Offset)>,
    /// Raw records of the rows in the decoder, when a step may still reject them.
    kept: Kept,
    /// Rows that left the decoder and not yet the transformations.
    under_way: Option<UnderWay>,
    rejects: Rejects,
    truncations: Vec<Truncation>,
    /// Of the protector.
    buffers: protect::Buffers,
    /// What became of the records of each origin.
    fates: Vec<Fate>,
    tombstones: u64,
    last: Option<Offset>,
}

/// Decoded rows in the transformations, with what was known of them.
#[derive(Debug)]
struct UnderWay {
    parts: Parts,
    /// Origin and offset of each.
    entered: Vec<(u32, Offset)>,
    kept: Kept,
    marked: Option<(Marks, Places)>,
}

/// Payloads one after the other, and of each its end, event and timestamp.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    records: Vec<(usize, Option<String>, Option<i64>)>,
}

impl Converter {
    /// A converter whose batches take about `batch_bytes`.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn new(conversion: Arc<Conversion>, batch_bytes: usize) -> Result<Self> {
        let inflate = Inflate::new(conversion.line_max.max(batch_bytes.saturating_mul(LINE_BATCHES)))?;
        let mut decoder = Decoder::new(&conversion.columns)?;
        let changes = conversion.effect.as_ref().map(|effect| effect.changes(&conversion.columns));
        if changes.is_some() {
            decoder.allow_nulls();
        }
        let sink = Sink {
            conversion,
            decoder,
            changes,
            lost_deletes: 0,
            lost_moves: 0,
            batch_bytes,
            origins: Vec::new(),
            rows: Vec::new(),
            kept: Kept::default(),
            under_way: None,
            rejects: Rejects::default(),
            truncations: Vec::new(),
            buffers: protect::Buffers::default(),
            fates: Vec::new(),
            tombstones: 0,
            last: None,
        };
        Ok(Self { inflate, sink })
    }

    /// Begins with an object; `url` names it in errors.
    ///
    /// # Errors
    /// `Data` for an object without event hour.
    pub fn begin(&mut self, object: &SliceObject, url: &str) -> Result<()> {
        self.inflate.begin(url)?;
        let hour = object.object.event_hour;
        let hour = hour.ok_or_else(|| Error::data(format!("the manifest gives raw object {url} no event hour")))?;
        let origin = Origin { partition: object.partition_ref(), hour };
        if self.sink.origins.last() != Some(&origin) {
            self.sink.origins.push(origin);
            self.sink.fates.push(Fate::default());
        }
        (self.sink.last, self.sink.tombstones) = (None, 0);
        Ok(())
    }

    /// Takes the object's next bytes; the last step must have been [`Step::NeedBytes`].
    pub fn push(&mut self, bytes: Bytes) {
        self.inflate.push(bytes);
    }

    /// Works until something comes out.
    ///
    /// # Errors
    /// `Data`, naming object and line, for what is not an envelope of this object.
    pub fn step(&mut self, object: &RawObject) -> Result<Step> {
        let Self { inflate, sink } = self;
        loop {
            if sink.rejects.bytes() >= sink.batch_bytes {
                return sink.rejects.finish(&sink.origins).map(Step::Rejects);
            }
            if (sink.under_way.is_some() || sink.is_full())
                && let Some(rows) = sink.flush()?
            {
                return Ok(Step::Rows(rows));
            }
            let Some(line) = inflate.next_line()? else { return Ok(Step::NeedBytes) };
            if let Err(what) = sink.record(line, object) {
                return Err(Error::data(format!("{}: {what}; nothing was committed", inflate.place())));
            }
        }
    }

    /// Ends the object: everything the manifest says of it must be so.
    ///
    /// # Errors
    /// `Data`, naming the object and what differs.
    pub fn end_object(&mut self, object: &RawObject) -> Result<()> {
        self.inflate.finish(object)?;
        if self.sink.tombstones != object.tombstones {
            let what = format!("{} tombstones, the manifest says {}", self.sink.tombstones, object.tombstones);
            return Err(self.inflate.corrupt(what));
        }
        Ok(())
    }

    /// What is left after the last object; to be called until it gives nothing more.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn drain(&mut self) -> Result<Option<Step>> {
        let sink = &mut self.sink;
        if (sink.under_way.is_some() || sink.decoder.rows() > 0)
            && let Some(rows) = sink.flush()?
        {
            return Ok(Some(Step::Rows(rows)));
        }
        if !sink.rejects.is_empty() {
            return sink.rejects.finish(&sink.origins).map(|batch| Some(Step::Rejects(batch)));
        }
        let truncations = std::mem::take(&mut sink.truncations);
        Ok((!truncations.is_empty()).then_some(Step::Truncations(truncations)))
    }

    /// What became of the slice's records, per partition.
    #[must_use]
    pub fn into_fates(self) -> BTreeMap<PartitionRef, Fate> {
        if self.sink.lost_deletes > 0 {
            tracing::warn!(
                tombstones = self.sink.lost_deletes,
                "tombstones of flattened records deleted nothing: the table needs more of a delete than the record's key; \
                 flatten with delete.tombstone.handling.mode=rewrite, or leave timestampColumns out"
            );
        }
        if self.sink.lost_moves > 0 {
            tracing::warn!(
                updates = self.sink.lost_moves,
                "updates changed the key of their row, and a step rejected the row as it was before: it may still be there"
            );
        }
        let mut fates: BTreeMap<PartitionRef, Fate> = BTreeMap::new();
        for (origin, fate) in self.sink.origins.into_iter().zip(&self.sink.fates) {
            fates.entry(origin.partition).or_default().merge(fate);
        }
        fates
    }
}

impl Sink {
    fn is_full(&self) -> bool {
        self.decoder.rows() >= BATCH_ROWS
            || (self.decoder.rows() > 0
                && (self.decoder.bytes() >= self.batch_bytes || self.kept.bytes.len() >= self.batch_bytes))
    }

    /// Takes one line; an error is a text without the place.
    fn record(&mut self, line: &[u8], object: &RawObject) -> Result<(), String> {
        let envelope = Envelope::parse(line).map_err(|e| e.to_string())?;
        let offset = envelope.offset;
        if !(object.min_offset..=object.max_offset).contains(&offset) {
            return Err(format!("offset {offset} is outside {}..={}", object.min_offset, object.max_offset));
        }
        if let Some(last) = self.last
            && last >= offset
        {
            return Err(format!("offset {offset} comes after {last}"));
        }
        self.last = Some(offset);
        let origin = self.origins.len() as u32 - 1;
        if envelope.tombstone {
            self.tombstones += 1;
            self.fate(origin).tombstones += 1;
            return self.tombstone(&envelope, origin);
        }
        if !self.conversion.wants(envelope.event.as_deref()) {
            count(&mut self.fate(origin).filtered, OTHER_EVENT);
            return Ok(());
        }
        // Borrowed, unless the payload had line feeds: then they are put back, so that `json` columns keep their bytes.
        let payload = envelope.payload().map_err(|e| e.to_string())?.unwrap_or_default();
        let taken = match &mut self.changes {
            None => self.decoder.push(&payload).map(|()| Taken::Row),
            Some(changes) => {
                // A key that cannot be read is none: only a delete without an image asks for it.
                changes.push(&mut self.decoder, &payload, || envelope.key().ok().flatten())
            }
        };
        match taken {
            Ok(Taken::Row) => {
                self.rows.push((origin, offset));
                self.keep(&envelope)?;
            }
            Ok(Taken::Moved) => {
                for _ in 0..2 {
                    self.rows.push((origin, offset));
                    self.keep(&envelope)?;
                }
            }
            Ok(Taken::Truncation(of)) => {
                self.truncations.push(Truncation::new(of, &self.origins[origin as usize], offset));
                self.fate(origin).deleted += 1;
            }
            Ok(Taken::Skipped(reason)) => count(&mut self.fate(origin).filtered, reason),
            Err(why) => {
                let safe = match &self.conversion.protector {
                    Some(protector) => protector.payload(&payload, &mut self.buffers).map_err(|e| e.to_string())?,
                    None => Cow::Borrowed(&*payload),
                };
                self.rejects.push(&Reject {
                    payload: &safe,
                    why: &why,
                    step: None,
                    event: envelope.event.as_deref(),
                    timestamp: envelope.timestamp,
                    origin,
                    offset,
                });
                self.fate(origin).quarantined += 1;
            }
        }
        Ok(())
    }

    /// Keeps the raw record of the decoder's last row, when a step may still reject it.
    fn keep(&mut self, envelope: &Envelope<'_>) -> Result<(), String> {
        if self.conversion.transformer.can_reject() {
            let payload = envelope.payload().map_err(|e| e.to_string())?;
            self.kept.bytes.extend_from_slice(payload.as_deref().unwrap_or_default());
            let event = envelope.event.as_deref().map(str::to_owned);
            self.kept.records.push((self.kept.bytes.len(), event, envelope.timestamp));
        }
        Ok(())
    }

    /// A tombstone, counted already: where it deletes its key, a row more.
    fn tombstone(&mut self, envelope: &Envelope<'_>, origin: u32) -> Result<(), String> {
        let conversion = Arc::clone(&self.conversion);
        let Some(changes) = &mut self.changes else { return Ok(()) };
        if !conversion.wants(envelope.event.as_deref()) {
            return Ok(());
        }
        let key = envelope.key().map_err(|e| e.to_string())?;
        let taken = conversion.effect.as_deref().is_some_and(Effect::takes_tombstones)
            && key.is_some_and(|key| changes.tombstone(&mut self.decoder, &key, envelope.timestamp));
        if taken {
            self.rows.push((origin, envelope.offset));
            return self.keep(envelope);
        }
        self.lost_deletes += u64::from(changes.relies_on_tombstones());
        Ok(())
    }

    fn fate(&mut self, origin: u32) -> &mut Fate {
        &mut self.fates[origin as usize]
    }

    /// The decoder's rows through the transformations, as many as come out at once; `None` when no row is left.
    fn flush(&mut self) -> Result<Option<Rows>> {
        let conversion = Arc::clone(&self.conversion);
        let mut under_way = match self.under_way.take() {
            Some(under_way) => under_way,
            None => self.begin(&conversion)?,
        };
        while let Some(outcome) = conversion.transformer.next(&mut under_way.parts)? {
            if let Some(rows) = self.settle(&conversion, outcome, &under_way)? {
                self.under_way = Some(under_way);
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// Hands the decoder's rows to the transformations.
    fn begin(&mut self, conversion: &Conversion) -> Result<UnderWay> {
        let mut batch = self.decoder.finish()?;
        let (entered, kept) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.kept));
        let marked = self.marks()?;
        let effect = conversion.effect.as_deref().zip(marked.as_ref());
        if let Some((effect, (marks, _))) = effect {
            batch = effect.add_columns(batch, marks)?;
        }
        let spared = effect.and_then(|(effect, (marks, _))| effect.spared(marks));
        let parts = conversion.transformer.begin(batch, spared, self.batch_bytes)?;
        Ok(UnderWay { parts, entered, kept, marked })
    }

    /// What became of some of the rows: counts, rejects, and the rows that are left, if any.
    fn settle(&mut self, conversion: &Conversion, outcome: Outcome, of: &UnderWay) -> Result<Option<Rows>> {
        let UnderWay { entered, kept, marked, .. } = of;
        let effect = conversion.effect.as_deref().zip(marked.as_ref());
        let op = |row: u32| effect.map(|(_, (marks, _))| marks.ops[row as usize]);
        let is_silent = |row: u32| op(row).is_some_and(Op::is_silent);
        let Outcome { batch, rows, filtered, rejected } = outcome;
        for (name, rows) in filtered {
            for row in rows {
                count(&mut self.fate(entered[row as usize].0).filtered, &name);
            }
        }
        // A tombstone has its place in the account, whatever becomes of its row.
        for reject in rejected {
            if is_silent(reject.row) {
                self.lost_moves += u64::from(op(reject.row) == Some(Op::Moved));
                continue;
            }
            self.reject(kept, entered, reject.row, &reject.why, &reject.step)?;
        }
        let deletes = effect.and_then(|(effect, (marks, _))| effect.deletes(marks, rows.as_deref()));
        let silent = effect.and_then(|(_, (marks, _))| Effect::silent(marks, rows.as_deref()));
        let places = match marked {
            Some((_, Places { versions, sources })) => {
                let sources = effect.is_some_and(|(effect, _)| effect.has_sources()).then_some(sources);
                let sources = sources.map(|sources| left_of(sources, rows.as_deref())).transpose()?;
                Some((left_of(versions, rows.as_deref())?, sources))
            }
            None => None,
        };
        let numbers = rows.unwrap_or_else(|| (0..entered.len() as u32).collect());
        let left: Vec<_> = numbers.iter().map(|row| entered[*row as usize]).collect();
        let mut before = None;
        for (row, (origin, _)) in numbers.iter().zip(&left) {
            let further = before.replace(row) == Some(row);
            let fate = self.fate(*origin);
            fate.exploded += u64::from(further);
            fate.rows += u64::from(!further && !is_silent(*row));
        }
        if left.is_empty() {
            return Ok(None);
        }
        let batch = match &conversion.protector {
            Some(protector) => protector.apply(batch, &mut self.buffers)?,
            None => batch,
        };
        let batch = match places {
            _ if !conversion.provenance => batch,
            Some(places) => with_provenance(batch, provenance::column_of_changes(&self.origins, &left, places)?)?,
            None if conversion.transformer.explodes() => {
                with_provenance(batch, provenance::column_of_several(&self.origins, &left)?)?
            }
            None => with_provenance(batch, provenance::column(&self.origins, &left)?)?,
        };
        Ok(Some(Rows { batch, deletes, silent }))
    }

    /// What the rows of the decoder do, and their places; `None` when payloads are rows.
    fn marks(&mut self) -> Result<Option<(Marks, Places)>> {
        let marks = self.changes.as_mut().map(Changes::finish).transpose();
        marks.map_err(|e| Error::bug("cannot build the versions of decoded rows").with_source(e))
    }

    fn reject(&mut self, kept: &Kept, entered: &[(u32, Offset)], row: u32, why: &Rejected, step: &str) -> Result<()> {
        let at = row as usize;
        let (end, event, timestamp) =
            kept.records.get(at).ok_or_else(|| Error::bug(format!("step {step} rejected a row that was not kept")))?;
        let start = at.checked_sub(1).map_or(0, |before| kept.records[before].0);
        let (origin, offset) = entered[at];
        let payload = &kept.bytes[start..*end];
        let safe = match &self.conversion.protector {
            Some(protector) => protector.payload(payload, &mut self.buffers)?,
            None => Cow::Borrowed(payload),
        };
        self.rejects.push(&Reject {
            payload: &safe,
            why,
            step: Some(step),
            event: event.as_deref(),
            timestamp: *timestamp,
            origin,
            offset,
        });
        self.fate(origin).quarantined += 1;
        Ok(())
    }
}

fn count(counts: &mut BTreeMap<String, u64>, reason: &str) {
    match counts.get_mut(reason) {
        Some(count) => *count += 1,
        None => {
            counts.insert(reason.to_owned(), 1);
        }
    }
}

/// The texts of the rows that are left.
fn left_of(texts: &StringArray, left: Option<&[u32]>) -> Result<ArrayRef> {
    let Some(left) = left else { return Ok(Arc::new(texts.clone())) };
    let left = UInt32Array::from(left.to_vec());
    arrow_select::take::take(texts, &left, None).map_err(|e| Error::bug("places of rows").with_source(e))
}

fn with_provenance(batch: RecordBatch, column: StructArray) -> Result<RecordBatch> {
    let (schema, mut arrays, count) = batch.into_parts();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(provenance::COLUMN, column.data_type().clone(), true)));
    arrays.push(Arc::new(column) as ArrayRef);
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|e| Error::bug("rows and their origins differ in number").with_source(e))
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use firn_shared::config::domain::{Column, JsonPath};
    use firn_shared::ids::{EventHour, Partition, Topic};
    use firn_shared::raw::envelope::{LineWriter, Record};

    use super::super::events::Events;
    use super::*;
    use crate::transform::{References, Transformer};

    /// A conversion to one column of text as JSON, found at `$.doc`.
    fn documents() -> Arc<Conversion> {
        let column = Column {
            name: "doc".to_owned(),
            path: JsonPath(vec!["doc".to_owned()]),
            r#type: "json".parse().unwrap(),
            required: true,
            format: None,
            doc: None,
        };
        let transformer = Transformer::new(&[], std::slice::from_ref(&column), &References::default()).unwrap();
        Arc::new(Conversion {
            columns: vec![column],
            transformer,
            effect: None,
            protector: None,
            events: Events::default(),
            provenance: false,
            line_max: 1 << 20,
            held_bytes: 0,
        })
    }

    #[test]
    fn json_columns_keep_the_line_feeds_of_the_payload() {
        let payloads = ["{\"doc\": {\n  \"a\" : 1,\r\n\t\"b\": [ ]\n}}", "{\"doc\":  {\"a\" :2} }"];
        let writer = LineWriter::new(&Topic::new("t").unwrap(), Partition(0));
        let mut lines = Vec::new();
        for (offset, payload) in payloads.iter().enumerate() {
            let record = Record { offset: offset as Offset, timestamp: None, key: None, headers: [] };
            writer.record(&mut lines, record, None, Some(payload.as_bytes()));
        }
        let bytes = zstd::bulk::compress(&lines, 3).unwrap();
        let object = RawObject {
            key: "k".to_owned(),
            event_hour: Some(EventHour::from_epoch_hours(0)),
            records: 2,
            tombstones: 0,
            bytes: bytes.len() as u64,
            raw_bytes: lines.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            min_offset: 0,
            max_offset: 1,
            min_event_time: None,
            max_event_time: None,
            erased: 0,
        };
        let of = SliceObject { topic: "c/t/1".parse().unwrap(), partition: Partition(0), object };
        let mut converter = Converter::new(documents(), 1 << 20).unwrap();
        converter.begin(&of, "file:///k").unwrap();
        converter.push(bytes.into());
        assert!(matches!(converter.step(&of.object).unwrap(), Step::NeedBytes));
        converter.end_object(&of.object).unwrap();
        let Some(Step::Rows(rows)) = converter.drain().unwrap() else { panic!("two rows") };
        let found: Vec<_> = rows.batch.column(0).as_string::<i32>().iter().map(Option::unwrap).collect();
        assert_eq!(found, ["{\n  \"a\" : 1,\r\n\t\"b\": [ ]\n}", "{\"a\" :2}"]);
    }
}
