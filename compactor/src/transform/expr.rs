//! `expr` and `filter`: Polars SQL expressions that look at one row at a time.
//!
//! Everything that would make a row's fate depend on its neighbours (aggregates, windows, sorts, shifts) is refused when
//! the pipeline is built, because which rows share a batch is nobody's promise.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, BooleanArray};
use firn_shared::error::{Error, Result};
use polars::lazy::dsl::{AggExpr, BooleanFunction, Expr, FunctionExpr};
use polars::prelude::{Column, DataFrame, DataType, Field, IntoLazy, Operator, PolarsResult, Schema, Series};

use super::ffi;
use super::kernel::{Batch, Judged, Keep, Typed, Why};
use crate::arrow_types::data_type;
use crate::decode::Rejected;
use crate::seam;

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    expr: Expr,
    columns: Vec<String>,
    r#type: DataType,
}

impl Expression {
    /// Parses `text` and tries it on no rows of `schema`.
    ///
    /// # Errors
    /// `Config`, saying what of the expression is wrong; the caller adds where it stands.
    pub fn new(text: &str, schema: &[Typed]) -> Result<Self> {
        let expr = polars::sql::sql_expr(text)
            .map_err(|e| Error::config(format!("`{text}` is not a Polars SQL expression: {e}")))?;
        let mut columns = Vec::new();
        for node in &expr {
            if let Expr::Column(name) = node
                && !columns.iter().any(|c| c == name.as_str())
            {
                columns.push(name.to_string());
            }
            if let Some(what) = beyond_one_row(node) {
                return Err(Error::config(format!(
                    "`{text}` looks at more than one row ({what}); an expression of a step sees one row"
                )));
            }
        }
        if columns.is_empty() {
            return Err(Error::config(format!("`{text}` names no column")));
        }
        let empty = |name: &String| {
            let (_, r#type) = schema.iter().find(|(n, _)| n == name).ok_or_else(|| missing(name, schema))?;
            ffi::to_polars(name, &arrow_array::new_empty_array(&data_type(r#type)))
        };
        let empty = columns.iter().map(empty).collect::<Result<Vec<_>>>()?;
        let types = empty.iter().map(|series| Field::new(series.name().clone(), series.dtype().clone())).collect();
        let expr = exactly(expr, &types).map_err(|e| Error::config(format!("`{text}`: {e}")))?;
        let mut expression = Self { text: text.to_owned(), expr, columns, r#type: DataType::Null };
        let tried = expression.evaluate(0, empty).map_err(|e| Error::config(format!("`{text}`: {e}")))?;
        expression.r#type = tried.dtype().clone();
        Ok(expression)
    }

    /// The Polars type of its values.
    #[must_use]
    pub fn r#type(&self) -> &DataType {
        &self.r#type
    }

    /// Whether there may be rows on which it fails: what compares and chooses cannot, everything else may.
    #[must_use]
    pub fn can_fail(&self) -> bool {
        self.expr.into_iter().any(|node| match node {
            Expr::BinaryExpr { op, .. } => op.is_arithmetic(),
            Expr::Cast { options, .. } => options.is_strict(),
            Expr::Function { function, .. } => {
                !matches!(function, FunctionExpr::Boolean(_) | FunctionExpr::Coalesce | FunctionExpr::FillNull)
            }
            _ => false,
        })
    }

    /// Why a row is rejected on which it fails.
    #[must_use]
    pub fn failure(path: &str) -> Rejected {
        Why::form("the expression fails on this row").at(path)
    }

    /// What Polars makes of it.
    #[must_use]
    pub fn plan(&self) -> String {
        format!("{:?}", self.expr)
    }

    /// Its value for each row of a batch that holds the columns it reads, and the rows on which it fails, ascending: their
    /// value is null.
    ///
    /// # Errors
    /// `Bug` for a batch of other columns.
    pub fn of(&self, batch: &Batch<'_>) -> Result<(Series, Vec<usize>)> {
        let read = |name: &String| {
            let column = batch.columns.iter().find(|column| column.name == name);
            let column = column.ok_or_else(|| Error::bug(format!("a step does not read `{name}`")))?;
            ffi::to_polars(name, column.array)
        };
        let columns = self.columns.iter().map(read).collect::<Result<Vec<_>>>()?;
        if let Ok(values) = self.evaluate(batch.rows, columns.clone()) {
            return Ok((values, Vec::new()));
        }
        let mut found = Found { values: Series::new_empty("value".into(), &self.r#type), failed: Vec::new() };
        self.by_halves(&columns, 0..batch.rows, &mut found)?;
        Ok((found.values.rechunk(), found.failed))
    }

    /// Polars fails as a whole where one value cannot be cast: the rows are looked for that it fails on. What it says of
    /// them is not passed on, because it names values.
    fn by_halves(&self, columns: &[Series], rows: Range<usize>, found: &mut Found) -> Result<()> {
        let cut = columns.iter().map(|column| column.slice(rows.start as i64, rows.len()));
        let values = match self.evaluate(rows.len(), cut.collect()) {
            Ok(values) => values,
            Err(_) if rows.len() > 1 => {
                let middle = usize::midpoint(rows.start, rows.end);
                self.by_halves(columns, rows.start..middle, found)?;
                return self.by_halves(columns, middle..rows.end, found);
            }
            Err(_) => {
                found.failed.extend(rows);
                Series::full_null("value".into(), 1, &self.r#type)
            }
        };
        let odd = |_| Error::bug(format!("`{}` gives values of several types", self.text));
        found.values.append(&values).map(drop).map_err(odd)
    }

    fn evaluate(&self, rows: usize, columns: Vec<Series>) -> Result<Series> {
        let failed = |e: polars::prelude::PolarsError| Error::data(format!("`{}` failed: {e}", self.text));
        let frame = DataFrame::new(rows, columns.into_iter().map(Column::from).collect()).map_err(failed)?;
        let answer = frame.lazy().select([self.expr.clone().alias("value")]);
        // Polars panics on some values, such as times that it has no calendar for.
        let answer = seam::caught(|| answer.collect());
        let panicked = |place| Error::data(format!("`{}` failed: Polars panicked at {place}", self.text));
        let answer = answer.map_err(panicked)?.map_err(failed)?;
        let answer = answer.column("value").map_err(failed)?.as_materialized_series().clone();
        if answer.len() != rows {
            return Err(Error::config("gives one answer for many rows".to_owned()));
        }
        Ok(answer)
    }
}

/// Polars lets whole numbers wrap that grow beyond their type. Sums, differences and products of whole numbers are made as
/// decimals of 38 digits, which hold every one of them, and must fit 64 bits then.
fn exactly(expr: Expr, types: &Schema) -> PolarsResult<Expr> {
    expr.try_map_expr(|node| {
        let Expr::BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply), right } = &node
        else {
            return Ok(node);
        };
        if !left.to_field(types)?.dtype().is_integer() || !right.to_field(types)?.dtype().is_integer() {
            return Ok(node);
        }
        let wide = |side: &Arc<Expr>| Arc::new(side.as_ref().clone().strict_cast(DataType::Decimal(38, 0)));
        let wide = Expr::BinaryExpr { left: wide(left), op: *op, right: wide(right) };
        Ok(wide.strict_cast(DataType::Int64))
    })
}

/// Values so far.
struct Found {
    values: Series,
    failed: Vec<usize>,
}

fn missing(name: &str, schema: &[Typed]) -> Error {
    let near = schema.iter().map(|(known, _)| (strsim::damerau_levenshtein(known, name), known)).min();
    let hint = match near {
        Some((distance, known)) if distance <= 2 => format!("; did you mean `{known}`?"),
        _ => String::new(),
    };
    let shown: Vec<String> = schema.iter().map(|(name, r#type)| format!("{name} {type}")).collect();
    Error::config(format!("no column `{name}` here{hint}; the columns here are {}", shown.join(", ")))
}

/// `filter`: keeps the rows for which an expression is true.
#[derive(Debug)]
pub struct Predicate(Expression);

impl Predicate {
    /// Checks that `text` is true or false.
    ///
    /// # Errors
    /// As [`Expression::new`].
    pub fn new(text: &str, schema: &[Typed]) -> Result<Self> {
        let expression = Expression::new(text, schema)?;
        if *expression.r#type() != DataType::Boolean {
            return Err(Error::config(format!("`{text}` is {}, not true or false", expression.r#type())));
        }
        Ok(Self(expression))
    }

    /// The answer for each row, and the rows on which it fails, ascending.
    ///
    /// # Errors
    /// As [`Expression::of`].
    pub fn answers(&self, batch: &Batch<'_>) -> Result<(BooleanArray, Vec<usize>)> {
        let (values, failed) = self.0.of(batch)?;
        if !failed.is_empty() && !self.0.can_fail() {
            return Err(Error::bug(format!("`{}` fails on {} rows", self.0.text, failed.len())));
        }
        let array = ffi::from_polars(&values, &arrow_schema::DataType::Boolean)?;
        let array = array.as_any().downcast_ref::<BooleanArray>().cloned();
        Ok((array.ok_or_else(|| Error::bug("an array of type Boolean is not a BooleanArray"))?, failed))
    }
}

impl Keep for Predicate {
    fn engine(&self) -> &'static str {
        "Polars"
    }

    fn plan(&self) -> Option<String> {
        Some(self.0.plan())
    }

    fn can_reject(&self) -> bool {
        self.0.can_fail()
    }

    fn keep(&self, batch: &Batch<'_>) -> Result<Judged> {
        let (stays, failed) = self.answers(batch)?;
        let path = self.0.columns.join(", ");
        Ok(Judged { stays, rejects: failed.into_iter().map(|row| (row, Expression::failure(&path))).collect() })
    }
}

/// What of this node needs more than its own row; `None` when nothing.
fn beyond_one_row(node: &Expr) -> Option<String> {
    let function = match node {
        Expr::Alias(..)
        | Expr::Column(_)
        | Expr::Literal(_)
        | Expr::BinaryExpr { .. }
        | Expr::Cast { .. }
        | Expr::Ternary { .. }
        | Expr::KeepName(_) => return None,
        // The list on the right of IN.
        Expr::Agg(AggExpr::Implode { input, .. }) if matches!(**input, Expr::Literal(_)) => return None,
        Expr::Function { function, .. } => function,
        Expr::Agg(_) => return Some("an aggregate".to_owned()),
        Expr::Over { .. } => return Some("a window".to_owned()),
        Expr::Len => return Some("a count".to_owned()),
        other => return Some(format!("{other:?}")),
    };
    let row_by_row = match function {
        FunctionExpr::Boolean(f) => matches!(
            f,
            BooleanFunction::IsNull
                | BooleanFunction::IsNotNull
                | BooleanFunction::IsFinite
                | BooleanFunction::IsInfinite
                | BooleanFunction::IsNan
                | BooleanFunction::IsNotNan
                | BooleanFunction::IsIn { .. }
                | BooleanFunction::AllHorizontal
                | BooleanFunction::AnyHorizontal
                | BooleanFunction::Not
        ),
        FunctionExpr::StringExpr(_)
        | FunctionExpr::TemporalExpr(_)
        | FunctionExpr::StructExpr(_)
        | FunctionExpr::Negate
        | FunctionExpr::Pow(_)
        | FunctionExpr::Abs
        | FunctionExpr::Sign
        | FunctionExpr::Log
        | FunctionExpr::Log1p
        | FunctionExpr::Exp
        | FunctionExpr::Round { .. }
        | FunctionExpr::Floor
        | FunctionExpr::Ceil
        | FunctionExpr::MaxHorizontal
        | FunctionExpr::MinHorizontal
        | FunctionExpr::FillNull
        | FunctionExpr::Coalesce => true,
        _ => false,
    };
    (!row_by_row).then(|| format!("{function}"))
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use firn_shared::types::LogicalType;

    use super::*;
    use crate::transform::kernel;

    fn schema() -> Vec<Typed> {
        vec![("n".to_owned(), LogicalType::Long), ("s".to_owned(), LogicalType::String)]
    }

    fn answers(text: &str) -> Vec<Option<bool>> {
        let predicate = Predicate::new(text, &schema()).unwrap();
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let s: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
        let column = |name, r#type, array| kernel::Column { name, r#type, array };
        let columns = [column("n", &LogicalType::Long, &n), column("s", &LogicalType::String, &s)];
        predicate.keep(&Batch { columns: &columns, rows: 3 }).unwrap().stays.iter().collect()
    }
    #[test]
    fn expressions_answer_row_by_row_with_sql_nulls() {
        let cases: [(&str, [Option<bool>; 3]); 7] = [
            ("n > 1", [Some(false), None, Some(true)]),
            ("n IS NULL", [Some(false), Some(true), Some(false)]),
            ("s IN ('a', 'c')", [Some(true), Some(false), None]),
            ("n = 1 OR s = 'b'", [Some(true), Some(true), None]),
            ("NOT (n > 1)", [Some(true), None, Some(false)]),
            ("LOWER(s) LIKE 'a%'", [Some(true), Some(false), None]),
            ("COALESCE(n, 5) > 2", [Some(false), Some(true), Some(true)]),
        ];
        for (text, expected) in cases {
            assert_eq!(answers(text), expected, "{text}");
        }
    }

    #[test]
    fn what_a_filter_cannot_be_is_said_when_it_is_built() {
        let cases = [
            ("n >", "not a Polars SQL expression"),
            ("m > 1", "no column `m`"),
            ("1 = 1", "names no column"),
            ("n + 1", "not true or false"),
            ("nn > 1", "did you mean `n`?"),
            ("SUM(n) > 3", "more than one row"),
            ("n > MAX(n) OVER (PARTITION BY s)", "more than one row"),
            ("COUNT(*) > n", "more than one row"),
            ("n = 'x'", "`n = 'x'`"),
        ];
        for (text, expected) in cases {
            let error = Predicate::new(text, &schema()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
