//! The walk of one record along the tree of wanted keys.
//!
//! Objects and lists that are wanted are walked here; every other value is taken as raw text and given to its leaf, or
//! dropped. A fault comes back as an error, and its path is put together on the way out.

use std::collections::HashMap;

use super::column::{Column, List, Map, Struct};
use super::cursor::{Cursor, Raw};
use super::leaf::Meter;
use super::reject::{Fault, RejectKind, Trail, kind_of};
use super::text::unquote;
use super::tree::{Node, Want};

/// The state of a walk over one record.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub meter: Meter,
    pub trail: Trail,
    /// Set when the first walk met a duplicate key or a fault: a key's last value counts, so every object is read to its
    /// end before any of its values is taken.
    pub last_wins: bool,
    /// Number of the object being walked, over the life of the decoder.
    object: u64,
}

impl Walk {
    /// An object of wanted keys for position `at`; answers whether there was one (null is none).
    pub fn object(&mut self, cursor: &mut Cursor<'_>, node: &mut Node, at: usize) -> Result<bool, Fault> {
        if !opens(cursor, b'{', "object")? {
            return Ok(false);
        }
        if self.last_wins {
            return self.object_last_wins(cursor, node, at);
        }
        if cursor.eat(b'}')? {
            return Ok(true);
        }
        let object = self.next_object();
        let mut last = None;
        loop {
            match self.key(cursor, node, last)? {
                Some(i) => {
                    let key = &mut node.keys[i];
                    if key.seen == object {
                        return Err(Fault::duplicate());
                    }
                    key.seen = object;
                    last = Some(i);
                    if let Err(fault) = self.wants(cursor, &mut key.wants, at) {
                        self.trail.key(&key.name);
                        return Err(fault);
                    }
                }
                None => cursor.pass()?,
            }
            if !cursor.more(b'}')? {
                return Ok(true);
            }
        }
    }

    /// Takes a key and its colon; answers its number if it is wanted. `last` is the wanted key before it.
    #[inline]
    pub fn key(
        &mut self,
        cursor: &mut Cursor<'_>,
        node: &mut Node,
        last: Option<usize>,
    ) -> Result<Option<usize>, Fault> {
        cursor.peek()?;
        let likely = last.map_or(0, |last| node.keys[last].next);
        if node.keys.get(likely).is_some_and(|key| cursor.eat_key(&key.quoted)) {
            return Ok(Some(likely));
        }
        let found = cursor.key(node, &mut self.meter.scratch)?;
        if let (Some(last), Some(found)) = (last, found) {
            node.keys[last].next = found;
        }
        Ok(found)
    }

    /// The number of the next object.
    #[inline]
    pub fn next_object(&mut self) -> u64 {
        self.object += 1;
        self.object
    }

    #[cold]
    fn object_last_wins(&mut self, cursor: &mut Cursor<'_>, node: &mut Node, at: usize) -> Result<bool, Fault> {
        let mut values: Vec<Option<Raw<'_>>> = vec![None; node.keys.len()];
        if !cursor.eat(b'}')? {
            loop {
                let found = cursor.key(node, &mut self.meter.scratch)?;
                let value = cursor.raw()?;
                if let Some(i) = found {
                    values[i] = Some(value);
                }
                if !cursor.more(b'}')? {
                    break;
                }
            }
        }
        for (key, value) in node.keys.iter_mut().zip(&values) {
            let Some(value) = value else { continue };
            self.wants(&mut Cursor::again(*value), &mut key.wants, at).inspect_err(|_| self.trail.key(&key.name))?;
        }
        Ok(true)
    }

    /// A value and everything it is wanted for.
    #[inline]
    fn wants(&mut self, cursor: &mut Cursor<'_>, wants: &mut [Want], at: usize) -> Result<(), Fault> {
        if let [want] = wants {
            return self.want(cursor, want, at);
        }
        let value = cursor.raw()?;
        wants.iter_mut().try_for_each(|want| self.want(&mut Cursor::again(value), want, at))
    }

    #[inline]
    fn want(&mut self, cursor: &mut Cursor<'_>, want: &mut Want, at: usize) -> Result<(), Fault> {
        match want {
            Want::Column { column, .. } => self.column(cursor, column, at),
            Want::Keys(node) => self.object(cursor, node, at).map(drop),
        }
    }

    /// A value for position `at` of a column; null leaves the position open.
    #[inline]
    fn column(&mut self, cursor: &mut Cursor<'_>, column: &mut Column, at: usize) -> Result<(), Fault> {
        match column {
            Column::Leaf(leaf) => leaf.take(cursor, at, &mut self.meter),
            Column::List(list) => self.list(cursor, list, at),
            Column::Map(map) => self.map(cursor, map, at),
            Column::Struct(fields) => self.fields(cursor, fields, at),
        }
    }

    fn fields(&mut self, cursor: &mut Cursor<'_>, fields: &mut Struct, at: usize) -> Result<(), Fault> {
        if self.object(cursor, &mut fields.node, at)? {
            fields.node.check_required(at, &mut self.trail)?;
            fields.close(at);
        }
        Ok(())
    }

    fn list(&mut self, cursor: &mut Cursor<'_>, list: &mut List, at: usize) -> Result<(), Fault> {
        if !opens(cursor, b'[', "list")? {
            return Ok(());
        }
        let first = list.slots.elements;
        if !cursor.eat(b']')? {
            loop {
                let position = list.slots.elements;
                self.column(cursor, &mut list.child, position).inspect_err(|_| self.trail.index(position - first))?;
                list.slots.elements += 1;
                if !cursor.more(b']')? {
                    break;
                }
            }
        }
        self.meter.bytes += (list.slots.elements - first) * list.width;
        list.slots.close(at)
    }

    /// A map cannot have a key twice, so it is read to its end first; the last value of a key counts.
    fn map(&mut self, cursor: &mut Cursor<'_>, map: &mut Map, at: usize) -> Result<(), Fault> {
        if !opens(cursor, b'{', "object")? {
            return Ok(());
        }
        let mut values: Vec<(String, Raw<'_>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        if !cursor.eat(b'}')? {
            loop {
                let key = unquote(cursor.any_key()?, &mut self.meter.scratch).to_owned();
                let value = cursor.raw()?;
                if let Some(place) = places.get(&key) {
                    values[*place].1 = value;
                } else {
                    places.insert(key.clone(), values.len());
                    values.push((key, value));
                }
                if !cursor.more(b'}')? {
                    break;
                }
            }
        }
        for (key, value) in &values {
            let position = map.slots.elements;
            map.keys.push_text(key, position)?;
            let mut cursor = Cursor::again(*value);
            self.column(&mut cursor, &mut map.values, position).inspect_err(|_| self.trail.entry())?;
            self.meter.bytes += key.len() + map.width;
            map.slots.elements += 1;
        }
        map.slots.close(at)
    }
}

/// Takes the opening byte; answers `false` for null and a fault for everything else.
#[inline]
fn opens(cursor: &mut Cursor<'_>, byte: u8, expected: &str) -> Result<bool, Fault> {
    if cursor.peek()? == byte {
        cursor.take();
        return Ok(true);
    }
    let other = cursor.raw()?;
    if other.is_null() { Ok(false) } else { Err(Fault::wrong_type(expected, kind_of(other.text))) }
}

impl Fault {
    /// News for the decoder alone: walk again with `last_wins`.
    #[cold]
    fn duplicate() -> Self {
        Self::new(RejectKind::NotJson, "duplicate key")
    }
}
