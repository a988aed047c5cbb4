//! Functions that are not ours, held to what their descriptions say: a row on which one panics, of which it makes a null
//! that it did not announce, or a time that is none, is rejected. No single row ends a run, and none is lost.

use std::collections::BTreeMap;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow_schema::DataType;
use arrow_select::concat::concat;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, Nulls};

use super::apart::Apart;
use super::kernel::{Batch, Column, Explode, Exploded, Judged, Keep, Kernel, Made, Work};
use super::years;
use crate::arrow_types::data_type;
use crate::decode::{RejectKind, Rejected};
use crate::seam;

/// The work of a function that is not ours, which makes columns of these types.
pub fn held(work: Work, function: &'static Function, makes: &[super::kernel::Typed]) -> Work {
    let makes = || makes.iter().map(|(_, logical)| data_type(logical)).collect();
    match work {
        Work::Layout => Work::Layout,
        Work::Make(inner) => Work::Make(Box::new(Held { inner, function, makes: makes() })),
        Work::Keep(inner, reason) => Work::Keep(Box::new(Held { inner, function, makes: Vec::new() }), reason),
        Work::Explode(inner) => Work::Explode(Box::new(Held { inner, function, makes: makes() })),
    }
}

/// Work that is not ours.
#[derive(Debug)]
struct Held<K: ?Sized> {
    function: &'static Function,
    makes: Vec<DataType>,
    inner: Box<K>,
}

/// A row on which the work panics, and where.
type Panics = Vec<(usize, String)>;

/// The work on a batch, or on parts of it where rows make it panic: what became of the parts, each with its first row.
fn in_parts<T>(
    batch: &Batch<'_>,
    work: impl Fn(&Batch<'_>) -> Result<T>,
    blank: impl Fn(usize) -> T,
) -> Result<(Vec<(usize, T)>, Panics)> {
    let (mut parts, mut panics) = (Vec::new(), Vec::new());
    let mut on_part = |rows: std::ops::Range<usize>| {
        let cut: Vec<ArrayRef> =
            batch.columns.iter().map(|column| column.array.slice(rows.start, rows.len())).collect();
        let columns: Vec<Column<'_>> =
            batch.columns.iter().zip(&cut).map(|(column, array)| Column { array, ..*column }).collect();
        let part = Batch::new(&columns, rows.len());
        seam::caught(|| work(&part)).map_or_else(|place| Ok(Err(place)), |made| made.map(Ok))
    };
    let mut done = |rows: std::ops::Range<usize>, outcome: std::result::Result<T, String>| {
        let made = outcome.unwrap_or_else(|place| {
            panics.extend(rows.clone().map(|row| (row, place.clone())));
            blank(rows.len())
        });
        parts.push((rows.start, made));
        Ok(())
    };
    Apart::default().work(0..batch.rows, &mut on_part, &mut done)?;
    Ok((parts, panics))
}

impl<K: ?Sized> Held<K> {
    fn reject(&self, batch: &Batch<'_>, reason: RejectKind, detail: &str) -> Rejected {
        Rejected { path: path(batch), reason, detail: format!("`{}` {detail}", self.function.name) }
    }

    /// The rejects of all parts, and those of the panics. Where a function panicked is said; what it said is not, because
    /// it may hold values.
    fn rejects(
        &self,
        batch: &Batch<'_>,
        panics: Panics,
        of_parts: impl IntoIterator<Item = (usize, Vec<(usize, Rejected)>)>,
    ) -> BTreeMap<usize, Rejected> {
        let panics =
            panics.into_iter().map(|(row, place)| (row, self.reject(batch, RejectKind::BadFormat, &panicked(&place))));
        let of_parts = of_parts
            .into_iter()
            .flat_map(|(from, rejects)| rejects.into_iter().map(move |(row, why)| (from + row, why)));
        panics.chain(of_parts).collect()
    }

    /// Adds the rows of which columns hold nulls or times that the function may not make.
    fn look_at(&self, batch: &Batch<'_>, columns: &[ArrayRef], rejects: &mut BTreeMap<usize, Rejected>) {
        for column in columns {
            if self.function.nulls == Nulls::Stay && column.null_count() > 0 {
                let given = |row: usize| batch.columns.iter().all(|column| column.array.is_valid(row));
                for row in (0..column.len().min(batch.rows)).filter(|row| column.is_null(*row) && given(*row)) {
                    let why = || self.reject(batch, RejectKind::BadFormat, "made null of a value");
                    rejects.entry(row).or_insert_with(why);
                }
            }
            for row in years::beyond(column) {
                rejects.entry(row).or_insert_with(|| years::reject(&path(batch)));
            }
        }
    }
}

fn path(batch: &Batch<'_>) -> String {
    batch.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

fn panicked(place: &str) -> String {
    if place.is_empty() { "panicked".to_owned() } else { format!("panicked at {place}") }
}

impl Kernel for Held<dyn Kernel> {
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn plan(&self) -> Option<String> {
        self.inner.plan()
    }

    fn held_bytes(&self) -> u64 {
        self.inner.held_bytes()
    }

    fn call_bytes(&self) -> u64 {
        self.inner.call_bytes()
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let blank = |rows| {
            let columns = self.makes.iter().map(|of| new_null_array(of, rows)).collect();
            Made { columns, rejects: Vec::new() }
        };
        let (mut parts, panics) = in_parts(batch, |part| self.inner.call(part), blank)?;
        let of_parts: Vec<_> =
            parts.iter_mut().map(|(from, made)| (*from, std::mem::take(&mut made.rejects))).collect();
        let columns = together(parts.into_iter().map(|(_, made)| made.columns).collect())?;
        if columns.iter().any(|column| column.len() != batch.rows) {
            return Err(Error::bug(format!("it made a column of other than {} rows", batch.rows)));
        }
        let mut rejects = self.rejects(batch, panics, of_parts);
        self.look_at(batch, &columns, &mut rejects);
        Ok(Made { columns, rejects: rejects.into_iter().collect() })
    }
}

impl Keep for Held<dyn Keep> {
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn plan(&self) -> Option<String> {
        self.inner.plan()
    }

    fn held_bytes(&self) -> u64 {
        self.inner.held_bytes()
    }

    fn can_reject(&self) -> bool {
        true
    }

    fn keep(&self, batch: &Batch<'_>) -> Result<Judged> {
        let blank = |rows| BooleanArray::new_null(rows).into();
        let (mut parts, panics) = in_parts(batch, |part| self.inner.keep(part), blank)?;
        let of_parts: Vec<_> =
            parts.iter_mut().map(|(from, judged)| (*from, std::mem::take(&mut judged.rejects))).collect();
        let stays = parts.iter().flat_map(|(_, judged)| judged.stays.iter()).collect();
        Ok(Judged { stays, rejects: self.rejects(batch, panics, of_parts).into_iter().collect() })
    }
}

impl Explode for Held<dyn Explode> {
    fn explode(&self, batch: &Batch<'_>) -> Result<Exploded> {
        let blank = |_| Exploded {
            from: UInt32Array::from(Vec::<u32>::new()),
            columns: self.makes.iter().map(|of| new_null_array(of, 0)).collect(),
            rejects: Vec::new(),
        };
        let (mut parts, panics) = in_parts(batch, |part| self.inner.explode(part), blank)?;
        let of_parts: Vec<_> =
            parts.iter_mut().map(|(from, made)| (*from, std::mem::take(&mut made.rejects))).collect();
        let from = parts.iter().flat_map(|(first, made)| made.from.values().iter().map(|row| row + *first as u32));
        let from: UInt32Array = from.collect();
        let columns = together(parts.into_iter().map(|(_, made)| made.columns).collect())?;
        let mut rejects = self.rejects(batch, panics, of_parts);
        for row in columns.iter().flat_map(years::beyond).filter(|row| *row < from.len()) {
            rejects.entry(from.value(row) as usize).or_insert_with(|| years::reject(&path(batch)));
        }
        Ok(Exploded { from, columns, rejects: rejects.into_iter().collect() })
    }
}

/// The columns of parts, one after the other.
fn together(mut parts: Vec<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>> {
    if parts.len() == 1 {
        return Ok(parts.remove(0));
    }
    let count = parts.iter().map(Vec::len).min().unwrap_or_default();
    let column = |number: usize| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|columns| columns[number].as_ref()).collect();
        concat(&arrays).map_err(|e| Error::bug("parts of a column do not go together").with_source(e))
    };
    (0..count).map(column).collect()
}

#[cfg(test)]
#[allow(clippy::unnecessary_wraps, reason = "builders have one signature, whether they can fail or not")]
mod tests {
    use std::sync::Arc;

    use arrow_array::cast::AsArray;
    use arrow_array::{RecordBatch, StringArray, TimestampMicrosecondArray};
    use firn_shared::config::domain::{Column, JsonPath};
    use firn_shared::functions::{Functions, Gives, Takes, steps};
    use firn_shared::types::LogicalType;
    use serde_json::json;

    use super::super::kernel::{Build, Call, Misfit, Own, Why};
    use super::super::{Outcome, References, Transformer, cases, values};
    use super::*;

    static PREFIX: Own = Own(&(prefix as Build));
    static SHORT: Own = Own(&(short as Build));
    static LATE: Own = Own(&(late as Build));

    static FUNCTIONS: [Function; 3] = [
        Function::map("acme.prefix", "Panics in the middle of a letter.", Takes::Text, Gives::Same).built_by(&PREFIX),
        Function::map("acme.short", "Null of what is long, and no `y`.", Takes::Text, Gives::Same).built_by(&SHORT),
        Function::map("acme.late", "A time far out.", Takes::Text, Gives::Zoned).built_by(&LATE),
    ];

    fn prefix(_: &Call<'_>) -> Result<Work, Misfit> {
        Ok(values::text(|text, out| out.push_str(&text[..3])))
    }

    fn short(_: &Call<'_>) -> Result<Work, Misfit> {
        Ok(values::text_or_reject(|text, out| {
            out.push_str(text);
            if text.contains('y') { Err(Why::form("has a y")) } else { Ok(text.len() < 4) }
        }))
    }

    fn late(_: &Call<'_>) -> Result<Work, Misfit> {
        Ok(values::column(|column| {
            let lengths = values::texts(column)?.iter().map(|text| text.map(|text| i64::MAX >> (text.len() * 2)));
            Ok(Arc::new(lengths.collect::<TimestampMicrosecondArray>().with_timezone(crate::arrow_types::UTC)))
        }))
    }

    fn column() -> Column {
        Column {
            name: "v".to_owned(),
            path: JsonPath(vec!["v".to_owned()]),
            r#type: LogicalType::String,
            required: true,
            format: None,
            doc: None,
        }
    }

    fn run(name: &'static str, texts: &[Option<&str>]) -> Outcome {
        let functions = Functions::built_in().with(&FUNCTIONS).unwrap();
        let steps = steps(&functions, &[column()], &[(name, json!({"column": "v"}))]).unwrap();
        let transformer = Transformer::new(&steps, &[column()], &References::default()).unwrap();
        assert!(transformer.can_reject(), "records are kept, whatever the description says");
        let array: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        transformer.apply(RecordBatch::try_from_iter([("v", array)]).unwrap()).unwrap()
    }

    fn told(outcome: &Outcome) -> Vec<(u32, RejectKind, &str)> {
        outcome.rejected.iter().map(|reject| (reject.row, reject.why.reason, reject.why.detail.as_str())).collect()
    }

    #[test]
    fn a_row_on_which_a_function_panics_is_rejected_without_its_value() {
        let outcome = run("acme.prefix", &[Some("Anna"), Some("Renée"), None, Some("Zoë"), Some("Karl")]);
        assert_eq!(outcome.rows, Some(vec![0, 1, 2, 4]));
        let [(3, RejectKind::BadFormat, detail)] = told(&outcome)[..] else { panic!("{:?}", outcome.rejected) };
        assert!(detail.starts_with("`acme.prefix` panicked") && !detail.contains("Zoë"), "{detail}");
        let left: Vec<_> = outcome.batch.column(0).as_string::<i32>().iter().collect();
        assert_eq!(left, [Some("Ann"), Some("Ren"), None, Some("Kar")]);
    }

    /// Judges and explodes, and panics in the middle of a letter.
    #[derive(Debug)]
    struct Prefix;

    impl Keep for Prefix {
        fn keep(&self, batch: &Batch<'_>) -> Result<Judged> {
            let texts = values::texts(batch.column(0)?)?;
            Ok(texts.iter().map(|text| text.map(|text| &text[..3] == "Ann")).collect::<BooleanArray>().into())
        }
    }

    impl Explode for Prefix {
        fn explode(&self, batch: &Batch<'_>) -> Result<Exploded> {
            let texts = values::texts(batch.column(0)?)?;
            let from: Vec<u32> = (0..texts.len() as u32).flat_map(|row| [row, row]).collect();
            let pieces = texts.iter().flatten().flat_map(|text| [&text[..3], &text[3..]]);
            let columns: Vec<ArrayRef> = vec![Arc::new(pieces.map(Some).collect::<StringArray>())];
            Ok(Exploded { from: from.into(), columns, rejects: Vec::new() })
        }
    }

    #[test]
    fn rows_on_which_a_filter_or_an_explode_panics_are_rejected() {
        let array: ArrayRef = Arc::new(StringArray::from(vec!["Anna", "Zoë", "Karl"]));
        let columns = [super::Column { name: "v", r#type: &LogicalType::String, array: &array }];
        let batch = Batch::new(&columns, 3);
        let Work::Keep(keep, _) = held(Work::Keep(Box::new(Prefix), String::new()), &FUNCTIONS[0], &[]) else {
            panic!("a filter stays one")
        };
        let judged = keep.keep(&batch).unwrap();
        assert_eq!(judged.stays.iter().collect::<Vec<_>>(), [Some(true), None, Some(false)]);
        assert_eq!(judged.rejects.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
        let makes = [("v".to_owned(), LogicalType::String)];
        let Work::Explode(explode) = held(Work::Explode(Box::new(Prefix)), &FUNCTIONS[0], &makes) else {
            panic!("an explode stays one")
        };
        let exploded = explode.explode(&batch).unwrap();
        assert_eq!(exploded.from.values(), &[0, 0, 2, 2]);
        let pieces: Vec<_> = exploded.columns[0].as_string::<i32>().iter().flatten().collect();
        assert_eq!(pieces, ["Ann", "a", "Kar", "l"]);
        assert_eq!(exploded.rejects.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn nulls_and_rejects_that_a_description_does_not_name_end_no_run() {
        let outcome = run("acme.short", &[Some("long text"), Some("yes"), Some("abc"), None]);
        let null = "`acme.short` made null of a value";
        let expected = [(0, RejectKind::BadFormat, null), (1, RejectKind::BadFormat, "has a y")];
        assert_eq!((told(&outcome), outcome.rows.clone()), (expected.to_vec(), Some(vec![2, 3])));
    }

    #[test]
    fn times_that_no_reader_knows_are_rejected() {
        let outcome = run("acme.late", &[Some(""), Some("abcdefgh"), None]);
        let [(0, RejectKind::OutOfRange, _)] = told(&outcome)[..] else { panic!("{:?}", outcome.rejected) };
        assert_eq!(outcome.rows, Some(vec![1, 2]));
    }

    #[test]
    fn cases_of_a_function_fail_when_it_rejects_what_it_did_not_describe() {
        let text =
            "acme.short:\n  - columns: [v string]\n    step: {column: v}\n    cases: [[[xyz], reject v badFormat]]\n";
        let functions = Functions::built_in().with(&FUNCTIONS).unwrap();
        let report = cases::run(text, &functions, &References::default()).unwrap();
        assert!(report.failures[0].contains("describe which with `.rejects(…)`"), "{:?}", report.failures);
    }
}
