//! The files that look-ups read: fetched once a run, CSV or Parquet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use firn_shared::config::domain::{Step, StoreUrl};
use firn_shared::error::{Error, Result};
use firn_shared::store::Stores;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::transform::{Reference, References};

/// A look-up is for reference data; more than this is a join, and takes memory that a run does not have.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads what the look-ups among `steps` need; relative locations begin at the folder of the pipeline's file.
///
/// # Errors
/// `Config`, with the place of the argument, for a file that is not there, too large or not of its form.
pub async fn load(stores: &Stores, steps: &[Step], folder: &Path) -> Result<References> {
    let mut references = References::default();
    for step in lookups(steps) {
        let location = step.args.text("file")?;
        if references.get(location).is_none() {
            let rows = read(stores, location, folder).await;
            let rows = rows.map_err(|e| Error::new(e.kind(), format!("{}: lookup.file: {e}", step.place("file"))))?;
            references.insert(location, Reference::new(rows));
        }
    }
    Ok(references)
}

fn lookups(steps: &[Step]) -> impl Iterator<Item = &Step> {
    steps.iter().filter(|step| *step.function == firn_shared::functions::values::LOOKUP)
}

/// The files on this machine that look-ups among `steps` read.
pub fn local_files(steps: &[Step], folder: &Path) -> Vec<PathBuf> {
    let file = |step: &Step| match StoreUrl::parse(step.args.text("file").ok()?, folder) {
        Ok(StoreUrl::File(path)) => Some(path),
        _ => None,
    };
    lookups(steps).filter_map(file).collect()
}

async fn read(stores: &Stores, location: &str, folder: &Path) -> Result<RecordBatch> {
    let url = StoreUrl::parse(location, folder)?.to_string();
    let (store, key) = stores.resolve(&url).await?;
    let found = store.head(&key).await?.ok_or_else(|| Error::config(format!("there is no file {url}")))?;
    if found.size > FILE_BYTES_MAX {
        let most = FILE_BYTES_MAX >> 20;
        return Err(Error::config(format!(
            "{url} has {} bytes; a look-up takes files of up to {most} MiB",
            found.size
        )));
    }
    let bytes = store.get(&key).await?;
    let extension = key.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "parquet" => parquet_rows(bytes).map_err(|e| Error::config(format!("{url} is not Parquet: {e}"))),
        "csv" => csv_rows(&bytes).map_err(|message| Error::config(format!("{url}: {message}"))),
        _ => Err(Error::config(format!("{url} is neither .csv nor .parquet"))),
    }
}

fn parquet_rows(bytes: Bytes) -> Result<RecordBatch, parquet::errors::ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let schema = Arc::clone(builder.schema());
    let batches = builder.build()?.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// CSV (RFC 4180) with a header; every column is text, an empty field without quotes is null.
fn csv_rows(bytes: &[u8]) -> Result<RecordBatch, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let mut records = records(text.trim_start_matches('\u{feff}'))?.into_iter();
    let header = records.next().ok_or("is empty; a header is needed")?;
    let names: Vec<String> = header.into_iter().map(Option::unwrap_or_default).collect();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); names.len()];
    for (i, record) in records.enumerate() {
        if record.len() != names.len() {
            let (found, wanted) = (record.len(), names.len());
            return Err(format!("record {} has {found} fields, the header has {wanted}", i + 2));
        }
        columns.iter_mut().zip(record).for_each(|(column, field)| column.push(field));
    }
    let columns = columns.into_iter().map(|values| Arc::new(StringArray::from(values)) as ArrayRef);
    RecordBatch::try_from_iter(names.iter().zip(columns)).map_err(|e| e.to_string())
}

/// One record, a field each.
type Record = Vec<Option<String>>;

fn records(text: &str) -> Result<Vec<Record>, String> {
    let (mut out, mut record, mut rest) = (Vec::new(), Record::new(), text);
    while !rest.is_empty() || !record.is_empty() {
        let (field, after) = field(rest).ok_or_else(|| format!("record {}: a quote is not closed", out.len() + 1))?;
        record.push(field);
        rest = match after.chars().next() {
            Some(',') => {
                rest = &after[1..];
                if rest.is_empty() || rest.starts_with(['\r', '\n']) {
                    record.push(None);
                    end_of_line(rest)
                } else {
                    continue;
                }
            }
            Some('\r' | '\n') => end_of_line(after),
            None => after,
            Some(other) => return Err(format!("record {}: `{other}` after a closing quote", out.len() + 1)),
        };
        out.push(std::mem::take(&mut record));
    }
    // A line of nothing at the end is no record.
    out.retain(|record| record.len() > 1 || record.first().is_some_and(Option::is_some));
    Ok(out)
}

fn end_of_line(text: &str) -> &str {
    text.strip_prefix("\r\n").or_else(|| text.strip_prefix(['\r', '\n'])).unwrap_or(text)
}

/// A field, and what follows it; none when a quote is not closed.
fn field(text: &str) -> Option<(Option<String>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '\r', '\n']).unwrap_or(text.len());
        let value = &text[..end];
        return Some(((!value.is_empty()).then(|| value.to_owned()), &text[end..]));
    };
    let (mut value, mut rest) = (String::new(), quoted);
    loop {
        let (before, after) = rest.split_once('"')?;
        value.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Some((Some(value), after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use firn_shared::config::domain::{Column, JsonPath, S3Options};
    use firn_shared::functions::{Functions, steps};
    use serde_json::json;

    use super::*;

    #[test]
    fn csv_is_read_as_rfc_4180_says() {
        let rows = records("a,b\r\n1,\"x, \"\"y\"\"\n z\"\n2,\n,\"\"\n\n").unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            rows,
            [
                vec![text("a"), text("b")],
                vec![text("1"), text("x, \"y\"\n z")],
                vec![text("2"), None],
                vec![None, text("")]
            ]
        );
        assert_eq!(csv_rows(b"a,b\n1\n").unwrap_err(), "record 2 has 1 fields, the header has 2");
        assert!(csv_rows(b"").unwrap_err().contains("header"));
        assert!(records("a\n\"x").unwrap_err().contains("record 2: a quote is not closed"));
        assert!(records("\"x\"y").unwrap_err().contains("`y` after a closing quote"));
    }

    #[tokio::test]
    async fn files_that_cannot_be_read_are_named_with_the_argument() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good.csv"), "code,name\nDE,Germany\n").unwrap();
        std::fs::write(folder.path().join("bad.parquet"), "code").unwrap();
        let column = Column {
            name: "c".to_owned(),
            path: JsonPath(vec!["c".to_owned()]),
            r#type: "string".parse().unwrap(),
            required: false,
            format: None,
            doc: None,
        };
        let step = |file: &str| {
            let given = json!({"column": "c", "file": file, "key": "code", "take": {"name": "string"}});
            steps(&Functions::built_in(), std::slice::from_ref(&column), &[("lookup", given)]).unwrap()
        };
        let stores = Stores::new(S3Options::default());
        let good = load(&stores, &step("good.csv"), folder.path()).await.unwrap();
        assert!(good.get("good.csv").is_some() && good.held_bytes() > 0);
        for (file, expected) in
            [("none.csv", "there is no file"), ("bad.parquet", "is not Parquet"), ("x.txt", "no file")]
        {
            let error = load(&stores, &step(file), folder.path()).await.unwrap_err().to_string();
            assert!(error.starts_with("step 1: lookup.file: ") && error.contains(expected), "{error}");
        }
    }
}
