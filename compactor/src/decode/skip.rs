//! Over an object or list that nobody looks into, checked against the JSON grammar all the same.
//!
//! Quotes tell which bytes are text; of the rest only operators and first bytes of values matter, and they come out of a
//! block as the bits of one mask. A table follows the grammar from one to the next. The letters behind backslashes have
//! been checked before, see [`super::check`].

use super::blocks::{BLOCK, Masks, escaped, odd_so_far, padded, per_processor};
use super::number;

/// Why there is no end of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The grammar is violated at this byte.
    At(usize),
    /// The text ends first.
    Truncated,
}

per_processor! {
    /// The end of the object or list that begins at `start`.
    pub(super) fn container(bytes: &[u8], start: usize) -> Result<usize, Broken> = follow;
}

/// What may come next: a row of the table [`NEXT`].
mod state {
    /// The first key of an object, or its end.
    pub const OBJECT: u8 = 0;
    /// A key.
    pub const KEY: u8 = 1 << 3;
    pub const COLON: u8 = 2 << 3;
    /// A value in an object.
    pub const VALUE: u8 = 3 << 3;
    /// A comma in an object, or its end.
    pub const BEHIND_VALUE: u8 = 4 << 3;
    /// The first element of a list, or its end.
    pub const LIST: u8 = 5 << 3;
    pub const ELEMENT: u8 = 6 << 3;
    /// A comma in a list, or its end.
    pub const BEHIND_ELEMENT: u8 = 7 << 3;
    /// Not in the table: nothing may come.
    pub const NONE: u8 = 0xff;
    /// Set when more than the state changes.
    pub const ACT: u8 = 0x80;
}

/// What a byte begins, or is.
mod class {
    pub const TEXT: u8 = 0;
    pub const COLON: u8 = 1;
    pub const COMMA: u8 = 2;
    pub const OPEN_OBJECT: u8 = 3;
    pub const OPEN_LIST: u8 = 4;
    pub const CLOSE_OBJECT: u8 = 5;
    pub const CLOSE_LIST: u8 = 6;
    /// A number, `true`, `false`, `null` or what is nothing.
    pub const BARE: u8 = 7;
}

const CLASSES: [u8; 256] = {
    let mut classes = [class::BARE; 256];
    classes[b'"' as usize] = class::TEXT;
    classes[b':' as usize] = class::COLON;
    classes[b',' as usize] = class::COMMA;
    classes[b'{' as usize] = class::OPEN_OBJECT;
    classes[b'[' as usize] = class::OPEN_LIST;
    classes[b'}' as usize] = class::CLOSE_OBJECT;
    classes[b']' as usize] = class::CLOSE_LIST;
    classes
};

/// The next state by state and class.
const NEXT: [u8; 64] = {
    use class::{BARE, CLOSE_LIST, CLOSE_OBJECT, COMMA, OPEN_LIST, OPEN_OBJECT, TEXT};
    use state::{ACT, BEHIND_ELEMENT, BEHIND_VALUE, COLON, ELEMENT, KEY, LIST, NONE, OBJECT, VALUE};
    let mut next = [NONE; 64];
    let values = [(VALUE, BEHIND_VALUE), (LIST, BEHIND_ELEMENT), (ELEMENT, BEHIND_ELEMENT)];
    let mut i = 0;
    while i < values.len() {
        let (state, behind) = values[i];
        next[(state | TEXT) as usize] = behind;
        next[(state | BARE) as usize] = behind | ACT;
        next[(state | OPEN_OBJECT) as usize] = OBJECT | ACT;
        next[(state | OPEN_LIST) as usize] = LIST | ACT;
        i += 1;
    }
    next[(OBJECT | TEXT) as usize] = COLON;
    next[(KEY | TEXT) as usize] = COLON;
    next[(COLON | class::COLON) as usize] = VALUE;
    next[(BEHIND_VALUE | COMMA) as usize] = KEY;
    next[(BEHIND_ELEMENT | COMMA) as usize] = ELEMENT;
    // The state behind a closing bracket is that of the container around it.
    next[(OBJECT | CLOSE_OBJECT) as usize] = ACT;
    next[(BEHIND_VALUE | CLOSE_OBJECT) as usize] = ACT;
    next[(LIST | CLOSE_LIST) as usize] = ACT;
    next[(BEHIND_ELEMENT | CLOSE_LIST) as usize] = ACT;
    next
};

/// The grammar, between two bytes that matter.
struct Grammar {
    state: u8,
    /// A bit for each open container, the innermost lowest: whether it is an object.
    objects: u128,
    depth: u32,
}

impl Grammar {
    /// Does what the byte at `at` asks for besides the next state; answers whether the outermost container ends with it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "else it is not compiled for the processor, see `per_processor`")]
    fn act(&mut self, bytes: &[u8], at: usize, class: u8) -> Result<bool, Broken> {
        match class {
            class::OPEN_OBJECT | class::OPEN_LIST => {
                if self.depth == u128::BITS {
                    return Err(Broken::At(at));
                }
                self.objects = self.objects << 1 | u128::from(class == class::OPEN_OBJECT);
                self.depth += 1;
            }
            class::BARE => bare(bytes, at)?,
            _ => {
                self.depth -= 1;
                self.objects >>= 1;
                self.state = if self.objects & 1 == 1 { state::BEHIND_VALUE } else { state::BEHIND_ELEMENT };
                return Ok(self.depth == 0);
            }
        }
        Ok(false)
    }
}

/// Checks the number or literal at `at`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "else it is not compiled for the processor, see `per_processor`")]
fn bare(bytes: &[u8], at: usize) -> Result<(), Broken> {
    let length = match bytes[at] {
        b't' => bytes[at..].starts_with(b"true").then_some(4),
        b'f' => bytes[at..].starts_with(b"false").then_some(5),
        b'n' => bytes[at..].starts_with(b"null").then_some(4),
        _ => number::length(&bytes[at..]),
    };
    let end = at + length.ok_or(Broken::At(at))?;
    match bytes.get(end) {
        Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r') => Ok(()),
        Some(_) => Err(Broken::At(end)),
        None => Err(Broken::Truncated),
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "else it is not compiled for the processor, see `per_processor`")]
fn follow(bytes: &[u8], start: usize, masks: impl Fn(&[u8; BLOCK]) -> Masks) -> Result<usize, Broken> {
    // As if the container were an element of a list.
    let mut grammar = Grammar { state: state::ELEMENT, objects: 0, depth: 0 };
    let (mut carry, mut inside, mut before) = (0u64, 0u64, 0u64);
    let mut from = start;
    while from < bytes.len() {
        let masks = match bytes[from..].first_chunk::<BLOCK>() {
            Some(block) => masks(block),
            None => masks(&padded(&bytes[from..])),
        };
        let quote = masks.quote & !escaped(masks.backslash, &mut carry);
        // From an opening quote to the byte before the closing one.
        let text = odd_so_far(quote) ^ inside;
        inside = (text.cast_signed() >> 63).cast_unsigned();
        let wrong = if masks.control == 0 { None } else { wrong_control(&bytes[from..], masks.control, text) };
        let other = !(masks.operator | masks.space | masks.quote);
        let first = !(masks.operator | masks.space) & !(other << 1 | before);
        before = other >> 63;
        let mut bits = (masks.operator | first) & !(text ^ quote);
        if let Some(wrong) = wrong {
            // The container may end before it.
            bits &= (1 << wrong) - 1;
        }
        while bits != 0 {
            let at = from + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let class = CLASSES[usize::from(bytes[at])];
            let next = NEXT[usize::from((grammar.state | class) & 63)];
            if next < state::ACT {
                grammar.state = next;
            } else if next == state::NONE {
                return Err(Broken::At(at));
            } else {
                grammar.state = next & !state::ACT;
                if grammar.act(bytes, at, class)? {
                    return Ok(at + 1);
                }
            }
        }
        if let Some(wrong) = wrong {
            return Err(Broken::At(from + wrong));
        }
        from += BLOCK;
    }
    Err(Broken::Truncated)
}

/// The first control character that is not white space between values.
#[cold]
fn wrong_control(block: &[u8], control: u64, text: u64) -> Option<usize> {
    let mut in_order = (0..BLOCK).filter(|at| control >> at & 1 == 1);
    in_order.find(|at| text >> at & 1 == 1 || !matches!(block[*at], b'\n' | b'\t' | b'\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    /// The end as `serde_json` finds it.
    fn plainly(text: &str) -> Option<usize> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        Some(values.byte_offset())
    }

    fn check(text: &str) {
        // Nobody comes here with escapes that are none.
        if super::super::check::check(text.as_bytes()).is_err() {
            return;
        }
        let expected = plainly(text);
        assert_eq!(container(text.as_bytes(), 0).ok(), expected, "{text}");
        let in_words = follow(text.as_bytes(), 0, super::super::blocks::portable);
        assert_eq!(in_words.ok(), expected, "{text}");
        // Wherever it begins in its block.
        let shifted = format!("\"\\\\\" {text}");
        assert_eq!(container(shifted.as_bytes(), 5).ok(), expected.map(|end| end + 5), "{text}");
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\"",
            "\"a\\\"b\"",
            "\"\\\\\"",
            "\"\\\\\\\"\"",
            "1",
            "-0.5e+3",
            "01",
            "true",
            "false",
            "null",
            "nul",
            "tru",
            " ",
            "\n",
            "\t",
            "\r",
            "\u{b}",
            "\"\n\"",
            "\"",
            "\"{[,:]}\"",
            "-",
            "é",
            "\"é\"",
            "\"a\":",
            "\"a\":1",
            "[]",
            "{}",
            "{\"a\":[1,2]}",
            "\"long text with , and : and { in it, on and on\"",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_sequence_of_tokens_ends_where_serde_json_says(pieces in prop::collection::vec(piece(), 0..40), list: bool) {
            check(&format!("{}{}", if list { "[" } else { "{" }, pieces.concat()));
        }

        #[test]
        fn a_container_damaged_anywhere_is_refused_as_serde_json_refuses_it(
            value in nested(),
            at: prop::sample::Index,
            piece in piece(),
            cut in 0..3usize,
        ) {
            let mut text = format!("[{value}, {{\"k\":{value}}}]rest");
            check(&text);
            let at = at.index(text.len());
            if text.is_char_boundary(at) {
                let end = (at + cut).min(text.len());
                if text.is_char_boundary(end) {
                    text.replace_range(at..end, piece);
                    if text.starts_with(['[', '{']) {
                        check(&text);
                    }
                }
            }
        }
    }

    fn nested() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i32>().prop_map(serde_json::Value::from),
            (-1e9..1e9).prop_map(serde_json::Value::from),
            ".{0,80}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,9}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn nesting_and_long_texts_cross_blocks() {
        for depth in [1, 63, 64, 65, 120] {
            check(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
            check(&format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
            check(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth - 1)));
        }
        for length in 0..200 {
            check(&format!("[\"{}\",1]", "x".repeat(length)));
            check(&format!("[\"{}\\\\\",1]", "x".repeat(length)));
            check(&format!("[\"{}\\\"\",1]", "\\\\".repeat(length)));
            check(&format!("[{},1]", "1".repeat(length)));
            check(&format!("[1{},1]", " ".repeat(length)));
            check(&format!("[\"{}\n\"]", "x".repeat(length)));
        }
        let deep = "[".repeat(200);
        assert_eq!(container(deep.as_bytes(), 0), Err(Broken::At(128)));
        assert_eq!(container(b"[1", 0), Err(Broken::Truncated));
    }
}
