//! Dates and times. All of it is the Gregorian calendar; nothing looks at the clock.

use super::takes::Misfit;
use super::{Arg, Args, Family, Function, Gives, Kind, Nulls, Shape, Takes};
use crate::types::LogicalType;

/// This family.
pub const ALL: &[Function] =
    &[TRUNCATE, PART, FORMAT, TO_ZONE, FROM_ZONE, TO_EPOCH, FROM_EPOCH, SHIFT, DIFFERENCE, AGE];

const UNITS: &[&str] = &["second", "minute", "hour", "day", "week", "month", "quarter", "year"];
const FIXED: &[&str] = &["microsecond", "millisecond", "second", "minute", "hour", "day", "week"];
const ZONE: &str = "A zone of the IANA data base, such as `Europe/Berlin`.";

/// `truncateTime`
pub const TRUNCATE: Function = Function::map(
    "truncateTime",
    "The first instant of the second, minute, hour, day, week (Monday), month, quarter or year.",
    Takes::Calendar,
    Gives::Same,
)
.of(Family::Time)
.args(&[Arg::required("to", Kind::Word(UNITS), "The unit.")])
.example("truncateTime: {column: created_at, to: hour, as: hour}");

/// `timePart`
pub const PART: Function =
    Function::map("timePart", "A part of a date or time, as a number.", Takes::Calendar, Gives::Int)
        .of(Family::Time)
        .args(&[Arg::required(
            "part",
            Kind::Word(&[
                "year",
                "quarter",
                "month",
                "week",
                "day",
                "dayOfYear",
                "weekday",
                "hour",
                "minute",
                "second",
                "microsecond",
            ]),
            "Which; `week` is of ISO 8601, `weekday` is 1 for Monday to 7 for Sunday.",
        )])
        .example("timePart: {column: created_at, part: weekday, as: weekday}");

/// `formatTime`
pub const FORMAT: Function = Function::map("formatTime", "A date or time as text.", Takes::Calendar, Gives::Text)
    .of(Family::Time)
    .args(&[
        Arg::required("pattern", Kind::TimeFormat, "A strftime pattern, or `rfc3339`."),
        Arg::optional("zone", Kind::Text, "For timestamptz, the zone of the text; else UTC."),
    ])
    .example("formatTime: {column: created_at, pattern: '%Y-%m', as: month}");

/// `toZone`
pub const TO_ZONE: Function =
    Function::map("toZone", "What clocks of a zone show at a point in time.", Takes::Zoned, Gives::Local)
        .of(Family::Time)
        .args(&[Arg::required("zone", Kind::Text, ZONE)])
        .rejects("results beyond the years 1 to 9999")
        .example("toZone: {column: created_at, zone: Europe/Berlin, as: local_time}");

/// `fromZone`
pub const FROM_ZONE: Function =
    Function::map("fromZone", "The point in time at which clocks of a zone showed this.", Takes::Local, Gives::Zoned)
        .of(Family::Time)
        .args(&[
            Arg::required("zone", Kind::Text, ZONE),
            Arg::default(
                "twice",
                Kind::Word(&["earlier", "later", "reject"]),
                "\"reject\"",
                "Which, when clocks were set back and showed it twice.",
            ),
        ])
        .rejects(
            "times that clocks leapt over, those they showed twice unless `twice` decides, and results beyond the years 1 to 9999",
        )
        .example("fromZone: {column: local_time, zone: Europe/Berlin, twice: earlier}");

/// `toEpoch`
pub const TO_EPOCH: Function =
    Function::map("toEpoch", "Whole units since 1970-01-01T00:00:00Z, rounded down.", Takes::Calendar, Gives::Long)
        .of(Family::Time)
        .args(&[Arg::default("unit", Kind::Word(&["seconds", "millis", "micros", "days"]), "\"millis\"", "The unit.")])
        .example("toEpoch: {column: created_at, unit: seconds, as: created_epoch}");

/// `fromEpoch`
pub const FROM_EPOCH: Function = Function::map(
    "fromEpoch",
    "The point in time so many units after 1970-01-01T00:00:00Z.",
    Takes::Whole,
    Gives::Zoned,
)
.of(Family::Time)
.args(&[Arg::default("unit", Kind::Word(&["seconds", "millis", "micros", "nanos", "days"]), "\"millis\"", "The unit.")])
.rejects("numbers beyond the years 1 to 9999")
.example("fromEpoch: {column: ts, unit: millis}");

/// `shiftTime`
pub const SHIFT: Function = Function::map(
    "shiftTime",
    "Later by so many units, or earlier; months keep the day, or take the last one of a shorter month.",
    Takes::Calendar,
    Gives::Same,
)
.of(Family::Time)
.args(&[
    Arg::required("by", Kind::Int(-100_000_000, 100_000_000), "How many; negative is earlier."),
    Arg::required(
        "unit",
        Kind::Word(&["second", "minute", "hour", "day", "week", "month", "year"]),
        "The unit; a date takes none below a day.",
    ),
])
.rejects("results beyond the years 1 to 9999")
.example("shiftTime: {column: created_at, by: 30, unit: day, as: due_at}");

/// `timeDifference`
pub const DIFFERENCE: Function = Function::new(
    "timeDifference",
    "Whole units from one time to another, rounded down; negative when the other is earlier.",
    Shape::Named(Gives::With("long", between)),
)
.of(Family::Time)
.args(&[
    Arg::required("from", Kind::Column(Takes::Calendar), "The first time."),
    Arg::required("to", Kind::Column(Takes::Calendar), "The other time, of the same type."),
    Arg::default("unit", Kind::Word(FIXED), "\"second\"", "The unit."),
])
.nulls(Nulls::Own("null where one of them is null"))
.example("timeDifference: {from: ordered_at, to: shipped_at, unit: hour, as: hours_to_ship}");

/// Times are compared with their like.
fn between(reads: &[LogicalType], _: &Args) -> Result<LogicalType, Misfit> {
    match reads {
        [from, to] if from != to => Err(("to", format!("is {to}, but `from` is {from}; cast one of them first"))),
        _ => Ok(LogicalType::Long),
    }
}

/// `age`
pub const AGE: Function = Function::new(
    "age",
    "Full years from a date of birth to another date or time of the record; there is no age `now`, because the same record \
     must give the same row again.",
    Shape::Named(Gives::Int),
)
.of(Family::Time)
.args(&[
    Arg::required("born", Kind::Column(Takes::Calendar), "The date of birth."),
    Arg::required("at", Kind::Column(Takes::Calendar), "The date or time at which the age is asked for."),
])
.nulls(Nulls::Own("null where one of them is null"))
.example("age: {born: birth_date, at: created_at, as: age}");
