//! `explain`: the columns after every step, what works on them, and how; and those of the table. Reads no file of a look-up.

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
use crate::table::schema::TableColumn;
use crate::transform::Engine;

/// A table's way from decoded columns to its own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    table: String,
    decoded: Vec<Shown>,
    steps: Vec<ExplainedStep>,
    /// Those of the table, after `piiColumns`.
    columns: Vec<Shown>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplainedStep {
    at: String,
    function: &'static str,
    arguments: Map<String, Json>,
    /// What works on the values; `nothing` where columns are only arranged.
    engine: &'static str,
    /// More about how, such as the plan that Polars makes of an expression.
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

impl From<&TableColumn> for Shown {
    fn from(column: &TableColumn) -> Self {
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
        columns: target.columns().iter().map(Shown::from).collect(),
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
            let _ = plan.lines().try_for_each(|line| write!(out, "\n      {line}"));
        }
        let _ = write!(out, "\n    {}", list(&step.columns, Some(before)));
        before = &step.columns;
    }
    let _ = write!(out, "\n  table, after piiColumns\n    {}", list(&table.columns, Some(before)));
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

#[cfg(test)]
mod tests {
    use firn_shared::config;

    use super::*;

    const FIRN: &str = "
clusters: {c: {brokers: 'localhost:9092'}}
raw: /nowhere/raw
warehouse: /nowhere/lake
catalog: {sqlite: {path: /nowhere/catalog.db}}
keys: {people: {file: keys.yaml}}
";

    const PIPELINE: &str = "
name: p
ingestionUnit:
  kafka: {cluster: c, topic: t}
  incomingData: {format: json, eventTime: kafkaTimestamp}
outsourcingUnit:
  - table:
      database: d
      tableName: t
      piiColumns: [{name: mail, protect: encrypt, token: true}, {name: born, protect: drop}]
      columns:
        - {name: id, type: long, required: true}
        - {name: mail, type: string}
        - {name: born, type: date}
        - {name: size, type: int}
    transformations:
      - lower: {column: mail}
      - filter: {where: 'CASE WHEN true THEN size > 1 ELSE mail IS NULL END', name: small}
      - expr: {sql: 'size * 2', as: twice, type: long}
";

    async fn of_the_pipeline() -> Explained {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("firn.yaml", FIRN);
        write("p.yaml", PIPELINE);
        let config = config::load(&dir.path().join("firn.yaml"), &[dir.path().join("p.yaml")]).unwrap();
        let target = Target::select(&config, None, None).unwrap()[0];
        let mut explained = of_table(target, target.check_steps().await.unwrap());
        let folder = format!("{}/", dir.path().display());
        explained.steps.iter_mut().for_each(|step| step.at = step.at.replace(&folder, ""));
        explained
    }

    #[tokio::test]
    async fn each_step_has_its_columns_and_expressions_the_plan_of_polars() {
        let explained = of_the_pipeline().await;
        insta::assert_snapshot!(text(&explained), @r#"
        d.t
          decoded
            id long required, mail string, born date, size int
          1. lower {"column":"mail"}  p.yaml:17:9  by Arrow
            id long required, mail string, born date, size int
          2. filter {"name":"small","where":"CASE WHEN true THEN size > 1 ELSE mail IS NULL END"}  p.yaml:18:9  by Polars
              SELECT [when(true).then(col("size") > 1).otherwise(col("mail").is_null()).alias("value")]
                DF ["size", "mail"]; PROJECT */2 COLUMNS
              optimised:
              SELECT [(col("size") > 1).alias("value")]
                DF ["size", "mail"]; PROJECT */2 COLUMNS
            id long required, mail string, born date, size int
          3. expr {"as":"twice","sql":"size * 2","type":"long"}  p.yaml:19:9  by Polars
              SELECT [(col("size").strict_cast(Decimal(38, 0)) * 2).strict_cast(Int64).alias("value")]
                DF ["size"]; PROJECT */1 COLUMNS
            id long required, mail string, born date, size int, +twice long
          table, after piiColumns
            id long required, mail string, +mail_token string, size int, twice long, +_key_people string, +_firn struct<cluster: string not null, topic: string not null, generation: int not null, partition: int not null, offset: long not null, event_hour: timestamptz not null>
        "#);
        insta::assert_snapshot!(serde_json::to_string(&explained.steps[2]).unwrap(), @r#"{"at":"p.yaml:19:9","function":"expr","arguments":{"as":"twice","sql":"size * 2","type":"long"},"engine":"Polars","plan":"SELECT [(col(\"size\").strict_cast(Decimal(38, 0)) * 2).strict_cast(Int64).alias(\"value\")]\n  DF [\"size\"]; PROJECT */1 COLUMNS","columns":[{"name":"id","type":"long","required":true},{"name":"mail","type":"string","required":false},{"name":"born","type":"date","required":false},{"name":"size","type":"int","required":false},{"name":"twice","type":"long","required":false}]}"#);
        let last: Vec<&str> = explained.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(last, ["id", "mail", "mail_token", "size", "twice", "_key_people", "_firn"]);
    }
}
