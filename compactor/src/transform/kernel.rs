//! The seam between steps and the code that works on values: whole Arrow columns in, whole columns out, and the rows that
//! do not fit. Built-in functions, a team's own crate and plug-ins stand behind the same [`Kernel`].

use std::borrow::Cow;
use std::fmt;

use arrow_array::{ArrayRef, BooleanArray, UInt32Array};
use firn_shared::error::{Error, Result};
pub use firn_shared::functions::takes::Misfit;
use firn_shared::functions::{Args, columns_here};
use firn_shared::types::LogicalType;

use super::lookup::References;
use crate::decode::{RejectKind, Rejected};

/// A name and a type.
pub type Typed = (String, LogicalType);

/// Columns as messages show them.
pub(super) fn shown(columns: &[Typed]) -> String {
    columns_here(columns.iter().map(|(name, r#type)| (name.as_str(), r#type, true)))
}

/// What a step's work is built from.
#[derive(Debug)]
pub struct Call<'a> {
    /// The arguments.
    pub args: &'a Args,
    /// The columns it reads, in the order of [`Batch::columns`].
    pub reads: &'a [Typed],
    /// The columns it makes, in the order of [`Made::columns`].
    pub makes: &'a [Typed],
    /// All columns before the step.
    pub schema: &'a [Typed],
    /// Files that look-ups read.
    pub references: &'a References,
}

impl Call<'_> {
    /// The type of the first column read.
    pub fn from(&self) -> Result<&LogicalType> {
        self.reads.first().map(|(_, r#type)| r#type).ok_or_else(|| Error::bug("a function of a column reads none"))
    }

    /// The type of the first column made.
    pub fn to(&self) -> Result<&LogicalType> {
        self.makes.first().map(|(_, r#type)| r#type).ok_or_else(|| Error::bug("a function of a column makes none"))
    }
}

/// A column of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// Its name, for the path of a reject.
    pub name: &'a str,
    /// Its type.
    pub r#type: &'a LogicalType,
    /// Its values.
    pub array: &'a ArrayRef,
}

/// The columns that a step reads, of one batch.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The columns.
    pub columns: &'a [Column<'a>],
    /// How many rows there are.
    pub rows: usize,
    /// What may be made of them at once.
    pub room: Room,
}

impl<'a> Batch<'a> {
    /// A batch of which as much may be made as there is.
    pub fn new(columns: &'a [Column<'a>], rows: usize) -> Self {
        Self { columns, rows, room: Room::UNBOUNDED }
    }

    /// The column of this number.
    ///
    /// # Errors
    /// `Bug` when the step reads fewer.
    pub fn column(&self, number: usize) -> Result<Column<'a>> {
        let column = self.columns.get(number).copied();
        column.ok_or_else(|| Error::bug(format!("a step reads no column {number}")))
    }
}

/// Bytes that a step may make of a batch, so that no input makes it hold more than the bound on memory allows.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Of the rows that are worked on, all of their columns and what is made together.
    pub bytes: usize,
    /// What a row of the batch takes, on average.
    pub of_row: usize,
    /// One value that is longer than what it is made of.
    pub value: usize,
}

impl Room {
    /// There is no bound.
    pub const UNBOUNDED: Self = Self { bytes: usize::MAX, of_row: 0, value: usize::MAX };

    /// Whether so many rows, of which so many bytes are made, are too much: a kernel stops before the row by which they
    /// are. The first row is never too much.
    #[must_use]
    pub fn is_over(&self, rows: usize, made: usize) -> bool {
        rows > 1 && made.saturating_add(rows.saturating_mul(self.of_row)) > self.bytes
    }

    /// How many of the first rows fit, by the bytes that are made of each; at least one, where there is any.
    #[must_use]
    pub fn rows_of(&self, made: impl IntoIterator<Item = usize>) -> usize {
        let mut all = 0_usize;
        let fits = |(row, of_row): &(usize, usize)| {
            all = all.saturating_add(*of_row);
            !self.is_over(row + 1, all)
        };
        made.into_iter().enumerate().take_while(fits).count()
    }

    /// The longest value that may be made of one of so many bytes.
    #[must_use]
    pub fn longest(&self, from: usize) -> usize {
        self.value.max(from)
    }
}

/// Columns that a step made. A rejected row has any value, best null.
#[derive(Debug)]
pub struct Made {
    /// In the order of [`Call::makes`], each of its type and as long as the batch, or all of them as long as its first rows
    /// that were worked on ([`Room`]): the others are handed over again.
    pub columns: Vec<ArrayRef>,
    /// Rows that do not fit, ascending, once each.
    pub rejects: Vec<(usize, Rejected)>,
}

impl Made {
    /// One column that every row fits.
    pub fn one(column: ArrayRef) -> Self {
        Self { columns: vec![column], rejects: Vec::new() }
    }
}

/// Makes columns of columns. What it gives for a row hangs on that row alone, and on no clock and no chance: the same raw
/// records must give the same table again.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// What works on the columns, for `explain`.
    fn engine(&self) -> &'static str {
        "Arrow"
    }

    /// More about how, such as the plan of an expression.
    fn plan(&self) -> Option<String> {
        None
    }

    /// Whether a value may be rejected; by default what the function's description says.
    fn can_reject(&self) -> bool {
        true
    }

    /// What it holds in the course of a run, bytes.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// What one call may hold besides the batch, bytes.
    fn call_bytes(&self) -> u64 {
        0
    }

    /// Works on one batch, or on a part of one; called from many threads. Of a function that is not ours a row on which it
    /// panics is rejected, and the rest of its batch handed over again; ours must not panic.
    ///
    /// # Errors
    /// Only when the run must end. A value that does not fit is a reject, never an error.
    fn call(&self, batch: &Batch<'_>) -> Result<Made>;
}

/// Says which rows stay.
pub trait Keep: fmt::Debug + Send + Sync {
    /// What works on the columns, for `explain`.
    fn engine(&self) -> &'static str {
        "Arrow"
    }

    /// More about how.
    fn plan(&self) -> Option<String> {
        None
    }

    /// What it may come to hold in the course of a run, bytes.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// Whether a row may be one that it cannot judge.
    fn can_reject(&self) -> bool {
        false
    }

    /// Judges each row of a batch.
    ///
    /// # Errors
    /// Only when the run must end.
    fn keep(&self, batch: &Batch<'_>) -> Result<Judged>;
}

/// Which rows stay.
#[derive(Debug)]
pub struct Judged {
    /// True for each row that stays; false and null go.
    pub stays: BooleanArray,
    /// Rows that cannot be judged, ascending, once each: they neither stay nor go unseen.
    pub rejects: Vec<(usize, Rejected)>,
}

impl From<BooleanArray> for Judged {
    fn from(stays: BooleanArray) -> Self {
        Self { stays, rejects: Vec::new() }
    }
}

/// The reason under which records are counted that became no row at all.
pub const EMPTY: &str = "empty";

/// Makes several rows of one.
pub trait Explode: fmt::Debug + Send + Sync {
    /// Works on one batch.
    ///
    /// # Errors
    /// Only when the run must end.
    fn explode(&self, batch: &Batch<'_>) -> Result<Exploded>;
}

/// Rows made of rows.
#[derive(Debug)]
pub struct Exploded {
    /// For each row that comes out the number of the row it comes from, ascending.
    pub from: UInt32Array,
    /// The columns made for these rows.
    pub columns: Vec<ArrayRef>,
    /// Rows that do not fit, ascending; nothing comes from them.
    pub rejects: Vec<(usize, Rejected)>,
}

/// The work of a step.
#[derive(Debug)]
pub enum Work {
    /// Columns are arranged anew, as planned; no value is touched.
    Layout,
    /// Columns are made.
    Make(Box<dyn Kernel>),
    /// Rows are left out, and counted under this reason.
    Keep(Box<dyn Keep>, String),
    /// Rows become several.
    Explode(Box<dyn Explode>),
}

/// Builds a step's work.
pub type Build = fn(&Call<'_>) -> Result<Work, Misfit>;

/// Builds the work of a function that is not ours; what [`firn_shared::functions::Function::built_by`] takes, inside
/// [`Own`].
pub trait Builder: Send + Sync {
    /// The work of a step.
    ///
    /// # Errors
    /// Which argument does not fit, and why.
    fn build(&self, call: &Call<'_>) -> Result<Work, Misfit>;
}

impl<F: Fn(&Call<'_>) -> Result<Work, Misfit> + Send + Sync> Builder for F {
    fn build(&self, call: &Call<'_>) -> Result<Work, Misfit> {
        self(call)
    }
}

/// A builder as a function's description carries it.
#[derive(Clone, Copy)]
pub struct Own(pub &'static dyn Builder);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

/// An error of the run while a step is built, as a misfit of the step.
pub fn broken(error: Error) -> Misfit {
    ("", error.to_string())
}

/// Why a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What is wrong.
    pub reason: RejectKind,
    /// In words; never the value.
    pub detail: Cow<'static, str>,
}

impl Why {
    /// Text of another form than wanted.
    pub fn form(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: RejectKind::BadFormat, detail: detail.into() }
    }

    /// A number beyond what the result takes.
    pub fn range(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: RejectKind::OutOfRange, detail: detail.into() }
    }

    /// A result of more bytes than one value may have.
    pub fn large(bytes_max: usize) -> Self {
        let detail = format!("the result would take more than {bytes_max} bytes, which is more than memory allows");
        Self { reason: RejectKind::TooLarge, detail: detail.into() }
    }

    /// With the place.
    pub fn at(self, path: &str) -> Rejected {
        Rejected { path: path.to_owned(), reason: self.reason, detail: self.detail.into_owned() }
    }
}
