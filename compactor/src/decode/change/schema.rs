//! The schema that Kafka Connect puts beside a payload: what it says of the form of a column's values.
//!
//! The text of the schema repeats in every record, so it is compared with the ones seen before, byte by byte, and read
//! only when it is new.

use firn_shared::config::domain::{Format, TimeFormat};
use firn_shared::types::LogicalType;
use serde::Deserialize;

use super::super::column::Column;
use super::super::tree::{Node, Want};

/// Schemas kept at most: those of values and keys, before and after a change of the table.
const KEPT_MAX: usize = 8;

/// The schemas seen, the last used first.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    seen: Vec<(Box<str>, Described)>,
    /// Whether the columns read as the first of `seen` says.
    learnt: bool,
}

/// A value's schema, as far as it matters.
#[derive(Debug, Default)]
struct Described {
    /// The form that its type or name implies.
    format: Option<Format>,
    /// An integer, which may stand for a boolean.
    integer: bool,
    fields: Vec<(String, Described)>,
    /// Of a list's elements or a map's values.
    inner: Option<Box<Described>>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    r#type: serde_json::Value,
    name: Option<String>,
    field: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(default)]
    fields: Option<Vec<Wire>>,
    #[serde(default)]
    items: Option<Box<Wire>>,
    #[serde(default)]
    values: Option<Box<Wire>>,
}

#[derive(Deserialize)]
struct Parameters {
    scale: Option<String>,
}

impl Schemas {
    /// The text of the schema that the last record had.
    pub fn last(&self) -> Option<&str> {
        self.seen.first().map(|(text, _)| &**text)
    }

    /// Makes the columns below `root` read as the last schema says.
    pub fn learn_last(&mut self, root: &mut Node) {
        if !self.learnt {
            learn(root, self.seen.first().map(|(_, described)| described));
            self.learnt = true;
        }
    }

    /// Makes the columns below `root` read as this schema says; `None` is a record without one.
    pub fn learn(&mut self, text: Option<&str>, root: &mut Node) {
        let Some(text) = text else {
            if std::mem::take(&mut self.learnt) {
                learn(root, None);
            }
            return;
        };
        if self.learnt && self.last() == Some(text) {
            return;
        }
        match self.seen.iter().position(|(seen, _)| **seen == *text) {
            Some(at) => self.seen[..=at].rotate_right(1),
            None => {
                self.seen.truncate(KEPT_MAX - 1);
                self.seen.insert(0, (text.into(), read(text)));
            }
        }
        learn(root, self.seen.first().map(|(_, described)| described));
        self.learnt = true;
    }
}

/// The schema of the row: of an envelope's `after`, or the whole. What cannot be read says nothing; the values are then
/// judged without it.
fn read(text: &str) -> Described {
    let Ok(mut wire) = serde_json::from_str::<Wire>(text) else { return Described::default() };
    let named = |wire: &Wire, name: &str| wire.field.as_deref() == Some(name);
    if let Some(fields) = &mut wire.fields
        && fields.iter().any(|field| named(field, "op"))
        && let Some(at) = fields.iter().position(|field| named(field, "after"))
    {
        wire = fields.swap_remove(at);
    }
    described(wire)
}

fn described(wire: Wire) -> Described {
    let kind = wire.r#type.as_str().unwrap_or_default();
    let scale = wire.parameters.and_then(|parameters| parameters.scale).and_then(|scale| scale.parse().ok());
    Described {
        format: wire.name.as_deref().and_then(|name| format(name, scale)),
        integer: matches!(kind, "int8" | "int16" | "int32" | "int64"),
        fields: wire.fields.into_iter().flatten().filter_map(|mut f| Some((f.field.take()?, described(f)))).collect(),
        inner: wire.items.or(wire.values).map(|inner| Box::new(described(*inner))),
    }
}

/// The form of values of a semantic type (Debezium documentation, "Data type mappings" of each connector).
fn format(name: &str, scale: Option<i32>) -> Option<Format> {
    use TimeFormat::{EpochDays, EpochMicros, EpochMillis, EpochNanos, Rfc3339};
    Some(match name {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Format::Time(EpochDays),
        "io.debezium.time.Time"
        | "io.debezium.time.Timestamp"
        | "org.apache.kafka.connect.data.Time"
        | "org.apache.kafka.connect.data.Timestamp" => Format::Time(EpochMillis),
        "io.debezium.time.MicroTime" | "io.debezium.time.MicroTimestamp" => Format::Time(EpochMicros),
        "io.debezium.time.NanoTime" | "io.debezium.time.NanoTimestamp" => Format::Time(EpochNanos),
        "io.debezium.time.ZonedTimestamp" | "io.debezium.time.ZonedTime" => Format::Time(Rfc3339),
        "org.apache.kafka.connect.data.Decimal" => Format::ConnectDecimal { scale },
        "io.debezium.data.VariableScaleDecimal" => Format::VariableScale,
        "io.debezium.data.Bits" => Format::Bits,
        "io.debezium.data.Json" => Format::JsonText,
        // Enum, EnumSet, Uuid, Xml, Year, geometries: values are what their JSON says.
        _ => return None,
    })
}

fn learn(node: &mut Node, schema: Option<&Described>) {
    for key in &mut node.keys {
        let field = schema.and_then(|schema| schema.fields.iter().find(|(name, _)| **name == *key.name));
        let field = field.map(|(_, described)| described);
        for want in &mut key.wants {
            match want {
                Want::Keys(node) => learn(node, field),
                Want::Column { column, .. } => learn_column(column, field),
            }
        }
    }
}

fn learn_column(column: &mut Column, schema: Option<&Described>) {
    let inner = schema.and_then(|schema| schema.inner.as_deref());
    match column {
        Column::Leaf(leaf) => {
            let zero_one = schema.is_some_and(|schema| schema.integer) && *leaf.logical() == LogicalType::Boolean;
            let named = schema.and_then(|schema| schema.format.clone());
            leaf.read_as(if zero_one { Some(Format::ZeroOne) } else { named });
        }
        Column::List(list) => learn_column(&mut list.child, inner),
        Column::Map(map) => learn_column(&mut map.values, inner),
        Column::Struct(fields) => learn(&mut fields.node, schema),
    }
}
