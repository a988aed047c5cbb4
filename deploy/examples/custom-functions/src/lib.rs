//! Functions of your own: what each takes and gives, in the same words as those that come with Firn, and the code that
//! works on whole columns.
//!
//! `acme.iban` takes the usual road: text in, text out, a closure for one value, and [`values`] does the rest.
//! `acme.ratio` reads two columns and writes its own loop over Arrow arrays.

use std::sync::Arc;

use firn_compactor::transform::arrow_array::Float64Array;
use firn_compactor::transform::kernel::{Call, Made, Misfit, Own, Why, Work};
use firn_compactor::transform::values;
use firn_shared::functions::{Arg, Function, Gives, Kind, Shape, Takes};

/// What a compactor of ours knows beside the functions of Firn.
pub static FUNCTIONS: [Function; 2] = [
    Function::map("acme.iban", "An account number, checked and without blanks.", Takes::Text, Gives::Same)
        .rejects("text that is no IBAN")
        .example("acme.iban: {column: account}")
        .built_by(&IBAN),
    Function::new("acme.ratio", "part ÷ whole, 0 where the whole is 0.", Shape::Named(Gives::Double))
        .args(&[
            Arg::required("part", Kind::Column(Takes::Whole), "The part."),
            Arg::required("whole", Kind::Column(Takes::Whole), "The whole."),
        ])
        .example("acme.ratio: {part: clicks, whole: views, as: rate}")
        .built_by(&RATIO),
];

static IBAN: Own = Own(&iban);
static RATIO: Own = Own(&ratio);

#[allow(clippy::unnecessary_wraps, reason = "builders may refuse arguments; this one has none")]
fn iban(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(values::text_or_reject(|text, out| {
        out.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_uppercase()));
        if is_iban(out) { Ok(true) } else { Err(Why::form("not an IBAN")) }
    }))
}

/// ISO 13616: the first four characters go to the end, letters count from 10, and the number modulo 97 is 1.
fn is_iban(text: &str) -> bool {
    if !(15..=34).contains(&text.len()) || !text.is_ascii() {
        return false;
    }
    let (head, tail) = text.split_at(4);
    let mut digits = tail.chars().chain(head.chars()).map(|c| c.to_digit(36));
    let rest = digits.try_fold(0, |rest, digit| {
        let digit = digit?;
        Some((rest * if digit < 10 { 10 } else { 100 } + digit) % 97)
    });
    rest == Some(1)
}

#[allow(clippy::unnecessary_wraps, reason = "builders may refuse arguments; this one has none")]
fn ratio(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(values::batch(|batch| {
        let (part, whole) = (values::longs(batch.column(0)?)?, values::longs(batch.column(1)?)?);
        let ratio = |(part, whole): (Option<i64>, Option<i64>)| match (part?, whole?) {
            (_, 0) => Some(0.0),
            (part, whole) => Some(part as f64 / whole as f64),
        };
        let column: Float64Array = part.iter().zip(&whole).map(ratio).collect();
        Ok(Made::one(Arc::new(column)))
    }))
}
