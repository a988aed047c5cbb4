//! An expression that goes on where Polars would fail as a whole: the rows on which it fails are found all at once, however
//! many they are, not by trying parts of a batch.

use polars::chunked_array::cast::CastOptions;
use polars::lazy::dsl::{Expr, FunctionExpr, StringFunction, any_horizontal, col, lit, when};
use polars::prelude::{Column, DataFrame, DataType, IntoLazy, NULL, Operator, PolarsResult, Schema, Series};

use super::collected;

/// What may fail of an expression, each with a name that stands for its value in those behind it.
#[derive(Debug, Clone)]
pub struct Lenient {
    /// What goes in, and what is made of it: null of a value on which it fails.
    steps: Vec<(Expr, Expr)>,
    rest: Expr,
}

/// The column that says whether a row fails; like those below a name that nobody gives a column.
const FAILS: &str = "__fails ?";

fn name_in(number: usize) -> String {
    format!("__in {number}")
}

fn name_out(number: usize) -> String {
    format!("__out {number}")
}

impl Lenient {
    /// Takes an expression over columns of these types apart; `None` where nothing of it fails in a way that is known.
    pub fn new(expr: &Expr, mut types: Schema) -> Option<Self> {
        let mut steps: Vec<(Expr, Expr)> = Vec::new();
        let rest = expr.clone().try_map_expr(|node| {
            let number = steps.len();
            let (value, outer) = (col(name_in(number)), col(name_out(number)));
            let (from, made, node) = match node {
                Expr::Cast { expr, dtype, options: CastOptions::Strict } => {
                    let made = Expr::Cast { expr: value.into(), dtype, options: CastOptions::NonStrict };
                    (expr.as_ref().clone(), made, outer)
                }
                Expr::Function { input, function: FunctionExpr::StringExpr(StringFunction::Strptime(to, options)) }
                    if options.strict =>
                {
                    let mut options = options;
                    options.strict = false;
                    let from = input[0].clone();
                    let input = std::iter::once(value).chain(input[1..].iter().cloned()).collect();
                    let function = FunctionExpr::StringExpr(StringFunction::Strptime(to, options));
                    (from, Expr::Function { input, function }, outer)
                }
                // A decimal divided by zero is no null, as a whole number is, and not infinite, as a double is; null is null.
                Expr::BinaryExpr { left, op, right }
                    if matches!(
                        op,
                        Operator::RustDivide | Operator::TrueDivide | Operator::FloorDivide | Operator::Modulus
                    ) && [&left, &right].iter().any(|side| is_decimal(side, &types)) =>
                {
                    let from =
                        when(left.as_ref().clone().is_not_null()).then(right.as_ref().clone()).otherwise(lit(NULL));
                    let made = when(value.clone().neq(lit(0))).then(value).otherwise(lit(NULL));
                    (from, made, Expr::BinaryExpr { left, op, right: outer.into() })
                }
                other => return Ok(other),
            };
            types.insert(name_in(number).into(), from.to_field(&types)?.dtype().clone());
            types.insert(name_out(number).into(), made.to_field(&types)?.dtype().clone());
            steps.push((from, made));
            PolarsResult::Ok(node)
        });
        let rest = rest.ok()?;
        (!steps.is_empty()).then_some(Self { steps, rest })
    }

    /// The value of each row, and the rows on which the expression fails, which have none.
    pub fn of(&self, rows: usize, columns: &[Series]) -> PolarsResult<(Series, Vec<usize>)> {
        let columns = columns.iter().cloned().map(Column::from).collect();
        let mut frame = DataFrame::new(rows, columns)?.lazy();
        for (number, (from, made)) in self.steps.iter().enumerate() {
            frame = frame.with_column(from.clone().alias(name_in(number)));
            frame = frame.with_column(made.clone().alias(name_out(number)));
        }
        let fails = |number| col(name_in(number)).is_not_null().and(col(name_out(number)).is_null());
        let fails = any_horizontal((0..self.steps.len()).map(fails).collect::<Vec<_>>())?;
        let value = when(col(FAILS)).then(lit(NULL)).otherwise(self.rest.clone());
        let answer = collected(frame.with_column(fails.alias(FAILS)).select([value.alias("value"), col(FAILS)]))?;
        let fails = answer.column(FAILS)?.bool()?;
        let failed = fails.iter().enumerate().filter(|(_, fails)| *fails == Some(true)).map(|(row, _)| row);
        Ok((answer.column("value")?.as_materialized_series().clone(), failed.collect()))
    }
}

fn is_decimal(expr: &Expr, types: &Schema) -> bool {
    expr.to_field(types).is_ok_and(|field| matches!(field.dtype(), DataType::Decimal(..)))
}
