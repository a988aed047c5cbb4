//! What Athena and a user-defined function say to each other, as the Athena Query Federation SDK has it: JSON, in which
//! schemas and rows are messages of Arrow IPC in base64.
//!
//! Until version 3 of this protocol a message has no continuation marker (Arrow before 0.15), since version 4 it has. An
//! answer is in the form of its request. The SDK reads fields in their order, so the order of ours is part of it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_schema_from_ipc_buffer;
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::writer::{
    CompressionContext, DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteOptions, write_message,
};
use arrow_ipc::{MetadataVersion, root_as_message};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_shared::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What stands before the length of a message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Version of the protocol that we name: the newest of which we know that it only adds to what we read.
const SERDE_VERSION: u32 = 5;
/// What the SDK of that version says of itself.
const CAPABILITIES: u32 = 23;

/// What Athena asks.
#[derive(Debug, Deserialize)]
#[serde(tag = "@type")]
pub enum Request {
    /// Are you there, and which version do you speak?
    #[serde(rename = "PingRequest")]
    Ping(Ping),
    /// The results of a function for these rows.
    #[serde(rename = "UserDefinedFunctionRequest")]
    Call(Call),
}

/// See [`Request::Ping`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    /// The name that the caller has for us.
    pub catalog_name: String,
    /// The query that asks.
    pub query_id: String,
}

/// See [`Request::Call`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    input_records: Block,
    output_schema: String,
    /// The function's name.
    pub method_name: String,
    function_type: String,
}

/// Rows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    /// The allocator that it came from; of no use to others.
    a_id: String,
    schema: String,
    records: String,
}

/// What we answer.
#[derive(Debug, Serialize)]
#[serde(tag = "@type")]
pub enum Response {
    /// Yes.
    #[serde(rename = "PingResponse", rename_all = "camelCase")]
    Ping {
        /// As in the request.
        catalog_name: String,
        /// As in the request.
        query_id: String,
        /// What kind of thing we are.
        source_type: &'static str,
        /// Ours.
        capabilities: u32,
        /// The version of the protocol that requests shall have.
        ser_de_version: u32,
    },
    /// The results, a row for each row.
    #[serde(rename = "UserDefinedFunctionResponse", rename_all = "camelCase")]
    Call {
        /// The results.
        records: Records,
        /// As in the request.
        method_name: String,
    },
}

/// Rows of an answer.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Records(Block);

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// `Data` when it is none that we know.
    pub fn read(body: &[u8]) -> Result<Self> {
        // The text of a JSON error may quote the request; its place says enough.
        serde_json::from_slice(body).map_err(|e| {
            let place = format!("line {} column {}", e.line(), e.column());
            Error::data(format!("not a request of Athena for a user-defined function ({place})"))
        })
    }
}

impl Ping {
    /// The answer.
    #[must_use]
    pub fn answer(self) -> Response {
        Response::Ping {
            catalog_name: self.catalog_name,
            query_id: self.query_id,
            source_type: "firn",
            capabilities: CAPABILITIES,
            ser_de_version: SERDE_VERSION,
        }
    }
}

impl Call {
    /// The arguments, a column each.
    ///
    /// # Errors
    /// `Data` for what is not Arrow IPC, or no scalar function.
    pub fn arguments(&self) -> Result<RecordBatch> {
        if self.function_type != "SCALAR" {
            return Err(Error::data(format!("function type {} is not SCALAR", self.function_type)));
        }
        let schema = schema(decode(&self.input_records.schema)?).map_err(|e| malformed("inputRecords.schema", e))?;
        let records = decode(&self.input_records.records)?;
        if records.is_empty() {
            return Ok(RecordBatch::new_empty(schema));
        }
        batch(records, schema).map_err(|e| malformed("inputRecords.records", e))
    }

    /// The schema that the results shall have.
    ///
    /// # Errors
    /// `Data` for what is not Arrow IPC.
    pub fn output_schema(&self) -> Result<SchemaRef> {
        schema(decode(&self.output_schema)?).map_err(|e| malformed("outputSchema", e))
    }

    /// The answer.
    ///
    /// # Errors
    /// `Bug` when results cannot be written.
    pub fn answer(self, results: &RecordBatch) -> Result<Response> {
        let is_legacy = !decode(&self.output_schema)?.starts_with(&CONTINUATION);
        let written = write(results, is_legacy);
        let (schema, records) = written.map_err(|e| Error::bug("results are no Arrow IPC").with_source(e))?;
        let block = Block {
            a_id: uuid::Uuid::new_v4().to_string(),
            schema: STANDARD.encode(schema),
            records: STANDARD.encode(records),
        };
        Ok(Response::Call { records: Records(block), method_name: self.method_name })
    }
}

fn malformed(field: &str, error: ArrowError) -> Error {
    Error::data(format!("{field} is no message of Arrow IPC")).with_source(error)
}

fn decode(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|e| Error::data("a schema or records are not base64").with_source(e))
}

/// A message in the newer form. Besides being one form, it puts the metadata where it is aligned.
fn with_marker(message: Vec<u8>) -> Vec<u8> {
    if message.starts_with(&CONTINUATION) { message } else { [&CONTINUATION, message.as_slice()].concat() }
}

fn schema(message: Vec<u8>) -> Result<SchemaRef, ArrowError> {
    try_schema_from_ipc_buffer(&with_marker(message)).map(Arc::new)
}

/// The rows of one message: marker, length, metadata, body.
fn batch(message: Vec<u8>, schema: SchemaRef) -> Result<RecordBatch, ArrowError> {
    let cut = |what: &str| ArrowError::IpcError(format!("the message ends before its {what}"));
    let message = with_marker(message);
    let (length, rest) = message[CONTINUATION.len()..].split_first_chunk::<4>().ok_or_else(|| cut("length"))?;
    let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| cut("metadata"))?;
    let (metadata, body) = rest.split_at_checked(length).ok_or_else(|| cut("metadata"))?;
    let metadata = root_as_message(metadata).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let header = metadata.header_as_record_batch();
    let header = header.ok_or_else(|| ArrowError::IpcError("not a message with rows".to_owned()))?;
    // The reader counts on it that every buffer is inside of the body.
    let inside = |buffer: &arrow_ipc::Buffer| {
        let end = buffer.offset().checked_add(buffer.length());
        buffer.offset() >= 0 && buffer.length() >= 0 && end.is_some_and(|end| end as u64 <= body.len() as u64)
    };
    if !header.buffers().is_some_and(|buffers| buffers.iter().all(inside)) {
        return Err(cut("body"));
    }
    read_record_batch(&Buffer::from(body), header, schema, &HashMap::new(), None, &metadata.version())
}

/// A message with the schema and one with the rows.
fn write(batch: &RecordBatch, is_legacy: bool) -> Result<(Vec<u8>, Vec<u8>), ArrowError> {
    let version = if is_legacy { MetadataVersion::V4 } else { MetadataVersion::V5 };
    let options = IpcWriteOptions::try_new(8, is_legacy, version)?;
    let (generator, mut dictionaries) = (IpcDataGenerator::default(), DictionaryTracker::new(false));
    let schema: &Schema = &batch.schema();
    let schema = generator.schema_to_bytes_with_dictionary_tracker(schema, &mut dictionaries, &options);
    let (_, rows) = generator.encode(batch, &mut dictionaries, &options, &mut CompressionContext::default())?;
    let message = |data: EncodedData| {
        let mut out = Vec::new();
        write_message(&mut out, data, &options).map(|_| out)
    };
    Ok((message(schema)?, message(rows)?))
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, StringArray};

    use super::*;

    /// What the SDK wrote for `firn_decrypt` of `abc`, null and `ü`, in version 2 and in version 6.
    const SCHEMAS: [&str; 2] = [
        "hAAAABAAAAAAAAoADgAGAA0ACAAKAAAAAAADABAAAAAAAQoADAAAAAgABAAKAAAACAAAAAgAAAAAAAAAAQAAABgAAAAAABIAGAAUABMAEgAMAAAACAAEABIAAAAUAAAAFAAAABgAAAAAAAUBFAAAAAAAAAAAAAAABAAEAAQAAAABAAAAMAAAAA==",
        "/////4gAAAAQAAAAAAAKAA4ABgANAAgACgAAAAAABAAQAAAAAAEKAAwAAAAIAAQACgAAAAgAAAAIAAAAAAAAAAEAAAAYAAAAAAASABgAFAATABIADAAAAAgABAASAAAAFAAAABQAAAAYAAAAAAAFARQAAAAAAAAAAAAAAAQABAAEAAAAAQAAADAAAAAAAAAA",
    ];
    const RECORDS: [&str; 2] = [
        "nAAAABQAAAAAAAAADAAWAA4AFQAQAAQADAAAACAAAAAAAAAAAAADABAAAAAAAwoAGAAMAAgABAAKAAAAFAAAAEgAAAADAAAAAAAAAAAAAAADAAAAAAAAAAAAAAABAAAAAAAAAAgAAAAAAAAAEAAAAAAAAAAYAAAAAAAAAAUAAAAAAAAAAAAAAAEAAAADAAAAAAAAAAEAAAAAAAAAAAAAAAUAAAAAAAAAAAAAAAMAAAADAAAABQAAAGFiY8O8AAAA",
        "/////5gAAAAUAAAAAAAAAAwAFgAOABUAEAAEAAwAAAAgAAAAAAAAAAAABAAQAAAAAAMKABgADAAIAAQACgAAABQAAABIAAAAAwAAAAAAAAAAAAAAAwAAAAAAAAAAAAAAAQAAAAAAAAAIAAAAAAAAABAAAAAAAAAAGAAAAAAAAAAFAAAAAAAAAAAAAAABAAAAAwAAAAAAAAABAAAAAAAAAAUAAAAAAAAAAAAAAAMAAAADAAAABQAAAGFiY8O8AAAA",
    ];

    fn call(version: usize, records: &str) -> String {
        serde_json::json!({
            "@type": "UserDefinedFunctionRequest",
            "identity": {"id": "UNKNOWN", "principal": "UNKNOWN", "account": "1", "arn": "a", "tags": {}, "groups": []},
            "inputRecords": {"aId": "9bd4b796", "schema": SCHEMAS[version], "records": records},
            "outputSchema": SCHEMAS[version], "methodName": "firn_decrypt", "functionType": "SCALAR",
        })
        .to_string()
    }

    fn read(text: &str) -> Call {
        match Request::read(text.as_bytes()).unwrap() {
            Request::Call(call) => call,
            Request::Ping(ping) => panic!("{ping:?}"),
        }
    }

    #[test]
    fn rows_are_read_and_written_in_the_form_of_either_version() {
        for (version, records) in RECORDS.into_iter().enumerate() {
            let call = read(&call(version, records));
            let rows = call.arguments().unwrap();
            let expected: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None, Some("ü")]));
            assert_eq!(rows.column(0), &expected);
            let answer = serde_json::to_value(call.answer(&rows).unwrap()).unwrap();
            let written = STANDARD.decode(answer["records"]["records"].as_str().unwrap()).unwrap();
            assert_eq!(written.starts_with(&CONTINUATION), version == 1);
            assert_eq!(batch(written, rows.schema()).unwrap(), rows);
        }
    }

    #[test]
    fn no_rows_are_no_message() {
        assert_eq!(read(&call(1, "")).arguments().unwrap().num_rows(), 0);
    }

    #[test]
    fn a_damaged_message_is_an_error_whatever_byte_is_cut() {
        let whole = STANDARD.decode(RECORDS[1]).unwrap();
        for length in 1..whole.len() - 8 {
            let error = read(&call(1, &STANDARD.encode(&whole[..length]))).arguments().unwrap_err();
            assert_eq!(error.to_string(), "inputRecords.records is no message of Arrow IPC", "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_without_quoting_it() {
        for text in ["", "{}", "[1]", r#"{"@type": "ListSchemasRequest", "secret": "hunter2"}"#, r#"{"@type": 7}"#] {
            let error = Request::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("not a request of Athena") && !error.contains("hunter2"), "{error}");
        }
    }
}
