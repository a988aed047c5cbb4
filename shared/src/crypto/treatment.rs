//! One protection with its keys at hand: a value's text in, the protected text out.

use std::sync::Arc;

use super::keys::{Key, Keys};
use super::mask::{Redactor, mask};
use super::naming::Naming;
use super::seal::{DataKey, Sealer};
use super::token::TokenKey;
use crate::config::domain::{Encoding, Mask, Protect, Protection};
use crate::error::{Error, Result};

/// A protection that can be carried out.
#[derive(Debug, Clone)]
pub struct Treatment {
    how: How,
    /// Makes the token beside the value.
    token: Option<Arc<TokenKey>>,
    key: Option<Arc<Key>>,
    aad: Vec<u8>,
    encoding: Encoding,
    by_subject: bool,
}

#[derive(Debug, Clone)]
enum How {
    Seal,
    Token(Arc<TokenKey>),
    Mask(Mask),
    Redact(Redactor),
    Drop,
    Keep,
}

impl Treatment {
    /// Opens what `protection` needs; `column` is the full name of what it protects, `database.table.path`.
    ///
    /// # Errors
    /// `Config` for keys that are not there or patterns that are none, else as the key's provider says.
    pub async fn new(protection: &Protection, keys: &Keys, column: &str) -> Result<Self> {
        let key = match &protection.key {
            Some(name) => Some(keys.key(name).await?),
            None => None,
        };
        let needed = || key.as_ref().ok_or_else(|| Error::bug(format!("no key for {column}")));
        let how = match &protection.how {
            Protect::Encrypt => {
                // A key that cannot seal is a mistake to be told before anything is read.
                needed()?.current(0).await?;
                How::Seal
            }
            Protect::Token => How::Token(needed()?.token_key().await?),
            Protect::Hash => How::Token(Arc::new(needed()?.token_key().await?.for_column(column))),
            Protect::Mask(mask) => How::Mask(*mask),
            Protect::Redact(patterns) => How::Redact(Redactor::new(patterns)?),
            Protect::Drop => How::Drop,
            Protect::Keep => How::Keep,
        };
        let token = if protection.token { Some(needed()?.token_key().await?) } else { None };
        let by_subject = protection.subject.is_some() && protection.how == Protect::Encrypt;
        if by_subject {
            needed()?.token_key().await?;
        }
        let aad = protection.aad.clone().unwrap_or_default().into_bytes();
        Ok(Self { how, token, key, aad, encoding: protection.encoding, by_subject })
    }

    /// The same for payloads, where ciphertext is text whatever the column holds.
    #[must_use]
    pub fn in_text(self) -> Self {
        Self { encoding: Encoding::Base64, ..self }
    }

    /// How it writes ciphertext; text where it seals nothing.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The same for values that are written like this: equal ones have equal tokens, however they are written.
    #[must_use]
    pub fn for_values(self, naming: Naming) -> Self {
        let of = |key: Arc<TokenKey>| Arc::new(key.for_values(naming));
        let how = match self.how {
            How::Token(key) => How::Token(of(key)),
            how => how,
        };
        Self { how, token: self.token.map(of), ..self }
    }

    /// The key that seals; `None` when nothing is sealed.
    #[must_use]
    pub fn sealing(&self) -> Option<&Arc<Key>> {
        self.key.as_ref().filter(|_| matches!(self.how, How::Seal))
    }

    /// Whether each subject has a key of its own.
    #[must_use]
    pub fn by_subject(&self) -> bool {
        self.by_subject
    }

    /// Whether the value goes.
    #[must_use]
    pub fn drops(&self) -> bool {
        matches!(self.how, How::Drop)
    }

    /// Whether the value stays as it is.
    #[must_use]
    pub fn keeps(&self) -> bool {
        matches!(self.how, How::Keep)
    }

    /// Whether equal values have equal results that are dear to make.
    #[must_use]
    pub fn is_token(&self) -> bool {
        matches!(self.how, How::Token(_))
    }

    /// The key of the token beside the value, if there is one.
    #[must_use]
    pub fn token_key(&self) -> Option<&TokenKey> {
        self.token.as_deref()
    }

    /// Appends the protected form of `text`. `key` is the one that seals.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no random bytes.
    #[inline]
    pub fn apply(&self, text: &str, key: Option<&DataKey>, sealer: &mut Sealer, out: &mut Vec<u8>) -> Result<()> {
        match &self.how {
            How::Seal => {
                let key = key.ok_or_else(|| Error::bug("a value is to be sealed without a key"))?;
                return match self.encoding {
                    Encoding::Base64 => sealer.seal(key, &self.aad, text.as_bytes(), out),
                    Encoding::Binary => sealer.seal_bytes(key, &self.aad, text.as_bytes(), out),
                };
            }
            How::Token(key) => key.token(text.as_bytes(), out),
            How::Mask(how) => mask(*how, text, out),
            How::Redact(redactor) => redactor.redact(text, out),
            How::Keep => out.extend_from_slice(text.as_bytes()),
            How::Drop => {}
        }
        Ok(())
    }
}
