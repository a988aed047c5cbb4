//! What says that rows are deleted, and keeps values to say so: an erasure cannot take them out of there, so it does not begin.
//!
//! Firn's own delete files hold positions, or values of `idColumns`, which an erasure does not touch. But `idColumns` may have
//! been others once, and other engines delete by any column (Flink) or put the whole row beside its position.

use std::collections::BTreeSet;

use firn_shared::config::domain::PathStep;
use firn_shared::error::{Error, Result};
use iceberg::spec::{DataContentType, NestedFieldRef, TableMetadata, Type};
use iceberg::table::Table;

use crate::run::Env;
use crate::table::offsets;
use crate::table::scan::{Tracked, field_ids, is_firns, live_deletes};
use crate::upsert::remember::recall;

/// Field ids of a position delete file, whose other columns are copies of rows.
const OF_POSITIONS: [i32; 2] = [2_147_483_546, 2_147_483_545];

/// Looks for values at these paths of a table in what says that its rows are deleted.
///
/// # Errors
/// `Config`, naming the first file that has some, and what to do; those of the store.
pub async fn check(env: &Env, table: &Table, gone: &[Vec<PathStep>]) -> Result<()> {
    let (ident, gone) = (table.identifier(), ids(table.metadata(), gone));
    for delete in live_deletes(table).await? {
        if keeps(table, &delete, &gone).await? {
            return Err(Error::config(format!(
                "{ident} cannot be erased from: the delete file {} keeps values of rows that it deletes; compact the table so \
                 that it is not needed any more (compactor maintain --only compact, with maintenance: {{deleteShare: 0}}), \
                 then erase",
                delete.path()
            )));
        }
    }
    let state = offsets::current(table.metadata())?.unwrap_or_default();
    for object in &state.deletes {
        let kept = recall(&env.stores, object).await?;
        if kept.field_ids().any(|id| gone.contains(&id)) {
            return Err(Error::config(format!(
                "{ident} cannot be erased from: the deletes that are remembered in {} have a key of columns that lose values; \
                 run the pipeline with its idColumns of today, which forgets them, or leave these columns with --leave",
                object.url
            )));
        }
    }
    Ok(())
}

/// Whether a delete file has something of these fields.
async fn keeps(table: &Table, delete: &Tracked, gone: &BTreeSet<i32>) -> Result<bool> {
    let file = delete.file();
    if file.equality_ids().is_some_and(|ids| ids.iter().any(|id| gone.contains(id))) {
        return Ok(true);
    }
    if is_firns(delete.path()) {
        return Ok(false);
    }
    let columns = field_ids(table, file).await?;
    Ok(match file.content_type() {
        DataContentType::PositionDeletes => columns.iter().any(|id| !OF_POSITIONS.contains(id)),
        _ => columns.iter().any(|id| gone.contains(id)),
    })
}

/// The fields at the ends of paths, with all that is in them and around them.
fn ids(metadata: &TableMetadata, gone: &[Vec<PathStep>]) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for path in gone {
        let Some(PathStep::Field(name)) = path.first() else { continue };
        if let Some(field) = metadata.current_schema().as_struct().field_by_name(name) {
            collect(field, &mut found);
        }
    }
    found
}

fn collect(field: &NestedFieldRef, found: &mut BTreeSet<i32>) {
    found.insert(field.id);
    match field.field_type.as_ref() {
        Type::Struct(of) => of.fields().iter().for_each(|inner| collect(inner, found)),
        Type::List(of) => collect(&of.element_field, found),
        Type::Map(of) => [&of.key_field, &of.value_field].into_iter().for_each(|inner| collect(inner, found)),
        Type::Primitive(_) => {}
    }
}
