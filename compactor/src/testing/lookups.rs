//! Files in place of those that look-ups of a pipeline read: tests need no bucket.

use std::collections::BTreeSet;
use std::path::Path;

use firn_shared::config::cases::{LookupFile, TestFile};
use firn_shared::config::domain::{Pipeline, StoreUrl};

use crate::run::references::is_lookup;

/// Points the look-ups of a pipeline to the files that its tests give.
///
/// # Errors
/// Files that are not there, and those that no look-up reads.
pub fn replace(tests: &TestFile, pipeline: &mut Pipeline) -> Result<(), Vec<String>> {
    let folder = pipeline.file.parent().unwrap_or(Path::new("")).to_owned();
    let url = |file: &str| StoreUrl::parse(file, &folder).map_or_else(|_| file.to_owned(), |url| url.to_string());
    let (mut used, mut read) = (BTreeSet::new(), BTreeSet::new());
    for step in pipeline.outputs.iter_mut().flat_map(|output| &mut output.transformations).filter(|s| is_lookup(s)) {
        let Some(file) = step.args.opt_text("file").map(url) else { continue };
        if let Some(given) = tests.lookups.iter().find(|given| url(&given.named) == file) {
            let path = std::path::absolute(&given.path).unwrap_or_else(|_| given.path.clone());
            step.args.set_text("file", &path.display().to_string());
            used.insert(&given.named);
        }
        read.insert(file);
    }
    let read = read.into_iter().collect::<Vec<_>>().join(", ");
    let wrong = |given: &LookupFile| match (used.contains(&given.named), given.path.is_file()) {
        (true, true) => None,
        (true, false) => Some(format!("there is no file {}", given.path.display())),
        (false, _) if read.is_empty() => Some("no step of the pipeline is a `lookup`".to_owned()),
        (false, _) => Some(format!("no step looks that up; those of the pipeline read {read}")),
    };
    let told = |given: &LookupFile| {
        let (file, at) = (tests.path.display(), given.at);
        Some(format!("{file}:{}:{}: lookups['{}']: {}", at.line, at.column, given.named, wrong(given)?))
    };
    let problems: Vec<String> = tests.lookups.iter().filter_map(told).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
