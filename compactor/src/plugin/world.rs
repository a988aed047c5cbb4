//! What `plugin.wit` says, in Rust, and what its first version said: a plug-in that was built with that is called as if it
//! had been built with this.

use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::component::Version;

/// What is generated of `plugin.wit`.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic, reason = "generated")]
mod second {
    wasmtime::component::bindgen!({
        path: "../deploy/plugins/plugin.wit",
        world: "plugin",
        additional_derives: [PartialEq],
    });
}

/// What is generated of its first version.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic, reason = "generated")]
mod first {
    wasmtime::component::bindgen!({ path: "../deploy/plugins/plugin-1.0.0.wit", world: "plugin" });
}

use first::exports::firn::plugin::functions as old;
pub use second::exports::firn::plugin::functions::{
    Argument, ArgumentType, Column, DataType, Digits, Flat, Function, Lists, Made, NamedColumn, Nulls, Reads, Value,
};

/// A compiled plug-in of either version.
pub enum World<T: 'static> {
    /// Of the first.
    First(first::PluginPre<T>),
    /// Of the second.
    Second(second::PluginPre<T>),
}

impl<T: Send + 'static> World<T> {
    /// The exports of a component.
    ///
    /// # Errors
    /// Those that it lacks.
    pub fn new(version: Version, linked: InstancePre<T>) -> wasmtime::Result<Self> {
        Ok(match version {
            Version::First => Self::First(first::PluginPre::new(linked)?),
            Version::Second => Self::Second(second::PluginPre::new(linked)?),
        })
    }

    /// An instance.
    ///
    /// # Errors
    /// What it ran into when it started.
    pub fn instantiate(&self, store: &mut Store<T>) -> wasmtime::Result<Instance> {
        Ok(match self {
            Self::First(world) => Instance::First(world.instantiate(store)?),
            Self::Second(world) => Instance::Second(world.instantiate(store)?),
        })
    }
}

/// An instance of a plug-in.
pub enum Instance {
    /// Of the first version.
    First(first::Plugin),
    /// Of the second.
    Second(second::Plugin),
}

impl Instance {
    /// The functions.
    ///
    /// # Errors
    /// What it ran into.
    pub fn describe<T: Send>(&self, store: &mut Store<T>) -> wasmtime::Result<Vec<Function>> {
        match self {
            Self::First(plugin) => {
                let found = plugin.firn_plugin_functions().call_describe(store)?;
                Ok(found.into_iter().map(Function::from).collect())
            }
            Self::Second(plugin) => plugin.firn_plugin_functions().call_describe(store),
        }
    }

    /// Calls a function.
    ///
    /// # Errors
    /// What it ran into; inside, what the function itself says.
    pub fn call<T: Send>(
        &self,
        store: &mut Store<T>,
        function: &str,
        arguments: &[(String, Value)],
        columns: Vec<Column>,
        rows: u32,
    ) -> wasmtime::Result<Result<Made, String>> {
        match self {
            Self::First(plugin) => {
                let arguments: Vec<_> =
                    arguments.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
                let columns: Option<Vec<_>> = columns.into_iter().map(old_column).collect();
                let columns = columns.ok_or_else(|| wasmtime::Error::msg("a column that its version does not know"))?;
                let made = plugin.firn_plugin_functions().call_call(store, function, &arguments, &columns, rows)?;
                Ok(made.map(Made::from))
            }
            Self::Second(plugin) => {
                plugin.firn_plugin_functions().call_call(store, function, arguments, &columns, rows)
            }
        }
    }
}

impl From<old::DataType> for DataType {
    fn from(of: old::DataType) -> Self {
        Self::Flat(match of {
            old::DataType::Boolean => Flat::Boolean,
            old::DataType::Long => Flat::Long,
            old::DataType::Double => Flat::Double,
            old::DataType::Text => Flat::Text,
            old::DataType::Binary => Flat::Binary,
            old::DataType::Date => Flat::Date,
            old::DataType::Timestamp => Flat::Timestamp,
            old::DataType::Timestamptz => Flat::Timestamptz,
        })
    }
}

/// A type that the first version knows.
fn old_type(of: DataType) -> Option<old::DataType> {
    let DataType::Flat(of) = of else { return None };
    Some(match of {
        Flat::Boolean => old::DataType::Boolean,
        Flat::Long => old::DataType::Long,
        Flat::Double => old::DataType::Double,
        Flat::Text => old::DataType::Text,
        Flat::Binary => old::DataType::Binary,
        Flat::Date => old::DataType::Date,
        Flat::Timestamp => old::DataType::Timestamp,
        Flat::Timestamptz => old::DataType::Timestamptz,
        Flat::Time | Flat::Decimal(_) | Flat::Json | Flat::Uuid => return None,
    })
}

fn old_column(column: Column) -> Option<old::Column> {
    let Column { data_type, lists: _, validity, offsets, values } = column;
    Some(old::Column { data_type: old_type(data_type)?, validity, offsets, values })
}

impl From<old::Made> for Made {
    fn from(made: old::Made) -> Self {
        let old::Column { data_type, validity, offsets, values } = made.column;
        let column = Column { data_type: data_type.into(), lists: None, validity, offsets, values };
        Self { column, rejected: made.rejected }
    }
}

impl From<Value> for old::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Whole(whole) => Self::Whole(whole),
            Value::Number(number) => Self::Number(number),
            Value::Flag(flag) => Self::Flag(flag),
        }
    }
}

impl From<old::Function> for Function {
    fn from(function: old::Function) -> Self {
        let old::Function { name, about, reads, gives, nulls, rejects, arguments } = function;
        let nulls = match nulls {
            old::Nulls::Stay => Nulls::Stay,
            old::Nulls::Otherwise(rule) => Nulls::Otherwise(rule),
        };
        let arguments = arguments.into_iter().map(Argument::from).collect();
        Self { name, about, reads: reads.into(), gives: gives.into(), nulls, rejects, arguments }
    }
}

impl From<old::Reads> for Reads {
    fn from(reads: old::Reads) -> Self {
        let named = |column: old::NamedColumn| NamedColumn {
            name: column.name,
            about: column.about,
            data_type: column.data_type.into(),
        };
        match reads {
            old::Reads::One(of) => Self::One(of.into()),
            old::Reads::Several(of) => Self::Several(of.into()),
            old::Reads::Named(columns) => Self::Named(columns.into_iter().map(named).collect()),
        }
    }
}

impl From<old::Argument> for Argument {
    fn from(argument: old::Argument) -> Self {
        let old::Argument { name, about, argument_type, required } = argument;
        let argument_type = match argument_type {
            old::ArgumentType::Text => ArgumentType::Text,
            old::ArgumentType::Whole => ArgumentType::Whole,
            old::ArgumentType::Number => ArgumentType::Number,
            old::ArgumentType::Flag => ArgumentType::Flag,
            old::ArgumentType::Words(words) => ArgumentType::Words(words),
        };
        Self { name, about, argument_type, required }
    }
}
