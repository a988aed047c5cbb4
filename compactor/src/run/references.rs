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
    steps.iter().filter(|step| is_lookup(step))
}

/// Whether a step reads a file.
pub fn is_lookup(step: &Step) -> bool {
    *step.function == firn_shared::functions::values::LOOKUP
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
    use arrow_array::types::Int32Type;
    use arrow_array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int16Array, Int64Array,
        LargeBinaryArray, LargeStringArray, StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray,
    };
    use firn_shared::config::domain::{Column, JsonPath, S3Options};
    use firn_shared::functions::{Functions, steps};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::decode::Decoder;
    use crate::transform::Transformer;
    use crate::transform::json_text::Writer;

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

    fn column(name: &str, r#type: &str) -> Column {
        Column {
            name: name.to_owned(),
            path: JsonPath(vec![name.to_owned()]),
            r#type: r#type.parse().unwrap(),
            required: false,
            format: None,
            doc: None,
        }
    }

    fn step(columns: &[Column], file: &str, key: &str, take: &Json) -> Vec<Step> {
        let given = json!({"column": "c", "file": file, "key": key, "take": take});
        steps(&Functions::built_in(), columns, &[("lookup", given)]).unwrap()
    }

    /// Rows of these values of `c`, with what a file of the folder says about them, as JSON.
    async fn look_up(
        folder: &Path,
        file: (&str, &str),
        r#type: &str,
        values: &Json,
        take: &Json,
    ) -> Result<Vec<String>> {
        let columns = [column("c", r#type)];
        let steps = step(&columns, file.0, file.1, take);
        let references = load(&Stores::new(S3Options::default()), &steps, folder).await?;
        let transformer = Transformer::new(&steps, &columns, &references)?;
        let mut decoder = Decoder::new(&columns)?;
        for value in values.as_array().unwrap() {
            decoder.push(json!({"c": value}).to_string().as_bytes()).unwrap();
        }
        let batch = transformer.apply(decoder.finish()?)?.batch;
        let writers = transformer.output().iter().zip(batch.columns()).map(|((_, of), array)| Writer::new(of, array));
        let writers = writers.collect::<Result<Vec<_>>>()?;
        let cell = |writer: &Writer<'_>, row| {
            let mut text = String::new();
            writer.write(row, &mut text).unwrap();
            text
        };
        Ok((0..batch.num_rows())
            .map(|row| writers.iter().map(|w| cell(w, row)).collect::<Vec<_>>().join(" "))
            .collect())
    }

    fn write_parquet(path: &Path, compression: Compression, columns: Vec<(&str, ArrayRef)>) {
        let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        let properties = WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(1));
        let file = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties.build())).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }

    /// Two rows of every type that writers of Parquet have for ours.
    fn of_many_types() -> Vec<(&'static str, ArrayRef)> {
        let micros = 1_626_847_200_000_001_i64;
        let dictionary: DictionaryArray<Int32Type> = ["red", "red"].into_iter().collect();
        let price = Decimal128Array::from(vec![12_345_678_901_234_567_890_123_i128, -1]);
        vec![
            ("code", Arc::new(StringArray::from(vec!["DE", "FR"])) as ArrayRef),
            ("number", Arc::new(Int64Array::from(vec![9_007_199_254_740_993, -1])) as ArrayRef),
            ("small", Arc::new(Int16Array::from(vec![Some(-7), None])) as ArrayRef),
            ("large", Arc::new(LargeStringArray::from(vec!["Müller", ""])) as ArrayRef),
            ("view", Arc::new(StringViewArray::from(vec!["a longer text than twelve bytes", "b"])) as ArrayRef),
            ("colour", Arc::new(dictionary) as ArrayRef),
            ("price", Arc::new(price.with_precision_and_scale(38, 18).unwrap()) as ArrayRef),
            ("ratio", Arc::new(Float64Array::from(vec![0.1, -2.5e-300])) as ArrayRef),
            ("ok", Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef),
            ("day", Arc::new(Date32Array::from(vec![18_829, -1])) as ArrayRef),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![micros, -1]).with_timezone("Europe/Berlin")) as ArrayRef,
            ),
            (
                "nanos",
                Arc::new(TimestampNanosecondArray::from(vec![micros * 1_000, -1_000]).with_timezone("UTC")) as ArrayRef,
            ),
            ("shown", Arc::new(TimestampMillisecondArray::from(vec![micros / 1_000, -1])) as ArrayRef),
            ("bytes", Arc::new(LargeBinaryArray::from_vec(vec![&b"\xff\x00"[..], b""])) as ArrayRef),
            ("body", Arc::new(StringArray::from(vec!["{\"a\": 1.50}", "null"])) as ArrayRef),
            ("tags", Arc::new(StringArray::from(vec!["[\"x\"]", "[]"])) as ArrayRef),
        ]
    }

    #[tokio::test]
    async fn parquet_of_every_type_and_codec_is_read_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let take = json!({
            "number": "long", "small": "int", "large": "string", "view": "string", "colour": "string",
            "price": "decimal(38,18)", "ratio": "double", "ok": "boolean", "day": "date", "at": "timestamptz",
            "nanos": "timestamptz", "shown": "timestamp", "bytes": "binary", "body": "json", "tags": "list<string>",
        });
        // In the order of the names.
        let expected = [
            r#""FR" "1969-12-31T23:59:59.999999Z" null "" "red" "1969-12-31" "" "1969-12-31T23:59:59.999999Z" -1 false -0.000000000000000001 -2.5e-300 "1969-12-31T23:59:59.999" null [] "b""#,
            r#""xx" null null null null null null null null null null null null null null null"#,
            r#""DE" "2021-07-21T06:00:00.000001Z" {"a": 1.50} "/wA=" "red" "2021-07-21" "Müller" "2021-07-21T06:00:00.000001Z" 9007199254740993 true 12345.678901234567890123 0.1 "2021-07-21T06:00:00" -7 ["x"] "a longer text than twelve bytes""#,
        ];
        for (name, codec) in [
            ("snappy.parquet", Compression::SNAPPY),
            ("zstd.PARQUET", Compression::ZSTD(ZstdLevel::default())),
            ("plain.parquet", Compression::UNCOMPRESSED),
        ] {
            write_parquet(&folder.path().join(name), codec, of_many_types());
            let rows = look_up(folder.path(), (name, "code"), "string", &json!(["FR", "xx", "DE"]), &take).await;
            assert_eq!(rows.unwrap(), expected, "{name}");
        }
        // A key is compared as text, whatever the types are.
        for (key, r#type, value) in [
            ("number", "long", json!(9_007_199_254_740_993_i64)),
            ("number", "string", json!("9007199254740993")),
            ("day", "date", json!("2021-07-21")),
        ] {
            let (file, take) = (("snappy.parquet", key), json!({"code": "string"}));
            let rows = look_up(folder.path(), file, r#type, &json!([value]), &take).await.unwrap();
            assert_eq!(rows, [format!("{value} \"DE\"")], "{key}");
        }
    }

    #[tokio::test]
    async fn values_of_a_file_that_are_not_of_the_type_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = Int64Array::from(vec![1, 3_000_000_000]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("code", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef),
            ("long", Arc::new(long) as ArrayRef),
            ("text", Arc::new(StringArray::from(vec!["{}", "{"])) as ArrayRef),
            ("bytes", Arc::new(BinaryArray::from_vec(vec![&b"a"[..], b"\xff"])) as ArrayRef),
            ("day", Arc::new(Date32Array::from(vec![0, 3_000_000])) as ArrayRef),
            ("ratio", Arc::new(Float64Array::from(vec![1.0, 1.5])) as ArrayRef),
        ];
        write_parquet(&folder.path().join("x.parquet"), Compression::SNAPPY, columns);
        for (name, r#type, expected) in [
            ("long", "int", "column `long` of the file, row 2: outOfRange"),
            ("text", "json", "column `text` of the file, row 2: notJson"),
            ("text", "uuid", "column `text` of the file, row 1: badFormat"),
            ("bytes", "string", "column `bytes` of the file: "),
            ("day", "date", "column `day` of the file, row 2: outOfRange"),
            ("ratio", "long", "column `ratio` of the file, row 2: inexact"),
            ("none", "long", "no column `none` in the file, which has `code`, `long`"),
        ] {
            let take = json!({ name: r#type });
            let refused = look_up(folder.path(), ("x.parquet", "code"), "string", &json!(["a"]), &take).await;
            let error = refused.expect_err(name).to_string();
            assert!(error.starts_with("step 1: lookup.take: ") && error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn files_that_cannot_be_read_are_named_with_the_argument() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good.csv"), "code,name\nDE,Germany\n").unwrap();
        std::fs::write(folder.path().join("bad.parquet"), "code").unwrap();
        let step = |file: &str| step(&[column("c", "string")], file, "code", &json!({"name": "string"}));
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
