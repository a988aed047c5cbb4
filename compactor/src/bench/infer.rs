//! Columns for JSON that nobody described: the narrowest type that every value of a path fits.

use std::fmt;

use anyhow::{Context, Result};
use firn_shared::config::domain::{Column, JsonPath};
use firn_shared::types::{LogicalType, StructField};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::lines::lines;
use crate::decode::time;

/// What the values of one path have been.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "a set of kinds, each seen or not")]
struct Shape {
    boolean: bool,
    long: bool,
    double: bool,
    time: bool,
    string: bool,
    list: Option<Box<Shape>>,
    /// Fields in the order of their first appearance, which is the order a decoder expects them in.
    object: Option<Vec<(String, Shape)>>,
}

/// One column for every top-level key of the objects in newline-delimited JSON, nested as they are. What is only ever
/// null or empty, or of several kinds, is `json`.
///
/// # Errors
/// A line that is no JSON object, with its number.
pub fn infer(ndjson: &[u8]) -> Result<Vec<Column>> {
    let mut shape = Shape::default();
    for (i, line) in lines(ndjson).enumerate() {
        let mut parser = serde_json::Deserializer::from_slice(line);
        shape.deserialize(&mut parser).and_then(|()| parser.end()).with_context(|| format!("line {}", i + 1))?;
    }
    let fields = shape.object.unwrap_or_default();
    let columns = fields.into_iter().map(|(name, shape)| Column {
        path: JsonPath(vec![name.clone()]),
        r#type: shape.logical(),
        name,
        required: false,
        format: None,
        doc: None,
    });
    Ok(columns.collect())
}

impl Shape {
    fn logical(&self) -> LogicalType {
        let number = self.long || self.double;
        let text = self.time || self.string;
        let kinds = [self.boolean, number, text, self.list.is_some(), self.object.is_some()];
        if kinds.iter().filter(|k| **k).count() != 1 {
            return LogicalType::Json;
        }
        match (&self.list, &self.object) {
            (Some(element), _) => LogicalType::List(Box::new(element.logical())),
            (_, Some(fields)) if fields.is_empty() => LogicalType::Json,
            (_, Some(fields)) => {
                let field = |(name, shape): &(String, Self)| StructField {
                    name: name.clone(),
                    r#type: shape.logical(),
                    required: false,
                };
                LogicalType::Struct(fields.iter().map(field).collect())
            }
            _ if self.boolean => LogicalType::Boolean,
            _ if self.double => LogicalType::Double,
            _ if self.long => LogicalType::Long,
            _ if self.string => LogicalType::String,
            _ => LogicalType::TimestampTz,
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Shape {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Shape {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.boolean = true;
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.long = true;
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        let fits = i64::try_from(value).is_ok();
        self.long |= fits;
        self.double |= !fits;
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.double = true;
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let time = time::timestamp(text.as_bytes()).is_some();
        self.time |= time;
        self.string |= !time;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let element = self.list.get_or_insert_default();
        while elements.next_element_seed(&mut **element)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let fields = self.object.get_or_insert_default();
        while let Some(key) = entries.next_key::<String>()? {
            let at = fields.iter().position(|(name, _)| *name == key).unwrap_or_else(|| {
                fields.push((key, Shape::default()));
                fields.len() - 1
            });
            entries.next_value_seed(&mut fields[at].1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_type_that_fits_every_value_is_proposed() {
        let ndjson =
            br#"{"id":1,"at":"2021-07-21T06:00:00Z","x":1,"o":{"b":true,"n":null},"l":[{"k":"a"},{"m":1.5}],"e":[]}
{"id":2.5,"at":"2021-07-21T06:00:00Z","x":"1","o":{"c":"t"},"big":18446744073709551615}"#;
        let types: Vec<_> = infer(ndjson).unwrap().iter().map(|c| format!("{} {}", c.name, c.r#type)).collect();
        assert_eq!(
            types,
            [
                "id double",
                "at timestamptz",
                "x json",
                "o struct<b: boolean, n: json, c: string>",
                "l list<struct<k: string, m: double>>",
                "e list<json>",
                "big double",
            ]
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        assert_eq!(infer(b"{}\n{\"a\":}").unwrap_err().to_string(), "line 2");
    }
}
