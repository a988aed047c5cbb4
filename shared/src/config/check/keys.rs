//! Keys for personal data, and access to KMS.

use std::collections::BTreeMap;

use super::File;
use super::firn::{credentials, store, url};
use crate::config::domain::{KeySource, KeySpec, KmsOptions, Reuse, StoreUrl};
use crate::config::grammar::tidy;
use crate::config::shape::join;
use crate::config::units::{ByteSize, Period};
use crate::config::wire::{FirnYaml, KeyYaml, ReuseYaml};
use crate::ids::KeyName;

/// What the names of our own entries in encryption contexts begin with.
const OWNED: &str = "firn:";
/// Where wrapped keys are kept below the warehouse.
const FOLDER: &str = "_keys";

/// Access to KMS, and the keys by name.
pub(super) fn keys(file: &File, yaml: &FirnYaml) -> Option<(KmsOptions, BTreeMap<KeyName, KeySpec>)> {
    let access = yaml.kms.clone().unwrap_or_default();
    url(file, "kms.endpoint", access.endpoint.as_ref());
    let (id, secret) = (access.access_key_id.as_ref(), access.secret_access_key.as_ref());
    let credentials = credentials(file, "kms", id, secret);
    let warehouse = yaml.warehouse.as_ref().and_then(|text| StoreUrl::parse(text, file.folder()).ok());
    let mut out = BTreeMap::new();
    let mut whole = true;
    for (name, yaml) in yaml.keys.iter().flatten() {
        let path = join("keys", name);
        let name = file.take(&path, KeyName::new(name.clone()));
        if yaml.is_none() && !file.is_cut(&path) {
            file.report(&path, "expected a mapping with `kms` or `file`, found nothing");
        }
        match (name, yaml.as_ref().and_then(|yaml| key(file, &path, yaml, warehouse.as_ref()))) {
            (Some(name), Some(key)) => {
                out.insert(name, key);
            }
            _ => whole = false,
        }
    }
    let kms = KmsOptions { endpoint: access.endpoint, region: access.region, credentials: credentials? };
    whole.then_some((kms, out))
}

fn key(file: &File, path: &str, yaml: &KeyYaml, warehouse: Option<&StoreUrl>) -> Option<KeySpec> {
    let at = |key: &str| join(path, key);
    let store = match &yaml.store {
        Some(_) => store(file, &at("store"), yaml.store.as_ref()),
        None => warehouse.map(|url| below(url, FOLDER)),
    };
    let context = yaml.context.clone().unwrap_or_default();
    for name in context.keys().filter(|name| name.starts_with(OWNED)) {
        file.report(&join(&at("context"), name), format!("names that begin with `{OWNED}` are ours"));
    }
    let source = match (&yaml.kms, &yaml.file) {
        (Some(_), Some(_)) => {
            file.report(path, "has both `kms` and `file`; keep one");
            None
        }
        (Some(key_id), None) => Some(KeySource::Kms { key_id: key_id.clone(), context }),
        (None, Some(ring)) => {
            for (key, given) in [("context", yaml.context.is_some()), ("reuse", yaml.reuse.is_some())] {
                if given {
                    file.report(&at(key), "belongs to keys from `kms`");
                }
            }
            Some(KeySource::File(tidy(&file.folder().join(ring))))
        }
        (None, None) => {
            if !file.is_cut(&at("kms")) && !file.is_cut(&at("file")) {
                file.report(path, "needs `kms` or `file`");
            }
            None
        }
    };
    let reuse = reuse(file, &at("reuse"), &yaml.reuse.clone().unwrap_or_default());
    Some(KeySpec { source: source?, store: store?, reuse: reuse? })
}

fn reuse(file: &File, path: &str, yaml: &ReuseYaml) -> Option<Reuse> {
    let default = Reuse::default();
    let age = file.parse_or(&join(path, "age"), yaml.age.as_ref(), Period(default.age));
    let bytes = file.parse_or(&join(path, "bytes"), yaml.bytes.as_ref(), ByteSize(default.bytes));
    if age.is_some_and(|age| age.0.is_zero()) || bytes == Some(ByteSize(0)) {
        file.report(path, "must be above 0");
    }
    Some(Reuse { age: age?.0, values: yaml.values.unwrap_or(default.values), bytes: bytes?.0 })
}

fn below(url: &StoreUrl, folder: &str) -> StoreUrl {
    match url {
        StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => {
            StoreUrl::S3 { bucket: bucket.clone(), prefix: folder.to_owned() }
        }
        StoreUrl::S3 { bucket, prefix } => {
            StoreUrl::S3 { bucket: bucket.clone(), prefix: format!("{prefix}/{folder}") }
        }
        StoreUrl::File(path) => StoreUrl::File(path.join(folder)),
    }
}
