//! What of a table Athena does not read (documentation of AWS, "Supported data types for Iceberg tables in Athena": format
//! version 2; no `time`, `uuid`, `fixed`, nor the types that came after version 2).
//!
//! Tables that we make have neither: `time` and `uuid` are kept as text, and names are lower case. This is for tables
//! that others made or changed.

use firn_shared::config::domain::AthenaGuard;
use iceberg::spec::{FormatVersion, NestedFieldRef, PrimitiveType, TableMetadata, Type};

/// What Athena stumbles over, each with the guard that finds it.
#[must_use]
pub fn unreadable(metadata: &TableMetadata) -> Vec<(AthenaGuard, String)> {
    let mut found = Vec::new();
    if metadata.format_version() != FormatVersion::V2 {
        let version = metadata.format_version() as u8;
        found.push((AthenaGuard::FormatVersion, format!("its format version is {version}")));
    }
    let mut types = Vec::new();
    fields(metadata.current_schema().as_struct().fields(), "", &mut types);
    found.extend(types.into_iter().map(|what| (AthenaGuard::Types, what)));
    found
}

fn fields(of: &[NestedFieldRef], under: &str, found: &mut Vec<String>) {
    for field in of {
        let path = if under.is_empty() { field.name.clone() } else { format!("{under}.{}", field.name) };
        match field.field_type.as_ref() {
            Type::Primitive(primitive) if !is_read(primitive) => {
                found.push(format!("column `{path}` is {primitive}"));
            }
            Type::Primitive(_) => {}
            Type::Struct(inner) => fields(inner.fields(), &path, found),
            Type::List(list) => fields(std::slice::from_ref(&list.element_field), &path, found),
            Type::Map(map) => fields(&[map.key_field.clone(), map.value_field.clone()], &path, found),
        }
    }
}

fn is_read(r#type: &PrimitiveType) -> bool {
    use PrimitiveType as P;
    matches!(
        r#type,
        P::Boolean
            | P::Int
            | P::Long
            | P::Float
            | P::Double
            | P::Decimal { .. }
            | P::Date
            | P::Timestamp
            | P::Timestamptz
            | P::String
            | P::Binary
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::TableCreation;
    use iceberg::spec::{ListType, NestedField, Schema, StructType, TableMetadataBuilder};

    use super::*;

    fn table(version: FormatVersion, columns: Vec<(&str, Type)>) -> TableMetadata {
        let fields =
            columns.into_iter().zip(1..).map(|((name, r#type), id)| NestedField::optional(id, name, r#type).into());
        let schema = Schema::builder().with_fields(fields).build().unwrap();
        let creation = TableCreation::builder()
            .name("t".to_owned())
            .location("file:///t".to_owned())
            .schema(schema)
            .properties(HashMap::new())
            .format_version(version)
            .build();
        TableMetadataBuilder::from_table_creation(creation).unwrap().build().unwrap().metadata
    }

    #[test]
    fn what_athena_does_not_read_is_named_with_its_place() {
        let clock = || Type::Primitive(PrimitiveType::Time);
        let plain =
            vec![("id", Type::Primitive(PrimitiveType::Long)), ("at", Type::Primitive(PrimitiveType::Timestamptz))];
        assert_eq!(unreadable(&table(FormatVersion::V2, plain)), []);
        let inner = StructType::new(vec![NestedField::optional(9, "opens", clock()).into()]);
        let list = ListType::new(NestedField::list_element(8, Type::Struct(inner), false).into());
        let odd = vec![("key", Type::Primitive(PrimitiveType::Uuid)), ("shops", Type::List(list))];
        let found = unreadable(&table(FormatVersion::V3, odd));
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["its format version is 3", "column `key` is uuid", "column `shops.element.opens` is time"]);
        assert_eq!(found[0].0, AthenaGuard::FormatVersion);
    }
}
