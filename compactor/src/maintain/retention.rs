//! Which snapshots expire: metadata and settings in, a verdict for each snapshot out.
//!
//! Of each branch the newest snapshots stay, and the younger ones; heads and tags stay. What says how far the table has
//! consumed its topics must be the same afterwards: what would change it stays, with everything between it and the head,
//! because it is found by walking there. What nothing names stays until it is old.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use firn_shared::config::domain::Maintenance;
use firn_shared::error::{Error, Result};
use iceberg::TableUpdate;
use iceberg::spec::{MAIN_BRANCH, SnapshotRef, SnapshotReference, SnapshotRetention, TableMetadata};
use serde::Serialize;

use crate::plan::position::Position;
use crate::reconcile::account::Account;
use crate::table::error;
use crate::table::offsets;
use crate::table::offsets::{SCOPE, SCOPE_NEW};
use crate::table::refs::{self, Head};
use crate::upsert::remember::Memory;

/// What becomes of a snapshot, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Kept: a branch or tag names it.
    Named,
    /// Kept: it is among the newest of a branch.
    Newest,
    /// Kept: it is young.
    Young,
    /// Kept: it leads from a branch to `main`, which publishing the branch needs.
    OfBranch,
    /// Kept: the consumed offsets are found through it.
    Offsets,
    /// Kept: it says which records the last load brought.
    LastLoad,
    /// Goes.
    Old,
}

impl Verdict {
    /// In a few words.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Named => "named by a branch or tag",
            Self::Newest => "among the newest",
            Self::Young => "young",
            Self::OfBranch => "between a branch and main",
            Self::Offsets => "leads to the consumed offsets",
            Self::LastLoad => "leads to the last load",
            Self::Old => "old",
        }
    }
}

/// A verdict for every snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct Retention {
    /// By snapshot.
    pub verdicts: BTreeMap<i64, Verdict>,
    /// Branches and tags whose own time has run out.
    pub refs: Vec<String>,
}

impl Retention {
    /// All snapshots go but the current one.
    #[must_use]
    pub fn only_current(metadata: &TableMetadata) -> Self {
        let current = metadata.current_snapshot_id();
        let verdict = |id: i64| if Some(id) == current { Verdict::Named } else { Verdict::Old };
        let ids = metadata.snapshots().map(|s| s.snapshot_id());
        Self { verdicts: ids.map(|id| (id, verdict(id))).collect(), refs: Vec::new() }
    }

    /// The snapshots that go, ascending.
    #[must_use]
    pub fn expired(&self) -> Vec<i64> {
        self.verdicts.iter().filter(|(_, verdict)| **verdict == Verdict::Old).map(|(id, _)| *id).collect()
    }
}

/// Judges every snapshot.
///
/// # Errors
/// `Data` when the consumed offsets cannot be read.
pub fn judge(
    metadata: &TableMetadata,
    settings: &Maintenance,
    keeps_last_load: bool,
    now: DateTime<Utc>,
) -> Result<Retention> {
    let now = now.timestamp_millis();
    let mut references = refs::all(metadata)?;
    let gone: Vec<String> =
        references.iter().filter(|(name, r)| has_ended(metadata, name, r, now)).map(|(name, _)| name.clone()).collect();
    references.retain(|name, _| !gone.contains(name));
    let mut judge = Judge { metadata, settings, now, verdicts: BTreeMap::new() };
    for (name, reference) in &references {
        judge.reference(name, reference);
    }
    judge.unnamed();
    if keeps_last_load {
        judge.lead_to(MAIN_BRANCH, Verdict::LastLoad, |s| {
            let load = summary(s).get(SCOPE).is_some_and(|scope| scope == SCOPE_NEW);
            load || summary(s).contains_key(offsets::LOAD_BASE)
        });
    }
    for (name, _) in references.iter().filter(|(_, reference)| reference.is_branch()) {
        judge.keep_offsets(name)?;
    }
    Ok(Retention { verdicts: judge.verdicts, refs: gone })
}

/// Whether a branch or tag was given a time by somebody, and that is over; `main` never ends.
fn has_ended(metadata: &TableMetadata, name: &str, reference: &SnapshotReference, now: i64) -> bool {
    let (SnapshotRetention::Branch { max_ref_age_ms: most, .. } | SnapshotRetention::Tag { max_ref_age_ms: most }) =
        reference.retention;
    let head = metadata.snapshot_by_id(reference.snapshot_id);
    name != MAIN_BRANCH && most.is_some_and(|most| head.is_some_and(|s| now - s.timestamp_ms() > most))
}

fn summary(snapshot: &SnapshotRef) -> &HashMap<String, String> {
    &snapshot.summary().additional_properties
}

struct Judge<'a> {
    metadata: &'a TableMetadata,
    settings: &'a Maintenance,
    now: i64,
    verdicts: BTreeMap<i64, Verdict>,
}

impl Judge<'_> {
    /// A reason to keep outlives one to let go, and the first reason stays.
    fn say(&mut self, snapshot: i64, verdict: Verdict) {
        let said = self.verdicts.entry(snapshot).or_insert(verdict);
        if *said == Verdict::Old {
            *said = verdict;
        }
    }

    fn reference(&mut self, name: &str, reference: &SnapshotReference) {
        self.say(reference.snapshot_id, Verdict::Named);
        let SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, .. } = reference.retention else {
            return;
        };
        let expire_after = i64::try_from(self.settings.expire_after.as_millis()).unwrap_or(i64::MAX);
        // What somebody set on the branch itself goes before the configuration.
        let newest = min_snapshots_to_keep.map_or(self.settings.keep_last, |n| n.max(1) as usize);
        let since = self.now.saturating_sub(max_snapshot_age_ms.unwrap_or(expire_after));
        let metadata = self.metadata;
        let main: HashSet<i64> = Head::of(metadata, None).ancestry(metadata).map(|s| s.snapshot_id()).collect();
        for (number, snapshot) in Head::of(metadata, Some(name)).ancestry(metadata).enumerate() {
            let verdict = match snapshot {
                _ if number < newest => Verdict::Newest,
                s if s.timestamp_ms() >= since => Verdict::Young,
                s if !main.contains(&s.snapshot_id()) => Verdict::OfBranch,
                _ => Verdict::Old,
            };
            self.say(snapshot.snapshot_id(), verdict);
        }
    }

    /// Snapshots that no branch leads to: rolled back, or of branches that were dropped.
    fn unnamed(&mut self) {
        let since = self.now.saturating_sub(i64::try_from(self.settings.expire_after.as_millis()).unwrap_or(i64::MAX));
        for snapshot in self.metadata.snapshots() {
            if !self.verdicts.contains_key(&snapshot.snapshot_id()) {
                let young = snapshot.timestamp_ms() >= since;
                self.say(snapshot.snapshot_id(), if young { Verdict::Young } else { Verdict::Old });
            }
        }
    }

    /// Keeps the newest snapshot of a branch that is `wanted`, and all that lead to it.
    fn lead_to(&mut self, branch: &str, verdict: Verdict, wanted: impl Fn(&SnapshotRef) -> bool) {
        let metadata = self.metadata;
        let way: Vec<&SnapshotRef> = Head::of(metadata, Some(branch)).ancestry(metadata).collect();
        if let Some(end) = way.iter().position(|s| wanted(s)) {
            way[..=end].iter().for_each(|s| self.say(s.snapshot_id(), verdict));
        }
    }

    /// Makes sure that the branch says the same of the consumed offsets afterwards.
    fn keep_offsets(&mut self, branch: &str) -> Result<()> {
        let before = state(self.metadata, branch)?;
        if self.says_still(branch, before.as_ref())? {
            return Ok(());
        }
        self.lead_to(branch, Verdict::Offsets, |s| summary(s).contains_key(offsets::POSITION));
        if self.says_still(branch, before.as_ref())? {
            return Ok(());
        }
        // A cherry-pick, or something that is not known here: nothing that is left may go.
        let left: Vec<i64> = self.verdicts.iter().filter(|(_, v)| **v == Verdict::Old).map(|(id, _)| *id).collect();
        for id in left {
            self.say(id, Verdict::Offsets);
        }
        Ok(())
    }

    /// Whether the branch would say this of the consumed offsets afterwards; that they would be unknown is a no.
    fn says_still(&self, branch: &str, before: Option<&Consumed>) -> Result<bool> {
        Ok(state(&self.after()?, branch).is_ok_and(|after| after.as_ref() == before))
    }

    /// The metadata without what goes.
    fn after(&self) -> Result<TableMetadata> {
        let snapshot_ids: Vec<i64> =
            self.verdicts.iter().filter(|(_, v)| **v == Verdict::Old).map(|(id, _)| *id).collect();
        if snapshot_ids.is_empty() {
            return Ok(self.metadata.clone());
        }
        let odd = |e| error("cannot work out what is left of the metadata", e);
        let builder = self.metadata.clone().into_builder(None);
        let builder = TableUpdate::RemoveSnapshots { snapshot_ids }.apply(builder).map_err(odd)?;
        Ok(builder.build().map_err(odd)?.metadata)
    }
}

type Consumed = (Position, Account, Memory);

fn state(metadata: &TableMetadata, branch: &str) -> Result<Option<Consumed>> {
    let found = offsets::at(metadata, &Head::of(metadata, Some(branch)));
    let found = found.map_err(|e| Error::new(e.kind(), format!("cannot expire snapshots: {e}")).with_source(e))?;
    Ok(found.map(|state| (state.position.clone(), state.account.clone(), state.memory())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use firn_shared::config::domain::MaintenanceOptions;
    use iceberg::TableCreation;
    use iceberg::spec::{NestedField, Operation, PrimitiveType, Schema, Snapshot, Summary, TableMetadataBuilder, Type};

    use super::*;
    use crate::table::offsets::State;

    /// Snapshot 1 says what was consumed, snapshot 2 is somebody else's; the property says `state`.
    fn metadata(said: &[(&str, &str)], state: &State) -> TableMetadata {
        let id = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
        let creation = TableCreation::builder()
            .name("t".to_owned())
            .location("file:///t".to_owned())
            .schema(Schema::builder().with_fields([id.into()]).build().unwrap())
            .properties(HashMap::new())
            .build();
        let mut metadata = TableMetadataBuilder::from_table_creation(creation).unwrap().build().unwrap().metadata;
        for (id, parent) in [(1, None), (2, Some(1))] {
            let said = said.iter().filter(|_| id == 1).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let snapshot = Snapshot::builder()
                .with_snapshot_id(id)
                .with_parent_snapshot_id(parent)
                .with_sequence_number(id)
                .with_timestamp_ms(metadata.last_updated_ms() + id)
                .with_manifest_list(format!("file:///t/{id}.avro"))
                .with_summary(Summary { operation: Operation::Append, additional_properties: said.collect() })
                .with_schema_id(0)
                .build();
            let reference = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
            let property = (offsets::STATE_PROPERTY.to_owned(), serde_json::to_string(state).unwrap());
            let mut builder = metadata.into_builder(None);
            for update in [
                TableUpdate::AddSnapshot { snapshot },
                TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference },
                TableUpdate::SetProperties { updates: [property].into() },
            ] {
                builder = update.apply(builder).unwrap();
            }
            metadata = builder.build().unwrap().metadata;
        }
        metadata
    }

    #[test]
    fn a_snapshot_goes_only_when_the_property_says_all_that_it_said() {
        let position = r#"{"c/t/1":{"0":5}}"#;
        let state = State {
            position: serde_json::from_str(position).unwrap(),
            snapshot_id: 1,
            sequence_number: 1,
            ..State::default()
        };
        let forgetful = State { forgotten: true, ..state.clone() };
        let settings =
            Maintenance { expire_after: Duration::ZERO, keep_last: 1, ..MaintenanceOptions::default().resolve(100) };
        let plain = [(offsets::POSITION, position)];
        let forgot = [(offsets::POSITION, position), (offsets::FORGOTTEN, "true")];
        for (said, state, goes) in
            [(&plain[..], &state, true), (&forgot[..], &state, false), (&forgot[..], &forgetful, true)]
        {
            let now = DateTime::from_timestamp(10_000_000_000, 0).unwrap();
            let retention = judge(&metadata(said, state), &settings, false, now).unwrap();
            assert_eq!(retention.expired(), if goes { vec![1] } else { vec![] }, "{said:?} {retention:?}");
        }
    }
}
