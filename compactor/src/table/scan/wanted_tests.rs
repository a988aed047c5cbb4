//! Files that may hold some values, against a look at every row.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::TryStreamExt;
use iceberg::TableUpdate;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Datum, PrimitiveLiteral, PrimitiveType, Struct};
use proptest::prelude::*;

use super::tests::{Bed, Row, rows_of};
use super::{All, LiveFile, Reader, Values, Wanted, live};
use crate::protect::BLOOM;
use crate::table::{Change, NewFile};

/// Rows of one file, whether somebody else has written it, and which change of the schema came before it.
type File = (Vec<(Option<String>, Option<i64>)>, bool, Option<u8>);

/// Long texts that differ behind what bounds keep of them, and the last of all characters, above which no bound is.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-e]{0,2}", "sixteen of these[a-c]{1,2}", "\u{10FFFF}{1,20}[ab]", "[é𐍈\u{E000}]{1,2}"]
}

fn file() -> impl Strategy<Value = File> {
    let row = (proptest::option::weighted(0.8, text()), proptest::option::weighted(0.8, 0..12i64));
    (proptest::collection::vec(row, 1..6), any::<bool>(), proptest::option::weighted(0.3, 0..3u8))
}

fn row(id: usize, (k, v): &(Option<String>, Option<i64>)) -> Row {
    Row { id: id as i64, k: k.clone(), v: *v, ..Row::default() }
}

/// The file as another engine's: under another name, with bounds that are wrong.
fn theirs(of: NewFile) -> NewFile {
    let path = of.file.file_path().strip_prefix("file://").unwrap();
    let to = format!("{}/00000-0-{}-00001.parquet", path.rsplit_once('/').unwrap().0, uuid::Uuid::new_v4());
    std::fs::rename(path, &to).unwrap();
    let wrong = |of: &Datum| match of.data_type() {
        PrimitiveType::Int => Datum::int(99),
        PrimitiveType::Long => Datum::long(99),
        _ => Datum::string("zz"),
    };
    let none: HashMap<i32, Datum> = of.file.lower_bounds().iter().map(|(id, bound)| (*id, wrong(bound))).collect();
    let mut file = DataFileBuilder::default();
    file.content(DataContentType::Data)
        .file_path(format!("file://{to}"))
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .partition_spec_id(of.spec_id)
        .record_count(of.file.record_count())
        .file_size_in_bytes(of.file.file_size_in_bytes())
        .value_counts(of.file.value_counts().clone())
        .null_value_counts(of.file.value_counts().clone())
        .lower_bounds(none.clone())
        .upper_bounds(none);
    NewFile { file: file.build().unwrap(), ..of }
}

/// A table of these files, and what is looked for in it.
async fn bed(dir: &std::path::Path, files: &[File], bloom: bool) -> Bed {
    let mut bed = Bed::new(dir, None).await;
    if bloom {
        let updates = [(format!("{BLOOM}k"), "true".to_owned())].into();
        bed.catalog.commit(&bed.table().await, vec![TableUpdate::SetProperties { updates }], Vec::new()).await.unwrap();
    }
    for (rows, foreign, step) in files {
        if let Some(step) = step {
            bed.evolve(*step).await;
        }
        let rows: Vec<Row> = rows.iter().enumerate().map(|(id, of)| row(id, of)).collect();
        let mut add = bed.files(&rows).await;
        if *foreign {
            add = add.into_iter().map(theirs).collect();
        }
        bed.commit(Change { add, ..Change::default() }).await;
    }
    bed
}

async fn wanted(bed: &Bed, texts: &[String], numbers: &[i64]) -> Wanted {
    let table = bed.table().await;
    let schema = table.metadata().current_schema();
    let id = |names: &[&str]| names.iter().find_map(|name| schema.field_id_by_name(name)).unwrap();
    let texts = texts.iter().cloned().map(PrimitiveLiteral::String).collect();
    let numbers = numbers.iter().copied().map(PrimitiveLiteral::Long).collect();
    let values = |field_id, values: HashSet<PrimitiveLiteral>| Values { field_id, values };
    Wanted::new(schema, vec![values(id(&["k", "key"]), texts), values(id(&["v"]), numbers)]).unwrap()
}

/// Whether rows of the row groups of a file are wanted.
async fn holds(reader: &Reader, file: &LiveFile, groups: Option<Vec<usize>>, is: impl Fn(&Row) -> bool) -> bool {
    let batches = reader.open(file).await.unwrap().rows(groups).await.unwrap();
    let batches: Vec<_> = batches.try_collect().await.unwrap();
    batches.iter().flat_map(|batch| rows_of(&batch.batch)).any(|row| is(&row))
}

async fn check(files: Vec<File>, bloom: bool, texts: Vec<String>, numbers: Vec<i64>) {
    let dir = tempfile::tempdir().unwrap();
    let bed = bed(dir.path(), &files, bloom).await;
    let is =
        |row: &Row| row.k.as_ref().is_some_and(|k| texts.contains(k)) || row.v.is_some_and(|v| numbers.contains(&v));
    let (table, wanted) = (bed.table().await, wanted(&bed, &texts, &numbers).await);
    let reader = Reader::all(&table).unwrap();
    let (mut all, mut found) = (BTreeSet::new(), BTreeSet::new());
    for file in live(&table, None, &All).await.unwrap() {
        if holds(&reader, &file, None, is).await {
            all.insert(file.path().to_owned());
        }
    }
    for file in live(&table, None, &wanted).await.unwrap() {
        let groups = wanted.row_groups(&mut reader.open(&file).await.unwrap()).await.unwrap();
        if holds(&reader, &file, groups, is).await {
            found.insert(file.path().to_owned());
        }
    }
    assert_eq!(found, all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn nothing_that_is_wanted_is_left_out(
        files in proptest::collection::vec(file(), 1..6),
        bloom: bool,
        texts in proptest::collection::vec(text(), 0..4),
        numbers in proptest::collection::vec(0..12i64, 0..3),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(files, bloom, texts, numbers));
    }
}

/// Bounds leave out what they can, then statistics and dictionaries, and bloom filters where there are any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_certainly_elsewhere_is_left_out() {
    for bloom in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let of = |texts: [&str; 2], numbers: [i64; 2]| -> Vec<(Option<String>, Option<i64>)> {
            (0..1000).map(|n| (Some(texts[n % 2].to_owned()), Some(numbers[n % 2]))).collect()
        };
        let files = [
            (of(["a", "z"], [1, 9]), false, None),
            (of(["x", "y"], [50, 60]), false, None),
            (of(["x", "y"], [50, 60]), true, None),
            (vec![(None, None); 3], false, None),
        ];
        let bed = bed(dir.path(), &files, bloom).await;
        let table = bed.table().await;
        let wanted = wanted(&bed, &["m".to_owned()], &[20]).await;
        let files = live(&table, None, &wanted).await.unwrap();
        assert_eq!((files.len(), wanted.excluded()), (2, 2), "by bounds and counts of nulls, if they are ours");
        let reader = Reader::all(&table).unwrap();
        for file in files {
            let groups = wanted.row_groups(&mut reader.open(&file).await.unwrap()).await.unwrap();
            assert_eq!(groups, Some(vec![]), "{}", file.path());
        }
        // A column whose order is not certain.
        let schema = table.metadata().current_schema();
        let n = Values { field_id: schema.field_id_by_name("n").unwrap(), values: HashSet::new() };
        assert!(Wanted::new(schema, vec![n]).is_none());
    }
}
