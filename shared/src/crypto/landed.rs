//! How a protected value looks inside a payload, in the raw zone and in quarantined records: one JSON string that says
//! what it is, so that the compactor splits it into the table's columns and never protects twice.
//!
//! ```text
//! firn:1:e:{key id}:{ciphertext}:{token}     encrypted; the token may be empty
//! firn:1:v::{token}:{text}                   token, hash, mask or redacted text
//! firn:1:s:{key id}:{ciphertext}:            JSON of another shape than the path has, sealed as it stood there
//! ```

const PREFIX: &str = "firn:1:";

/// A protected value, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed<'a> {
    /// Ciphertext, token, hash or what a mask leaves.
    pub value: &'a str,
    /// The id of the key that sealed it.
    pub key: Option<&'a str>,
    /// Its token, when one was asked for.
    pub token: Option<&'a str>,
}

impl<'a> Landed<'a> {
    /// Takes a text apart; `None` when it is not of this form: a value that nobody has protected yet.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (kind, rest) = rest.split_once(':')?;
        let (key, rest) = rest.split_once(':')?;
        let (first, second) = rest.split_once(':')?;
        let (value, token) = match kind {
            "e" if is_key(key) && is_base64(first) => (first, second),
            "v" if key.is_empty() => (second, first),
            _ => return None,
        };
        let hex = token.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let token = match token.len() {
            0 => None,
            super::token::TOKEN_CHARS if hex => Some(token),
            _ => return None,
        };
        Some(Self { value, key: (kind == "e").then_some(key), token })
    }
}

/// How something begins in a payload that [`shapeless`] takes apart.
pub(super) const SHAPELESS: &[u8] = b"firn:1:s:";

/// The key id and the ciphertext of a value that was sealed because of its shape; `None` for any other text.
pub(super) fn shapeless(text: &str) -> Option<(&str, &str)> {
    let (key, rest) = text.strip_prefix(PREFIX)?.strip_prefix("s:")?.split_once(':')?;
    let ciphertext = rest.strip_suffix(':')?;
    (is_key(key) && is_base64(ciphertext)).then_some((key, ciphertext))
}

fn is_key(text: &str) -> bool {
    text.split('/').count() >= 2
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'/'))
}

fn is_base64(text: &str) -> bool {
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
}

/// Appends the beginning of a value that `key` seals; ciphertext, a colon and the token follow.
pub(super) fn begin_sealed(key: &str, out: &mut Vec<u8>) {
    for part in [PREFIX, "e:", key, ":"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends the beginning of a value of another shape that `key` seals; ciphertext and a colon follow.
pub(super) fn begin_shapeless(key: &str, out: &mut Vec<u8>) {
    for part in [PREFIX, "s:", key, ":"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends the beginning of a value that cannot be opened; token, a colon and the text follow.
pub(super) fn begin_value(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX.as_bytes());
    out.extend_from_slice(b"v::");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_landing_wrote_is_taken_apart() {
        let token = "ab".repeat(32);
        let sealed = format!("firn:1:e:people/3:QUJD:{token}");
        let expected = Landed { value: "QUJD", key: Some("people/3"), token: Some(&token) };
        assert_eq!(Landed::parse(&sealed), Some(expected));
        assert_eq!(shapeless("firn:1:s:people/3:QUJD:"), Some(("people/3", "QUJD")));
        assert_eq!(
            (Landed::parse("firn:1:s:people/3:QUJD:"), shapeless(&sealed)),
            (None, None),
            "neither is the other"
        );
        let open = Landed { value: "a:b", key: None, token: None };
        assert_eq!(Landed::parse("firn:1:v:::a:b"), Some(open));
        for text in [
            "",
            "alice@example.com",
            "firn:1:",
            "firn:1:e:people/3:alice@example.com:",
            "firn:1:e:people:QUJD:",
            "firn:1:e:people/3:QUJD:xyz",
            "firn:1:v:k:abc",
            "firn:2:e:people/3:QUJD:",
        ] {
            assert_eq!(Landed::parse(text), None, "{text}");
        }
    }
}
