//! `docs/configuration.md` is made of the schemas; `FIRN_UPDATE=1 cargo test -p firn-e2e configuration_reference` rewrites it.

use std::collections::BTreeSet;
use std::fmt::Write;

use firn_e2e::rig::procs::source_dir;
use serde_json::Value;

/// The name of the definition that a property's schema refers to, through optional and list wrappers.
fn definition(schema: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().map(str::to_owned);
    }
    let variants = schema["anyOf"].as_array().into_iter().flatten();
    variants
        .chain([&schema["items"], &schema["additionalProperties"]].into_iter().filter(|v| v.is_object()))
        .find_map(definition)
}

/// How a value is written.
fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let words: Vec<String> = values.iter().filter_map(|v| Some(format!("`{}`", v.as_str()?))).collect();
        return words.join(", ");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(name) = schema["$ref"].as_str() {
        return format!("[{0}](#{0})", name.rsplit('/').next().unwrap_or(name)).to_lowercase();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(variants) = schema[key].as_array() {
            let kinds: Vec<String> = variants.iter().map(kind).filter(|k| k != "null").collect();
            return kinds.join(" or ");
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => vec!["any"],
    };
    match types.as_slice() {
        ["array"] => format!("list of {}", kind(&schema["items"])),
        ["object"] if schema["additionalProperties"].is_object() => {
            format!("names to {}", kind(&schema["additionalProperties"]))
        }
        _ => types.join(" or ").replace("string", "text"),
    }
}

fn table(page: &mut String, object: &Value) {
    let required: BTreeSet<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(properties) = object["properties"].as_object() else { return };
    page.push_str("\n| key | value | meaning |\n| --- | --- | --- |\n");
    for (key, schema) in properties {
        let must = if required.contains(key.as_str()) { " (required)" } else { "" };
        let meaning = schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        writeln!(page, "| `{key}`{must} | {} | {meaning} |", kind(schema)).unwrap();
    }
}

/// The definitions below a schema in the order in which a reader meets them.
fn in_order(root: &Value) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut queue = vec![root];
    while let Some(object) = queue.pop() {
        let branches = object["oneOf"].as_array().into_iter().flatten().filter_map(|b| b["properties"].as_object());
        let properties = object["properties"].as_object().into_iter().chain(branches).flat_map(|p| p.values());
        let named = properties
            .filter_map(definition)
            .chain(object["items"].as_object().and_then(|_| definition(&object["items"])));
        let mut next = Vec::new();
        for name in named {
            if !order.contains(&name) {
                next.push(&root["$defs"][&name]);
                order.push(name);
            }
        }
        queue.extend(next.into_iter().rev());
    }
    order
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn configuration_reference_is_current() {
    let mut page = "# Configuration\n\nGenerated from the JSON Schemas in `schema/`, which editors understand too; a test keeps it so.\n".to_owned();
    for (file, what) in [("firn", "`firn.yaml`: where"), ("pipeline", "`pipelines/*.yaml`: what")] {
        let text = std::fs::read_to_string(source_dir().join(format!("schema/{file}.schema.json"))).unwrap();
        let root: Value = serde_json::from_str(&text).unwrap();
        writeln!(page, "\n## {what}\n\n{}", root["description"].as_str().unwrap_or_default()).unwrap();
        table(&mut page, &root);
        for name in in_order(&root) {
            let object = &root["$defs"][&name];
            writeln!(page, "\n### {}\n\n{}", name.to_lowercase(), object["description"].as_str().unwrap_or_default())
                .unwrap();
            if object["properties"].is_object() {
                table(&mut page, object);
            } else if let Some(branches) =
                object["oneOf"].as_array().filter(|b| b.iter().any(|b| b["properties"].is_object()))
            {
                page.push_str("\nOne of these keys:\n");
                for branch in branches {
                    table(&mut page, branch);
                }
            } else {
                writeln!(page, "\n{}", kind(object)).unwrap();
            }
        }
    }
    let path = source_dir().join("docs/configuration.md");
    if std::env::var("FIRN_UPDATE").is_ok() {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/configuration.md is out of date: FIRN_UPDATE=1 cargo test -p firn-e2e configuration_reference"
    );
}
