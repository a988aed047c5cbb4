//! `explain`: the columns after every step, what works on them, and how. Asks no server.

use std::fmt::Write;

use firn_shared::config::domain::{Column, Step};
use firn_shared::config::{Config, decoded_columns};
use firn_shared::error::Result;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::commands::targets;
use super::findings::Findings;
use super::{DONE, Format, Which};
use crate::run::Target;
use crate::transform::Engine;

/// A table's way from decoded columns to its own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    table: String,
    decoded: Vec<Shown>,
    steps: Vec<ExplainedStep>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplainedStep {
    at: String,
    function: &'static str,
    arguments: Map<String, Json>,
    /// What works on the values; `nothing` where columns are only arranged.
    engine: &'static str,
    /// More about how, such as what Polars makes of an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    columns: Vec<Shown>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    name: String,
    r#type: String,
    required: bool,
}

impl From<&Column> for Shown {
    fn from(column: &Column) -> Self {
        Self { name: column.name.clone(), r#type: column.r#type.to_string(), required: column.required }
    }
}

/// Explains the tables.
pub async fn explain(config: &Config, which: &Which, format: Format) -> Result<u8> {
    let mut found = Findings::new();
    for target in targets(config, which)? {
        let engines = target.check_steps().await;
        found.add(&target.name(), engines.map(|engines| of_table(target, engines)));
    }
    found.print(format, text)?;
    Ok(found.code_or(DONE))
}

fn of_table(target: Target<'_>, engines: Vec<Engine>) -> Explained {
    let steps = target.output.transformations.iter().zip(engines);
    Explained {
        table: target.name(),
        decoded: decoded_columns(target.output).iter().map(Shown::from).collect(),
        steps: steps.map(|(step, engine)| explained(step, engine)).collect(),
    }
}

fn explained(step: &Step, Engine { name, plan }: Engine) -> ExplainedStep {
    ExplainedStep {
        at: step.at.clone(),
        function: step.function.name,
        arguments: step.args.given().clone(),
        engine: name,
        plan,
        columns: step.plan.after.iter().map(|(column, _)| Shown::from(column)).collect(),
    }
}

fn text(table: &Explained) -> String {
    let mut out = format!("{}\n  decoded\n    {}", table.table, list(&table.decoded, None));
    let mut before = &table.decoded;
    for (i, step) in table.steps.iter().enumerate() {
        let arguments = Json::Object(step.arguments.clone());
        // Writing into text cannot fail.
        let _ = write!(out, "\n  {}. {} {arguments}  {}  by {}", i + 1, step.function, step.at, step.engine);
        if let Some(plan) = &step.plan {
            let _ = write!(out, "\n    {}: {plan}", step.engine);
        }
        let _ = write!(out, "\n    {}", list(&step.columns, Some(before)));
        before = &step.columns;
    }
    out
}

/// The columns in a line; those that were not there before are marked.
fn list(columns: &[Shown], before: Option<&Vec<Shown>>) -> String {
    let shown = columns.iter().map(|column| {
        let new = before.is_some_and(|before| !before.contains(column));
        let (mark, required) = (if new { "+" } else { "" }, if column.required { " required" } else { "" });
        format!("{mark}{} {}{required}", column.name, column.r#type)
    });
    shown.collect::<Vec<_>>().join(", ")
}
