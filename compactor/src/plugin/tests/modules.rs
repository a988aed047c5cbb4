//! Plug-ins in the text form of WebAssembly.

use std::fmt::Write as _;

use super::super::world::{DataType, Digits, Flat};

/// What each function of the plug-in does; the first letter of its name calls it. All read one `long` and give `long`. What
/// stands in braces hangs on the version, see [`Layout`].
pub const BEHAVIOURS: [(&str, &str); 13] = [
    // The column as it came.
    ("same", "(call $column (local.get $in) (local.get $rows))"),
    ("forever", "(loop $l (br $l)) (unreachable)"),
    ("trap", "(unreachable)"),
    ("memory", "(drop (call $take (i32.const 0x7ff00000))) (unreachable)"),
    ("half", "(call $column (local.get $in) (i32.shr_u (local.get $rows) (i32.const 1)))"),
    ("beyond", "(call $refuse (local.get $in) (local.get $rows) (local.get $rows))"),
    ("odd", "(call $refuse (local.get $in) (local.get $rows) (i32.const 1))"),
    (
        "error",
        "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 1024))
         (i32.store (i32.const 72) (i32.const 5)) (i32.const 64)",
    ),
    // Traps on a value of 13.
    (
        "poison",
        "(block $done (loop $l
           (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
           (if (i64.eq (i64.const 13) (i64.load (i32.add
             (i32.load offset={values} (local.get $in)) (i32.shl (local.get $i) (i32.const 3))))) (then (unreachable)))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $l)))
         (call $column (local.get $in) (local.get $rows))",
    ),
    // What goes wrong is what the lowest of the values says: -1 burns fuel, -2 takes memory, -3 is an error, and -4 gives
    // more than may be.
    (
        "choosy",
        "(block $done (loop $l
           (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
           (local.set $v (i64.load (i32.add
             (i32.load offset={values} (local.get $in)) (i32.shl (local.get $i) (i32.const 3)))))
           (if (i64.eq (local.get $v) (i64.const -1)) (then (loop $m (br $m))))
           (if (i64.eq (local.get $v) (i64.const -2)) (then (drop (call $take (i32.const 0x7ff00000)))))
           (if (i64.eq (local.get $v) (i64.const -3)) (then
             (i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 1024))
             (i32.store (i32.const 72) (i32.const 5)) (return (i32.const 64))))
           (if (i64.eq (local.get $v) (i64.const -4)) (then
             (drop (call $column (local.get $in) (i32.const 75000))) (drop (call $take (i32.const 700000)))
             (i32.store (i32.const {pointer}) (i32.const 0)) (return (i32.const 64))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $l)))
         (call $column (local.get $in) (local.get $rows))",
    ),
    // Turns as often as the values say.
    (
        "loops",
        "(block $done (loop $l
           (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
           (local.set $v (i64.load (i32.add
             (i32.load offset={values} (local.get $in)) (i32.shl (local.get $i) (i32.const 3)))))
           (loop $m
             (local.set $v (i64.sub (local.get $v) (i64.const 1)))
             (br_if $m (i64.gt_s (local.get $v) (i64.const 0))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $l)))
         (call $column (local.get $in) (local.get $rows))",
    ),
    // Every value is null.
    (
        "null",
        "(drop (call $column (local.get $in) (local.get $rows)))
         (i32.store8 (i32.const {null}) (i32.const 1)) (i32.store offset=4 (i32.const {null}) (i32.const 400))
         (i32.store offset=8 (i32.const {null}) (i32.shr_u (i32.add (local.get $rows) (i32.const 7)) (i32.const 3))) (i32.const 64)",
    ),
    // 600,000 bytes whatever the rows.
    (
        "wide",
        "(drop (call $column (local.get $in) (i32.const 75000))) (drop (call $take (i32.const 700000)))
         (i32.store (i32.const {pointer}) (i32.const 0)) (i32.const 64)",
    ),
];

/// Where things lie in a version of `plugin.wit`.
#[derive(Clone, Copy)]
pub struct Layout {
    version: &'static str,
    /// Bytes of a column.
    column: u32,
    /// Where in a column the pointer to its values lies, behind which their length is.
    values: u32,
    /// Where in a column its validity lies.
    validity: u32,
    /// The type `long`.
    long: u32,
}

pub const FIRST: Layout = Layout { version: "1.0.0", column: 32, values: 24, validity: 4, long: 1 };
pub const SECOND: Layout = Layout { version: "2.0.0", column: 56, values: 48, validity: 28, long: 0x100 };

/// Where the column of a result lies.
const RESULT: u32 = 68;

impl Layout {
    fn fill(self, text: &str) -> String {
        let Self { version, column, values, validity, .. } = self;
        let numbers = [
            ("{column}", column),
            ("{values}", values),
            ("{pointer}", RESULT + values),
            ("{length}", RESULT + values + 4),
            ("{null}", RESULT + validity),
            ("{rejected}", RESULT + column),
        ];
        let text = text.replace("{version}", version);
        numbers.iter().fold(text, |text, (name, number)| text.replace(name, &number.to_string()))
    }
}

/// The core module: its functions as `BEHAVIOURS` say. `extra` stands at its beginning.
pub fn module(extra: &str) -> String {
    module_of(SECOND, extra)
}

/// The same in this version.
pub fn module_of(layout: Layout, extra: &str) -> String {
    // A record of a function takes 60 bytes; its texts are all its name, but for `rejects`, which may be empty.
    let (mut data, mut records, mut choice) = (String::new(), String::new(), String::new());
    for (i, (name, body)) in BEHAVIOURS.iter().enumerate() {
        let at = 2048 + i * 16;
        writeln!(data, "(data (i32.const {at}) \"{name}\")").unwrap();
        let refuses = if matches!(*name, "beyond" | "odd") { name.len() } else { 0 };
        // name, about; reads: one `long`; gives `long`; nulls: stay; rejects; no arguments.
        let long = layout.long as usize;
        let words = [at, name.len(), at, name.len(), 0, long, 0, long, 0, 0, 0, at, refuses, 0, 0];
        records.push_str(&bytes(&words.map(|word| word as u32)));
        writeln!(
            choice,
            "(if (i32.eq (i32.load8_u (local.get $name)) (i32.const {}))
               (then (return (block (result i32) {body}))))",
            name.as_bytes()[0]
        )
        .unwrap();
    }
    let text = format!(
        r#"(module {extra}
          (memory (export "memory") 1)
          (global $next (mut i32) (i32.const 8192))
          (data (i32.const 1024) "sorry")
          (data (i32.const 1100) "{records}")
          {data}
          (func $take (param $n i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.set $next (i32.add (local.get $at) (local.get $n)))
            (if (i32.gt_u (global.get $next) (i32.shl (memory.size) (i32.const 16))) (then
              (if (i32.eq (memory.grow (i32.add (i32.shr_u (local.get $n) (i32.const 16)) (i32.const 1)))
                          (i32.const -1)) (then (unreachable)))))
            (local.get $at))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $take (local.get 3)))
          (func (export "firn:plugin/functions@{{version}}#describe") (result i32)
            (i32.store (i32.const 16) (i32.const 1100)) (i32.store (i32.const 20) (i32.const {count})) (i32.const 16))
          ;; The column at $in with the values of so many rows, as a result.
          (func $column (param $in i32) (param $rows i32) (result i32)
            (memory.copy (i32.const 68) (local.get $in) (i32.const {{column}}))
            (i32.store (i32.const {{length}}) (i32.shl (local.get $rows) (i32.const 3)))
            (i32.store offset=4 (i32.const {{rejected}}) (i32.const 0))
            (i32.store8 (i32.const 64) (i32.const 0)) (i32.const 64))
          (func $refuse (param $in i32) (param $rows i32) (param $row i32) (result i32)
            (drop (call $column (local.get $in) (local.get $rows)))
            (i32.store (i32.const 200) (local.get $row))
            (i32.store (i32.const {{rejected}}) (i32.const 200))
            (i32.store offset=4 (i32.const {{rejected}}) (i32.ne (local.get $rows) (i32.const 0))) (i32.const 64))
          (func (export "firn:plugin/functions@{{version}}#call")
              (param $name i32) (param i32) (param i32) (param i32) (param $in i32) (param i32) (param $rows i32)
              (result i32) (local $i i32) (local $v i64)
            {choice} (unreachable)))"#,
        count = BEHAVIOURS.len(),
    );
    layout.fill(&text)
}

/// A type as it lies in memory.
fn word(of: DataType) -> u32 {
    let (number, digits) = match of.values() {
        Flat::Boolean => (0, [0, 0]),
        Flat::Long => (1, [0, 0]),
        Flat::Double => (2, [0, 0]),
        Flat::Text => (3, [0, 0]),
        Flat::Binary => (4, [0, 0]),
        Flat::Date => (5, [0, 0]),
        Flat::Timestamp => (6, [0, 0]),
        Flat::Timestamptz => (7, [0, 0]),
        Flat::Time => (8, [0, 0]),
        Flat::Decimal(Digits { precision, scale }) => (9, [precision, scale]),
        Flat::Json => (10, [0, 0]),
        Flat::Uuid => (11, [0, 0]),
    };
    u32::from_le_bytes([u8::from(matches!(of, DataType::List(_))), number, digits[0], digits[1]])
}

/// The name of the function of this number of [`relabelling`].
pub fn letter(number: usize) -> char {
    char::from(b'A' + u8::try_from(number).unwrap())
}

/// A core module of functions `A`, `B` and so on, each of which reads a column of the first type and gives its buffers as a
/// column of the second. `Z` reads and gives lists of `long`, and lets those that begin with 13 end before they begin.
pub fn relabelling(functions: &[(DataType, DataType)]) -> String {
    let lists = (DataType::List(Flat::Long), DataType::List(Flat::Long));
    let named = functions.iter().enumerate().map(|(i, types)| (letter(i), *types)).chain([('Z', lists)]);
    let (mut data, mut records) = (String::new(), String::new());
    for (name, (reads, gives)) in named {
        let (at, gives) = (1000 + u32::from(name), word(gives));
        writeln!(data, "(data (i32.const {at}) \"{name}\")").unwrap();
        writeln!(data, "(data (i32.const {}) \"{}\")", 2000 + 4 * u32::from(name), bytes(&[gives])).unwrap();
        records.push_str(&bytes(&[at, 1, at, 1, 0, word(reads), 0, gives, 0, 0, 0, at, 1, 0, 0]));
    }
    let count = functions.len() + 1;
    format!(
        r#"(module
          (memory (export "memory") 1)
          (global $next (mut i32) (i32.const 8192))
          (data (i32.const 4096) "{records}")
          {data}
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
            (global.set $next (i32.add (local.get $at) (local.get 3)))
            (if (i32.gt_u (global.get $next) (i32.shl (memory.size) (i32.const 16))) (then
              (drop (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1))))))
            (local.get $at))
          (func (export "firn:plugin/functions@2.0.0#describe") (result i32)
            (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const {count})) (i32.const 16))
          (func $backwards (param $in i32) (param $rows i32) (local $i i32) (local $at i32) (local $start i32)
            (block $done (loop $l
              (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
              (local.set $at (i32.add (i32.load offset=20 (local.get $in)) (i32.shl (local.get $i) (i32.const 2))))
              (local.set $start (i32.load (local.get $at)))
              (if (i32.lt_s (local.get $start) (i32.load offset=4 (local.get $at))) (then
                (if (i64.eq (i64.const 13) (i64.load (i32.add
                    (i32.load offset=48 (local.get $in)) (i32.shl (local.get $start) (i32.const 3))))) (then
                  (i32.store offset=4 (local.get $at) (i32.sub (local.get $start) (i32.const 1)))))))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br $l))))
          (func (export "firn:plugin/functions@2.0.0#call")
              (param $name i32) (param i32) (param i32) (param i32) (param $in i32) (param i32) (param $rows i32)
              (result i32)
            (if (i32.eq (i32.load8_u (local.get $name)) (i32.const 90)) (then
              (call $backwards (local.get $in) (local.get $rows))))
            (memory.copy (i32.const 68) (local.get $in) (i32.const 56))
            (i32.store (i32.const 68) (i32.load offset=2000
              (i32.shl (i32.load8_u (local.get $name)) (i32.const 2))))
            (i32.store8 (i32.const 64) (i32.const 0)) (i32.store (i32.const 128) (i32.const 0)) (i32.const 64)))"#
    )
}

/// Numbers as the text of WebAssembly writes bytes.
fn bytes(words: &[u32]) -> String {
    words.iter().flat_map(|word| word.to_le_bytes()).fold(String::new(), |text, byte| format!("{text}\\{byte:02x}"))
}
