//! Values that depend on other values.

use super::{Arg, Family, Function, Gives, Kind, Nulls, Planner, Shape, Takes};

/// This family.
pub const ALL: &[Function] = &[EXPR, IF, REPLACE_VALUES, LOOKUP];

/// `expr`
pub const EXPR: Function = Function::new(
    "expr",
    "A Polars SQL expression over the columns of one row, for what no function covers.",
    Shape::Make(expr),
)
.of(Family::Values)
.args(&[
    Arg::required("sql", Kind::Sql, "The expression."),
    Arg::required("as", Kind::NewColumn, "The result: a new column, or one that is there."),
    Arg::required("type", Kind::Type, "Its type, without parts."),
])
.nulls(Nulls::Own("as SQL has it"))
.rejects("values that the type cannot hold exactly, rows on which the expression fails, and text that is longer than memory allows")
.example("expr: {sql: 'CASE WHEN size > 10 THEN ''large'' ELSE ''small'' END', as: class, type: string}");

fn expr(p: &mut Planner<'_>) -> Option<()> {
    let (to, r#type) = (p.args.opt_text("as")?.to_owned(), p.args.opt_type("type")?.clone());
    if !Takes::Scalar.accepts(&r#type) {
        p.report("type", format!("is {type}; an expression gives values without parts"));
    }
    p.read_mentioned("sql");
    match p.position(&to) {
        Some(at) => p.replace(at, Some(r#type), false),
        None => p.add("as", &to, Some(r#type)),
    }
    Some(())
}

/// `if`
pub const IF: Function =
    Function::new("if", "One of two values, by an expression that is true or false.", Shape::Make(if_then))
        .of(Family::Values)
        .args(&[
            Arg::required("where", Kind::Sql, "A Polars SQL expression over the columns of one row."),
            Arg::required("then", Kind::Scalar, "The value where it is true."),
            Arg::optional("else", Kind::Scalar, "The value where it is false or null; else null."),
            Arg::required("as", Kind::NewColumn, "The result, a new column."),
            Arg::default("type", Kind::Type, "\"string\"", "Its type."),
        ])
        .nulls(Nulls::Own("an expression that is null counts as false"))
        .rejects("rows on which the expression fails")
        .example("if: {where: 'size > 10', then: large, else: small, as: class}");

fn if_then(p: &mut Planner<'_>) -> Option<()> {
    let (to, r#type) = (p.args.opt_text("as")?.to_owned(), p.args.opt_type("type")?.clone());
    p.read_mentioned("where");
    p.add("as", &to, Some(r#type));
    Some(())
}

/// `replaceValues`
pub const REPLACE_VALUES: Function =
    Function::map("replaceValues", "Values by a table written in the step.", Takes::Text, Gives::Text)
        .of(Family::Values)
        .args(&[
            Arg::required("values", Kind::Pairs, "Each value, and what it becomes."),
            Arg::default("other", Kind::Word(&["keep", "null", "reject"]), "\"keep\"", "What becomes of other values."),
        ])
        .nulls(Nulls::Made("with `other: null`, values that are not in the table"))
        .rejects("with `other: reject`, values that are not in the table")
        .example("replaceValues: {column: status, values: {A: active, C: closed}, other: reject}");

/// `lookup`
pub const LOOKUP: Function = Function::new(
    "lookup",
    "Columns of a CSV (with a header) or Parquet file in the store, found by a key. The file is read once a run.",
    Shape::Make(lookup),
)
.of(Family::Values)
.args(&[
    Arg::required("column", Kind::Column(Takes::Scalar), "The column that is looked up."),
    Arg::required("file", Kind::Text, "The file: `s3://bucket/key`, `file:///path`, or relative to the pipeline's file."),
    Arg::required("key", Kind::Text, "The file's column that is compared with it, as text; its values come once each."),
    Arg::required("take", Kind::Types, "Columns of the file to add, each with its type; of no row more than 1 MiB."),
    Arg::default("prefix", Kind::Text, "\"\"", "What the new columns' names begin with."),
    Arg::default("missing", Kind::Word(&["null", "reject"]), "\"null\"", "What becomes of a value that the file does not have."),
])
.nulls(Nulls::Own("a null finds nothing and is never rejected"))
.rejects("with `missing: reject`, values that the file does not have")
.example("lookup: {column: country, file: 's3://lake/reference/countries.csv', key: code, take: {name: string}, prefix: country_}");

fn lookup(p: &mut Planner<'_>) -> Option<()> {
    let (take, prefix) = (p.args.types("take").to_vec(), p.args.opt_text("prefix")?.to_owned());
    let read = p.read("column");
    for (name, r#type) in take {
        p.add("take", &format!("{prefix}{name}"), Some(r#type));
    }
    read.map(drop)
}
