//! Steps from decoded columns to table columns.
//!
//! What each step reads, makes and leaves was planned when the configuration was read ([`firn_shared::functions`]).
//! [`Transformer::new`] builds the work of every step, so that only values can fail later; a value that does not fit
//! rejects its record and never becomes null. Rows carry their number in the batch as it entered, so that whoever holds the
//! raw records knows which of them were filtered or rejected.
//!
//! [`frame`] is the batch on its way, [`kernel`] the seam to the code that works on values, [`functions`] that code by
//! family, with [`values`] for its loops; [`expr`] and [`cast`] let Polars work on the columns they need through [`ffi`],
//! [`text`] reads JSON text with the same decoder as the records themselves. [`own`] holds functions of others to their word.

mod agree;
pub(crate) mod apart;
pub mod cases;
mod cast;
mod coverage;
mod expr;
mod ffi;
mod frame;
mod functions;
pub mod json_text;
pub mod kernel;
mod lookup;
mod outcome;
mod own;
mod parts;
mod template;
pub(crate) mod text;
pub mod values;
mod years;

use std::collections::BTreeSet;
use std::sync::Arc;

/// The release of Arrow that columns are of, for crates of functions.
pub use arrow_array;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Schema};
use firn_shared::config::domain::{Column, Step};
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Planned, Source};
use firn_shared::ids::ColumnName;

use crate::arrow_types::data_type;
use crate::decode::{RejectKind, Rejected};
use crate::seam;
pub use ffi::bound_threads;
use frame::Frame;
use kernel::{Batch, Call, Exploded, Judged, Keep, Kernel, Made, Room, Typed, Why, Work};
pub use lookup::{Reference, References};
pub use outcome::{Outcome, RowReject};
pub use parts::Parts;
use parts::{Part, Rows};

/// Built steps; cheap to share between threads.
#[derive(Debug)]
pub struct Transformer {
    steps: Vec<Built>,
    input: usize,
    output: Vec<Typed>,
}

/// What works on the values of a step.
#[derive(Debug)]
pub struct Engine {
    /// `Arrow` for loops of ours or of a crate over Arrow columns, `Polars`, `decoder` for that of the records, `WebAssembly`, or
    /// `nothing` where columns are only arranged.
    pub name: &'static str,
    /// More about how, such as what Polars makes of an expression.
    pub plan: Option<String>,
}

/// A step with its work.
#[derive(Debug)]
struct Built {
    at: Arc<str>,
    work: Work,
    plan: Planned,
    /// The columns it is handed, by position before the step.
    reads: Vec<usize>,
    /// Their names and types.
    read: Vec<Typed>,
    /// The types of what it makes.
    makes: Vec<DataType>,
    can_reject: bool,
}

impl Transformer {
    /// Builds `steps`, which were planned over `columns`.
    ///
    /// # Errors
    /// `Config`, with every step that cannot work, its position and why.
    pub fn new(steps: &[Step], columns: &[Column], references: &References) -> Result<Self> {
        let mut now: Vec<Typed> = columns.iter().map(|c| (c.name.clone(), c.r#type.clone())).collect();
        let (mut built, mut wrong) = (Vec::with_capacity(steps.len()), Vec::new());
        for step in steps {
            match Built::new(step, &now, references) {
                Ok(step) => built.push(step),
                Err(message) => wrong.push(message),
            }
            now = after(step, &now);
        }
        if !wrong.is_empty() {
            return Err(Error::config(wrong.join("\n")));
        }
        Ok(Self { steps: built, input: columns.len(), output: now })
    }

    /// Adds a last step that rejects rows without a value in one of these columns of the table.
    ///
    /// # Errors
    /// `Config` for a column that is not there after the other steps.
    pub fn requiring(mut self, columns: &[ColumnName]) -> Result<Self> {
        for name in columns {
            let at = self.output.iter().position(|(column, _)| column == name.as_str());
            let at = at.ok_or_else(|| Error::config(format!("no column `{name}` after the steps")))?;
            self.steps.push(Built::present(at, &self.output));
        }
        Ok(self)
    }

    /// What works on each step, in order; without those added later.
    pub fn engines(&self) -> impl Iterator<Item = Engine> + '_ {
        self.steps.iter().map(|step| match &step.work {
            Work::Layout => Engine { name: "nothing", plan: None },
            Work::Make(kernel) => Engine { name: kernel.engine(), plan: kernel.plan() },
            Work::Keep(keep, _) => Engine { name: keep.engine(), plan: keep.plan() },
            Work::Explode(_) => Engine { name: "Arrow", plan: None },
        })
    }

    /// What the steps may come to hold in the course of a run, bytes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let held = |step: &Built| match &step.work {
            Work::Keep(keep, _) => keep.held_bytes(),
            Work::Make(kernel) => kernel.held_bytes(),
            Work::Layout | Work::Explode(_) => 0,
        };
        self.steps.iter().map(held).sum()
    }

    /// What a step may hold besides the batch while it works on it, bytes.
    #[must_use]
    pub fn call_bytes(&self) -> u64 {
        let of = |step: &Built| match &step.work {
            Work::Make(kernel) => kernel.call_bytes(),
            Work::Layout | Work::Keep(..) | Work::Explode(_) => 0,
        };
        self.steps.iter().map(of).max().unwrap_or_default()
    }

    /// Columns after the last step, in order.
    #[must_use]
    pub fn output(&self) -> &[Typed] {
        &self.output
    }

    /// Whether a step can reject a row, so that the raw records of a batch must be kept until it has passed.
    #[must_use]
    pub fn can_reject(&self) -> bool {
        self.steps.iter().any(|step| step.can_reject)
    }

    /// Whether a record may become several rows.
    #[must_use]
    pub fn explodes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.work, Work::Explode(_)))
    }

    /// Runs the steps on a batch as a whole. Without steps it passes as it is.
    ///
    /// # Errors
    /// `Bug` when the batch is not of the columns that were planned.
    pub fn apply(&self, batch: RecordBatch) -> Result<Outcome> {
        let outcome = self.next(&mut self.begin(batch, None, usize::MAX)?)?;
        outcome.ok_or_else(|| Error::bug("a batch came to nothing"))
    }

    /// Begins with a batch, of which [`Self::next`] makes parts: several where a step makes many bytes of few, so that no part
    /// takes much more than `bytes_max`. No filter takes out a row of which `spared` says so: a delete has to reach the table
    /// whatever the row had looked like.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn begin(&self, batch: RecordBatch, spared: Option<BooleanBuffer>, bytes_max: usize) -> Result<Parts> {
        if self.steps.is_empty() {
            return Ok(Parts { whole: Some(batch), pending: Vec::new(), spared, bytes_max });
        }
        if batch.num_columns() != self.input {
            return Err(Error::bug(format!("a batch of {} columns, {} expected", batch.num_columns(), self.input)));
        }
        Ok(Parts { whole: None, pending: vec![Part::new(Frame::new(batch))], spared, bytes_max })
    }

    /// Runs the steps on the next part; `None` behind the last. There is always a first.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn next(&self, parts: &mut Parts) -> Result<Option<Outcome>> {
        if let Some(batch) = parts.whole.take() {
            return Ok(Some(Outcome { batch, rows: None, filtered: Vec::new(), rejected: Vec::new() }));
        }
        let Some(mut part) = parts.pending.pop() else { return Ok(None) };
        while let Some(step) = self.steps.get(part.step) {
            let rest = step.run(&mut part, parts.spared.as_ref(), parts.bytes_max);
            parts.pending.extend(rest.map_err(|e| Error::new(e.kind(), format!("{}: {e}", step.at)))?);
            part.step += 1;
        }
        let Part { mut frame, mut filtered, mut rejected, .. } = part;
        if self.explodes() {
            outcome::settle(&mut frame, &mut filtered, &mut rejected)?;
        }
        let (arrays, count, rows) = frame.into_parts();
        let fields = self.output.iter().map(|(name, logical)| Field::new(name, data_type(logical), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|e| Error::bug("steps left other columns than they said").with_source(e))?;
        Ok(Some(Outcome { batch, rows, filtered, rejected }))
    }
}

impl Built {
    fn new(step: &Step, now: &[Typed], references: &References) -> Result<Self, String> {
        let reads = step.plan.reads.clone();
        let read: Vec<Typed> = reads.iter().filter_map(|at| now.get(*at).cloned()).collect();
        let makes: Vec<Typed> = step.plan.makes().map(|(name, r#type)| (name.to_owned(), r#type.clone())).collect();
        let call = Call { args: &step.args, reads: &read, makes: &makes, schema: now, references };
        let work = functions::build(step.function, &call).map_err(|(argument, message)| {
            let place = step.place(argument);
            let inner = if argument.is_empty() { String::new() } else { format!(".{argument}") };
            format!("{place}: {}{inner}: {message}", step.function.name)
        })?;
        let is_own = step.function.builder.is_some();
        let work = if is_own { own::held(work, step.function, &makes) } else { work };
        let can_reject = match &work {
            _ if is_own => true,
            Work::Make(kernel) => !step.function.rejects.is_empty() && kernel.can_reject(),
            Work::Keep(keep, _) => keep.can_reject(),
            Work::Explode(_) => true,
            Work::Layout => false,
        };
        let makes = makes.iter().map(|(_, logical)| data_type(logical)).collect();
        Ok(Self { at: step.at.as_str().into(), work, plan: step.plan.clone(), reads, read, makes, can_reject })
    }

    /// A step that rejects rows whose column at `at` has no value.
    fn present(at: usize, output: &[Typed]) -> Self {
        let after = output.iter().enumerate().map(|(i, (name, r#type))| (outcome::kept(name, r#type), i));
        let after = after.map(|(column, i)| (column, Source::Kept(i))).collect();
        Self {
            at: "idColumns".into(),
            work: Work::Make(Box::new(outcome::Present)),
            plan: Planned { reads: vec![at], after },
            reads: vec![at],
            read: vec![output[at].clone()],
            makes: Vec::new(),
            can_reject: true,
        }
    }

    /// Runs the step on a part; gives what of it is to go through the rest of the steps later, the last of it first.
    fn run(&self, part: &mut Part, spared: Option<&BooleanBuffer>, bytes_max: usize) -> Result<Vec<Part>> {
        match &self.work {
            Work::Explode(explode) => Ok(self.explode(&**explode, part, bytes_max)?.into_iter().collect()),
            Work::Make(kernel) => self.make(&**kernel, part, bytes_max),
            Work::Layout => part.frame.arrange(&self.plan, &[]).map(|()| Vec::new()),
            Work::Keep(keep, reason) => self.keep(&**keep, reason, part, spared, bytes_max).map(|()| Vec::new()),
        }
    }

    /// Makes columns for as many records of a part as there is room for.
    fn make(&self, kernel: &dyn Kernel, part: &mut Part, bytes_max: usize) -> Result<Vec<Part>> {
        let room = part.room(bytes_max);
        let Made { mut columns, mut rejects } = self.call(kernel, &part.frame, part.frame.rows(), room)?;
        let worked = columns.first().map_or(part.frame.rows(), |column| column.len());
        let mut at = part.frame.record_start(worked);
        let mut later = Vec::new();
        if worked < part.frame.rows() && at == 0 {
            // One record has more rows than there is room for. It may be larger than a part, but not by any amount.
            at = part.frame.record_end(0);
            let room = Room { bytes: bytes_max.saturating_mul(parts::RECORD_PARTS), ..room };
            let made = self.call(kernel, &part.frame, at, room)?;
            later.extend(part.split_off_some(at));
            if made.columns.iter().any(|column| column.len() < at) {
                let why = Why::large(room.bytes).at(self.made_path());
                part.rejected.extend(self.rejects_of(&part.frame, vec![(0, why)]));
                part.frame.remove(&(0..at).collect::<Vec<_>>())?;
                columns = self.makes.iter().map(arrow_array::new_empty_array).collect();
                return part.frame.arrange(&self.plan, &columns).map(|()| later);
            }
            Made { columns, rejects } = made;
        } else if worked < part.frame.rows() {
            later.extend(part.split_off_some(at));
            for column in &mut columns {
                *column = column.slice(0, at);
            }
            rejects.retain(|(row, _)| *row < at);
        }
        part.frame.arrange(&self.plan, &columns)?;
        let rows: Vec<usize> = rejects.iter().map(|(row, _)| *row).collect();
        part.rejected.extend(self.rejects_of(&part.frame, rejects));
        part.frame.remove(&rows)?;
        later.extend(part.cut_grown(room.bytes));
        Ok(later)
    }

    /// What a kernel makes of the first rows of a frame. Where it panics it is given fewer, down to the one row that makes it
    /// panic and is rejected: nobody foresees everything that is in a record.
    fn call(&self, kernel: &dyn Kernel, frame: &Frame, rows: usize, room: Room) -> Result<Made> {
        let arrays = self.arrays(frame, rows)?;
        let made = seam::caught(|| kernel.call(&Batch { columns: &self.columns(&arrays), rows, room }));
        let made = match made {
            Ok(made) => made?,
            Err(_) if self.can_reject && rows > 1 => return self.call(kernel, frame, rows.div_ceil(2), room),
            Err(place) if self.can_reject => {
                let why = Why::form(format!("the step panicked at {place}")).at(self.made_path());
                let columns = self.makes.iter().map(|of| arrow_array::new_null_array(of, rows)).collect();
                Made { columns, rejects: (0..rows).map(|row| (row, why.clone())).collect() }
            }
            Err(place) => return Err(Error::bug(format!("it panicked at {place}"))),
        };
        self.check_made(&made.columns)?;
        let lengths: BTreeSet<usize> = made.columns.iter().map(|column| column.len()).collect();
        match lengths.last() {
            Some(worked) if lengths.len() > 1 || *worked > rows || *worked == 0 && rows > 0 => {
                Err(Error::bug(format!("the step made columns of {lengths:?} values for {rows} rows")))
            }
            _ => Ok(made),
        }
    }

    /// Leaves rows out.
    fn keep(
        &self,
        keep: &dyn Keep,
        reason: &str,
        part: &mut Part,
        spared: Option<&BooleanBuffer>,
        bytes_max: usize,
    ) -> Result<()> {
        let room = part.room(bytes_max);
        let Part { frame, filtered, rejected, .. } = part;
        let arrays = self.arrays(frame, frame.rows())?;
        let batch = Batch { columns: &self.columns(&arrays), rows: frame.rows(), room };
        let Judged { stays, mut rejects } = keep.keep(&batch)?;
        if stays.len() != frame.rows() {
            return Err(Error::bug(format!("{} answers for {} rows", stays.len(), frame.rows())));
        }
        let spared = |row: usize| spared.is_some_and(|spared| spared.value(frame.id(row) as usize));
        rejects.retain(|(row, _)| !spared(*row));
        let bad: BTreeSet<usize> = rejects.iter().map(|(row, _)| *row).collect();
        let goes = |row: &usize| stays.is_null(*row) || !stays.value(*row);
        let left: Vec<usize> =
            (0..stays.len()).filter(|row| goes(row) && !spared(*row) && !bad.contains(row)).collect();
        let out: Vec<usize> = bad.iter().chain(&left).copied().collect();
        if !left.is_empty() {
            filtered.push((reason.to_owned(), left.iter().map(|row| frame.id(*row)).collect()));
        }
        rejected.extend(self.rejects_of(frame, rejects));
        frame.remove(&out)
    }

    /// Makes several rows of one, of as many records as a part may have.
    fn explode(&self, explode: &dyn kernel::Explode, part: &mut Part, bytes_max: usize) -> Result<Option<Part>> {
        let kept = self.plan.after.iter().filter_map(|(_, source)| match source {
            Source::Kept(at) => Some(*at),
            Source::Made(_) => None,
        });
        let kept = |part: &Part| kept.clone().map(|at| part.frame.get(at).cloned()).collect::<Result<Vec<_>>>();
        let kept = kept(part)?;
        if part.exploded.is_none() {
            part.exploded = Some(self.exploded(explode, part, &kept, bytes_max)?);
        }
        let rest = part.cut(&kept, bytes_max);
        if let Some(Rows { from, columns }) = part.exploded.take() {
            part.frame.repeat(&from)?;
            part.frame.arrange(&self.plan, &columns)?;
        }
        Ok(rest)
    }

    /// The rows that are to be made of a part, without those of records that are rejected.
    fn exploded(
        &self,
        explode: &dyn kernel::Explode,
        part: &mut Part,
        kept: &[ArrayRef],
        bytes_max: usize,
    ) -> Result<Rows> {
        let arrays = self.arrays(&part.frame, part.frame.rows())?;
        let columns = self.columns(&arrays);
        let Exploded { from, columns, rejects } = explode.explode(&Batch::new(&columns, part.frame.rows()))?;
        self.check_made(&columns)?;
        let mut left = from.values().iter().copied().peekable();
        let mut bad = rejects.iter().map(|(row, _)| *row).peekable();
        let gone = (0..part.frame.rows()).filter(|row| {
            let stays = left.peek().is_some_and(|from| *from as usize == *row);
            while left.next_if(|from| *from as usize == *row).is_some() {}
            bad.next_if_eq(row).is_none() && !stays
        });
        let gone: Vec<u32> = gone.map(|row| part.frame.id(row)).collect();
        if !gone.is_empty() {
            part.filtered.push((kernel::EMPTY.to_owned(), gone));
        }
        part.rejected.extend(self.rejects_of(&part.frame, rejects));
        let mut rows = Rows { from, columns };
        let too_large = part.too_large(kept, &rows, bytes_max);
        let why = || Rejected {
            path: self.read.first().map(|(name, _)| name.clone()).unwrap_or_default(),
            reason: RejectKind::TooLarge,
            detail: "its rows would repeat more bytes than memory allows; drop wide columns before".to_owned(),
        };
        let rejects = too_large.iter().map(|row| (*row, why())).collect();
        part.rejected.extend(self.rejects_of(&part.frame, rejects));
        rows.without(&too_large)?;
        Ok(rows)
    }

    /// The values that it is handed, of the first rows.
    fn arrays(&self, frame: &Frame, rows: usize) -> Result<Vec<ArrayRef>> {
        let first = |array: &ArrayRef| if array.len() == rows { Arc::clone(array) } else { array.slice(0, rows) };
        self.reads.iter().map(|at| frame.get(*at).map(first)).collect()
    }

    /// The column that a reject of all that it made is about.
    fn made_path(&self) -> &str {
        let made = self.plan.makes().next().map(|(name, _)| name);
        made.or_else(|| self.read.first().map(|(name, _)| name.as_str())).unwrap_or_default()
    }

    /// The columns that it is handed.
    fn columns<'a>(&'a self, arrays: &'a [ArrayRef]) -> Vec<kernel::Column<'a>> {
        let columns = self.read.iter().zip(arrays);
        columns.map(|((name, r#type), array)| kernel::Column { name, r#type, array }).collect()
    }

    /// Rejects with the numbers that their rows had in the batch as it entered.
    fn rejects_of(&self, frame: &Frame, rejects: Vec<(usize, Rejected)>) -> Vec<RowReject> {
        let of = |(row, why)| RowReject { row: frame.id(row), step: Arc::clone(&self.at), why };
        rejects.into_iter().map(of).collect()
    }

    /// What a kernel made must be what was planned: a plug-in's word is not enough.
    fn check_made(&self, columns: &[ArrayRef]) -> Result<()> {
        let made: Vec<&DataType> = columns.iter().map(|column| column.data_type()).collect();
        if made == self.makes.iter().collect::<Vec<_>>() {
            return Ok(());
        }
        Err(Error::bug(format!("the step made columns of types {made:?}, planned were {:?}", self.makes)))
    }
}

/// Names and types of the columns behind a step. What it keeps is of the type that it really has: a column that landing
/// has protected comes as text, whatever was planned.
fn after(step: &Step, now: &[Typed]) -> Vec<Typed> {
    let typed = |(column, source): &(Column, Source)| match source {
        Source::Kept(at) => (column.name.clone(), now.get(*at).map_or(&column.r#type, |(_, r#type)| r#type).clone()),
        Source::Made(_) => (column.name.clone(), column.r#type.clone()),
    };
    step.plan.after.iter().map(typed).collect()
}

/// Whether any value of `array` is null where `before` had one.
fn new_nulls(before: &dyn Array, after: &dyn Array) -> Vec<usize> {
    if after.null_count() == before.null_count() {
        return Vec::new();
    }
    (0..after.len()).filter(|row| after.is_null(*row) && before.is_valid(*row)).collect()
}

#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod tests;
