//! What protection costs: the columns of a task, some of them encrypted with a token beside.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use firn_shared::clock::SystemClock;
use firn_shared::config::domain::{
    Column, ColumnPath, Encoding, KmsOptions, MaintenanceOptions, Mode, Output, PayloadFormat, Protect, Protection,
    S3Options, Table,
};
use firn_shared::crypto::Keys;
use firn_shared::ids::{DatabaseName, KeyName, TableName};
use firn_shared::store::Stores;

use crate::protect::{Protector, fixed};

/// The key.
const KEY: &str = "bench";

/// A table of these columns of which `protect` (names, or `name=token`, `name=hash`, `name=encrypt`, `name=binary`, or with `+token` behind it) are protected.
pub fn output(columns: &[Column], protect: &[String]) -> Result<Output> {
    let protections = protect.iter().map(|text| protection(columns, text)).collect::<Result<Vec<_>>>()?;
    let table = Table {
        database: DatabaseName::new("bench")?,
        name: TableName::new("table")?,
        location: None,
        mode: Mode::Append,
        columns: columns.to_vec(),
        protections,
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        provenance: false,
        target_file_size: 1,
        zstd_level: 1,
        properties: std::collections::BTreeMap::new(),
        quarantine_threshold: None,
        maintenance: MaintenanceOptions::default(),
        athena_allow: std::collections::BTreeSet::new(),
    };
    Ok(Output { format: PayloadFormat::Json, events: None, table, transformations: Vec::new() })
}

fn protection(columns: &[Column], text: &str) -> Result<Protection> {
    let (name, how) = text.split_once('=').unwrap_or((text, "encrypt+token"));
    let (how, token) = how.strip_suffix("+token").map_or((how, false), |how| (how, true));
    let path: ColumnPath = name.parse()?;
    ensure!(columns.iter().any(|column| column.name == path.column), "the task has no column {}", path.column);
    let encoding = if how == "binary" { Encoding::Binary } else { Encoding::Base64 };
    let how = match how {
        "encrypt" | "binary" => Protect::Encrypt,
        "token" => Protect::Token,
        "hash" => Protect::Hash,
        other => anyhow::bail!("`{other}` is not encrypt, binary, token or hash"),
    };
    Ok(Protection { path, how, token, key: Some(KeyName::new(KEY)?), subject: None, aad: None, encoding })
}

/// Opens the protections of `output` under a key ring that is made below `to`.
pub async fn protector(output: &Output, to: &Path) -> Result<Option<Protector>> {
    std::fs::create_dir_all(to)?;
    let specs = fixed::keys(&to.canonicalize()?, [KeyName::new(KEY)?])?;
    let keys = Keys::of(specs, KmsOptions::default(), Stores::new(S3Options::default()), Arc::new(SystemClock));
    Protector::new(output, &[], false, &keys).await.context("cannot open the bench's keys")
}
