//! What golden cases leave out of what the table of functions says.

use std::collections::{BTreeMap, BTreeSet};

use firn_shared::functions::{Arg, Function, Kind, LONG, NAN, Need};
use serde_json::Value as Json;

/// What the cases of one function gave it. Steps that must be refused do not count.
#[derive(Debug, Default)]
pub struct Given {
    /// The values of each argument, as JSON; where it was left out, none.
    args: BTreeMap<&'static str, BTreeSet<Option<String>>>,
    null: bool,
    reject: bool,
}

impl Given {
    /// Notes a step, and the cases that ran with it: a row each, and what must become of it.
    pub fn note(&mut self, function: &Function, step: &Json, cases: &[Json]) {
        for arg in function.all_args() {
            let value = step.get(arg.name).map(Json::to_string);
            self.args.entry(arg.name).or_default().insert(value);
        }
        self.null |= cases.iter().filter_map(|case| case[0].as_array()).flatten().any(Json::is_null);
        self.reject |= cases.iter().filter_map(|case| case[1].as_str()).any(|fate| fate.starts_with("reject "));
    }

    /// Adds what cases of another file gave.
    pub fn add(&mut self, other: Self) {
        other.args.into_iter().for_each(|(arg, values)| self.args.entry(arg).or_default().extend(values));
        self.null |= other.null;
        self.reject |= other.reject;
    }

    /// What was never tried, in words.
    #[must_use]
    pub fn gaps(&self, function: &Function) -> Vec<String> {
        let args: Vec<Arg> = function.all_args().collect();
        let mut gaps: Vec<String> = args.iter().flat_map(|arg| self.untried(arg)).collect();
        if !self.null {
            gaps.push("no row has a null".to_owned());
        }
        // No row of JSON is that long, or has such a number.
        let out_of_reach = function.rejects.is_empty() || [LONG, NAN].contains(&function.rejects);
        if !out_of_reach && !self.reject {
            gaps.push("no row is rejected".to_owned());
        }
        gaps.iter().map(|gap| format!("{}: {gap}", function.name)).collect()
    }

    /// An argument must be given, and left out if it may be: with each of its words, and with another value than its default.
    fn untried(&self, arg: &Arg) -> Vec<String> {
        let none = BTreeSet::new();
        let given = self.args.get(arg.name).unwrap_or(&none);
        let (left_out, values) = (given.contains(&None), given.iter().flatten().map(String::as_str));
        let default = if let Need::Default(default) = arg.need { Some(default) } else { None };
        let mut tried: BTreeSet<&str> = values.collect();
        let name = arg.name;
        let mut gaps = Vec::new();
        if !left_out && !matches!(arg.need, Need::Required) {
            gaps.push(format!("`{name}` is never left out"));
        }
        if tried.iter().all(|value| Some(*value) == default) {
            gaps.push(format!("`{name}` is never given{}", if default.is_some() { " but as its default" } else { "" }));
        }
        tried.extend(default.filter(|_| left_out));
        let missing = |value: &String| !tried.contains(value.as_str());
        gaps.extend(choices(arg.kind).into_iter().filter(missing).map(|value| format!("`{name}` is never {value}")));
        gaps
    }
}

/// Every value of an argument that has few, as JSON.
fn choices(kind: Kind) -> Vec<String> {
    match kind {
        Kind::Word(words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
        Kind::Bool => vec!["true".to_owned(), "false".to_owned()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use firn_shared::functions::strings::PAD;
    use firn_shared::functions::values::REPLACE_VALUES;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_never_tried_is_said() {
        let mut given = Given::default();
        given.note(&PAD, &json!({"column": "v", "width": 3, "with": " "}), &[json!([["x"], ["  x"]])]);
        assert_eq!(
            given.gaps(&PAD),
            [
                "pad: `with` is never left out",
                "pad: `with` is never given but as its default",
                "pad: `side` is never given but as its default",
                "pad: `side` is never \"end\"",
                "pad: `as` is never given",
                "pad: no row has a null",
            ]
        );
        let mut more = Given::default();
        let step = json!({"column": "v", "width": 3, "side": "end", "as": "w"});
        more.note(&PAD, &step, &[json!([[null], [null, null]])]);
        more.note(&PAD, &json!({"column": "v", "width": 3, "with": "0"}), &[]);
        given.add(more);
        assert_eq!(given.gaps(&PAD), [""; 0]);
        let mut given = Given::default();
        let step = json!({"column": "v", "values": {"a": "b"}});
        given.note(&REPLACE_VALUES, &step, &[json!([[null], [null]])]);
        assert!(given.gaps(&REPLACE_VALUES).contains(&"replaceValues: no row is rejected".to_owned()));
    }
}
