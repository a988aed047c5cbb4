//! Where wanted values stand in a payload: byte ranges, every occurrence, the payload itself untouched.
//!
//! Keys that come twice in an object are all found: an earlier value that no reader sees holds plaintext all the same.
//! Only wanted places are descended into, so depth is bounded by the paths; what lies beside them is skipped. Where a
//! payload has another shape than a path (a list where the path has a field, text where it has elements), the wanted value
//! may be anywhere in what stands there: all of that is found in its place, and said to be odd. Null is no shape.

use std::borrow::Cow;
use std::ops::Range;

use super::payload::Many;
use crate::config::domain::PathStep;

/// Wanted places as a tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    fields: Vec<(String, Places)>,
    each: Option<Box<Each>>,
    /// Numbers of those who want the value here.
    wanted: Vec<usize>,
}

/// What is wanted of the elements of a list, of the values of a map, or of both.
#[derive(Debug, Clone, Default)]
struct Each {
    of: Places,
    lists: bool,
    maps: bool,
}

/// A wanted value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// The number of who wants it.
    pub wanted: usize,
    /// Where it stands.
    pub at: Range<usize>,
    /// Whether the payload has another shape, and the value may be anywhere in there.
    pub odd: bool,
}

/// The payload is not what the walk can follow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Places {
    /// Wants the value at `path` as number `wanted`. `many` says of each `[]` on the way what it stands for; both, where
    /// it says nothing.
    pub fn want(&mut self, path: &[PathStep], many: &[Many], wanted: usize) {
        match path.split_first() {
            None => self.wanted.push(wanted),
            Some((PathStep::Each, rest)) => {
                let each = self.each.get_or_insert_default();
                each.lists |= many.first() != Some(&Many::Values);
                each.maps |= many.first() != Some(&Many::Elements);
                each.of.want(rest, many.get(1..).unwrap_or_default(), wanted);
            }
            Some((PathStep::Field(name), rest)) => {
                let at = self.fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    self.fields.push((name.clone(), Self::default()));
                    self.fields.len() - 1
                });
                self.fields[at].1.want(rest, many, wanted);
            }
        }
    }

    fn takes_objects(&self) -> bool {
        !self.fields.is_empty() || self.each.as_ref().is_some_and(|each| each.maps)
    }

    fn takes_lists(&self) -> bool {
        self.each.as_ref().is_some_and(|each| each.lists)
    }

    /// Everything that is wanted here and below stands somewhere in a value of another shape.
    fn are_odd(&self, at: &Range<usize>, out: &mut Vec<Span>) {
        out.extend(self.wanted.iter().map(|wanted| Span { wanted: *wanted, at: at.clone(), odd: true }));
        self.fields.iter().for_each(|(_, inner)| inner.are_odd(at, out));
        self.each.iter().for_each(|each| each.of.are_odd(at, out));
    }

    /// The same of what is wanted inside of a value that begins with `first` and cannot be there.
    fn inside_is_odd(&self, first: u8, at: &Range<usize>, out: &mut Vec<Span>) {
        if first != b'{' {
            self.fields.iter().for_each(|(_, inner)| inner.are_odd(at, out));
        }
        let fits = |each: &Each| (first == b'{' && each.maps) || (first == b'[' && each.lists);
        self.each.iter().filter(|each| !fits(each)).for_each(|each| each.of.are_odd(at, out));
    }
}

/// Appends the wanted values of `payload`, in their order, to `out`.
pub(super) fn find(payload: &[u8], places: &Places, out: &mut Vec<Span>) -> Result<(), Lost> {
    let mut walk = Walk { text: payload, at: 0 };
    walk.value(places, out)?;
    walk.space();
    if walk.at == payload.len() { Ok(()) } else { Err(Lost) }
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Result<u8, Lost> {
        self.space();
        self.text.get(self.at).copied().ok_or(Lost)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Lost> {
        if self.peek()? != byte {
            return Err(Lost);
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, places: &Places, out: &mut Vec<Span>) -> Result<(), Lost> {
        let start = {
            self.peek()?;
            self.at
        };
        let before = out.len();
        let first = self.text[start];
        match first {
            b'{' if places.takes_objects() => self.object(places, out)?,
            b'[' if places.takes_lists() => self.list(places, out)?,
            _ => self.skip()?,
        }
        let at = start..self.at;
        if first != b'n' {
            places.inside_is_odd(first, &at, out);
        }
        if !places.wanted.is_empty() {
            let span = |wanted: &usize| Span { wanted: *wanted, at: at.clone(), odd: false };
            let found: Vec<Span> = places.wanted.iter().map(span).collect();
            out.splice(before..before, found);
        }
        Ok(())
    }

    fn object(&mut self, places: &Places, out: &mut Vec<Span>) -> Result<(), Lost> {
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            let start = self.at;
            self.string()?;
            let key = unquoted(&self.text[start..self.at]).ok_or(Lost)?;
            self.expect(b':')?;
            let named = places.fields.iter().find(|(name, _)| *name == key).map(|(_, inner)| inner);
            let each = places.each.as_ref().filter(|each| each.maps).map(|each| &each.of);
            match (named, each) {
                (Some(inner), None) | (None, Some(inner)) => self.value(inner, out)?,
                (None, None) => {
                    self.peek()?;
                    self.skip()?;
                }
                (Some(named), Some(each)) => {
                    // One path takes the field, another every value: two looks at the same value.
                    let at = self.at;
                    self.value(named, out)?;
                    self.at = at;
                    self.value(each, out)?;
                }
            }
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return Err(Lost),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn list(&mut self, places: &Places, out: &mut Vec<Span>) -> Result<(), Lost> {
        let Some(each) = &places.each else { return Err(Lost) };
        let each = &each.of;
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(each, out)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(Lost),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Passes a string; its first quote is at the position.
    fn string(&mut self) -> Result<(), Lost> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err(Lost);
        }
        self.at += 1;
        loop {
            let found = memchr::memchr2(b'"', b'\\', self.text.get(self.at..).ok_or(Lost)?).ok_or(Lost)?;
            self.at += found;
            if self.text[self.at] == b'"' {
                self.at += 1;
                return Ok(());
            }
            self.at += 2;
        }
    }

    /// Passes a value of any kind, without recursion.
    fn skip(&mut self) -> Result<(), Lost> {
        let mut depth = 0usize;
        loop {
            match *self.text.get(self.at).ok_or(Lost)? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\n' | b'\t' | b'\r' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                byte if byte.is_ascii_alphanumeric() || byte == b'-' => {
                    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
                    self.at += self.text[self.at..].iter().take_while(|b| plain(b)).count();
                }
                _ => return Err(Lost),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// The text of a JSON string; `None` when an escape in it is no character.
pub(super) fn unquoted(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::domain::ColumnPath;

    /// `[]` of the paths is for lists, `{}` for maps.
    fn found(payload: &str, paths: &[&str]) -> Result<Vec<(usize, String)>, Lost> {
        let mut places = Places::default();
        for (i, path) in paths.iter().enumerate() {
            let many: Vec<Many> = path
                .match_indices(['[', '{'])
                .map(|(_, open)| if open == "{" { Many::Values } else { Many::Elements })
                .collect();
            let path: ColumnPath = path.replace("{}", "[]").parse().unwrap();
            let steps: Vec<_> = std::iter::once(PathStep::Field(path.column)).chain(path.inside).collect();
            places.want(&steps, &many, i);
        }
        let mut out = Vec::new();
        find(payload.as_bytes(), &places, &mut out)?;
        let told = |span: Span| {
            let odd = if span.odd { "odd " } else { "" };
            (span.wanted, format!("{odd}{}", &payload[span.at]))
        };
        Ok(out.into_iter().map(told).collect())
    }

    fn check(payload: &str, paths: &[&str], expected: &[(usize, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(wanted, text)| (*wanted, (*text).to_owned())).collect();
        assert_eq!(found(payload, paths), Ok(expected), "{payload}");
    }

    #[test]
    fn wanted_values_are_found_wherever_they_stand() {
        check(r#"{"a":1,"b":{"c":"x"}}"#, &["a", "b.c", "z"], &[(0, "1"), (1, "\"x\"")]);
        check(r#" { "\u0061" : [ 1 , {"p":"\"q"} ] } "#, &["a[].p"], &[(0, "odd 1"), (0, r#""\"q""#)]);
        check(r#"{"m":{"x":1,"y":[2]}}"#, &["m{}"], &[(0, "1"), (0, "[2]")]);
        check(r#"{"a":{"b":1}}"#, &["a", "a.b"], &[(0, r#"{"b":1}"#), (1, "1")]);
        check("{}", &["a"], &[]);
    }

    #[test]
    fn what_has_another_shape_is_found_as_a_whole() {
        check("[1]", &["a"], &[(0, "odd [1]")]);
        check(r#"[{"a":"x"}]"#, &["a", "b"], &[(0, r#"odd [{"a":"x"}]"#), (1, r#"odd [{"a":"x"}]"#)]);
        check(r#"{"u":[{"m":"x"}]}"#, &["u.m"], &[(0, r#"odd [{"m":"x"}]"#)]);
        check(r#"{"u":"x"}"#, &["u.m", "u.n"], &[(0, r#"odd "x""#), (1, r#"odd "x""#)]);
        check(r#"{"c":{"p":"5"}}"#, &["c[].p"], &[(0, r#"odd {"p":"5"}"#)]);
        check(r#"{"c":["5"]}"#, &["c{}"], &[(0, r#"odd ["5"]"#)]);
        check(r#"{"c":{"a":1}}"#, &["c[]", "c.a"], &[(1, "1"), (0, r#"odd {"a":1}"#)]);
        check(r#"{"u":null,"c":[null]}"#, &["u.m", "c[].p"], &[]);
        check("null", &["a"], &[]);
    }

    #[test]
    fn every_duplicate_of_a_key_is_found() {
        check(r#"{"a":1,"x":[{}],"a":{"b":2},"a":null}"#, &["a"], &[(0, "1"), (0, r#"{"b":2}"#), (0, "null")]);
    }

    #[test]
    fn what_is_no_json_is_not_followed() {
        for payload in ["", "{", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1"#, r#"{"a":1}}"#, r#"{"a":"x}"#, "{a:1}"] {
            assert_eq!(found(payload, &["a"]), Err(Lost), "{payload}");
        }
    }
}
