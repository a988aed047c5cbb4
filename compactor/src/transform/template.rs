//! What `regexReplace` puts in the place of a match, taken apart once.
//!
//! The crate of regular expressions would write all of it before anyone could say that it is too long: a match of a megabyte
//! that is named a thousand times is a gigabyte.

use regex::{Captures, Regex};

use super::values::Text;

/// Text with groups of the match in it: `$1`, `$name`, `${name}`; `$$` is a dollar sign.
#[derive(Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Template {
    /// Takes `text` apart; groups that `pattern` does not have are empty.
    pub fn new(text: &str, pattern: &Regex) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            pieces.push(Piece::Text(rest[..at].to_owned()));
            let behind = &rest[at + 1..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let (name, length) = match behind.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, _)) => (name, name.len() + 2),
                None => {
                    let length = behind.find(|c| !is_name(c)).unwrap_or(behind.len());
                    (&behind[..length], length)
                }
            };
            rest = &behind[length..];
            if length > 0 {
                let named = || pattern.capture_names().position(|known| known == Some(name));
                pieces.extend(name.parse().ok().or_else(named).map(Piece::Group));
            } else {
                pieces.push(Piece::Text("$".to_owned()));
                rest = behind.strip_prefix('$').unwrap_or(behind);
            }
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Self(pieces)
    }

    /// All of it, where it has no group.
    pub fn text(&self) -> Option<String> {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Group(_) => None,
        };
        self.0.iter().map(text).collect()
    }

    /// Appends it with the groups of a match; false when it is too long.
    pub fn write(&self, groups: &Captures<'_>, out: &mut Text) -> bool {
        self.0.iter().all(|piece| match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Group(number) => out.push_str(groups.get(*number).map_or("", |group| group.as_str())),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_says_what_the_crate_of_regular_expressions_says(text in "[$a{}1x-]{0,12}") {
            let pattern = Regex::new("(a)(?P<x>b)?").unwrap();
            let groups = pattern.captures("ab").unwrap();
            let (mut expected, mut found) = (String::new(), String::new());
            groups.expand(&text, &mut expected);
            for piece in Template::new(&text, &pattern).0 {
                found.push_str(match &piece {
                    Piece::Text(text) => text,
                    Piece::Group(number) => groups.get(*number).map_or("", |group| group.as_str()),
                });
            }
            prop_assert_eq!(found, expected);
        }
    }
}
