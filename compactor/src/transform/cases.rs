//! Golden cases of functions, written in YAML: a step, rows that enter it, and what becomes of each. Ours are in
//! `compactor/tests/functions`; a team's crate runs its own the same way.
//!
//! ```yaml
//! substring:
//!   - columns: [sku string]
//!     step: {column: sku, length: 2, as: brand}
//!     cases:
//!       - [[AB-12], [AB-12, AB]]          # a row, and the row that comes out
//!       - [[~], [~, ~]]
//!   - columns: [n int]
//!     step: {column: n}
//!     refused: substring takes string     # when the step is planned or built
//! ```
//! Instead of rows that come out, a case may say `reject PATH REASON` or `filtered REASON`. Numbers are compared digit by
//! digit; those with more digits than a double keeps stand in quotes. Of a float, a case may ask for one that is near:
//! `{$approx: 1.5, within: 0.01}`.

use std::collections::BTreeMap;

use firn_shared::config::domain::{Column, JsonPath};
use firn_shared::config::yaml_as_json;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, Functions, steps};
use serde_json::Value as Json;

use super::coverage::Given;
use super::kernel::Typed;
use super::{Outcome, References, Transformer, agree, json_text};
use crate::decode::{Decoder, Rejected};

/// What a file of cases said: how many cases each function has, and which of them failed.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases by function.
    pub cases: BTreeMap<String, usize>,
    /// What failed, each with its function and case.
    pub failures: Vec<String>,
    given: BTreeMap<String, Given>,
}

impl Report {
    /// Adds what another file said.
    pub fn add(&mut self, other: Self) {
        other.cases.into_iter().for_each(|(name, cases)| *self.cases.entry(name).or_default() += cases);
        other.given.into_iter().for_each(|(name, given)| self.given.entry(name).or_default().add(given));
        self.failures.extend(other.failures);
    }

    /// What no case of a function tries: an argument that is never given, or never left out though it may be; a word of
    /// an argument; a null; a rejected row, where the function says that it rejects.
    #[must_use]
    pub fn gaps(&self, function: &Function) -> Vec<String> {
        self.given.get(function.name).map_or_else(|| Given::default().gaps(function), |given| given.gaps(function))
    }
}

/// Runs the cases of a file; `references` holds what look-ups in them read.
///
/// # Errors
/// `Config` when the file is not of the form.
pub fn run(text: &str, functions: &Functions, references: &References) -> Result<Report> {
    let file = yaml_as_json(text)?;
    let file = file.as_object().ok_or_else(|| Error::config("cases are a mapping from functions to lists"))?;
    let mut report = Report::default();
    for (name, groups) in file {
        let groups = groups.as_array().ok_or_else(|| Error::config(format!("{name}: a list is expected")))?;
        for (i, group) in groups.iter().enumerate() {
            let place = format!("{name}[{i}]");
            let count = report.cases.entry(name.clone()).or_default();
            if let (Some(function), Some(cases)) = (functions.get(name), group["cases"].as_array()) {
                report.given.entry(name.clone()).or_default().note(function, &group["step"], cases);
            }
            match run_group(name, group, functions, references) {
                Ok((cases, failures)) => {
                    *count += cases;
                    report.failures.extend(failures.into_iter().map(|failure| format!("{place}: {failure}")));
                }
                Err(error) => report.failures.push(format!("{place}: {error}")),
            }
        }
    }
    Ok(report)
}

/// Cases, and what failed among them.
type Ran = (usize, Vec<String>);

fn run_group(name: &str, group: &Json, functions: &Functions, references: &References) -> Result<Ran> {
    let columns = group["columns"].as_array().into_iter().flatten().map(column).collect::<Result<Vec<_>>>()?;
    let list = [(name, group["step"].clone())];
    let built = steps(functions, &columns, &list)
        .and_then(|steps| Ok((Transformer::new(&steps, &columns, references)?, steps)));
    if let Some(expected) = group["refused"].as_str() {
        let told = match built {
            Ok(_) => "was not refused".to_owned(),
            Err(error) if error.to_string().contains(expected) => return Ok((1, Vec::new())),
            Err(error) => error.to_string(),
        };
        return Ok((1, vec![format!("expected to be refused with `{expected}`, found: {told}")]));
    }
    let (transformer, _) = built?;
    let cases = group["cases"].as_array().filter(|cases| !cases.is_empty());
    let cases = cases.ok_or_else(|| Error::config("neither `cases` nor `refused`"))?;
    let mut decoder = Decoder::new(&columns)?;
    for case in cases {
        let values = case[0].as_array().ok_or_else(|| Error::config(format!("{case}: the first is no row")))?;
        let row = columns.iter().zip(values).map(|(column, value)| (column.name.clone(), value.clone()));
        let row = Json::Object(row.filter(|(_, value)| !value.is_null()).collect()).to_string();
        decoder.push(row.as_bytes()).map_err(|why| Error::config(format!("{row}: {why}")))?;
    }
    let outcome = transformer.apply(decoder.finish()?)?;
    if let Some(reject) = outcome.rejected.first().filter(|_| functions.get(name).is_some_and(|f| f.rejects.is_empty()))
    {
        let told = format!("rejects a row ({}), but says nothing of it; describe which with `.rejects(…)`", reject.why);
        return Ok((cases.len(), vec![told]));
    }
    let telling =
        outcome.rejected.iter().filter_map(|reject| names_a_value(&cases[reject.row as usize][0], &reject.why));
    if let Some(telling) = telling.into_iter().next() {
        return Ok((cases.len(), vec![telling]));
    }
    let found = told(&transformer, &outcome, cases.len())?;
    let expected = cases.iter().map(|case| case.as_array().into_iter().flatten().skip(1).cloned().collect::<Vec<_>>());
    let same = |expected: &[Json], found: &[Found]| {
        expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| f.is(e, transformer.output()))
    };
    let differ = expected.zip(found).enumerate().filter(|(_, (expected, found))| !same(expected, found));
    let shown = |list: &mut dyn Iterator<Item = String>| list.collect::<Vec<_>>().join(" ");
    let failures = differ.map(|(i, (expected, found))| {
        let expected = shown(&mut expected.iter().map(Json::to_string));
        format!("case {i} {}: expected {expected}, found {}", cases[i][0], shown(&mut found.iter().map(Found::shown)))
    });
    Ok((cases.len(), failures.collect()))
}

/// `name type`.
fn column(text: &Json) -> Result<Column> {
    let (name, r#type) = text
        .as_str()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(|| Error::config(format!("{text} is not a name and a type")))?;
    Ok(Column {
        name: name.to_owned(),
        path: JsonPath(vec![name.to_owned()]),
        r#type: r#type.parse()?,
        required: false,
        format: None,
        doc: None,
    })
}

/// What became of a row.
#[derive(Debug, Clone)]
enum Found {
    /// A row, as JSON text, which keeps every digit.
    Row(String),
    /// None, in the words of cases.
    Fate(String),
}

impl Found {
    fn is(&self, expected: &Json, columns: &[Typed]) -> bool {
        match (self, expected) {
            (Self::Row(row), Json::Array(expected)) => agree::row(expected, row, columns),
            (Self::Fate(fate), Json::String(expected)) => fate == expected,
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Row(row) => row.clone(),
            Self::Fate(fate) => Json::from(fate.as_str()).to_string(),
        }
    }
}

/// What became of each row.
fn told(transformer: &Transformer, outcome: &Outcome, rows: usize) -> Result<Vec<Vec<Found>>> {
    let mut found = vec![Vec::new(); rows];
    let writers = transformer.output().iter().zip(outcome.batch.columns());
    let writers = writers.map(|((_, r#type), array)| json_text::Writer::new(r#type, array));
    let writers = writers.collect::<Result<Vec<_>>>()?;
    for row in 0..outcome.batch.num_rows() {
        let mut text = "[".to_owned();
        for (i, writer) in writers.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            // Writing into text cannot fail.
            let _ = writer.write(row, &mut text);
        }
        text.push(']');
        let from = outcome.rows.as_ref().map_or(row, |rows| rows[row] as usize);
        found[from].push(Found::Row(text));
    }
    for (reason, rows) in &outcome.filtered {
        for row in rows {
            found[*row as usize].push(Found::Fate(format!("filtered {reason}")));
        }
    }
    for reject in &outcome.rejected {
        found[reject.row as usize].push(Found::Fate(format!("reject {} {}", reject.why.path, reject.why.reason)));
    }
    Ok(found)
}

/// Why values of protected columns would be read in quarantine: a reject says what is wrong, and never with what.
fn names_a_value(row: &Json, why: &Rejected) -> Option<String> {
    /// A shorter text may be in any sentence.
    const CHARS_MIN: usize = 4;
    let texts: Vec<String> = row.as_array()?.iter().flat_map(texts).filter(|text| text.len() >= CHARS_MIN).collect();
    let text = texts.iter().find(|text| why.detail.contains(*text) || why.path.contains(*text))?;
    Some(format!("the reject `{why}` names the value `{text}`"))
}

/// Every scalar in a value, as text.
fn texts(value: &Json) -> Vec<String> {
    match value {
        Json::Array(list) => list.iter().flat_map(texts).collect(),
        Json::Object(fields) => fields.values().flat_map(texts).collect(),
        Json::String(text) => vec![text.clone()],
        Json::Null | Json::Bool(_) => Vec::new(),
        number @ Json::Number(_) => vec![number.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, RecordBatch, StringArray};

    use super::*;
    use crate::transform::Reference;

    /// The file that the cases of `lookup` read.
    fn references() -> References {
        let column = |values: [&str; 3]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let columns =
            [("code", ["DE", "FR", "49"]), ("name", ["Germany", "France", "x"]), ("people", ["84", "68", "1"])];
        let rows = RecordBatch::try_from_iter(columns.map(|(name, values)| (name, column(values)))).unwrap();
        let mut references = References::default();
        references.insert("countries.csv", Reference::new(rows));
        references
    }

    #[test]
    fn every_function_does_what_its_cases_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/functions");
        let mut all = Report::default();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let report = run(&text, &Functions::built_in(), &references());
            all.add(report.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
        assert!(all.failures.is_empty(), "{} cases failed:\n{}", all.failures.len(), all.failures.join("\n"));
        let gaps: Vec<String> = Functions::built_in().iter().flat_map(|function| all.gaps(function)).collect();
        assert!(gaps.is_empty(), "tried by no case:\n{}", gaps.join("\n"));
        let unknown: Vec<&String> = all.cases.keys().filter(|name| Functions::built_in().get(name).is_none()).collect();
        assert!(unknown.is_empty(), "cases of no function: {unknown:?}");
    }

    #[test]
    fn a_reject_that_names_its_value_is_found() {
        let why = |path: &str, detail: &str| Rejected {
            path: path.to_owned(),
            reason: crate::decode::RejectKind::BadFormat,
            detail: detail.to_owned(),
        };
        let row = serde_json::json!([[{"mail": "alice@example.com"}], 4711, true]);
        assert_eq!(names_a_value(&row, &why("v[0].mail", "not a number")), None);
        assert!(names_a_value(&row, &why("v", "`alice@example.com` is no number")).is_some());
        assert!(names_a_value(&row, &why("v", "4711 is too large")).is_some());
        assert!(names_a_value(&row, &why("v.alice@example.com", "missing")).is_some());
    }

    #[test]
    fn a_case_that_is_wrong_fails_and_says_how() {
        let text = "lower:\n  - columns: [v string]\n    step: {column: v}\n    cases: [[[AB], [AB]], [[C], [c]]]\n";
        let report = run(text, &Functions::built_in(), &References::default()).unwrap();
        assert_eq!(report.failures, [r#"lower[0]: case 0 ["AB"]: expected ["AB"], found ["ab"]"#]);
        assert_eq!(report.cases["lower"], 2);
        for (broken, expected) in
            [("- x", "a mapping"), ("lower: 1", "a list"), ("lower: [{columns: [v string], step: {column: v}}]", "")]
        {
            match run(broken, &Functions::built_in(), &References::default()) {
                Ok(report) => assert!(report.failures[0].contains("neither"), "{report:?}"),
                Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            }
        }
    }
}
