//! The walk of one record: a `serde` seed for every kind of want, driven by the SIMD parser.
//!
//! Objects and lists are walked by the parser's events; everything else, also what is not wanted, is taken or skipped as
//! raw text at the parser's own speed. A fault is kept in the [`Walk`] and its path is put together on the way out; the
//! parser's error only carries the news.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;

use super::column::{Column, List, Map, Struct};
use super::leaf::Meter;
use super::reject::{Fault, Trail};
use super::tree::{Node, Want};

/// The state of a walk over one record.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub meter: Meter,
    pub fault: Option<Fault>,
    pub trail: Trail,
    /// Set when the first walk met a duplicate key or a fault: a key's last value counts, so every object is read to its
    /// end before any of its values is taken.
    pub last_wins: bool,
    /// A wanted key came twice in one object; the record must be walked again with `last_wins`.
    pub duplicate: bool,
    /// Number of the object being walked, over the life of the decoder.
    object: u64,
}

impl Walk {
    #[cold]
    fn fail<E: serde::de::Error>(&mut self, fault: Fault) -> E {
        self.fault = Some(fault);
        E::custom("does not fit")
    }
}

/// Walks `raw`, one whole JSON value that the parser has seen before.
fn walk_again<'de, S: DeserializeSeed<'de>, E: serde::de::Error>(seed: S, raw: &'de str) -> Result<S::Value, E> {
    seed.deserialize(&mut sonic_rs::Deserializer::from_str(raw)).map_err(E::custom)
}

/// An object of wanted keys at position `at`; answers whether there was one (null is none).
pub(super) struct ObjectSeed<'a> {
    pub node: &'a mut Node,
    pub at: usize,
    pub walk: &'a mut Walk,
}

/// The visitor methods of JSON values that are not what was expected.
macro_rules! refuse {
    ($expected:expr; $($method:ident($kind:ty) $found:literal),* $(,)?) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($expected)
        }
        $(fn $method<E: serde::de::Error>(self, _: $kind) -> Result<Self::Value, E> {
            Err(self.walk.fail(Fault::wrong_type($expected, $found)))
        })*
    };
}

macro_rules! refuse_scalars {
    ($expected:expr) => {
        refuse! { $expected;
            visit_bool(bool) "boolean", visit_i64(i64) "number", visit_u64(u64) "number", visit_f64(f64) "number",
            visit_str(&str) "string",
        }
    };
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = bool;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<bool, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = bool;

    refuse_scalars!("object");

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        Err(self.walk.fail(Fault::wrong_type("object", "list")))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Self { node, at, walk } = self;
        if walk.last_wins {
            return last_wins(node, at, walk, map);
        }
        walk.object += 1;
        let object = walk.object;
        let mut hint = 0;
        while let Some(found) = map.next_key_seed(KeySeed { node, hint })? {
            let Some(i) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let key = &mut node.keys[i];
            if key.seen == object {
                walk.duplicate = true;
                return Err(A::Error::custom("duplicate key"));
            }
            key.seen = object;
            hint = i + 1;
            let value = map.next_value_seed(WantsSeed { wants: &mut key.wants, at, walk: &mut *walk });
            if let Err(error) = value {
                walk.trail.key(&key.name);
                return Err(error);
            }
        }
        Ok(true)
    }
}

#[cold]
fn last_wins<'de, A: MapAccess<'de>>(
    node: &mut Node,
    at: usize,
    walk: &mut Walk,
    mut map: A,
) -> Result<bool, A::Error> {
    let mut values: Vec<Option<LazyValue<'de>>> = node.keys.iter().map(|_| None).collect();
    let mut hint = 0;
    while let Some(found) = map.next_key_seed(KeySeed { node, hint })? {
        match found {
            Some(i) => {
                values[i] = Some(map.next_value()?);
                hint = i + 1;
            }
            None => {
                map.next_value::<IgnoredAny>()?;
            }
        }
    }
    for (key, value) in node.keys.iter_mut().zip(&values) {
        let Some(value) = value else { continue };
        let seed = WantsSeed { wants: &mut key.wants, at, walk };
        walk_again::<_, A::Error>(seed, value.as_raw_str()).inspect_err(|_| walk.trail.key(&key.name))?;
    }
    Ok(true)
}

/// The number of a wanted key, `None` for others.
struct KeySeed<'a> {
    node: &'a Node,
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("key")
    }

    #[inline]
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.node.find(name, self.hint))
    }
}

/// A value and everything it is wanted for.
struct WantsSeed<'a> {
    wants: &'a mut [Want],
    at: usize,
    walk: &'a mut Walk,
}

impl<'de> DeserializeSeed<'de> for WantsSeed<'_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        let Self { wants, at, walk } = self;
        if let [want] = wants {
            return WantSeed { want, at, walk }.deserialize(parser);
        }
        let value: LazyValue<'de> = serde::Deserialize::deserialize(parser)?;
        wants.iter_mut().try_for_each(|want| walk_again(WantSeed { want, at, walk }, value.as_raw_str()))
    }
}

struct WantSeed<'a> {
    want: &'a mut Want,
    at: usize,
    walk: &'a mut Walk,
}

impl<'de> DeserializeSeed<'de> for WantSeed<'_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        let Self { want, at, walk } = self;
        match want {
            Want::Column { column, .. } => ColumnSeed { column, at, walk }.deserialize(parser),
            Want::Keys(node) => ObjectSeed { node, at, walk }.deserialize(parser).map(drop),
        }
    }
}

/// A value for position `at` of a column; null leaves the position open.
struct ColumnSeed<'a> {
    column: &'a mut Column,
    at: usize,
    walk: &'a mut Walk,
}

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        let Self { column, at, walk } = self;
        match column {
            Column::Leaf(leaf) => {
                let value: LazyValue<'de> = serde::Deserialize::deserialize(parser)?;
                leaf.put(value.as_raw_str(), at, &mut walk.meter).map_err(|fault| walk.fail(fault))
            }
            Column::List(list) => parser.deserialize_any(ListVisitor { list, at, walk }),
            Column::Map(map) => parser.deserialize_any(MapVisitor { map, at, walk }),
            Column::Struct(s) => put_struct(s, at, walk, parser),
        }
    }
}

fn put_struct<'de, D: Deserializer<'de>>(
    s: &mut Struct,
    at: usize,
    walk: &mut Walk,
    parser: D,
) -> Result<(), D::Error> {
    let present = ObjectSeed { node: &mut s.node, at, walk: &mut *walk }.deserialize(parser)?;
    if present {
        s.node.check_required(at, &mut walk.trail).map_err(|fault| walk.fail(fault))?;
        s.close(at);
    }
    Ok(())
}

struct ListVisitor<'a> {
    list: &'a mut List,
    at: usize,
    walk: &'a mut Walk,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    refuse_scalars!("list");

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.walk.fail(Fault::wrong_type("list", "object")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { list, at, walk } = self;
        let (first, width) = (list.slots.elements, list.child.width());
        loop {
            let position = list.slots.elements;
            let seed = ColumnSeed { column: &mut list.child, at: position, walk: &mut *walk };
            match elements.next_element_seed(seed) {
                Ok(Some(())) => list.slots.elements += 1,
                Ok(None) => break,
                Err(error) => {
                    walk.trail.index(position - first);
                    return Err(error);
                }
            }
        }
        walk.meter.bytes += (list.slots.elements - first) * width;
        list.slots.close(at).map_err(|fault| walk.fail(fault))
    }
}

struct MapVisitor<'a> {
    map: &'a mut Map,
    at: usize,
    walk: &'a mut Walk,
}

impl<'de> Visitor<'de> for MapVisitor<'_> {
    type Value = ();

    refuse_scalars!("object");

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.walk.fail(Fault::wrong_type("object", "list")))
    }

    /// A map cannot have a key twice, so it is read to its end first; the last value of a key counts.
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { map, at, walk } = self;
        let mut values: Vec<(String, LazyValue<'de>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        while let Some((key, value)) = entries.next_entry::<String, LazyValue<'de>>()? {
            if let Some(place) = places.get(&key) {
                values[*place].1 = value;
            } else {
                places.insert(key.clone(), values.len());
                values.push((key, value));
            }
        }
        let width = 4 + map.values.width();
        for (key, value) in &values {
            let position = map.slots.elements;
            map.keys.push_bytes(key.as_bytes(), position).map_err(|fault| walk.fail(fault))?;
            let seed = ColumnSeed { column: &mut map.values, at: position, walk };
            walk_again::<_, A::Error>(seed, value.as_raw_str()).inspect_err(|_| walk.trail.key(key))?;
            walk.meter.bytes += key.len() + width;
            map.slots.elements += 1;
        }
        map.slots.close(at).map_err(|fault| walk.fail(fault))
    }
}
