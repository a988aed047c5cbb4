//! Values that depend on other values.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, Datum, Scalar, new_null_array};
use arrow_schema::DataType;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, values as spec};
use firn_shared::types::LogicalType;
use polars::prelude::{self as pl, Series};

use super::columns::literal;
use crate::arrow_types::data_type;
use crate::decode::{RejectKind, Rejected};
use crate::transform::cast::Cast;
use crate::transform::expr::{self, Expression, Predicate};
use crate::transform::ffi;
use crate::transform::kernel::{Batch, Build, Call, Keep, Kernel, Made, Misfit, Why, Work, broken, shown};
use crate::transform::lookup::Index;
use crate::transform::parts::{add_bytes, bytes_of};
use crate::transform::values::text_or_reject;
use crate::transform::years;

/// This family.
pub const TABLE: &[(&Function, Build)] =
    &[(&spec::EXPR, expr), (&spec::IF, if_then), (&spec::REPLACE_VALUES, replace_values), (&spec::LOOKUP, lookup)];

/// `expr`: an expression, and the exact way from its type to the one that was asked for.
#[derive(Debug)]
struct Computed {
    expression: Expression,
    from: Option<LogicalType>,
    cast: Option<Cast>,
    to: DataType,
    name: String,
}

fn expr(call: &Call<'_>) -> Result<Work, Misfit> {
    let expression = Expression::new(call.args.text("sql").map_err(broken)?, call.schema);
    let expression = expression.map_err(|e| ("sql", e.to_string()))?;
    let to = call.to().map_err(broken)?;
    let here = |(arg, message): Misfit| (arg, format!("{message}; {}", shown(call.schema)));
    let from = logical(expression.r#type()).map_err(here)?;
    let cast = from
        .as_ref()
        .map(|from| Cast::new(from, to, None).map_err(|e| here(("type", format!("the expression gives {from}; {e}")))));
    let cast = cast.transpose()?;
    let name = call.args.text("as").map_err(broken)?.to_owned();
    Ok(Work::Make(Box::new(Computed { expression, from, cast, to: data_type(to), name })))
}

/// The type of a table for a Polars type; none where every value is null.
fn logical(polars: &pl::DataType) -> Result<Option<LogicalType>, Misfit> {
    match (polars, expr::logical(polars)) {
        (pl::DataType::Null, _) => Ok(None),
        (_, Some(logical)) => Ok(Some(logical)),
        (other, None) => Err(("sql", format!("gives {other}, which no column holds; cast it inside the expression"))),
    }
}

/// The Polars type that the values of a wider one are read as.
fn plain(series: Series, from: &LogicalType) -> Result<Series> {
    let to = match from {
        LogicalType::Int => pl::DataType::Int32,
        LogicalType::Long => pl::DataType::Int64,
        _ => return Ok(series),
    };
    series.cast(&to).map_err(|e| Error::bug(format!("integers of an expression as {to}: {e}")))
}

impl Kernel for Computed {
    fn engine(&self) -> &'static str {
        "Polars"
    }

    fn plan(&self) -> Option<String> {
        Some(self.expression.plan())
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let (Some(from), Some(cast)) = (&self.from, &self.cast) else {
            return Ok(Made::one(new_null_array(&self.to, batch.rows)));
        };
        let (values, failed) = self.expression.of(batch)?;
        let array = ffi::from_polars(&plain(values, from)?, &data_type(from))?;
        let (array, mut rejects) = cast.apply(&self.name, &array)?;
        rejects.extend(failed.into_iter().map(|(row, why)| (row, why.at(&self.name))));
        rejects.extend(years::beyond(&array).into_iter().map(|row| (row, years::reject(&self.name))));
        rejects.sort_by_key(|(row, _)| *row);
        rejects.dedup_by_key(|(row, _)| *row);
        Ok(Made { columns: vec![array], rejects })
    }
}

/// `if`: one of two values.
#[derive(Debug)]
struct Choice {
    predicate: Predicate,
    then: Scalar<ArrayRef>,
    other: Scalar<ArrayRef>,
    name: String,
}

fn if_then(call: &Call<'_>) -> Result<Work, Misfit> {
    let predicate = Predicate::new(call.args.text("where").map_err(broken)?, call.schema);
    let predicate = predicate.map_err(|e| ("where", e.to_string()))?;
    let to = call.to().map_err(broken)?;
    let other = match call.args.get("else") {
        Some(_) => literal(call, "else", to)?,
        None => Scalar::new(new_null_array(&data_type(to), 1)),
    };
    let name = call.args.text("as").map_err(broken)?.to_owned();
    Ok(Work::Make(Box::new(Choice { predicate, then: literal(call, "then", to)?, other, name })))
}

impl Kernel for Choice {
    fn engine(&self) -> &'static str {
        "Polars"
    }

    fn plan(&self) -> Option<String> {
        self.predicate.plan()
    }

    fn can_reject(&self) -> bool {
        self.predicate.can_reject()
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let (chosen, mut failed) = self.predicate.answers(batch)?;
        let [then, other] = [&self.then, &self.other].map(|value| bytes_of(value.get().0));
        let made = chosen.iter().map(|chosen| if chosen == Some(true) { then } else { other });
        let chosen = chosen.slice(0, batch.room.rows_of(made));
        failed.retain(|(row, _)| *row < chosen.len());
        let chosen: BooleanArray = chosen.iter().map(|chosen| Some(chosen == Some(true))).collect();
        let column = arrow_select::zip::zip(&chosen, &self.then, &self.other);
        let column = column.map_err(|e| Error::bug("if").with_source(e))?;
        let rejects = failed.into_iter().map(|(row, why)| (row, why.at(&self.name))).collect();
        Ok(Made { columns: vec![column], rejects })
    }
}

fn replace_values(call: &Call<'_>) -> Result<Work, Misfit> {
    let table: HashMap<String, String> = call.args.pairs("values").map_err(broken)?.clone().into_iter().collect();
    let other = call.args.text("other").map_err(broken)?.to_owned();
    Ok(text_or_reject(move |value, out| match table.get(value) {
        Some(new) => {
            out.push_str(new);
            Ok(true)
        }
        None if other == "reject" => Err(Why::form("a value that is not in the table")),
        None => {
            out.push_str(value);
            Ok(other == "keep")
        }
    }))
}

/// `lookup`: rows of a file by key.
#[derive(Debug)]
struct Found {
    index: Arc<Index>,
    columns: Vec<ArrayRef>,
    /// What the values of each row take.
    widths: Vec<usize>,
    reject_missing: bool,
}

/// A longer value has no place in a look-up: every row that finds it would have it.
const FOUND_MAX: usize = 1 << 20;

fn lookup(call: &Call<'_>) -> Result<Work, Misfit> {
    let file = call.args.text("file").map_err(broken)?;
    let key = call.args.text("key").map_err(broken)?;
    let reject_missing = call.args.opt_text("missing") == Some("reject");
    if call.references.is_unread() {
        let columns = call.makes.iter().map(|(_, r#type)| new_null_array(&data_type(r#type), 0)).collect();
        let (index, widths) = (Arc::default(), Vec::new());
        return Ok(Work::Make(Box::new(Found { index, columns, widths, reject_missing })));
    }
    let reference = call.references.get(file);
    let reference = reference.ok_or_else(|| ("file", format!("`{file}` was not loaded")))?;
    let index = reference.index(key).map_err(|message| ("key", message))?;
    let take = call.args.types("take").iter();
    let columns = take.map(|(name, r#type)| reference.column(name, r#type)).collect::<Result<_, String>>();
    let columns: Vec<ArrayRef> = columns.map_err(|message| ("take", message))?;
    let mut widths = vec![0; columns.first().map_or(0, |column| column.len())];
    for column in &columns {
        add_bytes(column, &mut widths);
    }
    if let Some(row) = widths.iter().position(|width| *width > FOUND_MAX) {
        let (row, width) = (row + 1, widths[row]);
        return Err(("take", format!("row {row} of the file takes {width} bytes; a look-up adds up to {FOUND_MAX}")));
    }
    Ok(Work::Make(Box::new(Found { index, columns, widths, reject_missing })))
}

impl Kernel for Found {
    fn can_reject(&self) -> bool {
        self.reject_missing
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let column = batch.column(0)?;
        let rows = self.index.find(column.array)?;
        let found = rows.iter().map(|row| row.map_or(0, |row| self.widths[row as usize]));
        let rows = rows.slice(0, batch.room.rows_of(found));
        let missing = |row: &usize| self.reject_missing && rows.is_null(*row) && column.array.is_valid(*row);
        let why = || Rejected {
            path: column.name.to_owned(),
            reason: RejectKind::Missing,
            detail: "the file of the look-up does not have the value".to_owned(),
        };
        let rejects = (0..rows.len()).filter(missing).map(|row| (row, why())).collect();
        let take = |values: &ArrayRef| arrow_select::take::take(values, &rows, None);
        let columns = self.columns.iter().map(take).collect::<Result<_, _>>();
        let columns = columns.map_err(|e| Error::bug("cannot take the rows of a look-up").with_source(e))?;
        Ok(Made { columns, rejects })
    }
}
