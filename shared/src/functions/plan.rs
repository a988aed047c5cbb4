//! The columns after each step, before any data is read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Args, Function, Functions, Gives, Kind, Nulls, Shape, Takes};
use crate::config::domain::{Column, JsonPath, Step};
use crate::cursor::did_you_mean;
use crate::error::{Error, Result};
use crate::types::LogicalType;

/// How a function changes the columns; `None` after a report.
pub type Plan = fn(&mut Planner<'_>) -> Option<()>;

/// What a step does to the columns before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Positions of the columns it reads.
    pub reads: Vec<usize>,
    /// The columns behind it, and where each comes from. Those made are numbered in order.
    pub after: Vec<(Column, Source)>,
}

/// Where a column behind a step comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It is the column at this position before the step.
    Kept(usize),
    /// The step makes it: its result of this number.
    Made(usize),
}

impl Planned {
    /// Names and types of what it makes, in order.
    pub fn makes(&self) -> impl Iterator<Item = (&str, &LogicalType)> {
        let made = self.after.iter().filter(|(_, source)| matches!(source, Source::Made(_)));
        made.map(|(column, _)| (column.name.as_str(), &column.r#type))
    }
}

/// Columns at one moment.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    list: Vec<Tracked>,
    /// Something that would add columns was broken: a name that is not found may yet be right.
    pub incomplete: bool,
}

/// A column, where its name was given, and whether its type could be read.
#[derive(Debug, Clone)]
pub struct Tracked {
    /// The column.
    pub column: Column,
    /// Path of the value that named it.
    pub named_at: String,
    /// Whether its type is right; else it is a guess.
    pub type_known: bool,
}

impl Columns {
    /// Adds a column whose name stands at `named_at`.
    pub fn push(&mut self, column: Column, named_at: String) {
        self.list.push(Tracked { column, named_at, type_known: true });
    }

    /// Adds a column whose type could not be read.
    pub fn push_untyped(&mut self, column: Column, named_at: String) {
        self.list.push(Tracked { column, named_at, type_known: false });
    }

    /// The columns in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tracked> {
        self.list.iter()
    }

    /// Whether a column of this name is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|tracked| tracked.column.name == name)
    }

    /// The message about a name that is not there; `None` when that cannot be told.
    #[must_use]
    pub fn missing(&self, name: &str) -> Option<String> {
        let known = self.list.iter().map(|tracked| tracked.column.name.as_str());
        (!self.incomplete && !self.has(name)).then(|| format!("no column `{name}` here{}", did_you_mean(name, known)))
    }

    /// The type of a column, when both are known.
    #[must_use]
    pub fn type_of(&self, name: &str) -> Option<&LogicalType> {
        let tracked = &self.list[self.position(name)?];
        tracked.type_known.then_some(&tracked.column.r#type)
    }

    /// Names and types, as messages show them: see [`columns_here`].
    #[must_use]
    pub fn here(&self) -> String {
        columns_here(
            self.list.iter().map(|tracked| (tracked.column.name.as_str(), &tracked.column.r#type, tracked.type_known)),
        )
    }

    /// Changes the columns as a step does, whose arguments stand at `path`; `report` takes path and message of what is
    /// wrong. `None` after a report: the columns are then the best guess, so that one mistake makes one message.
    pub fn apply(
        &mut self,
        function: &Function,
        args: &Args,
        path: &str,
        report: &mut dyn FnMut(&str, String),
    ) -> Option<Planned> {
        let mut reported = false;
        let here = self.here();
        let mut note = |arg: &str, message: String, about_columns: bool| {
            reported = true;
            let message = if about_columns { format!("{message}; {here}") } else { message };
            report(&format!("{path}.{arg}"), message);
        };
        let after = self.list.iter().cloned().enumerate().map(|(i, tracked)| (tracked, Source::Kept(i))).collect();
        let (reads, incomplete) = (Vec::new(), self.incomplete);
        let mut planner =
            Planner { before: self, function, args, path, report: &mut note, reads, after, made: 0, incomplete };
        let done = match function.shape {
            Shape::Map(takes, gives) => planner.map(takes, gives),
            Shape::Combine(takes, gives) => planner.combine(takes, gives),
            Shape::Named(gives) => planner.named(gives),
            Shape::Layout(plan) | Shape::Make(plan) | Shape::Keep(plan) | Shape::Explode(plan) => plan(&mut planner),
        };
        let Planner { reads, after, incomplete, .. } = planner;
        self.incomplete = incomplete;
        self.list = after.iter().map(|(tracked, _)| tracked.clone()).collect();
        let known = after.iter().all(|(tracked, _)| tracked.type_known);
        let after = after.into_iter().map(|(tracked, source)| (tracked.column, source)).collect();
        (done.is_some() && !reported && known && !incomplete).then_some(Planned { reads, after })
    }
}

impl<'a> IntoIterator for &'a Columns {
    type Item = &'a Tracked;
    type IntoIter = std::slice::Iter<'a, Tracked>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One step on its way to a plan.
pub struct Planner<'a> {
    before: &'a Columns,
    function: &'a Function,
    /// The arguments.
    pub args: &'a Args,
    path: &'a str,
    report: &'a mut dyn FnMut(&str, String, bool),
    reads: Vec<usize>,
    after: Vec<(Tracked, Source)>,
    made: usize,
    incomplete: bool,
}

impl Planner<'_> {
    /// Reports what is wrong with an argument.
    pub fn report(&mut self, arg: &str, message: impl Into<String>) {
        (self.report)(arg, message.into(), false);
    }

    /// Reports an argument that does not suit the types of the columns, and which columns there are.
    pub fn misfit(&mut self, arg: &str, message: impl Into<String>) {
        (self.report)(arg, message.into(), true);
    }

    /// The columns before the step.
    pub fn before(&self) -> impl Iterator<Item = &Column> {
        self.before.list.iter().map(|tracked| &tracked.column)
    }

    /// Reads the column that an argument names; `None` when it is not there or of another type, which was reported.
    pub fn read(&mut self, arg: &str) -> Option<usize> {
        let name = self.args.opt_text(arg)?.to_owned();
        let takes = self.function.all_args().find_map(|a| match a.kind {
            Kind::Column(takes) if a.name == arg => Some(takes),
            _ => None,
        });
        self.read_column(arg, &name, takes.unwrap_or(Takes::Any))
    }

    /// Reads the columns that an argument lists.
    pub fn read_all(&mut self, arg: &str) -> Option<Vec<usize>> {
        let takes = self.function.all_args().find_map(|a| match a.kind {
            Kind::Columns(takes) if a.name == arg => Some(takes),
            _ => None,
        });
        let names = self.args.texts(arg).to_vec();
        let read =
            |(i, name): (usize, &String)| self.read_column(&format!("{arg}[{i}]"), name, takes.unwrap_or(Takes::Any));
        let found: Vec<Option<usize>> = names.iter().enumerate().map(read).collect();
        found.into_iter().collect()
    }

    /// Reads every column whose name stands somewhere in the text of an argument, such as a SQL expression.
    pub fn read_mentioned(&mut self, arg: &str) {
        let text = self.args.opt_text(arg).unwrap_or_default();
        let columns = self.before.list.iter().enumerate();
        let mentioned = columns.filter(|(_, tracked)| tracked.type_known && mentions(text, &tracked.column.name));
        self.reads.extend(mentioned.map(|(at, _)| at));
    }

    /// Reads a column by name.
    pub fn read_column(&mut self, arg: &str, name: &str, takes: Takes) -> Option<usize> {
        let at = self.find(arg, name)?;
        let Tracked { column, type_known, .. } = &self.before.list[at];
        if !type_known {
            return None;
        }
        if !takes.accepts(&column.r#type) {
            let message = format!("column `{name}` is {}; {} takes {takes}", column.r#type, self.function.name);
            self.misfit(arg, message);
            return None;
        }
        self.reads.push(at);
        Some(at)
    }

    /// The position of a column before the step.
    pub fn find(&mut self, arg: &str, name: &str) -> Option<usize> {
        if let Some(message) = self.before.missing(name) {
            self.misfit(arg, message);
        }
        self.before.position(name)
    }

    /// The type of a column before the step.
    #[must_use]
    pub fn type_at(&self, at: usize) -> &LogicalType {
        &self.before.list[at].column.r#type
    }

    /// Makes a new column behind the others; `arg` names it. Without a type it is broken, which was reported.
    pub fn add(&mut self, arg: &str, name: &str, r#type: Option<LogicalType>) {
        if self.before.has(name) || self.after.iter().any(|(tracked, _)| tracked.column.name == name) {
            self.report(arg, format!("a column `{name}` is there already"));
            return;
        }
        let tracked = made(name, r#type, format!("{}.{arg}", self.path));
        self.after.push((tracked, Source::Made(self.made)));
        self.made += 1;
    }

    /// Makes another column in the place of one; it keeps its name, and stays required if `keeps_nulls`.
    pub fn replace(&mut self, at: usize, r#type: Option<LogicalType>, keeps_nulls: bool) {
        let made = self.made;
        for (tracked, source) in self.after.iter_mut().filter(|(_, source)| *source == Source::Kept(at)) {
            let column = &mut tracked.column;
            column.required &= keeps_nulls;
            column.path = JsonPath(Vec::new());
            column.format = None;
            tracked.type_known = r#type.is_some();
            if let Some(r#type) = r#type.clone() {
                column.r#type = r#type;
            }
            *source = Source::Made(made);
        }
        self.made += 1;
    }

    /// Removes a column.
    pub fn remove(&mut self, at: usize) {
        self.after.retain(|(_, source)| *source != Source::Kept(at));
    }

    /// Gives a column another name.
    pub fn rename(&mut self, at: usize, arg: &str, to: &str) {
        let named_at = format!("{}.{arg}", self.path);
        for (tracked, _) in self.after.iter_mut().filter(|(_, source)| *source == Source::Kept(at)) {
            to.clone_into(&mut tracked.column.name);
            tracked.named_at.clone_from(&named_at);
        }
    }

    /// Adds a copy of a column, under another name.
    pub fn copy(&mut self, at: usize, arg: &str, to: &str) {
        let mut tracked = self.before.list[at].clone();
        to.clone_into(&mut tracked.column.name);
        tracked.named_at = format!("{}.{arg}", self.path);
        self.after.push((tracked, Source::Kept(at)));
    }

    /// Keeps only these columns, in this order.
    pub fn arrange(&mut self, order: &[usize]) {
        let taken = order.iter().map(|at| (self.before.list[*at].clone(), Source::Kept(*at)));
        self.after = taken.collect();
    }

    /// What was made keeps its place in the payload: a cast changes the type, not the value.
    pub fn keep_path(&mut self, at: usize) {
        let path = self.before.list[at].column.path.clone();
        let name = &self.before.list[at].column.name;
        for (tracked, _) in self.after.iter_mut().filter(|(tracked, _)| tracked.column.name == *name) {
            tracked.column.path.clone_from(&path);
        }
    }

    /// Something is broken that would have added columns.
    pub fn lose_track(&mut self) {
        self.incomplete = true;
    }

    /// The position of a column before the step, if it is there.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.before.position(name)
    }

    /// Whether a column of this name was there before the step.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.before.has(name)
    }

    /// The type that `gives` says for the columns read; `None` after a report.
    pub fn given(&mut self, gives: Gives, reads: &[usize]) -> Option<LogicalType> {
        let types: Vec<LogicalType> = reads.iter().map(|at| self.type_at(*at).clone()).collect();
        match gives.of(&types, self.args) {
            Ok(r#type) => Some(r#type),
            Err((arg, message)) => {
                self.misfit(arg, message);
                None
            }
        }
    }

    fn map(&mut self, takes: Takes, gives: Gives) -> Option<()> {
        let name = self.args.opt_text("column")?.to_owned();
        let read = self.read_column("column", &name, takes);
        let r#type = match read {
            Some(at) => self.given(gives, &[at]),
            None => gives.fixed(self.args),
        };
        match self.args.opt_text("as").map(str::to_owned).filter(|to| *to != name) {
            Some(to) => self.add("as", &to, r#type),
            None => {
                if let Some(at) = self.before.position(&name) {
                    self.replace(at, r#type, self.function.nulls == Nulls::Stay);
                }
            }
        }
        read.map(drop)
    }

    fn combine(&mut self, takes: Takes, gives: Gives) -> Option<()> {
        let read = self.read_all_as("columns", takes);
        self.result_as(gives, read, self.args.texts("columns"))
    }

    fn named(&mut self, gives: Gives) -> Option<()> {
        let columns = self.function.own_args.iter().filter(|arg| matches!(arg.kind, Kind::Column(_)));
        let keys: Vec<&str> = columns.map(|arg| arg.name).collect();
        let found: Vec<Option<usize>> = keys.iter().map(|key| self.read(key)).collect();
        let names: Vec<String> = keys.iter().filter_map(|key| self.args.opt_text(key)).map(str::to_owned).collect();
        self.result_as(gives, found.into_iter().collect(), &names)
    }

    /// The result under the name that `as` gives it: in the place of the column of that name, if it is one of `names`, which
    /// were read; else behind all others.
    fn result_as(&mut self, gives: Gives, read: Option<Vec<usize>>, names: &[String]) -> Option<()> {
        let to = self.args.opt_text("as")?.to_owned();
        let r#type = match &read {
            Some(reads) => self.given(gives, reads),
            None => gives.fixed(self.args),
        };
        let in_place = names.contains(&to).then(|| self.before.position(&to)).flatten();
        match in_place {
            Some(at) => self.replace(at, r#type, false),
            None => self.add("as", &to, r#type),
        }
        read.map(drop)
    }

    fn read_all_as(&mut self, arg: &str, takes: Takes) -> Option<Vec<usize>> {
        let names = self.args.texts(arg).to_vec();
        let read = |(i, name): (usize, &String)| self.read_column(&format!("{arg}[{i}]"), name, takes);
        let found: Vec<Option<usize>> = names.iter().enumerate().map(read).collect();
        found.into_iter().collect()
    }
}

/// So many columns are listed in a message.
const LISTED: usize = 20;

/// A type in a list of columns has at most so many characters.
const TYPE_CHARS: usize = 60;

/// The columns before a step, as messages show them: names, and types that are known; of many the first, and how many more
/// there are.
#[must_use]
pub fn columns_here<'a>(columns: impl ExactSizeIterator<Item = (&'a str, &'a LogicalType, bool)>) -> String {
    let more = columns.len().saturating_sub(LISTED);
    let shown = columns.take(LISTED).map(|(name, r#type, known)| match r#type.to_string() {
        _ if !known => name.to_owned(),
        long if long.chars().count() > TYPE_CHARS => {
            format!("{name} {}…", long.chars().take(TYPE_CHARS).collect::<String>())
        }
        r#type => format!("{name} {type}"),
    });
    match shown.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "there are no columns here".to_owned(),
        all if more == 0 => format!("the columns here are {all}"),
        some => format!("the columns here are {some} and {more} more"),
    }
}

/// Whether `name` stands somewhere in `text`, not as a part of a longer word.
fn mentions(text: &str, name: &str) -> bool {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
        let (first, last) = (name.chars().next(), name.chars().next_back());
        let longer = word(before) && word(first) || word(after) && word(last);
        !longer
    })
}

fn made(name: &str, r#type: Option<LogicalType>, named_at: String) -> Tracked {
    let type_known = r#type.is_some();
    let column = Column {
        name: name.to_owned(),
        path: JsonPath(Vec::new()),
        r#type: r#type.unwrap_or(LogicalType::String),
        required: false,
        format: None,
        doc: None,
    };
    Tracked { column, named_at, type_known }
}

/// Steps from names and arguments, planned over `columns`; their places are their numbers.
///
/// # Errors
/// `Config`, with every step that cannot work.
pub fn steps(functions: &Functions, columns: &[Column], list: &[(&str, Json)]) -> Result<Vec<Step>> {
    let mut now = Columns::default();
    for column in columns {
        now.push(column.clone(), column.name.clone());
    }
    let (mut steps, mut wrong) = (Vec::new(), Vec::new());
    for (i, (name, given)) in list.iter().enumerate() {
        let at = format!("step {}", i + 1);
        let Some(function) = functions.get(name) else {
            let hint = did_you_mean(name, functions.iter().map(|function| function.name));
            wrong.push(format!("{at}: no function `{name}`{hint}"));
            now.incomplete = true;
            continue;
        };
        let given = given.as_object().cloned().unwrap_or_default();
        let mut report = |path: &str, message: String| wrong.push(format!("{at}: {path}: {message}"));
        let args = Args::read(function, &given, &mut |arg, message| report(&format!("{name}.{arg}"), message));
        let planned = args.and_then(|args| Some((now.apply(function, &args, name, &mut report)?, args)));
        match planned {
            Some((plan, args)) => steps.push(Step { at, places: BTreeMap::new(), function, args, plan }),
            None => now.incomplete = true,
        }
    }
    if wrong.is_empty() { Ok(steps) } else { Err(Error::config(wrong.join("\n"))) }
}

/// The columns before the steps that a column behind them was made of.
#[must_use]
pub fn origins(steps: &[Step], position: usize) -> BTreeSet<usize> {
    steps.iter().rev().fold(BTreeSet::from([position]), |positions, step| {
        let of = |position: &usize| match step.plan.after.get(*position) {
            Some((_, Source::Kept(at))) => vec![*at],
            Some((_, Source::Made(_))) => step.plan.reads.clone(),
            None => Vec::new(),
        };
        positions.iter().flat_map(of).collect()
    })
}
