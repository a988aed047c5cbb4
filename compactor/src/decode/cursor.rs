//! A position in a payload: the next key or the raw text of the next value, checked against the JSON grammar.
//!
//! Strings, numbers and literals are found here, because most of them are wanted and short. Objects and lists that are
//! skipped or kept as text are left to the SIMD parser, which validates them at its own speed; nesting and `\u` escapes,
//! which it does not bound or look into, have been checked before.

use memchr::memchr2;
use sonic_rs::LazyValue;

use super::number::is_number;
use super::reject::{Fault, RejectKind};
use super::text::unquote;
use super::tree::Node;

/// The raw text of one JSON value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub text: &'a str,
    /// Whether it is a string with an escape in it.
    pub escaped: bool,
}

impl Raw<'_> {
    pub fn is_null(&self) -> bool {
        self.text.as_bytes()[0] == b'n'
    }
}

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    plain: bool,
}

impl<'a> Cursor<'a> {
    /// At the start of a payload; `plain` when there is no control character in it, not even as white space.
    pub fn new(text: &'a str, plain: bool) -> Self {
        Self { text, at: 0, plain }
    }

    /// At the start of a value that a cursor has taken: what is between its quotes has been checked.
    pub fn again(value: Raw<'a>) -> Self {
        Self { text: value.text, at: 0, plain: true }
    }

    /// The next byte that is not white space, not taken yet.
    #[inline]
    pub fn peek(&mut self) -> Result<u8, Fault> {
        match self.text.as_bytes().get(self.at) {
            Some(byte) if *byte > b' ' => Ok(*byte),
            _ => self.peek_behind_space(),
        }
    }

    fn peek_behind_space(&mut self) -> Result<u8, Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        let space = rest.iter().take_while(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r')).count();
        self.at += space;
        rest.get(space).copied().ok_or_else(|| truncated(self.text.len()))
    }

    /// Takes the byte that [`Self::peek`] has shown.
    #[inline]
    pub fn take(&mut self) {
        self.at += 1;
    }

    /// Takes the brace of an object, which must come next; answers where it is.
    pub fn open(&mut self) -> Result<usize, Fault> {
        if self.peek()? != b'{' {
            let found = super::reject::kind_of(self.raw()?.text);
            return Err(Fault::wrong_type("object", found));
        }
        self.at += 1;
        Ok(self.at - 1)
    }

    /// What was taken since the position `from`.
    pub fn since(&self, from: usize) -> Raw<'a> {
        Raw { text: &self.text[from..self.at], escaped: false }
    }

    /// Whether `value`, the text of a whole object, comes next; then it is taken.
    pub fn eat_text(&mut self, value: &str) -> bool {
        let next = self.peek().is_ok() && self.text.as_bytes()[self.at..].starts_with(value.as_bytes());
        if next {
            self.at += value.len();
        }
        next
    }

    /// Whether `byte` comes next; then it is taken.
    #[inline]
    pub fn eat(&mut self, byte: u8) -> Result<bool, Fault> {
        let next = self.peek()? == byte;
        self.at += usize::from(next);
        Ok(next)
    }

    /// What follows an element: `true` for a comma, `false` for `end`.
    #[inline]
    pub fn more(&mut self, end: u8) -> Result<bool, Fault> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            byte if byte == end => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.invalid()),
        }
    }

    /// Takes a key and its colon; answers the number of the wanted key, `hint` being the likely one.
    #[inline]
    pub fn key(&mut self, node: &Node, hint: usize, scratch: &mut String) -> Result<Option<usize>, Fault> {
        if self.peek()? != b'"' {
            return Err(self.invalid());
        }
        if let Some(likely) = node.keys.get(hint)
            && self.text.as_bytes()[self.at..].starts_with(&likely.quoted)
        {
            self.at += likely.quoted.len();
            return Ok(Some(hint));
        }
        let found = node.find(unquote(self.string()?, scratch));
        self.colon()?;
        Ok(found)
    }

    /// Takes a key and its colon; answers the raw text of the key.
    pub fn any_key(&mut self) -> Result<Raw<'a>, Fault> {
        if self.peek()? != b'"' {
            return Err(self.invalid());
        }
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    #[inline]
    fn colon(&mut self) -> Result<(), Fault> {
        if self.eat(b':')? { Ok(()) } else { Err(self.invalid()) }
    }

    /// Takes any value.
    #[inline]
    pub fn raw(&mut self) -> Result<Raw<'a>, Fault> {
        match self.peek()? {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b'{' | b'[' => self.container(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => Err(self.invalid()),
        }
    }

    /// Nothing but white space may be left.
    pub fn end(&mut self) -> Result<(), Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        match rest.iter().position(|b| !matches!(b, b' ' | b'\n' | b'\t' | b'\r')) {
            None => Ok(()),
            Some(space) => {
                self.at += space;
                Err(self.invalid())
            }
        }
    }

    fn taken(&mut self, end: usize, escaped: bool) -> Raw<'a> {
        let text = &self.text[self.at..end];
        self.at = end;
        Raw { text, escaped }
    }

    fn literal(&mut self, literal: &str) -> Result<Raw<'a>, Fault> {
        if self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            Ok(self.taken(self.at + literal.len(), false))
        } else {
            Err(self.invalid())
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Raw<'a>, Fault> {
        let bytes = self.text.as_bytes();
        let start = self.at + usize::from(bytes[self.at] == b'-');
        let mut end = start;
        while bytes.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        let plain = end > start && (bytes[start] != b'0' || end == start + 1);
        if plain && !matches!(bytes.get(end), Some(b'.' | b'e' | b'E')) {
            return Ok(self.taken(end, false));
        }
        while bytes.get(end).is_some_and(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
            end += 1;
        }
        if is_number(&bytes[self.at..end]) { Ok(self.taken(end, false)) } else { Err(self.invalid()) }
    }

    #[inline]
    fn string(&mut self) -> Result<Raw<'a>, Fault> {
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        let mut end = self.at + 1;
        loop {
            end = special(bytes, end, self.plain);
            match bytes.get(end) {
                Some(b'"') => return Ok(self.taken(end + 1, escaped)),
                Some(b'\\') => {
                    let known = bytes.get(end + 1).is_some_and(|b| b"\"\\/bfnrtu".contains(b));
                    if !known {
                        self.at = end;
                        return Err(self.invalid());
                    }
                    escaped = true;
                    end += 2;
                }
                Some(_) => {
                    self.at = end;
                    return Err(self.invalid());
                }
                None => return Err(truncated(bytes.len())),
            }
        }
    }

    fn container(&mut self) -> Result<Raw<'a>, Fault> {
        let mut parser = sonic_rs::Deserializer::from_str(&self.text[self.at..]);
        match serde::Deserialize::deserialize(&mut parser) {
            Ok(value) => {
                let value: LazyValue<'_> = value;
                Ok(self.taken(self.at + value.as_raw_str().len(), false))
            }
            Err(error) if error.is_eof() => Err(truncated(self.text.len())),
            Err(error) => {
                self.at += error.offset();
                Err(self.invalid())
            }
        }
    }

    #[cold]
    fn invalid(&self) -> Fault {
        Fault::new(RejectKind::NotJson, format!("invalid JSON at byte {}", self.at))
    }
}

#[cold]
fn truncated(length: usize) -> Fault {
    Fault::new(RejectKind::NotJson, format!("truncated at byte {length}"))
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Where the next quote, backslash or control character is, at `at` or behind it; the length when there is none. A
/// `plain` text has no control characters.
#[inline]
fn special(bytes: &[u8], mut at: usize, plain: bool) -> usize {
    let near = at + 16;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        // Most strings end here; the others are worth a call.
        if plain && at >= near {
            return memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len(), |hit| at + hit);
        }
        let hits = specials(u64::from_le_bytes(*word));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let special = |b: &u8| *b == b'"' || *b == b'\\' || *b < b' ';
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(special).unwrap_or(rest.len())
}

/// The high bit of each special byte. A borrow can mark bytes above a true hit, never below: the lowest mark is right.
#[inline]
fn specials(word: u64) -> u64 {
    let is = |byte: u8| {
        let zero = word ^ (ONES * u64::from(byte));
        zero.wrapping_sub(ONES) & !zero
    };
    let control = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
    (is(b'"') | is(b'\\') | control) & HIGHS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_next_special_byte_is_found(
            clean in prop::collection::vec(prop_oneof![b' '..=b'!', b'#'..=b'[', b']'..=0xff], 0..200),
            end in prop_oneof![Just(b'"'), Just(b'\\'), 0..b' '],
            start in 0..9usize,
        ) {
            let start = start.min(clean.len());
            prop_assert_eq!(special(&clean, start, false), clean.len());
            prop_assert_eq!(special(&clean, start, true), clean.len());
            let mut bytes = clean.clone();
            bytes.push(end);
            bytes.extend_from_slice(b"xx\"\\\x00xxxxxxxxxxxxxxxxxxxxxxx\"xxxxxxxxxxxxxxxxx");
            prop_assert_eq!(special(&bytes, start, false), clean.len());
            if end >= b' ' {
                prop_assert_eq!(special(&bytes, start, true), clean.len());
            }
        }
    }
}
