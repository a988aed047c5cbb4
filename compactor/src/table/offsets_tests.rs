//! Histories of a table, event by event, and the position that must come out.

use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, NestedField, Operation, PartitionSpec, PrimitiveType, Schema, Snapshot,
    SnapshotReference, SnapshotRetention, SortOrder, Summary, TableMetadataBuilder, Type,
};

use super::*;

/// What happens to a table. Snapshot ids are small numbers.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A run of ours commits snapshot `.0`, after which the position is `.1`.
    Ours(i64, u64),
    /// Somebody else commits (an append, `rewrite_data_files`): nothing of ours in the summary.
    Foreign(i64),
    /// `main` is set back to a snapshot by hand.
    Rollback(i64),
    /// Snapshots are expired.
    Expire(&'static [i64]),
    /// A cherry-pick of `.1` as snapshot `.0`.
    Pick(i64, i64),
    /// A branch is made from a snapshot, and one of ours committed to it as `.0` with position `.1`.
    OnBranch(i64, u64),
    /// A tag on a snapshot.
    Tag(i64),
}
use Event::{Expire, Foreign, OnBranch, Ours, Pick, Rollback, Tag};

fn position(offset: u64) -> Position {
    let mut position = Position::start();
    let topic = "events/topic/1".parse().unwrap();
    let partition = firn_shared::ids::PartitionRef { topic, partition: firn_shared::ids::Partition(0) };
    position.advance(&partition, offset).unwrap();
    position
}

fn empty_table() -> TableMetadata {
    let field = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([field.into()]).build().unwrap();
    let (spec, order) = (PartitionSpec::unpartition_spec(), SortOrder::unsorted_order());
    let builder =
        TableMetadataBuilder::new(schema, spec, order, "file:///t".to_owned(), FormatVersion::V2, HashMap::new());
    builder.unwrap().build().unwrap().metadata
}

fn reference(snapshot: i64) -> SnapshotReference {
    SnapshotReference::new(snapshot, SnapshotRetention::branch(None, None, None))
}

fn happen(metadata: TableMetadata, event: Event) -> TableMetadata {
    let at = |id: i64, metadata: &TableMetadata, summary: HashMap<String, String>| {
        Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(metadata.current_snapshot_id())
            .with_sequence_number(metadata.next_sequence_number())
            .with_timestamp_ms(metadata.last_updated_ms())
            .with_manifest_list(format!("file:///t/{id}.avro"))
            .with_summary(Summary { operation: Operation::Append, additional_properties: summary })
            .build()
    };
    let ours = |id: i64, offset: u64, metadata: &TableMetadata| {
        let base = current(metadata).unwrap().map(|s| s.position).unwrap_or_default();
        HashMap::from([
            (POSITION.to_owned(), serde_json::to_string(&position(offset)).unwrap()),
            (BASE_POSITION.to_owned(), serde_json::to_string(&base).unwrap()),
            (COMMIT_ID.to_owned(), format!("commit-{id}")),
        ])
    };
    let state = |id: i64, offset: u64, metadata: &TableMetadata| {
        let state = State {
            position: position(offset),
            account: Account::default(),
            deletes: Vec::new(),
            truncations: Vec::new(),
            forgotten: false,
            snapshot_id: id,
            sequence_number: metadata.next_sequence_number(),
            commit_id: format!("commit-{id}"),
        };
        HashMap::from([(STATE_PROPERTY.to_owned(), serde_json::to_string(&state).unwrap())])
    };
    let builder = metadata.clone().into_builder(None);
    let builder = match event {
        Ours(id, offset) => builder
            .add_snapshot(at(id, &metadata, ours(id, offset, &metadata)))
            .and_then(|b| b.set_ref(MAIN_BRANCH, reference(id)))
            .and_then(|b| b.set_properties(state(id, offset, &metadata))),
        Foreign(id) => {
            builder.add_snapshot(at(id, &metadata, HashMap::new())).and_then(|b| b.set_ref(MAIN_BRANCH, reference(id)))
        }
        Rollback(id) => builder.set_ref(MAIN_BRANCH, reference(id)),
        Expire(ids) => Ok(builder.remove_snapshots(ids)),
        Pick(id, source) => builder
            .add_snapshot(at(id, &metadata, HashMap::from([(SOURCE_SNAPSHOT.to_owned(), source.to_string())])))
            .and_then(|b| b.set_ref(MAIN_BRANCH, reference(id))),
        OnBranch(id, offset) => builder
            .add_snapshot(at(id, &metadata, ours(id, offset, &metadata)))
            .and_then(|b| b.set_ref("audit", reference(id))),
        Tag(id) => builder.set_ref("kept", SnapshotReference::new(id, SnapshotRetention::Tag { max_ref_age_ms: None })),
    };
    builder.unwrap().build().unwrap().metadata
}

#[test]
fn the_position_follows_the_history_of_main() {
    let check = |name: &str, events: &[Event], expected: Result<Option<u64>, ()>| {
        let metadata = events.iter().fold(empty_table(), |metadata, event| happen(metadata, *event));
        let found = current(&metadata).map(|s| s.map(|s| s.position)).map_err(|e| e.kind());
        let expected = expected.map(|o| o.map(position)).map_err(|()| firn_shared::error::ErrorKind::Data);
        assert_eq!(found, expected, "{name}");
    };
    check("a new table", &[], Ok(None));
    check("two runs", &[Ours(1, 10), Ours(2, 20)], Ok(Some(20)));
    check("rewrite_data_files by Spark on top", &[Ours(1, 10), Foreign(2), Foreign(3)], Ok(Some(10)));
    check("rollback by hand", &[Ours(1, 10), Ours(2, 20), Rollback(1)], Ok(Some(10)));
    check("rollback, then a foreign append", &[Ours(1, 10), Ours(2, 20), Rollback(1), Foreign(3)], Ok(Some(10)));
    check("rollback, then we go on", &[Ours(1, 10), Ours(2, 20), Rollback(1), Ours(3, 15)], Ok(Some(15)));
    check("rollback to before all of ours", &[Foreign(1), Ours(2, 20), Rollback(1)], Ok(None));
    check(
        "rollback to before all of ours, expiry of what was rolled back",
        &[Foreign(1), Ours(2, 20), Rollback(1), Expire(&[2])],
        Ok(None),
    );
    check("expiry leaves our last", &[Ours(1, 10), Ours(2, 20), Expire(&[1])], Ok(Some(20)));
    check(
        "expiry of all of ours below a foreign snapshot",
        &[Ours(1, 10), Ours(2, 20), Foreign(3), Expire(&[1, 2])],
        Ok(Some(20)),
    );
    check(
        "expiry of all of ours and the first foreign one",
        &[Ours(1, 10), Foreign(2), Foreign(3), Expire(&[1, 2])],
        Ok(Some(10)),
    );
    check(
        "rollback, a foreign append, expiry of all before it",
        &[Ours(1, 10), Ours(2, 20), Rollback(1), Foreign(3), Expire(&[1, 2])],
        Err(()),
    );
    check(
        "the same, with more foreign work on top",
        &[Ours(1, 10), Ours(2, 20), Rollback(1), Foreign(3), Foreign(4), Expire(&[1, 2])],
        Err(()),
    );
    check(
        "rollback, a foreign append, and we go on before the expiry",
        &[Ours(1, 10), Ours(2, 20), Rollback(1), Foreign(3), Ours(4, 15), Foreign(5), Expire(&[1, 2, 3, 4])],
        Ok(Some(15)),
    );
    check("the same, and we go on", &[Ours(1, 10), Foreign(2), Expire(&[1]), Ours(3, 30), Foreign(4)], Ok(Some(30)));
    check(
        "the expired one is kept by a tag, and was rolled back",
        &[Foreign(1), Ours(2, 20), Tag(2), Rollback(1), Foreign(3)],
        Ok(None),
    );
    check("a branch does not count", &[Ours(1, 10), OnBranch(2, 20)], Ok(Some(10)));
    check("a branch and foreign work on main", &[Ours(1, 10), OnBranch(2, 20), Foreign(3)], Ok(Some(10)));
    check("a cherry-pick in its order", &[Ours(1, 10), Ours(2, 20), Rollback(1), Foreign(3), Pick(4, 2)], Ok(Some(20)));
    check(
        "a cherry-pick that skips a run",
        &[Ours(1, 10), Ours(2, 20), Ours(3, 30), Rollback(1), Foreign(4), Pick(5, 3)],
        Err(()),
    );
    check(
        "a cherry-pick of foreign work",
        &[Foreign(1), Foreign(2), Rollback(1), Ours(3, 10), Pick(4, 2)],
        Ok(Some(10)),
    );
    check(
        "the first run, rolled back and picked",
        &[Foreign(1), Ours(2, 20), Rollback(1), Foreign(3), Pick(4, 2)],
        Ok(Some(20)),
    );
}

#[test]
fn a_commit_is_found_wherever_it_is_below_the_current_snapshot() {
    let check = |events: &[Event], commit: &str, expected: Option<i64>| {
        let metadata = events.iter().fold(empty_table(), |metadata, event| happen(metadata, *event));
        assert_eq!(landed(&metadata, &Head::of(&metadata, None), commit).unwrap(), expected, "{events:?}");
    };
    check(&[Ours(1, 10), Ours(2, 20), Foreign(3)], "commit-1", Some(1));
    check(&[Ours(1, 10), Ours(2, 20), Rollback(1)], "commit-2", None);
    check(&[Ours(1, 10), Foreign(2), Expire(&[1])], "commit-1", Some(1));
    check(&[Ours(1, 10)], "commit-9", None);
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_a_start_from_nothing() {
    let metadata = happen(empty_table(), Foreign(1));
    let broken = HashMap::from([(STATE_PROPERTY.to_owned(), "{".to_owned())]);
    let builder = metadata.into_builder(None).set_properties(broken).unwrap();
    let error = current(&builder.build().unwrap().metadata).unwrap_err();
    assert!(error.to_string().contains("firn.state cannot be read"), "{error}");
}
