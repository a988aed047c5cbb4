//! A plug-in that does everything wrong that one can do, in the text form of WebAssembly ([`modules`]); every type that is
//! carried ([`types`]); and the shipped plug-in ([`shipped`]).

mod modules;
mod shipped;
mod types;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch};
use firn_shared::config::domain::{self, PluginLimits, PluginSpec, StoreUrl};
use firn_shared::error::{ErrorKind, Result};
use firn_shared::functions::Functions;
use firn_shared::ids::PluginName;
use firn_shared::types::LogicalType;

use super::component::{Version, component, described};
use super::describe::functions;
use super::host::{Failed, Plugin, columns};
use super::world::{DataType, Flat};
use crate::decode::RejectKind;
use crate::transform::kernel::{self, Batch, Call, Made, Own, Work};
use crate::transform::{Outcome, References, Transformer};
use modules::{BEHAVIOURS, FIRST, SECOND, module, module_of};

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
    kernel.call(&Batch::new(&[column], array.len()))
}

/// What a step that calls a function makes of a column `v` of this type.
fn transformed(plugin: &'static Plugin, name: &str, of: &LogicalType, array: ArrayRef) -> Result<Outcome> {
    let functions = Functions::built_in().with(functions(plugin)?)?;
    let columns = [domain::Column {
        name: "v".to_owned(),
        path: domain::JsonPath(vec!["v".to_owned()]),
        r#type: of.clone(),
        required: false,
        format: None,
        doc: None,
    }];
    let list = [(name, serde_json::json!({"column": "v"}))];
    let steps = firn_shared::functions::steps(&functions, &columns, &list)?;
    let transformer = Transformer::new(&steps, &columns, &References::default())?;
    transformer.apply(RecordBatch::try_from_iter([("v", array)]).unwrap())
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
    let long = DataType::Flat(Flat::Long);
    let lowered = columns(&[column], &[long]).unwrap();
    let failed = plugin.call(("error", long), &[], lowered, 1).unwrap_err();
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
    let array: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let outcome = transformed(plugin, "bad.null", &LogicalType::Long, array).unwrap();
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
    for (layout, version) in [(FIRST, Version::First), (SECOND, Version::Second)] {
        let module = wat::parse_str(module_of(layout, "")).unwrap();
        let described = described(&module, version).unwrap();
        let component = component(&described, version).unwrap().into_owned();
        assert!(described.len() > module.len() && component != described);
        for file in [described, component] {
            let plugin = Plugin::compile(&spec(1 << 20, 1000), &file).unwrap();
            assert_eq!(functions(Box::leak(Box::new(plugin))).unwrap().len(), BEHAVIOURS.len());
        }
    }
}

#[test]
fn plugins_of_the_first_version_work_as_before() {
    let plugin = plugin(&module_of(FIRST, "")).unwrap();
    let all = functions(plugin).unwrap();
    let odd = all.iter().find(|function| function.name == "bad.odd").unwrap();
    assert_eq!((odd.about, odd.rejects.starts_with("odd, and")), ("odd", true));
    let values = vec![Some(1), None, Some(-3)];
    let made = run(&step(plugin, "same").unwrap(), values.clone()).unwrap();
    assert_eq!(made.columns[0].to_data(), Int64Array::from(values.clone()).to_data());
    let made = run(&step(plugin, "odd").unwrap(), vec![Some(1), Some(2)]).unwrap();
    assert_eq!(made.rejects.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
    let made = run(&step(plugin, "poison").unwrap(), vec![Some(1), Some(13), Some(2)]).unwrap();
    assert_eq!(made.rejects.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
    let error = run(&step(plugin, "half").unwrap(), values).unwrap_err().to_string();
    assert!(error.contains("made 8 bytes of values, 24 belong to 3 rows"), "{error}");
    let outcome = transformed(plugin, "bad.null", &LogicalType::Long, Arc::new(Int64Array::from(vec![1]))).unwrap();
    assert_eq!(outcome.rejected.len(), 1);
}

#[test]
fn a_version_that_is_not_known_is_refused_with_both_that_are() {
    let text = module("").replace("functions@2.0.0#", "functions@3.1.0-rc.1#");
    let core = wat::parse_str(text).unwrap();
    let component = wat::parse_str(
        "(component (component $c) (instance $i (instantiate $c)) (export \"firn:plugin/functions@3.1.0-rc.1\" (instance $i)))",
    );
    for file in [core, component.unwrap()] {
        let told = Plugin::compile(&spec(1 << 20, 1000), &file).unwrap_err();
        let expected = "plug-in `bad` (file:///bad.wasm) is built for version 3.1.0-rc.1 of firn:plugin; this compactor runs \
                        1.0.0 and 2.0.0: build the plug-in with the `plugin.wit` of this release, or take";
        assert!(told.to_string().starts_with(expected), "{told}");
        assert_eq!(told.kind(), ErrorKind::Config);
    }
}
