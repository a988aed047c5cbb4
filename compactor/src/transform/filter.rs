//! `filter`: a Polars SQL expression that looks at one row at a time.
//!
//! Everything that would make a row's fate depend on its neighbours (aggregates, windows, sorts, shifts) is refused when
//! the pipeline is built, because which rows share a batch is nobody's promise.

use arrow_array::{ArrayRef, BooleanArray};
use arrow_schema::DataType;
use firn_shared::error::{Error, Result};
use polars::lazy::dsl::{AggExpr, BooleanFunction, Expr, FunctionExpr};
use polars::prelude::{Column, DataFrame, IntoLazy};

use super::ffi;

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Predicate {
    expr: Expr,
    columns: Vec<String>,
}

impl Predicate {
    /// Parses `text` and tries it on no rows of the columns it names.
    ///
    /// # Errors
    /// `Config`, saying what of the expression is wrong; the caller adds where it stands.
    pub fn new(text: &str, type_of: &dyn Fn(&str) -> Result<DataType>) -> Result<Self> {
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
                    "`{text}` looks at more than one row ({what}); a filter sees one row"
                )));
            }
        }
        if columns.is_empty() {
            return Err(Error::config(format!("`{text}` names no column")));
        }
        let predicate = Self { expr, columns };
        let empty = predicate
            .columns
            .iter()
            .map(|name| Ok((name.clone(), arrow_array::new_empty_array(&type_of(name)?))))
            .collect::<Result<Vec<_>>>()?;
        predicate.evaluate(0, empty).map_err(|e| Error::config(format!("`{text}`: {e}")))?;
        Ok(predicate)
    }

    /// The columns the expression reads.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// True, false or null for each of `rows` rows of the columns named by [`Self::columns`].
    ///
    /// # Errors
    /// `Data` when Polars fails on a value.
    pub fn evaluate(&self, rows: usize, columns: Vec<(String, ArrayRef)>) -> Result<BooleanArray> {
        let columns = columns
            .into_iter()
            .map(|(name, array)| ffi::to_polars(&name, &array).map(Column::from))
            .collect::<Result<Vec<_>>>()?;
        let failed = |e: polars::prelude::PolarsError| Error::data(format!("filter failed: {e}"));
        let frame = DataFrame::new(rows, columns).map_err(failed)?;
        let answer = frame.lazy().select([self.expr.clone().alias("keep")]).collect().map_err(failed)?;
        let answer = answer.column("keep").map_err(failed)?.as_materialized_series();
        if answer.dtype() != &polars::prelude::DataType::Boolean {
            return Err(Error::config(format!("is {}, not true or false", answer.dtype())));
        }
        if answer.len() != rows {
            return Err(Error::config("gives one answer for many rows".to_owned()));
        }
        let array = ffi::from_polars(answer, &DataType::Boolean)?;
        let array = array.as_any().downcast_ref::<BooleanArray>().cloned();
        array.ok_or_else(|| Error::bug("an array of type Boolean is not a BooleanArray"))
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
        | FunctionExpr::FillNull
        | FunctionExpr::Coalesce => true,
        _ => false,
    };
    (!row_by_row).then(|| format!("{function}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};

    use super::*;

    fn types(name: &str) -> Result<DataType> {
        match name {
            "n" => Ok(DataType::Int64),
            "s" => Ok(DataType::Utf8),
            other => Err(Error::config(format!("no column `{other}`"))),
        }
    }

    fn answers(text: &str) -> Vec<Option<bool>> {
        let predicate = Predicate::new(text, &types).unwrap();
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let s: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
        let columns = predicate.columns().iter().map(|c| (c.clone(), Arc::clone(if c == "n" { &n } else { &s })));
        predicate.evaluate(3, columns.collect()).unwrap().iter().collect()
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
            ("SUM(n) > 3", "more than one row"),
            ("n > MAX(n) OVER (PARTITION BY s)", "more than one row"),
            ("COUNT(*) > n", "more than one row"),
            ("n = 'x'", "`n = 'x'`"),
        ];
        for (text, expected) in cases {
            let error = Predicate::new(text, &types).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
