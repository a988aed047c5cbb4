//! Which records of a topic a table takes.

use std::collections::BTreeSet;

use firn_shared::config::domain::Output;

/// Which records belong to a table.
#[derive(Debug, Default)]
pub struct Events(Option<BTreeSet<String>>);

impl Events {
    /// Those of `output`.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        Self(output.events.as_ref().map(|events| events.iter().cloned().collect()))
    }

    /// Whether records of this event belong to the table.
    #[must_use]
    pub fn wants(&self, event: Option<&str>) -> bool {
        match (&self.0, event) {
            (None, _) => true,
            (Some(events), Some(event)) => events.contains(event),
            (Some(_), None) => false,
        }
    }
}
