//! Numbers.

use super::takes::Misfit;
use super::{Arg, Args, Family, Function, Gives, Kind, NAN, Nulls, Shape, Takes};
use crate::types::LogicalType;

/// This family.
pub const ALL: &[Function] = &[
    ABS, NEGATE, SIGN, ROUND, FLOOR, CEIL, CLAMP, SCALE, MODULO, SQRT, LOG, BIN, SUM, PRODUCT, SUBTRACT, DIVIDE,
    GREATEST, LEAST,
];

const fn number(name: &'static str, about: &'static str, gives: Gives) -> Function {
    Function::map(name, about, Takes::Number, gives).of(Family::Numbers)
}

/// `abs`
pub const ABS: Function = number("abs", "The value without its sign.", Gives::Same)
    .rejects("the least int or long, which has no counterpart")
    .example("abs: {column: balance}");

/// `negate`
pub const NEGATE: Function = number("negate", "The value with the other sign.", Gives::Same)
    .rejects("the least int or long, which has no counterpart")
    .example("negate: {column: refund}");

/// `sign`
pub const SIGN: Function = number("sign", "-1, 0 or 1, as the value is below, at or above zero.", Gives::Int)
    .rejects(NAN)
    .example("sign: {column: change, as: direction}");

/// `round`
pub const ROUND: Function = number("round", "So many digits after the point; integers stay.", Gives::Same)
    .args(&[
        Arg::default("digits", Kind::Int(0, 18), "0", "Digits after the point."),
        Arg::default(
            "half",
            Kind::Word(&["up", "even"]),
            "\"up\"",
            "Where halves go: away from zero, or to the even neighbour.",
        ),
    ])
    .rejects("a decimal that rounds to one digit more than its type has")
    .example("round: {column: price, digits: 2}");

/// `floor`
pub const FLOOR: Function = number("floor", "The next whole number below.", Gives::Same)
    .rejects("a decimal that has one digit more then than its type has")
    .example("floor: {column: price}");

/// `ceil`
pub const CEIL: Function = number("ceil", "The next whole number above.", Gives::Same)
    .rejects("a decimal that has one digit more then than its type has")
    .example("ceil: {column: price}");

/// `clamp`
pub const CLAMP: Function = number("clamp", "Values beyond a bound become the bound; NaN is beyond none.", Gives::Same)
    .args(&[
        Arg::optional("min", Kind::Scalar, "The least value."),
        Arg::optional("max", Kind::Scalar, "The greatest value."),
    ])
    .example("clamp: {column: score, min: 0, max: 100}");

/// `scale`
pub const SCALE: Function = number("scale", "value × by + plus, as a double.", Gives::Double)
    .args(&[
        Arg::default("by", Kind::Number, "1", "The factor."),
        Arg::default("plus", Kind::Number, "0", "What is added."),
    ])
    .rejects("a result beyond the range of double")
    .example("scale: {column: fahrenheit, by: 0.5555555555555556, plus: -17.77777777777778, as: celsius}");

/// `modulo`
pub const MODULO: Function =
    Function::map("modulo", "The remainder of a division, from 0 to one below the divisor.", Takes::Whole, Gives::Same)
        .of(Family::Numbers)
        .args(&[Arg::required("by", Kind::Int(1, 2_147_483_647), "The divisor.")])
        .example("modulo: {column: user_id, by: 16, as: shard}");

/// `sqrt`
pub const SQRT: Function = number("sqrt", "The square root, as a double.", Gives::Double)
    .rejects("values below zero")
    .example("sqrt: {column: variance, as: deviation}");

/// `log`
pub const LOG: Function = number("log", "The logarithm, as a double.", Gives::Double)
    .args(&[Arg::optional("base", Kind::Number, "The base; else e.")])
    .rejects("values at or below zero")
    .example("log: {column: amount, base: 10, as: magnitude}");

/// `bin`
pub const BIN: Function =
    number("bin", "The lower end of the interval of a fixed width in which a value lies.", Gives::Double)
        .args(&[
            Arg::required("width", Kind::Number, "The width; above zero."),
            Arg::default("origin", Kind::Number, "0", "Where one of the intervals begins."),
        ])
        .example("bin: {column: age, width: 10, as: decade}");

const EXACT: &str = "long for integers; a decimal of 38 digits where one is a decimal; double where one is a float";

const fn combine(name: &'static str, about: &'static str, gives: Gives) -> Function {
    Function::new(name, about, Shape::Combine(Takes::Number, gives)).of(Family::Numbers)
}

/// `sum`
pub const SUM: Function =
    combine("sum", "The sum of columns, exactly unless one is a float.", Gives::With(EXACT, sum_type))
        .nulls(Nulls::Own("null where a column is null"))
        .rejects("a sum beyond the range of the result")
        .example("sum: {columns: [net, tax], as: gross}");

/// `product`
pub const PRODUCT: Function =
    combine("product", "The product of columns, exactly unless one is a float.", Gives::With(EXACT, product_type))
        .nulls(Nulls::Own("null where a column is null"))
        .rejects("a product beyond the range of the result")
        .example("product: {columns: [price, quantity], as: total}");

const SIDES: &[Arg] = &[
    Arg::required("left", Kind::Column(Takes::Number), "The first column."),
    Arg::required("right", Kind::Column(Takes::Number), "The second column."),
];

/// `subtract`
pub const SUBTRACT: Function = Function::new(
    "subtract",
    "left − right, exactly unless one is a float; types as for `sum`.",
    Shape::Named(Gives::With(EXACT, sum_type)),
)
.of(Family::Numbers)
.args(SIDES)
.nulls(Nulls::Own("null where a column is null"))
.rejects("a difference beyond the range of the result")
.example("subtract: {left: gross, right: tax, as: net}");

/// `divide`
pub const DIVIDE: Function = Function::new("divide", "left ÷ right, as a double.", Shape::Named(Gives::Double))
    .of(Family::Numbers)
    .args(SIDES)
    .nulls(Nulls::Own("null where a column is null"))
    .rejects("a division by zero, and a quotient beyond the range of double")
    .example("divide: {left: revenue, right: orders, as: average}");

fn sum_type(reads: &[LogicalType], _: &Args) -> Result<LogicalType, Misfit> {
    let scales = reads.iter().map(scale_of);
    Ok(match scales.collect::<Option<Vec<u8>>>() {
        None => LogicalType::Double,
        Some(_) if reads.iter().all(|r#type| Takes::Whole.accepts(r#type)) => LogicalType::Long,
        Some(scales) => LogicalType::Decimal { precision: 38, scale: scales.into_iter().max().unwrap_or_default() },
    })
}

fn product_type(reads: &[LogicalType], _: &Args) -> Result<LogicalType, Misfit> {
    let scales = reads.iter().map(scale_of);
    Ok(match scales.collect::<Option<Vec<u8>>>() {
        None => LogicalType::Double,
        Some(_) if reads.iter().all(|r#type| Takes::Whole.accepts(r#type)) => LogicalType::Long,
        Some(scales) => match scales.iter().map(|scale| u32::from(*scale)).sum::<u32>() {
            scale @ 0..=38 => LogicalType::Decimal { precision: 38, scale: scale as u8 },
            scale => return Err(("columns", format!("have {scale} digits after the point together, more than 38"))),
        },
    })
}

/// Digits after the point of an exact number; none of a float.
fn scale_of(r#type: &LogicalType) -> Option<u8> {
    match r#type {
        LogicalType::Decimal { scale, .. } => Some(*scale),
        LogicalType::Float | LogicalType::Double => None,
        _ => Some(0),
    }
}

/// `greatest`
pub const GREATEST: Function = Function::new(
    "greatest",
    "The greatest value of several columns.",
    Shape::Combine(Takes::Scalar, Gives::With("the type that all of them have", super::columns::one_type)),
)
.of(Family::Numbers)
.nulls(Nulls::Own("nulls are passed over; null where every column is null"))
.example("greatest: {columns: [created_at, updated_at], as: seen_at}");

/// `least`
pub const LEAST: Function = Function::new(
    "least",
    "The least value of several columns.",
    Shape::Combine(Takes::Scalar, Gives::With("the type that all of them have", super::columns::one_type)),
)
.of(Family::Numbers)
.nulls(Nulls::Own("nulls are passed over; null where every column is null"))
.example("least: {columns: [list_price, price], as: best_price}");
