//! Values out of text columns, read by the decoder of the records themselves: one set of strict rules for both.

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, StringArray};
use firn_shared::config::domain::{Column, Format, JsonPath, TimeFormat};
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;
use serde_json::Value as Json;

use crate::decode::{Decoder, RejectKind, Rejected};

/// A column of values with the rows that do not fit (null in the column).
pub type Read = (ArrayRef, Vec<(usize, Rejected)>);

/// As [`Read`], of several columns.
type ReadAll = (Vec<ArrayRef>, Vec<(usize, Rejected)>);

/// Takes values at paths out of JSON text.
#[derive(Debug)]
pub struct Extract {
    columns: Vec<Column>,
}

impl Extract {
    /// The values at these paths, each with name and type.
    pub fn new(fields: impl IntoIterator<Item = (JsonPath, String, LogicalType)>) -> Self {
        let columns = fields.into_iter().map(|(path, to, logical)| column(&to, path, &logical, None));
        Self { columns: columns.collect() }
    }

    /// Reads each text of `array`, the column called `from`; null stays null, and so does a path that leads nowhere.
    pub fn apply(&self, from: &str, array: &ArrayRef) -> Result<ReadAll> {
        let texts = texts(from, array)?;
        read(&self.columns, from, texts.iter().map(|text| text.map(str::as_bytes)))
    }
}

/// Reads plain text as `to`, as if the record had held it as a JSON string.
pub fn parse(name: &str, array: &ArrayRef, to: &LogicalType, format: Option<&TimeFormat>) -> Result<Read> {
    let column = column(name, value_path(), to, format.cloned());
    let mut documents = Documents::default();
    for text in texts(name, array)? {
        documents.push(text, |text, out| {
            serde_json::to_writer(out, text).map_err(|e| Error::bug("text cannot be written as JSON").with_source(e))
        })?;
    }
    documents.read(&column, name, Vec::new())
}

/// Reads text that is one JSON value as `to`.
pub fn parse_json(name: &str, array: &ArrayRef, to: &LogicalType) -> Result<Read> {
    let column = column(name, value_path(), to, None);
    let (mut documents, mut faults) = (Documents::default(), Vec::new());
    for (row, text) in texts(name, array)?.iter().enumerate() {
        // Text such as `1,"v":2` must not pass by closing the brackets around it.
        let text = text.filter(|text| match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => true,
            Err(e) => {
                let detail = format!("not one JSON value at line {} column {}", e.line(), e.column());
                faults.push((row, Rejected { path: name.to_owned(), reason: RejectKind::NotJson, detail }));
                false
            }
        });
        documents.push(text, |text, out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })?;
    }
    documents.read(&column, name, faults)
}

/// Checks that text is one JSON value, which it stays.
pub fn check_json(name: &str, array: &ArrayRef) -> Result<Read> {
    let (_, faults) = parse_json(name, array, &LogicalType::Json)?;
    Ok((ArrayRef::clone(array), faults))
}

/// One value of a type, read as a column's value is.
///
/// # Errors
/// Why it does not fit.
pub fn literal(logical: &LogicalType, value: &Json) -> Result<ArrayRef, String> {
    let column = column("value", value_path(), logical, None);
    let mut decoder = Decoder::new(std::slice::from_ref(&column)).map_err(|e| e.to_string())?;
    let document = serde_json::json!({"v": value}).to_string();
    // Numbers and truth values stand for their text.
    let text = || serde_json::json!({"v": value.to_string()}).to_string();
    let pushed = decoder.push(document.as_bytes());
    let pushed = if pushed.is_err() && !value.is_string() { decoder.push(text().as_bytes()) } else { pushed };
    pushed.map_err(|why| format!("does not fit {logical}: {} ({})", why.reason, why.detail))?;
    let batch = decoder.finish().map_err(|e| e.to_string())?;
    Ok(ArrayRef::clone(batch.column(0)))
}

fn texts<'a>(name: &str, array: &'a ArrayRef) -> Result<&'a StringArray> {
    array.as_string_opt::<i32>().ok_or_else(|| Error::bug(format!("column `{name}` is not text")))
}

fn value_path() -> JsonPath {
    JsonPath(vec!["v".to_owned()])
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

/// Documents `{"v":…}` of the values of a column, in one buffer.
#[derive(Default)]
struct Documents {
    bytes: Vec<u8>,
    /// Where each ends; equal to the end before for a null.
    ends: Vec<usize>,
}

impl Documents {
    fn push(&mut self, text: Option<&str>, write: impl Fn(&str, &mut Vec<u8>) -> Result<()>) -> Result<()> {
        if let Some(text) = text {
            self.bytes.extend_from_slice(b"{\"v\":");
            write(text, &mut self.bytes)?;
            self.bytes.push(b'}');
        }
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Reads them; `faults` are known already, of rows that were pushed as null.
    fn read(self, column: &Column, name: &str, mut faults: Vec<(usize, Rejected)>) -> Result<Read> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let documents = starts.zip(&self.ends).map(|(start, end)| (start < *end).then(|| &self.bytes[start..*end]));
        let (mut arrays, found) = read(std::slice::from_ref(column), name, documents)?;
        // The path inside the document is ours, not the record's.
        let own = format!("{name}: $.v");
        faults.extend(found.into_iter().map(|(row, mut why)| {
            why.path = why.path.strip_prefix(&own).map_or_else(|| name.to_owned(), |rest| format!("{name}{rest}"));
            (row, why)
        }));
        faults.sort_by_key(|(row, _)| *row);
        Ok((arrays.remove(0), faults))
    }
}

fn read<'a>(columns: &[Column], name: &str, documents: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ReadAll> {
    let mut decoder = Decoder::new(columns)?;
    let mut faults = Vec::new();
    for (row, document) in documents.enumerate() {
        if let Err(mut why) = decoder.push(document.unwrap_or(b"{}")) {
            why.path = format!("{name}: {}", why.path);
            faults.push((row, why));
            decoder.push(b"{}").map_err(|e| Error::bug(format!("an empty object is refused: {e}")))?;
        }
    }
    let batch = decoder.finish()?;
    Ok((batch.columns().to_vec(), faults))
}
