//! The table of functions as JSON Schema: what a step may look like.

use serde_json::{Map, Value as Json, json};

use super::{Function, Functions, Kind, Need};

/// The name of the definition that stands for a step.
const STEP: &str = "StepYaml";

/// Puts the functions into the place that the schema of a pipeline keeps for steps; `open` for those of other programs, too.
pub(crate) fn add_steps(schema: &mut Json, functions: &Functions, open: bool) {
    let mut choices = Vec::new();
    for function in functions.iter() {
        let definition = format!("{}Step", function.name);
        choices.push(json!({
            "type": "object",
            "description": function.about,
            "properties": {function.name: {"$ref": format!("#/$defs/{definition}")}},
            "required": [function.name],
            "additionalProperties": false,
        }));
        schema["$defs"][definition] = arguments(function);
    }
    if open {
        choices.push(json!({
            "type": "object",
            "description": "A function of your own.",
            "patternProperties": {"^[A-Za-z0-9_]+\\.[A-Za-z0-9_]+$": {"type": "object"}},
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
        }));
    }
    schema["$defs"][STEP] = json!({"description": "A step: one key that names its function.", "oneOf": choices});
}

fn arguments(function: &Function) -> Json {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for arg in function.all_args() {
        let mut schema = kind(arg.kind);
        if matches!(arg.need, Need::Required) {
            required.push(arg.name);
        }
        let default = arg.default_text().map_or_else(String::new, |default| format!(" (default `{default}`)"));
        schema["description"] = format!("{}{default}", arg.about).into();
        properties.insert(arg.name.to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "description": function.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn kind(kind: Kind) -> Json {
    match kind {
        Kind::Columns(_) | Kind::Texts => json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
        Kind::Int(i64::MIN, i64::MAX) => json!({"type": "integer"}),
        Kind::Int(least, i64::MAX) => json!({"type": "integer", "minimum": least}),
        Kind::Int(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Number => json!({"type": "number"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Word(words) => json!({"type": "string", "enum": words}),
        Kind::Scalar => json!({"type": ["string", "number", "boolean"]}),
        Kind::Types | Kind::Pairs => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Column(_)
        | Kind::NewColumn
        | Kind::Text
        | Kind::Type
        | Kind::Path
        | Kind::TimeFormat
        | Kind::Regex
        | Kind::Sql => json!({"type": "string"}),
    }
}
