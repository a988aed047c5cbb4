//! What a table's conversion needs to know, built before anything is read.

use firn_shared::config::domain::{Column, Output, Protection};
use firn_shared::config::protected::unprotected_name;
use firn_shared::config::{change_columns, decoded_columns};
use firn_shared::error::{Error, Result};
use firn_shared::ids::ColumnName;
use firn_shared::raw::envelope::line_bytes_max;

use super::effect::Effect;
use super::events::Events;
use crate::protect::{self, Protector};
use crate::transform::{Engine, References, Transformer};

/// One for all slices of a run.
#[derive(Debug)]
pub struct Conversion {
    pub(super) columns: Vec<Column>,
    pub(super) effect: Option<Box<Effect>>,
    pub(super) transformer: Transformer,
    pub(super) protector: Option<Protector>,
    pub(super) events: Events,
    pub(super) provenance: bool,
    pub(super) line_max: usize,
    pub(super) held_bytes: u64,
}

impl Conversion {
    /// Builds the transformations; `references` holds what their look-ups read. Records of up to `record_bytes_max` bytes
    /// pass. A table with protections needs its `protector`: without it, plaintext would go into files.
    ///
    /// # Errors
    /// `Config`, naming the step.
    pub fn new(
        output: &Output,
        record_bytes_max: u64,
        references: &References,
        protector: Option<Protector>,
    ) -> Result<Self> {
        if protector.is_none() && output.table.protections.iter().any(Protection::protects) {
            return Err(Error::bug(format!("{} has protections and nobody opened their keys", output.table.name)));
        }
        let effect = Effect::new(output).map(Box::new);
        let columns = protect::decoded_columns(output, protector.as_ref().is_some_and(Protector::is_landed));
        let entering: Vec<Column> =
            columns.iter().cloned().chain(change_columns(output.format, &output.table.mode)).collect();
        let transformer = Self::transformer(output, &entering, references)?;
        Ok(Self {
            held_bytes: transformer.held_bytes() + references.held_bytes(),
            transformer,
            columns,
            effect,
            protector,
            events: Events::of(output),
            provenance: output.table.provenance,
            // Landing refuses what would make a longer line. Records may have been landed under a larger bound: a converter
            // takes what its memory allows, too.
            line_max: usize::try_from(line_bytes_max(record_bytes_max)).unwrap_or(usize::MAX),
        })
    }

    /// Builds the transformations of `output`, without any file of look-ups or key.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn check(output: &Output) -> Result<Vec<Engine>> {
        let transformer = Self::transformer(output, &decoded_columns(output), &References::unread())?;
        Ok(transformer.engines().collect())
    }

    fn transformer(output: &Output, columns: &[Column], references: &References) -> Result<Transformer> {
        // Of a token, the value that it is made of must be there.
        let keys = output.table.mode.upsert().map_or(&[][..], |upsert| &upsert.keys);
        let keys = keys.iter().map(|key| ColumnName::new(unprotected_name(&output.table.protections, key.as_str())));
        Transformer::new(&output.transformations, columns, references)?.requiring(&keys.collect::<Result<Vec<_>>>()?)
    }

    /// What its steps may come to hold in the course of a run, bytes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// What a step may hold besides the batch while it works on it, bytes.
    #[must_use]
    pub fn call_bytes(&self) -> u64 {
        self.transformer.call_bytes()
    }

    /// Whether records of this event belong to the table.
    #[must_use]
    pub fn wants(&self, event: Option<&str>) -> bool {
        self.events.wants(event)
    }
}
