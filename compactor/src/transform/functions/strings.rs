//! Text.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, ListBuilder, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{Array, StringArray};
use firn_shared::error::Result;
use firn_shared::functions::{Function, strings};
use regex::Regex;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::arrow_types::element_field;
use crate::transform::functions::encodings;
use crate::transform::kernel::{Build, Call, Made, Misfit, Work, broken};
use crate::transform::template::Template;
use crate::transform::values::{
    Text, Texts, batch, long_text, text, text_bytes, text_or_reject, text_to, text_to_boolean, texts,
};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&strings::LOWER, lower),
    (&strings::UPPER, upper),
    (&strings::CAPITALISE, capitalise),
    (&strings::TRIM, trim),
    (&strings::SQUEEZE, squeeze),
    (&strings::REPLACE, replace),
    (&strings::REGEX_REPLACE, regex_replace),
    (&strings::REGEX_EXTRACT, regex_extract),
    (&strings::REGEX_MATCH, regex_match),
    (&strings::SPLIT, split),
    (&strings::PAD, pad),
    (&strings::NORMALISE, normalise),
    (&strings::REMOVE_ACCENTS, remove_accents),
    (&strings::SUBSTRING, substring),
    (&strings::CONCAT, concat),
    (&strings::LENGTH, length),
    (&strings::REVERSE, reverse),
    (&strings::CONTAINS, contains),
    (&strings::BASE64_ENCODE, encodings::base64_encode),
    (&strings::BASE64_DECODE, encodings::base64_decode),
    (&strings::HEX_ENCODE, encodings::hex_encode),
    (&strings::HEX_DECODE, encodings::hex_decode),
];

fn lower(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text(|value, out| {
        out.push_str(value);
        if value.is_ascii() {
            out.make_ascii_lowercase();
        } else {
            *out = value.to_lowercase();
        }
    }))
}

fn upper(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text(|value, out| {
        out.push_str(value);
        if value.is_ascii() {
            out.make_ascii_uppercase();
        } else {
            *out = value.to_uppercase();
        }
    }))
}

fn capitalise(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text(|value, out| {
        let mut inside = false;
        for c in value.chars() {
            if inside {
                out.extend(c.to_lowercase());
            } else {
                out.extend(c.to_uppercase());
            }
            // An apostrophe does not end a word: `o'neill's` has one capital too few, `Don't` is right. Nor does an accent that
            // is a character of its own.
            inside = c.is_alphanumeric() || inside && (matches!(c, '\'' | '’') || is_combining_mark(c));
        }
    }))
}

fn trim(call: &Call<'_>) -> Result<Work, Misfit> {
    let side = call.args.text("side").map_err(broken)?;
    let (start, end) = (side != "end", side != "start");
    let characters: Option<Vec<char>> = call.args.opt_text("characters").map(|text| text.chars().collect());
    let goes = move |c: char| characters.as_ref().map_or_else(|| c.is_whitespace(), |some| some.contains(&c));
    Ok(text(move |value, out| {
        let value = if start { value.trim_start_matches(&goes) } else { value };
        out.push_str(if end { value.trim_end_matches(&goes) } else { value });
    }))
}

fn squeeze(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text(|value, out| {
        for (i, word) in value.split_whitespace().enumerate() {
            if i > 0 {
                out.push(' ');
            }
            out.push_str(word);
        }
    }))
}

fn not_empty<'a>(call: &Call<'a>, arg: &'static str) -> Result<&'a str, Misfit> {
    let text = call.args.text(arg).map_err(broken)?;
    if text.is_empty() { Err((arg, "must not be empty".to_owned())) } else { Ok(text) }
}

fn replace(call: &Call<'_>) -> Result<Work, Misfit> {
    let find = not_empty(call, "find")?.to_owned();
    let with = call.args.text("with").map_err(broken)?.to_owned();
    Ok(long_text(move |value, out| {
        let matches = value.match_indices(find.as_str()).map(|(at, found)| (at..at + found.len(), ()));
        replaced(value, matches, out, |(), out| out.push_str(&with));
    }))
}

/// The pattern of a step.
pub fn pattern(call: &Call<'_>) -> Result<Regex, Misfit> {
    Regex::new(call.args.text("pattern").map_err(broken)?).map_err(|e| ("pattern", e.to_string()))
}

fn regex_replace(call: &Call<'_>) -> Result<Work, Misfit> {
    let pattern = pattern(call)?;
    let with = Template::new(call.args.text("with").map_err(broken)?, &pattern);
    if let Some(with) = with.text() {
        // To find where a match is costs less than to find its groups.
        return Ok(long_text(move |value, out| {
            replaced(value, pattern.find_iter(value).map(|found| (found.range(), ())), out, |(), out| {
                out.push_str(&with)
            });
        }));
    }
    Ok(long_text(move |value, out| {
        let matches = pattern.captures_iter(value).filter_map(|groups| Some((groups.get(0)?.range(), groups)));
        replaced(value, matches, out, |groups, out| with.write(&groups, out));
    }))
}

/// Writes `value` with something else in the place of ranges of it; ends where it becomes too long.
fn replaced<M>(
    value: &str,
    matches: impl Iterator<Item = (Range<usize>, M)>,
    out: &mut Text,
    with: impl Fn(M, &mut Text) -> bool,
) {
    let mut from = 0;
    for (range, found) in matches {
        if !(out.push_str(&value[from..range.start]) && with(found, out)) {
            return;
        }
        from = range.end;
    }
    out.push_str(&value[from..]);
}

fn regex_extract(call: &Call<'_>) -> Result<Work, Misfit> {
    let (pattern, group) = (pattern(call)?, call.args.int("group").map_err(broken)? as usize);
    if group >= pattern.captures_len() {
        let groups = pattern.captures_len() - 1;
        return Err(("group", format!("the pattern has {groups} groups, not {group}")));
    }
    Ok(text_or_reject(move |value, out| {
        let found = match group {
            0 => pattern.find(value),
            _ => pattern.captures(value).and_then(|captures| captures.get(group)),
        };
        out.push_str(found.map_or("", |found| found.as_str()));
        Ok(found.is_some())
    }))
}

fn regex_match(call: &Call<'_>) -> Result<Work, Misfit> {
    let pattern = pattern(call)?;
    Ok(text_to_boolean(move |value| pattern.is_match(value)))
}

fn split(call: &Call<'_>) -> Result<Work, Misfit> {
    let (separator, trim) = (not_empty(call, "separator")?.to_owned(), call.args.flag("trim"));
    Ok(batch(move |batch| {
        let texts = texts(batch.column(0)?)?;
        let field = element_field(&firn_shared::types::LogicalType::String);
        let mut out = ListBuilder::new(StringBuilder::new()).with_field(field);
        for text in texts {
            let cuts = text.map_or(0, |text| text.matches(separator.as_str()).count());
            let made = out.values_ref().values_slice().len() + text.map_or(0, str::len);
            let offsets = (out.values_ref().len() + cuts) * size_of::<i32>();
            if batch.room.is_over(out.len() + 1, made + offsets) {
                break;
            }
            if let Some(text) = text {
                for part in text.split(separator.as_str()) {
                    out.values().append_value(if trim { part.trim() } else { part });
                }
            }
            out.append(text.is_some());
        }
        Ok(Made::one(Arc::new(out.finish())))
    }))
}

fn pad(call: &Call<'_>) -> Result<Work, Misfit> {
    let width = call.args.int("width").map_err(broken)? as usize;
    let (with, start) = (call.args.text("with").map_err(broken)?, call.args.opt_text("side") == Some("start"));
    let mut characters = with.chars();
    let (Some(with), None) = (characters.next(), characters.next()) else {
        return Err(("with", "must be one character".to_owned()));
    };
    Ok(long_text(move |value, out| {
        let lacking = width.saturating_sub(value.chars().count());
        if start {
            out.extend(std::iter::repeat_n(with, lacking));
        }
        out.push_str(value);
        if !start {
            out.extend(std::iter::repeat_n(with, lacking));
        }
    }))
}

fn normalise(call: &Call<'_>) -> Result<Work, Misfit> {
    Ok(match call.args.text("form").map_err(broken)? {
        "nfd" => long_text(|value, out| out.extend(value.nfd())),
        "nfkc" => long_text(|value, out| out.extend(value.nfkc())),
        "nfkd" => long_text(|value, out| out.extend(value.nfkd())),
        _ => long_text(|value, out| out.extend(value.nfc())),
    })
}

fn remove_accents(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text(|value, out| {
        if value.is_ascii() {
            out.push_str(value);
        } else {
            out.extend(value.nfd().filter(|c| !is_accent(*c)).nfc());
        }
    }))
}

/// Marks over and under letters of any script. Vowels of Devanagari, Thai or Arabic and the voicing of Kana are marks too, but
/// no accents: without them it is another word.
fn is_accent(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36f}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

fn substring(call: &Call<'_>) -> Result<Work, Misfit> {
    let (start, length) = (call.args.int("start").map_err(broken)?, call.args.opt_int("length"));
    Ok(text(move |value, out| {
        let skip = match usize::try_from(start) {
            Ok(start) => start,
            Err(_) => value.chars().count().saturating_sub(usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX)),
        };
        let take = length.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
        out.extend(value.chars().skip(skip).take(take));
    }))
}

fn concat(call: &Call<'_>) -> Result<Work, Misfit> {
    let separator = call.args.text("separator").map_err(broken)?.to_owned();
    let skip = call.args.flag("skipNulls");
    Ok(batch(move |batch| {
        let columns: Vec<&StringArray> = batch.columns.iter().map(|column| texts(*column)).collect::<Result<_>>()?;
        let bytes = columns.iter().map(|column| text_bytes(column)).sum();
        let mut out = Texts::new(batch, batch.column(0)?.name, bytes);
        for row in 0..batch.rows {
            let there = columns.iter().filter(|column| column.is_valid(row));
            let some = there.clone().count();
            let more = if some == 0 || !skip && some < columns.len() {
                out.push_null()
            } else {
                let from = there.clone().map(|column| column.value_length(row) as usize).max().unwrap_or_default();
                out.push(from, |out| {
                    let all = there.enumerate().all(|(i, column)| {
                        out.push_str(if i > 0 { separator.as_str() } else { "" }) && out.push_str(column.value(row))
                    });
                    Ok(all)
                })
            };
            if !more {
                break;
            }
        }
        Ok(out.finish())
    }))
}

fn length(call: &Call<'_>) -> Result<Work, Misfit> {
    text_to::<Int32Type>(call, |value| Ok(Some(value.chars().count() as i32)))
}

fn reverse(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text(|value, out| out.extend(value.chars().rev())))
}

fn contains(call: &Call<'_>) -> Result<Work, Misfit> {
    let wanted = call.args.text("text").map_err(broken)?.to_owned();
    Ok(match call.args.text("at").map_err(broken)? {
        "start" => text_to_boolean(move |value| value.starts_with(&wanted)),
        "end" => text_to_boolean(move |value| value.ends_with(&wanted)),
        _ => {
            let finder = memchr::memmem::Finder::new(&wanted).into_owned();
            text_to_boolean(move |value| finder.find(value.as_bytes()).is_some())
        }
    })
}
