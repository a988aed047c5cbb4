//! `expr` and `filter`: Polars SQL expressions that look at one row at a time.
//!
//! Everything that would make a row's fate depend on its neighbours (aggregates, windows, sorts, shifts) is refused when
//! the pipeline is built, because which rows share a batch is nobody's promise.

mod growth;
mod lenient;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BooleanBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray};
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;
use polars::lazy::dsl::{AggExpr, BooleanFunction, Expr, FunctionExpr, StringFunction};
use polars::prelude::{
    Column, DataFrame, DataType, Field, IntoLazy, LazyFrame, Operator, PolarsError, PolarsResult, Schema, Series,
};

use super::apart::Apart;
use super::ffi;
use super::kernel::{self, Batch, Judged, Keep, Typed, Why, shown};
use crate::arrow_types::data_type;
use crate::seam;
use growth::Growth;
use lenient::Lenient;

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    expr: Expr,
    columns: Vec<String>,
    r#type: DataType,
    /// Names and types of the columns it reads.
    reads: Schema,
    /// Whether it may make texts of many times the bytes of what it reads.
    grows: bool,
    lenient: Option<Lenient>,
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
        let wrong = |e: PolarsError| Error::config(format!("`{text}`: {e}; {}", shown(schema)));
        let expr = exactly(expr, &reads).map_err(wrong)?;
        let tried = evaluate(&expr, 0, empty).map_err(wrong)?;
        let (grows, lenient) = (growth::is_possible(&expr, &reads), Lenient::new(&expr, reads.clone()));
        let text = text.to_owned();
        Ok(Self { text, expr, columns, r#type: tried.dtype().clone(), reads, grows, lenient })
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

    /// The plan that Polars makes of it: as it is written with the rules of whole numbers, and optimised, which is carried out.
    #[must_use]
    pub fn plan(&self) -> String {
        let frame = DataFrame::empty_with_schema(&self.reads).lazy().select([self.expr.clone().alias("value")]);
        let plan = |optimised| frame.explain(optimised).unwrap_or_else(|e| format!("no plan: {e}"));
        let (written, optimised) = (plan(false), plan(true));
        if written == optimised { optimised } else { format!("{written}\noptimised:\n{optimised}") }
    }

    /// Its value for each of the first rows of a batch, as many as there is room for, and the rows on which it fails,
    /// ascending: their value is null.
    ///
    /// # Errors
    /// `Bug` for a batch of other columns.
    pub fn of(&self, batch: &Batch<'_>) -> Result<(Series, Vec<(usize, Why)>)> {
        let read = |name: &String| {
            let column = batch.columns.iter().find(|column| column.name == name);
            let column = column.ok_or_else(|| Error::bug(format!("a step does not read `{name}`")))?;
            ffi::to_polars(name, column.array)
        };
        let mut columns = self.columns.iter().map(read).collect::<Result<Vec<_>>>()?;
        let mut rows = batch.rows;
        if self.grows {
            let growth = Growth { expression: self, batch, columns: &columns, rows };
            rows = growth.room();
            if rows == 1 && !growth.first_fits() {
                let value = Series::full_null("value".into(), 1, &self.r#type);
                return Ok((value, vec![(0, Why::large(growth.value_max()))]));
            }
            for column in &mut columns {
                *column = column.slice(0, rows);
            }
        }
        self.of_rows(rows, &columns)
    }

    /// Its values, and the rows on which it fails. Polars fails as a whole where one value cannot be cast. What it says of
    /// the rows on which it fails is not passed on, because it names values.
    fn of_rows(&self, rows: usize, columns: &[Series]) -> Result<(Series, Vec<(usize, Why)>)> {
        let fails = |row| (row, Why::form("the expression fails on this row"));
        if let Ok(values) = self.evaluate(rows, columns.to_vec()) {
            return Ok((values, Vec::new()));
        }
        let lenient = self.lenient.as_ref().and_then(|lenient| lenient.of(rows, columns).ok());
        if let Some((values, failed)) = lenient.filter(|(values, _)| *values.dtype() == self.r#type) {
            return Ok((values, failed.into_iter().map(fails).collect()));
        }
        let mut on_rows = |rows: Range<usize>| {
            let cut = columns.iter().map(|column| column.slice(rows.start as i64, rows.len()));
            Ok(self.evaluate(rows.len(), cut.collect()))
        };
        let (mut all, mut failed) = (Vec::new(), Vec::new());
        let mut done = |rows: Range<usize>, values: Result<Series>| {
            all.push(values.unwrap_or_else(|_| {
                failed.extend(rows.clone().map(fails));
                Series::full_null("value".into(), rows.len(), &self.r#type)
            }));
            Ok(())
        };
        Apart::default().work(0..rows, &mut on_rows, &mut done)?;
        let mut parts = all.into_iter();
        let mut values = parts.next().unwrap_or_else(|| Series::new_empty("value".into(), &self.r#type));
        for part in parts {
            let odd = |_| Error::bug(format!("`{}` gives values of several types", self.text));
            values.append(&part).map(drop).map_err(odd)?;
        }
        Ok((values.rechunk(), failed))
    }

    fn evaluate(&self, rows: usize, columns: Vec<Series>) -> Result<Series> {
        evaluate(&self.expr, rows, columns).map_err(|e| Error::data(format!("`{}` failed: {e}", self.text)))
    }
}

/// The value of an expression for each row.
fn evaluate(expr: &Expr, rows: usize, columns: Vec<Series>) -> PolarsResult<Series> {
    let frame = DataFrame::new(rows, columns.into_iter().map(Column::from).collect())?.lazy();
    let answer = collected(frame.select([expr.clone().alias("value")]))?;
    let answer = answer.column("value")?.as_materialized_series().clone();
    if answer.len() != rows {
        return Err(PolarsError::ComputeError("gives one answer for many rows".into()));
    }
    Ok(answer)
}

/// What a query gives. Polars panics on some values, such as times that it has no calendar for.
fn collected(query: LazyFrame) -> PolarsResult<DataFrame> {
    #[cfg(test)]
    tests::COLLECTED.set(tests::COLLECTED.get() + 1);
    let panicked = |place| PolarsError::ComputeError(format!("Polars panicked at {place}").into());
    seam::caught(|| query.collect()).map_err(panicked)?
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

/// The type of a table for a Polars type, if there is one.
#[must_use]
pub fn logical(polars: &DataType) -> Option<LogicalType> {
    use LogicalType as L;
    Some(match polars {
        DataType::Boolean => L::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => L::Int,
        DataType::Int64 | DataType::UInt32 => L::Long,
        DataType::Float32 => L::Float,
        DataType::Float64 => L::Double,
        DataType::Decimal(precision, scale) => L::Decimal { precision: *precision as u8, scale: *scale as u8 },
        DataType::String => L::String,
        DataType::Date => L::Date,
        DataType::Datetime(_, None) => L::Timestamp,
        DataType::Datetime(_, Some(_)) => L::TimestampTz,
        _ => return None,
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
            let found = expression.r#type();
            let found = logical(found).map_or_else(|| found.to_string(), |logical| logical.to_string());
            return Err(Error::config(format!("`{text}` is {found}, not true or false; {}", shown(schema))));
        }
        Ok(Self(expression))
    }

    /// The answer for each row, and the rows on which it fails, ascending.
    ///
    /// # Errors
    /// As [`Expression::of`].
    pub fn answers(&self, batch: &Batch<'_>) -> Result<(BooleanArray, Vec<(usize, Why)>)> {
        let (mut answers, mut failed) = (BooleanBuilder::with_capacity(batch.rows), Vec::new());
        while answers.len() < batch.rows {
            let from = answers.len();
            let arrays: Vec<ArrayRef> =
                batch.columns.iter().map(|column| column.array.slice(from, batch.rows - from)).collect();
            let columns: Vec<kernel::Column<'_>> =
                batch.columns.iter().zip(&arrays).map(|(column, array)| kernel::Column { array, ..*column }).collect();
            let rest = Batch { columns: &columns, rows: batch.rows - from, room: batch.room };
            let (values, fails) = self.0.of(&rest)?;
            let array = ffi::from_polars(&values, &arrow_schema::DataType::Boolean)?;
            let array = array.as_boolean_opt();
            let array = array.ok_or_else(|| Error::bug("an array of type Boolean is not a BooleanArray"))?;
            array.iter().for_each(|answer| answers.append_option(answer));
            failed.extend(fails.into_iter().map(|(row, why)| (from + row, why)));
        }
        if !failed.is_empty() && !self.0.can_fail() {
            return Err(Error::bug(format!("`{}` fails on {} rows", self.0.text, failed.len())));
        }
        Ok((answers.finish(), failed))
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
        Ok(Judged { stays, rejects: failed.into_iter().map(|(row, why)| (row, why.at(&path))).collect() })
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
        // Polars takes the first one that it can read for the form of all.
        Expr::Function { input, function: FunctionExpr::StringExpr(StringFunction::Strptime(_, options)) }
            if options.format.is_none() && !matches!(input.first(), Some(Expr::Literal(_))) =>
        {
            return Some("the form of times that is not said, such as by `DATE(s, '%Y-%m-%d')`".to_owned());
        }
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
    use super::*;
    use arrow_array::{Decimal128Array, Int64Array, StringArray};

    fn schema() -> Vec<Typed> {
        vec![("n".to_owned(), LogicalType::Long), ("s".to_owned(), LogicalType::String)]
    }

    fn answers(text: &str) -> Vec<Option<bool>> {
        let predicate = Predicate::new(text, &schema()).unwrap();
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let s: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
        let column = |name, r#type, array| kernel::Column { name, r#type, array };
        let columns = [column("n", &LogicalType::Long, &n), column("s", &LogicalType::String, &s)];
        predicate.keep(&Batch::new(&columns, 3)).unwrap().stays.iter().collect()
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
        let (values, failed) = Expression::new(text, &schema()).unwrap().of(&Batch::new(&columns, n.len())).unwrap();
        let values = values.cast(&DataType::Int64).unwrap();
        let value = |row| {
            if failed.iter().any(|(bad, _)| *bad == row) {
                Err(())
            } else {
                Ok(values.i64().unwrap().get(row).unwrap())
            }
        };
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

    thread_local! {
        /// How many queries Polars has carried out.
        pub static COLLECTED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// The values of an expression over texts and numbers; none for a row on which it fails. Then the queries that this took.
    fn values(text: &str, rows: &[(Option<&str>, Option<i64>)]) -> (Vec<Option<String>>, usize) {
        let typed: [(&str, LogicalType, ArrayRef); 3] = [
            ("s", LogicalType::String, Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>())),
            ("n", LogicalType::Long, Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
            ("d", LogicalType::Decimal { precision: 38, scale: 2 }, {
                let decimals = rows.iter().map(|row| row.1.map(i128::from)).collect::<Decimal128Array>();
                Arc::new(decimals.with_precision_and_scale(38, 2).unwrap())
            }),
        ];
        let schema: Vec<Typed> = typed.iter().map(|(name, of, _)| ((*name).to_owned(), of.clone())).collect();
        let columns: Vec<kernel::Column<'_>> =
            typed.iter().map(|(name, r#type, array)| kernel::Column { name, r#type, array }).collect();
        let mut expression = Expression::new(text, &schema).unwrap();
        if rows.len() == 1 {
            // Nothing but what Polars says of it.
            expression.lenient = None;
        }
        let before = COLLECTED.get();
        let (values, failed) = expression.of(&Batch::new(&columns, rows.len())).unwrap();
        let queries = COLLECTED.get() - before;
        let value =
            |row| (!failed.iter().any(|(bad, _)| *bad == row)).then(|| format!("{:?}", values.get(row).unwrap()));
        ((0..rows.len()).map(value).collect(), queries)
    }

    /// Expressions that fail on some rows in every way that is known.
    const FAILING: [&str; 12] = [
        "CAST(s AS BIGINT) + 1",
        "CAST(s AS DOUBLE)",
        "COALESCE(CAST(s AS INT), 7)",
        "CASE WHEN n > 0 THEN CAST(s AS INT) ELSE 0 END",
        "CAST(CAST(s AS BIGINT) * n AS INT)",
        "n * n * n - 1",
        "ABS(n)",
        "d / d",
        "n / d",
        "CAST(s AS INT) / d",
        "STRPTIME(s, '%Y-%m-%d')",
        "DATE(s, '%Y-%m-%d') > DATE '2021-01-01'",
    ];

    #[test]
    fn a_row_that_fails_is_the_same_row_among_others_and_alone() {
        let texts = ["1", "x", "-5", "2147483648", "1.5", "", "2021-07-21", "2021-02-30", "9223372036854775807", " 1"];
        let numbers = [Some(0), Some(1), Some(-7), None, Some(i64::MAX), Some(i64::MIN), Some(3_000_000)];
        let texts = texts.into_iter().map(Some).chain([None]);
        let rows: Vec<_> = texts.flat_map(|text| numbers.map(|number| (text, number))).collect();
        for text in FAILING {
            let (together, queries) = values(text, &rows);
            let alone: Vec<_> = rows.iter().flat_map(|row| values(text, &[*row]).0).collect();
            for (row, (together, alone)) in rows.iter().zip(together.iter().zip(&alone)) {
                assert_eq!(together, alone, "{text} of {row:?}");
            }
            assert!(together.contains(&None) && together.iter().any(Option::is_some), "{text}: {together:?}");
            assert_eq!(queries, 2, "{text}");
        }
    }

    #[test]
    fn where_every_row_fails_few_queries_say_so() {
        for (text, row) in [("CAST(s AS BIGINT) + 1", (Some("x"), Some(0))), ("n / d", (None, Some(0)))] {
            let (values, queries) = values(text, &vec![row; 32_768]);
            assert!(values.iter().all(Option::is_none), "{text}");
            assert_eq!(queries, 2, "{text}");
        }
    }

    #[test]
    fn what_a_filter_cannot_be_is_said_when_it_is_built() {
        let cases = [
            ("n >", "not a Polars SQL expression"),
            ("m > 1", "no column `m`"),
            ("1 = 1", "names no column"),
            ("n + 1", "`n + 1` is long, not true or false; the columns here are n long, s string"),
            ("nn > 1", "did you mean `n`?"),
            ("SUM(n) > 3", "more than one row"),
            ("n > MAX(n) OVER (PARTITION BY s)", "more than one row"),
            ("COUNT(*) > n", "more than one row"),
            ("DATE(s) > DATE '2021-01-01'", "more than one row (the form of times that is not said"),
            ("n = 'x'", "cannot compare string with numeric type (i64); the columns here are n long, s string"),
            ("POW(n, 2) > 3", "a power of whole numbers may be beyond 64 bits; cast one of them to double"),
        ];
        for (text, expected) in cases {
            let error = Predicate::new(text, &schema()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
