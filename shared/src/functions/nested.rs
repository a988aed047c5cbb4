//! Lists, maps and structs.

use super::takes::Misfit;
use super::{Arg, Args, Family, Function, Gives, Kind, LONG, Nulls, Planner, Shape, Takes};
use crate::types::{LogicalType, StructField};

/// This family.
pub const ALL: &[Function] = &[
    JOIN,
    SIZE,
    ELEMENT,
    DISTINCT,
    SORT,
    LIST_CONTAINS,
    SLICE,
    FLATTEN,
    MAP_KEYS,
    MAP_VALUES,
    MAP_GET,
    FIELD,
    UNNEST,
    STRUCT,
    EXPLODE,
];

const fn list(name: &'static str, about: &'static str, gives: Gives) -> Function {
    Function::map(name, about, Takes::List, gives).of(Family::Nested)
}

fn element_type(reads: &[LogicalType], _: &Args) -> Result<LogicalType, Misfit> {
    match reads.first() {
        Some(LogicalType::List(element) | LogicalType::Map(element)) => Ok((**element).clone()),
        _ => Ok(LogicalType::String),
    }
}

const ELEMENT_TYPE: Gives = Gives::With("the type of an element", element_type);

/// `joinList`
pub const JOIN: Function =
    Function::map("joinList", "A list of texts as one text.", Takes::ListOf(&Takes::Text), Gives::Text)
        .of(Family::Nested)
        .args(&[Arg::default("separator", Kind::Text, "\",\"", "What stands between them.")])
        .nulls(Nulls::Own("a null list is null; null elements are left out"))
        .rejects(LONG)
        .example("joinList: {column: tags, separator: '|'}");

/// `size`
pub const SIZE: Function =
    Function::map("size", "How many elements a list, or entries a map has.", Takes::Container, Gives::Int)
        .of(Family::Nested)
        .example("size: {column: tags, as: tag_count}");

/// `element`
pub const ELEMENT: Function = list("element", "One element of a list.", ELEMENT_TYPE)
    .args(&[Arg::default("at", Kind::Int(i64::MIN, i64::MAX), "0", "Which, from 0; -1 is the last.")])
    .nulls(Nulls::Made("a list that is shorter"))
    .example("element: {column: tags, at: 0, as: first_tag}");

/// `distinct`
pub const DISTINCT: Function =
    list("distinct", "Each element once, in the order of its first place.", Gives::With("the same type", simple_list))
        .example("distinct: {column: tags}");

/// `sortList`
pub const SORT: Function =
    list("sortList", "The elements in ascending order, nulls last.", Gives::With("the same type", simple_list))
        .args(&[Arg::default("descending", Kind::Bool, "false", "Whether the greatest comes first.")])
        .example("sortList: {column: tags}");

/// Elements that have an order.
fn simple_list(reads: &[LogicalType], _: &Args) -> Result<LogicalType, Misfit> {
    match reads.first() {
        Some(r#type @ LogicalType::List(element)) if !Takes::Nested.accepts(element) => Ok(r#type.clone()),
        other => {
            let found = other.map_or_else(String::new, ToString::to_string);
            Err(("column", format!("is {found}, whose elements have no order; `toJson` makes text of them")))
        }
    }
}

/// `listContains`
pub const LIST_CONTAINS: Function =
    list("listContains", "Whether a value is among the elements.", Gives::With("boolean", contains_type))
        .args(&[Arg::required("value", Kind::Scalar, "The value.")])
        .example("listContains: {column: tags, value: urgent, as: is_urgent}");

fn contains_type(reads: &[LogicalType], args: &Args) -> Result<LogicalType, Misfit> {
    simple_list(reads, args).map(|_| LogicalType::Boolean)
}

/// `slice`
pub const SLICE: Function = list("slice", "Some elements of a list.", Gives::Same)
    .args(&[
        Arg::default("start", Kind::Int(i64::MIN, i64::MAX), "0", "The first, from 0; negative counts from the end."),
        Arg::optional("length", Kind::Int(0, i64::MAX), "How many; else to the end."),
    ])
    .example("slice: {column: tags, length: 3}");

/// `flattenList`
pub const FLATTEN: Function =
    list("flattenList", "A list of lists as one list.", Gives::With("the type of an element", inner_list))
        .nulls(Nulls::Own("a null list is null; null lists inside it are passed over"))
        .example("flattenList: {column: groups, as: members}");

fn inner_list(reads: &[LogicalType], args: &Args) -> Result<LogicalType, Misfit> {
    match element_type(reads, args)? {
        inner @ LogicalType::List(_) => Ok(inner),
        other => Err(("column", format!("is a list of {other}, not of lists"))),
    }
}

/// `mapKeys`
pub const MAP_KEYS: Function = Function::map("mapKeys", "The keys of a map, in its order.", Takes::Map, Gives::Texts)
    .of(Family::Nested)
    .example("mapKeys: {column: labels, as: label_names}");

/// `mapValues`
pub const MAP_VALUES: Function = Function::map(
    "mapValues",
    "The values of a map, in its order.",
    Takes::Map,
    Gives::With("a list of the type of a value", |reads, args| {
        Ok(LogicalType::List(Box::new(element_type(reads, args)?)))
    }),
)
.of(Family::Nested)
.example("mapValues: {column: labels, as: label_values}");

/// `mapGet`
pub const MAP_GET: Function =
    Function::map("mapGet", "The value of a key.", Takes::Map, Gives::With("the type of a value", element_type))
        .of(Family::Nested)
        .args(&[Arg::required("key", Kind::Text, "The key.")])
        .nulls(Nulls::Made("a map without the key"))
        .example("mapGet: {column: labels, key: region, as: region}");

/// `field`
pub const FIELD: Function =
    Function::map("field", "One field of a struct.", Takes::Struct, Gives::With("the type of the field", field_type))
        .of(Family::Nested)
        .args(&[Arg::required("name", Kind::Text, "Its name.")])
        .nulls(Nulls::Made("a struct whose field is null"))
        .example("field: {column: address, name: city, as: city}");

fn field_type(reads: &[LogicalType], args: &Args) -> Result<LogicalType, Misfit> {
    let Some(LogicalType::Struct(fields)) = reads.first() else { return Ok(LogicalType::String) };
    let name = args.opt_text("name").unwrap_or_default();
    let found = fields.iter().find(|field| field.name == name).map(|field| field.r#type.clone());
    found.ok_or_else(|| {
        let hint = crate::cursor::did_you_mean(name, fields.iter().map(|field| field.name.as_str()));
        ("name", format!("no field `{name}` in {}{hint}", LogicalType::Struct(fields.clone())))
    })
}

/// `unnest`
pub const UNNEST: Function =
    Function::new("unnest", "A struct as one column a field; the struct goes.", Shape::Make(unnest))
        .of(Family::Nested)
        .args(&[
            Arg::required("column", Kind::Column(Takes::Struct), "The struct."),
            Arg::default("prefix", Kind::Text, "\"\"", "What the columns' names begin with, before the fields' names."),
        ])
        .nulls(Nulls::Own("of a null struct every field is null"))
        .example("unnest: {column: address, prefix: address_}");

fn unnest(p: &mut Planner<'_>) -> Option<()> {
    let prefix = p.args.opt_text("prefix")?.to_owned();
    let Some(at) = p.read("column") else {
        p.lose_track();
        return None;
    };
    let LogicalType::Struct(fields) = p.type_at(at).clone() else { return None };
    p.remove(at);
    for field in fields {
        p.add("prefix", &format!("{prefix}{}", field.name), Some(field.r#type));
    }
    Some(())
}

/// `struct`
pub const STRUCT: Function = Function::new(
    "struct",
    "Several columns as one struct; the columns stay unless `drop` says so.",
    Shape::Make(make_struct),
)
.of(Family::Nested)
.args(&[
    Arg::required("columns", Kind::Columns(Takes::Any), "The columns, in the order of the fields."),
    Arg::required("as", Kind::NewColumn, "The struct, a new column."),
    Arg::default("drop", Kind::Bool, "false", "Whether the columns go."),
])
.nulls(Nulls::Own("the struct is never null, its fields are where the columns are"))
.example("struct: {columns: [latitude, longitude], as: position, drop: true}");

fn make_struct(p: &mut Planner<'_>) -> Option<()> {
    let (to, drop) = (p.args.opt_text("as")?.to_owned(), p.args.flag("drop"));
    let Some(reads) = p.read_all("columns") else {
        p.add("as", &to, None);
        return None;
    };
    let names = p.args.texts("columns").to_vec();
    let field = |(at, name): (&usize, String)| StructField { name, r#type: p.type_at(*at).clone(), required: false };
    let fields: Vec<StructField> = reads.iter().zip(names).map(field).collect();
    if drop {
        for at in reads {
            p.remove(at);
        }
    }
    p.add("as", &to, Some(LogicalType::Struct(fields)));
    Some(())
}

/// `explode`
pub const EXPLODE: Function = Function::new(
    "explode",
    "One row for each element of a list; the other columns repeat. `_firn.ordinal` numbers the rows of a record.",
    Shape::Explode(explode),
)
.of(Family::Nested)
.args(&[
    Arg::required("column", Kind::Column(Takes::List), "The list, which becomes its element."),
    Arg::default(
        "limit",
        Kind::Int(1, 1_000_000),
        "10000",
        "Elements of a record at most; drop wide columns before you raise it.",
    ),
    Arg::optional("position", Kind::NewColumn, "A new column of int with the element's place in the list, from 0."),
    Arg::default(
        "keepEmpty",
        Kind::Bool,
        "true",
        "Whether a record without elements stays as one row; else it is filtered, reason `empty`.",
    ),
])
.rejects("a list of more than `limit` elements")
.nulls(Nulls::Own("a null or empty list is one row with null, or none, as `keepEmpty` says"))
.example("explode: {column: lines, position: line_number}");

fn explode(p: &mut Planner<'_>) -> Option<()> {
    let read = p.read("column");
    let position = p.args.opt_text("position").map(str::to_owned);
    match read {
        Some(at) => {
            let element = p.given(ELEMENT_TYPE, &[at]);
            p.replace(at, element, false);
        }
        None => {
            if let Some(at) = p.args.opt_text("column").map(str::to_owned).and_then(|name| p.position(&name)) {
                p.replace(at, None, false);
            }
        }
    }
    if let Some(position) = position {
        p.add("position", &position, Some(LogicalType::Int));
    }
    read.map(drop)
}
