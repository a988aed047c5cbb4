//! Expectations as YAML: short things on one line, rows one below the other.

use std::fmt::Write;

use firn_shared::config::cases::Tree;

/// A line is no longer than this if that can be helped.
const WIDTH: usize = 118;
const STEP: usize = 2;

/// A key with what stands below it.
#[derive(Debug)]
pub enum Entry {
    /// Further keys.
    Map(String, Vec<Entry>),
    /// A list, an element a line.
    Rows(String, Vec<Tree>),
    /// A value on the key's own line.
    Value(String, Tree),
}

impl Entry {
    /// A key with further keys.
    pub fn map(key: &str, entries: Vec<Self>) -> Self {
        Self::Map(key.to_owned(), entries)
    }

    /// A key with a list.
    pub fn rows(key: &str, rows: Vec<Tree>) -> Self {
        Self::Rows(key.to_owned(), rows)
    }

    /// A key with a value.
    pub fn value(key: &str, value: Tree) -> Self {
        Self::Value(key.to_owned(), value)
    }
}

/// Appends lines.
pub fn block(entries: &[Entry], indent: usize, lines: &mut Vec<String>) {
    let margin = " ".repeat(indent);
    for entry in entries {
        match entry {
            Entry::Map(key, inner) if inner.is_empty() => lines.push(format!("{margin}{}: {{}}", text(key))),
            Entry::Map(key, inner) => {
                lines.push(format!("{margin}{}:", text(key)));
                block(inner, indent + STEP, lines);
            }
            Entry::Value(key, value) => lines.push(format!("{margin}{}: {}", text(key), flow(value))),
            Entry::Rows(key, rows) if rows.is_empty() => lines.push(format!("{margin}{}: []", text(key))),
            Entry::Rows(key, rows) => {
                lines.push(format!("{margin}{}:", text(key)));
                for row in rows {
                    element(row, indent + STEP, lines);
                }
            }
        }
    }
}

fn element(row: &Tree, indent: usize, lines: &mut Vec<String>) {
    let margin = " ".repeat(indent);
    let short = format!("{margin}- {}", flow(row));
    match row {
        Tree::Map(entries) if !entries.is_empty() && short.chars().count() > WIDTH => {
            for (i, (key, value)) in entries.iter().enumerate() {
                let mark = if i == 0 { "- " } else { "  " };
                lines.push(format!("{margin}{mark}{}: {}", text(key), flow(value)));
            }
        }
        _ => lines.push(short),
    }
}

/// A value on one line.
fn flow(tree: &Tree) -> String {
    match tree {
        Tree::Null => "null".to_owned(),
        Tree::Bool(value) => value.to_string(),
        Tree::Int(value) => value.to_string(),
        // With a point or exponent, so that it stays what it is.
        Tree::Float(value) => format!("{value:?}"),
        Tree::Text(value) => text(value),
        Tree::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Tree::Map(entries) => {
            let entry = |(key, value): &(String, Tree)| format!("{}: {}", text(key), flow(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Text, in quotes where it would be read as something else.
fn text(value: &str) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    let quoted = serde_json::to_string(value).unwrap_or_default();
    // What YAML takes for line breaks or does not allow.
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}

fn is_plain(value: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '+' | '@' | '-' | '$');
    let bytes = value.as_bytes();
    let starts = bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'$' | b'/'));
    let mut words = value.split(' ');
    // A word that begins with a dash may be taken for an element of a list.
    let words = words.all(|part| !part.is_empty() && !part.starts_with('-') && part.chars().all(word));
    let date = value.len() >= 10
        && bytes
            .iter()
            .take(10)
            .enumerate()
            .all(|(i, b)| if i == 4 || i == 7 { *b == b'-' } else { b.is_ascii_digit() })
        && value[10..].chars().all(|c| c.is_ascii_digit() || matches!(c, 'T' | ':' | '.' | 'Z'))
        && !value.ends_with(':');
    let reserved = ["null", "true", "false", "yes", "no", "on", "off"];
    (date || (starts && words)) && !reserved.contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use firn_shared::config::cases::Pattern;
    use firn_shared::config::read_tests;
    use proptest::prelude::*;

    use super::*;

    fn any_tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Null),
            any::<bool>().prop_map(Tree::Bool),
            any::<i64>().prop_map(Tree::Int),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Tree::Float),
            any::<String>().prop_map(Tree::Text),
            "[a-zA-Z0-9 :#$.,'\"{}-]{0,12}".prop_map(Tree::Text),
            "20[0-9]{2}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:00:00Z?)?".prop_map(Tree::Text),
        ];
        leaf.prop_recursive(2, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Tree::Map(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(tree in any_tree(), column in "[a-z_]{1,8}|yes|null|[0-9]{2}") {
            let row = Tree::Map(vec![(column.clone(), Tree::Map(vec![("$value".to_owned(), tree.clone())]))]);
            let mut lines = vec!["cases:".to_owned(), "  - name: x".to_owned(), "    events: []".to_owned()];
            let table = Entry::map("table", vec![Entry::rows("rows", vec![row])]);
            block(&[Entry::map("expect", vec![table])], 4, &mut lines);
            let text = lines.join("\n");
            let tests = read_tests(Path::new("x.test.yaml"), &text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            let rows = tests.cases[0].expect.as_ref().unwrap().tables[""].rows.as_ref().unwrap();
            let (name, pattern) = &rows[0].values[0];
            prop_assert_eq!(name, &column);
            let Pattern::Value(read) = pattern else { return Err(TestCaseError::fail("a value")) };
            prop_assert_eq!(read, &tree, "{}", text);
        }
    }
}
