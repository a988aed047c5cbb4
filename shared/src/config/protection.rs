//! What becomes of personal data, and the keys for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::domain::{Secret, StoreUrl};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::ids::{ColumnName, KeyName};

/// A key of `firn.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// Where its material comes from.
    pub source: KeySource,
    /// Where wrapped keys are kept, below `{store}/{key name}/`.
    pub store: StoreUrl,
    /// How long one version of a key in KMS seals, and how long keys are kept in memory.
    pub reuse: Reuse,
}

/// Where the material of a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Data keys wrapped by a key of AWS KMS.
    Kms {
        /// Key id, ARN or alias.
        key_id: String,
        /// Encryption context besides ours.
        context: BTreeMap<String, String>,
    },
    /// A key ring file.
    File(PathBuf),
}

/// Bounds of a data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// A version is followed by a new one at this age.
    pub age: Duration,
    /// And when one process has sealed so many values with it,
    pub values: u64,
    /// or so many bytes.
    pub bytes: u64,
}

impl Default for Reuse {
    /// 2^24 values a process: with 256 of them a day, 2^32 values under one key, where random ivs end.
    fn default() -> Self {
        Self { age: Duration::from_hours(24), values: 1 << 24, bytes: 64 << 30 }
    }
}

/// Access to AWS KMS.
#[derive(Debug, Clone, Default)]
pub struct KmsOptions {
    /// Another endpoint than AWS's, for emulators.
    pub endpoint: Option<String>,
    /// Region; else from the environment.
    pub region: Option<String>,
    /// Static credentials; else the default credential chain.
    pub credentials: Option<(String, Secret)>,
}

/// How one value of a table is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// The value: a table column, or a place inside one.
    pub path: ColumnPath,
    /// What becomes of it.
    pub how: Protect,
    /// Whether a column with its token is added.
    pub token: bool,
    /// The key; there for everything that needs one.
    pub key: Option<KeyName>,
    /// The column that says whose data it is; the values of each subject are sealed with a key of its own.
    pub subject: Option<ColumnName>,
    /// Additional authenticated data of the ciphertext.
    pub aad: Option<String>,
    /// How the column holds ciphertext.
    pub encoding: Encoding,
}

impl Protection {
    /// Whether plaintext is read when this is carried out.
    #[must_use]
    pub fn protects(&self) -> bool {
        self.how != Protect::Keep
    }

    /// Whether the value goes when its subject is erased.
    #[must_use]
    pub fn is_erasable(&self) -> bool {
        self.protects() && self.subject.is_some()
    }

    /// Whether values are sealed, so that they can be opened again.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.how == Protect::Encrypt
    }

    /// Whether equal values stay equal: in the column itself, or in the token beside it.
    #[must_use]
    pub fn makes_token(&self) -> bool {
        self.token || matches!(self.how, Protect::Token | Protect::Hash)
    }

    /// The name of the column or field that holds the token.
    #[must_use]
    pub fn token_name(&self) -> String {
        format!("{}_token", self.path.last_field())
    }
}

/// How a column of a table holds ciphertext. In payloads it is base64 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As text, in base64.
    #[default]
    Base64,
    /// As bytes.
    Binary,
}

/// What becomes of a protected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protect {
    /// AES-256-GCM under the key; can be opened again.
    Encrypt,
    /// HMAC-SHA256 under the key, equal in all tables.
    Token,
    /// HMAC-SHA256 under a key of this column, equal in this column only.
    Hash,
    /// Partly hidden.
    Mask(Mask),
    /// Text without what these patterns find.
    Redact(Vec<String>),
    /// Not in the table.
    Drop,
    /// As it is: somebody looked at the column and says that it may stay.
    Keep,
}

/// What a mask leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Nothing.
    All,
    /// The first characters.
    First(u32),
    /// The last characters.
    Last(u32),
    /// The first character and the domain.
    Email,
    /// The network of an address.
    Ip,
}

impl FromStr for Mask {
    type Err = Error;

    /// Reads `all`, `first(2)`, `last(4)`, `email` and `ip`.
    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("mask", text);
        let word = cursor.take_while(|c| c.is_ascii_alphabetic());
        let mask = match word {
            "all" => Self::All,
            "email" => Self::Email,
            "ip" => Self::Ip,
            "first" | "last" => {
                cursor.expect("(")?;
                let count = cursor.number()?;
                cursor.expect(")")?;
                if word == "first" { Self::First(count) } else { Self::Last(count) }
            }
            _ => return Err(cursor.expected("`all`, `first(n)`, `last(n)`, `email` or `ip`")),
        };
        cursor.end()?;
        Ok(mask)
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::First(count) => write!(f, "first({count})"),
            Self::Last(count) => write!(f, "last({count})"),
            Self::Email => f.write_str("email"),
            Self::Ip => f.write_str("ip"),
        }
    }
}

/// A value in a table: `email`, `user.email`, `phones[]`, `contacts[].phone`; `[]` is every element of a list and every
/// value of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnPath {
    /// The table's column.
    pub column: String,
    /// The way into it.
    pub inside: Vec<PathStep>,
}

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathStep {
    /// A field of a struct.
    Field(String),
    /// Every element of a list, or every value of a map.
    Each,
}

impl ColumnPath {
    /// The name of the innermost field that is named.
    #[must_use]
    pub fn last_field(&self) -> &str {
        let named = self.inside.iter().rev().find_map(|step| match step {
            PathStep::Field(name) => Some(name.as_str()),
            PathStep::Each => None,
        });
        named.unwrap_or(&self.column)
    }

    /// Whether one of both holds the other.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.column == other.column && self.inside.iter().zip(&other.inside).all(|(a, b)| a == b)
    }
}

impl FromStr for ColumnPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("column", text);
        let is_name = |c: char| !matches!(c, '.' | '[' | ']') && !c.is_whitespace();
        let column = cursor.take_while(is_name).to_owned();
        if column.is_empty() {
            return Err(cursor.expected("the name of a column"));
        }
        let mut inside = Vec::new();
        while !cursor.rest().is_empty() {
            if cursor.eat("[]") {
                inside.push(PathStep::Each);
                continue;
            }
            if !cursor.eat(".") {
                return Err(cursor.expected("`.field` or `[]`"));
            }
            let field = cursor.take_while(is_name);
            if field.is_empty() {
                return Err(cursor.expected("the name of a field"));
            }
            inside.push(PathStep::Field(field.to_owned()));
        }
        Ok(Self { column, inside })
    }
}

impl fmt::Display for ColumnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        self.inside.iter().try_for_each(|step| match step {
            PathStep::Field(name) => write!(f, ".{name}"),
            PathStep::Each => f.write_str("[]"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_masks_read_back_as_written() {
        for text in ["email", "user.email", "phones[]", "contacts[].phone", "m[][].a.b[]"] {
            assert_eq!(text.parse::<ColumnPath>().unwrap().to_string(), text);
        }
        for text in ["all", "first(2)", "last(4)", "email", "ip"] {
            assert_eq!(text.parse::<Mask>().unwrap().to_string(), text);
        }
        for text in ["", "a.", "a[0]", ".a", "a]"] {
            assert!(text.parse::<ColumnPath>().is_err(), "{text}");
        }
        for text in ["", "last", "last(x)", "some"] {
            assert!(text.parse::<Mask>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_overlaps_what_holds_it() {
        let overlap = |a: &str, b: &str| a.parse::<ColumnPath>().unwrap().overlaps(&b.parse().unwrap());
        assert!(overlap("a", "a.b") && overlap("a.b[]", "a") && overlap("a", "a"));
        assert!(!overlap("a.b", "a.c") && !overlap("a", "b"));
    }
}
