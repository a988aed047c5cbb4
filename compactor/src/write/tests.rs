//! Files written, read back with the parquet crate, and compared with naive computations.

use std::collections::{BTreeMap, HashMap};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use firn_shared::config::domain::{PartitionField, S3Options, SortField, Transform};
use firn_shared::ids::ColumnName;
use firn_shared::store::Stores;
use iceberg::spec::{Literal, PrimitiveLiteral, TableMetadataBuilder};
use iceberg::{NamespaceIdent, TableIdent};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;
use crate::table::create::Definition;
use crate::table::schema::TableColumn;

const DAY: i64 = 86_400_000_000;

/// One row: id, time, name, amount.
type Row = (i64, Option<i64>, Option<String>, Option<i64>);

fn definition(dir: &std::path::Path, partition: &[(&str, Transform)], sort: &[&str]) -> Definition {
    let column = |name: &str, r#type: &str, required| TableColumn {
        name: name.to_owned(),
        r#type: r#type.parse().unwrap(),
        required,
        doc: None,
    };
    Definition {
        ident: TableIdent::new(NamespaceIdent::new("db".to_owned()), "t".to_owned()),
        location: format!("file://{}/t", dir.display()),
        columns: vec![
            column("id", "long", true),
            column("at", "timestamptz", false),
            column("name", "string", false),
            column("amount", "decimal(12,2)", false),
            column("tags", "list<string>", false),
        ],
        partition_by: partition
            .iter()
            .map(|(c, t)| PartitionField { column: ColumnName::new(*c).unwrap(), transform: *t })
            .collect(),
        sort_by: sort.iter().map(|c| SortField { column: ColumnName::new(*c).unwrap(), descending: false }).collect(),
        properties: BTreeMap::new(),
        needed: BTreeMap::new(),
    }
}

fn spec(definition: &Definition, runtime: &tokio::runtime::Runtime) -> WriteSpec {
    let built = TableMetadataBuilder::from_table_creation(definition.creation().unwrap()).unwrap().build().unwrap();
    WriteSpec {
        metadata: Arc::new(built.metadata),
        stores: Stores::new(S3Options::default()),
        runtime: runtime.handle().clone(),
        run: RunId::new(),
        slice: "0".to_owned(),
        target_file_bytes: 64 << 20,
        memory: 64 << 20,
        open_files_max: OPEN_FILES_MAX,
        zstd_level: 1,
    }
}

/// A batch without field ids and with `UTC`, as a decoder may hand it over.
fn batch(rows: &[Row]) -> RecordBatch {
    let ids: Int64Array = rows.iter().map(|r| Some(r.0)).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|r| r.1).collect();
    let names: StringArray = rows.iter().map(|r| r.2.clone()).collect();
    let amounts: Decimal128Array = rows.iter().map(|r| r.3.map(i128::from)).collect();
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("at", Arc::new(times.with_timezone("UTC"))),
        ("name", Arc::new(names)),
        ("amount", Arc::new(amounts.with_precision_and_scale(12, 2).unwrap())),
    ])
    .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn write(spec: WriteSpec, batches: &[RecordBatch]) -> Vec<NewFile> {
    let mut writer = DataWriter::new(spec).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap()
}

/// Ids and times of a file, in their order.
fn read(file: &NewFile) -> Vec<(i64, Option<i64>, Option<String>)> {
    let path = file.file.file_path().strip_prefix("file://").unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().clone();
        let times = batch.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>().clone();
        let names = batch.column_by_name("name").unwrap().as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            let time = times.is_valid(row).then(|| times.value(row));
            let name = names.is_valid(row).then(|| names.value(row).to_owned());
            rows.push((ids.value(row), time, name));
        }
    }
    rows
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let name = prop_oneof!["[a-c]{0,3}", "k{20}[a-z]{0,3}", "\u{10FFFF}{17}", "[é-ü]{14,18}"];
    let row = (
        any::<i64>(),
        proptest::option::weighted(0.8, -4 * DAY..4 * DAY),
        proptest::option::weighted(0.8, name),
        proptest::option::weighted(0.8, -1_000_000_000i64..1_000_000_000),
    );
    proptest::collection::vec(row, 1..60)
}

fn long(datum: Option<&iceberg::spec::Datum>) -> Option<i64> {
    match datum?.literal() {
        PrimitiveLiteral::Long(value) => Some(*value),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bounds_and_counts_agree_with_a_naive_computation(rows in rows(), memory in prop_oneof![Just(1u64), Just(64 << 20)]) {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let mut spec = spec(&definition(dir.path(), &[], &[]), &runtime);
        // One byte of memory: a row group and a file a batch.
        spec.memory = memory;
        let batches: Vec<RecordBatch> = rows.chunks(20).map(batch).collect();
        let files = write(spec, &batches);
        let mut found = 0;
        for file in &files {
            let read = read(file);
            let file = &file.file;
            found += read.len();
            prop_assert_eq!(file.record_count() as usize, read.len());
            let ids: Vec<i64> = read.iter().map(|r| r.0).collect();
            prop_assert_eq!(long(file.lower_bounds().get(&1)), ids.iter().min().copied());
            prop_assert_eq!(long(file.upper_bounds().get(&1)), ids.iter().max().copied());
            let times: Vec<i64> = read.iter().filter_map(|r| r.1).collect();
            prop_assert_eq!(long(file.lower_bounds().get(&2)), times.iter().min().copied());
            prop_assert_eq!(long(file.upper_bounds().get(&2)), times.iter().max().copied());
            prop_assert_eq!(file.null_value_counts()[&2] as usize, read.len() - times.len());
            prop_assert_eq!(file.value_counts()[&2] as usize, read.len());
            for name in read.iter().filter_map(|r| r.2.as_ref()) {
                if let Some(PrimitiveLiteral::String(low)) = file.lower_bounds().get(&3).map(|d| d.literal()) {
                    prop_assert!(low <= name && low.chars().count() <= 16);
                } else {
                    prop_assert!(false, "no lower bound of names");
                }
                if let Some(PrimitiveLiteral::String(high)) = file.upper_bounds().get(&3).map(|d| d.literal()) {
                    prop_assert!(high >= name && high.chars().count() <= 16);
                }
            }
            // The elements of a list have counts and no bounds.
            prop_assert!(!file.lower_bounds().contains_key(&6));
        }
        prop_assert_eq!(found, rows.len());
    }

    #[test]
    fn partitions_agree_with_a_naive_computation(rows in rows(), open in 1usize..4) {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let partition = [("at", Transform::Day), ("name", Transform::Truncate(1))];
        let mut spec = spec(&definition(dir.path(), &partition, &[]), &runtime);
        spec.open_files_max = open;
        let files = write(spec, &[batch(&rows)]);
        let naive = |time: Option<i64>, name: &Option<String>| {
            let day = time.map(|t| t.div_euclid(DAY) as i32);
            (day, name.as_ref().map(|n| n.chars().take(1).collect::<String>()))
        };
        let mut counts: HashMap<_, usize> = HashMap::new();
        for row in &rows {
            *counts.entry(naive(row.1, &row.2)).or_default() += 1;
        }
        for file in &files {
            let read = read(file);
            let expected = naive(read[0].1, &read[0].2);
            for row in &read {
                prop_assert_eq!(&naive(row.1, &row.2), &expected);
            }
            let fields = file.file.partition().fields();
            prop_assert_eq!(&fields[0], &expected.0.map(Literal::date));
            prop_assert_eq!(&fields[1], &expected.1.clone().map(Literal::string));
            *counts.get_mut(&expected).unwrap() -= read.len();
        }
        prop_assert!(counts.values().all(|left| *left == 0));
    }
}

#[test]
fn a_time_that_no_calendar_reaches_ends_no_run() {
    let times = [i64::MIN, i64::MAX, -DAY - 500_000, -1];
    let rows: Vec<Row> = times.iter().map(|at| (0, Some(*at), None, None)).collect();
    for transform in [Transform::Identity, Transform::Day, Transform::Month, Transform::Year] {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let spec = spec(&definition(dir.path(), &[("at", transform)], &[]), &runtime);
        let files = write(spec, &[batch(&rows)]);
        assert!(
            files.len() >= 3 && files.iter().all(|file| file.file.partition().fields()[0].is_some()),
            "{transform:?}"
        );
    }
}

#[test]
fn bucket_values_are_those_of_the_specification() {
    // Appendix B of the Iceberg specification: bucket(34L) hashes to 2017239379.
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let spec = spec(&definition(dir.path(), &[("id", Transform::Bucket(16))], &[]), &runtime);
    let files = write(spec, &[batch(&[(34, None, None, None)])]);
    assert_eq!(files[0].file.partition().fields()[0], Some(Literal::int(2_017_239_379 % 16)));
}

#[test]
fn rows_are_sorted_within_runs_and_only_a_single_run_claims_the_order() {
    for (memory, runs) in [(256 << 20, 1), (16 << 20, 2)] {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let mut spec = spec(&definition(dir.path(), &[], &["name", "id"]), &runtime);
        let order_id = spec.metadata.default_sort_order().order_id as i32;
        spec.memory = memory;
        let wide = "x".repeat(1 << 20);
        let row = |i: i64| (100 - i, None, Some(format!("{}{wide}", i % 3)), None);
        let batches: Vec<RecordBatch> = (0..24).map(|i| batch(&[row(i)])).collect();
        let files = write(spec, &batches);
        let [file] = files.as_slice() else { panic!("{} files", files.len()) };
        let groups = file.file.split_offsets().unwrap().len();
        assert_eq!((groups >= runs, groups == 1), (true, runs == 1), "{groups} row groups");
        assert_eq!(file.file.sort_order_id(), (runs == 1).then_some(order_id));
        let keys: Vec<_> = read(file).into_iter().map(|r| (r.2, r.0)).collect();
        let breaks = keys.windows(2).filter(|w| w[0] > w[1]).count();
        assert_eq!(keys.len(), 24);
        assert!(breaks < groups, "{breaks} breaks of the order in {groups} runs");
    }
}

#[test]
fn files_roll_at_their_target_and_names_are_never_equal() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let mut spec = spec(&definition(dir.path(), &[("at", Transform::Hour)], &[]), &runtime);
    spec.target_file_bytes = 1;
    let again = spec.clone();
    let rows: Vec<Row> = (0..6).map(|i| (i, Some(i % 2 * DAY), None, None)).collect();
    let batches: Vec<RecordBatch> = rows.chunks(2).map(batch).collect();
    let mut files = write(spec, &batches);
    assert_eq!(files.len(), 6, "a file a batch and partition");
    files.extend(write(WriteSpec { slice: "1".to_owned(), ..again }, &batches));
    let mut paths: Vec<_> = files.iter().map(|f| f.file.file_path().to_owned()).collect();
    assert!(paths[0].contains("/t/data/at_hour=1970-01-01-00/"), "{}", paths[0]);
    paths.dedup();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 12);
}

#[test]
fn columns_that_files_are_found_by_have_bounds_behind_any_number_of_others() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let mut definition = definition(dir.path(), &[("part", Transform::Identity)], &["sorted"]);
    let column = |name: String| TableColumn { name, r#type: "long".parse().unwrap(), required: false, doc: None };
    let last = ["part", "sorted", "key", "other"].map(str::to_owned);
    definition.columns = (0..110).map(|n| format!("c{n}")).chain(last).map(column).collect();
    let mut spec = spec(&definition, &runtime);
    let properties = bounds_properties(&spec.metadata, &["key".to_owned(), "c1".to_owned()]);
    assert_eq!(properties.len(), 2);
    let built = TableMetadata::clone(&spec.metadata).into_builder(None).set_properties(properties).unwrap().build();
    spec.metadata = Arc::new(built.unwrap().metadata);
    assert!(bounds_properties(&spec.metadata, &["key".to_owned()]).is_empty(), "once is enough");
    let schema = spec.metadata.current_schema().clone();
    let values: ArrayRef = Arc::new(Int64Array::from(vec![7, 7]));
    let columns = ["c0", "c109", "part", "sorted", "key", "other"].map(|name| (name, Arc::clone(&values)));
    let files = write(spec, &[RecordBatch::try_from_iter(columns).unwrap()]);
    let has = |name: &str| files[0].file.lower_bounds().contains_key(&schema.field_id_by_name(name).unwrap());
    assert_eq!(["c0", "part", "sorted", "key", "c109", "other"].map(has), [true, true, true, true, false, false]);
}

#[test]
fn a_table_of_few_columns_needs_no_properties_for_its_bounds() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let spec = spec(&definition(dir.path(), &[], &[]), &runtime);
    assert!(bounds_properties(&spec.metadata, &["id".to_owned()]).is_empty());
}

#[test]
fn what_does_not_fit_is_an_error_and_never_null() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let spec = spec(&definition(dir.path(), &[], &[]), &runtime);
    let check = |column: &str, array: ArrayRef, part: &str| {
        let mut writer = DataWriter::new(spec.clone()).unwrap();
        let error = writer.write(&RecordBatch::try_from_iter([(column, array)]).unwrap()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    check("id", Arc::new(StringArray::from(vec!["x"])), "column `id` does not fit");
    check("id", Arc::new(Int64Array::from(vec![None])), "rows do not fit the table");
    check("nobody", Arc::new(Int64Array::from(vec![1])), "column `nobody` is not in the table");
    check("name", Arc::new(StringArray::from(vec!["x"])), "rows do not fit the table");
}

#[test]
fn a_failed_upload_is_the_error_that_the_writer_tells() {
    use firn_shared::store::{Fault, Faults};
    for number in 1..=3 {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let mut spec = spec(&definition(dir.path(), &[], &[]), &runtime);
        let faults = Faults::at_write(number, Fault::ErrorBefore);
        spec.stores = Stores::wrapped(S3Options::default(), move |store| faults.around(store));
        let mut writer = DataWriter::new(spec).unwrap();
        writer.write(&batch(&[(1, None, None, None)])).unwrap();
        let error = writer.finish().unwrap_err();
        assert!(error.to_string().contains("injected fault"), "{error}");
    }
}
