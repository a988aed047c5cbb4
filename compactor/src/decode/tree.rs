//! The wanted paths of a payload as a tree of keys, compiled once, walked by every record.
//!
//! A key may be wanted for several things at once: `$.payload` as text and `$.payload.size` as a number.

use arrow_array::ArrayRef;
use arrow_schema::ArrowError;

use super::column::Column;
use super::cursor::Quoted;
use super::reject::{Fault, RejectKind, Trail};
use super::values::Blanks;

/// What is wanted of an object.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// In order of their first mention.
    pub keys: Vec<Key>,
    index: KeyIndex,
    /// Keys below which something must be there.
    required: Vec<usize>,
}

/// A wanted key.
#[derive(Debug)]
pub(super) struct Key {
    pub name: Box<str>,
    pub quoted: Quoted,
    /// The object it was last seen in: seen twice in one object, it is a duplicate.
    pub seen: u64,
    /// The wanted key that came behind it the last time, and will again, as writers have their order.
    pub next: usize,
    pub wants: Vec<Want>,
}

/// What becomes of a key's value.
#[derive(Debug)]
pub(super) enum Want {
    /// Its own keys are wanted.
    Keys(Node),
    /// It is a column.
    Column { column: Column, out: usize, required: bool },
}

impl Node {
    /// Wants the value at `path` as column number `out`.
    pub fn insert(&mut self, path: &[String], column: Column, out: usize, required: bool) {
        let Some((name, rest)) = path.split_first() else { return };
        let at = self.keys.iter().position(|k| *k.name == **name).unwrap_or_else(|| {
            let at = self.keys.len();
            self.keys.push(Key { next: at + 1, ..Key::new(name) });
            at
        });
        let wants = &mut self.keys[at].wants;
        if rest.is_empty() {
            wants.push(Want::Column { column, out, required });
            return;
        }
        if let Some(node) = wants.iter_mut().find_map(|w| if let Want::Keys(node) = w { Some(node) } else { None }) {
            node.insert(rest, column, out, required);
        } else {
            let mut node = Self::default();
            node.insert(rest, column, out, required);
            wants.push(Want::Keys(node));
        }
    }

    /// Builds the look-up tables, once every path is in.
    pub fn seal(&mut self) {
        for key in &mut self.keys {
            for want in &mut key.wants {
                if let Want::Keys(node) = want {
                    node.seal();
                }
            }
        }
        self.index = KeyIndex::new(&self.keys);
        self.required = (0..self.keys.len()).filter(|i| self.keys[*i].wants.iter().any(Want::is_required)).collect();
    }

    /// The number of the wanted key of this name.
    #[inline]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.index.find(name, &self.keys)
    }

    /// Checks that what is required at position `at` is there.
    pub fn check_required(&self, at: usize, trail: &mut Trail) -> Result<(), Fault> {
        for i in &self.required {
            let key = &self.keys[*i];
            for want in &key.wants {
                let found = match want {
                    Want::Keys(node) => node.check_required(at, trail),
                    Want::Column { column, required, .. } if *required && column.len() <= at => {
                        Err(Fault::new(RejectKind::Missing, "required, found nothing or null"))
                    }
                    Want::Column { .. } => Ok(()),
                };
                found.inspect_err(|_| trail.key(&key.name))?;
            }
        }
        Ok(())
    }

    /// As [`Self::check_required`], for the columns of which `needed` says so.
    #[cold]
    pub fn check_needed(&self, at: usize, needed: &[bool], trail: &mut Trail) -> Result<(), Fault> {
        for key in &self.keys {
            for want in &key.wants {
                let found = match want {
                    Want::Keys(node) => node.check_needed(at, needed, trail),
                    Want::Column { column, out, .. } if needed.get(*out) == Some(&true) && column.len() <= at => {
                        Err(Fault::new(RejectKind::Missing, "a delete needs it, found nothing or null"))
                    }
                    Want::Column { .. } => Ok(()),
                };
                found.inspect_err(|_| trail.key(&key.name))?;
            }
        }
        Ok(())
    }

    fn columns(&mut self, visit: &mut impl FnMut(&mut Column, usize)) {
        for want in self.keys.iter_mut().flat_map(|k| &mut k.wants) {
            match want {
                Want::Keys(node) => node.columns(visit),
                Want::Column { column, out, .. } => visit(column, *out),
            }
        }
    }

    /// Forgets every position from `length` on.
    pub fn truncate(&mut self, length: usize) {
        for want in self.keys.iter_mut().flat_map(|k| &mut k.wants) {
            match want {
                Want::Keys(node) => node.truncate(length),
                Want::Column { column, .. } => column.truncate(length),
            }
        }
    }

    /// Bytes that one position takes besides text and elements.
    pub fn width(&self) -> usize {
        let wants = self.keys.iter().flat_map(|k| &k.wants);
        wants
            .map(|w| match w {
                Want::Keys(node) => node.width(),
                Want::Column { column, .. } => column.width(),
            })
            .sum()
    }

    /// The `count` columns as arrays of `length`, by column number.
    pub fn finish(&mut self, count: usize, length: usize, blanks: &mut Blanks) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut arrays = vec![None; count];
        let mut failed = None;
        self.columns(&mut |column, out| match column.finish(length, blanks) {
            Ok(array) => arrays[out] = Some(array),
            Err(error) => failed = Some(error),
        });
        if let Some(error) = failed {
            return Err(error);
        }
        arrays.into_iter().map(|a| a.ok_or_else(|| ArrowError::SchemaError("a column has no path".into()))).collect()
    }
}

impl Key {
    fn new(name: &str) -> Self {
        Self { name: name.into(), quoted: Quoted::new(name), seen: 0, next: 0, wants: Vec::new() }
    }
}

impl Want {
    fn is_required(&self) -> bool {
        match self {
            Self::Keys(node) => !node.required.is_empty(),
            Self::Column { required, .. } => *required,
        }
    }
}

/// A hash table from key names to their numbers. It holds configured names only, so no input can make it degenerate.
#[derive(Debug, Default)]
struct KeyIndex {
    /// Key number plus one; zero is empty. A power of two long, at most half full.
    table: Vec<u32>,
}

impl KeyIndex {
    fn new(keys: &[Key]) -> Self {
        let mut table = vec![0u32; (keys.len() * 2).next_power_of_two().max(4)];
        let mask = table.len() - 1;
        for (i, key) in keys.iter().enumerate() {
            let mut at = hash(key.name.as_bytes()) & mask;
            while table[at] != 0 {
                at = (at + 1) & mask;
            }
            table[at] = i as u32 + 1;
        }
        Self { table }
    }

    #[inline]
    fn find(&self, name: &str, keys: &[Key]) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let mask = self.table.len() - 1;
        let mut at = hash(name.as_bytes()) & mask;
        loop {
            let number = (self.table[at] as usize).checked_sub(1)?;
            if *keys[number].name == *name {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
    }
}

/// Length, first eight and last eight bytes: names of one object rarely agree in all three.
#[inline]
fn hash(name: &[u8]) -> usize {
    let word = |bytes: &[u8]| {
        let mut buffer = [0u8; 8];
        buffer[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(buffer)
    };
    let near = name.len().min(8);
    let mixed = word(&name[..near]) ^ word(&name[name.len() - near..]).rotate_left(29) ^ name.len() as u64;
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}
