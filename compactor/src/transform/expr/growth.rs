//! How many bytes an expression makes of each row, told before Polars makes them: `LPAD(s, n)` by the `n` of one record
//! could ask for more than the machine has.

use arrow_array::cast::AsArray;
use polars::lazy::dsl::{Expr, FunctionExpr, StringFunction, TemporalFunction};
use polars::prelude::{DataType, Field, Operator, Schema, Series};

use super::lenient::Lenient;
use super::{Expression, evaluate};
use crate::transform::kernel::Batch;
use crate::transform::parts::add_bytes;

/// Any number, truth value or time as text.
const SCALAR_TEXT: usize = 64;

/// Whether an expression may make more than a few times the bytes that it reads.
pub fn is_possible(expr: &Expr, types: &Schema) -> bool {
    expr.into_iter().any(|node| match node {
        Expr::Literal(value) => value.extract_str().is_some_and(|text| text.len() > SCALAR_TEXT),
        Expr::BinaryExpr { op: Operator::Plus, .. } => {
            node.to_field(types).is_ok_and(|field| *field.dtype() == DataType::String)
        }
        Expr::Function { function: FunctionExpr::StringExpr(function), .. } => matches!(
            function,
            StringFunction::ConcatHorizontal { .. }
                | StringFunction::Replace { .. }
                | StringFunction::PadStart { .. }
                | StringFunction::PadEnd { .. }
                | StringFunction::Normalize { .. }
                | StringFunction::Split(_)
        ),
        Expr::Function { function: FunctionExpr::TemporalExpr(TemporalFunction::ToString(_)), .. } => true,
        _ => false,
    })
}

/// An expression and the rows that it is about to work on.
pub struct Growth<'a> {
    pub expression: &'a Expression,
    pub batch: &'a Batch<'a>,
    pub columns: &'a [Series],
    /// How many of the first rows are looked at.
    pub rows: usize,
}

impl Growth<'_> {
    /// How many of the first rows there is room for. One that might become too long goes alone, so that what becomes of it
    /// does not hang on the rows beside it.
    pub fn room(&self) -> usize {
        let (all, room) = (self.all(), self.batch.room);
        let long = all.iter().position(|bytes| *bytes > room.value).unwrap_or(all.len());
        room.rows_of(all.iter().copied()).min(long.max(1))
    }

    /// The longest text that may be made of the first row.
    pub fn value_max(&self) -> usize {
        let mut widths = vec![0; self.rows];
        self.batch.columns.iter().for_each(|column| add_bytes(column.array, &mut widths));
        self.batch.room.longest(widths.first().copied().unwrap_or_default())
    }

    /// Whether no text that is made of the first row is too long. Where the bound says so, its parts are made one by one.
    pub fn first_fits(&self) -> bool {
        let (first, max) = (Self { rows: 1, ..*self }, self.value_max());
        first.all().iter().all(|bytes| *bytes <= max) || first.is_short(&self.expression.expr, max)
    }

    /// At most so many bytes are made of each row.
    fn all(&self) -> Vec<usize> {
        let mut all = vec![0; self.rows];
        self.value(&self.expression.expr, &mut all);
        all
    }

    /// At most so many bytes are the values of an expression; those of everything on the way are added to `all`.
    fn value(&self, expr: &Expr, all: &mut [usize]) -> Vec<usize> {
        let rows = self.rows;
        let (bytes, is_new) = match expr {
            Expr::Column(name) => (self.widths(name), false),
            Expr::Literal(value) => (vec![value.extract_str().map_or(8, str::len); rows], false),
            Expr::Alias(inner, _) | Expr::KeepName(inner) => (self.value(inner, all), false),
            Expr::Cast { expr, dtype, .. } => {
                let bytes = self.value(expr, all);
                let is_text = dtype.as_literal().is_none_or(|dtype| *dtype == DataType::String);
                let more = if is_text { SCALAR_TEXT } else { 0 };
                (bytes.into_iter().map(|bytes| bytes.saturating_add(more)).collect(), true)
            }
            Expr::BinaryExpr { left, right, .. } => (self.sum(&[left, right], all), true),
            Expr::Ternary { predicate, truthy, falsy } => {
                self.value(predicate, all);
                (self.sum(&[truthy, falsy], all), true)
            }
            Expr::Function { input, function } => (self.made(input, function, all), true),
            _ => (vec![0; rows], false),
        };
        if is_new {
            all.iter_mut().zip(&bytes).for_each(|(all, bytes)| *all = all.saturating_add(*bytes));
        }
        bytes
    }

    fn sum(&self, of: &[impl AsRef<Expr>], all: &mut [usize]) -> Vec<usize> {
        let mut sum = vec![0_usize; self.rows];
        for expr in of {
            let bytes = self.value(expr.as_ref(), all);
            sum.iter_mut().zip(bytes).for_each(|(sum, bytes)| *sum = sum.saturating_add(bytes));
        }
        sum
    }

    /// What a function makes.
    fn made(&self, input: &[Expr], function: &FunctionExpr, all: &mut [usize]) -> Vec<usize> {
        let of: Vec<Vec<usize>> = input.iter().map(|input| self.value(input, all)).collect();
        let first = || of.first().cloned().unwrap_or_default().into_iter();
        let sum = |row: usize| of.iter().map(|of| of[row]).fold(0, usize::saturating_add);
        let rows = 0..self.rows;
        let FunctionExpr::StringExpr(function) = function else {
            let more = match function {
                FunctionExpr::TemporalExpr(TemporalFunction::ToString(format)) => format.len().saturating_mul(16),
                _ => 0,
            };
            return rows.map(|row| sum(row).saturating_add(more)).collect();
        };
        match function {
            StringFunction::ConcatHorizontal { delimiter, .. } => {
                rows.map(|row| sum(row).saturating_add(delimiter.len() * input.len())).collect()
            }
            StringFunction::Replace { .. } => {
                let matches = self.matches(input, &of);
                rows.map(|row| of[0][row].saturating_add(matches[row].saturating_mul(of[2][row]))).collect()
            }
            StringFunction::PadStart { fill_char } | StringFunction::PadEnd { fill_char } => {
                let widths = self.numbers(&input[1]).into_iter();
                let filled = widths.map(|width| width.saturating_mul(fill_char.len_utf8()));
                first().zip(filled).map(|(bytes, filled)| bytes.saturating_add(filled)).collect()
            }
            // A character of three bytes has one of eighteen characters instead.
            StringFunction::Normalize { .. } => first().map(|bytes| bytes.saturating_mul(11)).collect(),
            StringFunction::Uppercase | StringFunction::Lowercase => {
                first().map(|bytes| bytes.saturating_mul(3)).collect()
            }
            // Every part is a view of 16 bytes.
            StringFunction::Split(_) => first().map(|bytes| bytes.saturating_mul(17).saturating_add(16)).collect(),
            _ => rows.map(sum).collect(),
        }
    }

    fn widths(&self, name: &str) -> Vec<usize> {
        let mut widths = vec![0; self.rows];
        if let Some(column) = self.batch.columns.iter().find(|column| column.name == name) {
            add_bytes(column.array, &mut widths);
        }
        widths
    }

    /// How often what is replaced is in each row, at most; exactly for a literal in a column.
    fn matches(&self, input: &[Expr], of: &[Vec<usize>]) -> Vec<usize> {
        if let (Expr::Column(name), Expr::Literal(find)) = (&input[0], &input[1])
            && let Some(find) = find.extract_str().filter(|find| !find.is_empty())
            && let Some(column) = self.batch.columns.iter().find(|column| column.name == name.as_str())
            && let Some(texts) = column.array.as_string_opt::<i32>()
        {
            let finder = memchr::memmem::Finder::new(find);
            let matches = |text: Option<&str>| text.map_or(0, |text| finder.find_iter(text.as_bytes()).count());
            return texts.iter().take(self.rows).map(matches).collect();
        }
        let at_most = |row: usize| match of[1][row] {
            0 => of[0][row].saturating_add(1),
            find => of[0][row] / find,
        };
        (0..self.rows).map(at_most).collect()
    }

    /// The whole numbers of an expression; as large as can be where it cannot be worked out.
    fn numbers(&self, expr: &Expr) -> Vec<usize> {
        let number = |n: Option<i64>| usize::try_from(n.unwrap_or_default()).unwrap_or_default();
        if let Expr::Literal(value) = expr {
            return vec![value.extract_i64().map_or(usize::MAX, |n| number(Some(n))); self.rows];
        }
        let columns: Vec<Series> = self.columns.iter().map(|column| column.slice(0, self.rows)).collect();
        let types = columns.iter().map(|column| Field::new(column.name().clone(), column.dtype().clone())).collect();
        let values = evaluate(expr, self.rows, columns.clone()).ok().or_else(|| {
            // Rows on which it fails come to nothing in the end.
            let (values, _) = Lenient::new(expr, types)?.of(self.rows, &columns).ok()?;
            Some(values)
        });
        let values = values.and_then(|values| values.cast(&DataType::Int64).ok());
        let numbers = values.as_ref().and_then(|values| values.i64().ok());
        numbers.map_or_else(|| vec![usize::MAX; self.rows], |numbers| numbers.iter().map(number).collect())
    }

    /// Whether every text on the way to the value of the first row is at most of `max` bytes; what is inside of a function
    /// is worked out first, so that no more is ever made.
    fn is_short(&self, expr: &Expr, max: usize) -> bool {
        let is_short = |inner: &Expr| self.is_short(inner, max);
        match expr {
            Expr::Alias(inner, _) | Expr::KeepName(inner) | Expr::Cast { expr: inner, .. } => is_short(inner),
            Expr::BinaryExpr { left, right, .. } => {
                is_short(left) && is_short(right) && self.length(left).saturating_add(self.length(right)) <= max
            }
            Expr::Ternary { predicate, truthy, falsy } => is_short(predicate) && is_short(truthy) && is_short(falsy),
            Expr::Function { input, function } => {
                if !input.iter().all(is_short) {
                    return false;
                }
                let FunctionExpr::StringExpr(function) = function else { return true };
                let length = |number: usize| self.length(&input[number]);
                let made = match function {
                    StringFunction::ConcatHorizontal { delimiter, .. } => {
                        (0..input.len()).map(length).fold(delimiter.len() * input.len(), usize::saturating_add)
                    }
                    StringFunction::Replace { .. } => {
                        let (text, find) = (self.text(&input[0]), self.text(&input[1]));
                        let matches = if find.is_empty() { text.len() + 1 } else { text.matches(&find).count() };
                        text.len().saturating_add(matches.saturating_mul(length(2)))
                    }
                    StringFunction::PadStart { fill_char } | StringFunction::PadEnd { fill_char } => {
                        let width = self.numbers(&input[1]).first().copied().unwrap_or_default();
                        length(0).saturating_add(width.saturating_mul(fill_char.len_utf8()))
                    }
                    _ => 0,
                };
                made <= max
            }
            _ => true,
        }
    }

    /// The text of an expression in the first row; empty for what is none.
    fn text(&self, expr: &Expr) -> String {
        let columns = self.columns.iter().map(|column| column.slice(0, 1)).collect();
        let value = evaluate(expr, 1, columns);
        let text = value.ok().and_then(|value| value.str().ok()?.get(0).map(str::to_owned));
        text.unwrap_or_default()
    }

    fn length(&self, expr: &Expr) -> usize {
        self.text(expr).len()
    }
}
