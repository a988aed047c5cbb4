//! Compiling and running a component under limits.

use std::fmt;
use std::sync::OnceLock;

use arrow_array::ArrayRef;
use firn_shared::config::domain::{PluginLimits, PluginSpec};
use firn_shared::error::{Error, Result};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, ResourceLimiter, Store, Trap};

use super::component::{component, version};
use super::layout::{NoColumn, lift, lower};
use super::world::{Column, DataType, Function, Instance, Value, World};
use crate::decode::RejectKind;

/// Rows of a call at most.
pub const CALL_ROWS_MAX: usize = 8192;
/// Fuel of a call beside that of its rows: starting, and an instruction or so for each byte of large values.
const FUEL_OF_A_CALL: u64 = 10_000_000;
/// Of the memory of a call its rows take this part: results, what the plug-in needs, and the plug-in itself take the rest.
pub const ROWS_PART: u64 = 8;
/// Of the memory of a call its results may be this part.
const RESULT_PART: usize = 2;
/// What wasmtime says of results that are more; the type of its error is its own.
const OVER_RESULT: &str = "too much data is being copied";
/// Elements of the tables of an instance at most; one takes a pointer.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// A plug-in, compiled.
pub struct Plugin {
    /// Its name in `firn.yaml`.
    pub name: String,
    place: String,
    limits: PluginLimits,
    engine: Engine,
    world: World<Held>,
    /// Bytes of its machine code.
    code_bytes: u64,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum Failed {
    /// Something that fewer rows may not meet with.
    Rows(Cause),
    /// Something that would come again with other rows.
    Run(Error),
}

/// What was too much for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It trapped, and why.
    Trap(String),
    /// It ran out of fuel.
    Fuel,
    /// It asked for more memory than it may have, or gave more back, and how much.
    Memory(String),
    /// It gave an error.
    Error,
    /// What it made is no value of its type, and why.
    Value(String),
    /// What it made is a value that its type does not have, and which.
    Unfit(RejectKind, String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(why) => write!(f, "trapped: {why}"),
            Self::Fuel => f.write_str("ran out of fuel; raise `fuelPerRow`, or look for a loop without end"),
            Self::Memory(what) => write!(f, "{what}; see `memory`"),
            Self::Error => f.write_str("gave up; what it says is not shown, because it might hold values"),
            Self::Value(why) | Self::Unfit(_, why) => write!(f, "made {why}"),
        }
    }
}

/// What is held of an instance's memory, and how much may be.
struct Held {
    bytes: usize,
    bound: usize,
}

/// What was asked for above the bound.
#[derive(Debug)]
struct OverBound(usize);

impl fmt::Display for OverBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of memory", self.0)
    }
}

impl std::error::Error for OverBound {}

impl ResourceLimiter for Held {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.bound {
            return Err(wasmtime::Error::new(OverBound(bytes)));
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        16
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        4
    }
}

/// The compiler, the same for all plug-ins. What it makes gives equal results on all machines.
fn engine() -> Result<Engine> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    if let Some(engine) = ENGINE.get() {
        return Ok(engine.clone());
    }
    let mut config = Config::new();
    config.consume_fuel(true).wasm_component_model(true);
    // What the specification leaves to the machine: the bits of NaN, and what "relaxed" instructions round to.
    config.cranelift_nan_canonicalization(true).wasm_relaxed_simd(false);
    let made = Engine::new(&config).map_err(|e| Error::bug(format!("WebAssembly cannot be compiled here: {e:#}")))?;
    Ok(ENGINE.get_or_init(|| made).clone())
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Compiles the bytes of a file.
    ///
    /// # Errors
    /// `Config` for what is no plug-in, or asks for an import.
    pub fn compile(spec: &PluginSpec, file: &[u8]) -> Result<Self> {
        let (name, place) = (spec.name.to_string(), spec.file.to_string());
        let broken = |why: &dyn fmt::Display| Error::config(format!("plug-in `{name}` ({place}) {why}"));
        let version = version(file).map_err(|why| broken(&why))?;
        let bytes = component(file, version).map_err(|why| broken(&why))?;
        let engine = engine()?;
        let compiled = Component::from_binary(&engine, &bytes);
        let compiled = compiled.map_err(|e| broken(&format!("does not compile: {e:#}")))?;
        let code = compiled.image_range();
        let code_bytes = (code.end as usize).saturating_sub(code.start as usize) as u64;
        // Nothing is linked: what imports anything at all is no plug-in.
        let linked = Linker::new(&engine).instantiate_pre(&compiled);
        let linked = linked.map_err(|e| broken(&format!("asks for what no plug-in gets: {e:#}")))?;
        let world = World::new(version, linked);
        let world = world.map_err(|e| broken(&format!("is none as `plugin.wit` says: {e:#}")))?;
        Ok(Self { name, place, limits: spec.limits, engine, world, code_bytes })
    }

    /// An error about it.
    pub fn broken(&self, why: impl fmt::Display) -> Error {
        Error::config(format!("plug-in `{}` ({}) {why}", self.name, self.place))
    }

    /// Where it came from.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What a call may use.
    pub fn limits(&self) -> PluginLimits {
        self.limits
    }

    /// What a call may hold besides the batch, bytes: its memory, and its rows and results on this side of it.
    pub fn call_bytes(&self) -> u64 {
        self.limits.memory + self.limits.memory / ROWS_PART + self.limits.memory / RESULT_PART as u64
    }

    /// Bytes of its machine code, which the process holds.
    pub fn code_bytes(&self) -> u64 {
        self.code_bytes
    }

    /// An instance with fuel for so many rows. A row alone gets what no call of several rows exceeds: whether it is too much
    /// for the function says nothing of the rows around it.
    fn instance(&self, rows: usize) -> Result<(Store<Held>, Instance), Failed> {
        let bound = usize::try_from(self.limits.memory).unwrap_or(usize::MAX);
        let mut store = Store::new(&self.engine, Held { bytes: 0, bound });
        store.limiter(|held| held);
        store.set_hostcall_fuel(bound / RESULT_PART);
        let rows = if rows == 1 { CALL_ROWS_MAX } else { rows };
        let fuel = FUEL_OF_A_CALL.saturating_add(self.limits.fuel_per_row.saturating_mul(rows as u64));
        store.set_fuel(fuel).map_err(|e| Failed::Run(Error::bug(format!("no fuel: {e:#}"))))?;
        let made = self.world.instantiate(&mut store);
        Ok((store, made.map_err(|e| self.failed(&e, "starting"))?))
    }

    /// The functions, in its own words.
    ///
    /// # Errors
    /// `Config` when it fails.
    pub fn describe(&self) -> Result<Vec<Function>> {
        let started = self.instance(0).map_err(|failed| match failed {
            Failed::Rows(cause) => self.broken(format!("starting {cause}")),
            Failed::Run(error) => error,
        });
        let (mut store, plugin) = started?;
        plugin.describe(&mut store).map_err(|e| match self.failed(&e, "describing its functions") {
            Failed::Rows(cause) => self.broken(format!("describing its functions {cause}")),
            Failed::Run(error) => error,
        })
    }

    /// Calls a function: the column of type `gives` that it made, and the rows that it refuses, ascending.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn call(
        &self,
        (function, gives): (&str, DataType),
        arguments: &[(String, Value)],
        columns: Vec<Column>,
        rows: usize,
    ) -> Result<(ArrayRef, Vec<usize>), Failed> {
        let run = |why: String| Failed::Run(self.broken(format!("function `{function}` {why}")));
        let count = u32::try_from(rows).map_err(|e| Failed::Run(Error::bug("2^32 rows").with_source(e)))?;
        let (mut store, plugin) = self.instance(rows)?;
        let made = plugin.call(&mut store, function, arguments, columns, count);
        let made = made.map_err(|e| self.failed(&e, &format!("function `{function}`")))?;
        let made = made.map_err(|why| match rows {
            0 => run(format!("refuses the arguments: {}", shorten(&why))),
            _ => Failed::Rows(Cause::Error),
        })?;
        let column = lift(made.column, gives, rows).map_err(|why| match why {
            NoColumn::Shape(why) => run(format!("made {why}")),
            NoColumn::Value(why) => Failed::Rows(Cause::Value(why)),
        })?;
        let rejected: Vec<usize> = made.rejected.iter().map(|row| *row as usize).collect();
        if rejected.last().is_some_and(|last| *last >= rows) || rejected.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(run(format!("refused rows that are not ascending below {rows}")));
        }
        Ok((column, rejected))
    }

    /// Why something ended, with what to do.
    fn failed(&self, error: &wasmtime::Error, what: &str) -> Failed {
        if let Some(over) = error.downcast_ref::<OverBound>() {
            return Failed::Rows(Cause::Memory(format!("asked for {over}, {} are allowed", self.limits.memory)));
        }
        let text = format!("{error:#}");
        Failed::Rows(match error.downcast_ref::<Trap>() {
            _ if text.contains(OVER_RESULT) => {
                Cause::Memory(format!("gave more than {} bytes", self.limits.memory / RESULT_PART as u64))
            }
            Some(Trap::OutOfFuel) => Cause::Fuel,
            Some(trap) => Cause::Trap(trap.to_string().trim_start_matches("wasm trap: ").to_owned()),
            None => return Failed::Run(self.broken(format!("{what} failed: {}", shorten(&text)))),
        })
    }
}

/// Lowers arrays whose types were looked at when the step was built.
///
/// # Errors
/// `Bug` for another type.
pub fn columns(arrays: &[ArrayRef], types: &[DataType]) -> Result<Vec<Column>> {
    arrays.iter().zip(types).map(|(array, of)| lower(array, *of).map_err(Error::bug)).collect()
}

/// A plug-in's own words, bounded.
pub fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
