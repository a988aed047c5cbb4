//! Tokens: HMAC-SHA256 of a value's text, 64 hexadecimal digits. Equal values have equal tokens wherever the same key is
//! used, in every table and release, so tokens join and group; without the key nobody can try values.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::naming::Naming;
use super::provider::KeyBytes;

/// Length of a token, characters.
pub const TOKEN_CHARS: usize = 64;
/// Length of a subject's name in key ids, characters.
pub const SUBJECT_CHARS: usize = 32;

/// A key that makes tokens. It never rotates: with another key, tokens would no longer meet.
#[derive(Clone)]
pub struct TokenKey {
    key: hmac::Key,
    /// How values may be written of which it makes tokens.
    naming: Naming,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TokenKey {
    /// From its bytes.
    #[must_use]
    pub fn new(key: &KeyBytes) -> Self {
        Self::of(key.expose())
    }

    fn of(bytes: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), naming: Naming::Text }
    }

    /// The same key for values of a column: however one is written, its token is that of its canonical text.
    #[must_use]
    pub fn for_values(&self, naming: Naming) -> Self {
        Self { key: self.key.clone(), naming }
    }

    /// A key of its own for one purpose: the HMAC of the purpose's name.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Self {
        let mut tag = Zeroizing::new([0_u8; 32]);
        match hmac::sign_to_buffer(&self.key, purpose.as_bytes(), &mut *tag) {
            Ok(tag) => Self::of(tag),
            // Never: the buffer is as long as the tag.
            Err(_) => Self::of(hmac::sign(&self.key, purpose.as_bytes()).as_ref()),
        }
    }

    /// The key of `hash` for one column: hashes of two columns never meet.
    #[must_use]
    pub fn for_column(&self, column: &str) -> Self {
        self.derived(&format!("firn:hash:{column}"))
    }

    /// Appends the token of `value`.
    #[inline]
    pub fn token(&self, value: &[u8], out: &mut Vec<u8>) {
        push_hex(hmac::sign(&self.key, &self.canonical(value)).as_ref(), out);
    }

    #[inline]
    fn canonical<'a>(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        if self.naming == Naming::Text {
            return Cow::Borrowed(value);
        }
        match std::str::from_utf8(value).map(|text| self.naming.canonical(text)) {
            Ok(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            Err(_) => Cow::Borrowed(value),
        }
    }

    /// The name of a data subject in key ids and in the key store; says nothing about who it is.
    #[must_use]
    pub fn subject(&self, value: &[u8]) -> String {
        let mut out = Vec::with_capacity(TOKEN_CHARS);
        self.derived("firn:subject").token(value, &mut out);
        out.truncate(SUBJECT_CHARS);
        String::from_utf8(out).unwrap_or_default()
    }
}

/// Appends lower-case hexadecimal digits.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let at = out.len();
    out.resize(at + bytes.len() * 2, 0);
    for (pair, byte) in out[at..].chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python: `hmac.new(bytes(32*[7]), text, 'sha256').hexdigest()`. A change of these breaks every join with
    /// tables that exist.
    #[test]
    fn tokens_are_pinned() {
        let key = TokenKey::new(&KeyBytes::new([7; 32]));
        let token = |key: &TokenKey, value: &str| {
            let mut out = Vec::new();
            key.token(value.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(token(&key, "alice@example.com"), PINNED[0]);
        assert_eq!(token(&key, ""), PINNED[1]);
        assert_eq!(token(&key.for_column("shop.orders.email"), "alice@example.com"), PINNED[2]);
        assert_eq!(key.subject(b"42"), PINNED[3]);
        let numbers = key.for_values(Naming::Number);
        for written in ["42", "42.0", "4.2e1", "420E-1"] {
            assert_eq!(token(&numbers, written), PINNED[4], "{written}");
        }
        assert_ne!(token(&key, "42.0"), PINNED[4], "text is as it stands");
        let uuids = key.for_values(Naming::Uuid);
        for written in ["6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"] {
            assert_eq!(token(&uuids, written), PINNED[5], "{written}");
        }
    }

    const PINNED: [&str; 6] = [
        "09870f7a555563284d0f3306c0cb12941e1ac64c5d737c671ae6125baa2715b0",
        "9dac6a74401b46ed9b489d0e19d68d1b13cc6b5090352fdcfa5bd74df4e69d87",
        "72c0294c24e8de1a651eafed01e93f66e40f90925bc0934ba1a00a83355e861b",
        "da199258412fac389dbbebdc6bb3f481",
        "c375c508be09c2d7595d823c178833918c15527d00c6e4a42bbff11914d750c6",
        "55e2a944720aad4c309494205ac0817437546fe01e4e58b7e111d5d76c6409ec",
    ];
}
