//! A reader over short texts (types, paths, partition fields) whose errors say at which character they stand.

use crate::error::{Error, Result};

/// Longer texts are cut in errors, characters.
const SHOWN_MAX: usize = 120;

/// A position in a text.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    what: &'static str,
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the front of `text`, which is called `what` in errors.
    pub(crate) fn new(what: &'static str, text: &'a str) -> Self {
        Self { what, text, at: 0 }
    }

    /// What is left.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next character.
    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the next character.
    pub(crate) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Skips blanks.
    pub(crate) fn blanks(&mut self) {
        self.take_while(char::is_whitespace);
    }

    /// Takes `token` if it comes next.
    pub(crate) fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes `token` after blanks, or says that it is missing.
    pub(crate) fn expect(&mut self, token: &str) -> Result<()> {
        self.blanks();
        if self.eat(token) { Ok(()) } else { Err(self.expected(&format!("`{token}`"))) }
    }

    /// Takes characters as long as `want` holds; may be empty.
    pub(crate) fn take_while(&mut self, want: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !want(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Takes a decimal number.
    pub(crate) fn number(&mut self) -> Result<u32> {
        self.blanks();
        let start = self.at;
        let digits = self.take_while(|c| c.is_ascii_digit());
        digits.parse().map_err(|_| {
            self.at = start;
            self.expected("a number")
        })
    }

    /// Says that nothing may follow.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.blanks();
        if self.rest().is_empty() { Ok(()) } else { Err(self.expected("the end")) }
    }

    /// Where the reader stands, to come back to with [`Cursor::back_to`].
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Goes back to an earlier position, so that an error points there.
    pub(crate) fn back_to(&mut self, position: usize) {
        self.at = position;
    }

    /// The error `expected …` at this place.
    pub(crate) fn expected(&self, wanted: &str) -> Error {
        let found = self.peek().map_or_else(|| "but the text ends".to_owned(), |c| format!("found `{c}`"));
        self.error(&format!("expected {wanted}, {found}"))
    }

    /// An error at this place.
    pub(crate) fn error(&self, problem: &str) -> Error {
        let character = self.text[..self.at].chars().count() + 1;
        let cut = self.text.char_indices().nth(SHOWN_MAX).map(|(end, _)| format!("{}…", &self.text[..end]));
        let shown = cut.as_deref().unwrap_or(self.text);
        Error::config(format!("{} `{shown}`: {problem} at character {character}", self.what))
    }
}

/// `; did you mean …` for the nearest of `known`, or nothing.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
