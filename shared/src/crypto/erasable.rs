//! A value that goes with its subject, in a form that outlives the pipeline that protected it.

use serde::{Deserialize, Serialize};

use super::naming::Naming;
use super::payload::{Many, Protected};
use crate::config::domain::PathStep;
use crate::config::protected::steps;
use crate::ids::{ColumnName, KeyName};

/// Where a value is that goes with its subject: in a table, and in the payloads that rows are made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erasable {
    /// From the table, taken as a struct of its columns, to the value, and to its token if there is one.
    pub columns: Vec<Vec<PathStep>>,
    /// The column that says whose it is.
    pub subject: ColumnName,
    /// The key of its ciphertext, token or hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyName>,
    /// Whether the key seals it.
    #[serde(default)]
    pub seals: bool,
    /// As of [`Protected`].
    pub places: Vec<(Vec<PathStep>, Option<Vec<PathStep>>)>,
    /// As of [`Protected`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub many: Vec<Many>,
    /// How the subject's place says who it is.
    pub naming: Naming,
}

impl Erasable {
    /// What is protected, if it goes with a subject.
    #[must_use]
    pub fn of(protected: &Protected) -> Option<Self> {
        let protection = &protected.protection;
        let subject = protection.subject.clone().filter(|_| protection.is_erasable())?;
        let path = steps(&protection.path);
        let mut columns = vec![path.clone()];
        if protection.token {
            let mut token = path;
            if let Some(last) = token.iter_mut().rfind(|step| matches!(step, PathStep::Field(_))) {
                *last = PathStep::Field(protection.token_name());
            }
            columns.push(token);
        }
        Some(Self {
            columns,
            subject,
            key: protection.key.clone(),
            seals: protection.seals(),
            places: protected.places.clone(),
            many: protected.many.clone(),
            naming: protected.naming,
        })
    }
}
