//! Steps that call a plug-in.

use std::fmt;
use std::ops::Range;

use arrow_array::{Array, ArrayRef, make_array, new_null_array};
use arrow_buffer::NullBuffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_select::concat::concat;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{self, Args};

use super::host::{CALL_ROWS_MAX, Cause, Failed, Plugin, ROWS_PART, columns, shorten};
use super::unfit::{unfit, what};
use super::world::{DataType, Function, Nulls, Reads, Value};
use crate::decode::{RejectKind, Rejected};
use crate::transform::apart::Apart;
use crate::transform::kernel::{Batch, Builder, Call, Kernel, Made, Misfit, Work, broken};

/// A batch of so many rows of which not one passes is a broken plug-in, not bad rows.
const ALL_MIN: usize = 1000;

/// Builds the steps that call one function.
pub struct Steps {
    /// The plug-in.
    pub plugin: &'static Plugin,
    /// The function.
    pub described: Function,
}

impl Builder for Steps {
    fn build(&self, call: &Call<'_>) -> Result<Work, Misfit> {
        let Function { name, reads, gives, nulls, rejects, .. } = &self.described;
        let types = match reads {
            Reads::One(of) | Reads::Several(of) => vec![*of; call.reads.len()],
            Reads::Named(columns) => columns.iter().map(|column| column.data_type).collect(),
        };
        let step = Step {
            plugin: self.plugin,
            function: name.clone(),
            arguments: self.arguments(call.args),
            types,
            gives: *gives,
            nulls_stay: matches!(nulls, Nulls::Stay),
            rejects: shorten(rejects),
        };
        step.try_without_rows().map_err(broken)?;
        Ok(Work::Make(Box::new(step)))
    }
}

impl Steps {
    fn arguments(&self, args: &Args) -> Vec<(String, Value)> {
        let value = |name: &str| {
            Some(match args.get(name)? {
                functions::Value::Text(text) => Value::Text(text.clone()),
                functions::Value::Int(whole) => Value::Whole(*whole),
                functions::Value::Number(number) => Value::Number(*number),
                functions::Value::Bool(flag) => Value::Flag(*flag),
                _ => return None,
            })
        };
        let names = self.described.arguments.iter().map(|argument| &argument.name);
        names.filter_map(|name| Some((name.clone(), value(name)?))).collect()
    }
}

/// A step that calls a function of a plug-in.
struct Step {
    plugin: &'static Plugin,
    function: String,
    arguments: Vec<(String, Value)>,
    /// Of the columns that it reads.
    types: Vec<DataType>,
    gives: DataType,
    nulls_stay: bool,
    /// Which values the function refuses, in its words.
    rejects: String,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("plugin", self.plugin).field("function", &self.function).finish_non_exhaustive()
    }
}

/// What a batch became so far.
#[derive(Default)]
struct Results {
    parts: Vec<ArrayRef>,
    rejects: Vec<(usize, Why)>,
    failed: usize,
}

impl Results {
    /// Adds rows whose result is no value of its type; of those that are rejected already it does not matter.
    fn add_unfit(&mut self, rows: Vec<usize>, gives: DataType) {
        let (reason, what) = what(gives);
        let known: Vec<usize> = self.rejects.iter().map(|(row, _)| *row).collect();
        for row in rows.into_iter().filter(|row| known.binary_search(row).is_err()) {
            self.failed += 1;
            self.rejects.push((row, Why::Failed(Cause::Unfit(reason, what.clone()))));
        }
        self.rejects.sort_by_key(|(row, _)| *row);
    }
}

/// Why a row is rejected.
enum Why {
    Refused,
    Failed(Cause),
}

impl Kernel for Step {
    fn engine(&self) -> &'static str {
        "WebAssembly"
    }

    fn plan(&self) -> Option<String> {
        let limits = self.plugin.limits();
        let (memory, fuel) = (limits.memory, limits.fuel_per_row);
        Some(format!("{}, memory {memory} bytes, fuel {fuel} a row", self.plugin.place()))
    }

    fn held_bytes(&self) -> u64 {
        self.plugin.code_bytes()
    }

    fn call_bytes(&self) -> u64 {
        self.plugin.call_bytes()
    }

    fn call(&self, batch: &Batch<'_>) -> Result<Made> {
        let wanted = batch.columns.iter().zip(&self.types);
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let arrays = wanted.map(|(column, of)| cast_with_options(column.array, &of.arrow(), &strict));
        let arrays: Vec<ArrayRef> = arrays
            .collect::<Result<_, _>>()
            .map_err(|e| Error::bug("a column of another type than planned").with_source(e))?;
        let mut results = self.results(&arrays, batch.rows)?;
        let parts: Vec<&dyn Array> = results.parts.iter().map(AsRef::as_ref).collect();
        let column = match parts[..] {
            [] => new_null_array(&self.gives.arrow(), 0),
            _ => concat(&parts).map_err(|e| Error::bug("results of a plug-in do not go together").with_source(e))?,
        };
        results.add_unfit(unfit(&column, self.gives)?, self.gives);
        if results.failed == batch.rows && batch.rows >= ALL_MIN {
            return Err(self.never_passes(&results));
        }
        let path = batch.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        let rejects = results.rejects.into_iter().map(|(row, why)| (row, self.rejected(&path, why)));
        Ok(Made { columns: vec![column], rejects: rejects.collect() })
    }
}

impl Step {
    /// Whether the function takes the arguments.
    fn try_without_rows(&self) -> Result<()> {
        let empty: Vec<ArrayRef> = self.types.iter().map(|of| new_null_array(&of.arrow(), 0)).collect();
        match self.call_once(&empty, 0) {
            Ok(_) => Ok(()),
            Err(Failed::Rows(Cause::Trap(why))) => Err(self.plugin.broken(format!(
                "function `{}` trapped before it had any row, on these arguments: {why}",
                self.function
            ))),
            Err(Failed::Rows(cause)) => Err(self.plugin.broken(format!("function `{}` {cause}", self.function))),
            Err(Failed::Run(error)) => Err(error),
        }
    }

    /// How many rows go into one call.
    fn rows_at_once(&self, arrays: &[ArrayRef], rows: usize) -> usize {
        let bytes: usize = arrays.iter().filter_map(|array| array.to_data().get_slice_memory_size().ok()).sum();
        let of_a_row = (bytes / rows.max(1)).max(1) as u64;
        usize::try_from(self.plugin.limits().memory / ROWS_PART / of_a_row)
            .unwrap_or(usize::MAX)
            .clamp(1, CALL_ROWS_MAX)
    }

    /// Calls the function on all rows; on fewer at once, where something about them is too much for it.
    fn results(&self, arrays: &[ArrayRef], rows: usize) -> Result<Results> {
        let (mut results, mut apart) = (Results::default(), Apart::default());
        let at_once = self.rows_at_once(arrays, rows);
        let mut call = |rows: Range<usize>| {
            let part: Vec<ArrayRef> = arrays.iter().map(|array| array.slice(rows.start, rows.len())).collect();
            match self.call_once(&part, rows.len()) {
                Ok(made) => Ok(Ok(made)),
                Err(Failed::Rows(cause)) => Ok(Err(cause)),
                Err(Failed::Run(error)) => Err(error),
            }
        };
        let mut done = |rows: Range<usize>, outcome: Result<(ArrayRef, Vec<usize>), Cause>| {
            match outcome {
                Ok((column, rejected)) => {
                    results.parts.push(column);
                    results.rejects.extend(rejected.into_iter().map(|row| (rows.start + row, Why::Refused)));
                }
                Err(cause) => {
                    let is_slow = cause == Cause::Fuel;
                    results.failed += rows.len();
                    results.parts.push(new_null_array(&self.gives.arrow(), rows.len()));
                    results.rejects.extend(rows.clone().map(|row| (row, Why::Failed(cause.clone()))));
                    // Running out of fuel takes long: it is not waited for on a whole batch.
                    if is_slow && results.failed == rows.end && rows.end >= ALL_MIN {
                        return Err(self.never_passes(&results));
                    }
                }
            }
            Ok(())
        };
        for from in (0..rows).step_by(at_once) {
            apart.work(from..rows.min(from + at_once), &mut call, &mut done)?;
        }
        Ok(results)
    }

    fn never_passes(&self, results: &Results) -> Error {
        let first = results.rejects.iter().find_map(|(_, why)| match why {
            Why::Failed(cause) => Some(cause.to_string()),
            Why::Refused => None,
        });
        let (name, first) = (&self.function, first.unwrap_or_default());
        self.plugin
            .broken(format!("function `{name}` fails on each of {} rows; the first time it {first}", results.failed))
    }

    fn call_once(&self, part: &[ArrayRef], rows: usize) -> Result<(ArrayRef, Vec<usize>), Failed> {
        let lowered = columns(part, &self.types).map_err(Failed::Run)?;
        let (column, mut rejected) = self.plugin.call((&self.function, self.gives), &self.arguments, lowered, rows)?;
        if !self.nulls_stay {
            return Ok((column, rejected));
        }
        let nulls = part.iter().fold(None, |nulls, array| NullBuffer::union(nulls.as_ref(), array.nulls()));
        rejected.retain(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row)));
        let nulls = NullBuffer::union(nulls.as_ref(), column.nulls());
        let data = column.to_data().into_builder().nulls(nulls).build();
        let data = data.map_err(|e| Failed::Run(Error::bug("a column with other nulls").with_source(e)))?;
        Ok((make_array(data), rejected))
    }

    fn rejected(&self, path: &str, why: Why) -> Rejected {
        let name = &self.plugin.name;
        let detail = match &why {
            Why::Refused if self.rejects.is_empty() => format!("plug-in `{name}` refuses the value"),
            Why::Refused => self.rejects.clone(),
            Why::Failed(Cause::Trap(why)) => format!("plug-in `{name}` trapped: {why}"),
            Why::Failed(Cause::Fuel) => format!("plug-in `{name}` ran out of fuel"),
            Why::Failed(Cause::Memory(_)) => format!("plug-in `{name}` took more memory than it may have"),
            Why::Failed(Cause::Error) => format!("plug-in `{name}` gave up"),
            Why::Failed(Cause::Value(_)) => format!("plug-in `{name}` made what is no value of its type"),
            Why::Failed(Cause::Unfit(_, what)) => format!("plug-in `{name}` made {what}"),
        };
        let reason = match why {
            Why::Failed(Cause::Fuel | Cause::Memory(_)) => RejectKind::TooLarge,
            Why::Failed(Cause::Unfit(reason, _)) => reason,
            _ => RejectKind::BadFormat,
        };
        Rejected { path: path.to_owned(), reason, detail }
    }
}
