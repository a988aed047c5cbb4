//! Files of reference data that look-ups read, loaded once a run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_cast::CastOptions;
use arrow_schema::{ArrowError, DataType};
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;

use super::{text, years};
use crate::arrow_types::{UTC, data_type};

/// Reference data by the location that steps give.
#[derive(Debug, Clone, Default)]
pub struct References {
    files: BTreeMap<String, Reference>,
    unread: bool,
}

impl References {
    /// Adds a file.
    pub fn insert(&mut self, location: &str, reference: Reference) {
        self.files.insert(location.to_owned(), reference);
    }

    /// A file, if it was loaded.
    #[must_use]
    pub fn get(&self, location: &str) -> Option<&Reference> {
        self.files.get(location)
    }

    /// No file was read, and none is missed: steps are checked without servers.
    #[must_use]
    pub fn unread() -> Self {
        Self { files: BTreeMap::new(), unread: true }
    }

    /// Whether files are only assumed to be there.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// What the files take, bytes: rows, and an index of about the same size.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.files.values().map(|reference| reference.0.get_array_memory_size() as u64 * 2).sum()
    }
}

/// The rows of a file; all columns of a CSV file are text.
#[derive(Debug, Clone)]
pub struct Reference(RecordBatch);

impl Reference {
    /// These rows.
    #[must_use]
    pub fn new(rows: RecordBatch) -> Self {
        Self(rows)
    }

    fn find(&self, name: &str) -> Result<&ArrayRef, String> {
        let schema = self.0.schema();
        let known = || schema.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
        self.0.column_by_name(name).ok_or_else(|| format!("no column `{name}` in the file, which has {}", known()))
    }

    /// The rows by the text of a column, whose values must come once each.
    ///
    /// # Errors
    /// What is wrong with the column.
    pub fn index(&self, key: &str) -> Result<Arc<Index>, String> {
        let texts = exact_text(self.find(key)?).map_err(|e| unfit(key, &e))?;
        let mut rows = HashMap::with_capacity(texts.len());
        for (row, text) in texts.as_string::<i32>().iter().enumerate() {
            let Some(text) = text else { continue };
            // The value may be personal data, so the rows are named.
            if let Some(before) = rows.insert(text.to_owned(), row as u32) {
                let (first, second) = (before + 1, row + 1);
                return Err(format!(
                    "column `{key}` of the file says the same in rows {first} and {second}; which is meant?"
                ));
            }
        }
        Ok(Arc::new(Index(rows)))
    }

    /// A column as a type, every value of which must fit.
    ///
    /// # Errors
    /// What is wrong with the column.
    pub fn column(&self, name: &str, logical: &LogicalType) -> Result<ArrayRef, String> {
        let values = plain(self.find(name)?).map_err(|e| unfit(name, &e))?;
        let (column, mut faults) = if *values.data_type() == data_type(logical) && !is_checked_text(logical) {
            (values, Vec::new())
        } else {
            let texts = exact_text(&values).map_err(|e| unfit(name, &e))?;
            read(name, texts, logical).map_err(|e| e.to_string())?
        };
        faults.extend(years::beyond(&column).into_iter().map(|row| (row, years::reject(name))));
        match faults.first() {
            None => Ok(column),
            Some((row, why)) => {
                Err(format!("column `{name}` of the file, row {}: {} ({})", row + 1, why.reason, why.detail))
            }
        }
    }
}

/// Rows of a file by key.
#[derive(Debug, Default)]
pub struct Index(HashMap<String, u32>);

impl Index {
    /// For each value of a column the row that has it as key.
    ///
    /// # Errors
    /// `Bug` for a column that has no text form.
    pub fn find(&self, values: &ArrayRef) -> Result<UInt32Array> {
        let texts = as_text(values)?;
        Ok(texts.as_string::<i32>().iter().map(|text| self.0.get(text?).copied()).collect())
    }
}

fn unfit(name: &str, error: &ArrowError) -> String {
    format!("column `{name}` of the file: {error}")
}

/// Whether not every text is a value of a type.
fn is_checked_text(logical: &LogicalType) -> bool {
    matches!(logical, LogicalType::Json | LogicalType::Uuid)
}

/// Texts as a type.
fn read(name: &str, texts: ArrayRef, logical: &LogicalType) -> Result<text::Read> {
    match logical {
        LogicalType::String => Ok((texts, Vec::new())),
        LogicalType::Json => text::check_json(name, &texts),
        LogicalType::List(_) | LogicalType::Map(_) | LogicalType::Struct(_) => text::parse_json(name, &texts, logical),
        _ => text::parse(name, &texts, logical, None),
    }
}

/// Bytes and instants in the one form that ours have: writers of Parquet have several.
fn plain(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match values.data_type() {
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            arrow_cast::cast(values, &DataType::Binary)
        }
        DataType::Timestamp(unit, Some(zone)) if **zone != *UTC => {
            arrow_cast::cast(values, &DataType::Timestamp(*unit, Some(UTC.into())))
        }
        _ => Ok(Arc::clone(values)),
    }
}

/// Values of a file as text; all of them have one, or none is taken.
fn exact_text(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    arrow_cast::cast_with_options(&plain(values)?, &DataType::Utf8, &options)
}

fn as_text(values: &ArrayRef) -> Result<ArrayRef> {
    let cast = arrow_cast::cast(values, &DataType::Utf8);
    cast.map_err(|e| Error::bug(format!("{} has no text form", values.data_type())).with_source(e))
}
