//! Every type that plug-ins read and give: unchanged there and back, and refused where it is none.

use arrow_array::types::Decimal128Type;
use arrow_array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, ListArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use proptest::prelude::*;

use super::super::layout::{NoColumn, lift, lower};
use super::super::world::{Column, Digits, Lists};
use super::modules::{letter, relabelling};
use super::*;
use crate::arrow_types::{UTC, element_field};
use crate::decode::time::{DAYS, YEARS};

const DECIMAL: Flat = Flat::Decimal(Digits { precision: 38, scale: 9 });
/// The types, in the order of [`arrays`].
const FLAT: [Flat; 12] = [
    Flat::Boolean,
    Flat::Long,
    Flat::Double,
    Flat::Text,
    Flat::Binary,
    Flat::Date,
    Flat::Timestamp,
    Flat::Timestamptz,
    Flat::Time,
    DECIMAL,
    Flat::Json,
    Flat::Uuid,
];

const fn short(digits: u8) -> Flat {
    Flat::Decimal(Digits { precision: digits, scale: 0 })
}

/// A value for a column of each type.
#[derive(Debug, Clone)]
struct Values {
    boolean: bool,
    long: i64,
    double: f64,
    text: String,
    binary: Vec<u8>,
    date: i32,
    micros: i64,
    time: i64,
    decimal: i128,
    json: String,
    uuid: u128,
}

fn any_values() -> impl Strategy<Value = Values> {
    let json = prop_oneof![
        Just("null".to_owned()),
        Just(r#" {"a": [1, 2.50, "ä\u0000"], "a": {}} "#.to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let beyond = 10_i128.pow(38);
    let texts = (any::<String>(), any::<Vec<u8>>(), json, any::<u128>());
    let times = (DAYS, YEARS, 0..86_400_000_000_i64);
    (any::<(bool, i64, f64)>(), texts, times, 1 - beyond..beyond).prop_map(
        |((boolean, long, double), (text, binary, json, uuid), (date, micros, time), decimal)| Values {
            boolean,
            long,
            double,
            text,
            binary,
            date,
            micros,
            time,
            decimal,
            json,
            uuid,
        },
    )
}

/// A column of each type.
fn arrays(rows: &[Option<Values>]) -> [ArrayRef; 12] {
    fn each<A: FromIterator<Option<T>>, T>(rows: &[Option<Values>], of: fn(&Values) -> T) -> A {
        rows.iter().map(|row| row.as_ref().map(of)).collect()
    }
    let micros: TimestampMicrosecondArray = each(rows, |row| row.micros);
    let decimals: Decimal128Array = each(rows, |row| row.decimal);
    [
        Arc::new(each::<BooleanArray, _>(rows, |row| row.boolean)),
        Arc::new(each::<Int64Array, _>(rows, |row| row.long)),
        Arc::new(each::<Float64Array, _>(rows, |row| row.double)),
        Arc::new(each::<StringArray, _>(rows, |row| row.text.clone())),
        Arc::new(each::<BinaryArray, _>(rows, |row| row.binary.clone())),
        Arc::new(each::<Date32Array, _>(rows, |row| row.date)),
        Arc::new(micros.clone()),
        Arc::new(micros.with_timezone(UTC)),
        Arc::new(each::<Time64MicrosecondArray, _>(rows, |row| row.time)),
        Arc::new(decimals.with_precision_and_scale(38, 9).unwrap()),
        Arc::new(each::<StringArray, _>(rows, |row| row.json.clone())),
        Arc::new(each::<StringArray, _>(rows, |row| uuid::Uuid::from_u128(row.uuid).to_string())),
    ]
}

/// Lists of so many of the values each; null where there is no number.
fn lists(of: Flat, values: ArrayRef, lengths: &[Option<usize>]) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or_default()));
    let nulls: NullBuffer = lengths.iter().map(Option::is_some).collect();
    Arc::new(ListArray::new(Arc::new(element_field(&of.logical())), offsets, values, Some(nulls)))
}

/// A plug-in whose functions give every type, and lists of it, as they came.
fn identity() -> &'static Plugin {
    static IDENTITY: std::sync::OnceLock<&'static Plugin> = std::sync::OnceLock::new();
    // Function `A` to `L` for values, `M` to `X` for lists.
    let types = FLAT.map(DataType::Flat).into_iter().chain(FLAT.map(DataType::List));
    let types: Vec<_> = types.map(|of| (of, of)).collect();
    IDENTITY.get_or_init(|| plugin(&relabelling(&types)).unwrap())
}

fn goes_through_unchanged(number: usize, of: DataType, array: &ArrayRef) -> std::result::Result<(), TestCaseError> {
    let back = lift(lower(array, of).unwrap(), of, array.len()).unwrap();
    prop_assert!(back.to_data() == array.to_data(), "{:?}", of);
    let name = format!("bad.{}", letter(number));
    let outcome = transformed(identity(), &name, &of.logical(), ArrayRef::clone(array)).unwrap();
    prop_assert!(outcome.rejected.is_empty(), "{:?}: {:?}", of, outcome.rejected);
    prop_assert!(outcome.batch.column(0).to_data() == array.to_data(), "{:?}", of);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn columns_of_every_type_go_through_a_plugin_unchanged(
        rows in prop::collection::vec(prop::option::weighted(0.8, any_values()), 0..40),
        from in 0usize..9,
        cuts in prop::collection::vec((0usize..6, prop::bool::weighted(0.8)), 0..20),
    ) {
        // A slice begins in the middle of bytes and buffers.
        let sliced = |array: &ArrayRef| {
            let from = from.min(array.len());
            array.slice(from, array.len() - from)
        };
        let mut left = rows.len();
        let lengths: Vec<Option<usize>> = cuts.iter().map(|(length, there)| {
            let length = if *there { left.min(*length) } else { 0 };
            left -= length;
            there.then_some(length)
        }).collect();
        let used = rows.len() - left;
        for (number, (of, array)) in FLAT.into_iter().zip(arrays(&rows)).enumerate() {
            goes_through_unchanged(number, DataType::Flat(of), &sliced(&array))?;
            let lists = lists(of, array.slice(0, used), &lengths);
            goes_through_unchanged(FLAT.len() + number, DataType::List(of), &sliced(&lists))?;
        }
    }
}

/// Which rows are rejected, why, and how many are left.
fn rejects(
    plugin: &'static Plugin,
    name: char,
    of: DataType,
    array: ArrayRef,
) -> (Vec<(u32, RejectKind, String)>, usize) {
    let outcome = transformed(plugin, &format!("bad.{name}"), &of.logical(), array).unwrap();
    let told = outcome.rejected.iter().map(|reject| (reject.row, reject.why.reason, reject.why.detail.clone()));
    (told.collect(), outcome.batch.num_rows())
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn decimals(values: &[Option<i128>]) -> ArrayRef {
    let array = values.iter().copied().collect::<Decimal128Array>();
    Arc::new(array.with_precision_and_scale(38, 0).unwrap())
}

#[test]
fn a_value_that_is_none_of_its_type_rejects_its_row_alone() {
    let flat = [(Flat::Text, Flat::Json), (Flat::Text, Flat::Uuid), (short(38), short(5))];
    let types: Vec<_> = flat.map(|(reads, gives)| (DataType::Flat(reads), DataType::Flat(gives))).into();
    let plugin = plugin(&relabelling(&types)).unwrap();
    let (text, long) = (DataType::Flat(Flat::Text), DataType::Flat(short(38)));

    let values = [Some(r#"{"a":1}"#), Some("{"), None, Some("1 2"), Some("null"), Some("")];
    let detail = "plug-in `bad` made text that is not one JSON value";
    let expected = [1, 3, 5].map(|row| (row, RejectKind::NotJson, detail.to_owned()));
    assert_eq!(rejects(plugin, 'A', text, texts(&values)), (expected.into(), 3));

    let good = "d9428888-122b-11e1-b85c-61cd3cbb3210";
    let upper = good.to_uppercase();
    let values = [Some(good), Some(&*upper), None, Some(&good[1..]), Some("d9428888_122b_11e1_b85c_61cd3cbb3210")];
    let detail = "plug-in `bad` made text that is no UUID of 36 characters in lower case";
    let expected = [1, 3, 4].map(|row| (row, RejectKind::BadFormat, detail.to_owned()));
    assert_eq!(rejects(plugin, 'B', text, texts(&values)), (expected.into(), 2));

    let values = [Some(99_999), Some(100_000), None, Some(-100_000), Some(-99_999), Some(i128::MAX)];
    let detail = "plug-in `bad` made a decimal of more than 5 digits";
    let expected = [1, 3, 5].map(|row| (row, RejectKind::OutOfRange, detail.to_owned()));
    assert_eq!(rejects(plugin, 'C', long, decimals(&values)), (expected.into(), 3));
}

#[test]
fn an_element_that_is_none_of_its_type_rejects_its_row_alone() {
    let lists_of = [(Flat::Text, Flat::Json), (short(38), short(5))];
    let types: Vec<_> = lists_of.map(|(reads, gives)| (DataType::List(reads), DataType::List(gives))).into();
    let plugin = plugin(&relabelling(&types)).unwrap();
    let rows = |told: (Vec<(u32, RejectKind, String)>, usize)| told.0.iter().map(|reject| reject.0).collect::<Vec<_>>();

    let values = texts(&[Some("1"), None, Some("[]"), Some("x"), Some("{}"), Some("y"), Some("z")]);
    let lengths = [Some(2), None, Some(2), Some(0), Some(1), Some(2)];
    let array = lists(Flat::Text, ArrayRef::clone(&values), &lengths);
    assert_eq!(rows(rejects(plugin, 'A', DataType::List(Flat::Text), array)), [2, 5]);
    // What lies under a null list is nobody's.
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 3, 4, 5, 7]));
    let nulls = NullBuffer::from(vec![true, false, true, false]);
    let hidden = ListArray::new(Arc::new(element_field(&LogicalType::String)), offsets, values, Some(nulls));
    assert_eq!(rejects(plugin, 'A', DataType::List(Flat::Text), Arc::new(hidden)), (vec![], 4));

    let values = decimals(&[Some(1), Some(100_000), None, Some(99_999)]);
    let array = lists(short(38), values, &[Some(1), Some(2), Some(1)]);
    assert_eq!(rows(rejects(plugin, 'B', DataType::List(short(38)), array)), [1]);
}

#[test]
fn a_plugin_that_never_makes_a_value_of_its_type_ends_the_run() {
    let (text, json) = (DataType::Flat(Flat::Text), DataType::Flat(Flat::Json));
    let plugin = plugin(&relabelling(&[(text, json)])).unwrap();
    let bad = |rows: usize| transformed(plugin, "bad.A", &LogicalType::String, texts(&vec![Some("{"); rows]));
    assert_eq!(bad(999).unwrap().rejected.len(), 999);
    let mut rows = vec![Some("{"); 3000];
    rows[2000] = Some("{}");
    let rejected = transformed(plugin, "bad.A", &LogicalType::String, texts(&rows)).unwrap().rejected;
    assert!(rejected.iter().map(|reject| reject.row).eq((0..2000).chain(2001..3000)));
    let error = bad(1000).unwrap_err().to_string();
    let expected = "function `A` fails on each of 1000 rows; the first time it made text that is not one JSON value";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_list_that_ends_before_it_begins_rejects_its_row_alone() {
    let values: Vec<i64> = (0..40).collect();
    let array = lists(Flat::Long, Arc::new(Int64Array::from(values)), &[Some(3), Some(10), None, Some(20), Some(7)]);
    // The value 13 begins the fourth row.
    let (told, left) = rejects(identity(), 'Z', DataType::List(Flat::Long), array);
    let detail = "plug-in `bad` made what is no value of its type";
    assert_eq!((told, left), (vec![(3, RejectKind::BadFormat, detail.to_owned())], 4));
}

#[test]
fn types_that_no_column_has_are_refused_when_a_plugin_describes_itself() {
    for (precision, scale) in [(0, 0), (39, 0), (5, 6)] {
        let odd = DataType::List(Flat::Decimal(Digits { precision, scale }));
        let long = DataType::Flat(Flat::Long);
        for types in [(odd, long), (long, odd)] {
            let error = functions(plugin(&relabelling(&[types])).unwrap()).unwrap_err().to_string();
            assert!(error.contains("function `A` names a decimal that is none"), "{error}");
        }
    }
}

#[test]
fn a_column_of_another_type_is_refused_when_a_step_is_planned() {
    let plugin = identity();
    let told = |name: char, of: &str| {
        let of: LogicalType = of.parse().unwrap();
        let array = arrow_array::new_empty_array(&crate::arrow_types::data_type(&of));
        transformed(plugin, &format!("bad.{name}"), &of, array).map_err(|e| e.to_string())
    };
    for (name, of, takes) in [
        ('J', "double", "int, long or decimal within decimal(38,9)"),
        ('J', "decimal(38,10)", "int, long or decimal within decimal(38,9)"),
        ('K', "string", "json"),
        ('L', "string", "uuid"),
        ('M', "list<int>", "list<boolean>"),
        ('N', "long", "list<int or long>"),
        ('P', "list<list<string>>", "list<string>"),
    ] {
        let error = told(name, of).unwrap_err();
        assert!(
            error.contains(&format!("column `v` is {of}; bad.{name} takes {takes}; the columns here are")),
            "{error}"
        );
    }
    // What is narrower is widened.
    for (name, of, gives) in [
        ('J', "decimal(10,2)", "decimal(38,9)"),
        ('J', "int", "decimal(38,9)"),
        ('N', "list<int>", "list<long>"),
        ('O', "list<float>", "list<double>"),
        ('V', "list<long>", "list<decimal(38,9)>"),
    ] {
        let outcome = told(name, of).unwrap();
        let gives = crate::arrow_types::data_type(&gives.parse().unwrap());
        assert_eq!(*outcome.batch.column(0).data_type(), gives, "{name} {of}");
    }
}

#[test]
fn what_is_narrower_keeps_its_value() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(-3)]));
    let outcome = transformed(identity(), "bad.J", &LogicalType::Long, array).unwrap();
    let values = outcome.batch.column(0).as_primitive::<Decimal128Type>();
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some(7_000_000_000), None, Some(-3_000_000_000)]);
}

/// A column as a plug-in gives it.
fn column(of: DataType, offsets: Vec<i32>, values: &[u8]) -> Column {
    Column { data_type: of, lists: None, validity: None, offsets, values: values.to_vec() }
}

/// Why a result of two rows is none; whether it may be a matter of one row.
fn lie(made: Column, of: DataType) -> (bool, String) {
    match lift(made, of, 2).unwrap_err() {
        NoColumn::Shape(why) => (false, why),
        NoColumn::Value(why) => (true, why),
    }
}

#[test]
fn columns_that_lie_about_themselves_are_refused() {
    let [text, long, boolean] = [Flat::Text, Flat::Long, Flat::Boolean].map(DataType::Flat);
    let of_nulls = Column { validity: Some(vec![]), ..column(long, vec![], &[0; 16]) };
    for (made, of, is_of_a_row, expected) in [
        (column(long, vec![], &[0; 16]), text, false, "a column of long, it said string"),
        (column(text, vec![0, 1], b"a"), text, false, "2 offsets, 3 belong to 2 rows"),
        (column(text, vec![0, 2, 1], b"ab"), text, true, "offset"),
        (column(text, vec![0, 1, 9], b"ab"), text, true, "offset"),
        (column(text, vec![-1, 1, 2], b"ab"), text, true, "offset"),
        (column(text, vec![0, 1, 2], b"\xff\xfe"), text, true, "UTF-8"),
        (column(text, vec![0, 1, 2], "ä".as_bytes()), text, true, "UTF-8"),
        (column(boolean, vec![], &[]), boolean, false, "0 bytes of values, 1 belong to 2 rows"),
        (of_nulls, long, false, "0 bytes of validity"),
        (column(DataType::Flat(short(5)), vec![], &[0; 16]), DataType::Flat(short(5)), false, "16 bytes of values, 32"),
        (
            column(DataType::Flat(short(6)), vec![], &[0; 32]),
            DataType::Flat(short(5)),
            false,
            "a column of decimal(6,0), it said decimal(5,0)",
        ),
        (
            column(DataType::Flat(short(77)), vec![], &[]),
            long,
            false,
            "a column of a decimal of no such digits, it said",
        ),
    ] {
        let (may_be_of_a_row, why) = lie(made, of);
        assert!(why.to_lowercase().contains(&expected.to_lowercase()), "{why}");
        assert_eq!(may_be_of_a_row, is_of_a_row, "{why}");
    }
}

#[test]
fn lists_that_lie_about_themselves_are_refused() {
    let (lists, long) = (DataType::List(Flat::Long), DataType::Flat(Flat::Long));
    let made = |offsets: Vec<i32>, elements: usize| Column {
        lists: Some(Lists { validity: None, offsets }),
        ..column(lists, vec![], &vec![0; elements * 8])
    };
    assert_eq!(lift(made(vec![0, 1, 3], 3), lists, 2).unwrap().len(), 2);
    let of_nulls = |validity: Option<Vec<u8>>, rows: Option<Vec<u8>>| Column {
        validity,
        lists: Some(Lists { validity: rows, offsets: vec![0, 1, 3] }),
        ..column(lists, vec![], &[0; 24])
    };
    let flat = Column { data_type: long, ..made(vec![0, 1, 2], 2) };
    for (made, of, is_of_a_row, expected) in [
        (column(lists, vec![], &[0; 16]), lists, false, "no `lists` for a column of list<long>"),
        (flat, long, false, "`lists` for a column of long"),
        (made(vec![0, 1, 2], 2), long, false, "a column of list<long>, it said long"),
        (made(vec![0, 1], 1), lists, false, "2 offsets of lists, 3 belong to 2 rows"),
        (made(vec![], 0), lists, false, "0 offsets of lists, 3 belong to 2 rows"),
        (made(vec![0, 3, 1], 1), lists, true, "offset"),
        (made(vec![0, 3, 3], 2), lists, true, "16 bytes of values, 24 belong to 3 elements"),
        (made(vec![0, 1, 2], 3), lists, true, "24 bytes of values, 16 belong to 2 elements"),
        (made(vec![-2, 1, 2], 2), lists, true, "offset"),
        (made(vec![0, 1, -2], 0), lists, true, "end before they begin"),
        (made(vec![0, 1, i32::MAX], 0), lists, true, "belong to 2147483647 elements"),
        (of_nulls(None, Some(vec![0; 2])), lists, false, "2 bytes of validity, 1 belong to 2 rows"),
        (of_nulls(Some(vec![]), None), lists, true, "0 bytes of validity, 1 belong to 3 elements"),
    ] {
        let (may_be_of_a_row, why) = lie(made, of);
        assert!(why.to_lowercase().contains(expected), "{why}");
        assert_eq!(may_be_of_a_row, is_of_a_row, "{why}");
    }
    let texts = DataType::List(Flat::Text);
    let words = |offsets: Vec<i32>, values: &[u8]| Column {
        lists: Some(Lists { validity: None, offsets: vec![0, 1, 2] }),
        ..column(texts, offsets, values)
    };
    assert!(lie(words(vec![0, 1], b"a"), texts).1.contains("2 offsets, 3 belong to 2 elements"));
    assert!(lie(words(vec![0, 1, 2], b"\xff\xfe"), texts).1.to_lowercase().contains("utf-8"));
}
