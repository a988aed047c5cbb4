//! The JSON Schemas of all kinds of file, for editors and for our own check of shapes.
//!
//! The copies under `schema/` are generated: `FIRN_UPDATE=1 cargo test -p firn-shared schema` rewrites them.

use serde_json::Value;

use super::wire::{FirnYaml, PipelineYaml, RingYaml, TestFileYaml};
use crate::functions::Functions;

/// The schema of `firn.yaml`.
#[must_use]
pub fn firn() -> Value {
    titled(schemars::schema_for!(FirnYaml), "firn.yaml")
}

/// The schema of `pipelines/*.yaml`, with steps that call these functions or, under a name with a dot, others.
#[must_use]
pub fn pipeline(functions: &Functions) -> Value {
    with_steps(functions, true)
}

/// As [`pipeline`], with steps that call these functions and no others.
#[must_use]
pub fn pipeline_of_program(functions: &Functions) -> Value {
    with_steps(functions, false)
}

fn with_steps(functions: &Functions, open: bool) -> Value {
    let mut schema = titled(schemars::schema_for!(PipelineYaml), "Firn pipeline");
    crate::functions::add_steps(&mut schema, functions, open);
    schema.sort_all_objects();
    schema
}

/// The schema of `*.test.yaml`.
#[must_use]
pub fn test() -> Value {
    titled(schemars::schema_for!(TestFileYaml), "Tests of a Firn pipeline")
}

/// The schema of a key ring.
#[must_use]
pub fn ring() -> Value {
    titled(schemars::schema_for!(RingYaml), "Firn key ring")
}

fn titled(schema: schemars::Schema, title: &str) -> Value {
    let mut value = schema.to_value();
    value["title"] = title.into();
    // The order must not hang on whether some library of the program asks serde_json to keep that of insertion.
    value.sort_all_objects();
    value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn checked_in_schemas_are_current() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema");
        let all =
            [("firn", firn()), ("pipeline", pipeline(&Functions::built_in())), ("test", test()), ("key-ring", ring())];
        for (name, schema) in all {
            let path = folder.join(format!("{name}.schema.json"));
            let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            if super::super::env::variable("FIRN_UPDATE").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                stored == text,
                "{} is out of date: FIRN_UPDATE=1 cargo test -p firn-shared schema",
                path.display()
            );
        }
    }
}
