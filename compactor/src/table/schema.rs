//! Columns to Iceberg's, Arrow's and Glue's types, and a live table against the columns a pipeline wants.
//!
//! Athena reads format v2 without `time` and `uuid`: both are kept as text (`09:26:56.123456`, the usual 36 characters),
//! and so is `json`. Names are lower case, because Athena lowers them and then finds nothing.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::Schema as ArrowSchema;
use firn_shared::error::{Error, Result};
use firn_shared::types::{LogicalType, StructField};
use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type};

use super::error;
use crate::provenance;

/// A column of the table, after all transformations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub r#type: LogicalType,
    /// Whether null is refused.
    pub required: bool,
    /// Comment for readers.
    pub doc: Option<String>,
}

impl TableColumn {
    /// The provenance column. Optional as a whole, so that others can write rows without it; its fields are required.
    #[must_use]
    pub fn provenance() -> Self {
        Self {
            name: provenance::COLUMN.to_owned(),
            r#type: provenance::logical_type(),
            required: false,
            doc: Some(
                "where the row came from: Kafka cluster, topic, partition, offset, and its event hour".to_owned(),
            ),
        }
    }
}

impl TableColumn {
    /// The provenance column of a table fed from change events, which may say the table in the source.
    #[must_use]
    pub fn provenance_of_changes(with_source: bool) -> Self {
        let doc = "where the row came from: Kafka cluster, topic, partition, offset, its event hour, and the position of \
                   the change in its source";
        Self {
            name: provenance::COLUMN.to_owned(),
            r#type: provenance::logical_type_of_changes(with_source),
            required: false,
            doc: Some(doc.to_owned()),
        }
    }
}

impl TableColumn {
    /// The provenance column of a table in which a record may have several rows.
    #[must_use]
    pub fn provenance_of_several() -> Self {
        let doc = "where the row came from: Kafka cluster, topic, partition, offset, its event hour, and its number among the \
                   rows of its record";
        Self {
            name: provenance::COLUMN.to_owned(),
            r#type: provenance::logical_type_of_several(),
            required: false,
            doc: Some(doc.to_owned()),
        }
    }
}

/// The Iceberg schema of `columns`. Field ids count up, top level first, as every catalog would assign them.
///
/// # Errors
/// `Config` for a name that Athena does not read or that comes twice.
pub fn iceberg_schema(columns: &[TableColumn]) -> Result<Schema> {
    check_names(columns.iter().map(|c| c.name.as_str()), "column")?;
    let mut ids = columns.len() as i32;
    let mut fields = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let r#type = iceberg_type(&column.r#type, &column.name, &mut ids)?;
        let mut field = NestedField::new(i as i32 + 1, &column.name, r#type, column.required);
        field.doc.clone_from(&column.doc);
        fields.push(Arc::new(field));
    }
    Schema::builder().with_fields(fields).build().map_err(|e| error("cannot make the table's schema", e))
}

/// An Iceberg type; `ids` is the last field id in use. `path` names the place for messages.
fn iceberg_type(logical: &LogicalType, path: &str, ids: &mut i32) -> Result<Type> {
    let mut next = || {
        *ids += 1;
        *ids
    };
    Ok(Type::Primitive(match logical {
        LogicalType::Boolean => PrimitiveType::Boolean,
        LogicalType::Int => PrimitiveType::Int,
        LogicalType::Long => PrimitiveType::Long,
        LogicalType::Float => PrimitiveType::Float,
        LogicalType::Double => PrimitiveType::Double,
        LogicalType::Decimal { precision, scale } => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
        }
        LogicalType::Date => PrimitiveType::Date,
        LogicalType::Timestamp => PrimitiveType::Timestamp,
        LogicalType::TimestampTz => PrimitiveType::Timestamptz,
        LogicalType::String | LogicalType::Uuid | LogicalType::Json | LogicalType::Time => PrimitiveType::String,
        LogicalType::Binary => PrimitiveType::Binary,
        LogicalType::List(element) => {
            let id = next();
            let element = iceberg_type(element, &format!("{path}.element"), ids)?;
            return Ok(Type::List(ListType::new(NestedField::list_element(id, element, false).into())));
        }
        LogicalType::Map(value) => {
            let (key, id) = (next(), next());
            let value = iceberg_type(value, &format!("{path}.value"), ids)?;
            return Ok(Type::Map(MapType::optional(key, Type::Primitive(PrimitiveType::String), id, value)));
        }
        LogicalType::Struct(fields) => return Ok(Type::Struct(struct_type(fields, path, ids)?)),
    }))
}

fn struct_type(fields: &[StructField], path: &str, ids: &mut i32) -> Result<StructType> {
    check_names(fields.iter().map(|f| f.name.as_str()), &format!("field of {path}"))?;
    if fields.is_empty() {
        return Err(Error::config(format!("column {path} is a struct without fields, which Parquet cannot hold")));
    }
    let first = *ids + 1;
    *ids += fields.len() as i32;
    let mut typed: Vec<NestedFieldRef> = Vec::with_capacity(fields.len());
    for (id, field) in (first..).zip(fields) {
        let r#type = iceberg_type(&field.r#type, &format!("{path}.{}", field.name), ids)?;
        typed.push(NestedField::new(id, &field.name, r#type, field.required).into());
    }
    Ok(StructType::new(typed))
}

/// Lower case, unique, and free of what Glue's type strings are made of.
fn check_names<'a>(names: impl Iterator<Item = &'a str>, what: &str) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        let bad = |rule: &str| Err(Error::config(format!("{what} `{name}` {rule}; rename it")));
        if name.is_empty() {
            return bad("has an empty name");
        }
        if name.chars().any(char::is_uppercase) {
            return bad("has upper-case letters, which Athena does not find");
        }
        if name.contains(|c: char| c.is_whitespace() || "<>:,().`".contains(c)) {
            return bad("has a blank or one of `< > : , ( ) .`, which Glue and Athena cannot read");
        }
        if !seen.insert(name) {
            return bad("comes twice");
        }
    }
    Ok(())
}

/// The Arrow schema that data files are written with, field ids in the metadata.
///
/// # Errors
/// `Bug` for a type that Arrow lacks.
pub fn arrow_schema(schema: &Schema) -> Result<Arc<ArrowSchema>> {
    let arrow = iceberg::arrow::schema_to_arrow_schema(schema);
    arrow.map(Arc::new).map_err(|e| error("cannot map the table's schema to Arrow", e))
}

/// A type as Glue writes it: `struct<a:bigint,b:array<string>>`.
#[must_use]
pub fn glue_type(r#type: &Type) -> String {
    match r#type {
        Type::Primitive(primitive) => match primitive {
            PrimitiveType::Boolean => "boolean".to_owned(),
            PrimitiveType::Int => "int".to_owned(),
            PrimitiveType::Long => "bigint".to_owned(),
            PrimitiveType::Float => "float".to_owned(),
            PrimitiveType::Double => "double".to_owned(),
            PrimitiveType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            PrimitiveType::Date => "date".to_owned(),
            PrimitiveType::Timestamp
            | PrimitiveType::Timestamptz
            | PrimitiveType::TimestampNs
            | PrimitiveType::TimestamptzNs => "timestamp".to_owned(),
            PrimitiveType::Binary | PrimitiveType::Fixed(_) => "binary".to_owned(),
            _ => "string".to_owned(),
        },
        Type::Struct(fields) => {
            let fields: Vec<_> =
                fields.fields().iter().map(|f| format!("{}:{}", f.name, glue_type(&f.field_type))).collect();
            format!("struct<{}>", fields.join(","))
        }
        Type::List(list) => format!("array<{}>", glue_type(&list.element_field.field_type)),
        Type::Map(map) => {
            format!("map<{},{}>", glue_type(&map.key_field.field_type), glue_type(&map.value_field.field_type))
        }
        #[allow(unreachable_patterns, reason = "the crate may learn types that Glue does not know")]
        _ => "string".to_owned(),
    }
}

/// A live table against the columns that a pipeline writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Columns the table lacks.
    pub missing: Vec<TableColumn>,
    /// What cannot be written as things are, one sentence each.
    pub problems: Vec<String>,
    /// Columns and fields that the table lacks, as Athena and Spark want them said.
    pub to_add: Vec<String>,
    /// So many of the problems are fields that the table lacks.
    missing_fields: usize,
}

impl Comparison {
    /// Whether the table takes the pipeline's rows as it is.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.missing.is_empty() && self.problems.is_empty()
    }

    /// `Ok` when the table takes the rows.
    ///
    /// # Errors
    /// `Data` (exit code 3), naming every column and what to do.
    pub fn check(&self, table: &iceberg::TableIdent) -> Result<()> {
        if self.is_writable() {
            return Ok(());
        }
        let missing = self.missing.iter().map(|c| format!("column `{}` {} is missing", c.name, c.r#type));
        let all: Vec<String> = missing.chain(self.problems.iter().cloned()).collect();
        let (all, remedy) = (all.join("; "), self.remedy(table));
        Err(Error::data(format!("table {table} does not fit the pipeline: {all}; {remedy}, then run again")))
    }

    /// What to do about it.
    fn remedy(&self, table: &iceberg::TableIdent) -> String {
        let mut all = Vec::new();
        if !self.to_add.is_empty() {
            // Nobody but Spark adds fields of structs.
            let who = if self.to_add.iter().any(|of| of.contains("`.`")) { "Spark" } else { "Athena or Spark" };
            let name = format!("{}.{}", table.namespace().to_url_string(), table.name());
            all.push(format!(
                "add what is missing by ALTER TABLE {name} ADD COLUMNS ({}) in {who}",
                self.to_add.join(", ")
            ));
        }
        if self.problems.len() > self.missing_fields {
            all.push("change the pipeline's columns or alter the table".to_owned());
            all.push("or drop it, where the raw zone holds everything to make it anew".to_owned());
        } else {
            all.push("or change the pipeline's columns".to_owned());
        }
        all.join(", ")
    }
}

/// Compares a live schema with the columns wanted. Columns that only the table has are written as null.
///
/// # Errors
/// `Config` when the columns make no schema.
pub fn compare(live: &Schema, columns: &[TableColumn]) -> Result<Comparison> {
    let wanted = iceberg_schema(columns)?;
    let mut comparison = Comparison::default();
    for (column, want) in columns.iter().zip(wanted.as_struct().fields()) {
        match live.as_struct().field_by_name(&column.name) {
            None => {
                comparison.missing.push(column.clone());
                comparison.to_add.push(format!("`{}` {}", column.name, glue_type(&want.field_type)));
            }
            Some(have) => compare_field(have, want, &column.name, &mut comparison),
        }
    }
    for field in live.as_struct().fields() {
        if field.required && !columns.iter().any(|c| c.name == field.name) {
            comparison.problems.push(format!("column `{}` is required by the table and not written", field.name));
        }
    }
    Ok(comparison)
}

fn compare_field(have: &NestedField, want: &NestedField, path: &str, found: &mut Comparison) {
    if have.required && !want.required {
        found.problems.push(format!("`{path}` is required by the table and optional in the pipeline"));
    }
    compare_type(&have.field_type, &want.field_type, path, found);
}

fn compare_type(have: &Type, want: &Type, path: &str, found: &mut Comparison) {
    match (have, want) {
        (Type::Struct(have), Type::Struct(want)) => {
            for field in want.fields() {
                let path = format!("{path}.{}", field.name);
                match have.field_by_name(&field.name) {
                    None => {
                        found.problems.push(format!("field `{path}` is missing"));
                        found.missing_fields += 1;
                        found.to_add.push(format!("`{}` {}", path.replace('.', "`.`"), glue_type(&field.field_type)));
                    }
                    Some(have) => compare_field(have, field, &path, found),
                }
            }
            for field in have.fields().iter().filter(|f| f.required && want.field_by_name(&f.name).is_none()) {
                found.problems.push(format!("field `{path}.{}` is required by the table and not written", field.name));
            }
        }
        (Type::List(have), Type::List(want)) => {
            compare_field(&have.element_field, &want.element_field, &format!("{path}.element"), found);
        }
        (Type::Map(have), Type::Map(want)) => {
            compare_type(&have.key_field.field_type, &want.key_field.field_type, &format!("{path}.key"), found);
            compare_field(&have.value_field, &want.value_field, &format!("{path}.value"), found);
        }
        (have, want) if have == want => {}
        (have, want) => found.problems.push(format!("`{path}` is {have} in the table and {want} in the pipeline")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, r#type: &str, required: bool) -> TableColumn {
        TableColumn { name: name.to_owned(), r#type: r#type.parse().unwrap(), required, doc: None }
    }

    #[test]
    fn ids_are_unique_and_top_level_comes_first() {
        let columns = [
            column("a", "struct<x: long, y: list<map<string, decimal(10,2)>>>", true),
            column("b", "uuid", false),
            TableColumn::provenance(),
        ];
        let schema = iceberg_schema(&columns).unwrap();
        let ids: Vec<i32> = schema.as_struct().fields().iter().map(|f| f.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(schema.field_id_to_fields().len(), schema.highest_field_id() as usize);
        let types: Vec<String> = schema.as_struct().fields().iter().map(|f| glue_type(&f.field_type)).collect();
        assert_eq!(
            types,
            [
                "struct<x:bigint,y:array<map<string,decimal(10,2)>>>",
                "string",
                "struct<cluster:string,topic:string,generation:int,partition:int,offset:bigint,event_hour:timestamp>"
            ]
        );
    }

    #[test]
    fn names_that_athena_does_not_read_are_refused() {
        for (columns, part) in [
            (vec![column("Id", "long", false)], "column `Id` has upper-case"),
            (vec![column("a.b", "long", false)], "column `a.b` has a blank"),
            (vec![column("a", "long", false), column("a", "int", false)], "column `a` comes twice"),
            (vec![column("a", "struct<actorId: long>", false)], "field of a `actorId` has upper-case"),
        ] {
            let message = iceberg_schema(&columns).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        iceberg_schema(&[column("a", "struct<`+1`: long>", false)]).unwrap();
    }

    #[test]
    fn every_difference_is_named() {
        let live = iceberg_schema(&[
            column("id", "long", true),
            column("s", "struct<x: int>", false),
            column("only_there", "string", false),
            column("must", "string", true),
        ])
        .unwrap();
        let wanted =
            [column("id", "long", false), column("s", "struct<x: long, y: int>", false), column("new", "json", false)];
        let comparison = compare(&live, &wanted).unwrap();
        assert_eq!(comparison.missing, [column("new", "json", false)]);
        assert_eq!(
            comparison.problems,
            [
                "`id` is required by the table and optional in the pipeline",
                "`s.x` is int in the table and long in the pipeline",
                "field `s.y` is missing",
                "column `must` is required by the table and not written",
            ]
        );
        assert!(!comparison.is_writable());
        let table = iceberg::TableIdent::from_strs(["d", "t"]).unwrap();
        let message = comparison.check(&table).unwrap_err().to_string();
        assert!(
            message.contains("ALTER TABLE d.t ADD COLUMNS (`s`.`y` int, `new` string) in Spark, change"),
            "{message}"
        );
        let more = [column("id", "long", true), column("must", "string", true), column("_key_people", "string", false)];
        let message = compare(&live, &more).unwrap().check(&table).unwrap_err().to_string();
        let remedy = "ALTER TABLE d.t ADD COLUMNS (`_key_people` string) in Athena or Spark, or change the pipeline's columns, \
                      then run again";
        assert!(message.ends_with(remedy), "{message}");
        assert!(compare(&live, &[column("id", "long", true), column("must", "uuid", true)]).unwrap().is_writable());
    }
}
