//! From one type to another.

use super::takes::Misfit;
use super::{Arg, Args, Family, Function, Gives, Kind, Planner, Shape, Takes};
use crate::config::domain::TimeFormat;
use crate::types::LogicalType;

/// This family.
pub const ALL: &[Function] = &[CAST, PARSE_TIMESTAMP, PARSE_DATE, PARSE_DECIMAL, PARSE_BOOLEAN];

/// `cast`
pub const CAST: Function = Function::new(
    "cast",
    "Changes a column's type, exactly: a value that would change, or does not fit, rejects its record. The date of a time is \
     its day.",
    Shape::Make(cast),
)
.of(Family::Types)
.args(&[
    Arg::required("column", Kind::Column(Takes::Any), "The column."),
    Arg::required("to", Kind::Type, "The new type."),
    Arg::optional("format", Kind::TimeFormat, "Form of times in text, or the unit of numbers since the epoch."),
    Arg::optional("as", Kind::NewColumn, "The result, a new column; else it replaces `column`."),
])
.rejects("values that the new type cannot hold exactly")
.example("cast: {column: price, to: 'decimal(12,2)'}");

fn cast(p: &mut Planner<'_>) -> Option<()> {
    let (name, to) = (p.args.opt_text("column")?.to_owned(), p.args.opt_type("to")?.clone());
    let format = p.args.opt_time_format("format").cloned();
    let read = p.read("column");
    if let Some(at) = read
        && let Err((arg, message)) = castable(&p.type_at(at).clone(), &to, format.as_ref())
    {
        p.misfit(arg, message);
    }
    match p.args.opt_text("as").map(str::to_owned).filter(|new| *new != name) {
        Some(new) => p.add("as", &new, Some(to)),
        None => {
            if let Some(at) = p.position(&name) {
                p.replace(at, Some(to), true);
                p.keep_path(at);
            }
        }
    }
    read.map(drop)
}

/// Whether `cast` knows a way that keeps values; else the argument to blame and why.
fn castable(from: &LogicalType, to: &LogicalType, format: Option<&TimeFormat>) -> Result<(), Misfit> {
    use LogicalType as L;
    let number = |t: &L| Takes::Number.accepts(t);
    let nested = |t: &L| Takes::Nested.accepts(t);
    let time = |t: &L| Takes::Calendar.accepts(t);
    let epoch = Takes::Whole.accepts(from) && Takes::Instant.accepts(to);
    let units = [TimeFormat::EpochSeconds, TimeFormat::EpochMillis, TimeFormat::EpochMicros];
    match (from, to) {
        _ if epoch && !format.is_some_and(|format| units.contains(format)) => {
            return Err(("to", format!("{from} to {to} needs `format`: epochSeconds, epochMillis or epochMicros")));
        }
        (L::String | L::Json | L::Uuid, to) if nested(to) && from != to => {
            return Err(("to", format!("{from} to {to} is what `extract` is for")));
        }
        (from, to) if from == to => {}
        (L::Json | L::Uuid, L::String) | (L::String, _) => {}
        (from, to) if number(from) && (number(to) || *to == L::String) => {}
        (L::Boolean, L::String) => {}
        (from, to) if time(from) && (time(to) || *to == L::String) => {}
        _ if epoch => {}
        _ => return Err(("to", format!("there is no way from {from} to {to}"))),
    }
    let takes_time = matches!(to, L::Date | L::Time | L::Timestamp | L::TimestampTz);
    if format.is_some() && !epoch && !(*from == L::String && takes_time) {
        return Err(("format", format!("{from} to {to} takes no format")));
    }
    Ok(())
}

/// `parseTimestamp`
pub const PARSE_TIMESTAMP: Function = Function::map(
    "parseTimestamp",
    "Reads text as a point in time, by the first of several forms that fits; text without an offset is UTC.",
    Takes::Text,
    Gives::Zoned,
)
.of(Family::Types)
.args(&[Arg::required("formats", Kind::Texts, FORMATS)])
.rejects("text that none of the forms fits")
.example("parseTimestamp: {column: at, formats: [rfc3339, '%d/%m/%Y %H:%M:%S']}");

/// `parseDate`
pub const PARSE_DATE: Function = Function::map(
    "parseDate",
    "Reads text as a calendar date, by the first of several forms that fits.",
    Takes::Text,
    Gives::Date,
)
.of(Family::Types)
.args(&[Arg::required("formats", Kind::Texts, FORMATS)])
.rejects("text that none of the forms fits")
.example("parseDate: {column: born, formats: ['%d.%m.%Y', '%Y-%m-%d']}");

const FORMATS: &str = "Forms in order: `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays`, or \
                       strftime patterns.";

/// `parseDecimal`
pub const PARSE_DECIMAL: Function = Function::map(
    "parseDecimal",
    "Reads text such as `1.234,56 €` as a decimal: signs of money and blanks around the digits are skipped.",
    Takes::Text,
    Gives::With("decimal(precision, scale)", decimal),
)
.of(Family::Types)
.args(&[
    Arg::default("precision", Kind::Int(1, 38), "18", "Digits in all."),
    Arg::default("scale", Kind::Int(0, 38), "2", "Digits after the point."),
    Arg::default("point", Kind::Text, "\".\"", "What stands before the fraction."),
    Arg::default("group", Kind::Text, "\",\"", "What stands between groups of digits; may be empty."),
])
.rejects("text that is no such number, or has more digits than the type")
.example("parseDecimal: {column: price, precision: 12, scale: 2, point: ',', group: '.'}");

fn decimal(_: &[LogicalType], args: &Args) -> Result<LogicalType, Misfit> {
    let digits = |name| u8::try_from(args.opt_int(name).unwrap_or_default()).unwrap_or_default();
    let (precision, scale) = (digits("precision"), digits("scale"));
    if scale > precision {
        return Err(("scale", format!("scale {scale} is above the precision {precision}")));
    }
    if args.opt_text("point") == args.opt_text("group") || args.opt_text("point") == Some("") {
        return Err(("point", "must be there, and another text than `group`".to_owned()));
    }
    Ok(LogicalType::Decimal { precision, scale })
}

/// `parseBoolean`
pub const PARSE_BOOLEAN: Function =
    Function::map("parseBoolean", "Reads words as true and false, whatever their case.", Takes::Text, Gives::Boolean)
        .of(Family::Types)
        .args(&[
            Arg::required("yes", Kind::Texts, "Words for true."),
            Arg::required("no", Kind::Texts, "Words for false."),
        ])
        .rejects("other words")
        .example("parseBoolean: {column: active, yes: [y, 'yes', '1'], no: [n, 'no', '0']}");
