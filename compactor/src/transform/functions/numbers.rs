//! Numbers: exactly where the types are exact.

use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, PrimitiveArray, cast::AsArray,
};
use arrow_schema::DataType;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, numbers as spec};
use firn_shared::types::LogicalType;

use super::columns::literal;
use crate::transform::kernel::{Batch, Build, Call, Column, Made, Misfit, Why, Work, broken};
use crate::transform::values::{Rejects, batch, column, numbers, other};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&spec::ABS, abs),
    (&spec::NEGATE, negate),
    (&spec::SIGN, sign),
    (&spec::ROUND, round),
    (&spec::FLOOR, floor),
    (&spec::CEIL, ceil),
    (&spec::CLAMP, clamp),
    (&spec::SCALE, scale),
    (&spec::MODULO, modulo),
    (&spec::SQRT, sqrt),
    (&spec::LOG, log),
    (&spec::BIN, bin),
    (&spec::GREATEST, greatest),
    (&spec::LEAST, least),
];

/// Numbers to numbers of the same type, by what is done to integers, to floats, and to the digits of decimals, of which
/// so many stand after the point.
fn same(
    whole: impl Fn(i64) -> Result<i64, Why> + Send + Sync + 'static,
    float: impl Fn(f64) -> f64 + Send + Sync + 'static,
    decimal: impl Fn(i128, u32) -> Result<i128, Why> + Send + Sync + 'static,
) -> Work {
    batch(move |batch| {
        let column = batch.column(0)?;
        let mut rejects = Rejects::new(column.name);
        let array = match column.r#type {
            LogicalType::Int => each::<Int32Type>(column, &mut rejects, |v| {
                i32::try_from(whole(i64::from(v))?).map_err(|_| Why::range("beyond the range of int"))
            }),
            LogicalType::Long => each::<Int64Type>(column, &mut rejects, &whole),
            LogicalType::Float => each::<Float32Type>(column, &mut rejects, |v| Ok(float(f64::from(v)) as f32)),
            LogicalType::Double => each::<Float64Type>(column, &mut rejects, |v| Ok(float(v))),
            LogicalType::Decimal { precision, scale } => {
                let bound = 10_u128.pow(u32::from(*precision));
                each::<Decimal128Type>(column, &mut rejects, |v| match decimal(v, u32::from(*scale))? {
                    v if v.unsigned_abs() >= bound => Err(Why::range(format!("more than {precision} digits"))),
                    v => Ok(v),
                })
            }
            _ => Err(other(column, "a number")),
        };
        Ok(Made { columns: vec![array?], rejects: rejects.found })
    })
}

fn each<T: ArrowPrimitiveType>(
    column: Column<'_>,
    rejects: &mut Rejects<'_>,
    work: impl Fn(T::Native) -> Result<T::Native, Why>,
) -> Result<ArrayRef> {
    let array = numbers::<T>(column)?;
    let values = array.iter().enumerate().map(|(row, v)| v.and_then(|v| rejects.sieve(row, work(v))));
    let values = values.collect::<PrimitiveArray<T>>();
    Ok(Arc::new(values.with_data_type(array.data_type().clone())))
}

/// The numbers of a column as doubles.
pub fn doubles(column: Column<'_>) -> Result<Float64Array> {
    let cast = arrow_cast::cast(column.array, &DataType::Float64);
    let cast = cast.map_err(|e| Error::bug(format!("`{}` as double", column.name)).with_source(e))?;
    Ok(cast.as_primitive::<Float64Type>().clone())
}

/// Numbers to doubles.
fn double(work: impl Fn(f64) -> Result<f64, Why> + Send + Sync + 'static) -> Work {
    batch(move |batch| {
        let column = batch.column(0)?;
        let mut rejects = Rejects::new(column.name);
        let values = doubles(column)?;
        let values = values.iter().enumerate().map(|(row, v)| v.and_then(|v| rejects.sieve(row, work(v))));
        let values: ArrayRef = Arc::new(values.collect::<Float64Array>());
        Ok(Made { columns: vec![values], rejects: rejects.found })
    })
}

fn no_counterpart() -> Why {
    Why::range("the least value has no counterpart")
}

fn abs(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(same(|v| v.checked_abs().ok_or_else(no_counterpart), f64::abs, |v, _| Ok(v.abs())))
}

fn negate(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(same(|v| v.checked_neg().ok_or_else(no_counterpart), |v| -v, |v, _| Ok(-v)))
}

fn sign(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let column = batch.column(0)?;
        let mut rejects = Rejects::new(column.name);
        let sign = |v: f64| match v {
            v if v > 0.0 => Ok(1),
            v if v < 0.0 => Ok(-1),
            v if v.is_nan() => Err(Why::range("not a number, which has no sign")),
            _ => Ok(0),
        };
        // A decimal below the range of double is not zero, which the cast would not show; digits do.
        let signs: PrimitiveArray<Int32Type> = match column.array.as_primitive_opt::<Decimal128Type>() {
            Some(decimals) => decimals.iter().map(|v| v.map(|v| v.signum() as i32)).collect(),
            None => {
                let values = doubles(column)?;
                let values = values.iter().enumerate();
                values.map(|(row, v)| v.and_then(|v| rejects.sieve(row, sign(v)))).collect()
            }
        };
        Ok(Made { columns: vec![Arc::new(signs)], rejects: rejects.found })
    }))
}

fn round(call: &Call<'_>) -> Result<Work, Misfit> {
    let digits = call.args.int("digits").map_err(broken)? as u32;
    let even = call.args.opt_text("half") == Some("even");
    let power = 10_f64.powi(digits as i32);
    let float = move |v: f64| {
        let scaled = v * power;
        // Beyond 2^52 there is nothing after the point.
        if scaled.abs() >= 4_503_599_627_370_496.0 || !scaled.is_finite() {
            return v;
        }
        (if even { scaled.round_ties_even() } else { scaled.round() }) / power
    };
    let decimal = move |v: i128, scale: u32| {
        let Some(unit) = scale.checked_sub(digits).map(|less| 10_i128.pow(less)) else { return Ok(v) };
        let (quotient, rest) = (v.div_euclid(unit), v.rem_euclid(unit));
        // Twice the rest might be beyond 128 bits.
        let up = match rest.cmp(&(unit - rest)) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal if even => quotient % 2 != 0,
            std::cmp::Ordering::Equal => v >= 0 && unit > 1,
        };
        Ok((quotient + i128::from(up)) * unit)
    };
    Ok(same(Ok, float, decimal))
}

fn floor(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(same(Ok, f64::floor, |v, scale| {
        let unit = 10_i128.pow(scale);
        Ok(v.div_euclid(unit) * unit)
    }))
}

fn ceil(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(same(Ok, f64::ceil, |v, scale| {
        let unit = 10_i128.pow(scale);
        Ok(-((-v).div_euclid(unit) * unit))
    }))
}

fn failed(what: &'static str) -> impl Fn(arrow_schema::ArrowError) -> Error {
    move |e| Error::bug(what).with_source(e)
}

fn clamp(call: &Call<'_>) -> Result<Work, Misfit> {
    let r#type = call.from().map_err(broken)?;
    let bound = |arg: &'static str| call.args.get(arg).map(|_| literal(call, arg, r#type)).transpose();
    let (least, most) = (bound("min")?, bound("max")?);
    if let (Some(least), Some(most)) = (&least, &most) {
        let wrong = arrow_ord::cmp::gt(least, most).map_err(|e| ("min", e.to_string()))?;
        if wrong.value(0) {
            return Err(("min", "is above `max`".to_owned()));
        }
    }
    if least.is_none() && most.is_none() {
        return Err(("min", "is missing, and `max` too".to_owned()));
    }
    Ok(column(move |column| {
        let mut array = Arc::clone(column.array);
        if let Some(least) = &least {
            let below = numbers_of(&array, &arrow_ord::cmp::lt(&array, least).map_err(failed("clamp"))?);
            array = arrow_select::zip::zip(&below, least, &array).map_err(failed("clamp"))?;
        }
        if let Some(most) = &most {
            let above = numbers_of(&array, &arrow_ord::cmp::gt(&array, most).map_err(failed("clamp"))?);
            array = arrow_select::zip::zip(&above, most, &array).map_err(failed("clamp"))?;
        }
        Ok(array)
    }))
}

/// The rows of `mask` that hold numbers: what is none is beyond no bound, though it has a place in the order of floats.
fn numbers_of(array: &ArrayRef, mask: &BooleanArray) -> BooleanArray {
    let is_nan = |row| match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).is_nan(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).is_nan(),
        _ => false,
    };
    mask.iter().enumerate().map(|(row, is_beyond)| is_beyond.map(|is_beyond| is_beyond && !is_nan(row))).collect()
}

/// A double that is one.
fn finite(v: f64) -> Result<f64, Why> {
    if v.is_finite() { Ok(v) } else { Err(Why::range("beyond the range of double")) }
}

fn scale(call: &Call<'_>) -> Result<Work, Misfit> {
    let (by, plus) = (call.args.number("by").map_err(broken)?, call.args.number("plus").map_err(broken)?);
    Ok(double(move |v| if v.is_finite() { finite(v * by + plus) } else { Ok(v * by + plus) }))
}

fn modulo(call: &Call<'_>) -> Result<Work, Misfit> {
    let by = call.args.int("by").map_err(broken)?;
    Ok(same(move |v| Ok(v.rem_euclid(by)), |v| v, |v, _| Ok(v)))
}

fn sqrt(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(double(|v| if v < 0.0 { Err(Why::range("below zero")) } else { Ok(v.sqrt()) }))
}

fn log(call: &Call<'_>) -> Result<Work, Misfit> {
    let base = call.args.opt_number("base");
    let is = |base: f64, other: f64| (base - other).abs() < f64::EPSILON;
    if base.is_some_and(|base| base <= 0.0 || is(base, 1.0)) {
        return Err(("base", "must be above zero, and not 1".to_owned()));
    }
    Ok(double(move |v| match base {
        _ if v <= 0.0 => Err(Why::range("at or below zero")),
        Some(base) if is(base, 10.0) => Ok(v.log10()),
        Some(base) if is(base, 2.0) => Ok(v.log2()),
        Some(base) => Ok(v.log(base)),
        None => Ok(v.ln()),
    }))
}

fn bin(call: &Call<'_>) -> Result<Work, Misfit> {
    let (width, origin) = (call.args.number("width").map_err(broken)?, call.args.number("origin").map_err(broken)?);
    if width <= 0.0 {
        return Err(("width", "must be above zero".to_owned()));
    }
    let cells = Cells::new(width, origin);
    Ok(double(move |v| Ok(cells.edge_below(v))))
}

/// Cells of one width. Their edges are the floats nearest to what the digits of width and origin say: 3 cells of 0.1 end at
/// 0.3, though `3.0 * 0.1` is more and `0.3 / 0.1` less than 3.
#[derive(Debug, Clone, Copy)]
pub struct Cells {
    width: f64,
    origin: f64,
    /// Digits after the point of both, where nine are enough.
    digits: Option<u8>,
}

impl Cells {
    /// Cells of this width, above zero, one of which begins at `origin`.
    pub fn new(width: f64, origin: f64) -> Self {
        let is_whole = |v: f64| (v - v.round()).abs() <= v.abs() * 1e-12;
        let scales = |digits: &u8| [width, origin].iter().all(|v| is_whole(v * 10_f64.powi(i32::from(*digits))));
        Self { width, origin, digits: (0..=9).find(scales) }
    }

    /// Digits after the point that edges need.
    pub fn digits(self) -> usize {
        usize::from(self.digits.unwrap_or(9))
    }

    /// The lower edge of the cell that `v` is in; an edge belongs to the cell above it.
    pub fn edge_below(self, v: f64) -> f64 {
        let number = ((v - self.origin) / self.width).floor();
        let edges = [number + 1.0, number, number - 1.0].map(|number| self.edge(number));
        edges.into_iter().find(|edge| *edge <= v).unwrap_or(edges[1])
    }

    /// The lower edge of a cell: a whole number divided by a power of ten, which rounds once.
    fn edge(self, number: f64) -> f64 {
        /// Whole numbers below are exact floats.
        const EXACT: f64 = (1_u64 << 53) as f64;
        let scale = 10_f64.powi(self.digits.map_or(0, i32::from));
        let scaled = (self.width * scale).round() * number + (self.origin * scale).round();
        match self.digits {
            Some(_) if scaled.abs() < EXACT => scaled / scale,
            _ => number * self.width + self.origin,
        }
    }
}

fn greatest(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| extreme(batch, true)))
}

fn least(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| extreme(batch, false)))
}

fn extreme(batch: &Batch<'_>, greatest: bool) -> Result<Made> {
    let mut found = Arc::clone(batch.column(0)?.array);
    for column in &batch.columns[1..] {
        let next = column.array;
        let better = if greatest { arrow_ord::cmp::gt(next, &found) } else { arrow_ord::cmp::lt(next, &found) };
        let better = better.map_err(failed("values that are compared"))?;
        let better = better
            .iter()
            .enumerate()
            .map(|(row, better)| Some(better.unwrap_or_else(|| found.is_null(row) && next.is_valid(row))));
        let better = better.collect::<BooleanArray>();
        found = arrow_select::zip::zip(&better, next, &found).map_err(failed("values that are compared"))?;
    }
    Ok(Made::one(found))
}

/// Exact numbers of a column with the digits after their point.
pub fn exact(column: Column<'_>) -> Result<(Decimal128Array, u32)> {
    let scale = match column.r#type {
        LogicalType::Decimal { scale, .. } => *scale,
        _ => 0,
    };
    let cast = arrow_cast::cast(column.array, &DataType::Decimal128(38, scale as i8));
    let cast = cast.map_err(|e| Error::bug(format!("`{}` as decimal", column.name)).with_source(e))?;
    Ok((cast.as_primitive::<Decimal128Type>().clone(), u32::from(scale)))
}

/// Exact numbers as the type that a step was planned to make, unless they are beyond it.
pub fn exact_as(
    to: &LogicalType,
    values: impl Iterator<Item = Option<Result<i128, Why>>>,
    rejects: &mut Rejects<'_>,
) -> Result<ArrayRef> {
    let rows = values.enumerate();
    match to {
        LogicalType::Long => {
            let long = |v: i128| i64::try_from(v).map_err(|_| Why::range("beyond the range of long"));
            let values = rows.map(|(row, v)| v.and_then(|v| rejects.sieve(row, v.and_then(long))));
            Ok(Arc::new(values.collect::<Int64Array>()))
        }
        LogicalType::Decimal { precision, scale } => {
            let bound = 10_u128.pow(u32::from(*precision));
            let fits = |v: i128| {
                if v.unsigned_abs() < bound { Ok(v) } else { Err(Why::range(format!("more than {precision} digits"))) }
            };
            let values = rows.map(|(row, v)| v.and_then(|v| rejects.sieve(row, v.and_then(fits))));
            let values = values.collect::<Decimal128Array>();
            Ok(Arc::new(values.with_data_type(DataType::Decimal128(*precision, *scale as i8))))
        }
        other => Err(Error::bug(format!("exact numbers are not made as {other}"))),
    }
}
