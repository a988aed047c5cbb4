//! `expr` and `filter`: Polars SQL expressions that look at one row at a time.
//!
//! Everything that would make a row's fate depend on its neighbours (aggregates, windows, sorts, shifts) is refused when
//! the pipeline is built, because which rows share a batch is nobody's promise.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, BooleanArray};
use firn_shared::error::{Error, Result};
use polars::lazy::dsl::{AggExpr, BooleanFunction, Expr, FunctionExpr};
use polars::prelude::{
    Column, DataFrame, DataType, Field, IntoLazy, Operator, PolarsError, PolarsResult, Schema, Series,
};

use super::apart::Apart;
use super::ffi;
use super::kernel::{Batch, Judged, Keep, Typed, Why, shown};
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
    /// Names and types of the columns it reads.
    reads: Schema,
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
        let reads: Schema =
            empty.iter().map(|series| Field::new(series.name().clone(), series.dtype().clone())).collect();
        let misfit = |why: String| Error::config(format!("{why}; {}", shown(schema)));
        let expr = exactly(expr, &reads).map_err(|e| misfit(format!("`{text}`: {e}")))?;
        let mut expression = Self { text: text.to_owned(), expr, columns, r#type: DataType::Null, reads };
        let tried = expression.evaluate(0, empty).map_err(|e| misfit(e.to_string()))?;
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

    /// The plan that Polars makes of it: as it is written with the rules of whole numbers, and optimised, which is carried out.
    #[must_use]
    pub fn plan(&self) -> String {
        let frame = DataFrame::empty_with_schema(&self.reads).lazy().select([self.expr.clone().alias("value")]);
        let plan = |optimised| frame.explain(optimised).unwrap_or_else(|e| format!("no plan: {e}"));
        let (written, optimised) = (plan(false), plan(true));
        if written == optimised { optimised } else { format!("{written}\noptimised:\n{optimised}") }
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
        // Polars fails as a whole where one value cannot be cast. What it says of the rows on which it fails is not passed on,
        // because it names values.
        let mut on_rows = |rows: Range<usize>| {
            let cut = columns.iter().map(|column| column.slice(rows.start as i64, rows.len()));
            Ok(self.evaluate(rows.len(), cut.collect()))
        };
        let (mut all, mut failed) = (Vec::new(), Vec::new());
        let mut done = |rows: Range<usize>, values: Result<Series>| {
            all.push(values.unwrap_or_else(|_| {
                failed.extend(rows.clone());
                Series::full_null("value".into(), rows.len(), &self.r#type)
            }));
            Ok(())
        };
        Apart::default().work(0..batch.rows, &mut on_rows, &mut done)?;
        let mut parts = all.into_iter();
        let mut values = parts.next().unwrap_or_else(|| Series::new_empty("value".into(), &self.r#type));
        for part in parts {
            let odd = |_| Error::bug(format!("`{}` gives values of several types", self.text));
            values.append(&part).map(drop).map_err(odd)?;
        }
        Ok((values.rechunk(), failed))
    }

    fn evaluate(&self, rows: usize, columns: Vec<Series>) -> Result<Series> {
        let failed = |e: PolarsError| Error::data(format!("`{}` failed: {e}", self.text));
        let frame = DataFrame::new(rows, columns.into_iter().map(Column::from).collect()).map_err(failed)?;
        let answer = frame.lazy().select([self.expr.clone().alias("value")]);
        // Polars panics on some values, such as times that it has no calendar for.
        let answer = seam::caught(|| answer.collect());
        let panicked = |place| Error::data(format!("`{}` failed: Polars panicked at {place}", self.text));
        let answer = answer.map_err(panicked)?.map_err(failed)?;
        let answer = answer.column("value").map_err(failed)?.as_materialized_series().clone();
        if answer.len() != rows {
            return Err(Error::config(format!("`{}` gives one answer for many rows", self.text)));
        }
        Ok(answer)
    }
}

/// Polars lets whole numbers wrap that grow beyond their type. Sums, differences and products of whole numbers are made as
/// decimals of 38 digits, which hold every one of them, and must fit 64 bits then; so are absolute values and negatives, for
/// the one number that has none. Powers would need more digits.
fn exactly(expr: Expr, types: &Schema) -> PolarsResult<Expr> {
    let is_whole = |expr: &Expr| PolarsResult::Ok(expr.to_field(types)?.dtype().is_integer());
    let wide = |expr: &Expr| expr.clone().strict_cast(DataType::Decimal(38, 0));
    expr.try_map_expr(|node| {
        let made = match &node {
            Expr::BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply), right }
                if is_whole(left)? && is_whole(right)? =>
            {
                let (left, right) = (Arc::new(wide(left)), Arc::new(wide(right)));
                Expr::BinaryExpr { left, op: *op, right }
            }
            Expr::Function { input, function: function @ (FunctionExpr::Abs | FunctionExpr::Negate) }
                if is_whole(&node)? =>
            {
                Expr::Function { input: input.iter().map(wide).collect(), function: function.clone() }
            }
            Expr::Function { function: FunctionExpr::Pow(_), .. } if is_whole(&node)? => {
                let message = "a power of whole numbers may be beyond 64 bits; cast one of them to double";
                return Err(PolarsError::ComputeError(message.into()));
            }
            _ => return Ok(node),
        };
        Ok(made.strict_cast(DataType::Int64))
    })
}

fn missing(name: &str, schema: &[Typed]) -> Error {
    let near = schema.iter().map(|(known, _)| (strsim::damerau_levenshtein(known, name), known)).min();
    let hint = match near {
        Some((distance, known)) if distance <= 2 => format!("; did you mean `{known}`?"),
        _ => String::new(),
    };
    Error::config(format!("no column `{name}` here{hint}; {}", shown(schema)))
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
            let (is, here) = (expression.r#type(), shown(schema));
            return Err(Error::config(format!("`{text}` is {is}, not true or false; {here}")));
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

    /// The values of an expression for these numbers; an error for a row on which it fails.
    fn numbers(text: &str, n: &[i64]) -> Vec<Result<i64, ()>> {
        let array: ArrayRef = Arc::new(Int64Array::from(n.to_vec()));
        let columns = [kernel::Column { name: "n", r#type: &LogicalType::Long, array: &array }];
        let (values, failed) =
            Expression::new(text, &schema()).unwrap().of(&Batch { columns: &columns, rows: n.len() }).unwrap();
        let values = values.cast(&DataType::Int64).unwrap();
        let value = |row| if failed.contains(&row) { Err(()) } else { Ok(values.i64().unwrap().get(row).unwrap()) };
        (0..n.len()).map(value).collect()
    }

    #[test]
    fn whole_numbers_never_wrap() {
        let n = [3, -3, i64::MAX, i64::MIN];
        for (text, expected) in [
            ("ABS(n)", [Ok(3), Ok(3), Ok(i64::MAX), Err(())]),
            ("-n", [Ok(-3), Ok(3), Ok(-i64::MAX), Err(())]),
            ("n + 1", [Ok(4), Ok(-2), Err(()), Ok(i64::MIN + 1)]),
            ("n * 2", [Ok(6), Ok(-6), Err(()), Err(())]),
            ("POW(CAST(n AS DOUBLE), 2) > 10", [Ok(0), Ok(0), Ok(1), Ok(1)]),
        ] {
            assert_eq!(numbers(text, &n), expected, "{text}");
        }
    }

    #[test]
    fn what_a_filter_cannot_be_is_said_when_it_is_built() {
        let cases = [
            ("n >", "not a Polars SQL expression"),
            ("m > 1", "no column `m`"),
            ("1 = 1", "names no column"),
            ("n + 1", "not true or false; the columns here are n long, s string"),
            ("nn > 1", "did you mean `n`?"),
            ("SUM(n) > 3", "more than one row"),
            ("n > MAX(n) OVER (PARTITION BY s)", "more than one row"),
            ("COUNT(*) > n", "more than one row"),
            ("n = 'x'", "cannot compare string with numeric type (i64); the columns here are n long, s string"),
            ("POW(n, 2) > 3", "a power of whole numbers may be beyond 64 bits; cast one of them to double"),
        ];
        for (text, expected) in cases {
            let error = Predicate::new(text, &schema()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
