//! The code behind the table of functions ([`firn_shared::functions`]): one entry a function, one file a family.

#![allow(clippy::unnecessary_wraps, reason = "builders have one signature, whether they can fail or not")]

mod arithmetic;
mod columns;
mod encodings;
mod geo;
mod hashes;
mod json;
mod nested;
mod numbers;
mod rows;
mod strings;
mod time;
mod types;
mod values;
mod web;

use firn_shared::functions::Function;

use super::kernel::{Build, Call, Misfit, Own, Work};

/// What builds each function that comes with the programs.
const TABLE: &[&[(&Function, Build)]] = &[
    columns::TABLE,
    types::TABLE,
    strings::TABLE,
    numbers::TABLE,
    arithmetic::TABLE,
    time::TABLE,
    json::TABLE,
    nested::TABLE,
    web::TABLE,
    geo::TABLE,
    hashes::TABLE,
    values::TABLE,
    rows::TABLE,
];

/// Builds the work of a step.
///
/// # Errors
/// Which argument cannot work, and why.
pub fn build(function: &Function, call: &Call<'_>) -> Result<Work, Misfit> {
    if let Some(own) = function.builder.and_then(|builder| builder.downcast_ref::<Own>()) {
        return own.0.build(call);
    }
    let entry = TABLE.iter().copied().flatten().find(|(entry, _)| *entry == function);
    let (_, build) = entry.ok_or_else(|| ("", format!("nothing builds the function `{}`", function.name)))?;
    build(call)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use firn_shared::functions::Functions;

    use super::*;

    #[test]
    fn every_function_of_the_table_is_built_once() {
        let built: Vec<&str> = TABLE.iter().copied().flatten().map(|(function, _)| function.name).collect();
        let names: BTreeSet<&str> = Functions::built_in().iter().map(|function| function.name).collect();
        assert_eq!(built.iter().copied().collect::<BTreeSet<_>>(), names);
        assert_eq!(built.len(), names.len());
    }
}
