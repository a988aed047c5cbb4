//! A plug-in that does everything wrong that one can do, in the text form of WebAssembly; and the shipped one, compiled anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use firn_shared::config::domain::{self, PluginLimits, PluginSpec, StoreUrl};
use firn_shared::error::{ErrorKind, Result};
use firn_shared::functions::{Functions, Nulls};
use firn_shared::ids::PluginName;
use firn_shared::types::LogicalType;
use proptest::prelude::*;

use super::component::{component, described};
use super::describe::functions;
use super::host::{Column, DataType, Failed, Plugin, columns};
use super::layout::{NoColumn, lift, lower};
use super::load::load;
use crate::decode::RejectKind;
use crate::transform::kernel::{self, Batch, Call, Made, Own, Work};
use crate::transform::{References, Transformer, cases};

/// What each function of the plug-in does; the first letter of its name calls it. All read one `long` and give `long`.
const BEHAVIOURS: [(&str, &str); 13] = [
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
             (i32.load offset=24 (local.get $in)) (i32.shl (local.get $i) (i32.const 3))))) (then (unreachable)))
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
             (i32.load offset=24 (local.get $in)) (i32.shl (local.get $i) (i32.const 3)))))
           (if (i64.eq (local.get $v) (i64.const -1)) (then (loop $m (br $m))))
           (if (i64.eq (local.get $v) (i64.const -2)) (then (drop (call $take (i32.const 0x7ff00000)))))
           (if (i64.eq (local.get $v) (i64.const -3)) (then
             (i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 1024))
             (i32.store (i32.const 72) (i32.const 5)) (return (i32.const 64))))
           (if (i64.eq (local.get $v) (i64.const -4)) (then
             (drop (call $column (local.get $in) (i32.const 75000))) (drop (call $take (i32.const 700000)))
             (i32.store (i32.const 92) (i32.const 0)) (return (i32.const 64))))
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
             (i32.load offset=24 (local.get $in)) (i32.shl (local.get $i) (i32.const 3)))))
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
         (i32.store8 (i32.const 72) (i32.const 1)) (i32.store (i32.const 76) (i32.const 400))
         (i32.store (i32.const 80) (i32.shr_u (i32.add (local.get $rows) (i32.const 7)) (i32.const 3))) (i32.const 64)",
    ),
    // 600,000 bytes whatever the rows.
    (
        "wide",
        "(drop (call $column (local.get $in) (i32.const 75000))) (drop (call $take (i32.const 700000)))
         (i32.store (i32.const 92) (i32.const 0)) (i32.const 64)",
    ),
];

/// The core module: its functions as `BEHAVIOURS` say. `extra` stands at its beginning.
fn module(extra: &str) -> String {
    // A record of a function takes 60 bytes; its texts are all its name, but for `rejects`, which may be empty.
    let (mut data, mut records, mut choice) = (String::new(), String::new(), String::new());
    for (i, (name, body)) in BEHAVIOURS.iter().enumerate() {
        let at = 2048 + i * 16;
        writeln!(data, "(data (i32.const {at}) \"{name}\")").unwrap();
        let refuses = if matches!(*name, "beyond" | "odd") { name.len() } else { 0 };
        // name, about; reads: one of type 1; gives 1; nulls: stay; rejects; no arguments.
        let words = [at, name.len(), at, name.len(), 0, 1, 0, 1, 0, 0, 0, at, refuses, 0, 0];
        let bytes = words.iter().flat_map(|word| (*word as u32).to_le_bytes());
        records.extend(bytes.map(|byte| format!("\\{byte:02x}")));
        writeln!(
            choice,
            "(if (i32.eq (i32.load8_u (local.get $name)) (i32.const {}))
               (then (return (block (result i32) {body}))))",
            name.as_bytes()[0]
        )
        .unwrap();
    }
    format!(
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
          (func (export "firn:plugin/functions@1.0.0#describe") (result i32)
            (i32.store (i32.const 16) (i32.const 1100)) (i32.store (i32.const 20) (i32.const {count})) (i32.const 16))
          ;; The column at $in with the values of so many rows, as a result.
          (func $column (param $in i32) (param $rows i32) (result i32)
            (memory.copy (i32.const 68) (local.get $in) (i32.const 32))
            (i32.store (i32.const 96) (i32.shl (local.get $rows) (i32.const 3)))
            (i32.store (i32.const 104) (i32.const 0))
            (i32.store8 (i32.const 64) (i32.const 0)) (i32.const 64))
          (func $refuse (param $in i32) (param $rows i32) (param $row i32) (result i32)
            (drop (call $column (local.get $in) (local.get $rows)))
            (i32.store (i32.const 200) (local.get $row))
            (i32.store (i32.const 100) (i32.const 200))
            (i32.store (i32.const 104) (i32.ne (local.get $rows) (i32.const 0))) (i32.const 64))
          (func (export "firn:plugin/functions@1.0.0#call")
              (param $name i32) (param i32) (param i32) (param i32) (param $in i32) (param i32) (param $rows i32)
              (result i32) (local $i i32) (local $v i64)
            {choice} (unreachable)))"#,
        count = BEHAVIOURS.len(),
    )
}

fn spec(memory: u64, fuel_per_row: u64) -> PluginSpec {
    PluginSpec {
        name: PluginName::new("bad").unwrap(),
        file: StoreUrl::File("/bad.wasm".into()),
        sha256: None,
        limits: PluginLimits { memory, fuel_per_row },
    }
}

/// Compiles a module of text; it lives as long as the tests.
fn plugin(text: &str) -> Result<&'static Plugin> {
    let module = wat::parse_str(text).unwrap();
    Plugin::compile(&spec(1 << 20, 1000), &module).map(|plugin| &*Box::leak(Box::new(plugin)))
}

/// A step that calls one of its functions on a column `v`.
fn step(plugin: &'static Plugin, name: &str) -> Result<Work, kernel::Misfit> {
    let all = functions(plugin).unwrap();
    let function = all.iter().find(|function| function.name == format!("bad.{name}")).unwrap();
    let reads = [("v".to_owned(), LogicalType::Long)];
    let call = Call {
        args: &firn_shared::functions::Args::default(),
        reads: &reads,
        makes: &reads,
        schema: &reads,
        references: &References::default(),
    };
    function.builder.unwrap().downcast_ref::<Own>().unwrap().0.build(&call)
}

fn run(work: &Work, values: Vec<Option<i64>>) -> Result<Made> {
    let Work::Make(kernel) = work else { panic!("{work:?}") };
    let array: ArrayRef = Arc::new(Int64Array::from(values));
    let column = kernel::Column { name: "v", r#type: &LogicalType::Long, array: &array };
    kernel.call(&Batch { columns: &[column], rows: array.len() })
}

#[test]
fn what_a_plugin_does_wrong_ends_the_run_with_its_name_and_what_to_do() {
    let plugin = plugin(&module("")).unwrap();
    let values = vec![Some(1), None, Some(-3)];
    for (name, expected) in [
        ("half", "made 8 bytes of values, 24 belong to 3 rows"),
        ("beyond", "refused rows that are not ascending below 3"),
    ] {
        // With no rows nothing is wrong with these.
        let error = run(&step(plugin, name).unwrap(), values.clone()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("plug-in `bad` (file:///bad.wasm) function `") && text.contains(name), "{text}");
        assert!(text.contains(expected), "{name}: {text}");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    // What is wrong whatever the rows is told when the step is built.
    for (name, expected) in [
        ("wide", "gave more than 524288 bytes; see `memory`"),
        ("forever", "ran out of fuel; raise `fuelPerRow`"),
        ("trap", "trapped before it had any row, on these arguments: wasm `unreachable`"),
        ("memory", "bytes of memory, 1048576 are allowed; see `memory`"),
        ("error", "refuses the arguments: sorry"),
    ] {
        let (_, message) = step(plugin, name).unwrap_err();
        assert!(message.contains(expected) && message.contains(&format!("function `{name}` ")), "{message}");
    }
    // The next call is not the worse for it.
    let made = run(&step(plugin, "same").unwrap(), values.clone()).unwrap();
    assert_eq!(made.columns[0].to_data(), Int64Array::from(values).to_data());
    assert_eq!(run(&step(plugin, "same").unwrap(), vec![]).unwrap().columns[0].len(), 0);
}

#[test]
fn an_error_of_a_call_with_rows_keeps_its_text_to_itself() {
    let plugin = plugin(&module("")).unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let lowered = columns(&[column], &[DataType::Long]).unwrap();
    let failed = plugin.call(("error", DataType::Long), &[], &lowered, 1).unwrap_err();
    assert!(matches!(&failed, Failed::Rows(cause) if cause.to_string().contains("gave up")), "{failed:?}");
    assert!(!format!("{failed:?}").contains("sorry"), "{failed:?}");
}

#[test]
fn a_row_that_is_refused_or_traps_is_rejected_alone() {
    let plugin = plugin(&module("")).unwrap();
    let made = run(&step(plugin, "odd").unwrap(), vec![Some(1), Some(2), None]).unwrap();
    let rejects: Vec<_> =
        made.rejects.iter().map(|(row, why)| (*row, why.path.as_str(), why.detail.as_str())).collect();
    assert_eq!(rejects, [(1, "v", "odd")]);
    // Over many calls, and at their edges.
    let mut values: Vec<Option<i64>> = (0..20_000).map(|i| (i % 7 != 0).then_some(i + 100)).collect();
    let bad = [0, 4095, 8191, 8192, 19_999];
    for row in bad {
        values[row] = Some(13);
    }
    let made = run(&step(plugin, "poison").unwrap(), values.clone()).unwrap();
    assert_eq!(made.rejects.iter().map(|(row, _)| *row).collect::<Vec<_>>(), bad);
    assert!(made.rejects[0].1.detail.contains("plug-in `bad` trapped: wasm `unreachable`"), "{:?}", made.rejects[0]);
    for row in bad {
        values[row] = None;
    }
    assert_eq!(made.columns[0].as_primitive::<Int64Type>(), &Int64Array::from(values));
}

#[test]
fn no_number_of_bad_rows_ends_a_run_while_one_passes() {
    let plugin = plugin(&module("")).unwrap();
    let poison = step(plugin, "poison").unwrap();
    let mut values = vec![Some(13); 3000];
    let rejected = |values: &[Option<i64>]| run(&poison, values.to_vec()).map(|made| made.rejects.len());
    // A plug-in that traps everywhere is not a matter of rows; few rows say nothing of that.
    let error = rejected(&values).unwrap_err().to_string();
    assert!(error.contains("function `poison` fails on each of 3000 rows; the first time it trapped: wasm"), "{error}");
    assert_eq!(rejected(&values[..999]).unwrap(), 999);
    values[2999] = Some(1);
    assert_eq!(rejected(&values).unwrap(), 2999);
}

#[test]
fn a_row_on_which_fuel_memory_or_patience_end_is_rejected_alone() {
    let plugin = plugin(&module("")).unwrap();
    let work = step(plugin, "choosy").unwrap();
    for (value, reason, detail) in [
        (-1, RejectKind::TooLarge, "plug-in `bad` ran out of fuel"),
        (-2, RejectKind::TooLarge, "plug-in `bad` took more memory than it may have"),
        (-3, RejectKind::BadFormat, "plug-in `bad` gave up"),
        (-4, RejectKind::TooLarge, "plug-in `bad` took more memory than it may have"),
    ] {
        let mut values: Vec<Option<i64>> = (0..9000).map(Some).collect();
        values[8500] = Some(value);
        let made = run(&work, values).unwrap();
        let told: Vec<_> = made.rejects.iter().map(|(row, why)| (*row, why.reason, why.detail.as_str())).collect();
        assert_eq!(told, [(8500, reason, detail)]);
        assert_eq!((made.columns[0].len(), made.columns[0].null_count()), (9000, 1));
    }
}

#[test]
fn what_a_row_may_burn_does_not_hang_on_the_rows_around_it() {
    let plugin = plugin(&module("")).unwrap();
    let work = step(plugin, "loops").unwrap();
    // Turns of a loop that a row alone gets through, two of them in a call of two do not, and that no row gets through.
    let (much, too_much) = (1_500_000, 4_000_000);
    for around in [0, 1, 300] {
        for (turns, rejects) in [(much, vec![]), (too_much, vec![around])] {
            let mut values = vec![Some(1); 2 * around + 1];
            values[around] = Some(turns);
            let found = run(&work, values).unwrap().rejects;
            assert_eq!(found.into_iter().map(|(row, _)| row).collect::<Vec<_>>(), rejects, "{turns} among {around}");
        }
    }
}

#[test]
fn a_null_made_of_a_value_is_rejected_where_nulls_stay() {
    let plugin = plugin(&module("")).unwrap();
    let functions = Functions::built_in().with(functions(plugin).unwrap()).unwrap();
    let columns = [domain::Column {
        name: "v".to_owned(),
        path: domain::JsonPath(vec!["v".to_owned()]),
        r#type: LogicalType::Long,
        required: false,
        format: None,
        doc: None,
    }];
    let list = [("bad.null", serde_json::json!({"column": "v"}))];
    let steps = firn_shared::functions::steps(&functions, &columns, &list).unwrap();
    let transformer = Transformer::new(&steps, &columns, &References::default()).unwrap();
    let array: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let outcome = transformer.apply(RecordBatch::try_from_iter([("v", array)]).unwrap()).unwrap();
    let told: Vec<_> = outcome.rejected.iter().map(|reject| (reject.row, reject.why.detail.as_str())).collect();
    assert_eq!(told, [(0, "`bad.null` made null of a value"), (2, "`bad.null` made null of a value")]);
    assert_eq!(outcome.batch.num_rows(), 1);
}

#[test]
fn what_is_no_plugin_is_refused_when_it_is_loaded() {
    let refused = |file: &[u8]| Plugin::compile(&spec(1 << 20, 1000), file).unwrap_err().to_string();
    let text = |text: &str| refused(&wat::parse_str(text).unwrap());
    assert!(refused(b"no wasm").contains("is neither a WebAssembly component nor a core module"));
    let import = "(component (import \"wasi:clocks/wall-clock@0.2.0\" (instance (export \"now\" (func)))))";
    let clock = text(import);
    assert!(clock.contains("asks for what no plug-in gets") && clock.contains("wasi:clocks"), "{clock}");
    let core = text(&module("(import \"wasi_snapshot_preview1\" \"random_get\" (func (param i32 i32) (result i32)))"));
    assert!(core.contains("cannot become a component") && core.contains("wasi_snapshot_preview1"), "{core}");
    let empty = text("(component)");
    assert!(empty.contains("is none as `plugin.wit` says") && empty.contains("firn:plugin/functions"), "{empty}");
    assert!(text("(module)").contains("cannot become a component"));

    let described = |old: &str, new: &str| {
        let text = module("");
        assert!(text.contains(old), "{old}");
        functions(plugin(&text.replace(old, new)).unwrap()).unwrap_err().to_string()
    };
    let count = format!("(i32.const 20) (i32.const {})", BEHAVIOURS.len());
    assert!(described(&count, "(i32.const 20) (i32.const 0)").contains("has 0 functions, 1 to 256 are allowed"));
    assert!(
        described("(i32.const 2048) \"same\"", "(i32.const 2048) \"s-me\"").contains("`s-me` needs a name of up to")
    );
    assert!(
        described("(i32.const 2080) \"trap\"", "(i32.const 2080) \"same\"").contains("function `same` is there twice")
    );
    let forever = described("(i32.const 16))\n", "(loop $l (br $l)) (i32.const 16))\n");
    assert!(forever.contains("describing its functions ran out of fuel"), "{forever}");
}

#[test]
fn modules_that_describe_themselves_and_components_are_taken_as_they_are() {
    let module = wat::parse_str(module("")).unwrap();
    let described = described(&module).unwrap();
    let component = component(&described).unwrap().into_owned();
    assert!(described.len() > module.len() && component != described);
    for file in [described, component] {
        let plugin = Plugin::compile(&spec(1 << 20, 1000), &file).unwrap();
        assert_eq!(functions(Box::leak(Box::new(plugin))).unwrap().len(), BEHAVIOURS.len());
    }
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/plugins/bank")
}

/// The shipped plug-in as `firn.yaml` would name it, with this hash.
fn bank(file: PathBuf, sha256: Option<&str>) -> PluginSpec {
    let name = PluginName::new("bank").unwrap();
    let sha256 = sha256.map(str::to_owned);
    PluginSpec { name, file: StoreUrl::File(file), sha256, limits: PluginLimits::default() }
}

/// The hash that the refusal of a file without one tells.
fn hash_of(spec: &PluginSpec) -> String {
    let message = load(spec, None).unwrap_err().to_string();
    message.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_file_must_be_the_one_that_was_meant() {
    let file = shipped().join("bank.wasm");
    let missing = load(&bank(file.clone(), None), None).unwrap_err().to_string();
    assert!(missing.contains("plug-in `bank`: `sha256` is missing; that of file:///"), "{missing}");
    let other = load(&bank(file.clone(), Some(&"0".repeat(64))), None).unwrap_err().to_string();
    assert!(other.contains("not the one given here"), "{other}");
    let gone = load(&bank("/nowhere.wasm".into(), None), None).unwrap_err();
    assert!(gone.to_string().contains("plug-in `bank`: /nowhere.wasm cannot be read"), "{gone}");
    assert_eq!(gone.kind(), ErrorKind::Config);
    // A store whose options are broken is not asked.
    let url = StoreUrl::parse("s3://bucket/bank.wasm", Path::new("/")).unwrap();
    assert!(load(&PluginSpec { file: url, ..bank(file, None) }, None).unwrap().is_none());
}

#[test]
fn the_shipped_plugin_is_what_its_source_compiles_to_and_does_what_its_cases_say() {
    let (folder, out) = (shipped(), tempfile::tempdir().unwrap());
    let compiled = out.path().join("bank.wasm");
    let source = std::fs::read_to_string(folder.join("bank.c")).unwrap();
    let command = source.lines().find_map(|line| line.strip_prefix("//   clang ")).unwrap();
    let status = Command::new("clang")
        .args(command.split(' ').map(|word| if word == "bank.wasm" { compiled.as_os_str() } else { word.as_ref() }))
        .current_dir(&folder)
        .status()
        .expect("clang, which localstack/setup installs");
    assert!(status.success());
    let shipped = folder.join("bank.wasm");
    for file in [&compiled, &shipped] {
        let sha256 = hash_of(&bank(file.clone(), None));
        let loaded = load(&bank(file.clone(), Some(&sha256)), None).unwrap().unwrap();
        let again = load(&bank(file.clone(), Some(&sha256.to_lowercase())), None).unwrap().unwrap();
        assert!(std::ptr::eq(loaded[0], again[0]), "loaded twice");
        let names: Vec<_> = loaded.iter().map(|function| (function.name, function.nulls == Nulls::Stay)).collect();
        assert_eq!(names, [("bank.iban", true), ("bank.share", true)]);
        let functions = Functions::built_in().with(loaded).unwrap();
        let text = std::fs::read_to_string(folder.join("cases.yaml")).unwrap();
        let report = cases::run(&text, &functions, &References::default()).unwrap();
        assert_eq!(report.failures, [""; 0], "{}", file.display());
    }
    // Another release of the compiler writes other instructions.
    let version = Command::new("clang").arg("--version").output().unwrap().stdout;
    if String::from_utf8(version).unwrap().contains("version 14.") {
        assert_eq!(
            std::fs::read(&compiled).unwrap(),
            std::fs::read(&shipped).unwrap(),
            "bank.wasm is not of this source"
        );
    }
}

#[test]
fn columns_that_lie_about_themselves_are_refused() {
    let column = |data_type, validity: Option<Vec<u8>>, offsets: Vec<i32>, values: &[u8]| Column {
        data_type,
        validity,
        offsets,
        values: values.to_vec(),
    };
    for (made, of, expected) in [
        (column(DataType::Long, None, vec![], &[0; 16]), DataType::Text, "a column of Int64, it said Utf8"),
        (column(DataType::Text, None, vec![0, 1], b"a"), DataType::Text, "2 offsets, 3 belong to 2 rows"),
        (column(DataType::Text, None, vec![0, 2, 1], b"ab"), DataType::Text, "offset"),
        (column(DataType::Text, None, vec![0, 1, 9], b"ab"), DataType::Text, "offset"),
        (column(DataType::Text, None, vec![-1, 1, 2], b"ab"), DataType::Text, "offset"),
        (column(DataType::Text, None, vec![0, 1, 2], b"\xff\xfe"), DataType::Text, "UTF-8"),
        (column(DataType::Text, None, vec![0, 1, 2], "ä".as_bytes()), DataType::Text, "UTF-8"),
        (column(DataType::Boolean, None, vec![], &[]), DataType::Boolean, "0 bytes of values, 1 belong to 2 rows"),
        (column(DataType::Long, Some(vec![]), vec![], &[0; 16]), DataType::Long, "0 bytes of validity"),
    ] {
        let (NoColumn::Shape(error) | NoColumn::Value(error)) = lift(made, of, 2).unwrap_err();
        assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{error}");
    }
}

/// A value for a column of each type.
type Values = (bool, i64, f64, String, Vec<u8>, i32);

fn arrays(rows: &[Option<Values>]) -> Vec<(DataType, ArrayRef)> {
    fn each<A: FromIterator<Option<T>>, T>(rows: &[Option<Values>], of: fn(&Values) -> T) -> A {
        rows.iter().map(|row| row.as_ref().map(of)).collect()
    }
    let micros: TimestampMicrosecondArray = each(rows, |row| row.1);
    vec![
        (DataType::Boolean, Arc::new(each::<BooleanArray, _>(rows, |row| row.0))),
        (DataType::Long, Arc::new(each::<Int64Array, _>(rows, |row| row.1))),
        (DataType::Double, Arc::new(each::<Float64Array, _>(rows, |row| row.2))),
        (DataType::Text, Arc::new(each::<StringArray, _>(rows, |row| row.3.clone()))),
        (DataType::Binary, Arc::new(each::<BinaryArray, _>(rows, |row| row.4.clone()))),
        (DataType::Date, Arc::new(each::<Date32Array, _>(rows, |row| row.5))),
        (DataType::Timestamp, Arc::new(micros.clone())),
        (DataType::Timestamptz, Arc::new(micros.with_timezone("+00:00"))),
    ]
}

proptest! {
    #[test]
    fn columns_come_back_as_they_went(
        rows in prop::collection::vec(any::<Option<Values>>(), 0..40),
        from in 0usize..9,
    ) {
        for (of, array) in arrays(&rows) {
            // A slice begins in the middle of bytes and buffers.
            let from = from.min(array.len());
            let array = array.slice(from, array.len() - from);
            let back = lift(lower(&array, of).unwrap(), of, array.len()).unwrap();
            prop_assert!(back.to_data() == array.to_data(), "{:?}", of);
        }
    }
}
