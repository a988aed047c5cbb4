//! Which columns there are, and in which order.

use super::{Arg, Args, Family, Function, Gives, Kind, Nulls, Planner, Shape, Takes};
use crate::functions::takes::Misfit;
use crate::types::LogicalType;

/// This family.
pub const ALL: &[Function] = &[RENAME, DROP, SELECT, REORDER, COPY, CONSTANT, COALESCE, FILL_NULL, NULL_IF];

const fn layout(name: &'static str, about: &'static str, plan: super::Plan) -> Function {
    Function::new(name, about, Shape::Layout(plan)).of(Family::Columns)
}

/// `rename`
pub const RENAME: Function = layout("rename", "Gives a column another name.", rename)
    .args(&[
        Arg::required("from", Kind::Column(Takes::Any), "Today's name."),
        Arg::required("to", Kind::NewColumn, "The new name."),
    ])
    .example("rename: {from: actor.login, to: actor_login}");

fn rename(p: &mut Planner<'_>) -> Option<()> {
    let (from, to) = (p.args.opt_text("from")?.to_owned(), p.args.opt_text("to")?.to_owned());
    if from != to && p.has(&to) {
        p.report("to", format!("a column `{to}` is there already"));
        let at = p.find("from", &from)?;
        p.remove(at);
        return None;
    }
    let Some(at) = p.find("from", &from) else {
        // What follows may use the new name: one mistake, one message.
        p.lose_track();
        return None;
    };
    p.rename(at, "to", &to);
    Some(())
}

/// `drop`
pub const DROP: Function = layout("drop", "Removes columns.", drop_columns)
    .args(&[Arg::required("columns", Kind::Columns(Takes::Any), "Their names.")])
    .example("drop: {columns: [note]}");

fn drop_columns(p: &mut Planner<'_>) -> Option<()> {
    for at in found(p, "columns") {
        p.remove(at);
    }
    Some(())
}

/// Positions of the columns that an argument lists; those that are not there were reported.
fn found(p: &mut Planner<'_>, arg: &str) -> Vec<usize> {
    let names = p.args.texts(arg).to_vec();
    let mut positions = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let path = format!("{arg}[{i}]");
        match p.find(&path, name) {
            Some(at) if positions.contains(&at) => p.report(&path, format!("column `{name}` comes twice")),
            at => positions.extend(at),
        }
    }
    positions
}

/// `select`
pub const SELECT: Function = layout("select", "Keeps only these columns, in this order.", select)
    .args(&[Arg::required("columns", Kind::Columns(Takes::Any), "Their names.")])
    .example("select: {columns: [id, type, created_at]}");

fn select(p: &mut Planner<'_>) -> Option<()> {
    let order = found(p, "columns");
    p.arrange(&order);
    Some(())
}

/// `reorder`
pub const REORDER: Function =
    layout("reorder", "Puts these columns first, in this order; the others follow as they were.", reorder)
        .args(&[Arg::required("first", Kind::Columns(Takes::Any), "Their names.")])
        .example("reorder: {first: [id, type]}");

fn reorder(p: &mut Planner<'_>) -> Option<()> {
    let mut order = found(p, "first");
    let rest: Vec<usize> = (0..p.before().count()).filter(|at| !order.contains(at)).collect();
    order.extend(rest);
    p.arrange(&order);
    Some(())
}

/// `copy`
pub const COPY: Function = layout("copy", "Adds a column with the values of another.", copy)
    .args(&[
        Arg::required("from", Kind::Column(Takes::Any), "The column."),
        Arg::required("to", Kind::NewColumn, "The name of its copy."),
    ])
    .example("copy: {from: id, to: order_id}");

fn copy(p: &mut Planner<'_>) -> Option<()> {
    let to = p.args.opt_text("to")?.to_owned();
    if p.has(&to) {
        p.report("to", format!("a column `{to}` is there already"));
        return None;
    }
    let Some(at) = p.read("from") else {
        p.add("to", &to, None);
        return None;
    };
    p.copy(at, "to", &to);
    Some(())
}

/// `constant`
pub const CONSTANT: Function =
    Function::new("constant", "Adds a column that has the same value in every row.", Shape::Make(constant))
        .of(Family::Columns)
        .args(&[
            Arg::required("as", Kind::NewColumn, "The new column."),
            Arg::required("value", Kind::Scalar, "Its value, written as in JSON."),
            Arg::default("type", Kind::Type, "\"string\"", "Its type."),
        ])
        .nulls(Nulls::Own("there are none"))
        .example("constant: {as: source, value: web}");

fn constant(p: &mut Planner<'_>) -> Option<()> {
    let (to, r#type) = (p.args.opt_text("as")?.to_owned(), p.args.opt_type("type")?.clone());
    p.add("as", &to, Some(r#type));
    Some(())
}

/// `coalesce`
pub const COALESCE: Function = Function::new(
    "coalesce",
    "The first value of these columns that is not null.",
    Shape::Combine(Takes::Any, Gives::With("the type that all of them have", one_type)),
)
.of(Family::Columns)
.nulls(Nulls::Own("null where every column is null"))
.example("coalesce: {columns: [email, contact_email], as: email}");

/// The type of columns that must be of one.
pub(super) fn one_type(reads: &[LogicalType], _: &Args) -> Result<LogicalType, Misfit> {
    let first = reads.first().cloned().unwrap_or(LogicalType::String);
    match reads.iter().find(|other| **other != first) {
        Some(other) => Err(("columns", format!("are {first} and {other}; cast them to one type first"))),
        None => Ok(first),
    }
}

/// `fillNull`
pub const FILL_NULL: Function =
    Function::map("fillNull", "Puts a value where there is none.", Takes::Scalar, Gives::Same)
        .of(Family::Columns)
        .args(&[Arg::required(
            "value",
            Kind::Scalar,
            "The value, as a column of this type would be decoded from JSON.",
        )])
        .nulls(Nulls::Own("null becomes the value"))
        .example("fillNull: {column: country, value: unknown}");

/// `nullIf`
pub const NULL_IF: Function =
    Function::map("nullIf", "Takes a value for null, such as `N/A`.", Takes::Scalar, Gives::Same)
        .of(Family::Columns)
        .args(&[Arg::required(
            "value",
            Kind::Scalar,
            "The value, as a column of this type would be decoded from JSON.",
        )])
        .nulls(Nulls::Made("the value"))
        .example("nullIf: {column: country, value: N/A}");
