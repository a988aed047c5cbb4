//! What goes with its subject, of a table and of the records it was made of, written down in the table: a pipeline may
//! forget a column that it protected once, and table and raw zone hold it all the same.

use std::collections::BTreeSet;

use firn_shared::config::domain::Output;
use firn_shared::config::protected::protected;
use firn_shared::crypto::Erasable;
use firn_shared::error::{Error, Result};
use iceberg::table::Table;

/// Table property: everything that a run has protected for a subject, as JSON.
pub const PROPERTY: &str = "firn.erasable";

/// What an output protects for a subject.
#[must_use]
pub fn of(output: &Output) -> BTreeSet<Erasable> {
    protected(output).iter().filter_map(Erasable::of).collect()
}

/// What runs have written down so far.
///
/// # Errors
/// `Data` when that cannot be read: an erasure that knows nothing of it would leave something.
pub fn recorded(table: &Table) -> Result<BTreeSet<Erasable>> {
    let Some(text) = table.metadata().properties().get(PROPERTY) else { return Ok(BTreeSet::new()) };
    let ident = table.identifier();
    serde_json::from_str(text)
        .map_err(|e| Error::data(format!("property {PROPERTY} of {ident} is broken")).with_source(e))
}

/// The property as it has to be once the output has written into the table; `None` when it is like that.
///
/// # Errors
/// As [`recorded`].
pub fn grown(table: &Table, output: &Output) -> Result<Option<(String, String)>> {
    let own = of(output);
    if own.is_empty() {
        return Ok(None);
    }
    let known = recorded(table)?;
    if own.is_subset(&known) {
        return Ok(None);
    }
    let all: BTreeSet<&Erasable> = known.iter().chain(&own).collect();
    let text = serde_json::to_string(&all).map_err(|e| Error::bug("places are JSON").with_source(e))?;
    Ok(Some((PROPERTY.to_owned(), text)))
}
