//! The text of a JSON string.

use memchr::memchr;

use super::check::hex4;
use super::cursor::Raw;

/// The string whose raw JSON text (with quotes) this is; escapes are written out into `scratch`.
///
/// The raw text has passed [`super::check::check`] and the cursor, so every escape in it is whole.
#[inline]
pub(super) fn unquote<'a>(raw: Raw<'a>, scratch: &'a mut String) -> &'a str {
    let inner = &raw.text[1..raw.text.len() - 1];
    if raw.escaped { unescaped(inner, scratch) } else { inner }
}

fn unescaped<'a>(inner: &'a str, scratch: &'a mut String) -> &'a str {
    let Some(first) = memchr(b'\\', inner.as_bytes()) else { return inner };
    scratch.clear();
    unescape(inner, first, scratch);
    scratch
}

fn unescape(inner: &str, first: usize, out: &mut String) {
    let bytes = inner.as_bytes();
    let (mut from, mut at) = (0, first);
    loop {
        out.push_str(&inner[from..at]);
        let (unescaped, length) = match bytes.get(at + 1) {
            Some(b'u') => unicode(bytes, at),
            Some(b'n') => ('\n', 2),
            Some(b't') => ('\t', 2),
            Some(b'r') => ('\r', 2),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(other) => (char::from(*other), 2),
            None => return,
        };
        out.push(unescaped);
        from = at + length;
        match memchr(b'\\', &bytes[from..]) {
            Some(next) => at = from + next,
            None => break,
        }
    }
    out.push_str(&inner[from..]);
}

fn unicode(bytes: &[u8], at: usize) -> (char, usize) {
    let unit = hex4(bytes, at + 2).unwrap_or(0xFFFD);
    let (code, length) = match (unit, hex4(bytes, at + 8)) {
        (0xD800..=0xDBFF, Some(low)) => (0x10000 + ((unit - 0xD800) << 10) + (low.wrapping_sub(0xDC00) & 0x3FF), 12),
        _ => (unit, 6),
    };
    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in any::<String>(), ascii in any::<bool>()) {
            let mut raw = serde_json::to_string(&text).unwrap();
            if ascii {
                raw = raw.encode_utf16().map(|u| match u8::try_from(u) {
                    Ok(b) if b.is_ascii() => char::from(b).to_string(),
                    _ => format!("\\u{u:04X}"),
                }).collect();
            }
            let mut scratch = String::new();
            prop_assert_eq!(unquote(Raw { text: &raw, escaped: true }, &mut scratch), text.as_str());
        }
    }

    #[test]
    fn every_short_escape_is_known() {
        let raw = r#""a\"\\\/\b\f\n\r\tz""#;
        assert_eq!(unquote(Raw { text: raw, escaped: true }, &mut String::new()), "a\"\\/\u{8}\u{c}\n\r\tz");
    }
}
