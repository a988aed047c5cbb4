//! A position in a payload: the next key or the raw text of the next value, checked against the JSON grammar.
//!
//! Strings, numbers and literals are found here, because most of them are wanted and short. Objects and lists that are
//! passed over or kept as text are [`super::skip`]'s. Nesting and escapes have been checked before.

use super::blocks::{BLOCK, Masks, padded, per_processor};
use super::number;
use super::reject::{Fault, RejectKind};
use super::skip::{self, Broken};
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

/// A key as most writers write it: quoted, nothing escaped that need not be, a colon behind it.
#[derive(Debug)]
pub(super) struct Quoted {
    text: Box<[u8]>,
    /// Its first sixteen bytes, and which bits of a word they are.
    head: u128,
    mask: u128,
}

impl Quoted {
    pub fn new(name: &str) -> Self {
        // A text has one JSON form that serde_json writes; were there none, the key would be found by its name.
        let text = serde_json::to_string(name).map_or_else(|_| Vec::new(), |quoted| format!("{quoted}:").into_bytes());
        let mut head = [0; 16];
        let length = text.len().min(16);
        head[..length].copy_from_slice(&text[..length]);
        let mask = if length == 16 { u128::MAX } else { (1 << (8 * length)) - 1 };
        Self { head: u128::from_le_bytes(head), mask, text: text.into() }
    }

    /// Whether `rest` begins with it. Two words are most keys; comparing them is not worth a call.
    #[inline]
    fn begins(&self, rest: &[u8]) -> bool {
        let Some(head) = rest.first_chunk::<16>() else { return rest.starts_with(&self.text) };
        if (u128::from_le_bytes(*head) ^ self.head) & self.mask != 0 {
            return false;
        }
        match self.text.len() {
            0 => false,
            1..=16 => true,
            length @ 17..=32 => {
                rest.get(length - 16..length).and_then(<[u8]>::first_chunk) == self.text.last_chunk::<16>()
            }
            _ => rest.starts_with(&self.text),
        }
    }
}

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of a payload that [`super::check`] has passed.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// At the start of a value that a cursor has taken.
    pub fn again(value: Raw<'a>) -> Self {
        Self { text: value.text, at: 0 }
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

    /// Takes this key and its colon, if they come next, written as most writers write them.
    #[inline]
    pub fn eat_key(&mut self, key: &Quoted) -> bool {
        let next = key.begins(&self.text.as_bytes()[self.at..]);
        self.at += if next { key.text.len() } else { 0 };
        next
    }

    /// Takes a key and its colon; answers the number of the wanted key.
    pub fn key(&mut self, node: &Node, scratch: &mut String) -> Result<Option<usize>, Fault> {
        if self.peek()? != b'"' {
            return Err(self.invalid());
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

    /// Takes the null that must come next.
    #[inline]
    pub fn null(&mut self) -> Result<(), Fault> {
        self.literal("null").map(drop)
    }

    /// Takes an integer of at most 18 digits if one comes next.
    #[inline]
    pub fn small_integer(&mut self) -> Option<i64> {
        let (value, length) = number::small_integer(&self.text.as_bytes()[self.at..])?;
        self.at += length;
        Some(value)
    }

    /// Takes a number if one comes next whose nearest float is found without rounding twice.
    #[inline]
    pub fn small_decimal(&mut self) -> Option<f64> {
        let (value, length) = number::small_decimal(&self.text.as_bytes()[self.at..])?;
        self.at += length;
        Some(value)
    }

    /// Takes `true` or `false` if one comes next.
    #[inline]
    pub fn boolean(&mut self) -> Option<bool> {
        let rest = &self.text.as_bytes()[self.at..];
        let value = rest.starts_with(b"true");
        if !value && !rest.starts_with(b"false") {
            return None;
        }
        self.at += if value { 4 } else { 5 };
        Some(value)
    }

    /// Takes any value and drops it.
    #[inline]
    pub fn pass(&mut self) -> Result<(), Fault> {
        self.raw().map(drop)
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

    #[inline]
    fn literal(&mut self, literal: &'static str) -> Result<Raw<'a>, Fault> {
        if self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            Ok(self.taken(self.at + literal.len(), false))
        } else {
            Err(self.invalid())
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Raw<'a>, Fault> {
        match number::length(&self.text.as_bytes()[self.at..]) {
            Some(length) => Ok(self.taken(self.at + length, false)),
            None => Err(self.invalid()),
        }
    }

    /// Takes the string whose quote [`Self::peek`] has shown.
    #[inline]
    pub fn string(&mut self) -> Result<Raw<'a>, Fault> {
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        let mut end = self.at + 1;
        loop {
            end = special(bytes, end);
            match bytes.get(end) {
                Some(b'"') => return Ok(self.taken(end + 1, escaped)),
                Some(b'\\') => {
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
        match skip::container(self.text.as_bytes(), self.at) {
            Ok(end) => Ok(self.taken(end, false)),
            Err(Broken::Truncated) => Err(truncated(self.text.len())),
            Err(Broken::At(at)) => {
                self.at = at;
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

per_processor! {
    /// Where the next quote, backslash or control character is, at `at` or behind it; the length when there is none.
    fn special(bytes: &[u8], at: usize) -> usize = special_in_blocks;
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "else it is not compiled for the processor, see `per_processor`")]
fn special_in_blocks(bytes: &[u8], mut at: usize, masks: impl Fn(&[u8; BLOCK]) -> Masks) -> usize {
    let hits = |masks: Masks| masks.quote | masks.backslash | masks.control;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>) {
        let hits = hits(masks(block));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize;
        }
        at += BLOCK;
    }
    let hits = hits(masks(&padded(bytes.get(at..).unwrap_or_default())));
    bytes.len().min(at + hits.trailing_zeros() as usize)
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
            prop_assert_eq!(special(&clean, start), clean.len());
            let mut bytes = clean.clone();
            bytes.push(end);
            bytes.extend_from_slice(b"xx\"\\\x00xxxxxxxxxxxxxxxxxxxxxxx\"xxxxxxxxxxxxxxxxx");
            prop_assert_eq!(special(&bytes, start), clean.len());
        }
    }
}
