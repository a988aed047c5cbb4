//! `firn_decrypt(value, key [, aad])`: the plaintext of a protected value.
//!
//! `value` is the encrypted column, base64 or bytes, `key` the row's column `_key_{name}`, which says by which key and version the value
//! was sealed, `aad` the additional data if the pipeline gives one. A null value is null; so is a value of a data subject
//! whose key was destroyed: erased is erased.
//!
//! What a query passes may be anything, personal data in plain included, so no message repeats an argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::{DataType, SchemaRef};
use chrono::{DateTime, Utc};
use firn_shared::clock::Clock;
use firn_shared::config::domain::Deployment;
use firn_shared::crypto::keys::{KEPT, key_of};
use firn_shared::crypto::{DataKey, Keys, Plaintext};
use firn_shared::error::{Error, Result};
use firn_shared::store::Stores;
use futures::{StreamExt, TryStreamExt, stream};

use crate::protocol::{Call, Request, Response};

/// The function's name in SQL, whatever its case.
const NAME: &str = "firn_decrypt";
/// Keys that are opened at a time.
const AT_ONCE: usize = 32;

/// Answers requests.
#[derive(Debug)]
pub struct Decrypt {
    deployment: Deployment,
    stores: Stores,
    clock: Arc<dyn Clock>,
    keys: Mutex<Option<(Arc<Keys>, DateTime<Utc>)>>,
}

impl Decrypt {
    /// With the keys of a deployment; none is opened yet.
    #[must_use]
    pub fn new(deployment: Deployment, clock: Arc<dyn Clock>) -> Self {
        let stores = Stores::new(deployment.s3.clone());
        Self { deployment, stores, clock, keys: Mutex::default() }
    }

    /// The answer to a request, both as JSON. To be called on a runtime.
    ///
    /// # Errors
    /// What is wrong with the request, a value or a key; never the value itself.
    pub async fn answer(&self, body: &[u8]) -> Result<Vec<u8>> {
        let response = match Request::read(body)? {
            Request::Ping(ping) => ping.answer(),
            Request::Call(call) => self.call(call).await?,
        };
        serde_json::to_vec(&response).map_err(|e| Error::bug("an answer is JSON").with_source(e))
    }

    async fn call(&self, call: Call) -> Result<Response> {
        if !call.method_name.eq_ignore_ascii_case(NAME) {
            return Err(Error::config(format!("there is no function {}; this one is {NAME}", call.method_name)));
        }
        let (arguments, schema) = (call.arguments()?, call.output_schema()?);
        let arguments = Arguments::of(&arguments)?;
        if schema.fields().len() != 1 || schema.field(0).data_type() != &DataType::Utf8 {
            return Err(Error::config(format!("declare {NAME} with RETURNS VARCHAR")));
        }
        let opened = self.open(&arguments).await?;
        let results = decrypt(&arguments, &opened, schema)?;
        tracing::info!(rows = results.num_rows(), keys = opened.len(), "decrypted");
        call.answer(&results)
    }

    /// The keys that these rows need.
    async fn open<'a>(&self, arguments: &Arguments<'a>) -> Result<Opened<'a>> {
        let keys = self.keys();
        let rows = arguments.key.iter().enumerate();
        let ids: BTreeSet<&str> = rows.filter_map(|(row, id)| id.filter(|_| arguments.value.is_valid(row))).collect();
        let open = |id: &'a str| {
            let keys = Arc::clone(&keys);
            async move { Ok((id, open(&keys, id).await?)) }
        };
        stream::iter(ids.into_iter().map(open)).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The keys, made anew when they are old: nothing that was opened is kept beyond [`KEPT`], client and stores included.
    fn keys(&self) -> Arc<Keys> {
        let now = self.clock.now();
        let mut held = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((keys, since)) if now - *since < KEPT => Arc::clone(keys),
            _ => {
                let keys = Keys::new(&self.deployment, self.stores.clone(), Arc::clone(&self.clock));
                *held = Some((Arc::clone(&keys), now));
                keys
            }
        }
    }
}

async fn open(keys: &Keys, id: &str) -> Result<Option<Arc<DataKey>>> {
    let name = key_of(id).ok_or_else(|| Error::data("the second argument is not the `_key_` column of the row"))?;
    if !keys.names().any(|known| *known == name) {
        let known = keys.names().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::config(format!(
            "a row names a key that the function's firn.yaml does not have; it has: {known}"
        )));
    }
    keys.key(&name).await?.open(id).await
}

/// Keys by their id; `None` for a subject whose key is gone.
type Opened<'a> = HashMap<&'a str, Option<Arc<DataKey>>>;

/// The columns of a call.
struct Arguments<'a> {
    value: &'a dyn Array,
    key: &'a StringArray,
    aad: Option<&'a StringArray>,
}

impl<'a> Arguments<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let columns = batch.columns();
        let types: Vec<&DataType> = columns.iter().map(|column| column.data_type()).collect();
        match types[..] {
            [DataType::Utf8 | DataType::Binary, DataType::Utf8]
            | [DataType::Utf8 | DataType::Binary, DataType::Utf8, DataType::Utf8] => {}
            _ => {
                let usage = "(value VARCHAR, key VARCHAR) or (value VARCHAR, key VARCHAR, aad VARCHAR)";
                let binary = "with value VARBINARY for a column with `encoding: binary`";
                return Err(Error::config(format!("declare {NAME} with the arguments {usage}, {binary}")));
            }
        }
        Ok(Self {
            value: &columns[0],
            key: columns[1].as_string(),
            aad: columns.get(2).map(|column| column.as_string()),
        })
    }

    /// The plaintext of a row's value.
    fn open(&self, row: usize, key: &DataKey) -> Result<Plaintext> {
        match self.value.as_binary_opt::<i32>() {
            Some(bytes) => key.open_bytes(bytes.value(row).to_vec(), self.aad(row)),
            None => key.open(self.value.as_string::<i32>().value(row).as_bytes(), self.aad(row)),
        }
    }

    /// The additional data of a row; none is empty.
    fn aad(&self, row: usize) -> &[u8] {
        self.aad.filter(|aad| aad.is_valid(row)).map_or(&[], |aad| aad.value(row).as_bytes())
    }
}

fn decrypt(arguments: &Arguments<'_>, opened: &Opened<'_>, schema: SchemaRef) -> Result<RecordBatch> {
    let Arguments { value, key, .. } = *arguments;
    let mut out = StringBuilder::new();
    for row in 0..value.len() {
        if value.is_null(row) {
            out.append_null();
            continue;
        }
        if key.is_null(row) {
            return Err(Error::data(
                "a value has no key: it was never encrypted; leave such rows out with `WHERE _key_... IS NOT NULL`",
            ));
        }
        match opened.get(key.value(row)) {
            Some(Some(key)) => {
                let plain = arguments.open(row, key)?;
                let text = std::str::from_utf8(plain.expose());
                out.append_value(text.map_err(|_| Error::data("a decrypted value is not UTF-8"))?);
            }
            Some(None) | None => out.append_null(),
        }
    }
    RecordBatch::try_new(schema, vec![Arc::new(out.finish())])
        .map_err(|e| Error::bug("one column of text").with_source(e))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chrono::TimeDelta;
    use firn_shared::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn opened_keys_are_forgotten_after_a_quarter_of_an_hour() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let function = Decrypt::new(Deployment::local(Path::new("/nowhere")), Arc::new(clock.clone()));
        let first = function.keys();
        clock.set(DateTime::UNIX_EPOCH + TimeDelta::seconds(899));
        assert!(Arc::ptr_eq(&first, &function.keys()));
        clock.set(DateTime::UNIX_EPOCH + TimeDelta::seconds(900));
        assert!(!Arc::ptr_eq(&first, &function.keys()));
    }
}
