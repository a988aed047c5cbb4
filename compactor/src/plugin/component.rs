//! The file of a plug-in as a component.

use std::borrow::Cow;
use std::fmt::Display;

use memchr::memmem;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::Resolve;

/// What a plug-in exports, by version.
const EXPORTS: &[u8] = b"firn:plugin/functions@";

/// The versions of `plugin.wit` that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.0.0
    First,
    /// 2.0.0
    Second,
}

impl Version {
    fn wit(self) -> &'static str {
        match self {
            Self::First => include_str!("../../../deploy/plugins/plugin-1.0.0.wit"),
            Self::Second => include_str!("../../../deploy/plugins/plugin.wit"),
        }
    }
}

/// How every WebAssembly file begins: magic number, version, and whether it is a core module (0) or a component (1).
const CORE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// The version that a file is built for, as the name of its exports says. What has no such name is taken for one of the
/// second: what it lacks is told when it becomes a component, or is compiled.
///
/// # Errors
/// A version that is not understood.
pub fn version(file: &[u8]) -> Result<Version, String> {
    let Some(at) = memmem::find(file, EXPORTS) else { return Ok(Version::Second) };
    let rest = file[at + EXPORTS.len()..].iter().take(32);
    let word = rest.take_while(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(byte));
    match String::from_utf8_lossy(&word.copied().collect::<Vec<u8>>()).as_ref() {
        "1.0.0" => Ok(Version::First),
        "2.0.0" => Ok(Version::Second),
        other => Err(format!(
            "is built for version {other} of firn:plugin; this compactor runs 1.0.0 and 2.0.0: build the plug-in with the \
             `plugin.wit` of this release, or take a compactor that knows its version"
        )),
    }
}

/// A component as it is, or made of the core module that a compiler wrote: neither C nor Rust then needs a tool besides its
/// compiler. A module without a description of its world is taken for one of ours.
///
/// # Errors
/// What is wrong with the file.
pub fn component(file: &[u8], version: Version) -> Result<Cow<'_, [u8]>, String> {
    if file.starts_with(COMPONENT) {
        return Ok(file.into());
    }
    if !file.starts_with(CORE) {
        return Err("is neither a WebAssembly component nor a core module".to_owned());
    }
    let is_described = metadata::decode(file).map_err(|e| wrong(&e))?.0.is_some();
    let module = if is_described { file.into() } else { Cow::from(described(file, version)?) };
    let encoder = ComponentEncoder::default().module(&module).map_err(|e| wrong(&e))?;
    Ok(encoder.validate(true).encode().map_err(|e| wrong(&e))?.into())
}

/// A core module with the description that generators of bindings leave in theirs.
///
/// # Errors
/// What is wrong with it.
pub fn described(module: &[u8], version: Version) -> Result<Vec<u8>, String> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", version.wit()).map_err(|e| wrong(&e))?;
    let world = resolve.select_world(&[package], Some("plugin")).map_err(|e| wrong(&e))?;
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(|e| wrong(&e))?;
    Ok(module)
}

fn wrong(error: &dyn Display) -> String {
    format!("cannot become a component: {error:#}")
}
