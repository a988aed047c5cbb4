//! A column of any type: a [`Leaf`], or a list, map or struct of columns.
//!
//! Every column has positions. A struct's children share its positions; a list's child counts elements. As with leaves,
//! a column may lag behind its parent and is filled with nulls when needed.

use std::sync::Arc;

use arrow_array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, FieldRef, Fields};
use firn_shared::config::domain::Format;
use firn_shared::error::{Error, Result};
use firn_shared::types::LogicalType;

use super::leaf::Leaf;
use super::presence::Presence;
use super::reject::{Fault, RejectKind};
use super::tree::Node;
use super::values::Blanks;
use crate::arrow_types::{element_field, entries_field, entry_fields, struct_fields};

/// A column under construction.
#[derive(Debug)]
pub(super) enum Column {
    Leaf(Leaf),
    List(Box<List>),
    Map(Box<Map>),
    Struct(Box<Struct>),
}

/// Ordered elements.
#[derive(Debug)]
pub(super) struct List {
    pub slots: Slots,
    pub child: Column,
    /// Bytes of one element besides text.
    pub width: usize,
    field: FieldRef,
}

/// Text keys to values.
#[derive(Debug)]
pub(super) struct Map {
    pub slots: Slots,
    pub keys: Leaf,
    pub values: Column,
    /// Bytes of one entry besides text.
    pub width: usize,
    field: FieldRef,
    fields: Fields,
}

/// Named fields.
#[derive(Debug)]
pub(super) struct Struct {
    validity: Presence,
    pub node: Node,
    fields: Fields,
}

/// The positions of a list or map, and how many elements they hold together.
#[derive(Debug)]
pub(super) struct Slots {
    validity: Presence,
    offsets: Vec<i32>,
    /// Elements put so far, those of an unfinished position included.
    pub elements: usize,
}

impl Slots {
    fn new() -> Self {
        Self { validity: Presence::default(), offsets: vec![0], elements: 0 }
    }

    fn pad(&mut self, length: usize) {
        if length > self.validity.len() {
            self.validity.pad(length);
            let end = self.offsets[self.offsets.len() - 1];
            self.offsets.resize(length + 1, end);
        }
    }

    /// Ends position `at`: the elements put since the last one are its.
    pub fn close(&mut self, at: usize) -> Result<(), Fault> {
        let end = i32::try_from(self.elements);
        let end = end.map_err(|_| Fault::new(RejectKind::TooLarge, "list column would pass 2^31 elements"))?;
        self.pad(at);
        self.validity.push();
        self.offsets.push(end);
        Ok(())
    }

    /// Forgets the positions from `length` on, and an unfinished one; answers the elements that stay.
    fn truncate(&mut self, length: usize) -> usize {
        if length < self.validity.len() {
            self.validity.truncate(length);
            self.offsets.truncate(length + 1);
        }
        self.elements = self.offsets.last().map_or(0, |end| *end as usize);
        self.elements
    }

    fn finish(&mut self, length: usize) -> (OffsetBuffer<i32>, Option<arrow_buffer::NullBuffer>) {
        self.pad(length);
        self.elements = 0;
        (OffsetBuffer::new(std::mem::replace(&mut self.offsets, vec![0]).into()), self.validity.finish())
    }
}

impl Struct {
    /// Ends position `at` as present.
    pub fn close(&mut self, at: usize) {
        self.pad(at);
        self.validity.push();
    }

    fn pad(&mut self, length: usize) {
        self.validity.pad(length);
    }
}

impl Column {
    /// An empty column of `logical`; `name` is for messages.
    pub fn new(name: &str, logical: &LogicalType, format: Option<&Format>) -> Result<Self> {
        Ok(match logical {
            LogicalType::List(element) => {
                let child = Self::new(name, element, format)?;
                let (width, field) = (child.width(), Arc::new(element_field(element)));
                Self::List(Box::new(List { slots: Slots::new(), child, width, field }))
            }
            LogicalType::Map(value) => {
                let values = Self::new(name, value, format)?;
                Self::Map(Box::new(Map {
                    slots: Slots::new(),
                    keys: Leaf::new(LogicalType::String, None),
                    width: 4 + values.width(),
                    values,
                    field: Arc::new(entries_field(value)),
                    fields: entry_fields(value),
                }))
            }
            LogicalType::Struct(fields) => {
                if fields.is_empty() {
                    return Err(Error::config(format!("column {name}: a struct needs at least one field")));
                }
                let mut node = Node::default();
                for (i, field) in fields.iter().enumerate() {
                    if fields[..i].iter().any(|f| f.name == field.name) {
                        return Err(Error::config(format!("column {name}: field {} is named twice", field.name)));
                    }
                    let child = Self::new(&format!("{name}.{}", field.name), &field.r#type, format)?;
                    node.insert(std::slice::from_ref(&field.name), child, i, field.required);
                }
                node.seal();
                Self::Struct(Box::new(Struct { validity: Presence::default(), node, fields: struct_fields(fields) }))
            }
            leaf => Self::Leaf(Leaf::new(leaf.clone(), format.cloned())),
        })
    }

    /// Positions filled so far.
    pub fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len(),
            Self::List(list) => list.slots.validity.len(),
            Self::Map(map) => map.slots.validity.len(),
            Self::Struct(s) => s.validity.len(),
        }
    }

    /// Bytes that one position takes besides text and elements.
    pub fn width(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.width(),
            Self::List(_) | Self::Map(_) => 4,
            Self::Struct(s) => s.node.width(),
        }
    }

    /// Forgets every position from `length` on.
    pub fn truncate(&mut self, length: usize) {
        match self {
            Self::Leaf(leaf) => leaf.truncate(length),
            Self::List(list) => {
                let elements = list.slots.truncate(length);
                list.child.truncate(elements);
            }
            Self::Map(map) => {
                let elements = map.slots.truncate(length);
                map.keys.truncate(elements);
                map.values.truncate(elements);
            }
            Self::Struct(s) => {
                s.validity.truncate(length);
                s.node.truncate(length);
            }
        }
    }

    /// The column as an array of `length`; the column is empty afterwards.
    pub fn finish(&mut self, length: usize, blanks: &mut Blanks) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Leaf(leaf) => leaf.finish(length, blanks)?,
            Self::List(list) => {
                let child = list.child.finish(list.slots.elements, blanks)?;
                let (offsets, nulls) = list.slots.finish(length);
                Arc::new(ListArray::try_new(list.field.clone(), offsets, child, nulls)?)
            }
            Self::Map(map) => {
                let elements = map.slots.elements;
                let entries = vec![map.keys.finish(elements, blanks)?, map.values.finish(elements, blanks)?];
                let entries = StructArray::try_new(map.fields.clone(), entries, None)?;
                let (offsets, nulls) = map.slots.finish(length);
                Arc::new(MapArray::try_new(map.field.clone(), offsets, entries, nulls, false)?)
            }
            Self::Struct(s) => {
                s.pad(length);
                let nulls = s.validity.finish();
                let children = s.node.finish(s.fields.len(), length, blanks)?;
                Arc::new(StructArray::try_new(s.fields.clone(), children, nulls)?)
            }
        })
    }
}
