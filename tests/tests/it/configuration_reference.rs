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

/// Whether a value is written in one of several ways, each with a key of its own.
fn is_choice(root: &Value, schema: &Value) -> bool {
    resolve(root, schema)["oneOf"].as_array().is_some_and(|all| all.iter().all(|one| one["type"] == "object"))
}

/// How a value is written, in a few words.
fn kind(root: &Value, schema: &Value) -> String {
    if is_choice(root, schema) {
        return "one of the keys below".to_owned();
    }
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
            let is_required = required.iter().any(|r| *r == key) && !is_choice(root, schema);
            let must = if is_required { "**" } else { "" };
            writeln!(page, "| {must}`{path}`{must} | {} | {meaning} |", kind(root, value)).unwrap();
            describe(page, root, path, value);
        }
    }
}

/// What holds for every key.
const HEAD: &str = "# Configuration

Generated from the JSON Schemas in `schema/`, which editors understand too; a test keeps it so. Required keys are bold; a
key inside of an optional one is required where that is there. `[]` is an element of a list, `NAME` a name of your choice.

- **Sizes** are a whole number and `B`, `KB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`, `GiB`, `TiB` (of 1024).
- **Times** are a whole number and `ms`, `s`, `m`, `h` or `d`.
- **Environment**: `${NAME}` inside of a value is the variable, which must be set; `${NAME:-default}` has a default for one
  that is not set or empty; `$${` stands for `${` itself. So it is in `firn.yaml`, in pipelines and in key rings, not in
  tests.
- **Paths** that are relative begin at the folder of the file that they stand in.
- **AWS**: without `accessKeyId` the clients of S3, Glue, KMS and Lake Formation take the default credential chain
  (environment, profile, web identity, container, instance), and without `region` the environment's.
- YAML is read strictly: unknown and repeated keys are errors, and anchors, tags and merge keys are refused.
- What says *not supported yet* is refused by `check`.
";

/// The rows of a schema's keys.
fn rows(file: &str) -> (Value, String) {
    let text = std::fs::read_to_string(source_dir().join(format!("schema/{file}.schema.json"))).unwrap();
    let root: Value = serde_json::from_str(&text).unwrap();
    let mut rows = String::new();
    describe(&mut rows, &root, "", &root);
    (root, rows)
}

/// Keys of the example `everything` that would exclude others of it.
const EXCLUDED: [&str; 9] =
    ["allowEmpty", "brokers", "catalogId", "gap", "glue", "session", "sqlite", "token", "tumbling"];

#[test]
fn the_example_of_every_key_has_every_key() {
    for (schema, file) in [("firn", "firn.yaml"), ("pipeline", "pipelines/everything.yaml")] {
        let text = std::fs::read_to_string(source_dir().join("deploy/examples/everything").join(file)).unwrap();
        let (_, rows) = rows(schema);
        let paths = rows.lines().filter_map(|row| row.split('`').nth(1));
        let keys = paths.filter_map(|path| path.rsplit('.').next()).filter(|key| *key != "NAME");
        let written = |key: &str| {
            let key = format!("{key}:");
            text.match_indices(&key).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric()))
        };
        let missing: Vec<&str> = keys.filter(|key| !EXCLUDED.contains(key) && !written(key)).collect();
        assert!(missing.is_empty(), "deploy/examples/everything/{file} lacks {missing:?}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn configuration_reference_is_current() {
    let mut page = HEAD.to_owned();
    for (file, what) in [
        ("firn", "`firn.yaml`: where"),
        ("pipeline", "`pipelines/*.yaml`: what"),
        ("test", "`*.test.yaml`: what must come out"),
    ] {
        let (root, rows) = rows(file);
        let about = root["description"].as_str().unwrap_or_default();
        write!(page, "\n## {what}\n\n{about}\n\n| key | value | meaning |\n| --- | --- | --- |\n{rows}").unwrap();
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
