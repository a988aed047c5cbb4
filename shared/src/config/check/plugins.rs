//! WebAssembly plug-ins: what `firn.yaml` says of them, and their functions for the check of pipelines.

use super::File;
use super::firn::store;
use crate::config::domain::{PluginLimits, PluginSpec, S3Options};
use crate::config::shape::join;
use crate::config::units::ByteSize;
use crate::config::wire::{FirnYaml, PluginYaml};
use crate::functions::Functions;
use crate::ids::PluginName;

/// A call needs room for its rows.
const MEMORY_MIN: u64 = 1 << 20;
/// A WebAssembly memory has addresses of 32 bits.
const MEMORY_MAX: u64 = 4 << 30;

/// The plug-ins, in the order of their names.
pub(in crate::config) fn plugins(file: &File, yaml: &FirnYaml) -> Option<Vec<PluginSpec>> {
    let (mut out, mut whole) = (Vec::new(), true);
    for (name, yaml) in yaml.plugins.iter().flatten() {
        let path = join("plugins", name);
        let name = file.take(&path, PluginName::new(name.clone()));
        if yaml.is_none() && !file.is_cut(&path) {
            file.report(&path, "expected a mapping with `path` and `sha256`, found nothing");
        }
        match name.zip(yaml.as_ref()).and_then(|(name, yaml)| plugin(file, &path, name, yaml)) {
            Some(spec) => out.push(spec),
            None => whole = false,
        }
    }
    whole.then_some(out)
}

fn plugin(file: &File, path: &str, name: PluginName, yaml: &PluginYaml) -> Option<PluginSpec> {
    let at = |key: &str| join(path, key);
    let limits = PluginLimits::default();
    let memory = file.parse_or(&at("memory"), yaml.memory.as_ref(), ByteSize(limits.memory));
    if let Some(ByteSize(bytes)) = memory
        && !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes)
    {
        file.report(&at("memory"), "must be between 1MiB and 4GiB");
    }
    let digits = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if yaml.sha256.as_ref().is_some_and(|text| !digits(text)) {
        file.report(&at("sha256"), "is not 64 hexadecimal digits");
    }
    Some(PluginSpec {
        name,
        file: store(file, &at("path"), yaml.path.as_ref())?,
        sha256: yaml.sha256.as_ref().map(|text| text.to_ascii_lowercase()),
        limits: PluginLimits { memory: memory?.0, fuel_per_row: yaml.fuel_per_row.unwrap_or(limits.fuel_per_row) },
    })
}

/// `functions` with those of the plug-ins. A plug-in that is broken, or that this program cannot run, is reported, and lets
/// every name of a function pass. A program that leaves unknown functions to others leaves plug-ins to them, too.
pub(super) fn load(
    file: &File,
    yaml: &FirnYaml,
    (plugins, s3): (Option<&[PluginSpec]>, Option<&S3Options>),
    mut functions: Functions,
) -> Functions {
    let names = yaml.plugins.iter().flatten().filter_map(|(name, _)| PluginName::new(name.clone()).ok());
    let Some(loader) = functions.loader() else {
        for name in names.filter(|_| !functions.is_open()).collect::<Vec<_>>() {
            file.report(&join("plugins", name.as_str()), "this program is built without plug-ins");
            functions = functions.without(name);
        }
        return functions;
    };
    for name in names {
        let spec = plugins.and_then(|plugins| plugins.iter().find(|spec| spec.name == name));
        let loaded = match spec.map(|spec| loader(spec, s3)) {
            Some(Ok(Some(loaded))) => functions.clone().with(loaded),
            Some(Err(error)) => Err(error),
            Some(Ok(None)) | None => Ok(functions.clone().without(name.clone())),
        };
        functions = loaded.unwrap_or_else(|error| {
            file.report(&join("plugins", name.as_str()), error);
            functions.without(name)
        });
    }
    functions
}
