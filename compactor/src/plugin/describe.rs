//! What a plug-in says of its functions, as the check of pipelines takes it.

use firn_shared::error::Result;
use firn_shared::functions::{Arg, Function, Gives, Kind, Need, Nulls, Shape};

use super::host::{Plugin, shorten};
use super::kernel::Steps;
use super::world::{self, ArgumentType, DataType, Reads};
use crate::transform::kernel::Own;

/// Functions of a plug-in at most.
const FUNCTIONS_MAX: usize = 256;
/// Keys that the shapes of functions bring along.
const TAKEN: [&str; 3] = ["column", "columns", "as"];

/// The functions of a plug-in. They live as long as the process, as the table of functions does.
///
/// # Errors
/// `Config` for a description that does not hold together.
pub fn functions(plugin: &'static Plugin) -> Result<Vec<&'static Function>> {
    let found = plugin.describe()?;
    if found.is_empty() || found.len() > FUNCTIONS_MAX {
        return Err(plugin.broken(format!("has {} functions, 1 to {FUNCTIONS_MAX} are allowed", found.len())));
    }
    let mut functions: Vec<&'static Function> = Vec::new();
    for described in found {
        let name = described.name.clone();
        let wrong = |why: String| plugin.broken(format!("function `{}` {why}", shorten(&name)));
        let function = function(plugin, described).map_err(wrong)?;
        if functions.iter().any(|other| other.name == function.name) {
            return Err(wrong("is there twice".to_owned()));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn function(plugin: &'static Plugin, described: world::Function) -> Result<&'static Function, String> {
    if !is_word(&described.name) {
        return Err("needs a name of up to 64 letters, digits and `_`".to_owned());
    }
    known_types(&described)?;
    let gives = Gives::Of(Box::leak(Box::new(described.gives.logical())));
    let mut args = Vec::new();
    let shape = match &described.reads {
        Reads::One(of) => Shape::Map(of.takes(), gives),
        Reads::Several(of) => Shape::Combine(of.takes(), gives),
        Reads::Named(columns) if columns.is_empty() => return Err("reads no column".to_owned()),
        Reads::Named(columns) => {
            for column in columns {
                push(&mut args, &column.name, &column.about, Kind::Column(column.data_type.takes()), Need::Required)?;
            }
            Shape::Named(gives)
        }
    };
    for argument in &described.arguments {
        let kind = match &argument.argument_type {
            ArgumentType::Text => Kind::Text,
            ArgumentType::Whole => Kind::Int(i64::MIN, i64::MAX),
            ArgumentType::Number => Kind::Number,
            ArgumentType::Flag => Kind::Bool,
            ArgumentType::Words(words) => {
                let words = words.iter().map(|word| leak(word)).collect::<Vec<_>>();
                Kind::Word(Vec::leak(words))
            }
        };
        let need = if argument.required { Need::Required } else { Need::Optional };
        push(&mut args, &argument.name, &argument.about, kind, need)?;
    }
    let nulls = match &described.nulls {
        world::Nulls::Stay => Nulls::Stay,
        world::Nulls::Otherwise(rule) => Nulls::Own(leak(&shorten(rule))),
    };
    let rejects = match shorten(&described.rejects) {
        none if none.is_empty() => "values on which the plug-in traps".to_owned(),
        which => format!("{which}, and values on which the plug-in traps"),
    };
    let name = leak(&format!("{}.{}", plugin.name, described.name));
    let example = leak(&example(name, &described.reads));
    let about = leak(&shorten(&described.about));
    let builder: &'static Own = Box::leak(Box::new(Own(Box::leak(Box::new(Steps { plugin, described })))));
    let function = Function::new(name, about, shape).args(Vec::leak(args)).nulls(nulls).rejects(leak(&rejects));
    Ok(Box::leak(Box::new(function.example(example).built_by(builder))))
}

/// Whether there are types as it names them.
fn known_types(described: &world::Function) -> Result<(), String> {
    let reads: Vec<DataType> = match &described.reads {
        Reads::One(of) | Reads::Several(of) => vec![*of],
        Reads::Named(columns) => columns.iter().map(|column| column.data_type).collect(),
    };
    if reads.iter().chain([&described.gives]).all(|of| of.exists()) {
        return Ok(());
    }
    Err("names a decimal that is none: precision is 1 to 38, scale 0 to the precision".to_owned())
}

fn push(args: &mut Vec<Arg>, name: &str, about: &str, kind: Kind, need: Need) -> Result<(), String> {
    if !is_word(name) || TAKEN.contains(&name) || args.iter().any(|arg| arg.name == name) {
        return Err(format!("has an argument `{}`, which is no free name of letters, digits and `_`", shorten(name)));
    }
    args.push(Arg { name: leak(name), kind, need, about: leak(&shorten(about)) });
    Ok(())
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn example(name: &str, reads: &Reads) -> String {
    match reads {
        Reads::One(_) => format!("{name}: {{column: a}}"),
        Reads::Several(_) => format!("{name}: {{columns: [a, b], as: c}}"),
        Reads::Named(columns) => {
            let keys = columns.iter().map(|column| format!("{0}: {0}", column.name));
            let keys: Vec<String> = keys.chain(["as: result".to_owned()]).collect();
            format!("{name}: {{{}}}", keys.join(", "))
        }
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
