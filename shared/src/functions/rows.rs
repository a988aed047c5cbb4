//! Which rows there are.

use super::{Arg, Family, Function, Kind, Nulls, Planner, Shape, Takes};

/// The reason under which records of other tables' events are counted; no step may count under it.
pub const OTHER_EVENT: &str = "event";

/// This family.
pub const ALL: &[Function] = &[FILTER, REQUIRE, SAMPLE, DEDUP];

/// `filter`
pub const FILTER: Function = Function::new(
    "filter",
    "Keeps the rows for which an expression is true; those for which it is false or null are counted under `name`.",
    Shape::Keep(sql),
)
.of(Family::Rows)
.args(&[
    Arg::required("where", Kind::Sql, "The expression, over one row's columns."),
    Arg::default("name", Kind::Text, "\"filter\"", "The reason under which rows left out are counted."),
])
.rejects("rows on which the expression fails")
.example("filter: {where: 'size > 0', name: empty}");

/// What is wrong with an expression Polars says when the step is built.
fn sql(p: &mut Planner<'_>) -> Option<()> {
    p.read_mentioned("where");
    Some(())
}

/// `require`
pub const REQUIRE: Function =
    Function::new("require", "Rejects records that have no value in one of these columns.", Shape::Make(columns))
        .of(Family::Rows)
        .args(&[Arg::required("columns", Kind::Columns(Takes::Any), "The columns.")])
        .nulls(Nulls::Own("reject the record"))
        .rejects("null")
        .example("require: {columns: [id, created_at]}");

fn columns(p: &mut Planner<'_>) -> Option<()> {
    p.read_all("columns").map(drop)
}

/// `sample`
pub const SAMPLE: Function = Function::new(
    "sample",
    "Keeps a share of the rows, chosen by a hash of columns: the same values always fare the same, in every table. Others are \
     counted under `name`.",
    Shape::Keep(by),
)
.of(Family::Rows)
.args(&[
    Arg::required("by", Kind::Columns(Takes::Any), "The columns that decide, such as a user's id."),
    Arg::required("share", Kind::Number, "The share that stays, above 0 to 1."),
    Arg::default("seed", Kind::Int(0, i64::MAX), "0", "Another seed chooses others."),
    Arg::default("name", Kind::Text, "\"sample\"", "The reason under which rows left out are counted."),
])
.nulls(Nulls::Own("a null counts as a value"))
.example("sample: {by: [user_id], share: 0.1}");

/// `dedup`
pub const DEDUP: Function = Function::new(
    "dedup",
    "Of rows of one commit that are equal in some columns, keeps one; others are counted under `name`. Which one stays is \
     chance where they come from several partitions or event hours. Tables of mode `upsert` and change events refuse it: there \
     versions decide which row stays.",
    Shape::Keep(by),
)
.of(Family::Rows)
.args(&[
    Arg::required("by", Kind::Columns(Takes::Any), "The columns that make rows equal."),
    Arg::default(
        "limit",
        Kind::Int(1, 50_000_000),
        "2000000",
        "Different rows a commit may have (40 bytes each of `compactor.memory`); more end the run.",
    ),
    Arg::default("name", Kind::Text, "\"duplicate\"", "The reason under which rows left out are counted."),
])
.nulls(Nulls::Own("a null counts as a value"))
.example("dedup: {by: [event_id]}");

fn by(p: &mut Planner<'_>) -> Option<()> {
    p.read_all("by").map(drop)
}
