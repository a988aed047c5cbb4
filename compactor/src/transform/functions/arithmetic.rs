//! Several numbers to one.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Decimal128Array, Float64Array};
use firn_shared::error::Result;
use firn_shared::functions::{Function, numbers as spec};
use firn_shared::types::LogicalType;

use super::numbers::{doubles, exact, exact_as};
use crate::transform::kernel::{Batch, Build, Call, Made, Misfit, Why, Work, broken};
use crate::transform::values::{Rejects, batch};

/// This part of the family of numbers.
pub const TABLE: &[(&Function, Build)] =
    &[(&spec::SUM, sum), (&spec::PRODUCT, product), (&spec::SUBTRACT, subtract), (&spec::DIVIDE, divide)];

fn overflow() -> Why {
    Why::range("more than 38 digits")
}

/// An exact number with another number of digits after the point, not fewer.
fn rescale(value: i128, from: u32, to: u32) -> Result<i128, Why> {
    value.checked_mul(10_i128.pow(to.saturating_sub(from))).ok_or_else(overflow)
}

/// Folds the columns of each row; null where one is null.
fn fold(
    call: &Call<'_>,
    whole: impl Fn(i128, i128) -> Option<i128> + Send + Sync + 'static,
    float: impl Fn(f64, f64) -> f64 + Send + Sync + 'static,
    same_scale: bool,
) -> Result<Work, Misfit> {
    let to = call.to().map_err(broken)?.clone();
    Ok(batch(move |batch| {
        let first = batch.column(0)?;
        let mut rejects = Rejects::new(first.name);
        let column = match &to {
            LogicalType::Double => floats(batch, &float, &mut rejects)?,
            to => {
                let scale = match to {
                    LogicalType::Decimal { scale, .. } => u32::from(*scale),
                    _ => 0,
                };
                let columns: Vec<(Decimal128Array, u32)> =
                    batch.columns.iter().map(|column| exact(*column)).collect::<Result<_>>()?;
                let values = (0..batch.rows).map(|row| {
                    if columns.iter().any(|(column, _)| column.is_null(row)) {
                        return None;
                    }
                    let mut values = columns.iter().map(|(column, own)| {
                        if same_scale { rescale(column.value(row), *own, scale) } else { Ok(column.value(row)) }
                    });
                    let first = values.next()?;
                    Some(values.fold(first, |sum, value| whole(sum?, value?).ok_or_else(overflow)))
                });
                exact_as(to, values, &mut rejects)?
            }
        };
        Ok(Made { columns: vec![column], rejects: rejects.found })
    }))
}

fn floats(batch: &Batch<'_>, float: &impl Fn(f64, f64) -> f64, rejects: &mut Rejects<'_>) -> Result<ArrayRef> {
    let columns: Vec<Float64Array> = batch.columns.iter().map(|column| doubles(*column)).collect::<Result<_>>()?;
    let values = (0..batch.rows).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return None;
        }
        let values = columns.iter().map(|column| column.value(row));
        let all_finite = columns.iter().all(|column| column.value(row).is_finite());
        let value = values.reduce(float)?;
        let fits = !all_finite || value.is_finite();
        rejects.sieve(row, if fits { Ok(value) } else { Err(Why::range("beyond the range of double")) })
    });
    Ok(Arc::new(values.collect::<Float64Array>()))
}

fn sum(call: &Call<'_>) -> Result<Work, Misfit> {
    fold(call, i128::checked_add, |a, b| a + b, true)
}

fn subtract(call: &Call<'_>) -> Result<Work, Misfit> {
    fold(call, i128::checked_sub, |a, b| a - b, true)
}

fn product(call: &Call<'_>) -> Result<Work, Misfit> {
    fold(call, i128::checked_mul, |a, b| a * b, false)
}

fn divide(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let right = batch.column(1)?;
        let mut rejects = Rejects::new(right.name);
        let (dividends, divisors) = (doubles(batch.column(0)?)?, doubles(right)?);
        let values = dividends.iter().zip(&divisors).enumerate().map(|(row, (dividend, divisor))| {
            let (dividend, divisor) = dividend.zip(divisor)?;
            let quotient = dividend / divisor;
            let outcome = if divisor == 0.0 {
                Err(Why::range("division by zero"))
            } else if dividend.is_finite() && !quotient.is_finite() {
                Err(Why::range("beyond the range of double"))
            } else {
                Ok(quotient)
            };
            rejects.sieve(row, outcome)
        });
        let column: ArrayRef = Arc::new(values.collect::<Float64Array>());
        Ok(Made { columns: vec![column], rejects: rejects.found })
    }))
}
