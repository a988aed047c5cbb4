//! What is in the table, read back through the catalog like any other reader does.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use firn_compactor::run::Target;
use firn_compactor::table::Catalog;
use firn_compactor::table::read::{self, Rows};
use firn_shared::ids::EventHour;
use futures::TryStreamExt;

/// Row counts of the table, and where its metadata is.
#[derive(Debug, Default)]
pub struct Contents {
    /// Rows by hour of `created_at`.
    pub hours: BTreeMap<EventHour, u64>,
    /// Rows by `type`.
    pub types: BTreeMap<String, u64>,
    /// The current metadata file.
    pub metadata: String,
}

/// Reads the two columns and counts.
///
/// # Errors
/// When the table is not there or cannot be read.
pub async fn read(catalog: &dyn Catalog, target: &Target<'_>) -> Result<Contents> {
    let table = catalog.load(&target.ident()).await?.with_context(|| format!("there is no table {}", target.name()))?;
    let mut contents =
        Contents { metadata: table.metadata_location().unwrap_or_default().to_owned(), ..Contents::default() };
    let mut batches = read::rows(&table, &["created_at", "type"], &Rows::All).await?;
    while let Some(batch) = batches.try_next().await? {
        let column = |name: &str| batch.column_by_name(name).with_context(|| format!("the table has no column {name}"));
        let times = column("created_at")?.as_primitive::<TimestampMicrosecondType>();
        for micros in times.iter().flatten() {
            *contents.hours.entry(EventHour::from_epoch_hours(micros.div_euclid(3_600_000_000))).or_default() += 1;
        }
        for name in column("type")?.as_string::<i32>().iter().flatten() {
            *contents.types.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(contents)
}
