//! What a step of a pipeline can be: every function's name, arguments, types and words about it, in one table.
//!
//! [`BUILT_IN`] is that table, one file a family. The parser and its "did you mean" ([`args`]), the JSON Schema ([`schema`]),
//! the columns after each step ([`plan`]) and `docs/functions.md` read it; the code that works on the values lives with the
//! compactor, which keeps one entry beside each of these. A team's own functions are values of the same type
//! ([`Functions::with`]); their names have a dot (`acme.iban`), ours have none, so neither ever takes the other's.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the functions of the table have one signature, whether they can fail or not"
)]

pub mod args;
pub mod columns;
mod describe;
pub mod geo;
pub mod hashes;
pub mod json;
pub mod nested;
pub mod numbers;
pub mod plan;
pub mod rows;
mod schema;
pub mod strings;
pub mod takes;
#[cfg(test)]
mod tests;
pub mod time;
pub mod types;
pub mod values;
pub mod web;

use std::any::Any;
use std::fmt;

pub use args::{Arg, Args, Kind, Need, Value};
pub use describe::{Argument, Description, reference};
pub use plan::{Columns, Plan, Planned, Planner, Source, columns_here, origins, steps};
pub(crate) use schema::add_steps;
pub use takes::{Gives, Takes};

use crate::config::domain::{PluginSpec, S3Options};
use crate::cursor::did_you_mean;
use crate::ids::PluginName;

/// What a step calls.
pub struct Function {
    /// The key of the step.
    pub name: &'static str,
    /// What it is listed under.
    pub family: Family,
    /// What it does, in a sentence or two.
    pub about: &'static str,
    /// What it does to columns and rows.
    pub shape: Shape,
    /// Arguments beside those that the shape brings along.
    pub own_args: &'static [Arg],
    /// What becomes of nulls, and which values become null.
    pub nulls: Nulls,
    /// Which values reject their record; empty when none does.
    pub rejects: &'static str,
    /// A step as one writes it.
    pub example: &'static str,
    /// What builds a function that is not ours; its type is the compactor's business.
    pub builder: Option<&'static (dyn Any + Send + Sync)>,
}

/// What functions are listed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Which columns there are, and in which order.
    Columns,
    /// From one type to another.
    Types,
    /// Text.
    Strings,
    /// Numbers.
    Numbers,
    /// Dates and times.
    Time,
    /// JSON text.
    Json,
    /// Lists, maps and structs.
    Nested,
    /// URLs, user agents and addresses.
    Web,
    /// Places on earth.
    Geo,
    /// Hashes.
    Hashes,
    /// Values that depend on other values.
    Values,
    /// Which rows there are.
    Rows,
    /// Functions that are not ours.
    Own,
}

/// What a function does to columns and rows.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Reads `column` and writes `as`, or the same column.
    Map(Takes, Gives),
    /// Reads `columns` and writes `as`.
    Combine(Takes, Gives),
    /// Reads the columns that its own arguments name, and writes `as`.
    Named(Gives),
    /// Arranges columns and computes nothing.
    Layout(Plan),
    /// Makes columns as its plan says.
    Make(Plan),
    /// Leaves rows out.
    Keep(Plan),
    /// Makes several rows of one.
    Explode(Plan),
}

/// What becomes of nulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// Null stays null, and nothing else becomes null.
    Stay,
    /// Null stays null, and these values become null.
    Made(&'static str),
    /// As said here.
    Own(&'static str),
}

/// What functions reject that make text of many times the bytes of what they read.
pub const LONG: &str = "a result that is longer than memory allows";
/// What functions of numbers may refuse; JSON has no such number, so it comes of a step before.
pub const NAN: &str = "NaN, which has no sign";

impl Function {
    /// A function that reads one column and writes one.
    #[must_use]
    pub const fn map(name: &'static str, about: &'static str, takes: Takes, gives: Gives) -> Self {
        Self::new(name, about, Shape::Map(takes, gives))
    }

    /// A function of this shape, without further arguments, that keeps nulls and rejects nothing.
    #[must_use]
    pub const fn new(name: &'static str, about: &'static str, shape: Shape) -> Self {
        let family = Family::Own;
        Self { name, family, about, shape, own_args: &[], nulls: Nulls::Stay, rejects: "", example: "", builder: None }
    }

    /// In this family.
    #[must_use]
    pub const fn of(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// With these arguments.
    #[must_use]
    pub const fn args(mut self, args: &'static [Arg]) -> Self {
        self.own_args = args;
        self
    }

    /// Nulls are treated so.
    #[must_use]
    pub const fn nulls(mut self, nulls: Nulls) -> Self {
        self.nulls = nulls;
        self
    }

    /// These values reject their record.
    #[must_use]
    pub const fn rejects(mut self, which: &'static str) -> Self {
        self.rejects = which;
        self
    }

    /// A step as one writes it.
    #[must_use]
    pub const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// Built by this.
    #[must_use]
    pub const fn built_by(mut self, builder: &'static (dyn Any + Send + Sync)) -> Self {
        self.builder = Some(builder);
        self
    }

    /// All arguments, in the order of the reference.
    pub fn all_args(&self) -> impl Iterator<Item = Arg> + '_ {
        let (first, last) = match self.shape {
            Shape::Map(takes, _) => (Some(Arg::required("column", Kind::Column(takes), "The column.")), Some(MAP_AS)),
            Shape::Combine(takes, _) => {
                let columns = Arg::required("columns", Kind::Columns(takes), "The columns, in order.");
                (Some(columns), Some(COMBINE_AS))
            }
            Shape::Named(_) => (None, Some(COMBINE_AS)),
            _ => (None, None),
        };
        first.into_iter().chain(self.own_args.iter().copied()).chain(last)
    }

    /// Whether another name than ours is asked for.
    #[must_use]
    pub fn is_own(name: &str) -> bool {
        name.contains('.')
    }
}

const MAP_AS: Arg = Arg::optional("as", Kind::NewColumn, "The result, a new column; else it replaces `column`.");
const COMBINE_AS: Arg = Arg::required("as", Kind::NewColumn, "The result; may be the name of one that is read.");

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.name == other.name
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Columns => "Columns",
            Self::Types => "Types",
            Self::Strings => "Strings",
            Self::Numbers => "Numbers",
            Self::Time => "Time",
            Self::Json => "JSON",
            Self::Nested => "Lists, maps and structs",
            Self::Web => "URLs, user agents and addresses",
            Self::Geo => "Places",
            Self::Hashes => "Hashes",
            Self::Values => "Values and conditions",
            Self::Rows => "Rows",
            Self::Own => "Your own",
        })
    }
}

/// All functions that come with the programs, by family.
pub const BUILT_IN: &[&[Function]] = &[
    columns::ALL,
    types::ALL,
    strings::ALL,
    numbers::ALL,
    time::ALL,
    json::ALL,
    nested::ALL,
    web::ALL,
    geo::ALL,
    hashes::ALL,
    values::ALL,
    rows::ALL,
];

/// The functions that pipelines may call.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    own: Vec<&'static Function>,
    /// Names with a dot that are not known here pass unchecked: another program knows them.
    open: bool,
    /// What makes functions of plug-ins, in a program that can run them.
    loader: Option<Loader>,
    /// Plug-ins whose functions are not known, because something about them was reported already.
    broken: Vec<PluginName>,
}

/// Makes functions of a plug-in; `None` for one in a store that cannot be reached, as its options are broken. What it makes
/// lives as long as the process.
pub type Loader = fn(&PluginSpec, Option<&S3Options>) -> crate::error::Result<Option<Vec<&'static Function>>>;

impl Functions {
    /// Those that come with the programs.
    #[must_use]
    pub fn built_in() -> Self {
        Self::default()
    }

    /// Adds functions of somebody's own; their names have a dot.
    ///
    /// # Errors
    /// `Config` for a name without a dot, or one that is taken.
    pub fn with(mut self, functions: impl IntoIterator<Item = &'static Function>) -> crate::error::Result<Self> {
        for function in functions {
            let name = function.name;
            let parts: Vec<&str> = name.split('.').collect();
            let plain = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if parts.len() != 2 || !parts.iter().all(plain) {
                let rule = "must be two words with a dot between, such as `acme.iban`";
                return Err(crate::error::Error::config(format!("function `{name}`: the name {rule}")));
            }
            if self.own.iter().any(|other| other.name == name) {
                return Err(crate::error::Error::config(format!("function `{name}` is registered twice")));
            }
            self.own.push(function);
        }
        Ok(self)
    }

    /// Lets names with a dot that are not known pass unchecked.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Loads the plug-ins of `firn.yaml` with this.
    #[must_use]
    pub fn loading(mut self, loader: Loader) -> Self {
        self.loader = Some(loader);
        self
    }

    /// What loads plug-ins.
    #[must_use]
    pub fn loader(&self) -> Option<Loader> {
        self.loader
    }

    /// Lets all functions of this plug-in pass unchecked.
    #[must_use]
    pub fn without(mut self, plugin: PluginName) -> Self {
        self.broken.push(plugin);
        self
    }

    /// Whether a name that is not known passes.
    #[must_use]
    pub fn passes(&self, name: &str) -> bool {
        let of = |plugin: &PluginName| name.split_once('.').is_some_and(|(first, _)| first == plugin.as_str());
        Function::is_own(name) && (self.open || self.broken.iter().any(of))
    }

    /// Whether unknown names with a dot pass.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'static Function> + '_ {
        BUILT_IN.iter().copied().flatten().chain(self.own.iter().copied())
    }

    /// The function of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'static Function> {
        self.iter().find(|function| function.name == name)
    }

    /// The function of this name, which must be there.
    ///
    /// # Errors
    /// `Config`, with the name that comes near.
    pub fn named(&self, name: &str) -> crate::error::Result<&'static Function> {
        let hint = || did_you_mean(name, self.iter().map(|function| function.name));
        self.get(name).ok_or_else(|| crate::error::Error::config(format!("no function `{name}`{}", hint())))
    }
}
