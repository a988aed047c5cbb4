//! What must hold for the whole payload before a value of it is looked at.
//!
//! What is passed over is checked for its grammar, but nobody looks into its strings. So escapes are checked here, and
//! nesting is bounded, by passes that cost little when there is nothing to find.

use memchr::memchr;

use super::blocks::{BLOCK, Masks, padded, per_processor};
use super::reject::{RejectKind, Rejected};

/// Deepest nesting of objects and lists; `serde_json` has the same limit.
pub const MAX_DEPTH: usize = 127;

/// The payload as text, its nesting bounded, its escapes characters.
pub(super) fn check(payload: &[u8]) -> Result<&str, Rejected> {
    let text = simdutf8::basic::from_utf8(payload).map_err(|_| not_utf8(payload))?;
    let Survey { openers, backslash } = survey(payload);
    if openers > MAX_DEPTH && depth(payload) > MAX_DEPTH {
        let detail = format!("nested deeper than {MAX_DEPTH} levels");
        return Err(Rejected::whole(RejectKind::TooDeep, detail));
    }
    if backslash {
        check_escapes(payload)?;
    }
    Ok(text)
}

#[cold]
fn not_utf8(payload: &[u8]) -> Rejected {
    let at = std::str::from_utf8(payload).map_or_else(|e| e.valid_up_to(), str::len);
    Rejected::whole(RejectKind::NotUtf8, format!("invalid UTF-8 at byte {at}"))
}

/// What a payload has in it.
struct Survey {
    /// The number of `{` and `[`, in strings too: an upper bound of the depth that needs no state.
    openers: usize,
    backslash: bool,
}

per_processor! {
    fn survey(payload: &[u8]) -> Survey = survey_bytes;
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "else it is not compiled for the processor, see `per_processor`")]
fn survey_bytes(payload: &[u8], masks: impl Fn(&[u8; BLOCK]) -> Masks) -> Survey {
    let (mut openers, mut backslash) = (0, 0);
    let mut add = |masks: Masks| {
        openers += masks.opener.count_ones() as usize;
        backslash |= masks.backslash;
    };
    let (blocks, rest) = payload.as_chunks::<BLOCK>();
    for block in blocks {
        add(masks(block));
    }
    if !rest.is_empty() {
        add(masks(&padded(rest)));
    }
    Survey { openers, backslash: backslash != 0 }
}

/// The deepest nesting, strings left out.
#[cold]
fn depth(payload: &[u8]) -> usize {
    let (mut now, mut max, mut at) = (0usize, 0usize, 0usize);
    while at < payload.len() {
        match payload[at] {
            b'{' | b'[' => {
                now += 1;
                max = max.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            b'"' => at = string_end(payload, at + 1),
            _ => {}
        }
        at += 1;
    }
    max
}

fn string_end(payload: &[u8], mut at: usize) -> usize {
    while let Some(hit) = memchr::memchr2(b'"', b'\\', payload.get(at..).unwrap_or_default()) {
        if payload[at + hit] == b'"' {
            return at + hit;
        }
        at += hit + 2;
    }
    payload.len()
}

/// Checks the letter after every backslash, and of a `u` the hex digits and surrogate pairs.
fn check_escapes(payload: &[u8]) -> Result<(), Rejected> {
    let Some(first) = memchr(b'\\', payload) else { return Ok(()) };
    let mut at = first;
    loop {
        match payload.get(at + 1) {
            Some(b'u') => at = unicode_escape(payload, at)?,
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
            Some(_) => return Err(Rejected::whole(RejectKind::NotJson, format!("invalid JSON at byte {at}"))),
            None => return Err(Rejected::whole(RejectKind::NotJson, format!("truncated at byte {}", payload.len()))),
        }
        match payload.get(at..).and_then(|rest| memchr(b'\\', rest)) {
            Some(next) => at += next,
            None => return Ok(()),
        }
    }
}

/// The position after the `\uXXXX` (or the pair of them) at `at`.
fn unicode_escape(payload: &[u8], at: usize) -> Result<usize, Rejected> {
    let bad = |what: &str| Rejected::whole(RejectKind::BadEscape, format!("{what} at byte {at}"));
    let unit = hex4(payload, at + 2).ok_or_else(|| bad("escape without four hex digits"))?;
    match unit {
        0xD800..=0xDBFF => {
            let low = (payload.get(at + 6..at + 8) == Some(b"\\u")).then(|| hex4(payload, at + 8)).flatten();
            match low {
                Some(0xDC00..=0xDFFF) => Ok(at + 12),
                _ => Err(bad("half a surrogate pair")),
            }
        }
        0xDC00..=0xDFFF => Err(bad("half a surrogate pair")),
        _ => Ok(at + 6),
    }
}

/// Four hex digits as a UTF-16 unit.
pub(super) fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |unit, b| Some(unit << 4 | char::from(*b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(payload: &[u8]) -> Option<RejectKind> {
        check(payload).err().map(|r| r.reason)
    }

    #[test]
    fn bytes_that_are_not_utf8_are_located() {
        let rejected = check(b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!((rejected.reason, rejected.detail.as_str()), (RejectKind::NotUtf8, "invalid UTF-8 at byte 6"));
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n)).into_bytes();
        assert_eq!(reason(&nested(MAX_DEPTH)), None);
        assert_eq!(reason(&nested(MAX_DEPTH + 1)), Some(RejectKind::TooDeep));
        assert_eq!(reason(&vec![b'['; 10_000_000]), Some(RejectKind::TooDeep));
        assert_eq!(reason(format!("\"{}\\\"{}\"", "[".repeat(300), "{".repeat(300)).as_bytes()), None);
    }

    #[test]
    fn escapes_must_be_characters() {
        for good in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u00e9\n""#, r#""\\\u0041""#] {
            assert_eq!(reason(good.as_bytes()), None, "{good}");
        }
        for bad in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\n""#, r#""\ud83dA""#, r#""\u12g4""#, r#""\u12"#] {
            assert_eq!(reason(bad.as_bytes()), Some(RejectKind::BadEscape), "{bad}");
        }
    }
}
