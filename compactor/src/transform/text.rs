//! Values out of text columns, read by the decoder of the records themselves: one set of strict rules for both.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use firn_shared::config::domain::{Column, Format, JsonPath, TimeFormat};
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;

use crate::decode::{Decoder, Rejected};

/// A column of values with the rows that do not fit (null in the column).
pub type Read = (ArrayRef, Vec<(usize, Rejected)>);

/// Takes the value at a path out of JSON text.
#[derive(Debug)]
pub struct Extract {
    column: Column,
}

impl Extract {
    /// The value at `path` as `logical`, to be called `to`.
    pub fn new(path: &JsonPath, to: &str, logical: &LogicalType) -> Self {
        Self { column: column(to, path.clone(), logical, None) }
    }

    /// The new column's name.
    pub fn to(&self) -> &str {
        &self.column.name
    }

    /// Reads each text of `array`, the column called `from`; null stays null, and so does a path that leads nowhere.
    pub fn apply(&self, from: &str, array: &ArrayRef) -> Result<Read> {
        let texts = array.as_string_opt::<i32>().ok_or_else(|| Error::bug(format!("column `{from}` is not text")))?;
        read(&self.column, from, texts.iter().map(|text| text.map(str::as_bytes)))
    }
}

/// Reads plain text as `to`, as if the record had held it as a JSON string.
pub fn parse(name: &str, array: &ArrayRef, to: &LogicalType, format: Option<&TimeFormat>) -> Result<Read> {
    let texts = array.as_string_opt::<i32>().ok_or_else(|| Error::bug(format!("column `{name}` is not text")))?;
    let column = column(name, JsonPath(vec!["v".to_owned()]), to, format.cloned());
    let mut documents = Vec::with_capacity(texts.len());
    for text in texts {
        documents.push(match text {
            Some(text) => Some(
                serde_json::to_vec(&serde_json::json!({"v": text}))
                    .map_err(|e| Error::bug("text cannot be written as JSON").with_source(e))?,
            ),
            None => None,
        });
    }
    let (array, mut faults) = read(&column, name, documents.iter().map(Option::as_deref))?;
    for (_, why) in &mut faults {
        name.clone_into(&mut why.path);
    }
    Ok((array, faults))
}

/// Checks that text is one JSON value.
pub fn check_json(name: &str, array: &ArrayRef) -> Result<Read> {
    let texts = array.as_string_opt::<i32>().ok_or_else(|| Error::bug(format!("column `{name}` is not text")))?;
    let mut document = Vec::new();
    let column = column(name, JsonPath(vec!["v".to_owned()]), &LogicalType::Json, None);
    let mut faults = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        let Some(text) = text else { continue };
        // Text such as `1,"v":2` must not pass by closing the brackets around it.
        if let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
            let detail = format!("not one JSON value at line {} column {}", e.line(), e.column());
            let why = Rejected { path: name.to_owned(), reason: crate::decode::RejectKind::NotJson, detail };
            faults.push((row, why));
            continue;
        }
        document.clear();
        document.extend_from_slice(b"{\"v\":");
        document.extend_from_slice(text.as_bytes());
        document.push(b'}');
        if let (_, mut why) = read(&column, name, std::iter::once(Some(document.as_slice())))?
            && let Some((_, why)) = why.pop()
        {
            faults.push((row, why));
        }
    }
    Ok((ArrayRef::clone(array), faults))
}

fn column(name: &str, path: JsonPath, logical: &LogicalType, format: Option<TimeFormat>) -> Column {
    Column {
        name: name.to_owned(),
        path,
        r#type: logical.clone(),
        required: false,
        format: format.map(Format::Time),
        doc: None,
    }
}

fn read<'a>(column: &Column, name: &str, documents: impl Iterator<Item = Option<&'a [u8]>>) -> Result<Read> {
    let mut decoder = Decoder::new(std::slice::from_ref(column))?;
    let mut faults = Vec::new();
    for (row, document) in documents.enumerate() {
        if let Err(mut why) = decoder.push(document.unwrap_or(b"{}")) {
            why.path = format!("{name}: {}", why.path);
            faults.push((row, why));
            decoder.push(b"{}").map_err(|e| Error::bug(format!("an empty object is refused: {e}")))?;
        }
    }
    let batch = decoder.finish()?;
    Ok((ArrayRef::clone(batch.column(0)), faults))
}
