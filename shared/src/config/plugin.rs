//! WebAssembly plug-ins, as `firn.yaml` names them.

use std::collections::BTreeMap;

use super::domain::StoreUrl;
use super::units::ByteSize;
use super::wire::PluginYaml;
use crate::ids::PluginName;

/// A plug-in of `firn.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSpec {
    /// What the names of its functions begin with.
    pub name: PluginName,
    /// The file.
    pub file: StoreUrl,
    /// SHA-256 that the file must have, 64 lower-case hexadecimal digits.
    pub sha256: Option<String>,
    /// What a call may use.
    pub limits: PluginLimits,
}

/// What a call of a plug-in may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// Memory, bytes.
    pub memory: u64,
    /// Fuel a row; an instruction takes about one.
    pub fuel_per_row: u64,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self { memory: 64_000_000, fuel_per_row: 100_000 }
    }
}

/// Plug-ins in the words of the file.
pub(super) fn show(plugins: &[PluginSpec]) -> BTreeMap<String, Option<PluginYaml>> {
    let yaml = |spec: &PluginSpec| PluginYaml {
        path: Some(spec.file.to_string()),
        sha256: spec.sha256.clone(),
        memory: Some(ByteSize(spec.limits.memory).to_string()),
        fuel_per_row: Some(spec.limits.fuel_per_row),
    };
    plugins.iter().map(|spec| (spec.name.to_string(), Some(yaml(spec)))).collect()
}
