//! `docs/configuration.md` is made of the schemas; `FIRN_UPDATE=1 cargo test -p firn-e2e configuration_reference` rewrites it.

use std::fmt::Write;

use firn_e2e::rig::procs::source_dir;
use serde_json::Value;

/// A schema without references and without "or null".
fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    if let Some(name) = schema["$ref"].as_str() {
        return resolve(root, root.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null));
    }
    match schema["anyOf"].as_array().map(Vec::as_slice) {
        Some([one, null]) if null["type"] == "null" => resolve(root, one),
        _ => schema,
    }
}

/// The ways in which a value may be written, each a schema.
fn variants<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
    let schema = resolve(root, schema);
    let several = ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].as_array());
    several.map_or_else(|| vec![schema], |all| all.iter().flat_map(|one| variants(root, one)).collect())
}

/// How a value is written, in a few words.
fn kind(root: &Value, schema: &Value) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for one in variants(root, schema) {
        let words = one["enum"].as_array().into_iter().flatten().chain(one.get("const"));
        let words: Vec<String> = words.filter_map(|v| Some(format!("`{}`", v.as_str()?))).collect();
        let types = match &one["type"] {
            Value::String(name) => vec![name.as_str()],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        match types.into_iter().find(|name| *name != "null") {
            _ if !words.is_empty() => kinds.extend(words),
            Some("array") => kinds.push("list".to_owned()),
            Some("object") => kinds.push("keys below".to_owned()),
            Some("string") => kinds.push("text".to_owned()),
            Some(other) => kinds.push(other.to_owned()),
            None => {}
        }
    }
    kinds.dedup();
    if kinds.is_empty() { "any value".to_owned() } else { kinds.join(" or ") }
}

/// Writes a row for every key below a schema.
fn describe(page: &mut String, root: &Value, path: &str, schema: &Value) {
    for one in variants(root, schema) {
        // Steps have a reference of their own.
        if one["items"].is_object() && one["items"]["$ref"] != "#/$defs/StepYaml" {
            describe(page, root, &format!("{path}[]"), &one["items"]);
        }
        if one["additionalProperties"].is_object() {
            describe(page, root, &format!("{path}.NAME"), &one["additionalProperties"]);
        }
        let required: Vec<&Value> = one["required"].as_array().into_iter().flatten().collect();
        for (key, value) in one["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let path = path.trim_start_matches('.');
            let told = [&value["description"], &resolve(root, value)["description"]];
            let meaning =
                told.iter().find_map(|d| d.as_str()).unwrap_or_default().replace('\n', " ").replace('|', "\\|");
            let must = if required.iter().any(|r| *r == key) { "**" } else { "" };
            writeln!(page, "| {must}`{path}`{must} | {} | {meaning} |", kind(root, value)).unwrap();
            describe(page, root, path, value);
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn configuration_reference_is_current() {
    let mut page = "# Configuration\n\nGenerated from the JSON Schemas in `schema/`, which editors understand too; a test keeps it so. \
        Required keys are bold; `[]` is an element of a list, `NAME` a name of your choice.\n"
        .to_owned();
    for (file, what) in [
        ("firn", "`firn.yaml`: where"),
        ("pipeline", "`pipelines/*.yaml`: what"),
        ("test", "`*.test.yaml`: what must come out"),
    ] {
        let text = std::fs::read_to_string(source_dir().join(format!("schema/{file}.schema.json"))).unwrap();
        let root: Value = serde_json::from_str(&text).unwrap();
        let about = root["description"].as_str().unwrap_or_default();
        write!(page, "\n## {what}\n\n{about}\n\n| key | value | meaning |\n| --- | --- | --- |\n").unwrap();
        describe(&mut page, &root, "", &root);
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
