//! Payload bytes to Arrow, driven by the columns that are wanted.
//!
//! [`change`] finds the row in a change event. `check` looks at the payload as a whole (UTF-8, nesting, escapes); `walk`
//! follows the `tree` of wanted keys through it with a `cursor`, which leaves what nobody wants to `skip`; both take bytes
//! in `blocks`, with what the processor has for that. `column` and `leaf` keep the values, each `leaf` reading raw JSON text through `number`, `time` and `text`. What does not fit is a [`Rejected`] with its path: never an error of the run, never a null or a zero by accident.
//!
//! What fits what:
//! - integers and decimals take numbers and numbers in strings, if they are exact: `1.0` and `1e3` are integers, `1.5` is
//!   not; floats take every finite number (in strings too) and round to the nearest;
//! - booleans, strings, lists, maps and structs take their own kind only;
//! - times take text in the forms of RFC 3339, or what the column's format says; text without an offset is UTC; a number is
//!   a time only if the format counts from the epoch; digits below a microsecond are dropped;
//! - binary takes base64 (standard alphabet, padded); uuid the form of 36 characters, stored in lower case;
//! - json keeps the text of any value, byte for byte;
//! - null is the same as missing; of a key that comes twice in an object the last value counts.

mod blocks;
pub mod change;
mod check;
mod column;
mod cursor;
mod encoded;
mod leaf;
mod number;
mod presence;
mod reject;
mod skip;
mod text;
pub(crate) mod time;
mod tree;
mod trusted;
mod values;
mod walk;

use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema, SchemaRef};
use firn_shared::config::domain;
use firn_shared::error::{Error, Result};

pub use self::check::MAX_DEPTH;
use self::cursor::Cursor;
use self::reject::Fault;
pub use self::reject::{RejectKind, Rejected};
pub(crate) use self::time::timestamp as parse_timestamp;
use self::tree::Node;
use self::values::Blanks;
use self::walk::Walk;
use crate::arrow_types::data_type;

/// Turns payloads into rows of one schema. Not shared: one per slice, on one thread.
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    root: Node,
    walk: Walk,
    blanks: Blanks,
    rows: usize,
    /// Bytes of one row besides text and list elements.
    width: usize,
}

impl Decoder {
    /// A decoder of these columns.
    ///
    /// # Errors
    /// `Config` when two columns have one name, a path is empty, or a struct has no fields or one name twice.
    pub fn new(columns: &[domain::Column]) -> Result<Self> {
        let mut root = Node::default();
        for (i, column) in columns.iter().enumerate() {
            if columns[..i].iter().any(|c| c.name == column.name) {
                return Err(Error::config(format!("column {} is defined twice", column.name)));
            }
            if column.path.0.is_empty() {
                return Err(Error::config(format!("column {}: the path names no key", column.name)));
            }
            let values = column::Column::new(&column.name, &column.r#type, column.format.as_ref())?;
            root.insert(&column.path.0, values, i, column.required);
        }
        root.seal();
        let fields = columns.iter().map(|c| Field::new(&c.name, data_type(&c.r#type), !c.required));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let width = root.width();
        Ok(Self { schema, root, walk: Walk::default(), blanks: Blanks::default(), rows: 0, width })
    }

    /// Lets every column be null in the batches: rows that delete lack what is required of others.
    pub fn allow_nulls(&mut self) {
        let fields = self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    }

    /// One field per column, in their order, nullable unless required.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Adds the row of one payload.
    ///
    /// # Errors
    /// The payload's fault; the decoder is then as it was before.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), Rejected> {
        let text = check::check(payload)?;
        self.push_row(|decoder| decoder.walk(text, None))
    }

    /// Adds the row that `walk` fills from text that has passed [`check::check`].
    #[inline]
    fn push_row(&mut self, walk: impl Fn(&mut Self) -> Result<(), Fault>) -> Result<(), Rejected> {
        let bytes = self.walk.meter.bytes;
        let mut outcome = walk(self);
        if outcome.is_err() {
            // A fault may lie in a value that a later duplicate of its key replaces: only the second walk knows.
            self.roll_back(bytes);
            self.walk.last_wins = true;
            outcome = walk(self);
            self.walk.last_wins = false;
        }
        if let Err(fault) = outcome {
            let rejected = self.rejected(fault);
            self.roll_back(bytes);
            return Err(rejected);
        }
        self.rows += 1;
        Ok(())
    }

    /// Follows a JSON object; `needed` says which columns must be there instead of those that are required.
    #[inline]
    fn walk(&mut self, text: &str, needed: Option<&[bool]>) -> Result<(), Fault> {
        let mut cursor = Cursor::new(text);
        if !self.walk.object(&mut cursor, &mut self.root, self.rows)? {
            cursor.end()?;
            return Err(Fault::wrong_type("object", "null"));
        }
        cursor.end()?;
        self.check_present(needed)
    }

    /// As [`Self::walk`], for DynamoDB's typed JSON.
    fn walk_item(&mut self, text: &str, needed: Option<&[bool]>) -> Result<(), Fault> {
        let mut cursor = Cursor::new(text);
        self.walk.item(&mut cursor, &mut self.root, self.rows)?;
        cursor.end()?;
        self.check_present(needed)
    }

    #[inline]
    fn check_present(&mut self, needed: Option<&[bool]>) -> Result<(), Fault> {
        match needed {
            None => self.root.check_required(self.rows, &mut self.walk.trail),
            Some(needed) => self.root.check_needed(self.rows, needed, &mut self.walk.trail),
        }
    }

    #[cold]
    fn rejected(&self, fault: Fault) -> Rejected {
        let (reason, detail) = fault.into_parts();
        let path = self.walk.trail.render();
        match reason {
            // Syntax is a matter of the whole payload.
            RejectKind::NotJson => Rejected::whole(reason, detail),
            RejectKind::WrongType if path == "$" => Rejected::whole(RejectKind::NotObject, detail),
            _ => Rejected { path, reason, detail },
        }
    }

    /// Removes what a failed walk left behind.
    #[cold]
    fn roll_back(&mut self, bytes: usize) {
        self.root.truncate(self.rows);
        self.walk.meter.bytes = bytes;
        self.walk.trail = reject::Trail::default();
    }

    /// Forgets the last row; `bytes` is what the meter said before it.
    #[cold]
    fn pop(&mut self, bytes: usize) {
        self.rows -= 1;
        self.roll_back(bytes);
    }

    /// Rows pushed since the last [`Self::finish`].
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the finished batch will take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows * self.width + self.walk.meter.bytes
    }

    /// Takes the rows.
    ///
    /// # Errors
    /// `Bug` when the columns do not make a batch.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        self.walk.meter.bytes = 0;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        self.root
            .finish(self.schema.fields().len(), rows, &mut self.blanks)
            .and_then(|arrays| RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options))
            .map_err(|e| Error::bug("cannot build a batch of decoded rows").with_source(e))
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
