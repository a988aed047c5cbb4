//! What makes a row of before and a row of after the same row.

use std::fmt;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::DataType;
use firn_shared::error::{Error, Result};
use serde::Serialize;

use crate::provenance;
use crate::table::scan::Reader;

/// The fields of the provenance that name a record.
const ORIGIN: [&str; 5] =
    [provenance::CLUSTER, provenance::TOPIC, provenance::GENERATION, provenance::PARTITION, provenance::OFFSET];

/// How rows are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// By the record they were made of.
    Origin,
    /// By these columns.
    Key(Vec<String>),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin => f.write_str("by the record they come from"),
            Self::Key(columns) => write!(f, "by {}", columns.join(", ")),
        }
    }
}

/// Turns the identity of rows into bytes. Shared by all threads.
#[derive(Debug)]
pub struct Identity {
    by: By,
    converter: RowConverter,
}

impl Identity {
    /// For rows that `reader` reads.
    ///
    /// # Errors
    /// `Data` when the table lacks what the identity is made of.
    pub fn new(by: By, reader: &Reader) -> Result<Self> {
        let r#type = |name: &str| {
            let field = reader.schema().field_with_name(name);
            field.map(|field| field.data_type().clone()).map_err(|e| {
                Error::data(format!("the table has no column `{name}`, which tells its rows apart")).with_source(e)
            })
        };
        let types: Vec<DataType> = match &by {
            By::Key(columns) => columns.iter().map(|name| r#type(name)).collect::<Result<_>>()?,
            By::Origin => match r#type(provenance::COLUMN)? {
                DataType::Struct(fields) => {
                    let named = |name: &&str| fields.iter().find(|field| field.name() == name);
                    ORIGIN.iter().filter_map(named).map(|field| field.data_type().clone()).collect()
                }
                other => return Err(Error::data(format!("column {} is {other}", provenance::COLUMN))),
            },
        };
        let converter = RowConverter::new(types.into_iter().map(SortField::new).collect());
        Ok(Self { by, converter: converter.map_err(|e| Error::data("rows without an identity").with_source(e))? })
    }

    /// The identity of each row.
    ///
    /// # Errors
    /// `Bug` for rows that the reader did not read.
    pub fn of(&self, batch: &RecordBatch) -> Result<Rows> {
        let lacks = |name: &str| Error::bug(format!("rows without `{name}`"));
        let arrays: Vec<ArrayRef> = match &self.by {
            By::Key(columns) => {
                let column = |name: &String| batch.column_by_name(name).cloned().ok_or_else(|| lacks(name));
                columns.iter().map(column).collect::<Result<_>>()?
            }
            By::Origin => {
                let origin = batch.column_by_name(provenance::COLUMN).and_then(|column| column.as_struct_opt());
                let origin = origin.ok_or_else(|| lacks(provenance::COLUMN))?;
                let field = |name: &&str| origin.column_by_name(name).cloned().ok_or_else(|| lacks(name));
                ORIGIN.iter().map(field).collect::<Result<_>>()?
            }
        };
        self.converter.convert_columns(&arrays).map_err(|e| Error::bug("rows without an identity").with_source(e))
    }
}
