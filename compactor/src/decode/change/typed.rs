//! DynamoDB's typed JSON into the same columns as plain JSON: `{"id":{"N":"1"},"tags":{"SS":["a"]}}`.
//!
//! `S` is a string, `N` a number whose digits pass as they are (into strings too), `BOOL` a boolean, `B` binary, `L` and the
//! sets are lists, `M` is a map or a struct, and `NULL` is null. A json column gets the value as plain JSON: numbers as
//! numbers, sets as lists, binary as base64. What an attribute is not said to be, it is not: a mismatch is a fault.

use std::collections::HashSet;

use firn_shared::types::LogicalType;

use super::super::column::{Column, List, Map};
use super::super::cursor::{Cursor, Raw};
use super::super::leaf::Leaf;
use super::super::number::{NumberFault, is_number};
use super::super::reject::{Fault, RejectKind, kind_of};
use super::super::text::unquote;
use super::super::tree::{Node, Want};
use super::super::walk::Walk;

/// An attribute value: its type's tag and what stands behind it.
#[derive(Debug, Clone, Copy)]
struct Typed<'a> {
    tag: Tag,
    raw: Raw<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    String,
    Number,
    Boolean,
    Null,
    Binary,
    Map,
    List,
    Strings,
    Numbers,
    Binaries,
}

impl Tag {
    fn of(key: &str) -> Option<Self> {
        Some(match key {
            "\"S\"" => Self::String,
            "\"N\"" => Self::Number,
            "\"BOOL\"" => Self::Boolean,
            "\"NULL\"" => Self::Null,
            "\"B\"" => Self::Binary,
            "\"M\"" => Self::Map,
            "\"L\"" => Self::List,
            "\"SS\"" => Self::Strings,
            "\"NS\"" => Self::Numbers,
            "\"BS\"" => Self::Binaries,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::String => "string (S)",
            Self::Number => "number (N)",
            Self::Boolean => "boolean (BOOL)",
            Self::Null => "null (NULL)",
            Self::Binary => "binary (B)",
            Self::Map => "map (M)",
            Self::List => "list (L)",
            Self::Strings => "set of strings (SS)",
            Self::Numbers => "set of numbers (NS)",
            Self::Binaries => "set of binaries (BS)",
        }
    }

    /// The first byte of what stands behind the tag.
    fn starts(self, byte: u8) -> bool {
        match self {
            Self::String | Self::Number | Self::Binary => byte == b'"',
            Self::Boolean | Self::Null => matches!(byte, b't' | b'f'),
            Self::Map => byte == b'{',
            Self::List | Self::Strings | Self::Numbers | Self::Binaries => byte == b'[',
        }
    }

    /// What the elements of a set are; `None` for what is no set.
    fn element(self) -> Option<Self> {
        match self {
            Self::Strings => Some(Self::String),
            Self::Numbers => Some(Self::Number),
            Self::Binaries => Some(Self::Binary),
            _ => None,
        }
    }
}

/// Takes one attribute value, `{"N":"1"}`.
fn typed<'a>(cursor: &mut Cursor<'a>) -> Result<Typed<'a>, Fault> {
    if cursor.peek()? != b'{' {
        let found = kind_of(cursor.raw()?.text);
        return Err(Fault::wrong_type("a typed value such as {\"S\": …}", found));
    }
    cursor.take();
    let one =
        || Fault::new(RejectKind::BadFormat, "a typed value has exactly one of S, N, BOOL, NULL, B, M, L, SS, NS, BS");
    if cursor.eat(b'}')? {
        return Err(one());
    }
    let tag = Tag::of(cursor.any_key()?.text);
    let raw = cursor.raw()?;
    if cursor.more(b'}')? {
        return Err(one());
    }
    let value = Typed { tag: tag.ok_or_else(one)?, raw };
    check_kind(value)?;
    Ok(value)
}

fn check_kind(value: Typed<'_>) -> Result<(), Fault> {
    let Typed { tag, raw } = value;
    if !tag.starts(raw.text.as_bytes()[0]) {
        return Err(Fault::wrong_type(tag.name(), kind_of(raw.text)));
    }
    if tag == Tag::Number && !is_number(inner(raw).as_bytes()) {
        return Err(NumberFault::Malformed.of("a number"));
    }
    Ok(())
}

fn inner(raw: Raw<'_>) -> &str {
    &raw.text[1..raw.text.len() - 1]
}

fn duplicate() -> Fault {
    Fault::new(RejectKind::NotJson, "an attribute comes twice")
}

impl Walk {
    /// The attributes of an item for position `at`, the cursor before the brace.
    pub(in super::super) fn item(&mut self, cursor: &mut Cursor<'_>, node: &mut Node, at: usize) -> Result<(), Fault> {
        cursor.open()?;
        if cursor.eat(b'}')? {
            return Ok(());
        }
        let object = self.next_object();
        let mut last = None;
        loop {
            match self.key(cursor, node, last)? {
                Some(i) => {
                    let key = &mut node.keys[i];
                    if key.seen == object {
                        return Err(duplicate());
                    }
                    key.seen = object;
                    last = Some(i);
                    let taken = typed(cursor)
                        .and_then(|value| key.wants.iter_mut().try_for_each(|want| self.attribute(value, want, at)));
                    taken.inspect_err(|_| self.trail.key(&key.name))?;
                }
                None => drop(cursor.raw()?),
            }
            if !cursor.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn attribute(&mut self, value: Typed<'_>, want: &mut Want, at: usize) -> Result<(), Fault> {
        match want {
            Want::Column { column, .. } => self.typed_column(value, column, at),
            Want::Keys(_) if value.tag == Tag::Null => Ok(()),
            Want::Keys(node) if value.tag == Tag::Map => self.item(&mut Cursor::again(value.raw), node, at),
            Want::Keys(_) => Err(Fault::wrong_type("map (M)", value.tag.name())),
        }
    }

    fn typed_column(&mut self, value: Typed<'_>, column: &mut Column, at: usize) -> Result<(), Fault> {
        if value.tag == Tag::Null {
            return Ok(());
        }
        match (column, value.tag) {
            (Column::Leaf(leaf), _) => self.typed_leaf(value, leaf, at),
            (Column::List(list), Tag::List | Tag::Strings | Tag::Numbers | Tag::Binaries) => {
                self.typed_list(value, list, at)
            }
            (Column::List(_), tag) => Err(Fault::wrong_type("list", tag.name())),
            (Column::Map(map), Tag::Map) => self.typed_map(value, map, at),
            (Column::Struct(fields), Tag::Map) => {
                self.item(&mut Cursor::again(value.raw), &mut fields.node, at)?;
                fields.node.check_required(at, &mut self.trail)?;
                fields.close(at);
                Ok(())
            }
            (Column::Map(_) | Column::Struct(_), tag) => Err(Fault::wrong_type("map (M)", tag.name())),
        }
    }

    fn typed_leaf(&mut self, Typed { tag, raw }: Typed<'_>, leaf: &mut Leaf, at: usize) -> Result<(), Fault> {
        let text = matches!(leaf.logical(), LogicalType::String);
        let binary = matches!(leaf.logical(), LogicalType::Binary);
        match tag {
            _ if *leaf.logical() == LogicalType::Json && !(leaf.is_encoded() && tag == Tag::String) => {
                let mut plain = String::new();
                write_plain(Typed { tag, raw }, &mut plain)?;
                leaf.put(Raw { text: &plain, escaped: false }, at, &mut self.meter)
            }
            Tag::String if !binary => leaf.put(raw, at, &mut self.meter),
            Tag::Number if text => leaf.put(raw, at, &mut self.meter),
            Tag::Number => leaf.put(Raw { text: inner(raw), escaped: false }, at, &mut self.meter),
            Tag::Boolean => leaf.put(raw, at, &mut self.meter),
            Tag::Binary if binary => leaf.put(raw, at, &mut self.meter),
            _ => Err(Fault::wrong_type(leaf.logical(), tag.name())),
        }
    }

    fn typed_list(&mut self, value: Typed<'_>, list: &mut List, at: usize) -> Result<(), Fault> {
        let first = list.slots.elements;
        let mut cursor = Cursor::again(value.raw);
        cursor.take();
        if !cursor.eat(b']')? {
            loop {
                let position = list.slots.elements;
                let element = element(value.tag, &mut cursor);
                let taken = element.and_then(|element| self.typed_column(element, &mut list.child, position));
                taken.inspect_err(|_| self.trail.index(position - first))?;
                list.slots.elements += 1;
                if !cursor.more(b']')? {
                    break;
                }
            }
        }
        self.meter.bytes += (list.slots.elements - first) * list.width;
        list.slots.close(at)
    }

    fn typed_map(&mut self, value: Typed<'_>, map: &mut Map, at: usize) -> Result<(), Fault> {
        let mut cursor = Cursor::again(value.raw);
        let mut names = HashSet::new();
        cursor.take();
        if !cursor.eat(b'}')? {
            loop {
                let key = unquote(cursor.any_key()?, &mut self.meter.scratch).to_owned();
                let position = map.slots.elements;
                map.keys.push_text(&key, position)?;
                let taken = typed(&mut cursor).and_then(|value| self.typed_column(value, &mut map.values, position));
                taken.inspect_err(|_| self.trail.entry())?;
                self.meter.bytes += key.len() + map.width;
                map.slots.elements += 1;
                if !names.insert(key) {
                    return Err(duplicate());
                }
                if !cursor.more(b'}')? {
                    break;
                }
            }
        }
        map.slots.close(at)
    }
}

/// The next element of a list or set.
fn element<'a>(tag: Tag, cursor: &mut Cursor<'a>) -> Result<Typed<'a>, Fault> {
    let Some(tag) = tag.element() else { return typed(cursor) };
    let value = Typed { tag, raw: cursor.raw()? };
    check_kind(value)?;
    Ok(value)
}

/// Writes a value as plain JSON. Its depth is bounded, see [`super::super::check`].
fn write_plain(value: Typed<'_>, out: &mut String) -> Result<(), Fault> {
    let Typed { tag, raw } = value;
    match tag {
        Tag::String | Tag::Binary | Tag::Boolean => out.push_str(raw.text),
        Tag::Number => out.push_str(inner(raw)),
        Tag::Null => out.push_str("null"),
        Tag::List | Tag::Strings | Tag::Numbers | Tag::Binaries => {
            let mut cursor = Cursor::again(raw);
            cursor.take();
            out.push('[');
            if !cursor.eat(b']')? {
                loop {
                    write_plain(element(tag, &mut cursor)?, out)?;
                    if !cursor.more(b']')? {
                        break;
                    }
                    out.push(',');
                }
            }
            out.push(']');
        }
        Tag::Map => {
            let mut cursor = Cursor::again(raw);
            cursor.take();
            out.push('{');
            if !cursor.eat(b'}')? {
                loop {
                    out.push_str(cursor.any_key()?.text);
                    out.push(':');
                    write_plain(typed(&mut cursor)?, out)?;
                    if !cursor.more(b'}')? {
                        break;
                    }
                    out.push(',');
                }
            }
            out.push('}');
        }
    }
    Ok(())
}
