//! Files of ours beside files of the parquet crate's own writer: the same rows, statistics and level counts.

use arrow_array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::TimeUnit;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::ZstdLevel;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// How the values of a test are drawn.
#[derive(Debug, Clone, Copy)]
struct Draw {
    /// How likely a value is null.
    nulls: f64,
    /// How many distinct values there are.
    distinct: i64,
}

fn nulls(rng: &mut StdRng, count: usize, draw: Draw) -> NullBuffer {
    // Runs as well as single ones.
    let mut bits = Vec::with_capacity(count);
    while bits.len() < count {
        let run = if rng.random_bool(0.1) { rng.random_range(1..200) } else { 1 };
        bits.extend(std::iter::repeat_n(!rng.random_bool(draw.nulls), run.min(count - bits.len())));
    }
    NullBuffer::from(bits)
}

fn random(rng: &mut StdRng, field: &Field, count: usize, draw: Draw) -> ArrayRef {
    let nulls = field.is_nullable().then(|| nulls(rng, count, draw));
    let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
    match field.data_type() {
        DataType::Struct(fields) => {
            let arrays = fields.iter().map(|f| random(rng, f, count, draw)).collect();
            return Arc::new(StructArray::try_new(fields.clone(), arrays, nulls).unwrap());
        }
        DataType::List(element) => {
            // Some nulls have elements all the same.
            let lengths: Vec<usize> = (0..count).map(|_| rng.random_range(0..4)).collect();
            let values = random(rng, element, lengths.iter().sum(), draw);
            let offsets = OffsetBuffer::from_lengths(lengths);
            return Arc::new(ListArray::try_new(element.clone(), offsets, values, nulls).unwrap());
        }
        DataType::Map(entries, _) => {
            let lengths: Vec<usize> = (0..count).map(|_| rng.random_range(0..3)).collect();
            let values = random(rng, entries, lengths.iter().sum(), draw);
            let offsets = OffsetBuffer::from_lengths(lengths);
            let values = values.as_struct().clone();
            return Arc::new(MapArray::try_new(entries.clone(), offsets, values, nulls, false).unwrap());
        }
        _ => {}
    }
    let numbers: Vec<i64> = (0..count).map(|_| rng.random_range(0..draw.distinct) - 3).collect();
    let text = |i: usize| {
        let n = numbers[i];
        valid(i).then(|| "é∑x".repeat((n % 40).unsigned_abs() as usize) + &n.to_string())
    };
    match field.data_type() {
        DataType::Boolean => Arc::new(BooleanArray::new(numbers.iter().map(|n| n % 2 == 0).collect(), nulls)),
        DataType::Int32 => Arc::new(Int32Array::new(numbers.iter().map(|n| *n as i32).collect(), nulls)),
        DataType::Date32 => Arc::new(Date32Array::new(numbers.iter().map(|n| *n as i32).collect(), nulls)),
        DataType::Int64 => Arc::new(Int64Array::new(numbers.into(), nulls)),
        DataType::Timestamp(..) => {
            Arc::new(TimestampMicrosecondArray::new(numbers.into(), nulls).with_timezone("+00:00"))
        }
        DataType::Float32 => Arc::new(Float32Array::new(numbers.iter().map(|n| *n as f32 * -0.5).collect(), nulls)),
        DataType::Float64 => {
            let values = numbers.iter().map(|n| if *n == 5 { f64::NAN } else { *n as f64 * -0.5 });
            Arc::new(Float64Array::new(values.collect(), nulls))
        }
        DataType::Decimal128(precision, scale) => {
            let values = numbers.iter().map(|n| i128::from(*n)).collect();
            Arc::new(Decimal128Array::new(values, nulls).with_precision_and_scale(*precision, *scale).unwrap())
        }
        DataType::Binary => {
            let bytes =
                |i: usize| valid(i).then(|| vec![0xff - (i % 2) as u8; (numbers[i] % 90).unsigned_abs() as usize]);
            Arc::new((0..count).map(bytes).collect::<BinaryArray>())
        }
        _ => Arc::new((0..count).map(text).collect::<StringArray>()),
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let of = |fields: &[&Arc<Field>]| DataType::Struct(fields.iter().map(|f| (*f).clone()).collect());
    let needed = |field: &Field| Arc::new(field.clone().with_nullable(false));
    let list = |element: Arc<Field>| DataType::List(element);
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let (number, text) = (field("number", DataType::Int64), field("text", DataType::Utf8));
    let deep = field("deep", of(&[&text, &field("numbers", list(field("element", DataType::Int64)))]));
    let entries = field("entries", of(&[&needed(&field("key", DataType::Utf8)), &field("value", DataType::Float64)]));
    let event = of(&[&needed(&number), &field("texts", list(needed(&field("element", DataType::Utf8))))]);
    Arc::new(Schema::new(vec![
        needed(&field("id", DataType::Int64)),
        needed(&field("name", DataType::Utf8)),
        field("flag", DataType::Boolean),
        field("int", DataType::Int32),
        field("day", DataType::Date32),
        field("at", zoned),
        field("float", DataType::Float32),
        field("double", DataType::Float64),
        field("small", DataType::Decimal128(9, 2)),
        field("middle", DataType::Decimal128(18, 2)),
        field("large", DataType::Decimal128(30, 2)),
        field("bytes", DataType::Binary),
        text.clone(),
        field("struct", of(&[&number, &deep, &needed(&field("fixed", DataType::Boolean))])),
        field("events", list(field("element", event))),
        field("map", DataType::Map(needed(&entries), false)),
        field("paged", DataType::Int64),
    ]))
}

fn properties() -> WriterPropertiesPtr {
    let zstd = |level| Compression::ZSTD(ZstdLevel::try_new(level).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(zstd(3))
        .set_column_compression(ColumnPath::from("bytes"), zstd(1))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(ColumnPath::from("int"), false)
        .set_column_statistics_enabled(ColumnPath::from("day"), EnabledStatistics::None)
        .set_column_statistics_enabled(ColumnPath::from("paged"), EnabledStatistics::Page);
    Arc::new(properties.build())
}

/// Rows and footer of a file.
fn read(file: Bytes) -> (RecordBatch, Arc<ParquetMetaData>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let (schema, metadata) = (builder.schema().clone(), builder.metadata().clone());
    let batches: Vec<_> = builder.build().unwrap().map(|b| b.unwrap()).collect();
    (arrow_select::concat::concat_batches(&schema, &batches).unwrap(), metadata)
}

fn ours(groups: &[Vec<RecordBatch>]) -> Bytes {
    let encoding = Encoding::new(schema(), properties()).unwrap();
    let mut file = encoding.file(Vec::new()).unwrap();
    for batches in groups {
        let mut rows = encoding.row_group().unwrap();
        for batch in batches {
            rows.write(batch).unwrap();
        }
        assert!(rows.memory() >= rows.bytes());
        let mut group = file.next_row_group().unwrap();
        rows.finish(&mut group).unwrap();
        group.close().unwrap();
    }
    file.into_inner().unwrap().into()
}

fn theirs(groups: &[Vec<RecordBatch>]) -> Bytes {
    // Without the copy of the Arrow schema, which ours does not have either.
    let options = ArrowWriterOptions::new().with_properties((*properties()).clone()).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema(), options).unwrap();
    for batches in groups {
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.flush().unwrap();
    }
    writer.into_inner().unwrap().into()
}

fn check(seed: u64, draw: Draw, sizes: &[Vec<usize>]) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let schema = schema();
    let batch = |count: &usize| {
        let columns = schema.fields().iter().map(|f| random(rng, f, count + 3, draw)).collect();
        // What is written begins anywhere in its buffers.
        RecordBatch::try_new(schema.clone(), columns).unwrap().slice(3, *count)
    };
    let mut batch = batch;
    let groups: Vec<Vec<_>> = sizes.iter().map(|sizes| sizes.iter().map(&mut batch).collect()).collect();
    let (rows, ours) = read(ours(&groups));
    let (expected, theirs) = read(theirs(&groups));
    for (field, (left, right)) in schema.fields().iter().zip(rows.columns().iter().zip(expected.columns())) {
        assert!(left == right, "column {} differs", field.name());
    }
    assert_eq!(ours.num_row_groups(), theirs.num_row_groups());
    for (ours, theirs) in ours.row_groups().iter().zip(theirs.row_groups()) {
        assert_eq!(ours.num_rows(), theirs.num_rows());
        for (ours, theirs) in ours.columns().iter().zip(theirs.columns()) {
            let path = ours.column_path();
            assert_eq!(ours.num_values(), theirs.num_values(), "{path}");
            assert_eq!(ours.statistics(), theirs.statistics(), "{path}");
            assert_eq!(ours.definition_level_histogram(), theirs.definition_level_histogram(), "{path}");
            assert_eq!(ours.repetition_level_histogram(), theirs.repetition_level_histogram(), "{path}");
        }
    }
}

#[test]
fn few_values_and_many_nulls_are_read_back() {
    check(1, Draw { nulls: 0.95, distinct: 20 }, &[vec![1, 7, 5000], vec![300]]);
}

#[test]
fn a_dictionary_that_is_full_is_followed_by_plain_pages() {
    check(2, Draw { nulls: 0.7, distinct: 12_000 }, &[vec![10_000; 4]]);
}

#[test]
fn values_that_never_repeat_have_no_dictionary() {
    check(3, Draw { nulls: 0.0, distinct: i64::MAX }, &[vec![22_000, 1]]);
}

#[test]
fn columns_without_any_value_are_read_back() {
    check(4, Draw { nulls: 1.0, distinct: 1 }, &[vec![100], vec![21_000]]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_are_read_back(
        seed in any::<u64>(),
        nulls in prop_oneof![Just(0.0), Just(0.01), Just(0.5), Just(0.99)],
        distinct in prop_oneof![Just(1), Just(2), Just(9), Just(1000), Just(1 << 40)],
        sizes in prop::collection::vec(prop::collection::vec(1usize..600, 1..4), 1..3),
    ) {
        check(seed, Draw { nulls, distinct }, &sizes);
    }
}
